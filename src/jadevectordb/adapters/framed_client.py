"""The transport port over framed connections: one connection to each node asked, in one event loop thread.

A fan-out to four nodes costs the coordinator about 110 us of CPU when it is alone and 40 us when sixteen run at once
(`bench/node_calls.py`). Connections are kept by `framed_peer`, calls by `framed_calls`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from jadevectordb.adapters.framed_calls import AskedCall
from jadevectordb.adapters.framed_connection import PATIENCE, Patience
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_peer import Peer, PeerState, closed
from jadevectordb.adapters.framed_tls import asking_context
from jadevectordb.adapters.loop_thread import LoopThread, NodeLoop
from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.adapters.timers import Timers
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NODE_PEERS_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.transport import OnAnswer, Pending

_CALL_GRACE_S = 5.0  # beyond a call's own deadline: the loop itself hangs


class FramedTransport:
    """Transport port."""

    def __init__(
        self,
        identity: NodeIdentity,
        clock: Clock,
        *,
        tls: TlsFiles | None = None,
        loop: NodeLoop | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        """loop: to share with others; it is the caller's to close, after this. Raises INVALID_ARGUMENT for unusable TLS files."""
        self._identity = identity
        self._patience = patience
        self._tls: ssl.SSLContext | None = asking_context(tls) if tls else None
        self.now_s = clock.monotonic_s
        self._own_loop = LoopThread(f"jade-transport-{identity.node}") if loop is None else None
        self.loop: NodeLoop = loop or self._own_loop  # type: ignore[assignment]  # one of them is there
        self._timers = Timers(self.loop.loop, self.now_s)
        self._peers: dict[str, Peer] = {}  # the loop's own, at most NODE_PEERS_MAX
        self._keeping: set[asyncio.Task[None]] = set()
        self._closed = False  # the loop's own

    def begin(self, address: str, call: msgspec.Struct, timeout_s: float, on_answer: OnAnswer) -> Pending:
        """As the port says."""
        asked = AskedCall(call, timeout_s, on_answer)
        asked.timer = self._timers.after(timeout_s, asked.expire)
        try:
            peer = self._peers.get(address) or self._begin_peer(address)
            peer.ask(asked)
        except JadeError as error:
            self.loop.loop.call_soon(asked.finish, None, error)
        except BaseException:  # a defect of the caller's
            asked.cancel()
            raise
        return asked

    def after(self, delay_s: float, action: Callable[[], None]) -> Pending:
        return self._timers.after(delay_s, action)

    def run(self, action: Callable[[], None]) -> None:
        self.loop.run(action)

    def call(self, address: str, call: msgspec.Struct, timeout_s: float) -> Any:
        assert not self.loop.is_here, "the loop must not wait for itself"
        done: Future[Any] = Future()

        def answered(answer: Any, error: Exception | None) -> None:
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(answer)

        def begin() -> None:
            try:
                self.begin(address, call, timeout_s, answered)
            except BaseException as defect:
                done.set_exception(defect)

        self.loop.run(begin)
        try:
            return done.result(timeout_s + _CALL_GRACE_S)
        except TimeoutError:
            raise JadeError(
                ErrorCode.TIMEOUT, f"the connections of this node itself hang: no answer in {timeout_s:g} s"
            ) from None

    def peers(self) -> list[PeerState]:
        """From any thread."""
        return [peer.state() for peer in list(self._peers.values())]

    def close(self) -> None:
        """Calls under way fail with CLOSED. Again is fine."""
        if not self._closed:
            self.loop.ask(self._close)
        if self._own_loop is not None:
            self._own_loop.close()

    # --- the loop's thread --------------------------------------------------------------------------------------------

    def _begin_peer(self, address: str) -> Peer:
        if self._closed:
            raise closed()
        if len(self._peers) >= NODE_PEERS_MAX:
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"connections to {NODE_PEERS_MAX} nodes are kept already",
                details={"sent": False},
            )
        peer = Peer(address, self.loop.loop, self._identity, self._tls, self.now_s, self._patience)
        self._peers[address] = peer
        task = self.loop.start(peer.keep())
        self._keeping.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._keeping.discard(task)
            self._peers.pop(address, None)

        task.add_done_callback(ended)
        return peer

    def _close(self) -> None:
        self._closed = True
        for task in self._keeping:
            task.cancel()
        for peer in self._peers.values():
            peer.end(closed())
