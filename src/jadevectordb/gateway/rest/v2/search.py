"""Searching over the native API: one query or many, as JSON or as raw floats."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.gateway.rest import raw
from jadevectordb.gateway.rest.http import Request, Response, Route, decode, invalid, reply
from jadevectordb.gateway.rest.session import reading_of
from jadevectordb.gateway.service.searching import FoundHit, Included, SearchOptions, found, search, searching
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.limits import SEARCH_BATCH_MAX, TARGET_REMEMBERED_MAX


class SearchBody(SearchOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of vector, id and text is needed; vector or id together with text is a hybrid search."""

    vector: list[float] | None = None
    id: str | None = None
    text: str | None = None


class BatchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    vectors: Annotated[list[list[float]], Meta(min_length=1, max_length=SEARCH_BATCH_MAX)]
    k: Annotated[int, Meta(ge=1, le=10_000)] = 10
    filter: dict[str, Any] | None = None
    recall: Annotated[float, Meta(gt=0, le=1)] = 0.95
    include: tuple[Included, ...] = ("metadata",)


class SearchAnswer(msgspec.Struct, omit_defaults=True):
    hits: list[FoundHit]
    query_id: str
    explanation: dict[str, Any] | UnsetType = UNSET
    missing_shards: list[int] | UnsetType = UNSET


class BatchItem(msgspec.Struct):
    hits: list[FoundHit]


class BatchAnswer(msgspec.Struct):
    results: list[BatchItem]


def _options(query_string: str) -> SearchOptions:
    """The options of a raw search. A client sends the same few query strings over and over."""
    return _remembered(query_string) if len(query_string) <= TARGET_REMEMBERED_MAX else _read_options(query_string)


def _read_options(query_string: str) -> SearchOptions:
    values: dict[str, Any] = dict(parse_qsl(query_string, keep_blank_values=True))
    if "filter" in values:
        values["filter"] = decode(values["filter"].encode(), dict[str, Any] | None)  # type: ignore[arg-type]
    if "include" in values:
        values["include"] = [name for name in values["include"].split(",") if name]
    unknown = values.keys() - set(SearchOptions.__struct_fields__)
    if unknown:
        raise invalid(f"Unknown search option {sorted(unknown)[0]!r:.60}.")
    try:
        return msgspec.convert(values, SearchOptions, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(f"A search option does not fit: {error}.") from None


_remembered = lru_cache(maxsize=1024)(_read_options)


async def _search(services: Services, request: Request) -> Response:
    entry, wanted = request.entry, reading_of(request)
    if request.is_raw:
        options = _options(request.query_string)
        rows = raw.floats(request.body, entry.handle.dimension)
        if len(rows) != 1:
            raise invalid(f"This route takes one query, the body holds {len(rows)}: use /search/batch.")
        hits, query_id = await searching(services, entry, request.principal, rows[0], options, reading=wanted)
    else:
        body = request.json(SearchBody)
        options = body
        vector = None if body.vector is None else np.array(body.vector, np.float64)
        hits, query_id = await searching(
            services, entry, request.principal, vector, body, vector_id=body.id, text=body.text, reading=wanted
        )
    raw_vectors = request.wants_raw and "vector" in options.include
    answer = SearchAnswer(found(hits, options.include, vectors=not raw_vectors), query_id)
    if hits.explanation is not None:
        answer.explanation = hits.explanation.as_dict()
    if hits.missing_shards:
        answer.missing_shards = list(hits.missing_shards)
    if raw_vectors:
        return raw.framed(answer, _stacked([hits]))
    return reply(answer)


def _batch(services: Services, request: Request) -> Response:
    entry, wanted = request.entry, reading_of(request)
    if request.is_raw:
        options = _options(request.query_string)
        vectors: Any = raw.floats(request.body, entry.handle.dimension)
        if len(vectors) > SEARCH_BATCH_MAX:
            raise invalid(f"A batch holds at most {SEARCH_BATCH_MAX} queries, got {len(vectors)}.")
    else:
        body = request.json(BatchBody)
        options = msgspec.convert(
            {"k": body.k, "filter": body.filter, "recall": body.recall, "include": body.include}, SearchOptions
        )
        vectors = body.vectors
    results = [
        search(services, entry, request.principal, vector, options, reading=wanted)[0] for vector in _rows(vectors)
    ]
    raw_vectors = request.wants_raw and "vector" in options.include
    answer = BatchAnswer([BatchItem(found(hits, options.include, vectors=not raw_vectors)) for hits in results])
    return raw.framed(answer, _stacked(results)) if raw_vectors else reply(answer)


def _rows(vectors: Any) -> Any:
    return vectors if isinstance(vectors, np.ndarray) else (np.array(vector, np.float64) for vector in vectors)


def _stacked(results: list[Hits]) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    rows = [hit.vector for hits in results for hit in hits]
    return np.stack(rows).astype(np.float32, copy=False) if rows else None


ROUTES = (
    Route(
        "POST",
        "/v2/databases/{db}/search",
        "search",
        _search,
        inline=True,
        summary="The vectors most like one",
        request=SearchBody,
        answer=SearchAnswer,
    ),
    Route(
        "POST",
        "/v2/databases/{db}/search/batch",
        "search",
        _batch,
        summary="Many searches at once",
        request=BatchBody,
        answer=BatchAnswer,
    ),
)
