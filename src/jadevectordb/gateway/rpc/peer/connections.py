"""The connections to one peer: gRPC channels, each a TCP connection of its own, opened and closed as `pool_policy` says.

A channel connects with its first call. (Asking gRPC to connect at once starts a thread that fails when the channel is closed.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from jadevectordb.gateway.rpc.peer.pool_policy import Action, ConnectionId, Effect, PoolLimits, PoolPolicy
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import RPC_MESSAGE_BYTES_MAX_RECEIVED
from jadevectordb.ports.clock import Clock

OpenChannel = Callable[[str], grpc.Channel]

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # gRPC would share one TCP connection between all channels to an address
    ("grpc.use_local_subchannel_pool", 1),
    # What is tried again, and when, is for the retry policy alone
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", RPC_MESSAGE_BYTES_MAX_RECEIVED),
    ("grpc.max_send_message_length", RPC_MESSAGE_BYTES_MAX_RECEIVED),
    # A peer that vanished without closing is noticed while calls wait for it
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)


def channel_opener(credentials: grpc.ChannelCredentials | None = None, server_name: str = "") -> OpenChannel:
    """How to connect. credentials: TLS, None for none. server_name: in the peer's certificate, where not its address."""
    options = list(CHANNEL_OPTIONS)
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))

    def open_channel(address: str) -> grpc.Channel:
        if credentials is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, credentials, options)

    return open_channel


class Connection:
    """One channel, with the callables of its methods made once."""

    __slots__ = ("_channel", "_methods", "id")

    def __init__(self, connection: ConnectionId, channel: grpc.Channel) -> None:
        self.id = connection
        self._channel = channel
        self._methods: dict[str, Any] = {}  # bounded: by the methods of the service

    def method(self, path: str, serialize: Any, deserialize: Any) -> Any:
        found = self._methods.get(path)
        if found is None:
            found = self._channel.unary_unary(path, request_serializer=serialize, response_deserializer=deserialize)
            self._methods[path] = found
        return found

    def close(self) -> None:
        self._channel.close()


class ConnectionPool:
    """Thread-safe. A connection is acquired for one call and released with how it went."""

    def __init__(self, address: str, open_channel: OpenChannel, clock: Clock, limits: PoolLimits) -> None:
        self.address = address
        self._open_channel = open_channel
        self._clock = clock
        self._policy = PoolPolicy(limits)
        self._lock = threading.Lock()
        self._connections: dict[ConnectionId, Connection] = {}
        self._closed = False

    def acquire(self) -> Connection:
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, f"The connections to {self.address} are closed.")
            chosen, effects = self._policy.acquire(self._clock.monotonic_s())
            self._perform(effects)
            return self._connections[chosen]

    def release(self, connection: Connection, *, broken: bool) -> None:
        with self._lock:
            if not self._closed:
                self._perform(self._policy.release(connection.id, self._clock.monotonic_s(), broken=broken))

    def sweep(self) -> None:
        """Close what was idle for long."""
        with self._lock:
            if not self._closed:
                self._perform(self._policy.sweep(self._clock.monotonic_s()))

    def close(self) -> None:
        """Ends the calls under way too. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._perform(self._policy.close())

    @property
    def size(self) -> int:
        with self._lock:
            return self._policy.size

    @property
    def in_use(self) -> int:
        with self._lock:
            return self._policy.in_use

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect.action:
                case Action.OPEN:
                    made = Connection(effect.connection, self._open_channel(self.address))
                    self._connections[effect.connection] = made
                case Action.CLOSE:
                    self._connections.pop(effect.connection).close()
