"""Judges a history: every promise of the cluster against everything its clients saw.

`check` is what the simulation and the tests on real processes call. It is pure, so that a history once written to a file gives
the same report on any machine, and it never claims more than it proved: where it gave up, or where nobody looked, the report
says so.

| promise | where |
|---|---|
| only what was written is ever seen, and each write is applied once | `checks/evidence.py` |
| writes and STRONG reads of a vector are linearizable: nothing acknowledged is lost, nothing comes back | `checks/linearizability.py` |
| a batch inside a shard is seen whole or not at all; a view is one moment of the log; versions grow with time | `checks/views.py` |
| sessions see their own writes and never go back | `checks/sessions.py` |
| hits of a search are vectors that were written, with the scores they have | `checks/searches.py` |
| replicas are equal in the end | `checks/replicas.py` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.limits import CHECK_CONFIGURATIONS_MAX
from jadevectordb.sim.checks.evidence import Evidence
from jadevectordb.sim.checks.linearizability import check_registers
from jadevectordb.sim.checks.replicas import check_replicas
from jadevectordb.sim.checks.searches import VectorOf, check_scores, check_search_forms
from jadevectordb.sim.checks.sessions import check_sessions
from jadevectordb.sim.checks.views import check_version_order, check_views
from jadevectordb.sim.checks.violation import Undecided, Violation
from jadevectordb.sim.history import Fate, History, Level
from jadevectordb.sim.outages import outages
from jadevectordb.sim.report import Count, Coverage, Report


@dataclass(frozen=True, slots=True)
class Vectors:
    """What is needed to recompute scores: the database's space, and the vector that was written with a value to an id."""

    space: VectorSpace
    vector_of: VectorOf


def check(
    history: History,
    *,
    vectors: Vectors | None = None,
    replicas_expected: int | None = None,
    configurations_max: int = CHECK_CONFIGURATIONS_MAX,
) -> Report:
    """vectors: None = scores are not recomputed. replicas_expected: of each shard that reported any.

    Raises INVALID_ARGUMENT when two writes of an id carry the same value: then no judgement is possible.
    """
    evidence = Evidence(history)
    violations = list(evidence.violations)
    undecided = []
    for finding in check_registers(evidence, configurations_max):
        if isinstance(finding, Undecided):
            undecided.append(finding)
        else:
            violations.append(finding)
    checks: list[Callable[[], Iterable[Violation]]] = [
        lambda: check_views(evidence),
        lambda: check_version_order(evidence),
        lambda: check_sessions(evidence),
        lambda: check_search_forms(evidence),
        lambda: check_replicas(history.replicas, replicas_expected=replicas_expected),
    ]
    if vectors is not None:
        checks.append(lambda: check_scores(evidence, vectors.space, vectors.vector_of))
    for run in checks:
        violations += run()
    return Report(
        operations=len(history.operations),
        duration_s=history.duration_s,
        counts=_counts(history),
        coverage=_coverage(evidence, undecided, scores=vectors is not None),
        outages=outages(history),
        violations=violations,
        undecided=undecided,
    )


def _counts(history: History) -> list[Count]:
    counted: dict[tuple[str, str], dict[Fate, int]] = {}
    for operation in history.operations:
        of = counted.setdefault((operation.call.kind, operation.call.level), dict.fromkeys(Fate, 0))
        of[operation.fate] += 1
    return [
        Count(kind, level, of[Fate.OK], of[Fate.FAILED], of[Fate.UNKNOWN])
        for (kind, level), of in sorted(counted.items())
    ]


def _coverage(evidence: Evidence, undecided: list[Undecided], *, scores: bool) -> Coverage:
    history = evidence.history
    unread = unseen = unknown_seen = 0
    for vector_id, changes in evidence.changes.items():
        acknowledged = [c.by for c in changes if c.fate is Fate.OK and c.by.call.level is not Level.EVENTUAL]
        last = max((o.answered for o in acknowledged), default=None)
        reads = [s.by for s in evidence.sightings.get(vector_id, ()) if s.by.call.level is Level.STRONG]
        if last is not None and not any(read.start > last for read in reads):
            unread += 1
        unknown_seen += sum(c.fate is Fate.UNKNOWN and evidence.shown_by(c) is not None for c in changes)
    for operation in history.operations:
        unseen += operation.changes and operation.fate is Fate.UNKNOWN
    sightings = [s for of_id in evidence.sightings.values() for s in of_id]
    return Coverage(
        ids=len(evidence.changes),
        ids_undecided=len(undecided),
        ids_unread_at_end=unread,
        sightings=len(sightings),
        sightings_without_version=sum(s.writer is not None and evidence.seen_version(s) is None for s in sightings),
        ids_without_shard=sum(evidence.shard_of(vector_id) is None for vector_id in evidence.changes),
        unknown_writes=unseen,
        unknown_vectors_seen=unknown_seen,
        replicas=len({(r.shard, r.node) for r in history.replicas}),
        scores_checked=scores,
        settled=any(history.settled_after(o) < len(history.events) for o in history.operations),
    )
