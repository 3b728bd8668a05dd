"""What a history proves about its writes, before any order is asked for: who wrote what, where it stands, when it was first seen.

Every write carries a value of its own, so a value names its writer. From that follows without any search:
- a value that nobody wrote, that was written to another id, by a write that certainly failed, or only later, is a violation;
- a read shows a version with the value: if a value appears under two versions, its write was applied twice;
- replicas apply only what is in the log, so a read at any level that shows a write proves that it took effect by then, and, as
  an entry is applied whole, that its other ids in the same shard took effect too.

The versions learnt here (told by answers or shown by reads) are what makes the later checks sharp and fast.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeAlias

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.sim.checks.violation import Rule, Teller, Violation, named
from jadevectordb.sim.history import NEVER, Fate, History, Operation, Seen

EntryKey: TypeAlias = tuple[
    str, int | str
]  # operation and shard, or operation and id where shards or entries are not known


@dataclass(frozen=True, slots=True)
class Change:
    """One id in a write or delete. value: None = deleted. expected: -1 = unconditional. shard: None = not told."""

    by: Operation
    id: str
    value: str | None
    expected: int
    shard: int | None

    @property
    def fate(self) -> Fate:
        return self.by.fate_of(self.id)

    @property
    def entry(self) -> EntryKey:
        """Equal for changes that travelled in one log entry."""
        together = self.shard is not None and self.by.call.one_entry
        return (self.by.name, self.shard if together and self.shard is not None else self.id)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One id in the answer of a read or search. writer: of the value seen; None when the id was absent."""

    by: Operation
    seen: Seen
    writer: Change | None


