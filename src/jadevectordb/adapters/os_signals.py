"""Ctrl-C at the wrong moment: signals wait while a change is made that must not stop half-way.

Python runs signal handlers between any two bytecodes of the main thread, so a KeyboardInterrupt can land between "the
frame is durable" and "the replicas know it". Inside `Uninterrupted` the handlers of the usual signals are replaced by one
that takes note; after the block each noted signal is raised again and does what it would have done.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


class Uninterrupted:
    """Context manager; a few microseconds in the main thread, nothing in others, where Python runs no handlers."""

    __slots__ = ("_noted", "_saved")

    def __init__(self) -> None:
        self._saved: list[tuple[int, Any]] = []
        self._noted: list[int] = []

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._saved.append((number, handler))
                    signal.signal(number, self._note)
        except ValueError:  # the main thread of a subinterpreter: no handlers run here either
            self._saved.clear()
        except BaseException:  # a handler not yet replaced has raised
            self._restore()
            raise

    def __exit__(self, *_: object) -> None:
        if self._saved:
            self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)

    def _restore(self) -> None:
        """Put every handler back, also when one that is back already raises on the way; then raise what was noted."""
        if self._saved:
            number, handler = self._saved.pop()
            try:
                signal.signal(number, handler)
            finally:
                self._restore()
        elif self._noted:
            number = self._noted.pop(0)
            try:
                signal.raise_signal(number)
            finally:
                self._restore()
