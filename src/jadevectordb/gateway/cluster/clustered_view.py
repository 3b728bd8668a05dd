"""A cluster asked about itself, from what one of its nodes knows: the map, who said what of himself, and who is heard of.

Nothing here asks another node, so an answer comes also when others are away; it is at most a heartbeat old. Changes are records in
the metadata store: without a quorum they raise UNAVAILABLE, and nothing is acknowledged that nobody will carry out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from jadevectordb.gateway.cluster.changing import ClusterChanges, check_master, known
from jadevectordb.gateway.cluster.draining import stuck
from jadevectordb.gateway.cluster.facts import (
    ClusterFacts,
    applied_lag,
    node_checks,
    node_health,
    notes,
    overall,
    placed,
    reasons,
    replicas_of,
    replicas_on,
    shard_answer,
    shard_status,
)
from jadevectordb.gateway.cluster.resignation import ask_to_resign
from jadevectordb.gateway.cluster.view import (
    DEGRADED,
    HEALTHY,
    NOBODY,
    ClientMap,
    Diagnostics,
    DrainAnswer,
    FailoverAnswer,
    MadeChange,
    MapNode,
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
    shard_of,
)
from jadevectordb.gateway.rest.http import iso
from jadevectordb.gateway.service.performance import Performance
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.topology.cluster_map import NodeRecord, ReplicaState

_FAILOVER_S_MAX = 15.0
_LOOK_S = 0.05


class ClusteredView:
    """node: this one. facts: what is known now, from memory.

    map_version: of the newest map known, where that is cheaper to ask than all facts."""

    is_cluster = True

    def __init__(
        self,
        node: str,
        facts: Callable[[], ClusterFacts],
        store: MetadataStore,
        clock: Clock,
        performance: Callable[[], Performance],
        map_version: Callable[[], int] | None = None,
    ) -> None:
        self._node = node
        self._facts = facts
        self._store = store
        self._clock = clock
        self._performance = performance
        self._made = ClusterChanges(node, facts, store, clock)
        self.map_version = map_version or (lambda: facts().map.version)
        self._closing = threading.Event()

    def close(self) -> None:
        """Who waits for a failover is told that the server stops."""
        self._closing.set()

    # What is

    def status(self) -> StatusAnswer:
        facts = self._facts()
        nodes = self._nodes(facts)
        replication = [record.replication for record in facts.map.databases.values() if not record.dropped]
        return StatusAnswer(
            status=_overall(facts),
            master_node=facts.master or NOBODY,
            total_nodes=len(nodes),
            active_nodes=sum(node.status != "inactive" for node in nodes),
            healthy_nodes=sum(node.health == HEALTHY for node in nodes),
            total_shards=sum(1 for _ in placed(facts)),
            replication_factor=max(replication, default=0),
            cluster_id=facts.cluster_id,
            term=facts.term,
            nodes=nodes,
            map_version=facts.map.version,
            reasons=self._wrong(facts, ()),
        )

    def nodes(self) -> list[NodeAnswer]:
        return self._nodes(self._facts())

    def node(self, node: str, visible: Collection[str]) -> NodeDetail:
        facts = self._facts()
        record, beat = known(facts, node), facts.beats.get(node)
        shown = self._shown(facts, record)
        plain = {name: getattr(shown, name) for name in NodeAnswer.__struct_fields__}
        rows = [row for database, shard in placed(facts, visible) for row in replicas_of(facts, database, shard)]
        alive = node in facts.alive
        return NodeDetail(
            **plain,
            version=record.version,
            uptime_seconds=max(0, self._clock.now_ms() - record.started_ms) // 1000 if alive else 0,
            zone=record.zone,
            peer=record.peer,
            rest_url=record.rest,
            grpc=record.grpc,
            map_version=0 if beat is None else beat.map_version,
            troubles=[f"{name}: {text}" for name, text in node_checks(facts, node).items() if text != "ok"],
            replicas=[row for row in rows if row.node_id == node],
        )

    def node_health(self, node: str) -> NodeHealth:
        facts = self._facts()
        known(facts, node)
        figures = _figures(facts, node)
        return NodeHealth(
            node_id=node,
            status=node_health(facts, node),
            checks=node_checks(facts, node),
            last_heartbeat=self._heard(facts, node),
            cpu_usage=figures.get("cpu_percent"),
            memory_usage=figures.get("memory_percent"),
            disk_usage=figures.get("disk_percent"),
            applied_lag=applied_lag(facts, node),
        )

    def shards(self, visible: Collection[str]) -> list[ShardAnswer]:
        facts = self._facts()
        return [shard_answer(facts, record, shard) for record, shard in placed(facts, visible)]

    def shard(self, shard_id: str, visible: Collection[str]) -> ShardDetail:
        facts, named = self._facts(), shard_of(shard_id)
        for record, shard in placed(facts, {named[0]} & set(visible) if named else ()):
            if named and shard.number == named[1]:
                answer = shard_answer(facts, record, shard)
                rows = replicas_of(facts, record, shard)
                plain = {name: getattr(answer, name) for name in ShardAnswer.__struct_fields__}
                return ShardDetail(**plain, migration=_migration(rows), placement=rows)
        raise JadeError(ErrorCode.NOT_FOUND, f"Shard not found: {shard_id!r:.200}. GET /v1/cluster/shards lists them.")

    def diagnostics(self, visible: Collection[str]) -> Diagnostics:
        facts = self._facts()
        statuses = [shard_status(facts, record, shard) for record, shard in placed(facts)]
        lagging = [
            row for record, shard in placed(facts) for row in replicas_of(facts, record, shard)
            if row.node_id not in facts.alive or row.state != ReplicaState.ACTIVE
        ]  # fmt: skip
        return Diagnostics(
            status=_overall(facts),
            nodes=self._nodes(facts),
            shards=[shard_answer(facts, record, shard) for record, shard in placed(facts, visible)],
            replication={
                "replication_factor": max((r.replication for r in facts.map.databases.values()), default=0),
                "lagging_replicas": len(lagging),
                "degraded_shards": statuses.count(DEGRADED),
                "unavailable_shards": statuses.count("UNAVAILABLE"),
                "behind_entries": sum(applied_lag(facts, node) for node in facts.alive),
            },
            performance=self._performance(),
            errors=self._wrong(facts, visible),
            timestamp=iso(self._clock.now_ms()),
            changes=[
                MadeChange(time=iso(one.at_ms) or "", term=one.term, map_version=one.version, reason=one.reason)
                for one in reversed(facts.map.changes)
            ],
            notes=notes(facts, visible),
        )

    def metrics(self) -> MetricsAnswer:
        facts = self._facts()
        by_node = {node: _figures(facts, node) for node in sorted(facts.alive) if node in facts.nodes}

        def told(name: str) -> list[float]:
            return [figures[name] for figures in by_node.values() if name in figures]

        def mean(name: str) -> float | None:
            values = told(name)
            return round(sum(values) / len(values), 1) if values else None

        def total(name: str) -> float | None:
            """None unless every live node told it: a sum of some would look like a drop."""
            values = told(name)
            return round(sum(values), 3) if values and len(values) == len(by_node) else None

        return MetricsAnswer(
            cpu_usage=mean("cpu_percent"),
            memory_usage=mean("memory_percent"),
            disk_usage=mean("disk_percent"),
            queries_per_second=total("queries_per_second"),
            query_latency_ms={name: max(told(f"latency_{name}_ms"), default=None) for name in ("p50", "p95", "p99")},
            writes_per_second=total("writes_per_second"),
            total_vectors=sum(shard_answer(facts, record, shard).vector_count for record, shard in placed(facts)),
            nodes=len(facts.nodes),
            shards=sum(1 for _ in placed(facts)),
            by_node=by_node,
        )

    def client_map(self) -> ClientMap:
        facts = self._facts()
        return ClientMap(
            is_cluster=True,
            cluster_id=facts.cluster_id,
            version=facts.map.version,
            term=facts.term,
            master=facts.master or NOBODY,
            nodes=[
                MapNode(
                    id=node, rest=record.rest, grpc=record.grpc, alive=node in facts.alive, draining=record.draining
                )
                for node, record in sorted(facts.nodes.items())
            ],
        )

    # What shall be

    def add_node(self, node: str, address: str) -> NodeAnswer:
        return self._shown(self._facts(), self._made.keep(node))

    def drain(self, node: str) -> DrainAnswer:
        return self._made.drain(node)

    def migrate(
        self, shard_id: str, source: str, target: str, strategy: str, visible: Collection[str]
    ) -> MigrationAnswer:
        self.shard(shard_id, visible)
        return self._made.migrate(shard_id, source, target, strategy)

    def failover(self) -> FailoverAnswer:
        began_s, before = self._clock.monotonic_s(), self._facts()
        check_master(before)
        if sum(node in before.alive for node in before.nodes) < 2:
            raise JadeError(ErrorCode.CONFLICT, "There is no other node alive that could become the master.")
        ask_to_resign(self._store, before.term, self._node)
        while True:
            now = self._facts()
            if now.term > before.term and now.master and now.master != before.master:
                took_s = self._clock.monotonic_s() - began_s
                return FailoverAnswer(
                    old_master=before.master, new_master=now.master, term=now.term, took_ms=round(took_s * 1000, 1)
                )
            if self._clock.monotonic_s() - began_s > _FAILOVER_S_MAX or self._closing.wait(_LOOK_S):
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"{before.master} was asked to resign, but no other master was seen within {_FAILOVER_S_MAX:g} s.",
                )

    # Parts

    def _nodes(self, facts: ClusterFacts) -> list[NodeAnswer]:
        return [self._shown(facts, facts.nodes[node]) for node in sorted(facts.nodes)]

    def _shown(self, facts: ClusterFacts, record: NodeRecord) -> NodeAnswer:
        figures = _figures(facts, record.id)
        host, port = _host_and_port(record)
        status = "draining" if record.draining else "active"
        return NodeAnswer(
            node_id=record.id,
            role="master" if record.id == facts.master else "worker",
            address=f"{host}:{port}",
            status=status if record.id in facts.alive else "inactive",
            health=node_health(facts, record.id),
            shards=replicas_on(facts, record.id),
            cpu=percent(figures.get("cpu_percent")),
            memory=percent(figures.get("memory_percent")),
            storage=percent(figures.get("disk_percent")),
            last_heartbeat=self._heard(facts, record.id),
            id=record.id,
            id_again=record.id,
            host=host,
            port=port,
        )

    def _heard(self, facts: ClusterFacts, node: str) -> str | None:
        """By this node's clock: when it saw the last beat, not when the other says it was."""
        age_s = facts.beat_age_s.get(node)
        return None if age_s is None else iso(self._clock.now_ms() - round(age_s * 1000))

    def _wrong(self, facts: ClusterFacts, visible: Collection[str]) -> list[str]:
        return [*reasons(facts, visible), *stuck(facts)]


