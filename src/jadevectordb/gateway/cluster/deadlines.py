"""Something is to be done in so long, unless it is not needed any more: one thread for all of it, which sleeps while there is none."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

from jadevectordb.ports.clock import Clock

_FORGOTTEN_MIN = 1024


class Deadlines:
    """Actions run in this object's thread, and must be quick. Every method may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: list[tuple[float, int]] = []  # heap: (when, number), those cancelled included
        self._actions: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="jade-deadlines", daemon=True)
        self._thread.start()

    def after(self, delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
        """What this returns cancels it."""
        with self._changed:
            number = next(self._numbers)
            self._actions[number] = action
            heapq.heappush(self._due, (self._clock.monotonic_s() + delay_s, number))
            if self._due[0][1] == number:
                self._changed.notify()
        return lambda: self._cancel(number)

    def _cancel(self, number: int) -> None:
        with self._changed:
            self._actions.pop(number, None)
            if len(self._due) > 2 * len(self._actions) + _FORGOTTEN_MIN:
                self._due = [one for one in self._due if one[1] in self._actions]
                heapq.heapify(self._due)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._is_due():
                    self._changed.wait(self._due[0][0] - self._clock.monotonic_s() if self._due else None)
                if self._closed:
                    return
                action = self._actions.pop(heapq.heappop(self._due)[1], None)
            if action is not None:
                action()

    def _is_due(self) -> bool:
        return bool(self._due) and self._due[0][0] <= self._clock.monotonic_s()

    def close(self) -> None:
        """What is not due yet is not done. Again is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
