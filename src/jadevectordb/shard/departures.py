"""Ids whose row left this shard for another one lately: what keeps a reader of several shards from missing a vector that moves.

Where shards share one log, a vector that is written anew may change shards, at one sequence. A reader that sees the shard it left
after that sequence, and the shard it went to before, sees it nowhere. So each shard says which ids left it, when and where to; and,
since it remembers only so many, up to which sequence it may have forgotten some. A reader that is told asks again; it is
never told too little.

It is no part of what a replica must agree about with the others: a replica that starts knows nothing of the time before, and says so.
"""

from __future__ import annotations

from collections import deque

from jadevectordb.model.ids import Sequence
from jadevectordb.model.limits import DEPARTURES_REMEMBERED_MAX


class Departures:
    """One writer, any number of readers, who take no lock: what they read is at least as new as a view taken before."""

    def __init__(self, forgotten: int = 0, *, most: int = DEPARTURES_REMEMBERED_MAX) -> None:
        """forgotten: where the shard's state was taken over."""
        self._most = most
        self._latest: dict[str, tuple[Sequence, int]] = {}
        self._order: deque[tuple[Sequence, str]] = (
            deque()
        )  # of all that was added; what an id did before its latest included
        self._forgotten = Sequence(forgotten)

    def add(self, vector_id: str, sequence: Sequence, place: int) -> None:
        """Its row left this shard for shard `place` at this sequence, the newest so far."""
        self._latest[vector_id] = (sequence, place)
        self._order.append((sequence, vector_id))
        if len(self._order) > self._most:
            oldest, name = self._order.popleft()
            if self._latest[name][0] == oldest:
                self._forgotten = oldest  # before it is gone: readers look at this last
                del self._latest[name]

    def latest(self, vector_id: str) -> tuple[Sequence, int] | None:
        """When the id left this shard last, and where to; None when it did not, or that is forgotten."""
        return self._latest.get(vector_id)

    def since(self, sequence: int) -> list[tuple[str, int, int]]:
        """(id, sequence, place) of those that left after this sequence and are remembered."""
        return [(name, at, place) for name, (at, place) in self._latest.copy().items() if at > sequence]

    @property
    def is_empty(self) -> bool:
        return not self._latest

    @property
    def forgotten(self) -> Sequence:
        """What left after this sequence is remembered. To be read after what it is compared with."""
        return self._forgotten
