"""Hybrid searches and searches with re-ranking, whatever the door: request in, hits out, recorded for analytics."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.gateway.service.hybrid import RRF, HybridHit, hybrid_search
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filter_eval import resolve, scalars
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import RERANK_DOCUMENTS_MAX
from jadevectordb.ports.query_log import QueryKind
from jadevectordb.query.fusion import RRF_K

if TYPE_CHECKING:
    from jadevectordb.gateway.access.principals import Principal
    from jadevectordb.gateway.service.catalog import Entry
    from jadevectordb.gateway.service.rerank import RerankConfig
    from jadevectordb.gateway.service.services import Services


class HybridQuery(msgspec.Struct, frozen=True, kw_only=True):
    """vector: (dimension,) or None; text: "" = none. threshold: only hits whose fused score is at least this. reading: from `sessions`."""

    vector: Any = None
    text: str = ""
    k: int = 10
    filter: Filter | None = None
    fusion: str = RRF
    alpha: float = 0.7
    rrf_k: int = RRF_K
    recall: float = 0.95
    threshold: float | None = None
    reading: Mapping[str, Any] = {}


class HybridAnswer(msgspec.Struct, frozen=True):
    """indexed: whether there is anything to find by words."""

    hits: list[HybridHit]
    query_id: str
    indexed: bool


class RerankedHit(msgspec.Struct, frozen=True):
    """rerank_score: None when re-ranking was turned off."""

    hit: HybridHit
    rerank_score: float | None
    score: float


class RerankAnswer(msgspec.Struct, frozen=True):
    """model: "" when re-ranking was turned off."""

    hits: list[RerankedHit]
    query_id: str
    model: str
    retrieval_ms: float
    reranking_ms: float


def run_hybrid(services: Services, entry: Entry, principal: Principal, query: HybridQuery) -> HybridAnswer:
    """Without an index of words the vector alone decides. Raises CONFLICT when then there is no vector either."""
    indexed = services.bm25.has_text(entry.id, entry.handle)
    with _recorded(services, entry, principal, query, _kind(query, indexed)) as record:
        hits = _retrieve(services, entry, query, query.k, indexed)
        if query.threshold is not None:
            hits = [hit for hit in hits if hit.score >= query.threshold]
        record["results"] = len(hits)
    return HybridAnswer(hits, record["query_id"], indexed)


def run_words(services: Services, entry: Entry, principal: Principal, query: HybridQuery) -> HybridAnswer:
    """By words alone, scored as BM25 has it: there is nothing to fuse. Raises CONFLICT without an index of words."""
    assert query.vector is None
    indexed = services.bm25.has_text(entry.id, entry.handle)
    with _recorded(services, entry, principal, query, QueryKind.BM25) as record:
        found = _retrieve(services, entry, query, query.k, indexed)
        hits = [dataclasses.replace(hit, score=hit.bm25_score) for hit in found]
        if query.threshold is not None:
            hits = [hit for hit in hits if hit.score >= query.threshold]
        record["results"] = len(hits)
    return HybridAnswer(hits, record["query_id"], indexed)


def run_rerank(
    services: Services,
    entry: Entry,
    principal: Principal,
    query: HybridQuery,
    *,
    depth: int,
    enabled: bool = True,
    diversity: float = 0.0,
) -> RerankAnswer:
    """Find `depth` candidates, look at their texts, keep query.k. The database's re-ranking configuration applies."""
    if not query.text.strip():
        raise _invalid("A search with re-ranking needs a queryText.")
    if query.k > RERANK_DOCUMENTS_MAX or depth > RERANK_DOCUMENTS_MAX:
        raise _invalid(f"At most {RERANK_DOCUMENTS_MAX} results can be re-ranked: ask for fewer.")
    indexed = services.bm25.has_text(entry.id, entry.handle)
    with _recorded(services, entry, principal, query, QueryKind.RERANK) as record:
        started = time.perf_counter()
        found = _retrieve(services, entry, query, max(depth, query.k), indexed)
        retrieval_ms = (time.perf_counter() - started) * 1000
        config = services.rerank.config(entry.id)
        if enabled:
            hits, model, reranking_ms = _rerank(services, entry, query, found, config, diversity)
        else:
            hits, model, reranking_ms = [RerankedHit(hit, None, hit.score) for hit in found], "", 0.0
        if query.threshold is not None:
            hits = [hit for hit in hits if hit.score >= query.threshold]
        hits = hits[: query.k]
        record["results"] = len(hits)
    return RerankAnswer(hits, record["query_id"], model, retrieval_ms, reranking_ms)


