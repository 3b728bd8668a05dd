"""How far logs may be cut: never beyond what a replica needs that may come back, less what is kept to catch up by."""

from __future__ import annotations

from jadevectordb.control.observe import Observed
from jadevectordb.control.truncation import may_truncate
from jadevectordb.topology.cluster_map import (
    ClusterMap,
    DatabaseRecord,
    Heartbeat,
    NodeRecord,
    ReplicaRecord,
    ReplicaReport,
    ReplicaState,
    ShardRecord,
)

ACTIVE = ReplicaState.ACTIVE


def seen(checkpointed: dict[str, int | None], *, alive: str = "abc", dead_s: float = 10.0) -> Observed:
    """One shard on these nodes; None: nothing reported."""
    shard = ShardRecord(0, tuple(ReplicaRecord(node, ACTIVE) for node in checkpointed))
    return Observed(
        map=ClusterMap(3, 1, {"d": DatabaseRecord("d", 3, (shard,))}),
        nodes={node: NodeRecord(id=node, incarnation="i", peer="") for node in checkpointed},
        alive=frozenset(alive),
        beats={
            node: Heartbeat(node, "i", 1, 3, (ReplicaReport("d", 0, ACTIVE, checkpointed=up_to),))
            for node, up_to in checkpointed.items()
            if up_to is not None
        },
        dead_for_s={node: dead_s for node in checkpointed if node not in alive},
    )


def test_the_replica_that_is_furthest_behind_decides() -> None:
    assert may_truncate(seen({"a": 500, "b": 300, "c": 400}), retained=100) == {"d": {0: 200}}
    assert may_truncate(seen({"a": 500, "b": 100, "c": 400}), retained=100) == {}
    assert may_truncate(seen({"a": 500, "b": 99, "c": 400}), retained=100) == {}


def test_a_replica_that_has_said_nothing_needs_all() -> None:
    assert may_truncate(seen({"a": 500, "b": None, "c": 400}), retained=0) == {}


def test_a_dead_node_counts_until_it_is_given_up_and_another_serves() -> None:
    behind: dict[str, int | None] = {"a": 500, "b": 10, "c": 400}
    assert may_truncate(seen(behind, alive="ac", dead_s=3599), retained=0) == {"d": {0: 10}}
    assert may_truncate(seen(behind, alive="ac", dead_s=3600), retained=0) == {"d": {0: 400}}
    assert may_truncate(seen(behind, alive="", dead_s=1e9), retained=0) == {"d": {0: 10}}


def test_what_something_else_needs_is_held() -> None:
    observed = seen({"a": 500, "b": 300, "c": 400})
    assert may_truncate(observed, retained=100, holds={("d", 0): 250, ("other", 0): 1}) == {"d": {0: 150}}


def test_nothing_is_said_of_shards_without_replicas() -> None:
    dropped = DatabaseRecord("d", 3, (ShardRecord(0),), dropped=True)
    assert may_truncate(Observed(map=ClusterMap(1, 1, {"d": dropped}))) == {}
