"""The transport port: calls between nodes. Real connections in a cluster, a simulated network in `sim`.

Contract, the same for every adapter: `tests/contract/test_transport_contract.py`.

Everything is asynchronous at heart: a call is begun, and its answer, or the error that took its place, comes to a callback. Callbacks
run in one thread of the transport's own (its loop), one at a time, so that what coordinates several calls needs no lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

OnAnswer = Callable[
    [Any, Exception | None], None
]  # the answer (a struct, or bytes where the call answers with bytes), or the error


class Pending(Protocol):
    """A call under way."""

    def cancel(self) -> None:
        """Nobody wants the answer: the callback is not called any more, and the other side is told. Again is fine."""
        ...


class Transport(Protocol):
    def begin(self, address: str, call: msgspec.Struct, timeout_s: float, on_answer: OnAnswer) -> Pending:
        """Send a call (`ports.node_calls`) to HOST:PORT. To be called in the loop; `on_answer` is called later, once, in the loop.

        Errors, all through `on_answer`: UNAVAILABLE (no connection, it was lost, or too much is under way on it) and TIMEOUT, whose
        details["sent"] says whether the call may have arrived; REQUEST_TOO_LARGE; CLOSED; what the other side raised, with its code
        and details. Where no connection could be made a short while ago, UNAVAILABLE comes at once: ask another replica.
        """
        ...

    def after(self, delay_s: float, action: Callable[[], None]) -> Pending:
        """Call `action` in the loop after so long, never earlier by `now_s`, unless cancelled."""
        ...

    def run(self, action: Callable[[], None]) -> None:
        """Have `action` called in the loop soon, in the order of these calls; from any thread. Raises CLOSED."""
        ...

    def now_s(self) -> float:
        """The monotonic clock that deadlines are on."""
        ...

    def call(self, address: str, call: msgspec.Struct, timeout_s: float) -> Any:
        """Begin a call from any thread but the loop's and wait for its answer; raises its error."""
        ...

    def close(self) -> None:
        """Calls under way fail with CLOSED. Not from the loop. Again is fine."""
        ...


class Answerer(Protocol):
    """What answers calls of other nodes on this one."""

    def answer(self, call: msgspec.Struct, reply: Callable[[Any, Exception | None], None]) -> Callable[[], None] | None:
        """Begin to answer; `reply` is called once, from any thread, with the answer or an error.

        Called in the server's loop: what takes long must go elsewhere. The result, if any, is called in the loop when the asker gave up
        or is gone; a reply after that goes nowhere.
        """
        ...
