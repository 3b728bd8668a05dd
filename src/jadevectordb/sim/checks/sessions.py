"""What a session was promised: its SESSION reads show its own writes, never less than they showed before, and what its token stands for.

Three promises, checked apart because different parts of a client and a server keep them:
- own writes: after a write of the session was acknowledged, its reads show it, or something newer;
- no way back: after a read of the session showed something, at whatever level, its later reads show that, or something newer;
- the token: a read that carries sequences is served from a view that has at least those.

"Newer" is told by versions. What has none (an EVENTUAL write until somebody sees it) is not promised and raises nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jadevectordb.sim.checks.evidence import Change, Evidence, Sighting
from jadevectordb.sim.checks.views import missing
from jadevectordb.sim.checks.violation import Rule, Violation, found, named
from jadevectordb.sim.history import Fate, Level, Operation


@dataclass(frozen=True, slots=True)
class _Floor:
    """What is seen of an id from now on has at least this version, or a greater one if it was absent then."""

    version: int
    absent: bool
    set_by: Operation
    why: str


def check_sessions(evidence: Evidence) -> Iterator[Violation]:
    by_session: dict[str, list[Operation]] = {}
    for operation in evidence.history.operations:
        if operation.call.session:
            by_session.setdefault(operation.call.session, []).append(operation)
    seen_in = {reader.name: view for reader, view in evidence.views}
    for session, operations in sorted(by_session.items()):
        yield from _Session(evidence, session, seen_in).check(operations)
    yield from _check_tokens(evidence)


class _Session:
    def __init__(self, evidence: Evidence, name: str, seen_in: dict[str, list[Sighting]]) -> None:
        self._evidence = evidence
        self._name = name
        self._seen_in = seen_in
        self._floors: dict[str, _Floor] = {}
        self._changes = _changes_of(evidence, name)

    def check(self, operations: list[Operation]) -> Iterator[Violation]:
        """In time: a call is judged by what was over before it; calls of one session may overlap."""
        moments = [(o.start, False, o) for o in operations]
        moments += [(o.answered, True, o) for o in operations if o.fate is not Fate.UNKNOWN]
        floors_at: dict[str, dict[str, _Floor]] = {}
        for _, answers, operation in sorted(moments, key=lambda m: m[:2]):
            if operation.changes:
                if answers:
                    self._wrote(operation)
            elif not answers:
                floors_at[operation.name] = {
                    s.seen.id: self._floors[s.seen.id]
                    for s in self._seen_in.get(operation.name, ())
                    if s.seen.id in self._floors
                }
            else:
                for sighting in self._seen_in.get(operation.name, ()):
                    found = self._saw(sighting, floors_at[operation.name].get(sighting.seen.id))
                    if found is not None and operation.call.level is Level.SESSION:
                        yield found  # an EVENTUAL read is promised nothing; of a STRONG one the register of the id tells more

    def _wrote(self, operation: Operation) -> None:
        if operation.call.level is Level.EVENTUAL:
            return
        for change in self._changes.get(operation.name, ()):
            version = self._evidence.version(change)
            if change.fate is Fate.OK and version is not None and self._evidence.shard_of(change.id) is not None:
                floor = _Floor(version, change.value is None, operation, "its own")
                self._raise(change.id, floor)

    def _saw(self, sighting: Sighting, floor: _Floor | None) -> Violation | None:
        """Judge what was seen by what the session knew when it asked, and remember it."""
        vector_id = sighting.seen.id
        if self._evidence.shard_of(vector_id) is None:
            return None
        if sighting.writer is not None:
            version = self._evidence.seen_version(sighting)
            if version is not None:
                self._raise(vector_id, _Floor(version, False, sighting.by, "what was seen by"))
                if floor is not None and version < floor.version + floor.absent:
                    return self._backwards(sighting, floor)
        elif floor is not None and not floor.absent and self._says_when(sighting):
            deleted = self._evidence.delete_after(vector_id, floor.version, sighting.by)
            if deleted is None:
                return self._backwards(sighting, floor)
            self._raise(vector_id, _Floor(deleted, True, sighting.by, "what was seen by"))
        return None

    def _says_when(self, sighting: Sighting) -> bool:
        """Whether that nothing was there can only mean a delete: an EVENTUAL read may be from before there was anything, unless
        the place it was served from is known.
        """
        shard = self._evidence.shard_of(sighting.seen.id)
        return sighting.by.call.level is not Level.EVENTUAL or shard in sighting.by.sequences

    def _raise(self, vector_id: str, floor: _Floor) -> None:
        before = self._floors.get(vector_id)
        if before is None or before.version < floor.version:
            self._floors[vector_id] = floor

    def _backwards(self, sighting: Sighting, floor: _Floor) -> Violation:
        vector_id = sighting.seen.id
        operations = [floor.set_by, sighting.by]
        if sighting.writer is not None:
            operations.append(sighting.writer.by)
        return Violation(
            Rule.SESSION,
            f'"{vector_id}": session {self._name} saw {found(sighting.seen)} by {named(sighting.by)} at '
            f"{self._evidence.teller.began(sighting.by)} s, which is older than {floor.why} {named(floor.set_by)} "
            f"({'absent since' if floor.absent else 'version'} {floor.version}), over at "
            f"{self._evidence.teller.ended(floor.set_by)} s.",
            self._evidence.teller.lines(operations, vector_id),
            (vector_id,),
        )


def _changes_of(evidence: Evidence, session: str) -> dict[str, list[Change]]:
    """By operation."""
    changes: dict[str, list[Change]] = {}
    for of_id in evidence.changes.values():
        for change in of_id:
            if change.by.call.session == session:
                changes.setdefault(change.by.name, []).append(change)
    return changes


def _check_tokens(evidence: Evidence) -> Iterator[Violation]:
    for reader in evidence.history.operations:
        if reader.changes or reader.call.level is not Level.SESSION or reader.fate is not Fate.OK:
            continue
        for shard, asked in sorted(reader.call.token.items()):
            served = reader.sequences.get(shard)
            if served is not None and served < asked:
                yield Violation(
                    Rule.SESSION,
                    f"Shard {shard}: {named(reader)} asked for at least {asked} and was served by a view at {served}.",
                    evidence.teller.lines([reader], *(s.id for s in reader.seen[:1])),
                )
    for reader, view in evidence.views:
        for sighting in view if reader.call.level is Level.SESSION else ():
            shard_of = evidence.shard_of(sighting.seen.id)
            token = 0 if shard_of is None else reader.call.token.get(shard_of, 0)
            change = missing(evidence, sighting, token)
            if change is not None:
                yield _behind_token(evidence, sighting, change, token)


def _behind_token(evidence: Evidence, sighting: Sighting, change: Change, token: int) -> Violation:
    what = "was deleted" if change.value is None else f'became "{change.value}"'
    return Violation(
        Rule.SESSION,
        f'"{change.id}": {named(sighting.by)} carried sequence {token} of its shard and saw {found(sighting.seen)}, but it {what} '
        f"at {evidence.version(change)} by {named(change.by)}.",
        evidence.teller.lines([sighting.by, change.by, *([sighting.writer.by] if sighting.writer else [])], change.id),
        (change.id,),
    )
