"""An immutable picture of a shard: which rows of which segments are alive, up to which log sequence.

Searches take a view and never wait for a writer; a writer publishes a new one after a whole frame is applied, so a search
never sees half a batch. Tombstones are bitmaps replaced on change, never edited.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from jadevectordb.index.bitmap import Bitmap
from jadevectordb.model.filters import Filter
from jadevectordb.model.ids import Sequence
from jadevectordb.segment.reader import Allowed, SegmentReader
from jadevectordb.segment.records import hash_ids
from jadevectordb.shard.departures import Departures


@dataclass(frozen=True, slots=True)
class Part:
    """One segment as this view sees it. alive: None while every row lives; live = rows alive, 0 <= live <= row_count."""

    reader: SegmentReader
    alive: Bitmap | None
    live: int
    # What recent filters allow here, for the next search with the same one; at most FILTERS_REMEMBERED_MAX.
    remembered: dict[Filter, Allowed] = field(default_factory=dict, compare=False, repr=False)

    def is_alive(self, row: int) -> bool:
        return self.alive is None or bool(self.alive[row >> 3] >> (row & 7) & 1)


@dataclass(frozen=True, slots=True)
class ShardView:
    """parts: oldest first; the last is the growing segment. watermark: the newest entry it contains.

    departures: what left the shard for another lately; unlike the rest it goes on, so it may know more than the view.
    """

    parts: tuple[Part, ...]
    watermark: Sequence
    departures: Departures = field(default_factory=Departures, compare=False, repr=False)

    @property
    def live(self) -> int:
        return sum(part.live for part in self.parts)

    def locate(self, ids: list[str]) -> list[tuple[Part, int] | None]:
        """Where each id lives now; None for ids that don't exist."""
        found: list[tuple[Part, int] | None] = [None] * len(ids)
        hashes = hash_ids(ids)
        for part in reversed(self.parts):
            for position, rows in part.reader.find(ids, hashes).items():
                for row in rows:
                    if part.is_alive(row):
                        found[position] = (part, row)
        return found

    def alive_parts(self) -> Iterator[Part]:
        return (part for part in self.parts if part.live)


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """One view a shard, published together: a batch that spans shards is seen whole or not at all.

    parts: those of all shards that have live rows, in order, so that a search over few parts starts without a walk.
    """

    shards: tuple[ShardView, ...]
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, shards: tuple[ShardView, ...]) -> DatabaseView:
        return cls(shards, tuple(part for shard in shards for part in shard.alive_parts()))

    @property
    def live(self) -> int:
        return sum(part.live for part in self.parts)
