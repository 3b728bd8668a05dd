"""The log's end as a majority has it, for reads that must see every write answered before: one barrier entry for many reads.

Asking a stream's leader for its last sequence is not enough: one that was cut off and does not know it would name an old one.
An entry that was stored is newer than every write acknowledged before it was sent. So a read may use a barrier that is sent
after the read began, never one that is on its way already: reads that arrive meanwhile share the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from jadevectordb.model.errors import ErrorCode, JadeError

Append = Callable[[Collection[int]], dict[int, int]]  # a barrier to each of these shards' logs; their sequences


class _Round:
    __slots__ = ("done", "error", "sequences", "shards")

    def __init__(self) -> None:
        self.shards: set[int] = set()
        self.sequences: dict[int, int] = {}
        self.error: JadeError | None = None
        self.done = False


class Barriers:
    """Of one database. Thread-safe; the first reader of a round appends for all of it."""

    def __init__(self, append: Append) -> None:
        self._append = append
        self._changed = threading.Condition()
        self._next = _Round()
        self._is_appending = False

    def sequences(self, shards: Collection[int], wait_s: float) -> dict[int, int]:
        """What a read that begins now must have seen, by shard. Raises what appending raises, TIMEOUT."""
        with self._changed:
            mine = self._next
            mine.shards.update(shards)
            if not self._changed.wait_for(lambda: mine.done or not self._is_appending, wait_s):
                raise JadeError(
                    ErrorCode.TIMEOUT,
                    f"The log's end could not be made sure of within {wait_s:g} s: retry, or read at another consistency.",
                )
            leads = not mine.done
            if leads:
                self._next, self._is_appending = _Round(), True
        if leads:
            self._lead(mine)
        if mine.error is not None:
            raise JadeError(mine.error.code, mine.error.message, details=mine.error.details)
        return {shard: mine.sequences[shard] for shard in shards}

    def _lead(self, mine: _Round) -> None:
        try:
            mine.sequences = self._append(sorted(mine.shards))
        except JadeError as error:
            mine.error = error
        except BaseException:
            mine.error = JadeError(ErrorCode.CANCELLED, "The read that asked for the log's end was interrupted: retry.")
            raise
        finally:
            with self._changed:
                mine.done, self._is_appending = True, False
                self._changed.notify_all()
