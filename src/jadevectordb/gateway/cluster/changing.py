"""What people change in a cluster through any of its nodes: a node is drained, kept after all, or forgotten, a replica is moved.

Each change is made by compare-and-set, of a node's record or of the cluster map; the master sees it and does the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import msgspec

from jadevectordb.control.moving import moved
from jadevectordb.gateway.cluster.draining import moves, what_it_waits_for
from jadevectordb.gateway.cluster.facts import ClusterFacts, placed, replicas_on, without_room
from jadevectordb.gateway.cluster.resignation import ask_to_resign
from jadevectordb.gateway.cluster.view import DrainAnswer, MigrationAnswer, shard_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record
from jadevectordb.topology.cluster_map import BEAT_PREFIX, MAP_KEY, NODE_PREFIX, ClusterMap, NodeRecord, ReplicaState

logger = logging.getLogger("jadevectordb.cluster")
_CHANGE_TRIES_MAX = 5
STRATEGIES = ("LIVE_COPY", "SNAPSHOT", "INCREMENTAL")  # what existing programs ask for; a move is all of it


class ClusterChanges:
    """node: this one. facts: what is known now."""

    def __init__(self, node: str, facts: Callable[[], ClusterFacts], store: MetadataStore, clock: Clock) -> None:
        self._clock = clock
        self._node = node
        self._facts = facts
        self._store = store

    def keep(self, node: str) -> NodeRecord:
        """A node joins by being started; what can be done here is to keep one that was to leave."""
        facts = self._facts()
        if node not in facts.nodes:
            raise JadeError(
                ErrorCode.CONFLICT,
                f"A node joins by itself: start it with `jade serve --cluster --node-id {node:.64} --join ...` and the cluster's "
                "secret; it appears in the list when it has.",
            )
        if not facts.nodes[node].draining:
            raise JadeError(ErrorCode.ALREADY_EXISTS, f"The node {node!r:.80} is a part of this cluster already.")
        return self._change_node(node, lambda found: msgspec.structs.replace(found, draining=False))

    def drain(self, node: str) -> DrainAnswer:
        """Begin, or say how far it is; forget the node once nothing is left on it."""
        facts = self._facts()
        record = known(facts, node)
        check_master(facts)
        left = replicas_on(facts, node)
        note = _note(facts, record)
        if record.draining and not left:
            self._forget(facts, node)
            return DrainAnswer(node_id=node, status="removed", shards_to_move=0, note=note)
        if not record.draining:
            _check_room(facts, node)
            record = self._change_node(node, lambda found: msgspec.structs.replace(found, draining=True))
            facts = replace(facts, nodes={**facts.nodes, node: record})
        return DrainAnswer(
            node_id=node, status="draining", shards_to_move=left, moves=moves(facts, node),
            waits_for=what_it_waits_for(facts, node), note=note,
        )  # fmt: skip

    def migrate(self, shard_id: str, source: str, target: str, strategy: str) -> MigrationAnswer:
        """Write the move into the cluster map. Raises what `control.moving.moved` does, UNAVAILABLE."""
        if strategy and strategy not in STRATEGIES:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"strategy must be one of {', '.join(STRATEGIES)} (all are done by a snapshot and the log after it), got {strategy!r:.60}.",
            )
        named = shard_of(shard_id)
        for _ in range(_CHANGE_TRIES_MAX):
            facts = self._facts()
            check_master(facts)
            database = next((one.id for one, _ in placed(facts) if named and facts.known_as(one) == named[0]), None)
            found = self._store.get(MAP_KEY)
            if named is None or database is None or found is None:
                raise JadeError(
                    ErrorCode.NOT_FOUND, f"Shard not found: {shard_id!r:.200}. GET /v1/cluster/shards lists them."
                )
            before = msgspec.json.decode(found.value, type=ClusterMap)
            changed = moved(before, facts.nodes, facts.alive, database, named[1], source, target)
            shard = changed.shard(database, named[1])
            assert shard is not None
            source = shard.replicas[-1].replaces
            why = f"{database}/{named[1]}: moves from {source} to {target}: by hand, asked of {self._node}"
            changed = changed.explained([why], self._clock.now_ms())
            if self._store.compare_and_set(MAP_KEY, msgspec.json.encode(changed), found.revision) is None:
                continue
            logger.info("map %d: %s", changed.version, why)
            return MigrationAnswer(
                migration_id=f"{shard_id}-{changed.version}", shard_id=shard_id, source_node=source,
                target_node=target, strategy=strategy or STRATEGIES[0], phase=ReplicaState.ASSIGNED,
            )  # fmt: skip
        raise JadeError(ErrorCode.UNAVAILABLE, "The cluster map changes all the time just now: try again.")

    def _change_node(self, node: str, change: Callable[[NodeRecord], NodeRecord]) -> NodeRecord:
        key = NODE_PREFIX + node
        for _ in range(_CHANGE_TRIES_MAX):
            found = self._store.get(key)
            if found is None:
                unknown(node)
            changed = change(msgspec.json.decode(found.value, type=NodeRecord))
            if self._store.compare_and_set(key, msgspec.json.encode(changed), found.revision) is not None:
                return changed
        raise JadeError(
            ErrorCode.UNAVAILABLE, f"The record of {node} is changed by somebody else all the time: try again."
        )

    def _forget(self, facts: ClusterFacts, node: str) -> None:
        """A node that is no part of the cluster any more is not its master either."""
        if facts.master == node:
            ask_to_resign(self._store, facts.term, self._node)
        for key in (NODE_PREFIX + node, BEAT_PREFIX + node):
            for _ in range(_CHANGE_TRIES_MAX):
                found: Record | None = self._store.get(key)
                if found is None or self._store.compare_and_set(key, None, found.revision) is not None:
                    break


def _check_room(facts: ClusterFacts, node: str) -> None:
    if not [other for other in facts.alive if other != node and other in facts.nodes]:
        raise JadeError(ErrorCode.CONFLICT, "This is the last node that is alive: it can't be removed.")
    crowded = without_room(facts, node)
    if crowded is not None:
        wanted, staying, database = crowded.replication, crowded.staying, crowded.database
        raise JadeError(
            ErrorCode.CONFLICT,
            f"The replicas of database {database} on {node!r} have no other node to go to: it shall have {wanted} of each shard, and "
            f"{staying} other nodes are up and stay. Add a node first.",
            details={"database": database, "node": node, "replication": wanted, "staying": staying},
        )


def _note(facts: ClusterFacts, record: NodeRecord) -> str:
    keepers = sorted(name for name, one in facts.nodes.items() if one.keeps_log and name != record.id)
    if not record.keeps_log:
        return ""
    return (
        f"{record.id} also keeps the log, with {', '.join(keepers) or 'no other'}: emptied of shards it still does, so let it run. "
        "Without it the log has one copy less; to replace the machine, start a new one of the same name and addresses instead."
    )


def known(facts: ClusterFacts, node: str) -> NodeRecord:
    """Raises NOT_FOUND."""
    record = facts.nodes.get(node)
    if record is None:
        unknown(node)
    return record


def unknown(node: str) -> NoReturn:
    raise JadeError(ErrorCode.NOT_FOUND, f"Node not found: {node!r:.200}. GET /v1/cluster/nodes lists them.")


def check_master(facts: ClusterFacts) -> None:
    """Raises UNAVAILABLE where a change would be acknowledged that nobody carries out."""
    if facts.store_trouble:
        raise JadeError(ErrorCode.UNAVAILABLE, f"No quorum, so nothing can be changed: {facts.store_trouble}")
    if not facts.master:
        raise JadeError(ErrorCode.UNAVAILABLE, "There is no master now that would carry it out: try again in a moment.")
