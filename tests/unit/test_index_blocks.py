"""Indexes over difficult blocks: few rows, equal rows, odd and extreme dimensions, every metric; determinism; threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jadevectordb.index import bitmap
from jadevectordb.index.api import VectorIndex
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.factory import build_index, open_index, resolve_kind
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

KINDS = [IndexKind.IVF, IndexKind.HNSW, IndexKind.LSH, IndexKind.AUTO]


def clustered(space: VectorSpace, count: int, seed: int = 0, clusters: int = 40) -> Rows:
    rng = np.random.default_rng(seed)
    if space.metric is Metric.HAMMING:
        return space.check_and_pack(rng.integers(0, 2, (count, space.dimension)))
    centres = rng.standard_normal((clusters, space.dimension))
    values = centres[rng.integers(0, clusters, count)] + 0.5 * rng.standard_normal((count, space.dimension))
    return space.search_rows(space.check_and_pack(values))


def check_searches(space: VectorSpace, rows: Rows, directory: Path, kind: IndexKind, least: float = 0.9) -> None:
    build_index(kind, space, rows, directory, threads=1, seed=1)
    index = open_index(directory, space, rows)
    block = RowBlock(space, rows)
    allow = bitmap.from_mask(np.arange(len(rows)) % 3 == 0)
    found = wanted = 0
    for at in range(0, len(rows), max(1, len(rows) // 30)):
        query = np.ascontiguousarray(rows[at])
        for allowed in (None, allow):
            for k in (1, 10, len(rows) + 5):
                truth = block.top(query, k, allow=allowed)
                hits = index.search(query, k, recall=0.95, allow=allowed)
                # By similarity: of equal rows any will do.
                depth = min(k, len(truth[0]))
                assert len(hits.rows) >= depth
                found += int((hits.similarities[:depth] >= truth[0][depth - 1]).sum())
                wanted += depth
            exact = index.search(query, 5, recall=1.0, allow=allowed)
            assert exact.rows.tolist() == block.top(query, 5, allow=allowed)[1].tolist()
    assert found >= least * wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 17, 255, 256, 300])
def test_small_blocks(tmp_path: Path, kind: IndexKind, count: int) -> None:
    space = VectorSpace(Metric.COSINE, 24)
    check_searches(space, clustered(space, count), tmp_path, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distinct", [1, 3, 20])
@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.EUCLIDEAN, Metric.DOT])
def test_blocks_of_few_distinct_rows(tmp_path: Path, kind: IndexKind, distinct: int, metric: Metric) -> None:
    space = VectorSpace(metric, 16)
    rows = np.ascontiguousarray(np.tile(clustered(space, distinct), (900 // distinct, 1)))
    check_searches(space, rows, tmp_path, kind)


@pytest.mark.parametrize("dimension", [1, 2, 3, 7, 8, 9, 31, 33, 1025, 1200])
def test_every_dimension_can_be_indexed(tmp_path: Path, dimension: int) -> None:
    space = VectorSpace(Metric.EUCLIDEAN, dimension)
    check_searches(space, clustered(space, 700), tmp_path, IndexKind.IVF)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", list(Metric))
def test_every_metric_and_kind(tmp_path: Path, metric: Metric, kind: IndexKind) -> None:
    space = VectorSpace(metric, 20)
    rows = clustered(space, 2500)
    if metric is Metric.DOT:  # lengths that differ by two orders of magnitude
        rows = rows * np.random.default_rng(3).lognormal(0, 1, (len(rows), 1)).astype(np.float32)
    check_searches(space, np.ascontiguousarray(rows), tmp_path, kind)


def test_far_from_the_origin(tmp_path: Path) -> None:
    """Distances small beside the lengths: products of the rows alone would lose them."""
    space = VectorSpace(Metric.EUCLIDEAN, 12)
    rows = clustered(space, 3000) + np.float32(1000.0)
    check_searches(space, np.ascontiguousarray(rows), tmp_path, IndexKind.IVF)


def test_zero_rows_under_dot_and_euclidean(tmp_path: Path) -> None:
    for metric in (Metric.DOT, Metric.EUCLIDEAN):
        space = VectorSpace(metric, 16)
        rows = clustered(space, 1000)
        rows[::2] = 0
        directory = tmp_path / metric.value
        directory.mkdir()
        check_searches(space, rows, directory, IndexKind.IVF)


@pytest.mark.parametrize("kind", [IndexKind.IVF, IndexKind.HNSW, IndexKind.LSH])
def test_same_rows_and_seed_give_the_same_files(tmp_path: Path, kind: IndexKind) -> None:
    space = VectorSpace(Metric.COSINE, 32)
    rows = clustered(space, 3000)
    contents = []
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        names = build_index(kind, space, rows, directory, threads=1, seed=9)
        assert sorted(names) == sorted(path.name for path in directory.iterdir()) and names[-1] == "index.json"
        contents.append([(directory / name).read_bytes() for name in names])
    assert contents[0] == contents[1]


def test_threads_searching_at_once_get_what_one_gets(tmp_path: Path) -> None:
    space = VectorSpace(Metric.COSINE, 32)
    rows = clustered(space, 6000, clusters=400)
    queries = clustered(space, 200, seed=1, clusters=400)
    allows = [
        bitmap.from_mask(np.random.default_rng(i).random(6000) < share) for i, share in enumerate((0.9, 0.5, 0.3))
    ]
    for kind in (IndexKind.IVF, IndexKind.HNSW, IndexKind.LSH):
        directory = tmp_path / kind.value
        directory.mkdir()
        build_index(kind, space, rows, directory, threads=1, seed=2)

        def answers(index: VectorIndex) -> list[list[int]]:
            return [
                index.search(query, 10, recall=recall, allow=allow).rows.tolist()
                for query in queries
                for recall, allow in ((0.8, None), (0.95, None), *((0.95, allow) for allow in allows))
            ]

        alone = answers(open_index(directory, space, rows))
        shared = open_index(directory, space, rows)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(answers, [shared] * 4))
        assert all(given == alone for given in together)


def test_auto_is_flat_for_small_blocks_and_ivf_for_large() -> None:
    space = VectorSpace(Metric.COSINE, 100)
    assert resolve_kind(IndexKind.AUTO, space, 5000) is IndexKind.FLAT
    assert resolve_kind(IndexKind.AUTO, space, 50_000) is IndexKind.IVF
    assert resolve_kind(IndexKind.AUTO, VectorSpace(Metric.HAMMING, 256), 50_000) is IndexKind.FLAT
    assert resolve_kind(IndexKind.FLAT, space, 50_000) is IndexKind.FLAT
    assert resolve_kind(IndexKind.HNSW, space, 10) is IndexKind.FLAT
