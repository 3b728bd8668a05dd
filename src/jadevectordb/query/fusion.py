"""One ranking out of several: by vector and by text, later by anything else that ranks ids. Pure.

A vector's similarity and a text's BM25 score have different scales, so they cannot simply be added. Reciprocal rank fusion
looks at places only and needs no tuning; weighted fusion keeps how much better one hit is than the next, after each list was
brought to the scale 0 to 1.

Rankings are lists of (id, score), best first, greater scores better, an id at most once in a list. Answers are the same, over
all ids of all lists, equal scores by id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from jadevectordb.model.errors import ErrorCode, JadeError

Ranking: TypeAlias = Sequence[tuple[str, float]]

RRF_K = 60


def reciprocal_rank_fusion(
    rankings: Sequence[Ranking], k: int = RRF_K, weights: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Score of an id: the sum over lists of weight / (k + its place, from 1); a list without it adds nothing.

    Cormack, Clarke & Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods".
    k: how little the first places stand out, >= 0. weights: one a list, all 1 when None.
    Raises INVALID_ARGUMENT for a negative k, and for weights that are negative, not finite or all 0.
    """
    if k < 0:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"The constant of reciprocal rank fusion is {k}: use 0 or greater.")
    weights = [1.0] * len(rankings) if weights is None else weights
    _check_weights(weights, len(rankings))
    parts: dict[str, list[float]] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for place, (name, _) in enumerate(ranking, start=1):
            parts.setdefault(name, []).append(weight / (k + place))
    return _ordered(parts)


def weighted_fusion(vector_hits: Ranking, text_hits: Ranking, alpha: float) -> list[tuple[str, float]]:
    """Score of an id: alpha * its vector score + (1 - alpha) * its text score, each list scaled to 0..1 first.

    Scaling is by the least and the greatest score of the list itself (min-max): the best hit gets 1, the last of the list 0, as
    much as an id that is not in it. So ask both sides for more hits than are wanted: the deeper the lists, the less the last
    place matters. If all scores of a list are equal, all of them get 1.
    alpha: 0 = text alone decides, 1 = the vector alone. Raises INVALID_ARGUMENT outside of 0..1.
    """
    if not 0 <= alpha <= 1:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"alpha is {alpha}: use 0 (text alone) to 1 (vectors alone).")
    parts: dict[str, list[float]] = {}
    for ranking, weight in ((vector_hits, alpha), (text_hits, 1 - alpha)):
        for name, score in _scaled(ranking):
            parts.setdefault(name, []).append(weight * score)
    return _ordered(parts)


def _scaled(ranking: Ranking) -> list[tuple[str, float]]:
    """Min-max normalisation to 0..1."""
    assert all(math.isfinite(score) for _, score in ranking)
    if not ranking:
        return []
    least = min(score for _, score in ranking)
    # Halves: the difference of two finite numbers need not be finite.
    span = max(score for _, score in ranking) / 2 - least / 2
    return [(name, (score / 2 - least / 2) / span if span > 0 else 1.0) for name, score in ranking]


def _ordered(parts: dict[str, list[float]]) -> list[tuple[str, float]]:
    # fsum: the sum does not depend on the order of the lists.
    return sorted(((name, math.fsum(scores)) for name, scores in parts.items()), key=lambda hit: (-hit[1], hit[0]))


def _check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"The weights {list(weights)} do not fit {count} rankings: give one finite number, 0 or greater, for each.",
        )
    if count and not any(weights):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, "All weights of the fusion are 0: give at least one a greater value."
        )
