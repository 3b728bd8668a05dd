"""DatabaseService: databases as a whole."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from jadevectordb.gateway.embedded import stepwise
from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.generated import database_pb2 as wire
from jadevectordb.gateway.rpc.generated import types_pb2 as types
from jadevectordb.gateway.rpc.values import invalid, object_of
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.limits import RPC_WAIT_S_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.model.schema import parse_schema

_WAIT_S = 60.0
_METRICS = {types.METRIC_UNSPECIFIED: Metric.COSINE, **{types.Metric.Value(f"METRIC_{m.name}"): m for m in Metric}}
_INDEXES = {
    types.INDEX_KIND_UNSPECIFIED: IndexKind.AUTO,
    **{types.IndexKind.Value(f"INDEX_KIND_{kind.name}"): kind for kind in IndexKind},
}
_METRIC_OUT: dict[Metric, Any] = {metric: types.Metric.Value(f"METRIC_{metric.name}") for metric in Metric}
_INDEX_OUT: dict[IndexKind, Any] = {kind: types.IndexKind.Value(f"INDEX_KIND_{kind.name}") for kind in IndexKind}


def create(call: Call, request: wire.CreateDatabaseRequest) -> wire.CreateDatabaseResponse:
    metric = _known(_METRICS, request.metric, "metric")
    index = _known(_INDEXES, request.index, "index")
    schema = parse_schema(object_of(request.schema_json, "schema_json") or {}, strict=request.strict)
    call.check_wanted()
    entry, was_made = call.services.catalog.create_unique(
        request.name,
        request.dimension,
        call.principal,
        exist_ok=request.exist_ok,
        description=request.description,
        index_type=str(index),
        metric=metric,
        index=index,
        shards=request.shards or 1,
        schema=schema,
        text_language=request.text_language or "english",
    )
    if was_made:
        call.resolve(entry.id)
        call.did(entry.record.name)
    return wire.CreateDatabaseResponse(database=described(entry))


def list_all(call: Call, request: wire.ListDatabasesRequest) -> wire.ListDatabasesResponse:
    entries = call.services.catalog.visible(call.principal)
    chosen = [e for e in entries if not request.name or e.record.name == request.name]
    return wire.ListDatabasesResponse(databases=call.services.catalog.of_each(chosen, described))


def get(call: Call, request: wire.GetDatabaseRequest) -> wire.GetDatabaseResponse:
    return wire.GetDatabaseResponse(database=described(call.entry))


def alter(call: Call, request: wire.AlterDatabaseRequest) -> wire.AlterDatabaseResponse:
    entry = call.entry
    engine: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    if request.HasField("index"):
        engine["index"] = str(_known(_INDEXES, request.index, "index"))
        changes["index_type"] = engine["index"]
    if request.HasField("schema_json"):
        declared = object_of(request.schema_json, "schema_json") or {}
        engine["schema"] = parse_schema(declared, strict=entry.handle.config.schema.strict)
    for name in ("name", "description"):
        if request.HasField(name):
            changes[name] = getattr(request, name)
    if not engine and not changes:
        raise invalid("Nothing to change: give name, description, index or schema_json.")
    call.check_wanted()
    entry = call.services.catalog.alter(entry.id, engine, unique=True, **changes)
    call.did(entry.record.name)
    return wire.AlterDatabaseResponse(database=described(entry))


def delete(call: Call, request: wire.DeleteDatabaseRequest) -> wire.DeleteDatabaseResponse:
    entry = call.entry
    call.check_wanted()
    call.services.catalog.drop(entry.id)
    call.did(entry.record.name)
    return wire.DeleteDatabaseResponse(id=entry.id, name=entry.record.name)


def stats(call: Call, request: wire.GetDatabaseStatsRequest) -> wire.GetDatabaseStatsResponse:
    found = call.entry.handle.stats()
    plain = {name: getattr(found, name) for name in _STATS}
    segments = [
        wire.SegmentStats(**{name: getattr(segment, name) for name in _SEGMENT_STATS}) for segment in found.segments
    ]
    return wire.GetDatabaseStatsResponse(stats=wire.DatabaseStats(segments=segments, **plain))


_STATS = [field.name for field in wire.DatabaseStats.DESCRIPTOR.fields if field.name != "segments"]
_SEGMENT_STATS = [field.name for field in wire.SegmentStats.DESCRIPTOR.fields]


def wait_indexed(call: Call, request: wire.WaitIndexedRequest) -> wire.WaitIndexedResponse:
    stepwise.wait_indexed(call.entry.handle, call.services.clock, _timeout_s(call, request), _still_wanted(call))
    return wire.WaitIndexedResponse()


def compact(call: Call, request: wire.CompactDatabaseRequest) -> wire.CompactDatabaseResponse:
    call.check_wanted()
    stepwise.compact(call.entry.handle, call.services.clock, _timeout_s(call, request), _still_wanted(call))
    call.did("compacted")
    return wire.CompactDatabaseResponse()


def _timeout_s(call: Call, request: wire.WaitIndexedRequest | wire.CompactDatabaseRequest) -> float:
    wanted_s = request.timeout_s if request.HasField("timeout_s") else _WAIT_S
    if not 0 <= wanted_s <= RPC_WAIT_S_MAX:
        raise invalid(f"timeout_s must be 0 to {RPC_WAIT_S_MAX:.0f}, got {wanted_s}.")
    return call.remaining_s(wanted_s)


def _still_wanted(call: Call) -> Any:
    def wanted() -> None:
        call.check_wanted()
        if call.node.stopping:
            raise JadeError(ErrorCode.UNAVAILABLE, "The server is stopping; what was begun goes on after its restart.")

    return wanted


def described(entry: Entry) -> wire.Database:
    config, record = entry.handle.config, entry.record
    return wire.Database(
        id=record.id,
        name=record.name,
        description=record.description,
        dimension=config.dimension,
        metric=_METRIC_OUT[config.metric],
        index=_INDEX_OUT[config.index],
        shards=config.shards,
        schema_json=msgspec.json.encode({path: str(kind) for path, kind in config.schema.fields.items()}),
        strict=config.schema.strict,
        text_language=config.text_language,
        owner=record.owner,
        created_at=timestamp(record.created_ms),
        updated_at=timestamp(record.updated_ms),
        vectors=entry.handle.count(),
    )


def timestamp(time_ms: int) -> Timestamp:
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)


def _known(values: dict[Any, Any], number: Any, field: str) -> Any:
    if number not in values:
        raise invalid(
            f"{field} has the unknown value {number}: this server knows {', '.join(sorted(set(map(str, values.values()))))}."
        )
    return values[number]