def _retrieve(services: Services, entry: Entry, query: HybridQuery, k: int, indexed: bool) -> list[HybridHit]:
    text = query.text if query.text.strip() else None
    if text is not None and not indexed:
        if query.vector is None:
            raise JadeError(
                ErrorCode.CONFLICT,
                "This database has no BM25 index to search by text: build one with POST "
                "/v1/databases/{databaseId}/bm25-index/build, or send a queryVector.",
            )
        text = None
    return hybrid_search(
        entry.handle,
        services.bm25.documents(entry.id),
        vector=query.vector,
        text=text,
        k=k,
        node=query.filter,
        fusion=query.fusion,
        alpha=query.alpha,
        rrf_k=query.rrf_k,
        recall=query.recall,
        reading=query.reading,
    )


def _rerank(
    services: Services, entry: Entry, query: HybridQuery, found: list[HybridHit], config: RerankConfig, diversity: float
) -> tuple[list[RerankedHit], str, float]:
    field = services.bm25.text_field(entry.id, entry.handle)
    texts = texts_of(found, field, services.bm25.documents(entry.id))
    result = services.rerank.rerank(
        query.text,
        texts,
        model=config.model,
        batch_size=config.batch_size,
        diversity=diversity,
        language=entry.handle.config.text_language,
        database=entry.id,
    )
    weight = config.rerank_weight
    hits = []
    for ranked in result.ranked:
        hit = found[ranked.position]
        # A model has nothing to say about a text that is not there
        score = ranked.score if texts[ranked.position] else 0.0
        if score >= config.score_threshold:
            combined = weight * score + (1 - weight) * hit.score if config.combine_scores else score
            hits.append(RerankedHit(hit, score, combined))
    if not diversity:
        hits.sort(key=lambda hit: (-hit.score, hit.hit.id))
    return hits, result.model, result.latency_ms


def texts_of(hits: list[HybridHit], field: str, documents: AnyDatabase | None) -> list[str]:
    """The text each hit is judged by: that of the metadata field, else the one given for its id, else ""."""
    texts = ["" if hit.item is None else _text_in(hit.item.metadata, field) for hit in hits]
    if documents is not None:
        missing = [position for position, text in enumerate(texts) if not text]
        for position, item in zip(missing, documents.get([hits[at].id for at in missing]), strict=True):
            if item is not None:
                texts[position] = str(next(iter(item.metadata.values()), ""))
    return texts


def _text_in(metadata: dict[str, Any], field: str) -> str:
    return "\n".join(value for value in scalars(resolve(metadata, field)) if isinstance(value, str))


def _kind(query: HybridQuery, indexed: bool) -> QueryKind:
    """What really ran."""
    if query.vector is None:
        return QueryKind.BM25
    return QueryKind.HYBRID if indexed and query.text.strip() else QueryKind.VECTOR


@contextmanager
def _recorded(
    services: Services, entry: Entry, principal: Principal, query: HybridQuery, kind: QueryKind
) -> Iterator[dict[str, Any]]:
    """Record the search when the block ends, however it ends; the block sets `results`."""
    note: dict[str, Any] = {"query_id": services.analytics.new_query_id(), "results": 0, "error": ""}
    fused = query.vector is not None and bool(query.text)
    started = time.perf_counter()
    try:
        yield note
    except JadeError as error:
        note["error"] = str(error.code)
        raise
    finally:
        services.analytics.record(
            database=entry.id,
            kind=kind,
            user=principal.user_id,
            session=principal.credential_id,
            text=query.text,
            k=query.k,
            latency_ms=(time.perf_counter() - started) * 1000,
            fusion=query.fusion if fused else "",
            alpha=query.alpha if fused else None,
            **note,
        )


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
