"""What one read saw at one moment: a view is the log up to some place, so nothing known to stand before it may be missing.

A read of several ids, or a search, is served by one view of each shard it touches. How far that view reaches at least is known
from its watermark where the server told it, from the newest version seen in it, and, at SESSION, from the token that was sent.
Everything known to stand in the shard's log up to there must show. That finds batches seen in part (a batch inside one shard is one
entry: if one of its vectors shows, all do), views put together from two moments, sessions that do not see their own writes, and
STRONG reads that were served without asking how far the log is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeAlias

from jadevectordb.sim.checks.evidence import Change, Evidence, Sighting
from jadevectordb.sim.checks.violation import Rule, Violation, found, named
from jadevectordb.sim.history import NEVER, Fate, Level, Operation


def check_views(evidence: Evidence) -> Iterator[Violation]:
    for reader, sightings in evidence.views:
        for shard, seen in _by_shard(evidence, sightings).items():
            yield from _check_view(evidence, reader, shard, seen)


def missing(evidence: Evidence, sighting: Sighting, place: int) -> Change | None:
    """The newest change of the id known to stand up to this place, if what was seen is older; None if all is well.

    Something newer than the place is well too: a read may be served from further on.
    """
    newest = evidence.newest(sighting.seen.id, place)
    if newest is None:
        return None
    version, change = newest
    if sighting.writer is None:
        explained = change.value is None or evidence.delete_after(change.id, version, sighting.by) is not None
        return None if explained else change
    seen = evidence.seen_version(sighting)
    return change if seen is not None and seen < version else None


def _by_shard(evidence: Evidence, sightings: list[Sighting]) -> dict[int, list[Sighting]]:
    views: dict[int, list[Sighting]] = {}
    for sighting in sightings:
        shard = evidence.shard_of(sighting.seen.id)
        if shard is not None:
            views.setdefault(shard, []).append(sighting)
    return views


def _check_view(evidence: Evidence, reader: Operation, shard: int, view: list[Sighting]) -> Iterator[Violation]:
    versions = [(v, s) for s in view if (v := evidence.seen_version(s)) is not None]
    newest, shown = max(versions, key=lambda item: item[0], default=(0, None))
    watermark = reader.sequences.get(shard)
    if watermark is not None and shown is not None and newest > watermark:
        yield Violation(
            Rule.MIXED_VIEW,
            f"{named(reader)} was served by a view of shard {shard} at {watermark}, but shows {found(shown.seen)} of version {newest}.",
            evidence.teller.lines(_writers(shown), shown.seen.id),
            (shown.seen.id,),
        )
        return
    for sighting in view:
        change = missing(evidence, sighting, max(newest, watermark or 0))
        if change is not None:
            same_batch = [s for s in view if s.writer is not None and s.writer.entry == change.entry]
            if same_batch:
                shown, newest = same_batch[0], evidence.version(change) or 0
            yield _incomplete(evidence, sighting, change, shard, shown, newest, watermark)
            return  # one a view: a torn batch of hundreds is one violation


def _writers(*sightings: Sighting) -> list[Operation]:
    return [o for s in sightings for o in (s.by, s.writer.by if s.writer is not None else None) if o is not None]


def _incomplete(
    evidence: Evidence,
    sighting: Sighting,
    change: Change,
    shard: int,
    shown: Sighting | None,
    newest: int,
    watermark: int | None,
) -> Violation:
    version = evidence.version(change)
    what = "the delete" if change.value is None else f'"{change.value}"'
    missed = f"{what} of {named(change.by)} (version {version})"
    evidence_of = [*_writers(sighting), change.by]
    ids = {sighting.seen.id}
    if shown is None or newest < (version or 0):
        rule = Rule.MIXED_VIEW
        why = f"though its view of shard {shard} was at {watermark}"
    else:
        evidence_of += _writers(shown)
        ids.add(shown.seen.id)
        torn = shown.writer is not None and shown.writer.entry == change.entry
        rule = Rule.TORN_BATCH if torn else Rule.MIXED_VIEW
        of = "of the same batch " if torn else ""
        why = f"though it shows {found(shown.seen)} {of}from the same view of shard {shard}"
    return Violation(
        rule,
        f"{named(sighting.by)} saw {found(sighting.seen)} without {missed}, {why}.",
        evidence.teller.lines(evidence_of, *sorted(ids)),
        tuple(sorted(ids)),
    )


Known: TypeAlias = list[tuple[int, int, Change]]
"""By when a change had taken effect for certain, and the newest version that had by then, of one shard; rising in both."""


def check_version_order(evidence: Evidence) -> Iterator[Violation]:
    """A write that began after another of the same shard was acknowledged, or seen, stands behind it in the log; and a STRONG read
    that began after it is served from a view that has it. Pairs of writes that share an id are left to that id's register.
    """
    known_of: dict[int, Known] = {}
    for shard, log in _logs(evidence).items():
        known: Known = []
        for done, version, _, change in sorted((_done_by(evidence, c), v, c.by.start, c) for v, c in log):
            if done != NEVER and (not known or version > known[-1][1]):
                known.append((done, version, change))
        known_of[shard] = known
        for version, change in log:
            before = _newest_before(known, change.by)
            if before is not None and before[1] > version and not _share_ids(before[2], change):
                yield _against_time(evidence, shard, before[2], before[1], change, version)
    yield from _old_views(evidence, known_of)


def _newest_before(known: Known, operation: Operation) -> tuple[int, int, Change] | None:
    place = bisect_left(known, operation.start, key=lambda item: item[0])
    return known[place - 1] if place else None


def _logs(evidence: Evidence) -> dict[int, list[tuple[int, Change]]]:
    logs: dict[int, list[tuple[int, Change]]] = {}
    for (shard, version), change in sorted(evidence.places.items(), key=lambda item: item[0]):
        logs.setdefault(shard, []).append((version, change))
    return logs


def _done_by(evidence: Evidence, change: Change) -> int:
    """The position from which on it is certain that it took effect."""
    acknowledged = change.fate is Fate.OK and change.by.call.level is not Level.EVENTUAL
    shown = evidence.shown_by(change)
    return min(change.by.answered if acknowledged else NEVER, NEVER if shown is None else shown.answered)


def _share_ids(a: Change, b: Change) -> bool:
    return not set(a.by.call.ids).isdisjoint(b.by.call.ids)


def _against_time(evidence: Evidence, shard: int, earlier: Change, high: int, later: Change, low: int) -> Violation:
    ids = (earlier.id, later.id)
    return Violation(
        Rule.VERSION_ORDER,
        f"Shard {shard}: {named(later.by)} got version {low}, though it began at {evidence.teller.began(later.by)} s, after "
        f"{named(earlier.by)} with version {high} had taken effect.",
        evidence.teller.lines((earlier.by, later.by), *ids),
        ids,
    )


def _old_views(evidence: Evidence, known_of: dict[int, Known]) -> Iterator[Violation]:
    for reader in evidence.history.operations:
        if reader.changes or reader.fate is not Fate.OK or reader.call.level is not Level.STRONG:
            continue
        for shard, watermark in reader.sequences.items():
            before = _newest_before(known_of.get(shard, []), reader)
            if before is None or before[1] <= watermark:
                continue
            _, version, change = before
            yield Violation(
                Rule.OLD_VIEW,
                f"Shard {shard}: {named(reader)} was served by a view at {watermark}, though it began at "
                f"{evidence.teller.began(reader)} s, after {named(change.by)} with version {version} had taken effect.",
                evidence.teller.lines((change.by, reader), change.id),
                (change.id,),
            )
