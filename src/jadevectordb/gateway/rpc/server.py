"""The gRPC server of a node: which services it has, how many threads and bytes it may take, TLS, start and stop."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from jadevectordb.gateway.rpc.dispatch import Served
from jadevectordb.gateway.rpc.node import LongCalls, Node, Watch
from jadevectordb.gateway.rpc.public import Health, reflection_rpcs
from jadevectordb.gateway.rpc.table import HEALTH, RPC_OPERATIONS, RPCS, Rpc
from jadevectordb.gateway.rpc.threads import CallThreads
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    REQUESTS_WAITING_MAX,
    RPC_CALLS_PER_CONNECTION_MAX,
    RPC_HEALTH_WATCHERS_MAX,
    RPC_LONG_CALLS_MAX,
    RPC_METADATA_BYTES_MAX,
    RPC_REQUEST_BYTES_MAX,
    RPC_STREAM_IDLE_S_MAX,
    RPC_THREADS,
)

_SWEEP_S = 1.0
_HEALTH_THREADS = 2


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """threads: calls served at once. long_calls_max: of these, streams and waits; less than threads.

    idle_s_max: a call that waits for its client for longer is ended. reuse_port: several processes listen on one port.
    """

    threads: int = RPC_THREADS
    long_calls_max: int = RPC_LONG_CALLS_MAX
    waiting_max: int = REQUESTS_WAITING_MAX
    request_bytes_max: int = RPC_REQUEST_BYTES_MAX
    idle_s_max: float = RPC_STREAM_IDLE_S_MAX
    reuse_port: bool = False

    def __post_init__(self) -> None:
        assert 1 <= self.long_calls_max < self.threads


class RpcServer:
    """host, port: None is what the settings say; port 0 is any free one. `start` once, `stop` once (again does nothing)."""

    def __init__(
        self, services: Services, host: str | None = None, port: int | None = None, options: RpcOptions | None = None
    ) -> None:
        settings = services.settings
        self._options = options or RpcOptions()
        self._address = _address(settings.server.host if host is None else host)
        self._port = settings.server.grpc_port if port is None else port
        tls = settings.tls
        self._credentials = server_credentials(tls.certificate, tls.key, tls.client_ca) if tls.certificate else None
        watch = Watch(self._options.idle_s_max, services.clock)
        self.node = Node(services, watch, LongCalls(self._options.long_calls_max))
        names = sorted({rpc.service for rpc in RPCS})
        self._health = Health(names, RPC_HEALTH_WATCHERS_MAX)
        self._health_pool = ThreadPoolExecutor(_HEALTH_THREADS, thread_name_prefix="jade-rpc-health")
        self._pool = CallThreads(self._options.threads, "jade-rpc")
        self._server = grpc.server(
            self._pool,
            options=_channel_options(self._options),
            maximum_concurrent_rpcs=self._options.threads + self._options.waiting_max,
        )
        self._add((*RPCS, *reflection_rpcs(names)))
        self._stopping = threading.Event()
        self._stopped = False
        self.port = 0  # once it listens, where
        self._sweeper = threading.Thread(target=self._sweep, name="jade-rpc-sweep", daemon=True)

    def _add(self, rpcs: tuple[Rpc, ...]) -> None:
        handlers: dict[str, dict[str, Any]] = {}
        for rpc in rpcs:
            handlers.setdefault(rpc.service, {})[rpc.name] = Served(self.node, rpc).method_handler()
        own = {rpc.name: Served(self.node, rpc, self._health_pool).method_handler() for rpc in self._health.rpcs()}
        handlers[HEALTH] = {**own, "Watch": self._health.watch_handler()}
        for service, methods in handlers.items():
            for name in methods:
                assert f"/{service}/{name}" in RPC_OPERATIONS, f"{service}/{name} names no operation"
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))

    def start(self) -> int:
        """Listen; the port. Raises UNAVAILABLE when the address can't be listened on."""
        target = f"{self._address}:{self._port}"
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(target)
            else:
                port = self._server.add_secure_port(target, self._credentials)
        except RuntimeError:
            port = 0
        if not port:
            self.stop(0.0)
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"Can't listen on {target} for gRPC: is another server running there? Choose another --grpc-port or --host.",
            )
        self._server.start()
        self._sweeper.start()
        self.port = port
        return port

    def stop(self, grace_s: float) -> None:
        """Take no new calls, give those under way `grace_s` to finish, then cancel them; returns when all threads ended."""
        if self._stopped:
            return
        self._stopped = True
        self.node.stopping = True
        self._health.stopping()
        self._stopping.set()
        self._server.stop(grace_s).wait()
        if self._sweeper.is_alive():
            self._sweeper.join()
        self._pool.shutdown()
        self._health_pool.shutdown()
        self._health.close()

    def _sweep(self) -> None:
        while not self._stopping.wait(_SWEEP_S):
            self.node.watch.sweep()


def server_credentials(certificate: str, key: str, client_ca: str = "") -> grpc.ServerCredentials:
    """TLS from PEM files; with client_ca, clients must show a certificate that it signed. Raises INVALID_ARGUMENT."""
    chain, private = _pem(certificate, "certificate"), _pem(key or certificate, "key")
    roots = _pem(client_ca, "client CA") if client_ca else None
    return grpc.ssl_server_credentials(
        [(private, chain)], root_certificates=roots, require_client_auth=roots is not None
    )


def _pem(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"The TLS {what} {path} can't be read ({error.strerror}): check the setting."
        ) from None


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _channel_options(options: RpcOptions) -> list[tuple[str, Any]]:
    return [
        # Two servers on one port would share its clients by chance
        ("grpc.so_reuseport", int(options.reuse_port)),
        ("grpc.max_receive_message_length", options.request_bytes_max),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", RPC_METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", 4 * RPC_METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", RPC_CALLS_PER_CONNECTION_MAX),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # A client that vanished is noticed; one that pings more often than every 10 s is sent away
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.max_connection_idle_ms", 15 * 60_000),
    ]
