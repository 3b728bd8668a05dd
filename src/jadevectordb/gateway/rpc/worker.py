"""WorkerService: what is asked of one node and of what it holds itself. The shard that is named is checked, so that nothing is
misrouted silently.

On a node of a cluster its own replicas answer; a write goes through the shard's log, as any. Nodes among themselves do not use this
service: they have connections of their own.
"""

from __future__ import annotations

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.own_shards import OwnShards
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.gateway.embedded import shards
from jadevectordb.gateway.embedded.stats import Stats
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
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import READ_S_MAX

_K = 10
_RECALL = 0.95
_NOTHING = types.Selection()
_NO_CLUSTER = (
    "This server is a single node: its shards are those of its own databases and can't be assigned or removed."
)
_PLACED = (
    "The master of the cluster places shards, through its map: drain a node, or move a replica, with `jade cluster`."
)


def search_shard(call: Call, request: wire.SearchShardRequest) -> wire.SearchShardResponse:
    call.check_wanted()
    handle, selection = call.entry.handle, request.include if request.HasField("include") else _NOTHING
    vector, filter, recall = floats_of(request.vector), filter_of(request.filter_json), _RECALL
    if request.HasField("recall"):
        recall = request.recall
    threshold = request.threshold if request.HasField("threshold") else None
    if isinstance(handle, ClusterDatabase):
        hits, watermark = OwnShards(handle).search(
            request.shard.shard, vector, k=request.k or _K, filter=filter, recall=recall, exact=request.exact, threshold=threshold,
            watermark_min=request.watermark_min, include=("metadata", "vector") if selection.vector else ("metadata",),
            timeout_s=call.remaining_s(READ_S_MAX),
        )  # fmt: skip
    else:
        hits, watermark = shards.search_shard(
            handle, request.shard.shard, vector, k=request.k or _K, filter=filter, recall=recall, exact=request.exact,
            threshold=threshold, watermark_min=request.watermark_min,
        )  # fmt: skip
    call.did(f"shard {request.shard.shard}")
    answer = wire.SearchShardResponse(watermark=watermark)
    add_hits(answer, hits, selection)
    return answer


def _check_belongs(handle: AnyDatabase, shard: int, ids: list[str]) -> None:
    if isinstance(handle, ClusterDatabase):
        OwnShards(handle).check_belongs(shard, ids)
    else:
        shards.check_belongs(handle, shard, ids)


def write_batch(call: Call, request: wire.WriteBatchRequest) -> wire.WriteBatchResponse:
    handle, shard, columns = call.entry.handle, request.shard.shard, request.columns
    ids = list(columns.ids)
    if not ids:
        raise invalid("The batch holds no vectors.")
    _check_belongs(handle, shard, ids)
    vectors = rows_of(columns.vectors, len(ids), handle.dimension)
    metadata = metadata_of(columns.metadata_json, len(ids))
    call.check_wanted()
    result = handle.upsert(
        ids,
        vectors,
        metadata,
        conditions_of(columns.if_version),
        request_id=request.request_id,
        **call.writing(),
    )
    call.did(f"{result.count} vectors")
    return wire.WriteBatchResponse(receipt=receipt_of(call, result), sequence=result.sequences.get(shard, 0))


def delete(call: Call, request: wire.DeleteRequest) -> wire.DeleteResponse:
    handle, shard, ids = call.entry.handle, request.shard.shard, list(request.ids)
    if not ids:
        raise invalid("Name the ids to delete.")
    _check_belongs(handle, shard, ids)
    call.check_wanted()
    result = handle.delete(
        ids,
        if_version=conditions_of(request.if_version),
        request_id=request.request_id,
        **call.writing(),
    )
    call.did(f"{result.count} vectors")
    return wire.DeleteResponse(receipt=receipt_of(call, result), sequence=result.sequences.get(shard, 0))


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
    for held in catalog.of_each(catalog.visible(call.principal), _held):
        answer.databases += 1
        for found in held:
            answer.shards += found.shards
            answer.rows += found.rows
            answer.indexed_rows += found.indexed_rows
            answer.dead_rows += found.dead_rows
            answer.memory_bytes += found.memory_bytes
            answer.disk_bytes += found.disk_bytes
            answer.log_bytes += found.log_bytes
    return answer


def _held(entry: Entry) -> list[Stats]:
    """Of what this node holds of the database: on a node of a cluster one for each of its replicas."""
    handle = entry.handle
    return list(OwnShards(handle).stats().values()) if isinstance(handle, ClusterDatabase) else [handle.stats()]


def shard_info(call: Call, request: wire.ShardInfoRequest) -> wire.ShardInfoResponse:
    handle = call.entry.handle
    found = OwnShards(handle).figures() if isinstance(handle, ClusterDatabase) else shards.figures_of(handle)
    states = [wire.ShardState(**{name: getattr(figures, name) for name in _FIGURES}) for figures in found]
    return wire.ShardInfoResponse(shards=states)


_FIGURES = [field.name for field in wire.ShardState.DESCRIPTOR.fields]


def assign_shard(call: Call, request: wire.AssignShardRequest) -> wire.AssignShardResponse:
    raise _not_here(call)


def remove_shard(call: Call, request: wire.RemoveShardRequest) -> wire.RemoveShardResponse:
    raise _not_here(call)


def _not_here(call: Call) -> JadeError:
    is_clustered = isinstance(call.services.store, ClusterStore)
    return JadeError(ErrorCode.NOT_IMPLEMENTED, _PLACED if is_clustered else _NO_CLUSTER)