def _overall(facts: ClusterFacts) -> str:
    """A drain that waits for a person is not well, though everything is served."""
    found = overall(facts)
    return DEGRADED if found == HEALTHY and stuck(facts) else found


def _migration(rows: list[ReplicaAnswer]) -> dict[str, Any] | None:
    """The replica that comes and the one that goes, where there are such; how long it takes is not known."""
    moved = next((row for row in rows if row.replaces), None)
    coming = moved or next((row for row in rows if row.wanted == ReplicaState.ASSIGNED), None)
    going = next((row for row in rows if row.wanted == ReplicaState.RETIRING), None)
    moving = coming or going
    if moving is None:
        return None
    source = moved.replaces if moved is not None else NOBODY
    return {
        "phase": moving.state,
        "source_node": source if going is None else going.node_id,
        "target_node": NOBODY if coming is None else coming.node_id,
        "progress": None,
        "eta_seconds": None,
        "behind": 0 if coming is None else coming.behind,
    }


def _figures(facts: ClusterFacts, node: str) -> dict[str, float]:
    """Of a node that is away they are of the past: left out."""
    beat = facts.beats.get(node)
    return beat.figures if beat is not None and node in facts.alive else {}


def _host_and_port(record: NodeRecord) -> tuple[str, int]:
    """Of REST; of the node's answers to others where it has not told its REST."""
    parts = urlsplit(record.rest or f"//{record.peer}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
