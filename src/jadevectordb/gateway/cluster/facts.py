"""What is known of a cluster at one moment, and what follows from it: who is alive, how far replicas are, what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median_high, median_low

from jadevectordb.gateway.cluster.view import (
    DEGRADED,
    HEALTHY,
    NOBODY,
    UNHEALTHY,
    ReplicaAnswer,
    ShardAnswer,
    shard_name,
)
from jadevectordb.topology.cluster_map import (
    ClusterMap,
    DatabaseRecord,
    Heartbeat,
    NodeRecord,
    ReplicaReport,
    ReplicaState,
    ShardRecord,
)

MIGRATING, UNAVAILABLE = "MIGRATING", "UNAVAILABLE"
_CLOCK_DIFFERS_S = 10.0  # beats are some seconds old when they are looked at
_BEHIND_MAX = 10_000  # log entries; a replica further behind than this is told


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """master: who holds the lease as far as this node knows, "" = nobody that is alive. beat_age_s: since each beat was seen to change.

    store_trouble: why the metadata store can't be asked, "" when it can: everything else is then what was last known. database_ids: by
    which id the gateway's catalog knows a database of the map, where that is another one. clock_ms: how far each node's wall clock was
    before that of this node when its newest beat came.
    """

    cluster_id: str
    map: ClusterMap
    nodes: Mapping[str, NodeRecord]
    beats: Mapping[str, Heartbeat]
    alive: frozenset[str]
    beat_age_s: Mapping[str, float] = field(default_factory=dict)
    master: str = ""
    term: int = 0
    store_trouble: str = ""
    database_ids: Mapping[str, str] = field(default_factory=dict)
    clock_ms: Mapping[str, int] = field(default_factory=dict)

    def known_as(self, record: DatabaseRecord) -> str:
        return self.database_ids.get(record.id, record.id)


def placed(facts: ClusterFacts, visible: Collection[str] | None = None) -> Iterator[tuple[DatabaseRecord, ShardRecord]]:
    """Every shard, in order. visible: of these databases only."""
    for name in sorted(facts.map.databases):
        record = facts.map.databases[name]
        if not record.dropped and (visible is None or facts.known_as(record) in visible):
            for shard in record.shards:
                yield record, shard


def report_of(facts: ClusterFacts, node: str, database: str, shard: int) -> ReplicaReport | None:
    beat = facts.beats.get(node)
    if beat is None:
        return None
    return next((r for r in beat.replicas if r.database == database and r.shard == shard), None)


def replicas_of(facts: ClusterFacts, record: DatabaseRecord, shard: ShardRecord) -> list[ReplicaAnswer]:
    reports = {replica.node: report_of(facts, replica.node, record.id, shard.number) for replica in shard.replicas}
    furthest = max((report.watermark for report in reports.values() if report is not None), default=0)
    rows = []
    for replica in shard.replicas:
        report = reports[replica.node]
        rows.append(
            ReplicaAnswer(
                database_id=facts.known_as(record),
                shard=shard.number,
                node_id=replica.node,
                is_primary=replica.node == shard.primary,
                wanted=str(replica.state),
                state=_state(facts, replica.node, report),
                watermark=0 if report is None else report.watermark,
                behind=furthest - (0 if report is None else report.watermark),
                vector_count=0 if report is None else report.rows,
                size_bytes=0 if report is None else report.bytes,
                reason="" if report is None else report.reason,
                replaces=replica.replaces,
                by_hand=replica.by_hand,
            )
        )
    return rows


def _state(facts: ClusterFacts, node: str, report: ReplicaReport | None) -> str:
    if node not in facts.alive:
        return "node away"
    return "not begun" if report is None else str(report.state)


def serving(facts: ClusterFacts, shard: ShardRecord) -> list[str]:
    """Nodes that are alive and whose replica may be asked, the primary first."""
    return [node for node in shard.readable if node in facts.alive]


def shard_answer(facts: ClusterFacts, record: DatabaseRecord, shard: ShardRecord) -> ShardAnswer:
    nodes = serving(facts, shard)
    primary = shard.primary or (nodes[0] if nodes else NOBODY)
    told = report_of(facts, primary, record.id, shard.number)
    if told is None:
        others = (report_of(facts, node, record.id, shard.number) for node in nodes)
        told = max((report for report in others if report), key=lambda report: report.watermark, default=None)
    return ShardAnswer(
        shard_id=shard_name(facts.known_as(record), shard.number),
        primary_node=primary,
        replicas=len(nodes),
        vector_count=0 if told is None else told.rows,
        status=shard_status(facts, record, shard),
        database_id=facts.known_as(record),
        size_bytes=0 if told is None else told.bytes,
        replica_nodes=",".join(replica.node for replica in shard.replicas),
    )


def shard_status(facts: ClusterFacts, record: DatabaseRecord, shard: ShardRecord) -> str:
    active = [r.node for r in shard.replicas if r.state is ReplicaState.ACTIVE and r.node in facts.alive]
    if not serving(facts, shard):
        return UNAVAILABLE
    if len(active) < record.replication:
        return DEGRADED
    return HEALTHY if all(replica.state is ReplicaState.ACTIVE for replica in shard.replicas) else MIGRATING


def node_checks(facts: ClusterFacts, node: str) -> dict[str, str]:
    """`ok`, or what is wrong, for each thing that is looked at."""
    beat = facts.beats.get(node)
    age_s = facts.beat_age_s.get(node)
    alive = node in facts.alive
    if alive:
        heartbeat = "ok"
    elif beat is not None and beat.leaving:
        heartbeat = "the node was stopped"
    else:
        heartbeat = "never heard of" if age_s is None else f"not heard of for {age_s:.0f} s"
    return {
        "heartbeat": heartbeat,
        "replicas": (_replica_trouble(facts, node) if alive else "not known: the node is away") or "ok",
        "node": ("; ".join(beat.troubles) if beat is not None else "") or "ok",
        "clock": (_clock_trouble(facts, node) if alive else "not known: the node is away") or "ok",
    }


def _clock_trouble(facts: ClusterFacts, node: str) -> str:
    """Of most of the others: one wrong clock is not told of all nodes. Nothing in the cluster goes by it but what people set by time."""
    own = facts.clock_ms.get(node)
    others = [clock for other, clock in facts.clock_ms.items() if other != node and other in facts.alive]
    if own is None or not others:
        return ""
    off_s = (
        min(median_low(own - other for other in others), median_high(own - other for other in others), key=abs) / 1000
    )
    if abs(off_s) < _CLOCK_DIFFERS_S:
        return ""
    return f"its clock differs from the others' by {off_s:+.0f} s: logins and what expires go by it; set it right"


def _replica_trouble(facts: ClusterFacts, node: str) -> str:
    told = []
    for record, shard in placed(facts):
        if shard.on(node) is None:
            continue
        mine = next(row for row in replicas_of(facts, record, shard) if row.node_id == node)
        name = shard_name(facts.known_as(record), shard.number)
        if mine.state == ReplicaState.FAILED:
            told.append(f"{name} failed: {mine.reason}")
        elif mine.behind > _BEHIND_MAX:
            told.append(f"{name} is {mine.behind} entries behind")
    return "; ".join(told)


def node_health(facts: ClusterFacts, node: str) -> str:
    if node not in facts.alive:
        return UNHEALTHY
    return HEALTHY if all(text == "ok" for text in node_checks(facts, node).values()) else DEGRADED


def applied_lag(facts: ClusterFacts, node: str) -> int:
    return sum(
        row.behind
        for record, shard in placed(facts)
        if shard.on(node) is not None
        for row in replicas_of(facts, record, shard)
        if row.node_id == node
    )


def reasons(facts: ClusterFacts, visible: Collection[str] | None = None) -> list[str]:
    """Why the cluster is not HEALTHY. visible: shards are named of these databases only, the others are counted."""
    told = []
    if facts.store_trouble:
        told.append(f"the metadata store can't be asked, this is what was last known: {facts.store_trouble}")
    if not facts.master:
        told.append("no master: nothing is placed or moved until one is elected")
    for node in sorted(facts.nodes):
        wrong = [f"node {node}: {text}" for text in node_checks(facts, node).values() if text != "ok"]
        told += wrong if node in facts.alive else wrong[:1]
    hidden: dict[str, int] = {}
    for record, shard in placed(facts):
        status = shard_status(facts, record, shard)
        if status in (DEGRADED, UNAVAILABLE):
            if visible is None or facts.known_as(record) in visible:
                served = len(serving(facts, shard))
                told.append(
                    f"shard {shard_name(facts.known_as(record), shard.number)}: {status}, {served} of {record.replication} serve"
                )
            else:
                hidden[status] = hidden.get(status, 0) + 1
    return told + [
        f"{count} other shards: {status}" if visible else f"{count} shards: {status}"
        for status, count in sorted(hidden.items())
    ]


def notes(facts: ClusterFacts, visible: Collection[str]) -> list[str]:
    """What a person should know although it keeps nothing from working. visible: shards are named of these databases only."""
    told = []
    versions = {node: facts.nodes[node].version for node in sorted(facts.nodes) if node in facts.alive}
    if len(set(versions.values())) > 1:
        each = ", ".join(f"{node} {version}" for node, version in versions.items())
        told.append(f"nodes run different versions ({each}): finish replacing the older ones")
    for record, shard in placed(facts, visible):
        for replica in shard.replicas:
            report = report_of(facts, replica.node, record.id, shard.number)
            if report is not None and report.repaired:
                name = shard_name(facts.known_as(record), shard.number)
                told.append(
                    f"node {replica.node}: {name} was damaged and was loaded anew: {report.repaired} Look at its disk."
                )
    return told


def overall(facts: ClusterFacts) -> str:
    """UNHEALTHY: something can't be done: no master, no quorum, or a shard that nobody serves."""
    statuses = {shard_status(facts, record, shard) for record, shard in placed(facts)}
    if facts.store_trouble or not facts.master or UNAVAILABLE in statuses:
        return UNHEALTHY
    well = all(node_health(facts, node) == HEALTHY for node in facts.nodes)
    return HEALTHY if well and DEGRADED not in statuses else DEGRADED


def replicas_on(facts: ClusterFacts, node: str) -> int:
    return sum(1 for record, shard in placed(facts) if shard.on(node) is not None)


@dataclass(frozen=True, slots=True)
class Crowded:
    """A database that shall have more replicas of a shard than nodes are left. staying: nodes that are up and not leaving."""

    database: str
    replication: int
    staying: int


def without_room(facts: ClusterFacts, leaving: str) -> Crowded | None:
    """The first database whose replicas would find no other node when this one leaves; None when all do."""
    staying = [
        node for node in facts.alive if node != leaving and node in facts.nodes and not facts.nodes[node].draining
    ]
    for record, shard in placed(facts):
        kept = {replica.node for replica in shard.replicas if replica.state is not ReplicaState.RETIRING}
        if leaving in kept and len(kept - {leaving}) < record.replication and not set(staying) - kept:
            return Crowded(facts.known_as(record), record.replication, len(staying))
    return None
