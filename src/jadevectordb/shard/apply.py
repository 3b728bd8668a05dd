"""The state machine of a shard: entries in, state out. No clock, no file, no thread: the same entries give the same state.

State is a list of parts (segments with their tombstones), the growing segment, and the table of request ids already
applied. An entry is applied whole or, when a condition of its `if_version` fails, not at all. A vector's version is the
sequence of the entry that wrote it. Replacing or deleting a vector only marks its old row dead; a changed vector or
changed metadata is a new row. A write that waited in an outbox changes only the vectors for which it counts (`causality`).

When the growing segment has taken enough (rows, entries or kills: counts, never time) it is frozen: `frozen` collects what
the shell around this has to write to disk, with the state as it was at exactly that entry.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import assert_never

import msgspec
import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.text import TextConfig
from jadevectordb.model import filters
from jadevectordb.model.ids import Sequence, VectorId, Version
from jadevectordb.model.limits import (
    ENTRY_ROWS_MAX,
    FREEZE_BARRIERS_MAX,
    FREEZE_DEAD_ROWS_MAX,
    FREEZE_ENTRIES_MAX,
    REQUESTS_REMEMBERED_MAX,
)
from jadevectordb.model.operations import (
    Barrier,
    Delete,
    DeleteWhere,
    Entry,
    Outcome,
    PlacedWrite,
    Refusal,
    Seal,
    Update,
    Write,
)
from jadevectordb.model.schema import Schema
from jadevectordb.segment.growing import GrowingSegment, GrowingView
from jadevectordb.segment.reader import UNREADABLE, SegmentReader
from jadevectordb.segment.records import HashArray, hash_ids
from jadevectordb.shard.causality import Causality, CausalState, Verdict
from jadevectordb.shard.departures import Departures
from jadevectordb.shard.layout import Span, replan
from jadevectordb.shard.view import Part, ShardView

GROWING = -1  # stands for the growing segment where a part's index is expected
NOTHING_APPLIED = Sequence(0)
Location = tuple[int, int]  # (index of the part or GROWING, row)
RequestTable = OrderedDict[tuple[str, int], tuple[int, int]]  # (request id, part) -> (sequence, vectors changed)


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """What a shard is told once and never changes. seal_rows: rows at which a growing segment is frozen."""

    space: VectorSpace
    schema: Schema
    text: TextConfig | None
    seal_rows: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """The state at a freeze, for the checkpoint that will make the log before it dispensable.

    view: the rows to write; None when none arrived. parts: every part as of `sequence`, the frozen one included.
    """

    unit: int
    sequence: Sequence
    view: GrowingView | None
    parts: tuple[Part, ...]
    spans: tuple[Span, ...]
    requests: tuple[tuple[tuple[str, int], tuple[int, int]], ...]
    newest_time: int
    causal: CausalState | None = None


class ShardState:
    """Single writer: `apply` and `replace_parts` are called under the shell's lock; `view` may be called by the same."""

    def __init__(
        self,
        config: ShardConfig,
        *,
        parts: Iterable[Part] = (),
        spans: Iterable[Span] = (),
        next_unit: int = 0,
        applied: Sequence = NOTHING_APPLIED,
        requests: Iterable[tuple[tuple[str, int], tuple[int, int]]] = (),
        newest_time: int = 0,
        causal: CausalState | None = None,
    ) -> None:
        self.config = config
        self.parts = list(parts)  # oldest first, units ascending and adjacent; at most one live row an id among all
        self.spans = list(spans)  # what parts should become; every part lies inside one span
        self.applied = applied
        self.newest_time = newest_time  # the greatest hybrid time among the entries applied
        self.requests: RequestTable = OrderedDict(requests)
        self.causality = Causality(causal)
        self.departures = Departures(applied)
        self.frozen: deque[Frozen] = deque()  # oldest first; the shell takes them off as they are written
        self._next_unit = next_unit
        self._entries_since_freeze = 0  # without barriers
        self._barriers_since_freeze = 0
        self._killed_since_freeze = 0
        self._start_growing()

    def _start_growing(self) -> None:
        config = self.config
        self.growing = GrowingSegment(
            config.space,
            config.schema,
            config.text,
            unit=self._next_unit,
            capacity=config.seal_rows + ENTRY_ROWS_MAX,
        )
        # Over the whole capacity, so that rows to come are alive already; None while every row lives.
        self._growing_alive: bitmap.Bitmap | None = None
        self._growing_dead = 0

    # Applying

    def apply(self, sequence: Sequence, entry: Entry) -> Outcome:
        """Apply the entry at this place of the log; sequences arrive without gaps."""
        assert sequence == self.applied + 1, f"entry {sequence} after {self.applied}"
        self.applied = sequence
        self.causality.note(sequence, entry, self.newest_time)
        self.newest_time = max(self.newest_time, entry.time)
        request = (entry.request_id, entry.part)
        if entry.request_id and (earlier := self.requests.get(request)):
            return Outcome(earlier[0], earlier[1], duplicate=True)
        outcome = self._perform(sequence, entry)
        if entry.request_id and outcome.refusal is None:
            self.requests[request] = (sequence, outcome.changed)
            if len(self.requests) > REQUESTS_REMEMBERED_MAX:
                self.requests.popitem(last=False)
        # Last: a checkpoint after this entry must know everything it did, its request id included
        if isinstance(entry.operation, Seal):
            self._freeze(settle=True, compact=entry.operation.compact)
        else:
            self._freeze_if_due()
        return outcome

    def _perform(self, sequence: Sequence, entry: Entry) -> Outcome:
        if isinstance(entry.operation, Barrier):
            self._barriers_since_freeze += 1
        else:
            self._entries_since_freeze += 1
        match entry.operation:
            case PlacedWrite() as placed:  # before Write, which it is too
                return self._write_placed(sequence, placed)
            case Write() as write:
                return self._write(sequence, entry, write)
            case Delete() as delete:
                return self._delete(sequence, entry, delete)
            case Update() as update:
                return self._update(sequence, entry, update)
            case DeleteWhere() as where:
                return Outcome(sequence, self._delete_where(sequence, entry, where))
            case Seal() | Barrier():
                return Outcome(sequence, 0)
            case unknown:
                assert_never(unknown)

    def _write(self, sequence: Sequence, entry: Entry, write: Write) -> Outcome:
        hashes = hash_ids(write.ids)
        located = self._locate(write.ids, hashes)
        refusal = self._check_versions(write.ids, write.if_version, located)
        if refusal is not None:
            return Outcome(sequence, 0, refusal)
        ids, vectors, metadata = write.ids, write.vectors, write.metadata
        if entry.seen is not None and (lost := self._lost(entry, ids, hashes, located)):
            kept = [position for position in range(len(ids)) if position not in lost]
            located = {position: at for position, at in located.items() if position not in lost}
            ids, metadata = [ids[p] for p in kept], [metadata[p] for p in kept]
            if not kept:
                return Outcome(sequence, 0)
            hashes, vectors = hashes[kept], vectors[kept]
        self._kill(located.values())
        self.growing.append(ids, hashes, vectors, metadata, sequence)
        return Outcome(sequence, len(ids))

    def _write_placed(self, sequence: Sequence, write: PlacedWrite) -> Outcome:
        hashes = hash_ids(write.ids)
        located = self._locate(write.ids, hashes)
        self._kill(located.values())
        for position in sorted(located):
            if write.places[position] != write.here:
                self.departures.add(write.ids[position], sequence, write.places[position])
        mine = [position for position, place in enumerate(write.places) if place == write.here]
        if mine:
            ids, metadata = [write.ids[at] for at in mine], [write.metadata[at] for at in mine]
            self.growing.append(ids, hashes[mine], write.vectors[mine], metadata, sequence)
        return Outcome(sequence, len(mine))

    def _delete(self, sequence: Sequence, entry: Entry, delete: Delete) -> Outcome:
        hashes = hash_ids(delete.ids)
        located = self._locate(delete.ids, hashes)
        refusal = self._check_versions(delete.ids, delete.if_version, located)
        if refusal is not None:
            return Outcome(sequence, 0, refusal)
        lost = set() if entry.seen is None else self._lost(entry, delete.ids, hashes, located)
        if lost:
            located = {position: at for position, at in located.items() if position not in lost}
        self._kill(located.values())
        if self.causality.is_kept:
            # Of ids that were not there too: a write that waits elsewhere may be older than this
            gone = [one for position, one in enumerate(hashes.tolist()) if position not in lost]
            self.causality.note_deleted(gone, sequence)
        return Outcome(sequence, len(located))

    def _update(self, sequence: Sequence, entry: Entry, update: Update) -> Outcome:
        hashes = hash_ids(update.ids)
        located = self._locate(update.ids, hashes)
        refusal = self._check_versions(update.ids, update.if_version, located)
        if refusal is not None:
            return Outcome(sequence, 0, refusal)
        if entry.seen is not None:
            lost = self._lost(entry, update.ids, hashes, located)
            located = {position: at for position, at in located.items() if position not in lost}
        if not located:
            return Outcome(sequence, 0)
        positions = sorted(located)
        readers = [(self._reader(located[p][0]), located[p][1]) for p in positions]
        vectors = np.stack([reader.vector_of(row) for reader, row in readers])
        metadata = [
            _merged(reader, row, update.patches[p]) if update.merge else update.patches[p]
            for p, (reader, row) in zip(positions, readers, strict=True)
        ]
        self._kill(located.values())
        ids = [update.ids[p] for p in positions]
        self.growing.append(ids, hashes[positions], vectors, metadata, sequence)
        return Outcome(sequence, len(ids))

    def _delete_where(self, sequence: Sequence, entry: Entry, where: DeleteWhere) -> int:
        node = filters.from_json(where.filter)
        doomed: list[Location] = []
        for index in (*range(len(self.parts)), GROWING):
            part = self._part(index)
            if part.live:
                bits = self._reader(index).select(node).bits()
                if part.alive is not None:
                    bits = bitmap.both(bits, part.alive)
                doomed += [(index, row) for row in bitmap.to_rows(bits).tolist()]
        if self.causality.is_kept and doomed:
            # In the order of ids: that of rows differs between replicas
            named = sorted((self._reader(index).id_of(row), (index, row)) for index, row in doomed)
            ids = [VectorId(name) for name, _ in named]
            hashes, located = hash_ids(ids), dict(enumerate(at for _, at in named))
            lost = set() if entry.seen is None else self._lost(entry, ids, hashes, located)
            doomed = [at for position, at in located.items() if position not in lost]
            gone = [one for position, one in enumerate(hashes.tolist()) if position not in lost]
            self.causality.note_deleted(gone, sequence)
        self._kill(doomed)
        return len(doomed)

    def _lost(self, late: Entry, ids: Seq[VectorId], hashes: HashArray, located: dict[int, Location]) -> set[int]:
        """The positions among ids for which a write that waited in an outbox does not count; conflicts are noted."""
        causality, lost = self.causality, set()
        deletes = isinstance(late.operation, Delete | DeleteWhere)
        for position, (vector_id, one) in enumerate(zip(ids, hashes.tolist(), strict=True)):
            where = located.get(position)
            stands_at = causality.deletion_of(one) if where is None else self._version_at(where)
            verdict = causality.judge(late, stands_at)
            if where is None and isinstance(late.operation, Update) and verdict is Verdict.WON:
                verdict = Verdict.LOST  # a change of metadata does not bring a deleted vector back
            if not verdict.counts:
                lost.add(position)
            if not (where is None and deletes):  # two deletions come to the same
                kinds = (deletes, where is None)
                causality.settle(verdict, vector_id, late, stands_at, self.newest_time, kinds=kinds)
        return lost

    def _version_at(self, where: Location) -> int:
        return self._reader(where[0]).version_of(where[1])

    # Where rows are, and their end

    def _reader(self, index: int) -> SegmentReader:
        return self.growing.view() if index == GROWING else self.parts[index].reader

    def _part(self, index: int) -> Part:
        return self._growing_part() if index == GROWING else self.parts[index]

    def _locate(self, ids: Seq[str], hashes: HashArray) -> dict[int, Location]:
        """The live row of each id: position in ids -> location."""
        located: dict[int, Location] = {}
        alive = self._growing_alive
        newest = self.growing.row_of
        if newest:
            for position, vector_id in enumerate(ids):
                row = newest.get(vector_id)
                if row is not None and (alive is None or alive[row >> 3] >> (row & 7) & 1):
                    located[position] = (GROWING, row)
        for index, part in enumerate(self.parts):
            if not part.live:
                continue
            for position, rows in part.reader.find(ids, hashes).items():
                for row in rows:
                    if part.is_alive(row):
                        located[position] = (index, row)
        return located

    def _check_versions(
        self, ids: Seq[VectorId], if_version: Seq[int] | None, located: dict[int, Location]
    ) -> Refusal | None:
        if if_version is None:
            return None
        for position, expected in enumerate(if_version):
            if expected < 0:
                continue
            where = located.get(position)
            actual = 0 if where is None else self._version_at(where)
            if actual != expected:
                return Refusal(ids[position], Version(expected), Version(actual))
        return None

    def _kill(self, locations: Iterable[Location]) -> None:
        by_part: dict[int, list[int]] = {}
        for index, row in locations:
            by_part.setdefault(index, []).append(row)
        for index, rows in by_part.items():
            self._killed_since_freeze += len(rows)
            if index == GROWING:
                self._growing_dead += len(rows)
                self._growing_alive = _without(self._growing_alive, self.growing.capacity, rows)
            else:
                part = self.parts[index]
                alive = _without(part.alive, part.reader.row_count, rows)
                self.parts[index] = Part(part.reader, alive, part.live - len(rows))

    # Freezing

    def _freeze_if_due(self) -> None:
        # Reading at STRONG must not cut what is written into small segments; where there is nothing to cut, the log may go
        barriers_max = FREEZE_BARRIERS_MAX if self.growing.count else FREEZE_ENTRIES_MAX
        if (
            self.growing.count >= self.config.seal_rows
            or self._barriers_since_freeze >= barriers_max
            or self._entries_since_freeze >= FREEZE_ENTRIES_MAX
            or self._killed_since_freeze >= FREEZE_DEAD_ROWS_MAX
        ):
            self._freeze(settle=False, compact=False)

    def _freeze(self, *, settle: bool, compact: bool) -> None:
        view = None
        unit = self._next_unit
        if self.growing.count:
            part = self._growing_part()
            view = self.growing.view()
            self.parts.append(part)
            self.spans.append(Span(unit, unit, part.live))
            self._next_unit += 1
            self._start_growing()
        self.spans = replan(self.spans, [self._live_in(s) for s in self.spans], settle=settle, compact=compact)
        self._entries_since_freeze = self._barriers_since_freeze = self._killed_since_freeze = 0
        self.frozen.append(
            Frozen(
                unit,
                self.applied,
                view,
                tuple(self.parts),
                tuple(self.spans),
                tuple(self.requests.items()),
                self.newest_time,
                self.causality.saved(),
            )
        )

    @property
    def is_settled(self) -> bool:
        """Whether a `Seal` would change nothing: no growing rows, and the plan is the one it would make."""
        live = [self._live_in(span) for span in self.spans]
        return not self.growing.count and replan(self.spans, live, settle=True) == self.spans

    def _live_in(self, span: Span) -> int:
        return sum(p.live for p in self.parts if span.first <= p.reader.units[0] <= span.last)

    # Views

    def _growing_part(self) -> Part:
        view = self.growing.view()
        alive = None
        if self._growing_alive is not None:
            alive = bitmap.first_rows(self._growing_alive, view.row_count)
        return Part(view, alive, view.row_count - self._growing_dead)

    def view(self) -> ShardView:
        return ShardView((*self.parts, self._growing_part()), self.applied, self.departures)

    @property
    def next_unit(self) -> int:
        return self._next_unit


def merge_metadata(stored: bytes, patch: bytes) -> bytes:
    """The stored JSON object with the patch's top-level keys replaced or added; raw values are copied, not re-encoded."""
    merged = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
    merged.update(msgspec.json.decode(patch, type=dict[str, msgspec.Raw]))
    return msgspec.json.encode(merged)


def _merged(reader: SegmentReader, row: int, patch: bytes) -> bytes:
    stored = reader.metadata_of(row)
    try:
        # Decoded whole: what is not JSON any more must not be copied from a damaged file into a new one
        msgspec.json.decode(stored)
        return merge_metadata(stored, patch)
    except UNREADABLE as error:
        raise reader.blame(error) from error


def _without(alive: bitmap.Bitmap | None, row_count: int, rows: list[int]) -> bitmap.Bitmap:
    changed = bitmap.full(row_count) if alive is None else alive.copy()
    bitmap.clear_in_place(changed, np.array(rows, np.int64))
    return changed
