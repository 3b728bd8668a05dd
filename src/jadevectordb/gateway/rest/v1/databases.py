"""Databases as existing clients know them: create, list, look at, change, delete; status, statistics, compaction."""

from __future__ import annotations

from typing import Any

from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, iso, reply
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.database import index_kind_of, metric_of

_ALIASES = {
    "name": "name",
    "description": "description",
    "vectorDimension": "dimension",
    "vector_dimension": "dimension",
    "dimension": "dimension",
    "indexType": "index",
    "index_type": "index",
    "metric": "metric",
    "indexParameters": "indexParameters",
    "index_parameters": "indexParameters",
    "sharding": "sharding",
    "replication": "replication",
    "metadataSchema": "metadataSchema",
    "metadata_schema": "metadataSchema",
    "accessControl": "accessControl",
    "access_control": "accessControl",
    "config": "config",
}
_OBJECTS = ("sharding", "replication", "metadataSchema", "accessControl", "config")
LIST_LIMIT_MAX = 1000
_COMPACT_WAIT_S = 20.0


def shown(entry: Entry) -> dict[str, Any]:
    """The database object with every alias that clients read."""
    record, handle = entry.record, entry.handle
    stats = handle.stats()
    return {
        "databaseId": record.id,
        "id": record.id,
        "database_id": record.id,
        "name": record.name,
        "description": record.description,
        "vectorDimension": handle.dimension,
        "dimension": handle.dimension,
        "indexType": index_type_of(entry),
        "indexParameters": handle.config.index_parameters,
        "metric": handle.metric,
        "status": "active",
        "owner": record.owner,
        **{name: record.properties.get(name, {}) for name in _OBJECTS},
        "created_at": iso(record.created_ms),
        "updated_at": iso(record.updated_ms),
        "createdAt": iso(record.created_ms),
        "updatedAt": iso(record.updated_ms),
        "stats": {
            "vectorCount": stats.rows,
            "indexCount": len(record.properties.get("indexes", {})),
            "storageSize": size_text(stats.disk_bytes + stats.log_bytes),
        },
    }


_PARAMETERS = {
    name.lower(): name for name in ("M", "efConstruction", "efSearch", "nlist", "nprobe", "numTables", "numBits")
}


def index_parameters_of(value: object, where: str) -> dict[str, Any]:
    """Names in any spelling (ef_construction), numbers maybe as text. What an index takes is checked by the engine."""
    if not isinstance(value, dict):
        raise invalid(f"{where} must be an object, got {value!r:.60}.")
    parameters: dict[str, Any] = {}
    for given, amount in value.items():
        name: str = _PARAMETERS.get(str(given).replace("_", "").lower(), str(given))
        if amount is not None:
            if name in parameters and parameters[name] != amount:
                raise invalid(f"{where}.{name} is given twice with different values: give it once.")
            parameters[name] = number(amount, f"{where}.{name}", 0, 1 << 31) if name in _PARAMETERS.values() else amount
    return parameters


def state_of(stats: Stats) -> str:
    """Of the index that searches use. Rows not yet on disk need none: they are compared one by one."""
    if stats.trouble:
        return "failed"
    return "building" if stats.rows_to_build else "ready"


def index_type_of(entry: Entry) -> str:
    return entry.record.index_type or str(entry.handle.config.index)


def size_text(size: int) -> str:
    """12 KB, 3.4 MB, ..."""
    amount = float(size)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if amount < 1024 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("the last unit ends the loop")


def number(value: object, name: str, low: int, high: int) -> int:
    """An integer, or its text as some clients send it. Raises INVALID_ARGUMENT."""
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().lstrip("-").isdecimal() else float(value)
        except ValueError:
            raise invalid(f"{name} must be an integer, got {value!r:.60}.") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name} must be an integer, got {value!r:.60}.")
    if not low <= value <= high:
        raise invalid(f"{name} must be {low} to {high}, got {value}.")
    return value


def text(fields: dict[str, Any], name: str, default: str = "") -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string, got {value!r:.60}.")
    return value


def _objects(fields: dict[str, Any]) -> dict[str, Any]:
    for name in _OBJECTS:
        if not isinstance(fields.get(name, {}), dict):
            raise invalid(f"{name} must be an object, got {fields[name]!r:.60}.")
    return {name: fields[name] for name in _OBJECTS if fields.get(name)}


def _create(services: Services, request: Request) -> Response:
    fields = request.fields(_ALIASES)
    if "name" not in fields or "dimension" not in fields:
        raise invalid("A database needs a name and a vectorDimension.")
    kind = index_kind_of(fields.get("index", "HNSW"))
    properties = _objects(fields)
    entry = services.catalog.create(
        text(fields, "name"),
        number(fields["dimension"], "vectorDimension", 1, 4096),
        request.principal.user_id,
        description=text(fields, "description"),
        index_type=str(kind),
        properties=properties,
        metric=str(metric_of(fields.get("metric", "cosine"))),
        index=str(kind),
        index_parameters=index_parameters_of(fields.get("indexParameters", {}), "indexParameters"),
    )
    request.audit_note = entry.record.name
    return reply({**shown(entry), "message": "Database created."}, 201)


