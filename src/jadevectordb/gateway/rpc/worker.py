"""WorkerService: what other nodes ask of this one. The shard they name is checked, so that nothing is misrouted silently."""

from __future__ import annotations

from jadevectordb.gateway.embedded import shards
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.databases import timestamp
from jadevectordb.gateway.rpc.generated import types_pb2 as types
from jadevectordb.gateway.rpc.generated import worker_pb2 as wire
from jadevectordb.gateway.rpc.values import (
    add_hits,
    conditions_of,
    filter_of,
    floats_of,
    invalid,
    metadata_of,
    receipt_of,
    rows_of,
)
from jadevectordb.gateway.service.handles import on_one_node
from jadevectordb.model.errors import ErrorCode, JadeError

_K = 10
_RECALL = 0.95
_NOTHING = types.Selection()
_NO_CLUSTER = (
    "This server is a single node: its shards are those of its own databases and can't be assigned or removed."
)


def _own(call: Call) -> Database:
    """Raises NOT_IMPLEMENTED: nodes of a cluster ask each other over connections of their own."""
    return on_one_node(call.entry.handle, "the worker service to clients, for its shards,")


def search_shard(call: Call, request: wire.SearchShardRequest) -> wire.SearchShardResponse:
    call.check_wanted()
    hits, watermark = shards.search_shard(
        _own(call),
        request.shard.shard,
        floats_of(request.vector),
        k=request.k or _K,
        filter=filter_of(request.filter_json),
        recall=request.recall if request.HasField("recall") else _RECALL,
        exact=request.exact,
        threshold=request.threshold if request.HasField("threshold") else None,
        watermark_min=request.watermark_min,
    )
    call.did(f"shard {request.shard.shard}")
    selection = request.include if request.HasField("include") else _NOTHING
    answer = wire.SearchShardResponse(watermark=watermark)
    add_hits(answer, hits, selection)
    return answer


def write_batch(call: Call, request: wire.WriteBatchRequest) -> wire.WriteBatchResponse:
    handle, shard, columns = _own(call), request.shard.shard, request.columns
    ids = list(columns.ids)
    if not ids:
        raise invalid("The batch holds no vectors.")
    shards.check_belongs(handle, shard, ids)
    vectors = rows_of(columns.vectors, len(ids), handle.dimension)
    metadata = metadata_of(columns.metadata_json, len(ids))
    call.check_wanted()
    result = handle.upsert(
        ids,
        vectors,
        metadata,
        conditions_of(columns.if_version),
        request_id=request.request_id,
    )
    call.did(f"{result.count} vectors")
    return wire.WriteBatchResponse(receipt=receipt_of(call, result), sequence=result.sequences[shard])


def delete(call: Call, request: wire.DeleteRequest) -> wire.DeleteResponse:
    handle, shard, ids = _own(call), request.shard.shard, list(request.ids)
    if not ids:
        raise invalid("Name the ids to delete.")
    shards.check_belongs(handle, shard, ids)
    call.check_wanted()
    result = handle.delete(
        ids,
        if_version=conditions_of(request.if_version),
        request_id=request.request_id,
    )
    call.did(f"{result.count} vectors")
    return wire.DeleteResponse(receipt=receipt_of(call, result), sequence=result.sequences[shard])


def health(call: Call, request: wire.HealthRequest) -> wire.HealthResponse:
    node = call.node
    troubles = [
        f"{entry.record.name}: {trouble}"
        for entry in call.services.catalog.visible(call.principal)
        if (trouble := entry.handle.trouble)
    ]
    return wire.HealthResponse(
        state=wire.NODE_STATE_DEGRADED if troubles else wire.NODE_STATE_HEALTHY,
        troubles=troubles,
        version=call.services.version,
        started_at=timestamp(node.started_ms),
        calls_in_flight=node.in_flight,
    )


def stats(call: Call, request: wire.StatsRequest) -> wire.StatsResponse:
    calls, failed = call.node.calls()
    answer = wire.StatsResponse(calls=calls, calls_failed=failed)
    catalog = call.services.catalog
    for found in catalog.of_each(catalog.visible(call.principal), lambda entry: entry.handle.stats()):
        answer.databases += 1
        answer.shards += found.shards
        answer.rows += found.rows
        answer.indexed_rows += found.indexed_rows
        answer.dead_rows += found.dead_rows
        answer.memory_bytes += found.memory_bytes
        answer.disk_bytes += found.disk_bytes
        answer.log_bytes += found.log_bytes
    return answer


def shard_info(call: Call, request: wire.ShardInfoRequest) -> wire.ShardInfoResponse:
    states = [
        wire.ShardState(**{name: getattr(figures, name) for name in _FIGURES})
        for figures in shards.figures_of(_own(call))
    ]
    return wire.ShardInfoResponse(shards=states)


_FIGURES = [field.name for field in wire.ShardState.DESCRIPTOR.fields]


def assign_shard(call: Call, request: wire.AssignShardRequest) -> wire.AssignShardResponse:
    raise JadeError(ErrorCode.NOT_IMPLEMENTED, _NO_CLUSTER)


def remove_shard(call: Call, request: wire.RemoveShardRequest) -> wire.RemoveShardResponse:
    raise JadeError(ErrorCode.NOT_IMPLEMENTED, _NO_CLUSTER)
