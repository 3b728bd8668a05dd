"""Runs a search over one view of a database: per segment nearest rows, then one merge. From here it goes down to faiss:

    search -> _nearest (each part of the view) -> SegmentReader.search -> VectorIndex.search -> faiss

A view never changes, so no step takes a lock, and a search sees each batch whole or not at all.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable
from itertools import repeat
from time import perf_counter_ns

import msgspec

from jadevectordb.index.api import Plan
from jadevectordb.index.text import Analyzer, TermStats, TextReader
from jadevectordb.model.errors import JadeError
from jadevectordb.query import fusion, merge
from jadevectordb.query.allowed import allowed_rows
from jadevectordb.query.plan import Explanation, Match, SearchRequest, SegmentPlan
from jadevectordb.segment.reader import UNREADABLE, Allowed
from jadevectordb.shard.view import DatabaseView, Part

_NOTHING_PLAN = Plan("none", "no row matches", 0)
_RANGE_PLAN = Plan("range", "every row within the distance", 0)
_TEXT_PLAN = Plan("text", "postings of the words", 0)
_FUSION_DEPTH_MIN = 100  # how far down each ranking fusion looks: a hit low in both lists can win
_GROUP_DEPTH_FACTOR = 4


def search(
    view: DatabaseView, request: SearchRequest, analyzer: Analyzer | None, explain: Explanation | None
) -> list[Match]:
    """Hits of the request, best first, equal scores by id. Fills `explain` when given."""
    if request.group_by is None:
        return _ranked(view, request, request.k, analyzer, explain)
    assert request.k is not None
    return _grouped(view, request, request.k, request.group_by, analyzer, explain)


def _ranked(
    view: DatabaseView, request: SearchRequest, k: int | None, analyzer: Analyzer | None, explain: Explanation | None
) -> list[Match]:
    if request.text is None:
        return _nearest(view, request, k, explain)
    assert analyzer is not None and k is not None
    if request.query is None:
        return _by_text(view, request, request.text, k, analyzer, explain)
    return _hybrid(view, request, request.text, k, analyzer, explain)


# By vector


def _nearest(view: DatabaseView, request: SearchRequest, k: int | None, explain: Explanation | None) -> list[Match]:
    wanted = k if k is None or request.exclude_id is None else k + 1
    ranked = []
    for part in view.parts:
        found = _search_part(part, request, wanted, explain)
        if found:
            ranked.append(found)
    if not ranked:
        return []
    if explain is None:
        matches = merge.best(ranked, wanted)
    else:
        started = perf_counter_ns()
        matches = merge.best(ranked, wanted)
        explain.merge_us += (perf_counter_ns() - started) / 1000
    if request.exclude_id is not None:
        matches = [m for m in matches if m[1] != request.exclude_id][:k]
    return matches


def _search_part(part: Part, request: SearchRequest, k: int | None, explain: Explanation | None) -> list[Match]:
    started = 0 if explain is None else perf_counter_ns()
    allowed = allowed_rows(part, request.filter)
    if allowed is not None and allowed.count == 0:
        if explain is not None:
            _note(explain, part, allowed, started, perf_counter_ns(), _NOTHING_PLAN)
        return []
    filtered = 0 if explain is None else perf_counter_ns()
    reader = part.reader
    assert request.query is not None
    if request.within:
        assert request.similarity_min is not None
        similarities, row_array = reader.search_range(request.query, request.similarity_min, allowed)
        plan = _RANGE_PLAN
    else:
        assert k is not None
        found = reader.search(request.query, k, request.recall, allowed, request.overrides)
        similarities, row_array, plan = found.similarities, found.rows, found.plan
    if explain is not None:
        _note(explain, part, allowed, started, filtered, plan)
    scores, rows = similarities.tolist(), row_array.tolist()
    if request.similarity_min is not None and not request.within:
        keep = sum(score >= request.similarity_min for score in scores)
        scores, rows = scores[:keep], rows[:keep]
    id_of = reader.id_of
    if k is not None and len(rows) > k:
        scores, rows = _cut_tie(scores, rows, k, id_of)
    matches = list(zip(scores, reader.ids_of(rows), repeat(reader), rows))
    if len(set(scores)) < len(scores):  # equal scores: rows are in order of age, hits are in order of id
        merge.order(matches)
    return matches


def _cut_tie(
    scores: list[float], rows: list[int], k: int, id_of: Callable[[int], str]
) -> tuple[list[float], list[int]]:
    """The first k, where of the rows that share the k-th score those with the smallest ids stay."""
    boundary = scores[k - 1]
    better = scores.index(boundary)
    end = bisect.bisect_right(scores, -boundary, key=lambda score: -score)
    tied = rows[better:end]
    if len(tied) > k - better:
        tied = heapq.nsmallest(k - better, tied, key=id_of)
    return scores[: better + len(tied)], rows[:better] + tied


# By text, and both


def _by_text(
    view: DatabaseView, request: SearchRequest, text: str, k: int, analyzer: Analyzer, explain: Explanation | None
) -> list[Match]:
    terms = analyzer.query_terms(text)
    if explain is not None:
        explain.text_terms = terms
    if not terms or not view.parts:
        return []
    # Every part's statistics first: a score must not depend on which rows happen to share a segment.
    stats: TermStats | None = None
    readers = []
    for part in view.parts:
        reader = part.reader.text
        assert reader is not None, "a database with text fields has a text index in every segment"
        readers.append(reader)
        own = _stats(part, reader, terms)
        stats = own if stats is None else stats + own
    assert stats is not None
    ranked = []
    for part, reader in zip(view.parts, readers, strict=True):
        started = perf_counter_ns()
        allowed = allowed_rows(part, request.filter)
        filtered = perf_counter_ns()
        if allowed is not None and allowed.count == 0:
            continue
        allow = None if allowed is None else allowed.as_bits(part.reader.row_count)
        score_array, row_array = reader.search(terms, k, stats, allow)
        if explain is not None:
            _note(explain, part, allowed, started, filtered, _TEXT_PLAN)
        scores, rows = score_array.tolist(), row_array.tolist()
        id_of = part.reader.id_of
        if len(rows) > k:
            scores, rows = _cut_tie(scores, rows, k, id_of)
        ranked.append(merge.order(list(zip(scores, map(id_of, rows), repeat(part.reader), rows))))
    return merge.best(ranked, k) if ranked else []


def _stats(part: Part, reader: TextReader, terms: list[str]) -> TermStats:
    try:
        return reader.stats(terms, part.alive)
    except JadeError as error:  # rows without a text index are read here for the first time
        raise part.reader.blame(error) from error


def _hybrid(
    view: DatabaseView, request: SearchRequest, text: str, k: int, analyzer: Analyzer, explain: Explanation | None
) -> list[Match]:
    depth = max(k, _FUSION_DEPTH_MIN)
    by_vector = _nearest(view, request, depth, explain)
    by_text = _by_text(view, request, text, depth, analyzer, explain)
    if request.exclude_id is not None:
        by_text = [m for m in by_text if m[1] != request.exclude_id]
    if explain is not None:
        explain.fusion, explain.depth = request.fusion, depth
    where = {m[1]: m for m in (*by_vector, *by_text)}
    vector_list = [(m[1], m[0]) for m in by_vector]
    text_list = [(m[1], m[0]) for m in by_text]
    if request.fusion == "rrf":
        fused = fusion.reciprocal_rank_fusion(
            [vector_list, text_list], k=request.rrf_k, weights=(request.alpha * 2, (1 - request.alpha) * 2)
        )
    else:
        fused = fusion.weighted_fusion(vector_list, text_list, alpha=request.alpha)
    return [(score, vector_id, where[vector_id][2], where[vector_id][3]) for vector_id, score in fused[:k]]


# Groups


def _grouped(
    view: DatabaseView,
    request: SearchRequest,
    k: int,
    path: str,
    analyzer: Analyzer | None,
    explain: Explanation | None,
) -> list[Match]:
    """The best k groups with up to group_size hits each, groups in order of their best hit; looks deeper until they are full."""
    depth = k * request.group_size * _GROUP_DEPTH_FACTOR
    group_of = group_reader(path)
    while True:
        if explain is not None:
            explain.segments.clear()
            explain.depth = depth
        matches = _ranked(view, request, depth, analyzer, explain)
        groups: dict[str, list[Match]] = {}
        for match in matches:
            key = group_of(match)
            if key is None:
                continue
            members = groups.get(key)
            if members is None:
                if len(groups) < k:
                    groups[key] = [match]
            elif len(members) < request.group_size:
                members.append(match)
        full = len(groups) == k and all(len(members) == request.group_size for members in groups.values())
        if full or len(matches) < depth or depth >= view.live:
            return [match for members in groups.values() for match in members]
        depth = min(depth * _GROUP_DEPTH_FACTOR, view.live)


def group_reader(path: str) -> Callable[[Match], str | None]:
    """Reads the group of a vector from its metadata: the JSON of the value at the path, None when it has none or null."""
    parts = path.split(".")

    def read(match: Match) -> str | None:
        reader = match[2]
        try:
            value: object = msgspec.json.decode(reader.metadata_of(match[3]))
        except UNREADABLE as error:
            raise reader.blame(error) from error
        if isinstance(value, dict) and path in value:
            value = value[path]
        else:
            for part in parts:
                value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else msgspec.json.encode(value).decode()

    return read


def _note(explain: Explanation, part: Part, allowed: Allowed | None, started: int, filtered: int, plan: Plan) -> None:
    ended = perf_counter_ns()
    explain.segments.append(
        SegmentPlan(
            segment=part.reader.name,
            index=part.reader.index_kind or "not built yet",
            rows=part.live,
            matches=part.live if allowed is None else allowed.count,
            strategy=plan.strategy,
            reason=plan.reason,
            compared=plan.compared,
            nprobe=plan.nprobe,
            lists=plan.lists,
            ef_search=plan.ef_search,
            filter_us=(filtered - started) / 1000,
            search_us=(ended - filtered) / 1000,
        )
    )
