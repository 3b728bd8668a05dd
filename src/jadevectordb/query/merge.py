"""The best k of several ranked lists: those of a database's segments, later those of its shards on other machines.

Pure. The answer depends on scores and ids only, not on how rows are spread: best first, equal scores by id.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Sequence
from itertools import islice

from jadevectordb.query.plan import Match


def best(ranked: Sequence[list[Match]], k: int | None) -> list[Match]:
    """k-way heap merge (k None: everything). ranked: lists as `order` leaves them; ids are distinct among all."""
    if len(ranked) == 1:
        return ranked[0][:k]
    merged = heapq.merge(*ranked, key=_rank)
    return list(merged if k is None else islice(merged, k))


def newest(ranked: Sequence[list[Match]]) -> list[list[Match]]:
    """The lists with the newest row of each id alone, where shards are seen at different moments and an id went from one to another."""
    versions: dict[str, int] = {}
    for matches in ranked:
        for _, name, reader, row in matches:
            versions[name] = max(versions.get(name, 0), reader.version_of(row))
    if len(versions) == sum(map(len, ranked)):
        return list(ranked)
    return [[match for match in matches if match[2].version_of(match[3]) == versions[match[1]]] for matches in ranked]


def order(matches: list[Match]) -> list[Match]:
    """Best first, equal scores by id. In place; quick when the list is in order already, as an index returns it."""
    matches.sort(key=_rank)
    return matches


def _rank(match: Match) -> tuple[float, str]:
    return -match[0], match[1]


def cut_tie(scores: list[float], rows: list[int], k: int, id_of: Callable[[int], str]) -> tuple[list[float], list[int]]:
    """Of a ranking that goes on beyond k the first k, where of the rows that share the k-th score those with the smallest ids stay."""
    boundary = scores[k - 1]
    better = scores.index(boundary)
    end = bisect.bisect_right(scores, -boundary, key=lambda score: -score)
    tied = rows[better:end]
    if len(tied) > k - better:
        tied = heapq.nsmallest(k - better, tied, key=id_of)
    return scores[: better + len(tied)], rows[:better] + tied
