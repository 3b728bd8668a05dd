"""How far a replica has applied its log, and who waits for it to come further. No thread waits: callers leave a callback.

Also what the newest entries did, for the writer of an entry asks a replica, not the log.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import TypeAlias

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.limits import APPLIED_WAITERS_MAX, OUTCOMES_KEPT_MAX
from jadevectordb.model.operations import Outcome

OnApplied: TypeAlias = Callable[[JadeError | None], None]  # None: it is applied; else why it will not be, here


class RecentOutcomes(dict[tuple[ShardId, Sequence], Outcome]):
    """What the newest entries did. Written by the thread that applies, read by any."""

    def __setitem__(self, key: tuple[ShardId, Sequence], outcome: Outcome) -> None:
        super().__setitem__(key, outcome)
        self.pop((key[0], Sequence(key[1] - OUTCOMES_KEPT_MAX)), None)


class Watermark:
    """The progress port of a database with one shard. Callbacks run in the thread that applies, or that closes: they must be quick."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._position = 0
        self._due: list[tuple[int, int]] = []  # heap: (sequence, number), those cancelled included
        self._waiting: dict[int, OnApplied] = {}  # by number
        self._numbers = itertools.count()
        self._ended: JadeError | None = None

    @property
    def position(self) -> Sequence:
        """The newest entry that searches see."""
        return Sequence(self._position)

    def when_reached(self, sequence: int, callback: OnApplied) -> Callable[[], None] | None:
        """Call it once when entry `sequence` is applied: at once if it is. What cancels that, None if it was called.

        Raises UNAVAILABLE when too many wait.
        """
        with self._lock:
            if self._position < sequence and self._ended is None:
                if len(self._waiting) >= APPLIED_WAITERS_MAX:
                    raise JadeError(
                        ErrorCode.UNAVAILABLE,
                        f"{len(self._waiting)} callers wait for this replica already; retry in a moment.",
                    )
                number = next(self._numbers)
                self._waiting[number] = callback
                heapq.heappush(self._due, (sequence, number))
                return lambda: self._cancel(number)
            error = self._ended if self._position < sequence else None
        callback(error)
        return None

    def _cancel(self, number: int) -> None:
        with self._lock:
            self._waiting.pop(number, None)
            if len(self._due) > 2 * len(self._waiting) + 64:
                self._due = [one for one in self._due if one[1] in self._waiting]
                heapq.heapify(self._due)

    # --- the progress port --------------------------------------------------------------------------------------------

    def opened(self, position: int) -> None:
        with self._lock:
            self._position = position

    def applying(self, entries: int) -> None:
        pass  # an answer says itself what it was computed at

    def applied(self, entries: int) -> None:
        reached: list[OnApplied] = []
        with self._lock:
            self._position += entries
            while self._due and self._due[0][0] <= self._position:
                callback = self._waiting.pop(heapq.heappop(self._due)[1], None)
                if callback is not None:
                    reached.append(callback)
        for callback in reached:
            callback(None)

    def installed(self) -> None:
        pass

    def ended(self) -> None:
        """Closed, or damaged: nobody is to wait any longer."""
        error = JadeError(ErrorCode.UNAVAILABLE, "The replica is being closed here; ask another one.")
        with self._lock:
            if self._ended is not None:
                return
            self._ended = error
            waiting, self._waiting = self._waiting, {}
            self._due = []
        for callback in waiting.values():
            callback(error)
