"""Re-ranking: of a search, of documents a caller brings, and how a database is to do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.v1.databases import number, text
from jadevectordb.gateway.rest.v1.hybrid import ALIASES as HYBRID_ALIASES
from jadevectordb.gateway.rest.v1.hybrid import parts_of, query_of
from jadevectordb.gateway.rest.v1.search import flag, real, shown_hybrid, wanted_of
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.hybrid_searching import run_rerank
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.limits import RERANK_BATCH_MAX, RERANK_DOCUMENTS_MAX

_SEARCH_ALIASES: Mapping[str, str] = {
    **HYBRID_ALIASES,
    "enableReranking": "enableReranking",
    "enable_reranking": "enableReranking",
    "rerankTopN": "rerankTopN",
    "rerank_top_n": "rerankTopN",
    "diversity": "diversity",
}
_DOCUMENTS_ALIASES: Mapping[str, str] = {
    "query": "query",
    "queryText": "query",
    "query_text": "query",
    "documents": "documents",
    "topK": "topK",
    "top_k": "topK",
    "model": "model",
    "modelName": "model",
    "model_name": "model",
    "diversity": "diversity",
}
_CONFIG_ALIASES: Mapping[str, str] = {
    "modelName": "modelName",
    "model_name": "modelName",
    "batchSize": "batchSize",
    "batch_size": "batchSize",
    "scoreThreshold": "scoreThreshold",
    "score_threshold": "scoreThreshold",
    "combineScores": "combineScores",
    "combine_scores": "combineScores",
    "rerankWeight": "rerankWeight",
    "rerank_weight": "rerankWeight",
}


def _search(services: Services, request: Request) -> Response:
    started = services.clock.monotonic_s()
    fields = request.fields(_SEARCH_ALIASES)
    entry = request.entry
    wanted = wanted_of(fields, entry)
    answer = run_rerank(
        services,
        entry,
        request.principal,
        query_of(request, fields, wanted),
        depth=number(fields.get("rerankTopN", 100), "rerankTopN", 1, RERANK_DOCUMENTS_MAX),
        enabled=flag(fields, "enableReranking", True),
        diversity=_diversity(fields),
    )
    results = []
    for found in answer.hits:
        scores = {**parts_of(found.hit), "rerankScore": found.rerank_score, "combinedScore": found.score}
        results.append(shown_hybrid(found.hit, found.score, wanted) | {"docId": found.hit.id} | scores)
    total_ms = (services.clock.monotonic_s() - started) * 1000
    return reply(
        {
            "results": results,
            "count": len(results),
            "filtersApplied": wanted.filter is not None,
            "queryId": answer.query_id,
            "model": answer.model,
            "queryTimeMs": round(total_ms, 3),
            "timings": {
                "retrievalMs": round(answer.retrieval_ms, 3),
                "rerankingMs": round(answer.reranking_ms, 3),
                "totalMs": round(total_ms, 3),
            },
        },
        headers=(("x-query-id", answer.query_id),),
    )


def _documents(services: Services, request: Request) -> Response:
    fields = request.fields(_DOCUMENTS_ALIASES)
    query = text(fields, "query")
    if not query.strip():
        raise invalid("query is needed: the text to rank the documents for.")
    documents = documents_of(fields.get("documents"), "id")
    k = number(fields["topK"], "topK", 1, RERANK_DOCUMENTS_MAX) if "topK" in fields else None
    model = text(fields, "model") or None
    result = services.rerank.rerank(
        query, [words for _, words in documents], model=model, k=k, diversity=_diversity(fields)
    )
    ranked = [
        {"id": documents[found.position][0], "score": found.score, "rank": rank}
        for rank, found in enumerate(result.ranked, start=1)
    ]
    return reply(
        {"results": ranked, "count": len(ranked), "latencyMs": round(result.latency_ms, 3), "model": result.model}
    )


def documents_of(value: object, *names: str) -> list[tuple[str, str]]:
    """(id, text) of each document of a list. names: of the id's field. Raises INVALID_ARGUMENT saying which one is wrong."""
    if not isinstance(value, list) or not value:
        raise invalid(f"documents must be a list of at least one {{{names[0]!r}: ..., 'text': ...}}.")
    documents = []
    for position, one in enumerate(value):
        name = next((one[n] for n in names if one.get(n) is not None), None) if isinstance(one, dict) else None
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not name or not isinstance(one.get("text"), str):
            raise invalid(f"documents[{position}] must have {' or '.join(names)} and text, both strings.")
        documents.append((name, one["text"]))
    return documents


def _diversity(fields: dict[str, Any]) -> float:
    diversity = real(fields, "diversity", 0.0)
    if diversity is None or not 0 <= diversity <= 1:
        raise invalid(f"diversity must be 0 (by score alone) to 1, got {diversity}.")
    return diversity


def _get_config(services: Services, request: Request) -> Response:
    return reply(_config(services, request.entry))


def _put_config(services: Services, request: Request) -> Response:
    fields = request.fields(_CONFIG_ALIASES)
    changes: dict[str, Any] = {}
    if "modelName" in fields:
        changes["model"] = text(fields, "modelName")
    if "batchSize" in fields:
        changes["batch_size"] = number(fields["batchSize"], "batchSize", 1, RERANK_BATCH_MAX)
    for name, meaning in (("scoreThreshold", "score_threshold"), ("rerankWeight", "rerank_weight")):
        if name in fields:
            changes[meaning] = real(fields, name, None)
    if "combineScores" in fields:
        changes["combine_scores"] = flag(fields, "combineScores", True)
    services.rerank.configure(request.entry.id, changes)
    whole = _config(services, request.entry)
    names = ("modelName", "batchSize", "scoreThreshold", "combineScores", "rerankWeight")
    config = {name: whole[name] for name in names}
    return reply({**whole, "success": True, "message": "The re-ranking configuration is in force.", "config": config})


def _config(services: Services, entry: Entry) -> dict[str, Any]:
    config, statistics = services.rerank.config(entry.id), services.rerank.statistics(entry.id)
    return {
        "databaseId": entry.id,
        "modelName": config.model,
        "batchSize": config.batch_size,
        "scoreThreshold": config.score_threshold,
        "combineScores": config.combine_scores,
        "rerankWeight": config.rerank_weight,
        "status": "ready" if config.model in services.rerank.models else "not_initialized",
        "availableModels": services.rerank.models,
        "statistics": {
            "totalRequests": statistics.requests,
            "failedRequests": statistics.failed,
            "avgLatencyMs": round(statistics.latency_avg_ms, 3),
            "totalDocumentsReranked": statistics.documents,
        },
    }


_D = "/v1/databases/{databaseId}"
ROUTES = (
    Route("POST", _D + "/search/rerank", "search", _search, summary="Search, then re-rank what was found"),
    Route("POST", "/v1/rerank", "rerank", _documents, summary="Re-rank documents"),
    Route("GET", _D + "/reranking/config", "rerank.config.read", _get_config, summary="Re-ranking configuration"),
    Route(
        "PUT",
        _D + "/reranking/config",
        "rerank.config.write",
        _put_config,
        summary="Change the re-ranking configuration",
    ),
)
