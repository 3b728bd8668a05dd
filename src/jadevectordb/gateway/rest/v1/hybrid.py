"""Search by vector and words at once: `/search/hybrid`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.session import reading_of
from jadevectordb.gateway.rest.v1.databases import number
from jadevectordb.gateway.rest.v1.search import ALIASES as SEARCH_ALIASES
from jadevectordb.gateway.rest.v1.search import Wanted, consistency_of, flag, real, shown_hybrid, wanted_of
from jadevectordb.gateway.rest.v1.vectors import values_of
from jadevectordb.gateway.service.hybrid import FUSIONS, HybridHit
from jadevectordb.gateway.service.hybrid_searching import HybridQuery, run_hybrid
from jadevectordb.gateway.service.services import Services

ALIASES: Mapping[str, str] = {
    **SEARCH_ALIASES,
    "k": "rrf_k",  # here the constant of reciprocal rank fusion
    "fusionMethod": "fusionMethod",
    "fusion_method": "fusionMethod",
    "alpha": "alpha",
    "includeScores": "includeScores",
    "include_scores": "includeScores",
}
_RRF_K_MAX = 1_000_000


def query_of(request: Request, fields: dict[str, Any], wanted: Wanted) -> HybridQuery:
    """The fields that hybrid and re-ranking searches share. Raises INVALID_ARGUMENT, DIMENSION_MISMATCH."""
    text = fields.get("text", "")
    if not isinstance(text, str):
        raise invalid(f"queryText must be a string, got {text!r:.60}.")
    method = str(fields.get("fusionMethod", "rrf")).lower()
    if method not in FUSIONS:
        raise invalid(f"fusionMethod must be one of {', '.join(FUSIONS)}, got {method!r:.60}.")
    alpha = real(fields, "alpha", 0.7)
    if alpha is None or not 0 <= alpha <= 1:
        raise invalid(f"alpha must be 0 to 1 (the vector's share), got {alpha}.")
    vector = values_of(fields["vector"], request.entry, "queryVector") if "vector" in fields else None
    if vector is None and not text.strip():
        raise invalid("Give a queryVector (a list of numbers), a queryText, or both.")
    return HybridQuery(
        vector=vector,
        text=text,
        k=wanted.k,
        filter=wanted.filter,
        fusion=FUSIONS[method],
        alpha=alpha,
        rrf_k=number(fields.get("rrf_k", 60), "k", 0, _RRF_K_MAX),
        recall=wanted.recall,
        threshold=wanted.threshold,
        reading=reading_of(request, consistency_of(fields)),
    )


def parts_of(hit: HybridHit) -> dict[str, Any]:
    return {"vectorScore": hit.vector_score, "bm25Score": hit.bm25_score, "hybridScore": hit.score}


def _hybrid(services: Services, request: Request) -> Response:
    started = services.clock.monotonic_s()
    fields = request.fields(ALIASES)
    entry = request.entry
    wanted = wanted_of(fields, entry)
    query = query_of(request, fields, wanted)
    with_scores = flag(fields, "includeScores", True)
    answer = run_hybrid(services, entry, request.principal, query)
    by_words = answer.indexed and bool(query.text.strip())
    used = [entry.handle.index_in_use] * (query.vector is not None) + ["BM25"] * by_words
    return reply(
        {
            "results": [
                shown_hybrid(hit, hit.score, wanted) | (parts_of(hit) if with_scores else {}) for hit in answer.hits
            ],
            "count": len(answer.hits),
            "filtersApplied": wanted.filter is not None,
            "fusionMethod": query.fusion,
            "alpha": query.alpha,
            "bm25Indexed": answer.indexed,
            "queryTimeMs": round((services.clock.monotonic_s() - started) * 1000, 3),
            "indexUsed": "+".join(used),
            "queryId": answer.query_id,
        },
        headers=(("x-query-id", answer.query_id),),
    )


ROUTES = (
    Route("POST", "/v1/databases/{databaseId}/search/hybrid", "search", _hybrid, summary="Search by vector and words"),
)
