"""One ranking from the rankings of several nodes: hits, groups, and what was done to find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import msgspec

from jadevectordb.gateway.cluster.rows import FetchedRows
from jadevectordb.gateway.embedded.hits import Hit, Unpacker
from jadevectordb.model.limits import K_MAX
from jadevectordb.ports.node_calls import Found, FoundWords
from jadevectordb.query import executor, merge
from jadevectordb.query.plan import Explanation, Match, SegmentPlan
from jadevectordb.query.question import Answered, Gathered
from jadevectordb.topology.cells import Visit

RowsOf = Callable[[Found], FetchedRows]
_GROUPS_FACTOR = 4


@dataclass(slots=True)
class ClusterExplanation(Explanation):
    """nodes: what each of them was asked and how long it took. calls: made in all, second ones (hedges) included.

    visit: where vectors decide their shard, which shards the search was for and why.
    """

    nodes: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    hedges: int = 0
    missing_shards: list[int] = field(default_factory=list)
    visit: Visit | None = None

    def as_dict(self) -> dict[str, Any]:
        # Not by super(): a dataclass with slots is another class than the one this was written in
        told = {
            **Explanation.as_dict(self), "nodes": self.nodes, "calls": self.calls, "hedges": self.hedges,
            "missing_shards": self.missing_shards,
        }  # fmt: skip
        visit = self.visit
        if visit is not None:
            told["visited"] = {"shards": list(visit.shards), "why": visit.why, "recall_of_shards": visit.recall}
        return told


def ranked(answers: Seq[Answered], rows_of: RowsOf) -> list[list[Match]]:
    """Each node's matches, best first, equal scores by id. The scores are public ones: what nodes agree on."""
    lists = []
    for one in answers:
        answer: Found = one.answer
        if answer.ids:
            rows = rows_of(answer)
            places = range(len(answer.ids))
            found: list[Match] = [
                (score, vector_id, rows, at)
                for score, vector_id, at in zip(answer.scores, answer.ids, places, strict=True)
            ]
            lists.append(merge.order(found))
    return lists


def best(lists: list[list[Match]], k: int | None, exclude: str | None) -> list[Match]:
    matches = [match for one in lists for match in one if match[1] != exclude]
    # A sort finds the runs that are in order; for the few lists that nodes make it is quicker than a heap
    return (merge.order(matches) if len(lists) > 1 else matches)[:k]


def hits_of(matches: list[Match], unpacker: Unpacker) -> list[Hit]:
    return [Hit(score, vector_id, rows, row, unpacker) for score, vector_id, rows, row in matches]


def group_counts(k: int) -> Iterator[int]:
    """How many groups to ask of each node, one time after the other, until `grouped` is sure. Nodes choose groups by what they have;
    more is asked of them until nothing they left out could matter, or there is no more to be asked.
    """
    asked = min(K_MAX, k)
    while asked < K_MAX:
        yield asked
        asked = min(K_MAX, asked * _GROUPS_FACTOR)
    yield K_MAX


def grouped(
    lists: list[list[Match]], asked_groups: int, k: int, group_size: int, path: str, exclude: str | None
) -> tuple[list[Match], bool]:
    """The best k groups, in order of their best hit, and whether that is sure.

    lists: of each node the best `asked_groups` groups with up to group_size hits each. A node that had more groups may have
    left out members of a group that is among the best of all; sure is what no such member could change.
    """
    group_of = executor.group_reader(path)
    groups: dict[str, list[Match]] = {}
    for match in merge.best(lists, None) if lists else []:
        key = group_of(match)
        if key is None or match[1] == exclude:
            continue
        members = groups.get(key)
        if members is None:
            if len(groups) < k:
                groups[key] = [match]
        elif len(members) < group_size:
            members.append(match)
    is_sure = all(_could_not_change(one, groups, asked_groups, group_size, group_of) for one in lists)
    return [match for members in groups.values() for match in members], is_sure


def _could_not_change(
    one: list[Match],
    groups: dict[str, list[Match]],
    asked_groups: int,
    group_size: int,
    group_of: Callable[[Match], str | None],
) -> bool:
    """Whether a node's answer says all that matters about the groups chosen."""
    best_of: dict[str | None, float] = {}
    for match in one:
        best_of.setdefault(group_of(match), match[0])
    if len(best_of) < asked_groups:
        return True  # it has no other groups
    bound = min(best_of.values())  # nothing in a group that it left out is better
    return all(
        key in best_of or (len(members) == group_size and members[-1][0] > bound) for key, members in groups.items()
    )


def explanation_of(gathered: Gathered, recall: float, total_us: float) -> ClusterExplanation:
    explanation = ClusterExplanation(
        recall, calls=gathered.calls, hedges=gathered.hedges, missing_shards=sorted(gathered.missing)
    )
    for one in gathered.answers:
        answer: Found | FoundWords = one.answer
        plan = msgspec.json.decode(answer.explanation) if answer.explanation else {}
        segments = [SegmentPlan(**segment) for segment in plan.get("segments", ())]
        explanation.segments += segments
        explanation.merge_us += plan.get("merge_us", 0.0)
        explanation.depth = max(explanation.depth, plan.get("depth", 0))
        explanation.nodes.append(
            {
                "node": one.node, "shards": list(one.shards), "segments": len(segments), "hits": len(answer.ids),
                "search_us": answer.search_us, "answered_us": one.seconds * 1e6,
                "watermarks": {str(shard): sequence for shard, sequence in answer.watermarks},
            }
        )  # fmt: skip
    explanation.total_us = total_us
    return explanation
