"""Merging ranked lists: the answer depends on scores and ids only."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.query import merge
from jadevectordb.query.plan import Match

hits = st.dictionaries(st.text(max_size=3), st.sampled_from([0.0, -0.5, 1.0, 2.5]), max_size=30)


@given(hits, st.integers(1, 5), st.none() | st.integers(1, 40), st.randoms(use_true_random=False))
def test_however_hits_are_spread(scores: dict[str, float], parts: int, k: int | None, chance: Any) -> None:
    lists: list[list[Match]] = [[] for _ in range(parts)]
    for name, score in scores.items():
        lists[chance.randrange(parts)].append((score, name, cast(Any, None), 0))
    merged = merge.best([merge.order(part) for part in lists], k)
    expected = sorted(((score, name) for name, score in scores.items()), key=lambda hit: (-hit[0], hit[1]))
    assert [(match[0], match[1]) for match in merged] == expected[:k]
