"""What the rules of placement ask of the picture of a cluster: which replicas serve, are lost, are kept; how full nodes and zones are.

The words, as `control.placement` uses them: a replica *answers* when the map calls it active and its node lives, and it *serves*
when its node confirms that; it is *lost* when its node has been dead for `replace_after_s` or is unknown, or when it failed; it is
*kept* when it is not retiring, lost, or on a draining node; a shard is *whole* when just as many are kept as shall be, and all
of them serve. Readers are sent to who answers; nothing is taken away unless enough others serve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from jadevectordb.control.observe import Observed
from jadevectordb.topology.cluster_map import ClusterMap, DatabaseRecord, ReplicaRecord, ReplicaState, ShardRecord

_S = ReplicaState


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of the map and why. record: the database's entry as it shall be; None = no entry any more."""

    reason: str
    database: str
    record: DatabaseRecord | None

    def made_on(self, cluster_map: ClusterMap) -> ClusterMap:
        databases = dict(cluster_map.databases)
        if self.record is None:
            databases.pop(self.database, None)
        else:
            databases[self.database] = self.record
        return msgspec.structs.replace(cluster_map, databases=databases)


class Scene:
    """What is seen, with what the rules ask of it. A rule that makes several changes keeps its own edits here (`edit`)."""

    def __init__(self, observed: Observed, replace_after_s: float) -> None:
        self.observed = observed
        self.replace_after_s = replace_after_s
        self.reports = observed.reports()
        self.databases = dict(sorted(observed.map.databases.items()))
        self.nodes = sorted(node for node in observed.nodes if observed.takes_replicas(node))
        self.zones = {self.zone(node) for node in self.nodes}

    def shards(self) -> Iterator[tuple[DatabaseRecord, ShardRecord]]:
        """Every shard as it is at that moment: edits made while iterating are seen."""
        for name in self.databases:
            for number in range(len(self.databases[name].shards)):
                record = self.databases[name]
                yield record, record.shards[number]

    def edit(self, database: str, shard: ShardRecord, reason: str) -> Change:
        record = self.databases[database]
        shards = tuple(shard if one.number == shard.number else one for one in record.shards)
        self.databases[database] = record = msgspec.structs.replace(record, shards=shards)
        return Change(f"{database}/{shard.number}: {reason}", database, record)

    # One replica

    def report(self, database: str, shard: int, replica: ReplicaRecord) -> ReplicaState | None:
        return self.observed.reported(self.reports, database, shard, replica)

    def answers(self, replica: ReplicaRecord) -> bool:
        return replica.state is _S.ACTIVE and self.observed.is_up(replica.node)

    def serves(self, database: str, shard: int, replica: ReplicaRecord) -> bool:
        return replica.state is _S.ACTIVE and self.report(database, shard, replica) is _S.ACTIVE

    def count_serving(self, database: str, shard: int, replicas: Iterable[ReplicaRecord]) -> int:
        return sum(self.serves(database, shard, replica) for replica in replicas)

    def failed(self, database: str, shard: int, replica: ReplicaRecord) -> bool:
        return replica.state is not _S.ACTIVE and self.report(database, shard, replica) is _S.FAILED

    def lost(self, database: str, shard: int, replica: ReplicaRecord) -> bool:
        dead_s = self.observed.dead_s(replica.node)
        return dead_s >= self.replace_after_s or self.failed(database, shard, replica)

    def draining(self, replica: ReplicaRecord) -> bool:
        node = self.observed.nodes.get(replica.node)
        return node is not None and node.draining

    def kept(self, database: str, shard: ShardRecord) -> list[ReplicaRecord]:
        return [
            r
            for r in shard.replicas
            if r.state is not _S.RETIRING and not self.lost(database, shard.number, r) and not self.draining(r)
        ]

    def whole(self, record: DatabaseRecord, shard: ShardRecord) -> bool:
        kept = self.kept(record.id, shard)
        serving = self.count_serving(record.id, shard.number, kept)
        return len(shard.replicas) == len(kept) == serving == record.replication

    # Nodes

    def loads(self) -> Counter[str]:
        """Replicas that are kept on each node that may take some."""
        loads: Counter[str] = Counter(dict.fromkeys(self.nodes, 0))
        for record, shard in self.shards():
            loads.update(r.node for r in self.kept(record.id, shard) if r.node in loads)
        return loads

    def loads_to_be(self) -> Counter[str]:
        """The same, as it will be when what is too many has gone."""
        loads = self.loads()
        for record, shard in self.shards():
            kept = self.kept(record.id, shard)
            if len(kept) > record.replication:
                loads[self.surplus(record.id, shard.number, kept, loads).node] -= 1
        return loads

    def zone(self, node: str) -> str:
        known = self.observed.nodes.get(node)
        return known.zone if known is not None else ""

    def crowding(self, nodes: Iterable[str]) -> int:
        """How unevenly these nodes lie over zones: the sum of squares of their numbers. Smaller is safer."""
        return sum(count * count for count in Counter(map(self.zone, nodes)).values())

    def is_spread(self, nodes: Sequence[str]) -> bool:
        """They lie over zones as evenly as they could, however many nodes each zone had."""
        each, more = divmod(len(nodes), len(self.zones) or 1)
        return self.crowding(nodes) <= more * (each + 1) ** 2 + (len(self.zones) - more) * each**2

    def best_node(
        self, holders: Sequence[str], kept: Sequence[str], own: Mapping[str, int], loads: Mapping[str, int]
    ) -> str | None:
        """Where the next replica of a shard goes: to another zone than those kept, then where fewest are of its database, of all.

        holders: nodes that have a replica of it, even one that is going: none gets a second.
        """
        return min(
            (node for node in self.nodes if node not in holders),
            key=lambda node: (self.crowding([*kept, node]), own.get(node, 0), loads.get(node, 0), node),
            default=None,
        )

    def database_loads(self, record: DatabaseRecord) -> Counter[str]:
        return Counter(r.node for shard in record.shards for r in self.kept(record.id, shard))

    def surplus(
        self, database: str, shard: int, kept: Sequence[ReplicaRecord], loads: Mapping[str, int]
    ) -> ReplicaRecord:
        """Which of too many replicas shall go: the source of a move; else one that does not serve; else one that nobody placed by hand;

        of those the one whose going leaves zones, then nodes, most even.
        """
        for moved in kept:
            source = next((r for r in kept if r.node == moved.replaces), None)
            if source is not None:
                return source

        def cost(replica: ReplicaRecord) -> tuple[bool, bool, int, int, int, str]:
            others = [r.node for r in kept if r is not replica]
            serves = self.serves(database, shard, replica)
            # Of equals the newest goes: what was placed last has served least
            return (
                serves,
                replica.by_hand,
                self.crowding(others),
                -loads.get(replica.node, 0),
                -replica.since,
                replica.node,
            )

        return min(kept, key=cost)
