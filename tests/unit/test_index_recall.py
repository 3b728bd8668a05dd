"""Recall targets are kept on real sentence vectors and held-out queries: every kind of index, with and without filters."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from jadevectordb.index import bitmap
from jadevectordb.index.api import SearchOverrides, VectorIndex
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.factory import build_index, open_index
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

WORDNET = Path(__file__).parents[2] / "data" / "wordnet"
KINDS = [IndexKind.IVF, IndexKind.LSH, IndexKind.HNSW]
BELOW, ABOVE = 0.005, 0.03  # how far measured recall may lie from its target
NOISE = 0.006  # two standard errors of recall over 200 queries whose targets were not tuned on them


class World(NamedTuple):
    space: VectorSpace
    rows: Rows
    queries: Rows
    similarities: np.ndarray  # (queries, rows)
    indexes: dict[IndexKind, VectorIndex]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    space = VectorSpace(Metric.COSINE, 384)
    rows = space.search_rows(space.check_and_pack(np.load(WORDNET / "wordnet_vectors.f16.npy")))
    queries = space.prepare_queries(np.load(WORDNET / "wordnet_queries.f16.npy"))
    indexes = {}
    for kind in KINDS:
        # A graph is slow to build; a part of the rows is enough for it.
        part = rows[:4000] if kind is IndexKind.HNSW else rows
        directory = tmp_path_factory.mktemp(kind.value)
        build_index(kind, space, part, directory, threads=1, seed=5)
        indexes[kind] = open_index(directory, space, part)
        assert indexes[kind].kind is kind
    return World(space, rows, queries, queries @ rows.T, indexes)


def recall_of(world: World, kind: IndexKind, k: int, target: float, **how: Any) -> float:
    index = world.indexes[kind]
    values = world.similarities[:, : index.row_count]
    allow = how.get("allow")
    rows_in = np.arange(index.row_count) if allow is None else bitmap.to_rows(allow)
    depth = min(k, len(rows_in))
    best = np.argpartition(-values[:, rows_in], depth - 1, axis=1)[:, :depth]
    found = 0
    for query, truth in zip(world.queries, rows_in[best], strict=True):
        hits = index.search(query, k, recall=target, **how)
        assert (np.diff(hits.similarities) <= 0).all()
        rows = hits.rows[:k]
        assert len(np.unique(rows)) == len(rows) == depth
        assert allow is None or bitmap.contains(allow, rows).all()
        found += len(np.intersect1d(truth, rows))
    return found / (depth * len(world.queries))


@pytest.mark.parametrize("target", [0.90, 0.95, 0.99])
@pytest.mark.parametrize("kind", KINDS)
def test_recall_at_10_is_what_was_asked_for(world: World, kind: IndexKind, target: float) -> None:
    recall = recall_of(world, kind, 10, target)
    assert recall >= target - BELOW - (NOISE if kind is IndexKind.LSH else 0)
    if kind is not IndexKind.HNSW:  # the shortest walk of a graph finds more than was asked for
        assert recall <= target + ABOVE + (NOISE if kind is IndexKind.LSH else 0)


@pytest.mark.parametrize("k", [1, 3, 30, 100, 250, 1000])
def test_recall_holds_for_other_k(world: World, k: int) -> None:
    assert recall_of(world, IndexKind.IVF, k, 0.95) >= 0.95 - BELOW - NOISE


@pytest.mark.parametrize("target", [0.5, 0.93, 0.9999, 1.0])
def test_targets_between_and_beyond_those_stored(world: World, target: float) -> None:
    recall = recall_of(world, IndexKind.IVF, 10, target)
    assert recall >= target - BELOW
    assert target <= 0.999 or recall == 1.0


def filters_of(world: World, count: int) -> dict[str, np.ndarray]:
    """Random ones, and the rows nearest to some row: all that is near it, or all that is not."""
    rng = np.random.default_rng(8)
    rows = world.rows[:count]
    masks = {f"random {share}": rng.random(count) < share for share in (0.9, 0.5, 0.1, 0.01)}
    for share in (0.5, 0.25, 0.1, 0.01):
        near = np.zeros(count, np.bool_)
        near[np.argsort(-(rows @ rows[rng.integers(count)]))[: int(share * count)]] = True
        masks[f"near {share}"] = near
        masks[f"not near {share}"] = ~near
    return masks


@pytest.mark.parametrize("kind", KINDS)
def test_filters_cost_no_recall(world: World, kind: IndexKind) -> None:
    for name, mask in filters_of(world, world.indexes[kind].row_count).items():
        allow = bitmap.from_mask(mask)
        for k in (10, 100) if kind is IndexKind.IVF else (10,):
            recall = recall_of(world, kind, k, 0.95, allow=allow, allowed_count=int(mask.sum()))
            assert recall >= 0.95 - BELOW - NOISE, (name, k, recall)


@pytest.mark.parametrize("kind", KINDS)
def test_allowed_rows_and_bitmap_give_the_same(world: World, kind: IndexKind) -> None:
    index = world.indexes[kind]
    for share in (0.6, 0.2, 0.02):
        mask = np.random.default_rng(4).random(index.row_count) < share
        allow, rows = bitmap.from_mask(mask), np.flatnonzero(mask)
        for query in world.queries[:20]:
            by_bits = index.search(query, 10, allow=allow)
            by_rows = index.search(query, 10, allowed_rows=rows)
            both = index.search(query, 10, allow=allow, allowed_count=len(rows), allowed_rows=rows)
            assert by_bits.rows.tolist() == by_rows.rows.tolist() == both.rows.tolist()


@pytest.mark.parametrize("kind", [*KINDS, IndexKind.FLAT])
def test_recall_one_is_exact_and_similarities_are_true(world: World, kind: IndexKind, tmp_path: Path) -> None:
    if kind is IndexKind.FLAT:
        build_index(kind, world.space, world.rows, tmp_path, threads=1, seed=0)
        index = open_index(tmp_path, world.space, world.rows)
    else:
        index = world.indexes[kind]
    block = RowBlock(world.space, world.rows[: index.row_count])
    for query in world.queries[:50]:
        values, rows = block.top(query, 10)
        for how in ({"recall": 1.0}, {"overrides": SearchOverrides(exact=True)}):
            found = index.search(query, 10, **how)
            assert found.plan.strategy == "exact"
            assert found.rows.tolist() == rows.tolist() and found.similarities.tolist() == values.tolist()
        roughly = index.search(query, 10, recall=0.8)
        assert roughly.similarities.tolist() == block.top_of(query, roughly.rows, 10)[0].tolist()


def test_batches_equal_single_searches(world: World) -> None:
    for kind, index in world.indexes.items():
        for target in (0.9, 1.0):
            together = index.search_batch(world.queries[:40], 10, recall=target)
            alone = [index.search(query, 10, recall=target) for query in world.queries[:40]]
            assert [f.rows.tolist() for f in together] == [f.rows.tolist() for f in alone], kind


def test_experts_may_set_the_knobs(world: World) -> None:
    index = world.indexes[IndexKind.IVF]
    query = world.queries[0]
    plan = index.search(query, 10, overrides=SearchOverrides(nprobe=3, candidates=17)).plan
    assert (plan.nprobe, plan.compared, plan.strategy) == (3, 17, "index")
    wide = index.search(query, 10, overrides=SearchOverrides(nprobe=10**6, candidates=10**6))
    assert wide.rows.tolist() == index.search(query, 10, recall=1.0).rows.tolist()
    assert index.search(query, 10, overrides=SearchOverrides()).plan == index.search(query, 10).plan
    graph = world.indexes[IndexKind.HNSW].search(query, 10, overrides=SearchOverrides(ef_search=77))
    assert graph.plan.ef_search == 77


def test_within_a_threshold_is_exact(world: World) -> None:
    index = world.indexes[IndexKind.IVF]
    values = world.rows @ world.queries[3]
    found = index.search_within(world.queries[3], 0.4)
    assert set(found.rows.tolist()) == set(np.flatnonzero(values >= 0.4).tolist())
