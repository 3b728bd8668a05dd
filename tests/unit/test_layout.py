"""The plan of segments: spans lie side by side, stay few, cost a bounded amount of rewriting, and settle."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.model.limits import SEGMENTS_PER_SHARD
from jadevectordb.shard.layout import DEAD_SHARE_MAX, Span, replan

histories = st.lists(st.tuples(st.integers(0, 9000), st.floats(0, 1), st.sampled_from("fffsc")), max_size=60)


@given(histories, st.randoms(use_true_random=False))
def test_spans_lie_side_by_side_and_stay_few(history: list[tuple[int, float, str]], chance: random.Random) -> None:
    spans: list[Span] = []
    live: list[int] = []
    for unit, (rows, surviving, mode) in enumerate(history):
        before = {(span.first, span.last) for span in spans}
        dying = chance.randrange(len(live)) if live else None
        if dying is not None:
            live[dying] = int(live[dying] * surviving)
        spans, live = [*spans, Span(unit, unit, rows)], [*live, rows]
        alive_in_unit_range = {(s.first, s.last): n for s, n in zip(spans, live, strict=True)}
        spans = replan(spans, live, settle=mode != "f", compact=mode == "c")
        assert spans[0].first == 0 and spans[-1].last == unit
        assert all(a.last + 1 == b.first for a, b in pairwise(spans))
        assert len(spans) <= SEGMENTS_PER_SHARD
        assert mode != "c" or len(spans) == 1
        new_live = []
        for span in spans:
            inside = [
                n for (first, last), n in alive_in_unit_range.items() if span.first <= first and last <= span.last
            ]
            new_live.append(sum(inside))
            if (span.first, span.last) not in before:
                assert span.rows == sum(inside) or span.first == span.last == unit
            assert sum(inside) >= span.rows * (1 - DEAD_SHARE_MAX) - 1e-6, "else it is to be rewritten"
        live = new_live
        if mode != "f":
            again = replan(spans, live, settle=True, compact=mode == "c")
            assert again == spans, "a settled plan stays as it is"
        if mode == "c":
            assert spans[0].rows == live[0]


@pytest.mark.parametrize(
    "rows_of_unit",
    [lambda _: 8192, lambda _: 1, lambda r: r.randint(1, 8192), lambda r: r.choice([8192, 8192, 10, 3000])],
)
@pytest.mark.parametrize(("units", "rewrites_max"), [(61, 6.0), (250, 7.0), (1000, 10.5)])
def test_a_row_is_rewritten_a_few_times_in_its_life(
    units: int, rewrites_max: float, rows_of_unit: Callable[[random.Random], int]
) -> None:
    chance = random.Random(3)
    spans: list[Span] = []
    rewritten = total = 0
    for unit in range(units):
        rows = rows_of_unit(chance)
        total += rows
        before = set(spans)
        spans = [*spans, Span(unit, unit, rows)]
        spans = replan(spans, [span.rows for span in spans])
        rewritten += sum(span.rows for span in spans if span not in before)
        assert len(spans) <= SEGMENTS_PER_SHARD
    assert rewritten / total <= rewrites_max


def test_the_oldest_span_is_left_alone_while_it_is_large() -> None:
    spans = [Span(0, 3, 100_000), Span(4, 4, 8192)]
    assert replan(spans, [100_000, 8192]) == spans
    assert replan(spans, [100_000, 8192], settle=True) == [Span(0, 4, 108_192)]
    assert replan([Span(0, 3, 1_000_000), spans[1]], [1_000_000, 8192], settle=True)[0].rows == 1_000_000
    assert replan(spans, [60_000, 8192]) == [Span(0, 3, 60_000), spans[1]], "too many dead rows: written again"
    assert replan([Span(0, 0, 10)], [9], compact=True) == [Span(0, 0, 9)]
    assert replan([], [], compact=True) == []
