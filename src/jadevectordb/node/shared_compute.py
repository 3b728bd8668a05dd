"""One process for the heavy work of many replicas: each builds when it is its turn, hurried work first.

Hurried work cuts off what is not, which is done again after it.

A node holds many replicas, each with background work of its own. With a process each they would take the machine from searching, and
a hundred megabytes apiece; so all of a node's replicas share one process for each lane.
"""

from __future__ import annotations

import threading

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.compute import Compute

_LOOK_S = 0.1


class SharedCompute:
    """compute: owned. Replicas use what `share` gives them, and close that."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._changed = threading.Condition()  # guards the fields below
        self._running: _Share | None = None
        self._is_running_hurried = False
        self._waiting: list[tuple[bool, _Share]] = []  # (whether unhurried, who), in the order they came

    def share(self) -> Compute:
        return _Share(self)

    def close(self) -> None:
        """End the process. To be called when every share is closed."""
        self._compute.close()

    # --- for shares -----------------------------------------------------------------------------------------------------

    def run(self, share: _Share, task: str, payload: bytes, hurried: bool) -> bytes:
        turn = (not hurried, share)
        with self._changed:
            self._waiting.append(turn)
            while not (share.is_closed or (self._running is None and self._next() is turn)):
                if not hurried or self._running is None or self._is_running_hurried:
                    self._changed.wait()
                else:  # nobody waits for that one, and it takes only what the machine has to spare: it may take for ever
                    self._compute.interrupt()  # again and again: its task may be about to begin
                    self._changed.wait(_LOOK_S)
            self._waiting.remove(turn)
            if share.is_closed:
                self._changed.notify_all()
                raise _closed()
            self._running, self._is_running_hurried = share, hurried
        try:
            return self._compute.run(task, payload, hurried=hurried)
        except JadeError as error:
            if error.code is ErrorCode.CANCELLED and share.is_closed:
                raise _closed() from error
            raise
        finally:
            with self._changed:
                self._running = None
                self._changed.notify_all()

    def _next(self) -> tuple[bool, _Share]:
        return min(self._waiting, key=lambda turn: turn[0])  # of equals the first

    def interrupt(self, share: _Share) -> None:
        with self._changed:
            if self._running is share:
                self._compute.interrupt()

    def rest(self) -> None:
        with self._changed:
            if self._running is None and not self._waiting:
                self._compute.rest()

    def end(self, share: _Share) -> None:
        """Return when nothing runs for it any more."""
        with self._changed:
            self._changed.notify_all()
            while self._running is share:
                self._compute.interrupt()  # again and again: its task may be about to begin
                self._changed.wait(_LOOK_S)


class _Share:
    """The compute port of one replica's lane: used by one thread."""

    def __init__(self, shared: SharedCompute) -> None:
        self._shared = shared
        self.is_closed = False

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        return self._shared.run(self, task, payload, hurried)

    def interrupt(self) -> None:
        self._shared.interrupt(self)

    def rest(self) -> None:
        self._shared.rest()

    def close(self) -> None:
        self.is_closed = True
        self._shared.end(self)


def _closed() -> JadeError:
    return JadeError(
        ErrorCode.CLOSED, "The replica was closed while an index was built; it is built when it is opened again."
    )
