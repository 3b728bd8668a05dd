"""The asking end of a connection between nodes: calls under way, and what becomes of each.

No future and no task a call: a small object in a dictionary by number, whose callback the answer's arrival calls. A search asks
several nodes at once, so this path is a good part of what a search over a cluster costs its coordinator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from jadevectordb.adapters import framed_wire as wire
from jadevectordb.adapters.framed_connection import PATIENCE, FramedConnection, Patience
from jadevectordb.adapters.framed_greeting import NodeIdentity, Side
from jadevectordb.adapters.loop_thread import report_defect
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NODE_CALLS_MAX
from jadevectordb.ports.node_calls import ANSWERS, NUMBERS
from jadevectordb.ports.transport import OnAnswer, Pending

_NUMBER_MAX = 0xFFFF_FFFF
_DECODERS: dict[type[msgspec.Struct], Callable[[memoryview], Any]] = {
    kind: msgspec.msgpack.Decoder(answer).decode if answer is not None else bytes for kind, answer in ANSWERS.items()
}


class AskedCall:
    """A call under way: waiting for a connection, sent, or over (`on_answer` is None)."""

    __slots__ = ("asker", "call", "number", "on_answer", "timeout_s", "timer")

    def __init__(self, call: msgspec.Struct, timeout_s: float, on_answer: OnAnswer) -> None:
        self.call = call
        self.timeout_s = timeout_s
        self.on_answer: OnAnswer | None = on_answer
        self.timer: Pending | None = None
        self.asker: AskingConnection | None = None  # None: not sent
        self.number = 0

    def cancel(self) -> None:
        if self.on_answer is not None:
            self.on_answer = None
            self._let_go()

    def expire(self) -> None:
        """Its time is over."""
        self.timer = None
        sent = self.asker is not None
        where = f"node {self.asker.greeting.other_node} has not answered" if self.asker else "no connection was made"
        name = type(self.call).__name__
        self._let_go()
        self.finish(
            None,
            JadeError(ErrorCode.TIMEOUT, f"{where} within {self.timeout_s:g} s ({name})", details={"sent": sent}),
        )

    def finish(self, answer: Any, error: Exception | None) -> None:
        on_answer, self.on_answer = self.on_answer, None
        if self.timer is not None:
            self.timer.cancel()
        if on_answer is None:  # cancelled
            return
        try:
            on_answer(answer, error)
        except Exception as defect:  # of who asked; other calls of this connection have nothing to do with it
            report_defect(defect)

    def _let_go(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.asker is not None:
            self.asker.forget(self)


class AskingConnection(FramedConnection):
    """on_open, on_end: called in the loop, the latter always, the former first or never."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        identity: NodeIdentity,
        on_open: Callable[[], None],
        on_end: Callable[[JadeError], None],
        patience: Patience = PATIENCE,
    ) -> None:
        super().__init__(loop, Side.ASKER, identity, patience)
        self._on_open = on_open
        self._on_end = on_end
        self._calls: dict[int, AskedCall] = {}  # sent and not over, by number; at most NODE_CALLS_MAX
        self._number = 0

    @property
    def calls_under_way(self) -> int:
        return len(self._calls)

    def ask(self, asked: AskedCall) -> None:
        """Send it; its timer runs already. Raises UNAVAILABLE (too much is under way), REQUEST_TOO_LARGE."""
        if len(self._calls) >= NODE_CALLS_MAX or self.is_choked:
            raise self._busy()
        self._number = number = self._number % _NUMBER_MAX + 1
        call = asked.call
        buffers = wire.pack(number, wire.CALL, NUMBERS[type(call)], wire.encode(call))
        asked.number, asked.asker = number, self
        self._calls[number] = asked
        self.send(buffers)

    def forget(self, asked: AskedCall) -> None:
        """Nobody waits for it any more."""
        if self._calls.pop(asked.number, None) is not None and self.is_open:
            self.send((wire.signal(asked.number, wire.CANCEL),))

    def opened(self) -> None:
        self._on_open()

    def received(self, number: int, kind: int, code: int, payload: memoryview) -> None:
        if kind not in (wire.ANSWER, wire.BYTES_ANSWER, wire.ERROR):
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"a frame of kind {kind} came to the side that asks")
        asked = self._calls.pop(number, None)
        if asked is None:  # cancelled, or too late
            return
        if kind == wire.ERROR:
            asked.finish(None, wire.failure_error(payload))
            return
        try:
            answer = _DECODERS[type(asked.call)](payload)
        except msgspec.MsgspecError as error:
            name = type(asked.call).__name__
            asked.finish(
                None,
                JadeError(
                    ErrorCode.INTERNAL_ERROR,
                    f"node {self.greeting.other_node} answered {name} with something else ({error})",
                ),
            )
            return
        asked.finish(answer, None)

    def ended(self, why: JadeError) -> None:
        calls = list(self._calls.values())
        self._calls.clear()
        for asked in calls:
            asked.finish(None, self._lost(why))
        self._on_end(why)

    def _lost(self, why: JadeError) -> JadeError:
        if why.code is ErrorCode.CLOSED:
            return why
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"the connection to node {self.greeting.other_node} ({self.remote}) was lost: {why.message}",
            details={"sent": True},
        )

    def _busy(self) -> JadeError:
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"node {self.greeting.other_node} ({self.remote}) is behind: {len(self._calls)} calls to it are under way",
            details={"sent": False},
        )
