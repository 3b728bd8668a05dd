"""Similarity search as existing clients know it: `/search`, `/search/advanced`, and the two with the metric in the path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.gateway.rest.http import Handler, Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.session import reading_of
from jadevectordb.gateway.rest.v1.databases import number
from jadevectordb.gateway.rest.v1.vectors import values_of
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.contract_filters import translate
from jadevectordb.gateway.service.hybrid import HybridHit
from jadevectordb.gateway.service.hybrid_searching import HybridQuery, run_words
from jadevectordb.gateway.service.searching import Included, SearchOptions, as_list, as_lists, index_in_use, searching
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.database import metric_of
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import K_MAX
from jadevectordb.model.metric import Metric

ALIASES: Mapping[str, str] = {
    "queryVector": "vector",
    "query_vector": "vector",
    "vector": "vector",
    "query": "text",
    "queryText": "text",
    "query_text": "text",
    "topK": "k",
    "top_k": "k",
    "k": "k",
    "threshold": "threshold",
    "filters": "filters",
    "metadataFilter": "filters",
    "metadata_filter": "filters",
    "includeMetadata": "includeMetadata",
    "include_metadata": "includeMetadata",
    "includeValues": "includeValues",
    "include_values": "includeValues",
    "includeVectorData": "includeVectorData",
    "include_vector_data": "includeVectorData",
    "compact": "compact",
    "recall_target": "recall",
    "explain": "explain",
    "consistency": "consistency",
    "allow_partial": "allow_partial",
    "metric": "metric",
}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What every kind of search reads alike."""

    k: int
    filter: Filter | None
    threshold: float | None
    metadata: bool
    values: bool
    compact: bool
    recall: float


def wanted_of(fields: dict[str, Any], entry: Entry) -> Wanted:
    """The common fields, checked. Raises INVALID_ARGUMENT, INVALID_FILTER."""
    if "metric" in fields:
        check_metric(entry, metric_of(fields["metric"]))
    return Wanted(
        k=number(fields.get("k", 10), "topK", 1, K_MAX),
        filter=translate(fields.get("filters"), entry.handle.config.schema),
        threshold=real(fields, "threshold", None),
        metadata=flag(fields, "includeMetadata", True),
        values=flag(fields, "includeValues", False) or flag(fields, "includeVectorData", False),
        compact=flag(fields, "compact", False),
        recall=_recall(fields),
    )


def flag(fields: dict[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"{name} must be true or false, got {value!r:.60}.")
    return value


def real(fields: dict[str, Any], name: str, default: float | None) -> float | None:
    """A finite number, or its text. None when absent and there is no default."""
    value = fields.get(name, default)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise invalid(f"{name} must be a number, got {value!r:.60}.") from None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name} must be a finite number, got {value!r:.60}.")
    try:
        number = float(value)
    except OverflowError:  # an integer that no float can hold
        number = math.inf
    if not math.isfinite(number):
        raise invalid(f"{name} must be a finite number, got {value!r:.60}.")
    return number


def consistency_of(fields: dict[str, Any]) -> str:
    """What the body says of it, "" = nothing."""
    value = fields.get("consistency", "")
    if not isinstance(value, str):
        raise invalid(f"consistency must be a text, got {value!r:.60}.")
    return value


def _recall(fields: dict[str, Any]) -> float:
    recall = real(fields, "recall", 0.95)
    if recall is None or not 0 < recall <= 1:
        raise invalid("recall_target must be above 0 and at most 1.")
    return recall


def result(
    vector_id: str, score: float, metadata: bytes | None, values: list[float] | None, wanted: Wanted
) -> dict[str, Any]:
    """A result with every alias that clients read. metadata: as JSON. None: not asked for, or not there."""
    inner: dict[str, Any] = {"id": vector_id}
    if metadata is not None:
        inner["metadata"] = msgspec.Raw(metadata)
    if values is not None:
        inner["values"] = values
    item = {**inner, "score": score}
    if not wanted.compact:
        item |= {"vectorId": vector_id, "similarity": score, "similarityScore": score, "vector": inner}
    return item


def _include(wanted: Wanted) -> tuple[Included, ...]:
    """What the answer shows of each hit."""
    if not wanted.values:
        return ("metadata",) if wanted.metadata else ()
    return ("metadata", "vector") if wanted.metadata else ("vector",)


