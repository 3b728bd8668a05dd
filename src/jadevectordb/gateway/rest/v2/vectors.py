"""Vectors over the native API: write, read, page through, change, delete."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, UnsetType

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.rest import raw
from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.session import reading_of, token_after, writing_of
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.searching import as_lists
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import BATCH_ROWS_MAX, K_MAX
from jadevectordb.query.writer import WriteResult

Ids = Annotated[list[str], Meta(min_length=1, max_length=BATCH_ROWS_MAX)]
Included = tuple[Literal["metadata", "vector", "version"], ...]


_NULL = msgspec.Raw(b"null")


class OneVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    values: list[float]
    metadata: msgspec.Raw = msgspec.field(default_factory=lambda: _NULL)  # an object, or null
    if_version: int | None = None


class UpsertBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either `vectors`, or the columns `ids` and `values` (and metadata, if_version) of equal length."""

    vectors: list[OneVector] | None = None
    ids: list[str] | None = None
    values: list[list[float]] | None = None
    metadata: list[msgspec.Raw] | None = None
    if_version: list[int | None] | None = None
    request_id: str = ""
    atomic: bool = False  # all or nothing; refused where that can't be promised
    allow_partial: bool = False  # part of it may fail: the answer names what did


class RawUpsertHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ids: Ids
    metadata: list[msgspec.Raw] | None = None
    if_version: list[int | None] | None = None
    request_id: str = ""
    atomic: bool = False
    allow_partial: bool = False


class FailedVectors(msgspec.Struct):
    """undecided: whether they were written is not known; sending them again with the same request_id is safe."""

    ids: list[str]
    code: str
    message: str
    undecided: bool


class WriteAnswer(msgspec.Struct):
    """failures: of a request with allow_partial over several shards of a cluster."""

    count: int
    session: str
    version: int
    duplicate: bool
    failures: list[FailedVectors] | UnsetType = UNSET


class IdsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: Ids


class GetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: Ids
    include: Included = ("metadata", "vector")


class ScrollBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=K_MAX)] = 1000
    cursor: str | None = None
    filter: dict[str, Any] | None = None
    include: Included = ("metadata",)


class MetadataBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: Ids
    metadata: dict[str, Any] | list[dict[str, Any]]
    merge: bool = True
    if_version: list[int | None] | None = None
    request_id: str = ""
    atomic: bool = False
    allow_partial: bool = False


class DeleteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: Annotated[list[str], Meta(min_length=1)] | None = None
    filter: dict[str, Any] | None = None
    if_version: list[int | None] | None = None
    request_id: str = ""
    atomic: bool = False
    allow_partial: bool = False


class CountBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    filter: dict[str, Any] | None = None


class VectorAnswer(msgspec.Struct, omit_defaults=True):
    id: str
    version: int
    metadata: msgspec.Raw | UnsetType = UNSET
    vector: list[float] | UnsetType = UNSET


class VectorsAnswer(msgspec.Struct):
    vectors: list[VectorAnswer | None]


class PageAnswer(msgspec.Struct):
    vectors: list[VectorAnswer]
    cursor: str | None


# Writing


def _upsert(services: Services, request: Request) -> Response:
    entry = request.entry
    if request.is_raw:
        header, block = raw.split(request.body, RawUpsertHeader)
        vectors: Any = raw.floats(bytes(block), entry.handle.dimension)
        body: Any = header
        ids = header.ids
    else:
        body = request.json(UpsertBody)
        if body.vectors is not None:
            if body.ids is not None or body.values is not None or body.metadata is not None:
                raise invalid("Give either vectors, or the columns ids, values and metadata.")
            return _write_rows(services, request, body)
        if body.ids is None or body.values is None:
            raise invalid('Give "vectors", or the columns "ids" and "values".')
        ids, vectors = body.ids, _array(body.values, entry)
    result = entry.handle.upsert(
        ids, vectors, _metadata(body.metadata), body.if_version, request_id=body.request_id, **_writing(request, body)
    )
    return _written(request, result)


class _HowWritten(Protocol):
    @property
    def atomic(self) -> bool: ...
    @property
    def allow_partial(self) -> bool: ...


def _writing(request: Request, body: _HowWritten) -> Mapping[str, Any]:
    """Arguments for a write beside its own. On a single node every request is all or nothing, whatever it asks for."""
    given = dict(writing_of(request))
    if isinstance(request.entry.handle, ClusterDatabase):
        given["atomic"], given["allow_partial"] = body.atomic, body.allow_partial
    return given


def _write_rows(services: Services, request: Request, body: UpsertBody) -> Response:
    rows = body.vectors or []
    if not rows:
        raise invalid("vectors must hold at least one vector.")
    conditions = [row.if_version for row in rows]
    result = request.entry.handle.upsert(
        [row.id for row in rows],
        _array([row.values for row in rows], request.entry),
        _metadata([row.metadata for row in rows]),
        conditions if any(c is not None for c in conditions) else None,
        request_id=body.request_id,
        **_writing(request, body),
    )
    return _written(request, result)


def _array(values: list[list[float]], entry: Entry) -> npt.NDArray[np.float64]:
    """(n, dimension); a row of another length is named."""
    dimension = entry.handle.dimension
    for position, row in enumerate(values):
        if len(row) != dimension:
            raise JadeError(
                ErrorCode.DIMENSION_MISMATCH,
                f"Vector {position} has {len(row)} values, the database has dimension {dimension}.",
                details={"expected": dimension, "actual": len(row), "position": position},
            )
    return np.array(values, np.float64).reshape(-1, dimension)


