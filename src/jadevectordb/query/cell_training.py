"""Finds the cells of a database that is to be sharded by vector, and measures on the sample what visiting some of them is worth.

Part of the sample is held out as queries. The rest is clustered by k-means, its clusters are given to shards, and for each query
it is counted which share of its true neighbours among the rest lies in the shards that own its 1, 2, 3 ... nearest cells.
Neighbours in a sample lie farther away than in all the data, so what is measured errs on the safe side.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from jadevectordb.index.exact import RowBlock
from jadevectordb.index.faiss_calls import faiss, threads_for_building
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.truth import nearest
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CELL_SAMPLE_ROWS_MAX, CELL_SAMPLE_ROWS_MIN, CELLS_BYTES_MAX, CELLS_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.topology.cells import CellMap, Cells, Coverage, grouped

_CELLS_PER_SHARD: Final = 32
_ROWS_PER_CELL_MIN: Final = 8
_QUERIES_MAX: Final = 512
_ITERATIONS: Final = 20
_DEPTHS: Final = (10, 100)  # neighbours that coverage is measured for
_SEED: Final = 20_477
_THREADS: Final = 2

Floats = npt.NDArray[np.float32]


def train_cells(space: VectorSpace, sample: npt.ArrayLike, shard_count: int, cell_count: int = 0) -> Cells:
    """sample: (n, dimension), as vectors are sent. cell_count: 0 = as many as suit. The same arguments give the same cells.

    Raises INVALID_ARGUMENT, DIMENSION_MISMATCH, INVALID_VECTOR.
    """
    if space.metric is Metric.HAMMING:
        raise _invalid("Vectors of bits have no cells: under hamming use sharding by hash.")
    rows = space.search_rows(space.check_and_pack(sample))
    if len(rows) < max(CELL_SAMPLE_ROWS_MIN, 2 * _ROWS_PER_CELL_MIN * shard_count):
        raise _invalid(
            f"Sharding by vector over {shard_count} shards needs a sample of at least "
            f"{max(CELL_SAMPLE_ROWS_MIN, 2 * _ROWS_PER_CELL_MIN * shard_count)} vectors, got {len(rows)}: some thousands are better."
        )
    chance = np.random.default_rng(_SEED)
    order = chance.permutation(len(rows))[:CELL_SAMPLE_ROWS_MAX]
    held = min(_QUERIES_MAX, len(order) // 8)
    queries = np.ascontiguousarray(rows[np.sort(order[:held])])
    rest = np.ascontiguousarray(rows[np.sort(order[held:])])
    count = _cell_count(space, len(rest), shard_count, cell_count)
    with threads_for_building(_THREADS):
        centroids = _centroids(space, rest, count)
        unmeasured = Cells(
            dimension=space.dimension, metric=space.metric, centroids=centroids.astype("<f4").tobytes(),
            owners=[0] * count, coverage=[], sampled=len(rest), queries=len(queries),
        )  # fmt: skip
        cell_of = CellMap(unmeasured, 1).cells_of(rest)
        owners = grouped(centroids, np.bincount(cell_of, minlength=count).astype(np.float64), shard_count)
        coverage = _coverage(space, unmeasured, rest, queries, np.array(owners)[cell_of], owners)
    return Cells(
        dimension=space.dimension, metric=space.metric, centroids=unmeasured.centroids, owners=owners,
        coverage=coverage, sampled=len(rest), queries=len(queries),
    )  # fmt: skip


def _cell_count(space: VectorSpace, rows: int, shard_count: int, wanted: int) -> int:
    most = min(CELLS_MAX, CELLS_BYTES_MAX // (4 * space.dimension), rows // _ROWS_PER_CELL_MIN)
    if wanted:
        if not shard_count <= wanted <= most:
            raise _invalid(
                f"cells must be from {shard_count} (one a shard) to {most} for this sample and dimension, got {wanted}."
            )
        return wanted
    if most < shard_count:
        raise _invalid(
            f"{shard_count} shards are too many to be sharded by vectors of dimension {space.dimension}: use at most {most}."
        )
    return min(most, _CELLS_PER_SHARD * shard_count)


def _centroids(space: VectorSpace, rows: Floats, count: int) -> Floats:
    clustering = faiss.Kmeans(
        space.dimension, count, niter=_ITERATIONS, seed=_SEED, spherical=space.metric is Metric.COSINE,
        min_points_per_centroid=1, max_points_per_centroid=CELL_SAMPLE_ROWS_MAX,
    )  # fmt: skip
    clustering.train(rows)
    found: Floats = np.ascontiguousarray(clustering.centroids, np.float32)
    return found


def _coverage(
    space: VectorSpace,
    cells: Cells,
    rows: Floats,
    queries: Floats,
    shard_of_row: npt.NDArray[np.int64],
    owners: list[int],
) -> list[Coverage]:
    """Each share is the mean over the queries less its standard error: what was measured by luck is not promised."""
    cell_map, owner_of = CellMap(cells, 1), np.array(owners)
    depths = [depth for depth in _DEPTHS if depth <= len(rows) // 4]
    truth = nearest(RowBlock(space, rows), queries, depths[-1], _SEED)[1]
    shares = {depth: np.empty((len(queries), len(owners))) for depth in depths}
    for at, query in enumerate(queries):
        owner_by_rank = owner_of[cell_map.nearest_cells(query)]
        shards, first_rank = np.unique(owner_by_rank, return_index=True)
        rank_of_shard = np.full(owner_of.max() + 1, len(owners))
        rank_of_shard[shards] = first_rank
        for depth in depths:
            ranks = rank_of_shard[shard_of_row[truth[at, :depth]]]
            shares[depth][at] = np.cumsum(np.bincount(ranks, minlength=len(owners))[: len(owners)]) / depth
    return [Coverage(depth, _promised(shares[depth])) for depth in depths]


def _promised(shares: npt.NDArray[np.float64]) -> list[float]:
    """shares: (queries, cells). The last is 1: with all cells nothing is left out."""
    error = shares.std(axis=0) / np.sqrt(len(shares))
    promised = np.maximum.accumulate(np.clip(shares.mean(axis=0) - error, 0.0, 1.0))
    found: list[float] = np.round(promised, 6).tolist()
    found[-1] = 1.0
    return found


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
