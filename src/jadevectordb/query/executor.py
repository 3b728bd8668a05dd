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
import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.columns import Selection
from jadevectordb.index.text import Analyzer, TermStats
from jadevectordb.model.filters import Filter
from jadevectordb.query import fusion, merge
from jadevectordb.query.plan import Explanation, Match, SearchRequest, SegmentPlan
from jadevectordb.segment.reader import Allowed
from jadevectordb.shard.view import DatabaseView, Part

_ROWS_RATHER_THAN_BITS = (
    4096  # matches up to which row numbers are handed down: an index compares so few exactly anyway
)
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
    allowed = _allowed(part, request.filter)
    if allowed is not None and allowed.count == 0:
        if explain is not None:
            _note(explain, part, allowed, started, perf_counter_ns(), None)
        return []
    filtered = 0 if explain is None else perf_counter_ns()
    reader = part.reader
    assert request.query is not None
    if request.within:
        assert request.similarity_min is not None
        similarities, row_array = reader.search_range(request.query, request.similarity_min, allowed)
        plan = None
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


def _allowed(part: Part, node: Filter | None) -> Allowed | None:
    """Rows of the part that live and match; None when all do."""
    if node is None:
        return None if part.alive is None else Allowed(part.live, part.alive, None)
    selection: Selection = part.reader.select(node)
    if selection.count <= _ROWS_RATHER_THAN_BITS:
        rows = selection.rows()
        if part.alive is not None:
            rows = rows[bitmap.contains(part.alive, rows)]
        return Allowed(len(rows), None, rows)
    bits = selection.bits()
    if part.alive is None:
        return Allowed(selection.count, bits, None)
    bits = bitmap.both(bits, part.alive)
    return Allowed(bitmap.count(bits), bits, None)


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
        own = reader.stats(terms, part.alive)
        stats = own if stats is None else stats + own
    assert stats is not None
    ranked = []
    for part, reader in zip(view.parts, readers, strict=True):
        allow = part.alive
        if request.filter is not None:
            allowed = _allowed(part, request.filter)
            if allowed is not None:
                if allowed.count == 0:
                    continue
                allow = allowed.as_bits(part.reader.row_count)
        score_array, row_array = reader.search(terms, k, stats, allow)
        scores, rows = score_array.tolist(), row_array.tolist()
        id_of = part.reader.id_of
        if len(rows) > k:
            scores, rows = _cut_tie(scores, rows, k, id_of)
        ranked.append(merge.order(list(zip(scores, map(id_of, rows), repeat(part.reader), rows))))
    return merge.best(ranked, k) if ranked else []


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
            key = group_of(match[2].metadata_of(match[3]))
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


def group_reader(path: str) -> Callable[[bytes], str | None]:
    """Reads the group of a vector from its metadata: the JSON of the value at the path, None when it has none or null."""
    parts = path.split(".")

    def read(metadata: bytes) -> str | None:
        value: object = msgspec.json.decode(metadata)
        if isinstance(value, dict) and path in value:
            value = value[path]
        else:
            for part in parts:
                value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else msgspec.json.encode(value).decode()

    return read


def _note(explain: Explanation, part: Part, allowed: Allowed | None, started: int, filtered: int, plan: object) -> None:
    ended = perf_counter_ns()
    strategy = getattr(plan, "strategy", "none" if allowed is not None and allowed.count == 0 else "range")
    explain.segments.append(
        SegmentPlan(
            segment=part.reader.name,
            index=part.reader.index_kind or "not built yet",
            rows=part.live,
            matches=part.live if allowed is None else allowed.count,
            strategy=strategy,
            reason=getattr(plan, "reason", ""),
            compared=getattr(plan, "compared", 0),
            nprobe=getattr(plan, "nprobe", 0),
            lists=getattr(plan, "lists", 0),
            ef_search=getattr(plan, "ef_search", 0),
            filter_us=(filtered - started) / 1000,
            search_us=(ended - filtered) / 1000,
        )
    )


def count(view: DatabaseView, node: Filter | None) -> int:
    """Live vectors that match."""
    if node is None:
        return view.live
    total = 0
    for part in view.parts:
        allowed = _allowed(part, node)
        total += part.live if allowed is None else allowed.count
    return total


def page(
    view: DatabaseView, node: Filter | None, after: tuple[int, str] | None, limit: int
) -> list[tuple[int, str, Part, int]]:
    """The next `limit` live matching vectors in (hash of id, id) order, strictly after the given place.

    The order is that of hashes, fixed for an id whatever is written meanwhile: scrolling never shows a vector twice and
    never misses one that was there throughout.
    """
    found: list[tuple[int, str, Part, int]] = []
    for part in view.parts:
        hashes, rows = part.reader.hash_order()
        bits = part.alive
        if node is not None:
            allowed = _allowed(part, node)
            if allowed is not None:
                if allowed.count == 0:
                    continue
                bits = allowed.as_bits(part.reader.row_count)
        start = 0 if after is None else int(np.searchsorted(hashes, np.uint64(after[0]), "left"))
        taken = 0
        block = max(limit * 2, 1024)
        while start < len(hashes) and taken < limit:
            some_hashes, some_rows = hashes[start : start + block], rows[start : start + block].astype(np.int64)
            if bits is not None:
                keep = bitmap.contains(bits, some_rows)
                some_hashes, some_rows = some_hashes[keep], some_rows[keep]
            last = 0
            for value, row in zip(some_hashes.tolist(), some_rows.tolist(), strict=True):
                if taken >= limit and value != last:  # ids that share a hash stay together, so that the cut is by id
                    break
                place = (value, part.reader.id_of(row))
                if after is None or place > after:
                    found.append((*place, part, row))
                    taken += 1
                    last = value
            start += block
    found.sort(key=lambda item: item[:2])
    return found[:limit]