class Evidence:
    def __init__(self, history: History) -> None:
        self.history = history
        self.teller = Teller(history.events)
        self.violations: list[Violation] = []
        self.changes: dict[str, list[Change]] = {}  # by id, by start
        self.sightings: dict[str, list[Sighting]] = {}  # by id, by start of the reads
        self.views: list[
            tuple[Operation, list[Sighting]]
        ] = []  # each read or search that was answered, with all it saw
        self.places: dict[tuple[int, int], Change] = {}  # (shard, version)
        self._writers: dict[tuple[str, str], Change] = {}  # (id, value)
        self._by_value: dict[str, Change] = {}  # the first one
        self._versions: dict[EntryKey, int] = {}
        self._shown: dict[EntryKey, Operation] = {}  # the first to end of the reads that prove it
        self._said: set[str] = set()
        self._collect_changes()
        shards = {i: {change.shard for change in changes} for i, changes in self.changes.items()}
        self._shards = {i: shards_of_id.pop() for i, shards_of_id in shards.items() if len(shards_of_id) == 1}
        self._collect_sightings()
        self._ordered = {i: self._by_version(changes) for i, changes in self.changes.items()}
        self._deletes = {i: [d for d in ordered if d[1].value is None] for i, ordered in self._ordered.items()}
        self._lost_deletes = {i: self._first_lost_delete(changes) for i, changes in self.changes.items()}

    # What is known of a change

    def version(self, change: Change) -> int | None:
        return self._versions.get(change.entry)

    def shown_by(self, change: Change) -> Operation | None:
        """The earliest answered read that proves that it took effect."""
        return self._shown.get(change.entry)

    def seen_version(self, sighting: Sighting) -> int | None:
        """The version shown, or else the one its write is known to have."""
        if sighting.seen.version is not None or sighting.writer is None:
            return sighting.seen.version
        return self.version(sighting.writer)

    def shard_of(self, vector_id: str) -> int | None:
        """Its shard, when all changes of the id name the same one: only then are its versions places in one log."""
        return self._shards.get(vector_id)

    def newest(self, vector_id: str, version_max: int) -> tuple[int, Change] | None:
        """The newest change of the id known to stand at or before this place of its shard's log."""
        ordered = self._ordered.get(vector_id, [])
        place = bisect_right(ordered, version_max, key=lambda item: item[0])
        return ordered[place - 1] if place else None

    def delete_after(self, vector_id: str, after: int, reader: Operation) -> int | None:
        """The first place behind this one where a delete may stand that this read saw: `after + 1` if it is one of unknown place."""
        shard = self.shard_of(vector_id)
        told = None if shard is None else reader.sequences.get(shard)
        watermark = NEVER if told is None else told
        began = self._lost_deletes.get(vector_id, NEVER)
        if began < reader.answered and after < watermark:
            return after + 1
        deletes = self._deletes.get(vector_id, [])
        for version, delete in deletes[bisect_right(deletes, after, key=lambda item: item[0]) :]:
            if version > watermark:
                return None
            if delete.by.start < reader.answered:
                return version
        return None

    def _by_version(self, changes: list[Change]) -> list[tuple[int, Change]]:
        lost = self.history.has_lost  # these stand in the log and changed nothing
        effective = [c for c in changes if c.fate is not Fate.FAILED and not lost(c.id, c.value, c.by.call)]
        known = [(self.version(change), change) for change in effective]
        return sorted(((v, c) for v, c in known if v is not None), key=lambda item: item[0])

    def _first_lost_delete(self, changes: list[Change]) -> int:
        """When the first delete was called of which nobody knows where it stands, or whether it does."""
        lost = (c for c in changes if c.value is None and c.fate is not Fate.FAILED and self.version(c) is None)
        return min((change.by.start for change in lost), default=NEVER)

    # Collecting

    def _collect_changes(self) -> None:
        for operation in self.history.operations:
            if not operation.changes:
                continue
            for vector_id, value, expected, shard in operation.targets():
                change = Change(operation, vector_id, value, expected, shard)
                self.changes.setdefault(vector_id, []).append(change)
                if value is not None:
                    self._claim(change, value)
                if change.fate is Fate.OK and shard is not None and operation.call.one_entry:
                    sequence = operation.sequences.get(shard)
                    if sequence is not None:
                        self._learn(change, sequence)

    def _claim(self, change: Change, value: str) -> None:
        other = self._writers.setdefault((change.id, value), change)
        if other is not change:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f'Operations {other.by.name} and {change.by.name} both write "{value}" to "{change.id}", so nobody can tell '
                "which one a read saw: give each write a value of its own.",
            )
        self._by_value.setdefault(value, change)

    def _collect_sightings(self) -> None:
        for operation in self.history.operations:
            view = []
            for seen in operation.seen:
                writer = None
                if seen.value is not None:
                    writer = self._checked_writer(operation, seen, seen.value)
                    if writer is None:
                        continue
                    self._prove(writer, seen, operation)
                sighting = Sighting(operation, seen, writer)
                self.sightings.setdefault(seen.id, []).append(sighting)
                view.append(sighting)
            if view:
                self.views.append((operation, view))

    def _checked_writer(self, reader: Operation, seen: Seen, value: str) -> Change | None:
        """Who wrote what was seen; None, with a violation noted, if that cannot be."""
        what = f'"{seen.id}": {named(reader)} saw "{value}"'
        writer = self._writers.get((seen.id, value))
        if writer is None:
            other = self._by_value.get(value)
            where = "" if other is None else f'; {named(other.by)} wrote it to "{other.id}"'
            self._say(Rule.NEVER_WRITTEN, f"{what}, which nobody wrote to it{where}.", seen.id, reader)
        elif writer.fate is Fate.FAILED:
            self._say(
                Rule.FAILED_SEEN,
                f"{what}, but {named(writer.by)} of it had failed for certain.",
                seen.id,
                writer.by,
                reader,
            )
        elif reader.before(writer.by):
            self._say(
                Rule.SEEN_TOO_EARLY,
                f"{what} and ended at {self.teller.ended(reader)} s, but {named(writer.by)} of it began at "
                f"{self.teller.began(writer.by)} s.",
                seen.id,
                writer.by,
                reader,
            )
        else:
            return writer
        return None

    def _prove(self, writer: Change, seen: Seen, reader: Operation) -> None:
        """The write took effect before this read ended, and so did its other ids in the same entry."""
        known = self.version(writer)
        if seen.version is not None and known is not None and seen.version != known:
            self._say(
                Rule.APPLIED_TWICE,
                f'"{seen.id}": {named(reader)} saw "{seen.value}" with version {seen.version}, but {named(writer.by)} of it has '
                f"version {known}: it was applied twice.",
                seen.id,
                writer.by,
                reader,
                *filter(None, [self.shown_by(writer)]),
            )
        elif seen.version is not None and known is None:
            self._learn(writer, seen.version)
        earlier = self._shown.get(writer.entry)
        if earlier is None or reader.answered < earlier.answered:
            self._shown[writer.entry] = reader

    def _learn(self, change: Change, version: int) -> None:
        self._versions.setdefault(change.entry, version)
        if change.shard is None:
            return
        other = self.places.setdefault((change.shard, version), change)
        if other.by is not change.by:
            self._say(
                Rule.ONE_PLACE,
                f"Shard {change.shard}: {named(other.by)} and {named(change.by)} both have version {version}.",
                change.id,
                other.by,
                change.by,
            )

    def _say(self, rule: Rule, message: str, vector_id: str, *operations: Operation) -> None:
        """Note a violation, once a sentence."""
        if message in self._said:
            return
        self._said.add(message)
        ids = {vector_id} | {i for o in operations for i in o.call.ids if len(o.call.ids) == 1}
        self.violations.append(Violation(rule, message, self.teller.lines(operations, *sorted(ids)), (vector_id,)))
