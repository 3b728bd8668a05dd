"""All peers of a node: one `Peer` an address, made when it is first asked for, and one thread that closes idle connections."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jadevectordb.gateway.rpc.peer.connections import ConnectionPool, OpenChannel
from jadevectordb.gateway.rpc.peer.peer import Credential, Peer, PeerStatus
from jadevectordb.gateway.rpc.peer.pool_policy import PoolLimits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import PEERS_MAX
from jadevectordb.ports.clock import Clock

_SWEEP_S = 10.0


class Peers:
    """Thread-safe. open_channel: how to connect (`connections.channel_opener`). jitter: random numbers, 0 <= x < 1."""

    def __init__(
        self,
        clock: Clock,
        open_channel: OpenChannel,
        jitter: Callable[[], float],
        credential: Credential = (),
        limits: PoolLimits | None = None,
    ) -> None:
        self._clock = clock
        self._open_channel = open_channel
        self._jitter = jitter
        self._credential = credential
        self._limits = limits or PoolLimits()
        self._lock = threading.Lock()
        self._peers: dict[str, Peer] = {}
        self._closing = threading.Event()
        self._sweeper: threading.Thread | None = None

    def at(self, address: str) -> Peer:
        """The peer at HOST:PORT; the same object every time."""
        with self._lock:
            if self._closing.is_set():
                raise JadeError(ErrorCode.CLOSED, "The connections to other nodes are closed.")
            found = self._peers.get(address)
            if found is None:
                if len(self._peers) >= PEERS_MAX:
                    raise JadeError(
                        ErrorCode.INVALID_ARGUMENT, f"A node keeps connections to at most {PEERS_MAX} peers."
                    )
                pool = ConnectionPool(address, self._open_channel, self._clock, self._limits)
                found = self._peers[address] = Peer(pool, self._clock, self._jitter, self._credential)
                if self._sweeper is None:
                    self._sweeper = threading.Thread(target=self._sweep, name="jade-peers", daemon=True)
                    self._sweeper.start()
            return found

    def forget(self, address: str) -> None:
        """The node left: close its connections. Nothing happens when it is not known."""
        with self._lock:
            gone = self._peers.pop(address, None)
        if gone is not None:
            gone.close()

    def status(self) -> list[PeerStatus]:
        """By address."""
        with self._lock:
            peers = sorted(self._peers.values(), key=lambda peer: peer.address)
        return [peer.status() for peer in peers]

    def close(self) -> None:
        """Ends calls under way. Idempotent."""
        with self._lock:
            self._closing.set()
            peers, self._peers = list(self._peers.values()), {}
        for peer in peers:
            peer.close()
        if self._sweeper is not None:
            self._sweeper.join()

    def _sweep(self) -> None:
        while not self._closing.wait(_SWEEP_S):
            with self._lock:
                peers = list(self._peers.values())
            for peer in peers:
                peer.sweep()
