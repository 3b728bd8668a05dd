"""Measuring, when an index is built, how wide a search must be for each recall target.

Leave-one-out: up to 1,000 stored rows serve as queries, themselves left out. Their true neighbours come from one matrix
product, their candidates from one wide search. The approximate score of a row does not depend on how many lists are
probed, so that one search tells, for every (nprobe, candidates), which neighbours would have survived: a neighbour is
found when its list is probed and fewer than `candidates` rows of probed lists score above it, because the exact
comparison afterwards never loses it. So the grid can be as fine as we like at no cost.

The choice among pairs that reach a target goes by a cost model with fixed constants, not by timing, so that the same rows
and seed give the same index on every replica.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index.exact import RowBlock
from jadevectordb.index.truth import nearest
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

SAMPLE_ROWS = {10: 1000, 100: 250}  # by k: neighbours, not queries, are what is counted
CANDIDATES_MAX = {10: 1000, 100: 2000}  # by k: how deep candidates are followed
TARGETS = (0.80, 0.825, 0.85, 0.875, 0.90, 0.925, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998)
KS = tuple(SAMPLE_ROWS)
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
REGION_SHARES = (0.05, 0.1, 0.25, 0.1)  # of the block, one filter each
REGION_ROWS_MAX = 32_768
REGION_SAMPLE_ROWS = 100
TIES_SPARE = 16  # neighbours fetched beyond k, to see ties that reach past it
_CACHED_BYTES = 12 << 20  # rows that a second search may still find in the processor's cache
_DEAD_BITS_ROW_NS = 50.0  # packed bits are compared one row at a time where some rows are dead
COVERAGE_MAX = 0.9995  # lists beyond those that hold this share of the nearest are not searched when calibrating


class Step(msgspec.Struct, frozen=True):
    """One setting of an inverted-list search and what it was measured to reach."""

    nprobe: int
    candidates: int
    recall: float
    coverage: float  # share of the true neighbours that lie in the probed lists


class Curve(msgspec.Struct, frozen=True):
    """Settings for one k, one for each of `TARGETS`; None where the index does not reach the target: search exactly."""

    k: int
    steps: list[Step | None]


class Calibration(msgspec.Struct, frozen=True):
    """What the density model's shares `LEVELS` really cover: even_coverage where allowed rows lie evenly around the
    query, uneven_coverage under filters that keep one region of the space, wherever the query is.
    """

    curves: list[Curve]
    even_coverage: list[float] = []
    uneven_coverage: list[float] = []


@dataclass(frozen=True, slots=True)
class Costs:
    """Nanoseconds, for choosing between plans; measured on one machine, only their ratios matter."""

    list_ns: float  # a probed list
    scanned_row_ns: float  # a row in a probed list
    candidate_ns: float  # a candidate kept and compared exactly
    exact_row_ns: float  # a row compared in an exact scan of picked rows
    fixed_ns: float  # an index search that probes nothing


def costs_of(row_width: int, code_count: int) -> Costs:
    """row_width: float32 values of a row. code_count: 4-bit codes of a row."""
    return Costs(
        list_ns=300.0,
        scanned_row_ns=0.9 + 0.035 * code_count,
        candidate_ns=110.0 + 0.2 * row_width,
        exact_row_ns=6.0 + 0.18 * row_width,
        fixed_ns=20_000.0 + 20.0 * row_width,
    )


def exact_cost_us(block: RowBlock, *, has_dead: bool, row_count: int | None = None) -> float:
    """About what comparing every row of a block takes, in microseconds. row_count: only so many from its first."""
    rows = block.row_count if row_count is None else row_count
    width = block.space.row_width
    if block.space.metric is Metric.HAMMING:
        row_ns = 3.0 + 0.02 * width + (_DEAD_BITS_ROW_NS if has_dead else 0.0)
    else:
        row_ns = 3.0 + (0.1 if 4 * rows * width <= _CACHED_BYTES else 0.16) * width
    return 5 + rows * row_ns / 1000


def inverse_list_costs(sizes: npt.NDArray[np.float32], costs: Costs) -> npt.NDArray[np.float32]:
    """One over the nanoseconds that probing each list takes, float32 (lists,)."""
    return (1.0 / (costs.list_ns + costs.scanned_row_ns * sizes)).astype(np.float32)


def margin(target: float) -> float:
    """What is added to a target when choosing: queries are a little harder than stored rows, and a sample is a sample.

    Chosen on word and sentence vectors with a dozen seeds, so that held-out queries end within -0.005 and +0.02 of the target.
    """
    missing = 1.0 - target
    return min(0.35 * missing, 0.005 + 0.1 * missing)


@dataclass(frozen=True, slots=True)
class Sample:
    """Stored rows serving as queries, with their true neighbours, themselves left out.

    queries: search rows (s, width). own: int64 (s,), their row numbers. truth: int64 (s, t), best first.
    accepted: similarity at each place of truth, float32 (s, t); rows as similar as the k-th count as found.
    """

    own: npt.NDArray[np.int64]
    queries: Rows
    truth: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float32]


def draw_sample(block: RowBlock, seed: int, depth: int, count: int) -> Sample:
    """count rows of the block with the `depth` nearest of each; fewer when the block has fewer."""
    size = min(count, block.row_count)
    own = np.sort(np.random.default_rng(seed).choice(block.row_count, size, replace=False))
    queries = np.ascontiguousarray(block.rows[own])
    depth = min(depth, block.row_count - 1)
    similarities, rows = nearest(block, queries, depth + 1, seed)
    # Drop each row itself; where duplicates pushed it out of its own list, drop the last place.
    others = rows != own[:, None]
    others[others.all(axis=1), -1] = False
    return Sample(own, queries, rows[others].reshape(size, depth), similarities[others].reshape(size, depth))


@dataclass(frozen=True, slots=True)
class Grid:
    """What a calibration chooses from. nprobes: ascending; the last is what the candidates were searched with."""

    nprobes: list[int]
    rows_per_list: float
    costs: Costs


@dataclass(frozen=True, slots=True)
class _Trace:
    """Where the true neighbours and the candidates of each sample query lie.

    truth_rank: int32 (s, t), rank of the list that holds a true neighbour, 0 = nearest. candidate_rank: int32 (s, r), the
    same for candidates. place: int64 (s, t), where a true neighbour stands among the candidates; -1 = nowhere.
    """

    truth_rank: npt.NDArray[np.int32]
    candidate_rank: npt.NDArray[np.int32]
    place: npt.NDArray[np.int64]


def calibrate(
    k: int,
    sample: Sample,
    rank_of_list: npt.NDArray[np.int32],
    list_of_row: npt.NDArray[np.integer],
    *,
    candidates: npt.NDArray[np.int64],
    grid: Grid,
) -> Curve:
    """rank_of_list: int32 (s, lists), how manyth-nearest a list is to a query. list_of_row: (rows,).

    candidates: int64 (s, r), rows of the probed lists by approximate score, best first, -1 where there are no more.
    """
    index = np.arange(len(sample.own))[:, None]
    known = (candidates >= 0) & (candidates != sample.own[:, None])
    ranks = rank_of_list[index, list_of_row[np.maximum(candidates, 0)]]
    trace = _Trace(
        rank_of_list[index, list_of_row[sample.truth]],
        np.where(known, ranks, np.iinfo(np.int32).max),
        _places(sample.truth, candidates, len(list_of_row)),
    )
    return _curve(k, sample, trace, grid)


def _places(truth: npt.NDArray[np.int64], candidates: npt.NDArray[np.int64], row_count: int) -> npt.NDArray[np.int64]:
    """Where each true neighbour stands among its query's candidates, (s, t); -1 = nowhere."""
    where = np.full(row_count + 1, -1)  # the last entry takes the candidates that are -1
    steps = np.arange(candidates.shape[1])
    places = np.empty(truth.shape, np.int64)
    for i in range(len(truth)):
        where[candidates[i]] = steps
        where[-1] = -1
        places[i] = where[truth[i]]
        where[candidates[i]] = -1
    return places


