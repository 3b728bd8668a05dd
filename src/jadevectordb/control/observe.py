"""An immutable picture of the cluster at one moment: what the map wants, what nodes say, and who is alive. All decisions are made on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jadevectordb.topology.cluster_map import (
    ClusterMap,
    Heartbeat,
    NodeRecord,
    ReplicaRecord,
    ReplicaReport,
    ReplicaState,
)
from jadevectordb.topology.placed import PlacedDatabase


@dataclass(frozen=True)
class Observed:
    """nodes, beats, dead_for_s by node; placed by database id. dead_for_s: of nodes not alive, since they were last heard of."""

    map: ClusterMap = ClusterMap()
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    alive: frozenset[str] = frozenset()
    beats: Mapping[str, Heartbeat] = field(default_factory=dict)
    placed: Mapping[str, PlacedDatabase] = field(default_factory=dict)
    dead_for_s: Mapping[str, float] = field(default_factory=dict)
    map_revision: int = 0  # of the record that `map` was read from: what its next change expects; 0 = there is none
    changes: int = 0  # grows whenever nodes, placed, or what a heartbeat says beside its figures has changed

    def is_up(self, node: str) -> bool:
        """Alive, and known by its own record."""
        return node in self.alive and node in self.nodes

    def takes_replicas(self, node: str) -> bool:
        return self.is_up(node) and not self.nodes[node].draining

    def dead_s(self, node: str) -> float:
        """0 while it is alive; a node that nobody has heard of, or whose record was removed, is dead for ever."""
        if node not in self.nodes:
            return float("inf")
        return 0.0 if node in self.alive else self.dead_for_s.get(node, float("inf"))

    def reports(self) -> dict[tuple[str, str, int], ReplicaReport]:
        """The newest report of every replica by (node, database, shard), of dead nodes too."""
        return {
            (node, report.database, report.shard): report
            for node, beat in self.beats.items()
            for report in beat.replicas
        }

    def counts(self, replica: ReplicaRecord) -> bool:
        """Whether what the node says now is about this replica: the node that runs says it, and has acted upon its placement."""
        beat, node = self.beats.get(replica.node), self.nodes.get(replica.node)
        return (
            beat is not None
            and node is not None
            and beat.incarnation == node.incarnation
            and beat.map_version >= replica.since
        )

    def reported(
        self, reports: Mapping[tuple[str, str, int], ReplicaReport], database: str, shard: int, replica: ReplicaRecord
    ) -> ReplicaState | None:
        """The state of a replica as its living node says; None when nothing can be said.

        A node tells of every replica that the map it has acted upon places on it: of one that it leaves out it has nothing.
        """
        if not self.is_up(replica.node) or not self.counts(replica):
            return None
        report = reports.get((replica.node, database, shard))
        if report is None:
            return ReplicaState.GONE if replica.state is ReplicaState.RETIRING else ReplicaState.ASSIGNED
        return report.state
