"""Cluster routes: what `ClusterView` says, on a single node as in a cluster; who asks sees the shards of databases he may see."""

from __future__ import annotations

import msgspec

from jadevectordb.gateway.cluster.view import (
    ClientMap,
    Diagnostics,
    DrainAnswer,
    FailoverAnswer,
    MetricsAnswer,
    MigrationAnswer,
    NodeAnswer,
    NodeDetail,
    NodeHealth,
    ShardAnswer,
    ShardDetail,
    StatusAnswer,
)
from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.service.services import Services


class NodesAnswer(msgspec.Struct):
    nodes: list[NodeAnswer]


class ShardsAnswer(msgspec.Struct):
    shards: list[ShardAnswer]


def _visible(services: Services, request: Request) -> list[str]:
    return [entry.id for entry in services.catalog.visible(request.principal)]


def _status(services: Services, request: Request) -> Response:
    return reply(services.cluster.status())


def _nodes(services: Services, request: Request) -> Response:
    return reply(NodesAnswer(services.cluster.nodes()))


def _node_health(services: Services, request: Request) -> Response:
    return reply(services.cluster.node_health(request.params["nodeId"]))


def _node_status(services: Services, request: Request) -> Response:
    return reply(services.cluster.node(request.params["nodeId"], _visible(services, request)))


def _add_node(services: Services, request: Request) -> Response:
    given = request.fields({"node_id": "node_id", "nodeId": "node_id", "id": "node_id", "address": "address"})
    node, address = given.get("node_id"), given.get("address")
    if not isinstance(node, str) or not node or not isinstance(address, str) or not address:
        raise invalid("node_id and address (HOST:PORT) are needed, both text.")
    return reply(services.cluster.add_node(node, address), 201)


def _remove_node(services: Services, request: Request) -> Response:
    request.audit_note = f"drain {request.params['nodeId']:.64}"
    return reply(services.cluster.drain(request.params["nodeId"]))


def _list_shards(services: Services, request: Request) -> Response:
    wanted = request.parameter("database_id")
    entries = services.catalog.visible(request.principal)
    chosen = [entry.id for entry in entries if not wanted or wanted in (entry.id, entry.record.name)]
    return reply(ShardsAnswer(services.cluster.shards(chosen)))


def _get_shard(services: Services, request: Request) -> Response:
    return reply(services.cluster.shard(request.params["shardId"], _visible(services, request)))


def _migrate(services: Services, request: Request) -> Response:
    given = request.fields(
        {"target_node": "target", "targetNode": "target", "source_node": "source", "sourceNode": "source", "strategy": "strategy"}
    )  # fmt: skip
    shard, target = request.params["shardId"], given.get("target", "")
    source, strategy = given.get("source") or "", given.get("strategy") or ""
    if not isinstance(target, str) or not isinstance(source, str) or not isinstance(strategy, str):
        raise invalid("target_node, source_node and strategy must be text.")
    visible = _visible(services, request)
    if not target:
        services.cluster.shard(shard, visible)
        raise invalid("target_node is needed: the node that the replica shall move to.")
    request.audit_note = f"move {shard:.80} to {target:.64}"
    moved = services.cluster.migrate(shard, source, target, strategy, visible)
    return reply(moved, 202)


def _diagnostics(services: Services, request: Request) -> Response:
    return reply(services.cluster.diagnostics(_visible(services, request)))


def _metrics(services: Services, request: Request) -> Response:
    return reply(services.cluster.metrics())


def _failover(services: Services, request: Request) -> Response:
    request.audit_note = "failover"
    return reply(services.cluster.failover())


def _map(services: Services, request: Request) -> Response:
    return reply(services.cluster.client_map())


_READ, _CHANGE = "cluster.read", "cluster.change"
_C = "/v1/cluster"
_NODE, _SHARD = _C + "/nodes/{nodeId}", _C + "/shards/{shardId}"
ROUTES = (
    Route("GET", _C + "/status", _READ, _status, summary="Cluster status", answer=StatusAnswer),
    Route("GET", _C + "/nodes", _READ, _nodes, summary="Nodes", answer=NodesAnswer),
    Route("POST", _C + "/nodes", _CHANGE, _add_node, summary="Add a node", answer=NodeAnswer, success=201),
    Route("DELETE", _NODE, _CHANGE, _remove_node, summary="Drain and remove a node", answer=DrainAnswer),
    Route("GET", _NODE + "/health", _READ, _node_health, summary="Health of a node", answer=NodeHealth),
    Route("GET", _NODE + "/status", _READ, _node_status, summary="A node in detail", answer=NodeDetail),
    Route("GET", _C + "/shards", _READ, _list_shards, summary="Shards", answer=ShardsAnswer),
    Route("GET", _SHARD, _READ, _get_shard, summary="A shard", answer=ShardDetail),
    Route(
        "POST",
        _SHARD + "/migrate",
        _CHANGE,
        _migrate,
        summary="Move a replica of a shard",
        answer=MigrationAnswer,
        success=202,
    ),
    Route("GET", _C + "/diagnostics", _READ, _diagnostics, summary="Diagnostics", answer=Diagnostics),
    Route("GET", _C + "/metrics", _READ, _metrics, summary="Figures of the cluster", answer=MetricsAnswer),
    Route(
        "POST", _C + "/failover", _CHANGE, _failover, summary="Another node becomes the master", answer=FailoverAnswer
    ),
    Route("GET", "/v2/cluster/map", "info", _map, inline=True, summary="The nodes, for clients", answer=ClientMap),
)
