"""What a vector is: packing, refusals that name the row, unit length, and the scores made of similarities."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.metric import Metric

FLOAT_METRICS = [Metric.COSINE, Metric.EUCLIDEAN, Metric.DOT]


def refusal(space: VectorSpace, vectors: Any) -> JadeError:
    with pytest.raises(JadeError) as caught:
        space.check_and_pack(vectors)
    return caught.value


@pytest.mark.parametrize("metric", FLOAT_METRICS)
def test_good_float32_rows_are_not_copied(metric: Metric) -> None:
    rows = np.random.default_rng(1).standard_normal((5, 7)).astype(np.float32)
    assert VectorSpace(metric, 7).check_and_pack(rows) is rows


@pytest.mark.parametrize(
    "given_rows", [[[1, 2, 3]], [1.0, 2.0, 3.0], np.array([[1, 2, 3]], np.int64), np.float16([1, 2, 3])]
)
def test_lists_integers_and_single_vectors_are_taken(given_rows: Any) -> None:
    rows = VectorSpace(Metric.DOT, 3).check_and_pack(given_rows)
    assert rows.dtype == np.float32 and rows.flags.c_contiguous and rows.tolist() == [[1.0, 2.0, 3.0]]


def test_no_vectors_are_no_rows() -> None:
    for nothing in ([], np.empty((0, 3), np.float32)):
        assert VectorSpace(Metric.COSINE, 3).check_and_pack(nothing).shape == (0, 3)
        assert VectorSpace(Metric.HAMMING, 3).check_and_pack(nothing).shape == (0, 1)


def test_other_orders_and_strides_are_packed() -> None:
    rows = np.arange(24, dtype=np.float64).reshape(4, 6)[:, ::2] + 1
    packed = VectorSpace(Metric.COSINE, 3).check_and_pack(np.asfortranarray(rows))
    assert packed.flags.c_contiguous and np.array_equal(packed, rows)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("vectors", [[[1, 0], [1, 0, 1]], [[1, 0, 1], [1, 0]], [[1, 0]], [1, 0]])
def test_wrong_dimension_names_the_row(metric: Metric, vectors: Any) -> None:
    error = refusal(VectorSpace(metric, 3), vectors)
    assert error.code is ErrorCode.DIMENSION_MISMATCH
    assert (error.details["expected"], error.details["actual"]) == (3, 2)
    assert error.details["row"] == (1 if vectors == [[1, 0, 1], [1, 0]] else 0)


@pytest.mark.parametrize("metric", FLOAT_METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39])
def test_values_that_cannot_be_compared_are_refused(metric: Metric, bad: float) -> None:
    vectors = np.ones((4, 3))
    vectors[2, 1] = bad
    error = refusal(VectorSpace(metric, 3), vectors)
    assert error.code is ErrorCode.INVALID_VECTOR and error.details == {"row": 2}
    assert ("too large" in error.message) == (bad == 1e39)


@pytest.mark.parametrize(
    "vectors", [["a", "b"], [[1, None]], [[1j, 2]], "text", 3, [[[1, 2]]], {"a": 1}, [object()], b"xy"]
)
@pytest.mark.parametrize("metric", list(Metric))
def test_things_that_are_no_vectors_are_refused(metric: Metric, vectors: Any) -> None:
    assert refusal(VectorSpace(metric, 2), vectors).code in (ErrorCode.INVALID_VECTOR, ErrorCode.DIMENSION_MISMATCH)


def test_zero_vector_has_no_direction() -> None:
    vectors = np.ones((3, 4), np.float32)
    vectors[1] = 0
    error = refusal(VectorSpace(Metric.COSINE, 4), vectors)
    assert error.code is ErrorCode.INVALID_VECTOR and error.details == {"row": 1} and "zeros" in error.message
    assert VectorSpace(Metric.DOT, 4).check_and_pack(vectors) is vectors


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e20, 1e38])
def test_cosine_takes_very_short_and_very_long_vectors(scale: float) -> None:
    space = VectorSpace(Metric.COSINE, 3)
    vector = np.array([1.0, 2.0, 2.0]) * scale
    rows = space.check_and_pack(vector)
    unit = space.search_rows(rows)[0]
    assert abs(float(np.linalg.norm(unit.astype(np.float64))) - 1) < 1e-6
    assert np.array_equal(space.prepare_query(rows[0]), unit)


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.EUCLIDEAN])
def test_lengths_beyond_float32_products_are_refused(metric: Metric) -> None:
    assert refusal(VectorSpace(metric, 2), [[0, 1], [1e20, 0]]).details == {"row": 1}


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([np.bool_, np.uint8, np.float32, np.int64]))
def test_bits_are_packed_low_first(dimension: int, seed: int, dtype: Any) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, (3, dimension))
    space = VectorSpace(Metric.HAMMING, dimension)
    rows = space.check_and_pack(bits.astype(dtype))
    assert rows.shape == (3, space.row_width) and rows.dtype == np.uint8
    unpacked = np.unpackbits(rows, axis=1, bitorder="little", count=dimension)
    assert np.array_equal(unpacked, bits)
    assert np.array_equal(space.prepare_query(bits[1].astype(dtype)), rows[1])


@pytest.mark.parametrize("bad", [2, -1, 0.5, math.nan])
def test_hamming_takes_only_zero_and_one(bad: float) -> None:
    error = refusal(VectorSpace(Metric.HAMMING, 2), [[0, 1], [1, bad]])
    assert error.code is ErrorCode.INVALID_VECTOR and error.details == {"row": 1}


def test_unit_rows_need_no_copy_and_others_do() -> None:
    space = VectorSpace(Metric.COSINE, 9)
    rows = np.random.default_rng(2).standard_normal((50, 9)).astype(np.float32)
    assert space.needs_unit_copy(rows)
    units = space.search_rows(rows)
    assert not space.needs_unit_copy(units) and space.search_rows(units) is units
    assert np.allclose(units, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)
    mixed = units.copy()
    mixed[7] *= 3
    again = space.search_rows(mixed)
    assert np.array_equal(np.delete(again, 7, 0), np.delete(units, 7, 0))
    for metric in (Metric.DOT, Metric.EUCLIDEAN):
        assert VectorSpace(metric, 9).search_rows(rows) is rows


def test_a_query_is_one_vector() -> None:
    with pytest.raises(JadeError, match="one query"):
        VectorSpace(Metric.DOT, 2).prepare_query([[1, 2], [3, 4]])


@pytest.mark.parametrize("dimension", [0, -1, 4097])
def test_dimension_has_bounds(dimension: int) -> None:
    with pytest.raises(JadeError):
        VectorSpace(Metric.COSINE, dimension)


@pytest.mark.parametrize("metric", list(Metric))
def test_scores_and_distances_turn_back_into_similarities(metric: Metric) -> None:
    space = VectorSpace(metric, 8)
    for similarity in (-5.0, -1.0, -0.25, 0.0) + ((0.5,) if metric in (Metric.COSINE, Metric.DOT) else ()):
        assert space.similarity_of_distance(space.distance(similarity)) == pytest.approx(similarity)
        assert space.similarity_of_score(space.public_score(similarity)) == pytest.approx(similarity)
    better, worse = (-1.0, -4.0)
    assert space.public_score(better) > space.public_score(worse)
    assert space.distance(better) < space.distance(worse)


def test_scores_users_see() -> None:
    assert VectorSpace(Metric.EUCLIDEAN, 2).public_score(-9.0) == 0.25
    assert VectorSpace(Metric.EUCLIDEAN, 2).distance(-9.0) == 3.0
    assert VectorSpace(Metric.HAMMING, 2).public_score(-1.0) == 0.5
    assert VectorSpace(Metric.COSINE, 2).distance(0.25) == 0.75
    assert VectorSpace(Metric.DOT, 2).distance(3.0) == -3.0
    assert VectorSpace(Metric.EUCLIDEAN, 2).similarity_of_score(0.0) == -math.inf
    assert VectorSpace(Metric.HAMMING, 2).similarity_of_distance(-1.0) == math.inf
