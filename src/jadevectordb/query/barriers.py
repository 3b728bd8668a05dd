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
    """Of one database. Thread-safe. One round is on its way at most, and one is gathering."""

    def __init__(self, append: Append) -> None:
        self._append = append
        self._changed = threading.Condition()
        self._next = _Round()
        self._is_appending = False

    def sequences(self, shards: Collection[int], wait_s: float) -> dict[int, int]:
        """What a read that begins now must have seen, by shard. Raises what appending raises, UNAVAILABLE."""
        with self._changed:
            mine = self._next
            mine.shards.update(shards)
            if not self._is_appending:
                self._begin()
            if not self._changed.wait_for(lambda: mine.done, wait_s):
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"No majority of the log's servers said within {wait_s:g} s what is newest: retry, or read at eventual consistency.",
                )
        if mine.error is not None:
            raise JadeError(mine.error.code, mine.error.message, details=mine.error.details)
        return {shard: mine.sequences[shard] for shard in shards}

    def _begin(self) -> None:
        """Append for the round that is next. In a thread of its own: a log without a majority takes longer than readers wait."""
        mine, self._next, self._is_appending = self._next, _Round(), True
        threading.Thread(target=self._run, args=(mine,), name="jade-barrier", daemon=True).start()

    def _run(self, mine: _Round) -> None:
        try:
            mine.sequences = self._append(sorted(mine.shards))
        except JadeError as error:
            mine.error = error
        except Exception as error:
            mine.error = JadeError(ErrorCode.INTERNAL_ERROR, f"The log's end could not be asked for: {error!r}.")
            raise
        finally:
            with self._changed:
                mine.done, self._is_appending = True, False
                if self._next.shards:
                    self._begin()
                self._changed.notify_all()
