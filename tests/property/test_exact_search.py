"""Exact search against numpy: every metric, any dimension, ties, filters, k beyond the rows, thresholds, batches."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jadevectordb.index import bitmap
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

cases = st.tuples(
    st.sampled_from(list(Metric)),
    st.integers(1, 40),  # dimension
    st.integers(0, 70),  # rows
    st.integers(0, 2**32 - 1),  # seed
    st.booleans(),  # few distinct rows: many ties
    st.integers(1, 90),  # k
)


def make(metric: Metric, dimension: int, count: int, seed: int, tied: bool) -> tuple[VectorSpace, Rows, Rows]:
    """Small integers, so that float32 similarities are exact and ties are real."""
    rng = np.random.default_rng(seed)
    space = VectorSpace(metric, dimension)
    top = 2 if metric is Metric.HAMMING else 4
    low = 0 if metric is Metric.HAMMING else -3
    values = rng.integers(low, top, (count + 1, dimension))
    if tied and count:
        values[:count] = values[rng.integers(0, min(count, 4), count)]
    rows = np.packbits(values, axis=1, bitorder="little") if metric is Metric.HAMMING else values.astype(np.float32)
    return space, np.ascontiguousarray(rows[:count]), np.ascontiguousarray(rows[count])


def similarities(space: VectorSpace, rows: Rows, query: Rows) -> np.ndarray:
    if space.metric is Metric.HAMMING:
        return -np.bitwise_count(rows ^ query).sum(axis=1).astype(np.float32)
    if space.metric is Metric.EUCLIDEAN:
        return -np.square(rows - query).sum(axis=1)
    return rows @ query


def expected(values: np.ndarray, rows: np.ndarray, k: int) -> tuple[list[float], list[int]]:
    """The best k and all ties of the k-th."""
    rows = rows[np.lexsort((rows, -values[rows]))]
    if k < len(rows):
        rows = rows[values[rows] >= values[rows[k - 1]]]
    return values[rows].tolist(), rows.tolist()


def told(hits: tuple[np.ndarray, np.ndarray]) -> tuple[list[float], list[int]]:
    assert hits[0].dtype == np.float32 and hits[1].dtype == np.int64
    return hits[0].tolist(), hits[1].tolist()


@settings(max_examples=300, deadline=None)
@given(cases, st.sampled_from([0.0, 0.1, 0.5, 0.95]))
def test_best_k_agree_with_numpy(case: tuple[Metric, int, int, int, bool, int], share: float) -> None:
    metric, dimension, count, seed, tied, k = case
    space, rows, query = make(metric, dimension, count, seed, tied)
    block = RowBlock(space, rows)
    values = similarities(space, rows, query)
    every = np.arange(count)
    assert told(block.top(query, k)) == expected(values, every, k)
    part = count // 2
    assert told(block.top(query, k, row_count=part)) == expected(values, every[:part], k)
    allowed = np.flatnonzero(np.random.default_rng(seed).random(count) < share)
    allow = bitmap.from_rows(allowed, count)
    assert told(block.top(query, k, allow=allow)) == expected(values, allowed, k)
    assert told(block.top(query, k, allowed_rows=allowed)) == expected(values, allowed, k)
    shuffled = np.concatenate([np.random.default_rng(seed).permutation(allowed), [-1, -1]])
    assert told(block.top_of(query, shuffled, k)) == expected(values, allowed, k)


@settings(max_examples=200, deadline=None)
@given(cases, st.floats(0, 1))
def test_thresholds_agree_with_numpy(case: tuple[Metric, int, int, int, bool, int], at: float) -> None:
    metric, dimension, count, seed, tied, _ = case
    space, rows, query = make(metric, dimension, count, seed, tied)
    block = RowBlock(space, rows)
    values = similarities(space, rows, query)
    allowed = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.5)
    # A similarity that occurs, so that the boundary itself is tested.
    limit = float(np.sort(values)[int(at * (count - 1))]) if count else 0.0
    for chosen, allow in ((np.arange(count), None), (allowed, bitmap.from_rows(allowed, count))):
        inside = chosen[values[chosen] >= limit]
        assert told(block.within(query, limit, allow=allow)) == expected(values, inside, count)
    assert told(block.within(query, math.inf)) == ([], [])
    assert len(block.within(query, -math.inf)[1]) == count


@settings(max_examples=60, deadline=None)
@given(cases, st.integers(1, 40))
def test_batches_agree_with_single_queries(case: tuple[Metric, int, int, int, bool, int], batch: int) -> None:
    metric, dimension, count, seed, tied, k = case
    space, rows, _ = make(metric, dimension, count, seed, tied)
    queries = make(metric, dimension, batch, seed + 1, False)[1]
    block = RowBlock(space, rows)
    together = block.top_batch(queries, k)
    assert [told(hits) for hits in together] == [told(block.top(query, k)) for query in queries]


def test_all_ties_of_the_kth_place_are_returned() -> None:
    """Which of them stay is decided by ids, so the caller must see them all."""
    for metric in Metric:
        space = VectorSpace(metric, 8)
        rows = space.search_rows(space.check_and_pack(np.ones((5000, 8))))
        block = RowBlock(space, rows)
        assert block.top(rows[0], 7)[1].tolist() == list(range(5000))
        assert block.top_of(rows[0], np.arange(4999, 100, -1), 3)[1].tolist() == list(range(101, 5000))
        assert block.top_batch(np.ascontiguousarray(rows[:20]), 5)[3][1].tolist() == list(range(5000))


def test_equal_rows_score_equally_on_every_path() -> None:
    rng = np.random.default_rng(3)
    for metric in (Metric.COSINE, Metric.EUCLIDEAN):
        for dimension in (7, 33, 100, 384):
            space = VectorSpace(metric, dimension)
            rows = space.search_rows(rng.standard_normal((300, dimension)).astype(np.float32))
            query = space.prepare_query(rng.standard_normal(dimension).astype(np.float32))
            block = RowBlock(space, rows)
            whole = block.top(query, 300)
            some = block.top_of(query, np.arange(300)[::-1].copy(), 300)
            assert told(whole) == told(some) == told(block.within(query, -math.inf))
