"""Cells of a database that is sharded by vector: found in a sample, given to shards, and how many a search has to look at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jadevectordb.index.exact import RowBlock
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.truth import nearest
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CELLS_BYTES_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.query.cell_training import train_cells
from jadevectordb.topology.cells import CellMap, Cells, Coverage, decode_cells, encode_cells, grouped

RNG = np.random.default_rng(5)
DIMENSION, SHARDS = 24, 8
CENTRES = RNG.standard_normal((60, DIMENSION)) * 2


def scattered(count: int) -> np.ndarray:
    picked = CENTRES[RNG.integers(0, len(CENTRES), count)]
    return (picked + RNG.standard_normal((count, DIMENSION)) * 0.5).astype(np.float32)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.EUCLIDEAN, Metric.DOT])
@pytest.mark.parametrize("recall", [0.8, 0.95])
def test_the_shards_visited_hold_what_was_promised_of_vectors_never_seen_before(metric: Metric, recall: float) -> None:
    """Of other data of the same kind, 20 times as much; and a visit is less than everything."""
    space = VectorSpace(metric, DIMENSION)
    cells = CellMap(train_cells(space, scattered(1500), SHARDS), SHARDS)
    rows, queries = space.search_rows(scattered(30_000)), space.search_rows(scattered(200))
    owners = cells.shards_of(rows)
    truth = nearest(RowBlock(space, rows), queries, 10, 1)[1]
    visits = [cells.visit(query, 10, recall) for query in queries]
    share = np.mean([np.isin(owners[near], visit.shards).mean() for near, visit in zip(truth, visits, strict=True)])
    assert share >= 1 - (1 - recall) * 2 / 3
    if metric is not Metric.DOT:  # where long vectors are near to everything
        assert np.mean([len(visit.shards) for visit in visits]) < SHARDS * 0.6
    assert np.bincount(owners, minlength=SHARDS).max() < 2.5 * len(rows) / SHARDS


def test_the_same_sample_gives_the_same_cells() -> None:
    space, sample = VectorSpace(Metric.COSINE, DIMENSION), scattered(600)
    assert encode_cells(train_cells(space, sample, 4)) == encode_cells(train_cells(space, sample.copy(), 4))


def test_many_equal_vectors_are_no_trouble() -> None:
    space = VectorSpace(Metric.EUCLIDEAN, 4)
    cells = CellMap(train_cells(space, np.ones((500, 4)), 4), 4)
    assert len(set(cells.shards_of(np.ones((9, 4), np.float32)).tolist())) == 1
    assert cells.visit(np.ones(4, np.float32), 10, 0.9).shards


@pytest.mark.parametrize("dimension", [3, 1536, 4096])
def test_the_record_fits_in_the_metadata_store(dimension: int) -> None:
    rows = RNG.standard_normal((300, dimension)).astype(np.float32)
    record = encode_cells(train_cells(VectorSpace(Metric.COSINE, dimension), rows, 4))
    assert len(record) < CELLS_BYTES_MAX + 20_000
    assert CellMap(decode_cells(record), 4).shard_count == 4


@pytest.mark.parametrize(
    ("sample", "shards", "cells", "says"),
    [
        (scattered(255), 4, 0, "at least 256"),
        (scattered(600), 64, 0, "at least 1024"),
        (scattered(600), 8, 7, "from 8"),
        (scattered(600), 8, 1000, "to 65"),
        (np.zeros((400, DIMENSION)), 4, 0, "all zeros"),
        (scattered(400)[:, :5], 4, 0, "dimension|values"),
    ],
)
def test_samples_that_do_not_do_are_refused(sample: np.ndarray, shards: int, cells: int, says: str) -> None:
    with pytest.raises(JadeError, match=says):
        train_cells(VectorSpace(Metric.COSINE, DIMENSION), sample, shards, cells)


def test_bits_have_no_cells() -> None:
    with pytest.raises(JadeError, match="no cells"):
        train_cells(VectorSpace(Metric.HAMMING, 8), np.ones((400, 8), np.uint8), 4)


@pytest.mark.parametrize("change", ["cut", "owner", "format", "bytes"])
def test_a_record_that_does_not_fit_is_found(change: str) -> None:
    good = Cells(
        dimension=2, metric=Metric.COSINE, centroids=bytes(16), owners=[0, 1], coverage=[], sampled=9, queries=9
    )
    values = {name: getattr(good, name) for name in good.__struct_fields__}
    changed = {
        "cut": {"centroids": bytes(12)}, "owner": {"owners": [0, 2]}, "format": {"format": 2}, "bytes": {},
    }[change]  # fmt: skip
    with pytest.raises(JadeError) as found:
        if change == "bytes":
            decode_cells(encode_cells(good)[:-3])
        CellMap(Cells(**{**values, **changed}), 2)
    assert found.value.code is ErrorCode.CORRUPT


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 9).flatmap(
        lambda shards: st.integers(shards, 40).flatmap(
            lambda cells: st.tuples(
                st.just(shards),
                arrays(np.float32, (cells, 3), elements=st.floats(-5, 5, width=32)),
                st.lists(st.integers(0, 100), min_size=cells, max_size=cells),
            )
        )
    )
)
def test_every_shard_owns_cells_and_none_much_more_than_its_part(
    given_cells: tuple[int, np.ndarray, list[int]],
) -> None:
    shards, centroids, weights = given_cells
    owners = grouped(centroids, weights, shards)
    assert set(owners) == set(range(shards))
    assert owners == grouped(centroids, weights, shards)
    if 4 * shards <= len(weights):  # each halving may be off by half a cell, and passes that on
        load = np.bincount(owners, weights=weights, minlength=shards)
        assert load.max() <= sum(weights) / shards + 3 * max(weights)


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.float32, (12, 3), elements=st.floats(-5, 5, width=32)),
    st.lists(st.integers(0, 3), min_size=12, max_size=12),
    st.lists(st.floats(0, 1), min_size=12, max_size=12),
    arrays(np.float32, 3, elements=st.floats(-5, 5, width=32)),
    st.sampled_from([Metric.EUCLIDEAN, Metric.DOT]),
)
def test_more_recall_never_visits_less(
    centroids: np.ndarray, owners: list[int], shares: list[float], query: np.ndarray, metric: Metric
) -> None:
    promised = [*sorted(shares)[:-1], 1.0]
    cells = CellMap(
        Cells(
            dimension=3, metric=metric, centroids=centroids.tobytes(), owners=owners,
            coverage=[Coverage(10, promised)], sampled=1, queries=1,
        ),
        4,
    )  # fmt: skip
    before: set[int] = set()
    for recall in (0.1, 0.5, 0.9, 0.95, 0.99, 1.0):
        visit = cells.visit(query, 10, recall)
        assert before <= set(visit.shards) and len(visit.shards) > 0 and recall <= visit.recall <= 1.0 + 1e-9
        before = set(visit.shards)
    assert set(cells.visit(query, 11, 0.1).shards) == set(range(4)), "nothing is known of so many"
    if metric is Metric.EUCLIDEAN:
        assert owners[int(cells.cells_of(query[None])[0])] in cells.visit(query, 10, 0.1).shards
