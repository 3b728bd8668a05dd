"""Cluster routes on a single node: what there is, truthfully; a change that can't be carried out is refused, never acknowledged."""

from __future__ import annotations

from typing import Any

from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.rest.v1.system import storage_checks
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError

NODE_ID = "local"


def _health_word(services: Services) -> str:
    return "HEALTHY" if all(text == "ok" for text in storage_checks(services).values()) else "DEGRADED"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}%"


def _node(services: Services) -> dict[str, Any]:
    usage, server = services.telemetry.system_usage(), services.settings.server
    shards = sum(entry.handle.config.shards for entry in services.catalog.every())
    return {
        "node_id": NODE_ID,
        "role": "master",
        "address": f"{server.host}:{server.port}",
        "status": "active",
        "health": _health_word(services),
        "shards": shards,
        "cpu": _percent(usage.cpu_percent),
        "memory": _percent(usage.memory_percent),
        "storage": _percent(usage.disk_percent),
        "network": "not measured",
        "last_heartbeat": iso(services.clock.now_ms()),
        "id": NODE_ID,
        "nodeId": NODE_ID,
        "host": server.host,
        "port": server.port,
    }


def _shards(services: Services, entries: list[Entry]) -> list[dict[str, Any]]:
    def of(entry: Entry) -> list[dict[str, Any]]:
        stats = entry.handle.stats()
        return [_shard(entry, stats, shard) for shard in range(stats.shards)]

    return [row for rows in services.catalog.of_each(entries, of) for row in rows]


def _shard(entry: Entry, stats: Stats, shard: int) -> dict[str, Any]:
    segments = [segment for segment in stats.segments if segment.shard == shard]
    return {
        "shard_id": f"{entry.id}-{shard}",
        "primary_node": NODE_ID,
        "replicas": 1,
        "vector_count": sum(segment.live for segment in segments),
        "status": "HEALTHY" if not stats.trouble else "DEGRADED",
        "database_id": entry.id,
        "size_bytes": sum(segment.disk_bytes for segment in segments),
        "replica_nodes": NODE_ID,
    }


def _status(services: Services, request: Request) -> Response:
    node = _node(services)
    healthy = node["health"] == "HEALTHY"
    return reply(
        {
            "status": node["health"],
            "master_node": NODE_ID,
            "total_nodes": 1,
            "active_nodes": 1,
            "healthy_nodes": int(healthy),
            "total_shards": node["shards"],
            "replication_factor": 1,
            "cluster_id": "single-node",
            "term": 0,
            "nodes": [node],
        }
    )


def _nodes(services: Services, request: Request) -> Response:
    return reply({"nodes": [_node(services)]})


def _known(request: Request) -> None:
    if request.params["nodeId"] != NODE_ID:
        raise JadeError(
            ErrorCode.NOT_FOUND,
            f"Node not found: {request.params['nodeId']!r:.200}; this is a single node, {NODE_ID!r}.",
        )


def _node_health(services: Services, request: Request) -> Response:
    _known(request)
    usage = services.telemetry.system_usage()
    return reply(
        {
            "node_id": NODE_ID,
            "status": _health_word(services),
            "checks": storage_checks(services),
            "last_heartbeat": iso(services.clock.now_ms()),
            "cpu_usage": usage.cpu_percent,
            "memory_usage": usage.memory_percent,
            "disk_usage": usage.disk_percent,
            "applied_lag": 0,
        }
    )


def _node_status(services: Services, request: Request) -> Response:
    _known(request)
    return reply(
        {
            **_node(services),
            "version": services.version,
            "uptime_seconds": int(services.clock.monotonic_s() - services.started_s),
        }
    )


def _single(what: str) -> JadeError:
    return JadeError(ErrorCode.CONFLICT, f"This server is a single node: {what} needs a cluster.")


def _add_node(services: Services, request: Request) -> Response:
    raise _single("adding a node")


def _remove_node(services: Services, request: Request) -> Response:
    _known(request)
    raise JadeError(ErrorCode.CONFLICT, "This is the last node: it can't be removed.")


def _visible(services: Services, request: Request) -> list[Entry]:
    return services.catalog.visible(request.principal)


def _list_shards(services: Services, request: Request) -> Response:
    wanted = request.parameter("database_id")
    entries = [e for e in _visible(services, request) if not wanted or wanted in (e.id, e.record.name)]
    return reply({"shards": _shards(services, entries)})


def _one_shard(services: Services, request: Request) -> dict[str, Any]:
    shard_id = request.params["shardId"]
    database_id, _, number = shard_id.rpartition("-")
    for entry in _visible(services, request):
        if entry.id == database_id and number.isdigit() and int(number) < entry.handle.config.shards:
            return _shard(entry, entry.handle.stats(), int(number))
    raise JadeError(ErrorCode.NOT_FOUND, f"Shard not found: {shard_id!r:.200}.")


def _get_shard(services: Services, request: Request) -> Response:
    return reply({**_one_shard(services, request), "migration": None})


def _migrate(services: Services, request: Request) -> Response:
    _one_shard(services, request)
    raise _single("moving a shard")


def _diagnostics(services: Services, request: Request) -> Response:
    performance = services.telemetry.performance()
    checks = storage_checks(services)
    return reply(
        {
            "status": _health_word(services),
            "nodes": [_node(services)],
            "shards": _shards(services, _visible(services, request)),
            "replication": {"replication_factor": 1, "lagging_replicas": 0},
            "performance": performance,
            "errors": [f"{name}: {text}" for name, text in checks.items() if text != "ok"],
            "timestamp": iso(services.clock.now_ms()),
        }
    )


def _metrics(services: Services, request: Request) -> Response:
    usage, performance = services.telemetry.system_usage(), services.telemetry.performance()
    entries = services.catalog.every()
    return reply(
        {
            "cpu_usage": usage.cpu_percent,
            "memory_usage": usage.memory_percent,
            "disk_usage": usage.disk_percent,
            "queries_per_second": performance.queries_per_second,
            "query_latency_ms": {
                "p50": performance.latency_p50_ms,
                "p95": performance.latency_p95_ms,
                "p99": performance.latency_p99_ms,
            },
            "writes_per_second": None,
            "total_vectors": sum(services.catalog.of_each(entries, lambda entry: entry.handle.count())),
            "nodes": 1,
            "shards": sum(entry.handle.config.shards for entry in entries),
        }
    )


_C = "/v1/cluster"
ROUTES = (
    Route("GET", _C + "/status", "cluster.read", _status, summary="Cluster status"),
    Route("GET", _C + "/nodes", "cluster.read", _nodes, summary="Nodes"),
    Route("POST", _C + "/nodes", "cluster.change", _add_node, summary="Add a node", success=201),
    Route("DELETE", _C + "/nodes/{nodeId}", "cluster.change", _remove_node, summary="Drain and remove a node"),
    Route("GET", _C + "/nodes/{nodeId}/health", "cluster.read", _node_health, summary="Health of a node"),
    Route("GET", _C + "/nodes/{nodeId}/status", "cluster.read", _node_status, summary="A node in detail"),
    Route("GET", _C + "/shards", "cluster.read", _list_shards, summary="Shards"),
    Route("GET", _C + "/shards/{shardId}", "cluster.read", _get_shard, summary="A shard"),
    Route("POST", _C + "/shards/{shardId}/migrate", "cluster.change", _migrate, summary="Move a shard", success=202),
    Route("GET", _C + "/diagnostics", "cluster.read", _diagnostics, summary="Diagnostics"),
    Route("GET", _C + "/metrics", "cluster.read", _metrics, summary="Figures of the cluster"),
)
