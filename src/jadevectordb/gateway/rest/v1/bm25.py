"""The BM25 index of a database: build, rebuild, add documents, look at it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.v1.databases import text
from jadevectordb.gateway.rest.v1.rerank import documents_of
from jadevectordb.gateway.rest.v1.search import flag
from jadevectordb.gateway.rest.v1.vectors import vector_id_of
from jadevectordb.gateway.service.bm25 import BUILDING, COMPLETED, DEFAULT_FIELD, NONE, Status
from jadevectordb.gateway.service.services import Services

_ALIASES: Mapping[str, str] = {
    "textField": "textField",
    "text_field": "textField",
    "incremental": "incremental",
    "documents": "documents",
}


def _build(services: Services, request: Request) -> Response:
    return _built(services, request, DEFAULT_FIELD)


def _rebuild(services: Services, request: Request) -> Response:
    return _built(services, request, None)


def _built(services: Services, request: Request, field_default: str | None) -> Response:
    """field_default: indexed when neither a field nor documents are given; None = that of the last build."""
    fields = request.fields(_ALIASES)
    documents = _documents(fields) if "documents" in fields else None
    field = text(fields, "textField") or (None if documents is not None else field_default)
    incremental = flag(fields, "incremental", False)
    status = services.bm25.build(
        request.entry.id, request.entry.handle, field=field, documents=documents, keep_documents=incremental
    )
    count = status.figures.documents
    return reply(
        {
            "status": status.status,
            "message": f"The BM25 index holds {count} documents and follows every store, update and delete.",
            "documentCount": count,
            "textField": status.field,
            "databaseId": request.entry.id,
            "durationMs": round(status.duration_ms, 3),
        }
    )


def _documents(fields: dict[str, Any]) -> dict[str, str]:
    listed = documents_of(fields.get("documents"), "doc_id", "id", "docId")
    documents = {vector_id_of(name): words for name, words in listed}
    if len(documents) != len(listed):
        raise invalid("The same document id is given twice: give each id once.")
    return documents


def _add(services: Services, request: Request) -> Response:
    documents = _documents(request.fields({"documents": "documents"}))
    status = services.bm25.add(request.entry.id, request.entry.handle, documents)
    return reply(
        {
            "status": "success",
            "message": f"{len(documents)} documents are indexed.",
            "addedCount": len(documents),
            "totalDocuments": status.figures.documents,
            "totalTerms": status.figures.terms,
        }
    )


def _status(services: Services, request: Request) -> Response:
    status = services.bm25.status(request.entry.id, request.entry.handle)
    figures = status.figures
    return reply(
        {
            "databaseId": request.entry.id,
            "status": status.status,
            "totalDocuments": figures.documents,
            "processedDocuments": figures.documents,
            "indexedTerms": figures.terms,
            "progressPercentage": _progress(status),
            "textField": status.field,
            "durationMs": round(status.duration_ms, 3),
            "indexStats": {
                "totalDocuments": figures.documents,
                "totalTerms": figures.terms,
                "averageDocumentLength": figures.tokens / figures.documents if figures.documents else 0.0,
            },
            "totalVectors": status.vectors,
            "documentsWithoutField": status.texts,
            "errorMessage": status.error,
        }
    )


def _progress(status: Status) -> float | None:
    """None while a build runs: declaring a field is one step, and there is no honest number for its middle."""
    return {NONE: 0.0, COMPLETED: 100.0, BUILDING: None}.get(status.status, 0.0)


_B = "/v1/databases/{databaseId}/bm25-index"
ROUTES = (
    Route("POST", _B + "/build", "bm25.write", _build, summary="Build the BM25 index"),
    Route("GET", _B + "/status", "bm25.read", _status, summary="State of the BM25 index"),
    Route("POST", _B + "/rebuild", "bm25.write", _rebuild, summary="Rebuild the BM25 index"),
    Route("POST", _B + "/documents", "bm25.write", _add, summary="Add documents to the BM25 index"),
)
