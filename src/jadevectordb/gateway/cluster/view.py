"""The cluster as people and programs ask about it: one protocol, with one answer for a single node and one for a cluster.

Handlers of `/v1/cluster/*` and `/v2/cluster/*` know only this. Names and order of the fields are those that existing programs
read; what is not measured is None, or says so.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import msgspec

HEALTHY, DEGRADED, UNHEALTHY = "HEALTHY", "DEGRADED", "UNHEALTHY"
NOBODY = "none"  # where a node's name is asked for and there is none: programs format it as text


class NodeAnswer(msgspec.Struct, kw_only=True):
    """status: active, inactive (it has not been heard of), draining. cpu, memory, storage: text such as 12%.

    shards: replicas that the map places on it.
    """

    node_id: str
    role: str  # master | worker
    address: str  # HOST:PORT of REST
    status: str
    health: str
    shards: int
    cpu: str
    memory: str
    storage: str
    network: str = "not measured"
    last_heartbeat: str | None
    id: str
    id_again: str = msgspec.field(name="nodeId")
    host: str
    port: int


class ReplicaAnswer(msgspec.Struct, kw_only=True):
    """wanted: the map's state of it. state: as its node last reported. behind: log entries behind the furthest replica known.

    replaces: the node it takes over from, while it moves. by_hand: a person placed it there.
    """

    database_id: str
    shard: int
    node_id: str
    is_primary: bool
    wanted: str
    state: str
    watermark: int
    behind: int
    vector_count: int
    size_bytes: int
    reason: str = ""
    replaces: str = ""
    by_hand: bool = False


class NodeDetail(NodeAnswer, kw_only=True):
    """peer: where other nodes reach it. map_version: the newest cluster map it knows."""

    version: str
    uptime_seconds: int
    zone: str = ""
    peer: str = ""
    rest_url: str = ""
    grpc: str = ""
    map_version: int = 0
    troubles: list[str] = []
    replicas: list[ReplicaAnswer] = []


class StatusAnswer(msgspec.Struct, kw_only=True):
    """healthy_nodes: those whose health is HEALTHY. reasons: why the status is not HEALTHY."""

    status: str
    master_node: str
    total_nodes: int
    active_nodes: int
    healthy_nodes: int
    total_shards: int
    replication_factor: int
    cluster_id: str
    term: int
    nodes: list[NodeAnswer]
    map_version: int = 0
    reasons: list[str] = []


class NodeHealth(msgspec.Struct, kw_only=True):
    """checks: ok, or what is wrong. applied_lag: log entries that its replicas are behind, all together."""

    node_id: str
    status: str
    checks: dict[str, str]
    last_heartbeat: str | None
    cpu_usage: float | None
    memory_usage: float | None
    disk_usage: float | None
    applied_lag: int


class ShardAnswer(msgspec.Struct, kw_only=True):
    """status: HEALTHY; DEGRADED: fewer live replicas than it shall have; MIGRATING: a replica comes or goes; UNAVAILABLE: none serves.

    replicas: those that serve, on nodes that are alive.
    """

    shard_id: str
    primary_node: str
    replicas: int
    vector_count: int
    status: str
    database_id: str
    size_bytes: int
    replica_nodes: str


class ShardDetail(ShardAnswer, kw_only=True):
    """migration: None, or what moves: phase, progress (0..1, None = not known), eta_seconds (None = not known)."""

    migration: dict[str, Any] | None = None
    placement: list[ReplicaAnswer] = []


class MadeChange(msgspec.Struct, kw_only=True):
    """What a master changed, when and why."""

    time: str
    term: int
    map_version: int
    reason: str


class Diagnostics(msgspec.Struct, kw_only=True):
    """performance: of the node that answers. changes: the latest of the cluster map, newest first.

    errors: why the status is not HEALTHY. notes: what else a person should know.
    """

    status: str
    nodes: list[NodeAnswer]
    shards: list[ShardAnswer]
    replication: dict[str, int]
    performance: Any
    errors: list[str]
    timestamp: str | None
    changes: list[MadeChange] = []
    notes: list[str] = []


class MetricsAnswer(msgspec.Struct, kw_only=True):
    """Rates are sums over the nodes, usage the mean, latencies those of the slowest node: percentiles of several nodes have no mean.

    by_node: the figures each node last told of itself.
    """

    cpu_usage: float | None
    memory_usage: float | None
    disk_usage: float | None
    queries_per_second: float | None
    query_latency_ms: dict[str, float | None]
    writes_per_second: float | None
    total_vectors: int
    nodes: int
    shards: int
    by_node: dict[str, dict[str, float]] = {}


class MapNode(msgspec.Struct, kw_only=True):
    """A node as clients need it. rest: the URL of its REST, "" = not known."""

    id: str
    rest: str
    grpc: str
    alive: bool
    draining: bool


class ClientMap(msgspec.Struct, kw_only=True):
    """is_cluster: False on a single node, whose `nodes` is empty: a client goes on using the URL it has."""

    is_cluster: bool
    cluster_id: str
    version: int
    term: int
    master: str
    nodes: list[MapNode]


class DrainAnswer(msgspec.Struct, kw_only=True):
    """status: draining, or removed. shards_to_move: replicas that are still on it. moves: how far each of the first ones is.

    waits_for: why it can't go on by itself and what to do, "" while it does. note: what else to know before the node is stopped.
    """

    node_id: str
    status: str
    shards_to_move: int
    moves: list[str] = []
    waits_for: str = ""
    note: str = ""


class MigrationAnswer(msgspec.Struct, kw_only=True):
    """A move that was begun: the map says it, and `GET /v1/cluster/shards/SHARD` how far it is. migration_id: of this move alone."""

    migration_id: str
    shard_id: str
    source_node: str
    target_node: str
    strategy: str
    phase: str


class FailoverAnswer(msgspec.Struct, kw_only=True):
    """took_ms: from asking until another node was seen as the master."""

    old_master: str
    new_master: str
    term: int
    took_ms: float


class ClusterView(Protocol):
    """Any thread. `visible` are the ids of the databases whose shards the asker may see.

    Raises NOT_FOUND for an unknown node or shard, CONFLICT for what can't be, UNAVAILABLE for a change without a master or quorum.
    """

    @property
    def is_cluster(self) -> bool: ...

    def status(self) -> StatusAnswer: ...

    def nodes(self) -> list[NodeAnswer]: ...

    def node(self, node: str, visible: Collection[str]) -> NodeDetail:
        """Its replicas are those of visible databases."""
        ...

    def node_health(self, node: str) -> NodeHealth: ...

    def shards(self, visible: Collection[str]) -> list[ShardAnswer]: ...

    def shard(self, shard_id: str, visible: Collection[str]) -> ShardDetail: ...

    def diagnostics(self, visible: Collection[str]) -> Diagnostics: ...

    def metrics(self) -> MetricsAnswer: ...

    def map_version(self) -> int:
        """Cheap: every answer carries it."""
        ...

    def client_map(self) -> ClientMap:
        """Cheap: it is asked for in the event loop."""
        ...

    def add_node(self, node: str, address: str) -> NodeAnswer: ...

    def drain(self, node: str) -> DrainAnswer:
        """Have the node lose its replicas; once it has none, it is forgotten. Asking again tells how far it is."""
        ...

    def migrate(
        self, shard_id: str, source: str, target: str, strategy: str, visible: Collection[str]
    ) -> MigrationAnswer:
        """Have the replica on `source` ("" = the primary) move to `target`. Raises what keeps it from being done."""
        ...

    def failover(self) -> FailoverAnswer:
        """Another node becomes the master, on purpose. Returns when it has."""
        ...


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}%"


def shard_name(database: str, number: int) -> str:
    return f"{database}-{number}"


def shard_of(shard_id: str) -> tuple[str, int] | None:
    """(database, number); None when it is the name of no shard."""
    database, _, number = shard_id.rpartition("-")
    return (database, int(number)) if database and number.isascii() and number.isdigit() and len(number) < 6 else None
