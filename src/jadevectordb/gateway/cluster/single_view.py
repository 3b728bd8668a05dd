"""A single node asked about its cluster: what there is, truthfully; a change that can't be carried out is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NoReturn

from jadevectordb.gateway.cluster.view import (
    DEGRADED,
    HEALTHY,
    ClientMap,
    Diagnostics,
    DrainAnswer,
    FailoverAnswer,
    MetricsAnswer,
    MigrationAnswer,
    NodeAnswer,
    NodeDetail,
    NodeHealth,
    ReplicaAnswer,
    ShardAnswer,
    ShardDetail,
    StatusAnswer,
    percent,
    shard_name,
    shard_of,
)
from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.gateway.rest.http import iso
from jadevectordb.gateway.service.catalog import Catalog, Entry
from jadevectordb.gateway.service.health_checks import storage_checks
from jadevectordb.gateway.service.telemetry import Telemetry
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock

NODE_ID = "local"
CLUSTER_ID = "single-node"


class SingleNodeView:
    """host, port: where REST listens. started_s: on the monotonic clock."""

    is_cluster = False

    def __init__(
        self,
        catalog: Catalog,
        telemetry: Telemetry,
        clock: Clock,
        *,
        version: str,
        host: str,
        port: Callable[[], int],
        started_s: float,
    ) -> None:
        self._catalog = catalog
        self._telemetry = telemetry
        self._clock = clock
        self._version = version
        self._host = host
        self._port = port
        self._started_s = started_s

    def status(self) -> StatusAnswer:
        node = self._node()
        checks = self._checks()
        return StatusAnswer(
            status=node.health,
            master_node=NODE_ID,
            total_nodes=1,
            active_nodes=1,
            healthy_nodes=int(node.health == HEALTHY),
            total_shards=node.shards,
            replication_factor=1,
            cluster_id=CLUSTER_ID,
            term=0,
            nodes=[node],
            reasons=_wrong(checks),
        )

    def nodes(self) -> list[NodeAnswer]:
        return [self._node()]

    def node(self, node: str, visible: Collection[str]) -> NodeDetail:
        _check_known(node)
        plain = {name: getattr(self._node(), name) for name in NodeAnswer.__struct_fields__}
        replicas = [
            _replica(entry, stats, shard) for entry, stats in self._stats(visible) for shard in range(stats.shards)
        ]
        uptime_s = int(self._clock.monotonic_s() - self._started_s)
        return NodeDetail(
            **plain, version=self._version, uptime_seconds=uptime_s, troubles=_wrong(self._checks()), replicas=replicas
        )

    def node_health(self, node: str) -> NodeHealth:
        _check_known(node)
        usage, checks = self._telemetry.system_usage(), self._checks()
        return NodeHealth(
            node_id=NODE_ID,
            status=_word(checks),
            checks=checks,
            last_heartbeat=iso(self._clock.now_ms()),
            cpu_usage=usage.cpu_percent,
            memory_usage=usage.memory_percent,
            disk_usage=usage.disk_percent,
            applied_lag=0,
        )

    def shards(self, visible: Collection[str]) -> list[ShardAnswer]:
        return [
            ShardAnswer(**_shard(entry, stats, shard))
            for entry, stats in self._stats(visible)
            for shard in range(stats.shards)
        ]

    def shard(self, shard_id: str, visible: Collection[str]) -> ShardDetail:
        named = shard_of(shard_id)
        for entry, stats in self._stats({named[0]} & set(visible) if named else ()):
            if named and named[1] < stats.shards:
                return ShardDetail(**_shard(entry, stats, named[1]), placement=[_replica(entry, stats, named[1])])
        raise JadeError(ErrorCode.NOT_FOUND, f"Shard not found: {shard_id!r:.200}. GET /v1/cluster/shards lists them.")

    def diagnostics(self, visible: Collection[str]) -> Diagnostics:
        checks = self._checks()
        return Diagnostics(
            status=_word(checks),
            nodes=[self._node()],
            shards=self.shards(visible),
            replication={"replication_factor": 1, "lagging_replicas": 0},
            performance=self._telemetry.performance(),
            errors=_wrong(checks),
            timestamp=iso(self._clock.now_ms()),
        )

    def metrics(self) -> MetricsAnswer:
        usage, performance = self._telemetry.system_usage(), self._telemetry.performance()
        entries = self._catalog.every()
        return MetricsAnswer(
            cpu_usage=usage.cpu_percent,
            memory_usage=usage.memory_percent,
            disk_usage=usage.disk_percent,
            queries_per_second=performance.queries_per_second,
            query_latency_ms={
                "p50": performance.latency_p50_ms,
                "p95": performance.latency_p95_ms,
                "p99": performance.latency_p99_ms,
            },
            writes_per_second=None,
            total_vectors=sum(self._catalog.of_each(entries, lambda entry: entry.handle.count())),
            nodes=1,
            shards=sum(entry.handle.config.shards for entry in entries),
        )

    def map_version(self) -> int:
        return 0

    def client_map(self) -> ClientMap:
        return ClientMap(is_cluster=False, cluster_id=CLUSTER_ID, version=0, term=0, master=NODE_ID, nodes=[])

    def add_node(self, node: str, address: str) -> NodeAnswer:
        _refuse("adding a node")

    def drain(self, node: str) -> DrainAnswer:
        _check_known(node)
        raise JadeError(ErrorCode.CONFLICT, "This is the last node: it can't be removed.")

    def migrate(
        self, shard_id: str, source: str, target: str, strategy: str, visible: Collection[str]
    ) -> MigrationAnswer:
        self.shard(shard_id, visible)
        _refuse("moving a shard")

    def failover(self) -> FailoverAnswer:
        _refuse("a failover")

    def _node(self) -> NodeAnswer:
        usage, port = self._telemetry.system_usage(), self._port()
        return NodeAnswer(
            node_id=NODE_ID,
            role="master",
            address=f"{self._host}:{port}",
            status="active",
            health=_word(self._checks()),
            shards=sum(entry.handle.config.shards for entry in self._catalog.every()),
            cpu=percent(usage.cpu_percent),
            memory=percent(usage.memory_percent),
            storage=percent(usage.disk_percent),
            last_heartbeat=iso(self._clock.now_ms()),
            id=NODE_ID,
            id_again=NODE_ID,
            host=self._host,
            port=port,
        )

    def _checks(self) -> dict[str, str]:
        return storage_checks(self._catalog, self._telemetry.system_usage())

    def _stats(self, visible: Collection[str]) -> list[tuple[Entry, Stats]]:
        entries = [entry for name in visible if (entry := self._catalog.find(name)) is not None]
        return self._catalog.of_each(entries, lambda entry: (entry, entry.handle.stats()))


def _shard(entry: Entry, stats: Stats, shard: int) -> dict[str, Any]:
    segments = [segment for segment in stats.segments if segment.shard == shard]
    return {
        "shard_id": shard_name(entry.id, shard),
        "primary_node": NODE_ID,
        "replicas": 1,
        "vector_count": sum(segment.live for segment in segments),
        "status": DEGRADED if stats.trouble else HEALTHY,
        "database_id": entry.id,
        "size_bytes": sum(segment.disk_bytes for segment in segments),
        "replica_nodes": NODE_ID,
    }


def _replica(entry: Entry, stats: Stats, shard: int) -> ReplicaAnswer:
    seen = _shard(entry, stats, shard)
    return ReplicaAnswer(
        database_id=entry.id,
        shard=shard,
        node_id=NODE_ID,
        is_primary=True,
        wanted="active",
        state="active",
        watermark=stats.watermarks[shard],
        behind=0,
        vector_count=seen["vector_count"],
        size_bytes=seen["size_bytes"],
        reason=stats.trouble,
    )


def _word(checks: dict[str, str]) -> str:
    return DEGRADED if _wrong(checks) else HEALTHY


def _wrong(checks: dict[str, str]) -> list[str]:
    return [f"{name}: {text}" for name, text in checks.items() if text != "ok"]


def _check_known(node: str) -> None:
    if node != NODE_ID:
        raise JadeError(ErrorCode.NOT_FOUND, f"Node not found: {node!r:.200}; this is a single node, {NODE_ID!r}.")


def _refuse(what: str) -> NoReturn:
    raise JadeError(ErrorCode.CONFLICT, f"This server is a single node: {what} needs a cluster.")
