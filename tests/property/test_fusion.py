"""Fusion of rankings: the formulas of the papers on small lists, and what must hold for any."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.fusion import reciprocal_rank_fusion, weighted_fusion

finite = st.floats(allow_nan=False, allow_infinity=False)
rankings = st.dictionaries(st.sampled_from("abcdefgh"), finite).map(
    lambda scores: sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))
)
weights = st.floats(0.001, 1000)


def test_by_hand() -> None:
    vector, text = [("a", 0.9), ("b", 0.5), ("c", 0.1)], [("b", 12.0), ("d", 2.0)]
    assert reciprocal_rank_fusion([vector, text]) == [
        ("b", 1 / 62 + 1 / 61),
        ("a", 1 / 61),
        ("d", 1 / 62),
        ("c", 1 / 63),
    ]
    assert reciprocal_rank_fusion([vector, text], k=1, weights=(2, 1))[0] == ("b", 2 / 3 + 1 / 2)
    fused = weighted_fusion(vector, text, 0.25)
    assert [name for name, _ in fused] == ["b", "a", "c", "d"]  # c and d tie at 0: by id
    assert [score for _, score in fused] == pytest.approx([0.25 * 0.5 + 0.75, 0.25, 0, 0])
    assert weighted_fusion([("a", 3.0), ("b", 3.0)], [], 1.0) == [("a", 1.0), ("b", 1.0)]
    assert reciprocal_rank_fusion([]) == weighted_fusion([], [], 0.5) == []


@given(st.lists(st.tuples(rankings, weights), max_size=4), st.integers(0, 100), st.randoms())
def test_ranks_fuse_as_defined_in_any_order_of_lists(lists: list, k: int, shuffle) -> None:
    fused = reciprocal_rank_fusion([r for r, _ in lists], k, [w for _, w in lists])
    expected: dict[str, float] = {}
    for ranking, weight in lists:
        for place, (name, _) in enumerate(ranking):
            expected[name] = expected.get(name, 0) + weight / (k + place + 1)
    assert dict(fused) == pytest.approx(expected)
    assert fused == sorted(fused, key=lambda hit: (-hit[1], hit[0]))
    shuffle.shuffle(lists)
    assert reciprocal_rank_fusion([r for r, _ in lists], k, [w for _, w in lists]) == fused


@given(rankings)
def test_one_list_keeps_its_order(ranking: list) -> None:
    assert [name for name, _ in reciprocal_rank_fusion([ranking])] == [name for name, _ in ranking]
    scaled = dict(weighted_fusion(ranking, [], 1.0))
    assert all(scaled[a] >= scaled[b] for (a, _), (b, _) in pairwise(ranking))


@given(rankings, rankings, st.floats(0, 1))
def test_weighted_scores_stay_within_0_and_1_and_ignore_scale(vector: list, text: list, alpha: float) -> None:
    fused = weighted_fusion(vector, text, alpha)
    assert {name for name, _ in fused} == {name for name, _ in vector} | {name for name, _ in text}
    assert all(0 <= score <= 1 + 1e-12 for _, score in fused)
    assert fused == sorted(fused, key=lambda hit: (-hit[1], hit[0]))
    if all(score == 0 or 1e-200 < abs(score) < 1e200 for _, score in text):  # a power of two: exact
        assert weighted_fusion(vector, [(name, score * 4) for name, score in text], alpha) == fused


@given(rankings, rankings, st.floats(0.01, 0.99))
def test_a_hit_no_worse_in_both_lists_is_not_placed_behind(vector: list, text: list, alpha: float) -> None:
    by_vector, by_text = dict(vector), dict(text)
    both = [name for name in by_vector if name in by_text]
    for fused in (dict(weighted_fusion(vector, text, alpha)), dict(reciprocal_rank_fusion([vector, text]))):
        for a in both:
            for b in both:
                if by_vector[a] > by_vector[b] and by_text[a] > by_text[b]:
                    assert fused[a] >= fused[b]


def test_senseless_parameters_are_refused() -> None:
    calls = [
        lambda: reciprocal_rank_fusion([[]], k=-1),
        lambda: reciprocal_rank_fusion([[], []], weights=[1.0]),
        lambda: reciprocal_rank_fusion([[]], weights=[-1.0]),
        lambda: reciprocal_rank_fusion([[]], weights=[math.nan]),
        lambda: reciprocal_rank_fusion([[], []], weights=[0.0, 0.0]),
        lambda: weighted_fusion([], [], 1.5),
        lambda: weighted_fusion([], [], math.nan),
    ]
    for call in calls:
        with pytest.raises(JadeError) as error:
            call()
        assert error.value.code is ErrorCode.INVALID_ARGUMENT
