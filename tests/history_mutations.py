"""Correct histories made wrong in one certain way each: what a broken cluster would have shown its clients.

A mutation changes answers only, at places where nothing that is allowed could explain the result, and says which id it touched;
it is None where a history offers no such place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from msgspec.structs import replace

from jadevectordb.sim.checks.evidence import Change, Evidence, Sighting
from jadevectordb.sim.history import Answer, Event, Fate, History, Kind, Level, Seen

Item = TypeVar("Item")
Mutated: TypeAlias = tuple[History, str] | None  # the wrong history, and an id that shows it
Mutation: TypeAlias = Callable[[Evidence, random.Random], Mutated]


def lost_write(evidence: Evidence, rnd: random.Random) -> Mutated:
    """What was acknowledged last under an id is nowhere to be found: every read shows what stood before."""
    for vector_id in _shuffled(evidence.changes, rnd):
        last = _last_seen_at_strong(evidence, vector_id)
        if last is None or last.writer is None or not _acknowledged(last.writer) or not last.writer.by.call.one_entry:
            continue  # several entries: its version is only known from those who saw it
        before = _before(evidence, last.writer)
        if before is not None and last.writer.by.before(last.by):
            return _resee(
                evidence, {(s.by.name, vector_id): before for s in _sightings_of(evidence, last.writer)}
            ), vector_id
    return None


def stale_read(evidence: Evidence, rnd: random.Random) -> Mutated:
    """One STRONG read shows what stood before the write that it should have seen."""
    for sighting in _strong(evidence, rnd):
        writer = sighting.writer
        if writer is not None and _acknowledged(writer) and writer.by.before(sighting.by):
            before = _before(evidence, writer)
            if before is not None:
                return _resee(evidence, {(sighting.by.name, writer.id): before}), writer.id
    return None


def resurrected_write(evidence: Evidence, rnd: random.Random) -> Mutated:
    """A write that was never acknowledged had been replaced, and shows again."""
    return _comes_back(evidence, rnd, lambda change: change.value is not None and change.fate is Fate.UNKNOWN)


def undeleted(evidence: Evidence, rnd: random.Random) -> Mutated:
    """A vector that was deleted shows again."""
    for sighting in _strong(evidence, rnd):
        if sighting.writer is not None:
            continue
        for delete in _ordered(evidence, sighting.seen.id):
            if delete.value is None and _acknowledged(delete) and delete.by.before(sighting.by):
                before = _before(evidence, delete)
                if before is not None and before.value is not None:
                    return _resee(evidence, {(sighting.by.name, delete.id): before}), delete.id
    return None


def _comes_back(evidence: Evidence, rnd: random.Random, wanted: Callable[[Change], bool]) -> Mutated:
    for sighting in _strong(evidence, rnd):
        writer = sighting.writer
        if writer is None or not _acknowledged(writer) or not writer.by.before(sighting.by):
            continue
        before = _before(evidence, writer)
        change = None if before is None else _by_version(evidence, writer.id, before.version or 0)
        if change is not None and before is not None and wanted(change) and evidence.shown_by(change) is not None:
            return _resee(evidence, {(sighting.by.name, writer.id): before}), writer.id
    return None


def duplicate_application(evidence: Evidence, rnd: random.Random) -> Mutated:
    """A write that had been replaced was applied a second time, at the end of the log."""
    for sighting in _strong(evidence, rnd):
        writer = sighting.writer
        if writer is None or not writer.by.before(sighting.by):
            continue
        before = _before(evidence, writer)
        if before is not None and before.value is not None and evidence.version(writer) is not None:
            again = replace(before, version=10_000)
            return _resee(evidence, {(sighting.by.name, writer.id): again}), writer.id
    return None


def torn_batch(evidence: Evidence, rnd: random.Random) -> Mutated:
    """One view shows a part of a batch, and under another id what stood before it."""
    for reader, view in _shuffled(evidence.views, rnd):
        for sighting in view:
            for other in view:
                a, b = sighting.writer, other.writer
                if a is None or b is None or a.id == b.id or a.entry != b.entry or evidence.version(a) is None:
                    continue
                before = _before(evidence, b)
                if before is not None and (before.value is not None or reader.call.kind is Kind.READ):
                    return _resee(evidence, {(sighting.by.name, b.id): before}), b.id
    return None


def wrong_value(evidence: Evidence, rnd: random.Random) -> Mutated:
    """A read shows under an id what was only ever written to another."""
    for sighting in _shuffled([s for of_id in evidence.sightings.values() for s in of_id], rnd):
        if sighting.writer is not None:
            stranger = replace(sighting.seen, value=f"{sighting.seen.value}?")
            return _resee(evidence, {(sighting.by.name, sighting.seen.id): stranger}), sighting.seen.id
    return None


def failed_write_seen(evidence: Evidence, rnd: random.Random) -> Mutated:
    """A write that was refused is there."""
    for sighting in _strong(evidence, rnd):
        for change in evidence.changes.get(sighting.seen.id, ()):
            if change.fate is Fate.FAILED and change.value is not None:
                shown = Seen(change.id, change.value, 10_000)
                return _resee(evidence, {(sighting.by.name, change.id): shown}), change.id
    return None


def session_backwards(evidence: Evidence, rnd: random.Random) -> Mutated:
    """A SESSION read shows less than what the session had seen before."""
    for reader, view in _shuffled(evidence.views, rnd):
        if reader.call.level is not Level.SESSION:
            continue
        for sighting in view:
            writer = sighting.writer
            version = None if writer is None else evidence.version(writer)
            if writer is None or version is None:
                continue
            known = any(
                s.by.call.session == reader.call.session and s.by.before(reader) and s.writer is writer
                for s in evidence.sightings[writer.id]
            )
            own = writer.by.call.session == reader.call.session and writer.by.before(reader) and _acknowledged(writer)
            own = own and writer.by.call.one_entry  # else only this very sighting may have told its version
            before = _before(evidence, writer) if known or own else None
            if before is not None and (before.value is not None or reader.call.kind is Kind.READ):
                return _resee(evidence, {(reader.name, writer.id): before}), writer.id
    return None


def wrong_score(evidence: Evidence, rnd: random.Random) -> Mutated:
    for reader, view in _shuffled(evidence.views, rnd):
        if reader.call.kind is Kind.SEARCH and view:
            hit = view[0].seen
            higher = replace(hit, score=(hit.score or 0.0) + 0.001)  # of the first: their order stays right
            return _resee(evidence, {(reader.name, hit.id): higher}), hit.id
    return None


def version_against_time(evidence: Evidence, rnd: random.Random) -> Mutated:
    """Two writes that nobody saw, one after the other, got their places in the log the other way round."""
    unseen = [
        c
        for of_id in evidence.changes.values()
        for c in of_id
        if _acknowledged(c)
        and evidence.shown_by(c) is None
        and len(c.by.call.ids) == 1
        and evidence.version(c) is not None
    ]
    for first in _shuffled(unseen, rnd):
        for second in unseen:
            if first.shard == second.shard and first.by.before(second.by) and first.shard is not None:
                swapped = {first.by.name: second.by.sequences, second.by.name: first.by.sequences}
                return _reanswer(
                    evidence, lambda a, s=swapped: replace(a, sequences=s[a.op]) if a.op in s else a
                ), first.id
    return None


MUTATIONS: dict[str, Mutation] = {
    m.__name__: m
    for m in (
        lost_write,
        stale_read,
        resurrected_write,
        undeleted,
        duplicate_application,
        torn_batch,
        wrong_value,
        failed_write_seen,
        session_backwards,
        wrong_score,
        version_against_time,
    )
}


def without_versions(history: History) -> History:
    """The same, told by a server that never says where anything stands."""

    def bare(event: Event) -> Event:
        if not isinstance(event, Answer):
            return event
        seen = tuple(replace(s, version=None) for s in event.seen)
        return replace(event, sequences={}, seen=seen)

    return History([bare(event) for event in history.events])


# What stood, and what is put in its place


def _before(evidence: Evidence, change: Change) -> Seen | None:
    """What the id held before this change, if it is certain: of a change that was acknowledged or seen, with no delete of
    unknown outcome around that could explain its absence.
    """
    version = evidence.version(change)
    if version is None or any(_in_doubt(evidence, c) for c in evidence.changes[change.id]):
        return None
    older = [c for c in _ordered(evidence, change.id) if (evidence.version(c) or 0) < version]
    if not older:
        return Seen(change.id)
    value = older[-1].value
    return Seen(change.id, value, None if value is None else evidence.version(older[-1]))


def _in_doubt(evidence: Evidence, change: Change) -> bool:
    return change.value is None and change.fate is not Fate.FAILED and evidence.version(change) is None


def _ordered(evidence: Evidence, vector_id: str) -> list[Change]:
    found = []
    version = 10**9
    while (newest := evidence.newest(vector_id, version)) is not None:
        version = newest[0] - 1
        found.append(newest[1])
    return found[::-1]


def _by_version(evidence: Evidence, vector_id: str, version: int) -> Change | None:
    newest = evidence.newest(vector_id, version)
    return newest[1] if newest is not None and newest[0] == version else None


def _acknowledged(change: Change) -> bool:
    return change.fate is Fate.OK and change.by.call.level is not Level.EVENTUAL


def _strong(evidence: Evidence, rnd: random.Random) -> list[Sighting]:
    all_of_them = [s for of_id in evidence.sightings.values() for s in of_id]
    return _shuffled([s for s in all_of_them if s.by.call.level is Level.STRONG and s.by.call.kind is Kind.READ], rnd)


def _last_seen_at_strong(evidence: Evidence, vector_id: str) -> Sighting | None:
    strong = [s for s in evidence.sightings.get(vector_id, ()) if s.by.call.level is Level.STRONG]
    return max(strong, key=lambda s: s.by.start, default=None)


def _sightings_of(evidence: Evidence, writer: Change) -> list[Sighting]:
    return [s for s in evidence.sightings[writer.id] if s.writer is writer]


def _shuffled(items: Iterable[Item], rnd: random.Random) -> list[Item]:
    mixed = list(items)
    rnd.shuffle(mixed)
    return mixed


def _resee(evidence: Evidence, instead: dict[tuple[str, str], Seen]) -> History:
    """instead: by operation and id. A hit that shows nothing any more is no hit."""

    def change(answer: Answer) -> Answer:
        if not any(op == answer.op for op, _ in instead):
            return answer
        seen = []
        for item in answer.seen:
            new = instead.get((answer.op, item.id), item)
            if item.score is None or new.value is not None:
                seen.append(new if new.score is not None else replace(new, score=item.score))
        return replace(answer, seen=tuple(seen))

    return _reanswer(evidence, change)


def _reanswer(evidence: Evidence, change: Callable[[Answer], Answer]) -> History:
    return History([change(e) if isinstance(e, Answer) else e for e in evidence.history.events])
