"""The cluster map: which node holds which replica of which shard, as everybody agrees on it.

The map says what shall be; nodes move towards it and report what is. One record in the metadata store holds it, written by the
master, each change a compare-and-set that raises `version` by one and carries the master's `term`: a master that was
replaced without noticing can't write. A move that a person asks for is written by the node that was asked, in the same way and under
the term it found. Pure values, changed by making new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from jadevectordb.model.limits import MAP_CHANGES_KEPT_MAX, MAP_REASON_LENGTH_MAX


class ReplicaState(StrEnum):
    """How far a replica is. The map holds ASSIGNED, ACTIVE and RETIRING, reports of nodes any of them."""

    ASSIGNED = "assigned"  # the map wants it; the node has not begun
    LOADING = "loading"  # a snapshot is copied, segments are opened
    CATCHING_UP = "catching_up"  # the log is applied
    ACTIVE = "active"  # near the log's end: serves reads, counts for STRONG writes
    RETIRING = "retiring"  # serves what it is asked until others do, then goes
    GONE = "gone"  # closed, its files removed
    FAILED = "failed"  # can't go on by itself; the report says why


class ReplicaRecord(msgspec.Struct, frozen=True):
    """since: the map version that placed it here.

    A node's reports count once it has acted upon that version: what it said before is about an earlier replica of the shard.
    replaces: the node whose replica retires when this one is active, of a move; "" of all others. by_hand: a person placed it
    here: its shard's replicas are not moved to make nodes more even as long as it is.
    """

    node: str
    state: ReplicaState = ReplicaState.ASSIGNED
    since: int = 0
    replaces: str = ""
    by_hand: bool = False


class ShardRecord(msgspec.Struct, frozen=True):
    """primary: the node whose replica serves reads by default; "" while none is active."""

    number: int
    replicas: tuple[ReplicaRecord, ...] = ()
    primary: str = ""

    def on(self, node: str) -> ReplicaRecord | None:
        return next((replica for replica in self.replicas if replica.node == node), None)

    @property
    def readable(self) -> tuple[str, ...]:
        """Nodes that can be asked, the primary first."""
        # Every search asks this, and identity is the cheapest question
        active, retiring = ReplicaState.ACTIVE, ReplicaState.RETIRING
        nodes = [r.node for r in self.replicas if r.state is active or r.state is retiring]
        if len(nodes) > 1 and nodes[0] != self.primary:
            nodes.sort(key=lambda node: node != self.primary)
        return tuple(nodes)


class DatabaseRecord(msgspec.Struct, frozen=True):
    """Where a database lies.

    id: of the database for its whole life, names its streams and folders. replication: replicas a shard shall have.
    dropped: no shard has replicas any more; the entry stays until its streams are deleted.
    """

    id: str
    replication: int
    shards: tuple[ShardRecord, ...] = ()
    dropped: bool = False


class MapChange(msgspec.Struct, frozen=True):
    """One change of the map and why, for people. version, term: of the map that has it. at_ms: of the wall clock of who wrote it."""

    version: int
    term: int
    at_ms: int
    reason: str


class ClusterMap(msgspec.Struct, frozen=True):
    """version: 0 before the first master wrote one. term: of the master that wrote this version.

    changes: the newest MAP_CHANGES_KEPT_MAX, oldest first: every node can tell them, and who becomes master goes on with them.
    """

    version: int = 0
    term: int = 0
    databases: dict[str, DatabaseRecord] = {}
    changes: tuple[MapChange, ...] = ()

    def shard(self, database: str, number: int) -> ShardRecord | None:
        record = self.databases.get(database)
        return record.shards[number] if record is not None and number < len(record.shards) else None

    def of_node(self, node: str) -> Iterator[tuple[str, ShardRecord, ReplicaRecord]]:
        """(database, shard, replica) of every replica that the map places on the node."""
        for record in self.databases.values():
            for shard in record.shards:
                replica = shard.on(node)
                if replica is not None:
                    yield record.id, shard, replica

    def explained(self, reasons: Iterable[str], at_ms: int) -> ClusterMap:
        """With why this version is as it is."""
        made = (MapChange(self.version, self.term, at_ms, reason[:MAP_REASON_LENGTH_MAX]) for reason in reasons)
        return msgspec.structs.replace(self, changes=(*self.changes, *made)[-MAP_CHANGES_KEPT_MAX:])

    def with_shards(self, database: str, shards: Iterable[ShardRecord]) -> ClusterMap:
        """These shards in place of those with their numbers; version and term are the caller's to set."""
        record = self.databases[database]
        changed = {shard.number: shard for shard in shards}
        merged = tuple(changed.get(shard.number, shard) for shard in record.shards)
        return msgspec.structs.replace(
            self, databases={**self.databases, database: msgspec.structs.replace(record, shards=merged)}
        )


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says about itself when it starts. incarnation: another one every start. peer: HOST:PORT other nodes connect to.

    rest: the URL clients use. draining: it shall lose its replicas and leave. keeps_log: its nats-server is one of those that keep the log.
    """

    id: str
    incarnation: str
    peer: str
    rest: str = ""
    grpc: str = ""
    zone: str = ""
    version: str = ""
    started_ms: int = 0
    draining: bool = False
    keeps_log: bool = False


class ReplicaReport(msgspec.Struct, frozen=True):
    """One replica as its node sees it. checkpointed: log entries up to here are in its files; the log may drop them. reason: of FAILED.

    repaired: what was damaged in the files that this replica replaced, since the node started. newest_time: the newest hybrid time of
    the entries up to `watermark`, 0 = not told.
    """

    database: str
    shard: int
    state: ReplicaState
    watermark: int = 0
    checkpointed: int = 0
    rows: int = 0
    bytes: int = 0
    digest: str = ""
    reason: str = ""
    repaired: str = ""
    newest_time: int = 0


class Heartbeat(msgspec.Struct, frozen=True):
    """Written about every second by each node. beat: grows; whoever watches judges by his own clock how long it has not.

    map_version: the newest map that this node has acted upon: `replicas` tells of all that this map places on it.
    leaving: it is about to stop, and shall not be asked any more. figures: what the node measured of itself, by name (`FIGURES`); what it
    can't tell is left out. wall_ms: its wall clock when this was written, 0 = not told; only for telling clocks that differ.
    """

    node: str
    incarnation: str
    beat: int
    map_version: int = 0
    replicas: tuple[ReplicaReport, ...] = ()
    troubles: tuple[str, ...] = ()
    load: float = 0.0
    leaving: bool = False
    figures: dict[str, float] = {}
    wall_ms: int = 0


# Shares are percent; rates and latencies those of the last minute, of searches that clients asked this node for
FIGURES = (
    "cpu_percent", "memory_percent", "disk_percent", "queries_per_second", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms",
    "writes_per_second",
)  # fmt: skip


# Keys in the metadata store
IDENTITY_KEY = "cluster/identity"
MAP_KEY = "cluster/map"
LEASE_KEY = "cluster/lease"
NODE_PREFIX = "cluster/node/"
BEAT_PREFIX = "cluster/beat/"
PLACED_PREFIX = "cluster/database/"  # what a database was created with; see `topology.placed`
