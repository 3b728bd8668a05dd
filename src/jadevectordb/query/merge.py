"""The best k of several ranked lists: those of a database's segments, later those of its shards on other machines.

Pure. The answer depends on scores and ids only, not on how rows are spread: best first, equal scores by id.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice

from jadevectordb.query.plan import Match


def best(ranked: Sequence[list[Match]], k: int | None) -> list[Match]:
    """k-way heap merge (k None: everything). ranked: lists as `order` leaves them; ids are distinct among all."""
    if len(ranked) == 1:
        return ranked[0][:k]
    merged = heapq.merge(*ranked, key=_rank)
    return list(merged if k is None else islice(merged, k))


def order(matches: list[Match]) -> list[Match]:
    """Best first, equal scores by id. In place; quick when the list is in order already, as an index returns it."""
    matches.sort(key=_rank)
    return matches


def _rank(match: Match) -> tuple[float, str]:
    return -match[0], match[1]