def _curve(k: int, sample: Sample, trace: _Trace, grid: Grid) -> Curve:
    """For each target the cheapest (nprobe, candidates) that reaches it with its margin."""
    accepted = sample.similarities >= sample.similarities[:, k - 1 : k]  # ties with the k-th included
    wanted = k * len(sample.own)
    best: list[tuple[float, Step] | None] = [None] * len(TARGETS)
    for nprobe in grid.nprobes:
        inside = accepted & (trace.truth_rank < nprobe)
        coverage = float(np.minimum(inside.sum(axis=1), k).sum() / wanted)
        recall = _recall_by_candidates(nprobe, k, inside, trace)
        for at, target in enumerate(TARGETS):
            needed = int(np.searchsorted(recall, target + margin(target))) + 1
            if needed > len(recall):
                continue
            kept = max(k, needed)
            cost = nprobe * (grid.costs.list_ns + grid.rows_per_list * grid.costs.scanned_row_ns)
            cost += kept * grid.costs.candidate_ns
            known = best[at]
            if known is None or cost < known[0]:
                best[at] = cost, Step(nprobe, kept, float(recall[kept - 1]), coverage)
    return Curve(k, [known[1] if known else None for known in best])


def _recall_by_candidates(nprobe: int, k: int, inside: npt.NDArray[np.bool_], trace: _Trace) -> npt.NDArray[np.float64]:
    """Recall at k for each number of candidates 1, 2, ... when `nprobe` lists are searched. inside: neighbours in them."""
    before = np.cumsum(trace.candidate_rank < nprobe, axis=1)
    query, column = np.nonzero(inside & (trace.place >= 0))
    needed = before[
        query, trace.place[query, column]
    ]  # candidates that must be kept to hold this neighbour; at least 1
    # Of neighbours tied with the k-th only as many as wanted count: for each query those that need the fewest candidates.
    order = np.lexsort((needed, query))
    query, needed = query[order], needed[order]
    nth = np.arange(len(query)) - np.searchsorted(query, query)
    width = trace.candidate_rank.shape[1]
    counts = np.bincount(needed[nth < k], minlength=width + 1)[1 : width + 1]
    recall: npt.NDArray[np.float64] = np.cumsum(counts) / (k * len(inside))
    return recall
