"""Vector indexes as existing clients know them. A database has one index that searches use: the one created last.

Creating one changes the database's index, and its segments are rebuilt in the background; deleting it brings exact search back.
"""

from __future__ import annotations

import secrets
from typing import Any

from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, iso, reply
from jadevectordb.gateway.rest.v1.databases import index_parameters_of, state_of, text
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.database import index_kind_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import INDEXES_MAX

_ALIASES = {
    "type": "type", "indexType": "type", "index_type": "type", "name": "name", "parameters": "parameters",
    "indexParameters": "parameters", "index_parameters": "parameters",
}  # fmt: skip


def _indexes(entry: Entry) -> dict[str, dict[str, Any]]:
    return dict(entry.record.properties.get("indexes", {}))


def _shown(entry: Entry, index_id: str, index: dict[str, Any], is_active: bool) -> dict[str, Any]:
    stats = entry.handle.stats()
    return {
        "indexId": index_id,
        "index_id": index_id,
        "type": index["type"],
        "indexType": index["type"],
        "index_type": index["type"],
        "name": index["name"],
        "status": state_of(stats) if is_active else "ready",
        "active": is_active,
        "parameters": index["parameters"],
        "stats": {
            "vectorCount": stats.indexed_rows if is_active else 0,
            "sizeBytes": sum(s.memory_bytes for s in stats.segments) if is_active else 0,
            "buildTimeMs": None,
        },
        "databaseId": entry.id,
        "createdAt": iso(index["created_ms"]),
        "updatedAt": iso(index["updated_ms"]),
        "created_at": iso(index["created_ms"]),
        "updated_at": iso(index["updated_ms"]),
    }


def _active(entry: Entry) -> str | None:
    """The index that searches use: the newest one."""
    return max(_indexes(entry).items(), key=lambda item: item[1]["created_ms"], default=(None, None))[0]


def _store(
    services: Services, entry: Entry, indexes: dict[str, dict[str, Any]], kind: str, engine: dict[str, Any]
) -> Entry:
    """engine: what searches use from now on, empty when that stays."""
    properties = {**entry.record.properties, "indexes": indexes}
    return services.catalog.alter(entry.id, engine, properties=properties, index_type=kind)


def _create(services: Services, request: Request) -> Response:
    fields, entry = request.fields(_ALIASES), request.entry
    if "type" not in fields:
        raise invalid("An index needs a type: HNSW, IVF, LSH, FLAT or AUTO.")
    kind, parameters = (
        str(index_kind_of(fields["type"])),
        index_parameters_of(fields.get("parameters", {}), "parameters"),
    )
    indexes = _indexes(entry)
    if len(indexes) >= INDEXES_MAX:
        raise invalid(f"A database keeps at most {INDEXES_MAX} index definitions: delete one first.")
    now = max([services.clock.now_ms(), *(one["created_ms"] + 1 for one in indexes.values())])
    index_id = f"idx_{secrets.token_hex(8)}"
    index = {
        "type": kind, "name": text(fields, "name") or f"{kind.lower()}-{len(indexes) + 1}", "parameters": parameters,
        "created_ms": now, "updated_ms": now,
    }  # fmt: skip
    engine = {"index": kind, "index_parameters": parameters}
    entry = _store(services, entry, {**indexes, index_id: index}, kind, engine)
    request.audit_note = f"{kind} {index_id}"
    return reply({**_shown(entry, index_id, index, True), "message": "Index created."}, 201)


def _found(request: Request) -> tuple[str, dict[str, Any]]:
    index_id = request.params["indexId"]
    index = _indexes(request.entry).get(index_id)
    if index is None:
        raise JadeError(ErrorCode.NOT_FOUND, f"Index not found: {index_id!r:.200}.")
    return index_id, index


def _list(services: Services, request: Request) -> Response:
    entry = request.entry
    active = _active(entry)
    shown = [_shown(entry, index_id, index, index_id == active) for index_id, index in _indexes(entry).items()]
    return reply({"indexes": shown, "count": len(shown)})


def _get(services: Services, request: Request) -> Response:
    index_id, index = _found(request)
    return reply(_shown(request.entry, index_id, index, index_id == _active(request.entry)))


def _update(services: Services, request: Request) -> Response:
    fields, entry = request.fields(_ALIASES), request.entry
    index_id, index = _found(request)
    parameters = {**index["parameters"], **index_parameters_of(fields.get("parameters", {}), "parameters")}
    name = text(fields, "name") or index["name"]
    active = index_id == _active(entry)
    engine = {"index": index["type"], "index_parameters": parameters} if active else {}
    changed = {**index, "parameters": parameters, "name": name, "updated_ms": services.clock.now_ms()}
    entry = _store(services, entry, {**_indexes(entry), index_id: changed}, entry.record.index_type, engine)
    request.audit_note = index_id
    return reply({**_shown(entry, index_id, changed, active), "message": "Index updated."})


def _delete(services: Services, request: Request) -> Response:
    entry = request.entry
    index_id, _ = _found(request)
    was_active = index_id == _active(entry)
    indexes = {other: index for other, index in _indexes(entry).items() if other != index_id}
    kind, engine = entry.record.index_type, dict[str, Any]()
    if was_active:
        none: dict[str, Any] = {"type": "FLAT", "parameters": {}}
        following = max(indexes.values(), key=lambda one: one["created_ms"], default=none)
        kind = following["type"]
        engine = {"index": kind, "index_parameters": following["parameters"]}
    _store(services, entry, indexes, kind, engine)
    request.audit_note = index_id
    return reply({"status": "deleted", "indexId": index_id, "deletedAt": iso(services.clock.now_ms())})


_I = "/v1/databases/{databaseId}/indexes"
ROUTES = (
    Route("POST", _I, "index.create", _create, summary="Create a vector index", success=201),
    Route("GET", _I, "index.read", _list, summary="List vector indexes"),
    Route("GET", _I + "/{indexId}", "index.read", _get, summary="Get a vector index"),
    Route("PUT", _I + "/{indexId}", "index.write", _update, summary="Change index parameters"),
    Route("DELETE", _I + "/{indexId}", "index.delete", _delete, summary="Delete a vector index"),
)