def _metadata(given: Seq[msgspec.Raw] | None) -> list[bytes | None] | None:
    if given is None:
        return None
    return [None if bytes(one) == b"null" else bytes(one) for one in given]


def _update_metadata(services: Services, request: Request) -> Response:
    body = request.json(MetadataBody)
    result = request.entry.handle.update_metadata(
        body.ids,
        body.metadata,
        merge=body.merge,
        if_version=body.if_version,
        request_id=body.request_id,
        **_writing(request, body),
    )
    return _written(request, result)


def _delete(services: Services, request: Request) -> Response:
    body = request.json(DeleteBody)
    result = request.entry.handle.delete(
        body.ids, filter=body.filter, if_version=body.if_version, request_id=body.request_id, **_writing(request, body)
    )
    return _written(request, result)


def _written(request: Request, result: WriteResult) -> Response:
    request.audit_note = f"{result.count} vectors"
    answer = WriteAnswer(result.count, token_after(request, result.sequences), result.version, result.duplicate)
    if result.failures:
        answer.failures = [
            FailedVectors(
                list(one.ids), str(one.error.code), one.error.message, bool(one.error.details.get("undecided"))
            )
            for one in result.failures
        ]
    return reply(answer)


# Reading


def _answers(items: Seq[Item], include: Included, vectors: bool) -> list[VectorAnswer]:
    answers = [VectorAnswer(item.id, item.version) for item in items]
    if "metadata" in include:
        for answer, item in zip(answers, items, strict=True):
            answer.metadata = msgspec.Raw(item.metadata_json)
    if "vector" in include and vectors and items:
        for answer, row in zip(answers, as_lists(list(items)), strict=True):
            answer.vector = row
    return answers


def _rows(items: Seq[Item]) -> npt.NDArray[np.float32] | None:
    return np.stack([item.vector for item in items]).astype(np.float32, copy=False) if items else None


def _get_many(services: Services, request: Request) -> Response:
    body = request.json(GetBody)
    items = request.entry.handle.get(body.ids, **reading_of(request))
    present = [item for item in items if item is not None]
    as_raw = request.wants_raw and "vector" in body.include
    answers = iter(_answers(present, body.include, vectors=not as_raw))
    answer = VectorsAnswer([None if item is None else next(answers) for item in items])
    return raw.framed(answer, _rows(present)) if as_raw else reply(answer)


def _get_one(services: Services, request: Request) -> Response:
    item = request.entry.handle.get(request.params["vectorId"], **reading_of(request))
    if item is None:
        raise JadeError(ErrorCode.NOT_FOUND, f"Vector not found: {request.params['vectorId']!r:.200}.")
    return reply(_answers([item], ("metadata", "vector"), vectors=True)[0])


def _exists(services: Services, request: Request) -> Response:
    return reply({"exists": request.entry.handle.exists(request.json(IdsBody).ids, **reading_of(request))})


def _scroll(services: Services, request: Request) -> Response:
    body, given = request.json(ScrollBody), dict(reading_of(request))
    if "vector" in body.include and isinstance(request.entry.handle, ClusterDatabase):
        given["vectors"] = True
    page = request.entry.handle.scroll(body.limit, body.cursor, body.filter, **given)
    as_raw = request.wants_raw and "vector" in body.include
    answer = PageAnswer(_answers(page.items, body.include, vectors=not as_raw), page.cursor)
    return raw.framed(answer, _rows(page.items)) if as_raw else reply(answer)


def _count(services: Services, request: Request) -> Response:
    return reply({"count": request.entry.handle.count(request.json(CountBody).filter, **reading_of(request))})


_V = "/v2/databases/{db}/vectors"
ROUTES = (
    Route(
        "POST",
        _V,
        "vector.write",
        _upsert,
        summary="Insert or replace vectors, all or nothing",
        request=UpsertBody,
        answer=WriteAnswer,
    ),
    Route(
        "POST", _V + "/get", "vector.read", _get_many, summary="Vectors by id", request=GetBody, answer=VectorsAnswer
    ),
    Route("GET", _V + "/{vectorId}", "vector.read", _get_one, summary="One vector", answer=VectorAnswer),
    Route(
        "POST",
        _V + "/exists",
        "vector.read",
        _exists,
        summary="Which ids are stored",
        request=IdsBody,
        answer=dict[str, list[bool]],
    ),
    Route(
        "POST",
        _V + "/scroll",
        "vector.read",
        _scroll,
        summary="All vectors, page by page",
        request=ScrollBody,
        answer=PageAnswer,
    ),
    Route(
        "POST",
        _V + "/metadata",
        "vector.update",
        _update_metadata,
        summary="Change metadata, keep vectors",
        request=MetadataBody,
        answer=WriteAnswer,
    ),
    Route(
        "POST",
        _V + "/delete",
        "vector.delete",
        _delete,
        summary="Delete by ids or by filter",
        request=DeleteBody,
        answer=WriteAnswer,
    ),
    Route(
        "POST",
        "/v2/databases/{db}/count",
        "vector.read",
        _count,
        summary="How many vectors there are, or match",
        request=CountBody,
        answer=dict[str, int],
    ),
)
