"""What a search answered, hit by hit: each is a vector that was written under that id, with the score that its vector has.

That a hit's value was written, and stood at the moment of the search, is judged where reads are: a hit is a sighting like any
other. Here its score is recomputed from the vector that the workload wrote, and the list is checked for its form. A vector that is
missing from the hits proves nothing: an index may leave out a near one, and a near one may lie beyond k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeAlias, assert_never

import numpy as np
import numpy.typing as npt

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.metric import Metric
from jadevectordb.sim.checks.evidence import Evidence
from jadevectordb.sim.checks.violation import Rule, Violation, named
from jadevectordb.sim.history import Kind, Operation, Seen

VectorOf: TypeAlias = Callable[
    [str, str], npt.NDArray[np.float32]
]  # id, value -> the vector that was written, (dimension,)
TOLERANCE = 1e-5  # of a similarity in float32, relative to the lengths that went into it,
SCORE_TOLERANCE = 1e-6  # or of the score itself: what a float32 on the wire leaves of it


def check_search_forms(evidence: Evidence) -> Iterator[Violation]:
    for search in _searches(evidence):
        hits = search.seen
        scores = [hit.score for hit in hits]
        what = None
        if len(hits) > search.call.k:
            what = f"has {len(hits)} hits, {search.call.k} were asked for"
        elif len({hit.id for hit in hits}) < len(hits):
            twice = next(hit.id for place, hit in enumerate(hits) if hit.id in {h.id for h in hits[:place]})
            what = f'has "{twice}" twice'
        elif any(hit.value is None for hit in hits):
            what = "has a hit without a value"
        elif any(a is not None and b is not None and a < b for a, b in pairwise(scores)):
            what = "is not in the order of its scores"
        if what is not None:
            ids = [hit.id for hit in hits[:5]]
            yield Violation(
                Rule.SEARCH_FORM, f"The answer of {named(search)} {what}.", evidence.teller.lines([search], *ids)
            )


def check_scores(evidence: Evidence, space: VectorSpace, vector_of: VectorOf) -> Iterator[Violation]:
    """vector_of: what the workload wrote with a value."""
    for search, view in evidence.views:
        if search.call.kind is not Kind.SEARCH:
            continue
        query = space.prepare_query(np.array(search.call.query, np.float32))
        for sighting in view:
            seen, writer = sighting.seen, sighting.writer
            if writer is None or writer.value is None or seen.score is None:
                continue
            row = space.search_rows(space.check_and_pack(vector_of(seen.id, writer.value)))[0]
            expected = similarity(space.metric, query, row)
            if not _near(space, query, row, expected, seen.score):
                yield _wrong_score(evidence, search, seen, space.public_score(expected))


def similarity(metric: Metric, query: npt.NDArray[np.generic], row: npt.NDArray[np.generic]) -> float:
    """Of two search rows, larger is nearer, in float64."""
    match metric:
        case Metric.COSINE | Metric.DOT:
            return float(np.dot(query.astype(np.float64), row.astype(np.float64)))
        case Metric.EUCLIDEAN:
            return -float(np.square(query.astype(np.float64) - row.astype(np.float64)).sum())
        case Metric.HAMMING:
            return -float(np.bitwise_count(query.astype(np.uint8) ^ row.astype(np.uint8)).sum())
        case _:
            assert_never(metric)


def _near(
    space: VectorSpace, query: npt.NDArray[np.generic], row: npt.NDArray[np.generic], expected: float, score: float
) -> bool:
    told = space.similarity_of_score(score)
    if space.metric is Metric.HAMMING:
        return abs(told - expected) < 0.5
    lengths = float(np.linalg.norm(query.astype(np.float64))), float(np.linalg.norm(row.astype(np.float64)))
    scale = sum(lengths) ** 2 if space.metric is Metric.EUCLIDEAN else lengths[0] * lengths[1]
    public = space.public_score(expected)
    return abs(told - expected) <= TOLERANCE * scale or abs(score - public) <= SCORE_TOLERANCE * abs(public)


def _wrong_score(evidence: Evidence, search: Operation, seen: Seen, expected: float) -> Violation:
    return Violation(
        Rule.SEARCH_SCORE,
        f'"{seen.id}": {named(search)} gave "{seen.value}" the score {seen.score:.6g}, its vector has {expected:.6g}.',
        evidence.teller.lines([search], seen.id),
        (seen.id,),
    )


def _searches(evidence: Evidence) -> Iterator[Operation]:
    return (o for o in evidence.history.operations if o.call.kind is Kind.SEARCH and o.answer is not None)
