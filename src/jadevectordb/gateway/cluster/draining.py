"""How far the emptying of a node is, and what it waits for when it can't go on: said to who drains it, and to who asks how the cluster is.

A replica leaves a draining node once as many others serve as its shard shall have. So a drain goes on as long as each shard has
others that serve or are being loaded, or a node that can take one. Everything else needs a person, and is told in one sentence.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from jadevectordb.gateway.cluster.facts import ClusterFacts, placed, report_of
from jadevectordb.gateway.cluster.view import shard_name
from jadevectordb.topology.cluster_map import DatabaseRecord, ReplicaRecord, ReplicaState, ShardRecord

_TOLD_MAX = 20
_ONLY = "only"  # how the gravest of causes begins


def moves(facts: ClusterFacts, node: str) -> list[str]:
    """What becomes of each replica on the node, the first `_TOLD_MAX` of them."""
    told = [_move(facts, record, shard, node) for record, shard in _left(facts, node)]
    return [*told[:_TOLD_MAX], *([f"and {len(told) - _TOLD_MAX} more"] if len(told) > _TOLD_MAX else [])]


def what_it_waits_for(facts: ClusterFacts, node: str) -> str:
    """Why the drain can't go on by itself, with what to do; "" while it does."""
    found = facts.nodes.get(node)
    if found is None or not found.draining:
        return ""
    causes: dict[str, list[str]] = {}
    for record, shard in _left(facts, node):
        cause = _cause(facts, record, shard, node)
        if cause:
            causes.setdefault(cause, []).append(shard_name(facts.known_as(record), shard.number))
    if not causes:
        return ""
    cause, shards = max(causes.items(), key=lambda one: (one[0].startswith(_ONLY), len(one[1])))
    others = sum(map(len, causes.values())) - 1
    which = f"{shards[0]} and {others} more stay" if others else f"{shards[0]} stays"
    return (
        f"{node} can't be emptied now: {which} there, as {cause}; or take the drain back (`jade cluster keep {node}`)"
    )


def stuck(facts: ClusterFacts) -> list[str]:
    """The sentence of every drain that can't go on."""
    return [told for node in sorted(facts.nodes) if (told := what_it_waits_for(facts, node))]


def _left(facts: ClusterFacts, node: str) -> Iterator[tuple[DatabaseRecord, ShardRecord]]:
    return ((record, shard) for record, shard in placed(facts) if shard.on(node) is not None)


def _others(facts: ClusterFacts, shard: ShardRecord, node: str) -> list[ReplicaRecord]:
    """Replicas on nodes that stay."""
    return [
        replica
        for replica in shard.replicas
        if replica.node != node
        and replica.state is not ReplicaState.RETIRING
        and replica.node in facts.nodes
        and not facts.nodes[replica.node].draining
    ]


def _serves(facts: ClusterFacts, record: DatabaseRecord, shard: ShardRecord, replica: ReplicaRecord) -> bool:
    report = report_of(facts, replica.node, record.id, shard.number)
    said = report is not None and report.state is ReplicaState.ACTIVE
    return said and replica.state is ReplicaState.ACTIVE and replica.node in facts.alive


def _move(facts: ClusterFacts, record: DatabaseRecord, shard: ShardRecord, node: str) -> str:
    name, replica = shard_name(facts.known_as(record), shard.number), shard.on(node)
    others = _others(facts, shard, node)
    coming = [one for one in others if one.node in facts.alive and not _serves(facts, record, shard, one)]
    if replica is not None and replica.state is ReplicaState.RETIRING:
        return f"{name}: others serve, {node} lets go of it"
    if not coming:
        serving = sum(_serves(facts, record, shard, one) for one in others)
        return f"{name}: {serving} of {record.replication} serve elsewhere"
    report = report_of(facts, coming[0].node, record.id, shard.number)
    if report is None:
        return f"{name}: to {coming[0].node}, not begun"
    ends = (report_of(facts, one.node, record.id, shard.number) for one in shard.replicas)
    behind = max(one.watermark for one in ends if one is not None) - report.watermark
    return f"{name}: to {coming[0].node}, {report.state.value.replace('_', ' ')}, {behind} entries behind"


def _cause(facts: ClusterFacts, record: DatabaseRecord, shard: ShardRecord, node: str) -> str:
    others = _others(facts, shard, node)
    serving = [one for one in others if _serves(facts, record, shard, one)]
    coming = [one for one in others if one.node in facts.alive and one not in serving]
    away = [one.node for one in others if one.node not in facts.alive]
    if len(serving) >= record.replication:
        return ""
    if node not in facts.alive and not serving:
        return f"{_ONLY} {node} has its data and is away: start it"
    for replica in coming:
        report = report_of(facts, replica.node, record.id, shard.number)
        if report is not None and report.reason:
            return f"its replica on {replica.node} does not get ready ({report.reason.rstrip('.')}): mend that"
    if len(serving) + len(coming) >= record.replication:
        return ""
    if away and len(others) >= record.replication:
        return f"{', '.join(away)}, which is to serve it then, is away: start it"
    staying = sorted(one for one in facts.alive if one in facts.nodes and not facts.nodes[one].draining)
    if len(set(staying) - {node}) >= record.replication:
        return ""  # one is about to be placed, or lets go first of what it had
    lost = sorted(set(facts.nodes) - facts.alive - {node})
    return (
        f"it shall have {record.replication} replicas and only {len(staying)} other nodes are up and stay"
        f"{' (' + ', '.join(lost) + ' away)' if lost else ''}: start or add a node"
    )
