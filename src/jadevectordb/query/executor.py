"""Runs a search over one view of a database: per segment nearest rows, then one merge. From here it goes down to faiss:

    search -> nearest (each part of the view) -> SegmentReader.search -> VectorIndex.search -> faiss

A view never changes, so no step takes a lock, and a search sees each batch whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from time import perf_counter_ns

import msgspec
import numpy as np

from jadevectordb.index.api import Plan
from jadevectordb.index.text import Analyzer
from jadevectordb.model.operations import Rows
from jadevectordb.query import fusion, merge
from jadevectordb.query.allowed import allowed_rows
from jadevectordb.query.noting import note
from jadevectordb.query.plan import Explanation, Match, SearchRequest
from jadevectordb.query.words import Words
from jadevectordb.segment.reader import UNREADABLE, Allowed, SegmentReader
from jadevectordb.shard.view import DatabaseView, Part

_NOTHING_PLAN = Plan("none", "no row matches", 0)
_RANGE_PLAN = Plan("range", "every row within the distance", 0)
_FUSION_DEPTH_MIN = 100  # how far down each ranking fusion looks: a hit low in both lists can win
_GROUP_DEPTH_FACTOR = 4


def search(
    view: DatabaseView, request: SearchRequest, analyzer: Analyzer | None, explain: Explanation | None
) -> list[Match]:
    """Hits of the request, best first, equal scores by id. Fills `explain` when given."""
    if request.group_by is None:
        return _ranked(view, request, request.k, analyzer, explain)
    assert request.k is not None

    def ranked(depth: int) -> list[Match]:
        return _ranked(view, request, depth, analyzer, explain)

    return grouped(ranked, request.k, request.group_by, request.group_size, lambda: view.live, explain)


def _ranked(
    view: DatabaseView, request: SearchRequest, k: int | None, analyzer: Analyzer | None, explain: Explanation | None
) -> list[Match]:
    if request.text is None:
        return nearest(view, request, k, explain)
    assert analyzer is not None and k is not None
    terms = analyzer.query_terms(request.text)
    if explain is not None:
        explain.text_terms = terms
    words = Words(view, terms)
    if request.query is None:
        return words.best(words.counted(), request.filter, k, explain)
    depth = fusion_depth(k)
    by_vector = nearest(view, request, depth, explain)
    by_words = words.best(words.counted(), request.filter, depth, explain)
    if explain is not None:
        explain.fusion, explain.depth = request.fusion, depth
    return fused(by_vector, by_words, request, k)


# By vector


def nearest(view: DatabaseView, request: SearchRequest, k: int | None, explain: Explanation | None) -> list[Match]:
    """The best k by vector alone; k None: all (range only)."""
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
            note(explain, part, allowed, started, perf_counter_ns(), _NOTHING_PLAN)
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
        note(explain, part, allowed, started, filtered, plan)
    scores, rows = similarities.tolist(), row_array.tolist()
    if request.similarity_min is not None and not request.within:
        keep = sum(score >= request.similarity_min for score in scores)
        scores, rows = scores[:keep], rows[:keep]
    id_of = reader.id_of
    if k is not None and len(rows) > k:
        scores, rows = merge.cut_tie(scores, rows, k, id_of)
    matches = list(zip(scores, reader.ids_of(rows), repeat(reader), rows))
    if len(set(scores)) < len(scores):  # equal scores: rows are in order of age, hits are in order of id
        merge.order(matches)
    return matches


def similarities_at(query: Rows, places: Iterable[tuple[str, SegmentReader, int]]) -> dict[str, float]:
    """The exact similarity of each id that lies at one of these places (id, segment, row), by the same code that searches."""
    by_reader: dict[int, tuple[SegmentReader, dict[int, str]]] = {}
    for name, reader, row in places:
        by_reader.setdefault(id(reader), (reader, {}))[1][row] = name
    similarities: dict[str, float] = {}
    for reader, names in by_reader.values():
        rows = np.fromiter(sorted(names), np.int64)
        found = reader.search(query, len(rows), 1.0, Allowed(len(rows), None, rows), None)
        pairs = zip(found.similarities.tolist(), found.rows.tolist(), strict=True)
        similarities.update((names[row], similarity) for similarity, row in pairs)
    return similarities


# By both


def fusion_depth(k: int) -> int:
    """How many hits of each ranking are fused for the best k."""
    return max(k, _FUSION_DEPTH_MIN)


def fused(by_vector: list[Match], by_words: list[Match], request: SearchRequest, k: int) -> list[Match]:
    """The best k of two rankings of `fusion_depth(k)` hits, as the request has them fused; scores are those of the fusion."""
    if request.exclude_id is not None:
        by_words = [m for m in by_words if m[1] != request.exclude_id]
    where = {m[1]: m for m in (*by_vector, *by_words)}
    vector_list = [(m[1], m[0]) for m in by_vector]
    text_list = [(m[1], m[0]) for m in by_words]
    if request.fusion == "rrf":
        ranking = fusion.reciprocal_rank_fusion(
            [vector_list, text_list], k=request.rrf_k, weights=(request.alpha * 2, (1 - request.alpha) * 2)
        )
    else:
        ranking = fusion.weighted_fusion(vector_list, text_list, alpha=request.alpha)
    return [(score, vector_id, where[vector_id][2], where[vector_id][3]) for vector_id, score in ranking[:k]]


# Groups


def grouped(
    ranked: Callable[[int], list[Match]],
    k: int,
    path: str,
    group_size: int,
    most: Callable[[], int],
    explain: Explanation | None,
) -> list[Match]:
    """The best k groups with up to group_size hits each, groups in order of their best hit; looks deeper until they are full.

    ranked: the best so many hits. most: how many there can be, known after ranking.
    """
    depth = k * group_size * _GROUP_DEPTH_FACTOR
    group_of = group_reader(path)
    while True:
        if explain is not None:
            explain.segments.clear()
            explain.depth = depth
        matches = ranked(depth)
        groups: dict[str, list[Match]] = {}
        for match in matches:
            key = group_of(match)
            if key is None:
                continue
            members = groups.get(key)
            if members is None:
                if len(groups) < k:
                    groups[key] = [match]
            elif len(members) < group_size:
                members.append(match)
        full = len(groups) == k and all(len(members) == group_size for members in groups.values())
        if full or len(matches) < depth or depth >= most():
            return [match for members in groups.values() for match in members]
        depth = min(depth * _GROUP_DEPTH_FACTOR, most())


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
