"""Vectors as existing clients know them: store, batch, get, list, update, delete."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.rest.http import Request, Response, Route, encode, invalid, reply
from jadevectordb.gateway.rest.session import reading_of, reading_to_write, token_after, writing_of
from jadevectordb.gateway.service.catalog import Entry, has_control
from jadevectordb.gateway.service.searching import as_lists
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import BATCH_ROWS_MAX, ID_LENGTH_MAX
from jadevectordb.query.writer import WriteResult

_VECTOR_ALIASES = {
    "id": "id", "vectorId": "id", "vector_id": "id", "values": "values", "metadata": "metadata",
}  # fmt: skip
_BATCH_ALIASES = {"vectors": "vectors", "upsert": "upsert"}
_GET_ALIASES = {"ids": "ids", "vectorIds": "ids", "vector_ids": "ids"}
_LIST_LIMIT_MAX = 1000


def vector_id_of(value: object) -> str:
    """A JSON integer is its decimal text; absent means a generated one. Raises INVALID_ARGUMENT."""
    if value is None or value == "":
        return f"vec_{secrets.token_hex(12)}"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > ID_LENGTH_MAX or has_control(value):
        raise invalid(
            f"A vector id is a string of 1 to {ID_LENGTH_MAX} characters without control characters, got {value!r:.60}."
        )
    return value


def values_of(value: object, entry: Entry, where: str = "values") -> npt.NDArray[np.float64]:
    """float64 (dimension,) of finite numbers. Raises INVALID_ARGUMENT, DIMENSION_MISMATCH."""
    if not isinstance(value, list):
        raise invalid(f"{where} must be a list of numbers.")
    expected = entry.handle.dimension
    if len(value) != expected:
        raise JadeError(
            ErrorCode.DIMENSION_MISMATCH,
            f"{where} has {len(value)} values, the database has dimension {expected}.",
            details={"expected": expected, "actual": len(value)},
        )
    for position, number in enumerate(value):
        if type(number) is not float and type(number) is not int:
            raise invalid(f"{where}[{position}] is {number!r:.60}: every value must be a number.")
    try:
        return np.array(value, np.float64)
    except OverflowError:
        raise invalid(f"{where} holds a number that is too large.") from None


def metadata_of(value: object) -> bytes:
    if value is None:
        return b"{}"
    if not isinstance(value, dict):
        raise invalid(f"metadata must be an object, got {value!r:.60}.")
    return encode(value)


def shown(entry: Entry, items: list[Item]) -> list[dict[str, Any]]:
    """Vector objects, with every alias that clients read. When a vector was written is not kept with it: those are null."""
    rows = as_lists(items) if items else []
    return [
        {
            "id": item.id,
            "vectorId": item.id,
            "values": row,
            "metadata": item.metadata,
            "databaseId": entry.id,
            "createdAt": None,
            "updatedAt": None,
            "version": item.version,
        }
        for item, row in zip(items, rows, strict=True)
    ]


def _store(services: Services, request: Request) -> Response:
    entry = request.entry
    fields = request.fields(_VECTOR_ALIASES)
    if "values" not in fields:
        raise invalid("A vector needs values.")
    vector_id = vector_id_of(fields.get("id"))
    values = values_of(fields["values"], entry)
    metadata = metadata_of(fields.get("metadata"))
    created = not entry.handle.exists(vector_id, **reading_to_write(request))
    _written(request, entry.handle.upsert([vector_id], values[None, :], [metadata], **writing_of(request)))
    request.audit_note = vector_id
    answer = {
        "status": "success",
        "vectorId": vector_id,
        "id": vector_id,
        "created": created,
        "message": "Vector stored.",
    }
    return reply(answer, 201)


def _batch(services: Services, request: Request) -> Response:
    entry = request.entry
    fields = request.fields(_BATCH_ALIASES)
    vectors = fields.get("vectors")
    if not isinstance(vectors, list) or not vectors:
        raise invalid("vectors must be a list with at least one vector.")
    if len(vectors) > BATCH_ROWS_MAX:
        raise invalid(f"A batch holds at most {BATCH_ROWS_MAX} vectors, got {len(vectors)}.")
    replace = fields.get("upsert", True)
    if not isinstance(replace, bool):
        raise invalid("upsert must be true or false.")
    ids, rows, metadata = [], np.empty((len(vectors), entry.handle.dimension)), []
    for position, one in enumerate(vectors):
        if not isinstance(one, dict):
            raise invalid(f"vectors[{position}] must be an object.")
        folded = request.folded(one, _VECTOR_ALIASES, "vectors[].")
        ids.append(vector_id_of(folded.get("id")))
        rows[position] = values_of(folded.get("values"), entry, f"vectors[{position}].values")
        metadata.append(metadata_of(folded.get("metadata")))
    wanted = reading_to_write(request)
    stored = entry.handle.exists(ids, **wanted)
    try:
        result = entry.handle.upsert(ids, rows, metadata, if_version=None if replace else 0, **writing_of(request))
    except JadeError as error:
        if error.code is not ErrorCode.VERSION_CONFLICT:
            raise
        now = entry.handle.exists(ids, **wanted)
        existing = [vector_id for vector_id, there in zip(ids, now, strict=True) if there]
        raise JadeError(
            ErrorCode.CONFLICT, f"{len(existing)} of these ids exist already and upsert is false: nothing was stored.",
            details={"ids": existing[:100]},
        ) from None  # fmt: skip
    _written(request, result)
    updated = sum(stored)
    request.audit_note = f"{len(ids)} vectors"
    return reply(
        {
            "status": "success", "count": len(ids), "stored": len(ids), "inserted": len(ids) - updated, "updated": updated,
            "failed": 0, "errors": [], "message": f"{len(ids)} vectors stored.",
        },
        201,
    )  # fmt: skip


def _get(services: Services, request: Request) -> Response:
    return reply(shown(request.entry, [_present(request, reading_of(request))])[0])


def _present(request: Request, wanted: Mapping[str, Any]) -> Item:
    item = request.entry.handle.get(request.params["vectorId"], **wanted)
    if item is None:
        raise JadeError(ErrorCode.NOT_FOUND, f"Vector not found: {request.params['vectorId']!r:.520}")
    return item


def _list(services: Services, request: Request) -> Response:
    limit = min(_LIST_LIMIT_MAX, request.integer("limit", 50, 1, 1 << 31))
    offset = request.integer("offset", 0, 0, 1 << 31)
    entry = request.entry
    items, total = entry.handle.by_id(limit, offset, **reading_of(request))
    return reply(
        {"vectors": shown(entry, items), "total": total, "count": len(items), "limit": limit, "offset": offset}
    )


def _batch_get(services: Services, request: Request) -> Response:
    ids = request.fields(_GET_ALIASES).get("ids")
    if not isinstance(ids, list) or not ids or len(ids) > BATCH_ROWS_MAX:
        raise invalid(f"ids must be a list of 1 to {BATCH_ROWS_MAX} ids.")
    if any(one is None or one == "" for one in ids):
        raise invalid("ids holds an empty one: every id is a string of at least one character.")
    wanted = [vector_id_of(one) for one in ids]
    found = request.entry.handle.get(wanted, **reading_of(request))
    present = shown(request.entry, [item for item in found if item is not None])
    missing = [vector_id for vector_id, item in zip(wanted, found, strict=True) if item is None]
    return reply({"vectors": present, "count": len(present), "database_id": request.entry.id, "missing": missing})


def _update(services: Services, request: Request) -> Response:
    entry, fields = request.entry, request.fields(_VECTOR_ALIASES)
    if "values" not in fields and "metadata" not in fields:
        raise invalid("Nothing to change: give values, metadata or both.")
    vector_id = request.params["vectorId"]
    values = values_of(fields["values"], entry) if "values" in fields else None
    metadata = metadata_of(fields["metadata"]) if "metadata" in fields else None
    _replace(entry, request, vector_id, values, metadata)
    request.audit_note = vector_id
    return reply({"status": "success", "id": vector_id, "vectorId": vector_id, "message": "Vector updated."})


def _replace(
    entry: Entry, request: Request, vector_id: str, values: npt.NDArray[np.float64] | None, metadata: bytes | None
) -> None:
    """Write what is given over what is stored now; again when someone else wrote in between."""
    wanted, sure = reading_to_write(request), writing_of(request)
    while True:
        item = _present(request, wanted)
        row = item.vector if values is None else values
        kept = item.metadata_json if metadata is None else metadata
        try:
            result = entry.handle.upsert([vector_id], row[None, :], [kept], if_version=item.version, **sure)
            _written(request, result)
            return
        except JadeError as error:
            if error.code is not ErrorCode.VERSION_CONFLICT:
                raise


def _delete(services: Services, request: Request) -> Response:
    vector_id = request.params["vectorId"]
    result = request.entry.handle.delete(vector_id, **writing_of(request))
    _written(request, result)
    if not result.count:
        raise JadeError(ErrorCode.NOT_FOUND, f"Vector not found: {vector_id!r:.520}")
    request.audit_note = vector_id
    return reply({"status": "success", "id": vector_id, "vectorId": vector_id, "message": "Vector deleted."})


def _written(request: Request, result: WriteResult) -> None:
    """Known in its session."""
    token_after(request, result.sequences)


_V = "/v1/databases/{databaseId}/vectors"
ROUTES = (
    Route("POST", _V, "vector.write", _store, summary="Store one vector", success=201),
    Route("GET", _V, "vector.read", _list, summary="List vectors"),
    Route("POST", _V + "/batch", "vector.write", _batch, summary="Store many vectors, all or nothing", success=201),
    Route("POST", _V + "/batch-get", "vector.read", _batch_get, summary="Get many vectors"),
    Route("GET", _V + "/{vectorId}", "vector.read", _get, summary="Get one vector"),
    Route("PUT", _V + "/{vectorId}", "vector.update", _update, summary="Update values or metadata"),
    Route("DELETE", _V + "/{vectorId}", "vector.delete", _delete, summary="Delete one vector"),
)
