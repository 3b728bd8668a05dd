"""Timers of a loop for deadlines, which nearly always are cancelled: never early, and not much later than asked for.

A timer of the loop costs as much as sending a call does. A search sets several, some seconds ahead, and cancels them a millisecond
later. Those that are due in the same stretch of time share one timer of the loop; to cancel one is to forget it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jadevectordb.adapters.loop_thread import report_defect

_TIMER_S_MIN = 0.001  # what the loop's timers count in
_SHARED_S_MIN = 1.0  # from so far ahead on, a timer may be late by
_STRETCH_S = 0.05


class Later:
    """A timer of its own. The loop's count milliseconds of a coarse clock and may fire two of them too soon; this is not early."""

    __slots__ = ("_action", "_due_s", "_loop", "_now_s", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, now_s: Callable[[], float], due_s: float, action: Callable[[], None]
    ) -> None:
        self._loop, self._now_s, self._action, self._due_s = loop, now_s, action, due_s
        self._timer = loop.call_later(max(0.0, due_s - now_s()), self._look)

    def _look(self) -> None:
        left_s = self._due_s - self._now_s()
        if left_s > 0:
            self._timer = self._loop.call_later(max(left_s, _TIMER_S_MIN), self._look)
        else:
            self._action()

    def cancel(self) -> None:
        self._timer.cancel()


class _Shared:
    __slots__ = ("_stretch", "action")

    def __init__(self, stretch: dict[_Shared, None], action: Callable[[], None]) -> None:
        self._stretch = stretch
        self.action = action

    def cancel(self) -> None:
        self._stretch.pop(self, None)


class Timers:
    """Used in the loop only. As many timers of the loop at most as there are stretches up to the latest deadline."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now_s: Callable[[], float]) -> None:
        self._loop = loop
        self._now_s = now_s
        self._stretches: dict[int, dict[_Shared, None]] = {}  # by number, in the order of asking

    def after(self, delay_s: float, action: Callable[[], None]) -> Later | _Shared:
        """Call it after so long; one of a second or more may be up to a twentieth of one late."""
        due_s = self._now_s() + delay_s
        if delay_s < _SHARED_S_MIN:
            return Later(self._loop, self._now_s, due_s, action)
        number = int(due_s / _STRETCH_S) + 1  # its end
        stretch = self._stretches.get(number)
        if stretch is None:
            stretch = self._stretches[number] = {}
            Later(self._loop, self._now_s, number * _STRETCH_S, lambda: self._end(number))
        timer = _Shared(stretch, action)
        stretch[timer] = None
        return timer

    def _end(self, number: int) -> None:
        stretch = self._stretches.pop(number)
        while stretch:  # an action may cancel others
            timer = next(iter(stretch))
            del stretch[timer]
            try:
                timer.action()
            except Exception as defect:  # of one who asked; the others have nothing to do with it
                report_defect(defect)
