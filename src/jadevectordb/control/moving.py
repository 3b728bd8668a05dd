"""A replica moved by hand: the map with one more replica, which replaces the one at the node it moves from.

The rest is what the master does with every move: the new replica is loaded, and when it serves the other one retires. What was placed by
hand stays where it is, and the shard's other replicas too, when nodes are evened out; it goes when its node is drained or lost, like any
other. Pure; whoever writes
the result does so by compare-and-set on the map it was made from, so a master's own change in between means looking again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.topology.cluster_map import ClusterMap, NodeRecord, ReplicaRecord, ReplicaState, ShardRecord


def moved(
    cluster_map: ClusterMap,
    nodes: Mapping[str, NodeRecord],
    alive: Collection[str],
    database: str,
    number: int,
    source: str,
    target: str,
) -> ClusterMap:
    """The next version of the map, of the same term. source: "" = the primary, or the only replica.

    Raises NOT_FOUND (no such shard or node), INVALID_ARGUMENT (from a node to itself), ALREADY_EXISTS (the target has a replica of it),
    CONFLICT (nothing to move there, the target can't take it, or the shard is on the move already).
    """
    shard = cluster_map.shard(database, number)
    if shard is None or cluster_map.databases[database].dropped:
        raise JadeError(ErrorCode.NOT_FOUND, f"Shard not found: number {number} of this database.")
    source = source or shard.primary or (shard.replicas[0].node if len(shard.replicas) == 1 else "")
    _check_ends(shard, nodes, alive, source, target)
    moving = next((r for r in shard.replicas if r.replaces or r.state is ReplicaState.RETIRING), None)
    if moving is not None:
        raise _conflict(f"The shard is on the move already ({moving.node} {_of(moving)}): wait until that is over.")
    if len(shard.replicas) > cluster_map.databases[database].replication:
        raise _conflict(
            "The shard has more replicas than it shall have: wait until the master has removed what is too many."
        )
    more = ReplicaRecord(target, since=cluster_map.version + 1, replaces=source, by_hand=True)
    placed = msgspec.structs.replace(shard, replicas=(*shard.replicas, more))
    changed = cluster_map.with_shards(database, [placed])
    return msgspec.structs.replace(changed, version=cluster_map.version + 1)


def _check_ends(
    shard: ShardRecord, nodes: Mapping[str, NodeRecord], alive: Collection[str], source: str, target: str
) -> None:
    for node in (source, target):
        if node and node not in nodes:
            raise JadeError(ErrorCode.NOT_FOUND, f"Node not found: {node!r:.200}. GET /v1/cluster/nodes lists them.")
    holders = ", ".join(replica.node for replica in shard.replicas) or "no node"
    if source == target:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"{target!r} is where it is: name another target_node.")
    if not source:
        raise _conflict(f"None of its replicas ({holders}) serves now: name the one that shall move with source_node.")
    if shard.on(source) is None:
        raise _conflict(f"{source!r} has no replica of this shard ({holders} do): name one of those as source_node.")
    if shard.on(target) is not None:
        raise JadeError(
            ErrorCode.ALREADY_EXISTS,
            f"{target!r} has a replica of this shard already, and a node has at most one ({holders} do).",
        )
    if target not in alive:
        raise _conflict(f"{target!r} is away: start it first, or name another target_node.")
    if nodes[target].draining:
        raise _conflict(f"{target!r} is being drained and takes nothing: name another target_node.")


def _of(replica: ReplicaRecord) -> str:
    return "retires" if replica.state is ReplicaState.RETIRING else f"takes over from {replica.replaces}"


def _conflict(says: str) -> JadeError:
    return JadeError(ErrorCode.CONFLICT, says)