def _shown(hits: Hits, wanted: Wanted) -> list[dict[str, Any]]:
    rows = as_lists(hits) if wanted.values and hits else [None] * len(hits)
    return [
        result(hit.id, hit.score, hit.metadata_json if wanted.metadata else None, row, wanted)
        for hit, row in zip(hits, rows, strict=True)
    ]


def shown_hybrid(hit: HybridHit, score: float, wanted: Wanted) -> dict[str, Any]:
    """A text that has no vector has no metadata and no values."""
    metadata = b"{}" if hit.item is None else hit.item.metadata_json
    values = as_list(hit.item) if wanted.values and hit.item is not None else None
    return result(hit.id, score, metadata if wanted.metadata else None, values, wanted)


async def _search(services: Services, request: Request) -> Response:
    fields = request.fields(ALIASES)
    entry = request.entry
    wanted = wanted_of(fields, entry)
    explain = flag(fields, "explain", False)
    started = services.clock.monotonic_s()
    vector = _query_vector(services, entry, fields)
    plan: dict[str, Any] = {}
    reading = reading_of(request, consistency_of(fields))
    if vector is None:
        query = HybridQuery(
            text=fields["text"], k=wanted.k, filter=wanted.filter, threshold=wanted.threshold, reading=reading
        )
        answer = run_words(services, entry, request.principal, query)
        results, query_id, used = [shown_hybrid(h, h.score, wanted) for h in answer.hits], answer.query_id, "BM25"
    else:
        options = SearchOptions(
            k=wanted.k, recall=wanted.recall, threshold=wanted.threshold, explain=explain, include=_include(wanted),
            allow_partial=flag(fields, "allow_partial", False),
        )  # fmt: skip
        hits, query_id = await searching(
            services, entry, request.principal, vector, options, node=wanted.filter, reading=reading
        )
        results, used = _shown(hits, wanted), await index_in_use(entry.handle)
        if hits.explanation is not None:
            plan["plan"] = hits.explanation.as_dict()
    return reply(
        {
            "results": results,
            "count": len(results),
            "filtersApplied": wanted.filter is not None,
            "queryTimeMs": round((services.clock.monotonic_s() - started) * 1000, 3),
            "indexUsed": used,
            "queryId": query_id,
            **plan,
        },
        headers=(("x-query-id", query_id),),
    )


def _query_vector(services: Services, entry: Entry, fields: dict[str, Any]) -> Any:
    """The vector to search with, that of the text where a model makes one that fits; None: search by words."""
    if "vector" in fields:
        return values_of(fields["vector"], entry, "queryVector")
    text = fields.get("text")
    if not isinstance(text, str) or not text.strip():
        raise invalid("A search needs a queryVector (a list of numbers).")
    embeddings = services.embeddings
    if embeddings.is_available and embeddings.dimension == entry.handle.dimension:
        return embeddings.embed([text]).vectors[0]
    if services.bm25.has_text(entry.id, entry.handle):
        return None
    raise invalid(
        "This search has a text but no queryVector: no embedding model of the database's dimension is configured, and it has no "
        "BM25 index. Send queryVector, or build the index with POST /v1/databases/{databaseId}/bm25-index/build."
    )


def check_metric(entry: Entry, metric: Metric) -> None:
    if entry.handle.metric != str(metric):
        raise invalid(
            f"This database compares by {entry.handle.metric}, its index can't answer by {metric}: search without naming a metric."
        )


def _with_metric(metric: Metric) -> Handler:
    async def handle(services: Services, request: Request) -> Response:
        check_metric(request.entry, metric)
        return await _search(services, request)

    return handle


_S = "/v1/databases/{databaseId}/search"
ROUTES = (
    Route("POST", _S, "search", _search, inline=True, summary="Similarity search"),
    Route("POST", _S + "/advanced", "search", _search, inline=True, summary="Similarity search with filters"),
    Route("POST", _S + "/euclidean", "search", _with_metric(Metric.EUCLIDEAN), summary="Search by euclidean distance"),
    Route("POST", _S + "/dotproduct", "search", _with_metric(Metric.DOT), summary="Search by dot product"),
)