def _list(services: Services, request: Request) -> Response:
    entries = services.catalog.visible(request.principal)
    name = request.parameter("name")
    if name:
        entries = [e for e in entries if e.record.name == name]
    limit = request.integer("limit", LIST_LIMIT_MAX, 1, LIST_LIMIT_MAX)
    offset = request.integer("offset", 0, 0, 1 << 31)
    chosen = entries[offset : offset + limit]
    return reply(
        {"databases": services.catalog.of_each(chosen, shown), "total": len(entries), "limit": limit, "offset": offset}
    )


def _get(services: Services, request: Request) -> Response:
    return reply(shown(request.entry))


def _update(services: Services, request: Request) -> Response:
    fields = request.fields(_ALIASES)
    entry = request.entry
    if "metric" in fields and str(metric_of(fields.pop("metric"))) != entry.handle.metric:
        raise invalid("The metric of a database can't be changed: create another one with the metric you need.")
    if not fields:
        raise invalid("Nothing to change: give name, description, indexType, vectorDimension or config.")
    engine: dict[str, Any] = {}
    record: dict[str, Any] = {}
    for name in ("name", "description"):
        if name in fields:
            record[name] = text(fields, name)
    if "index" in fields:
        kind = str(index_kind_of(fields["index"]))
        record["index_type"] = kind
        if kind != str(entry.handle.config.index):
            engine["index"] = kind
    if "indexParameters" in fields:
        engine["index_parameters"] = index_parameters_of(fields["indexParameters"], "indexParameters")
    if "dimension" in fields:
        dimension = number(fields["dimension"], "vectorDimension", 1, 4096)
        if dimension != entry.handle.dimension:
            engine["dimension"] = dimension
    properties = _objects(fields)
    if properties:
        record["properties"] = {**entry.record.properties, **properties}
    if engine or record:
        entry = services.catalog.alter(entry.id, engine, **record)
    request.audit_note = entry.record.name
    return reply({**shown(entry), "message": "Database updated."})


def _delete(services: Services, request: Request) -> Response:
    entry = request.entry
    services.catalog.drop(entry.id)
    request.audit_note = entry.record.name
    return reply({"status": "success", "databaseId": entry.id, "message": f"Database {entry.record.name!r} deleted."})


def _status(services: Services, request: Request) -> Response:
    entry = request.entry
    stats = entry.handle.stats()
    used = stats.disk_bytes + stats.log_bytes
    now = services.clock.now_ms()
    total = services.analytics.total(entry.id, now - 3_600_000, now)
    indexes = dict.fromkeys(entry.record.properties.get("indexes", {}), state_of(stats))
    return reply(
        {
            "databaseId": entry.id,
            "name": entry.record.name,
            "status": "online" if not stats.trouble else "degraded",
            "timestamp": iso(now),
            "stats": {"vectorCount": stats.rows, "indexCount": len(indexes), "sizeBytes": used},
            "metrics": {
                "vector_count": stats.rows,
                "index_count": len(indexes),
                "storage_used_mb": round(used / 2**20, 3),
                "avg_query_time_ms": total.latency_avg_ms,
                "qps": round(total.total / 3600, 6),
            },
            "indexes": indexes,
            "trouble": stats.trouble,
        }
    )


def _stats(services: Services, request: Request) -> Response:
    stats = request.entry.handle.stats()
    return reply(
        {"total_vectors": stats.rows + stats.dead_rows, "deleted_vectors": stats.dead_rows, "live_vectors": stats.rows}
    )


def _compact(services: Services, request: Request) -> Response:
    handle = request.entry.handle
    before = handle.stats().dead_rows
    handle.compact(_COMPACT_WAIT_S)
    return reply({"status": "success", "reclaimed": max(0, before - handle.stats().dead_rows)})


_DB = "/v1/databases/{databaseId}"
ROUTES = (
    Route("POST", "/v1/databases", "database.create", _create, summary="Create a database", success=201),
    Route("GET", "/v1/databases", "database.list", _list, summary="List databases"),
    Route("GET", _DB, "database.read", _get, summary="Get a database"),
    Route("PUT", _DB, "database.update", _update, summary="Update a database"),
    Route("DELETE", _DB, "database.delete", _delete, summary="Delete a database and its data"),
    Route("GET", _DB + "/status", "database.stats", _status, summary="Status of a database"),
    Route("GET", _DB + "/stats", "database.stats", _stats, summary="Vector counts"),
    Route("POST", _DB + "/compact", "database.compact", _compact, summary="Reclaim deleted vectors"),
)
