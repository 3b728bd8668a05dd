"""How far logs may be cut: never beyond what a replica needs that may come back, less what is kept to catch up by."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jadevectordb.control.observe import Observed
from jadevectordb.control.truncation import may_truncate
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.schema import Schema
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
from jadevectordb.topology.placed import PlacedDatabase, Sharding

ACTIVE = ReplicaState.ACTIVE


def placed(name: str, shards: int, sharding: Sharding) -> PlacedDatabase:
    config = DatabaseConfig(
        name=name, folder=name, dimension=2, metric=Metric.COSINE, shards=shards, index=IndexKind.FLAT, schema=Schema()
    )
    return PlacedDatabase(id=name, name=name, config=config, replication=3, sharding=sharding)


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
        placed={"d": placed("d", 1, Sharding())},
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


def shared(checkpointed: list[int | None], strategy: Literal["hash", "vector"]) -> Observed:
    """A shard for each number, with one replica."""
    shards = tuple(ShardRecord(at, (ReplicaRecord("a", ACTIVE),)) for at in range(len(checkpointed)))
    reports = tuple(
        ReplicaReport("d", at, ACTIVE, checkpointed=up_to) for at, up_to in enumerate(checkpointed) if up_to is not None
    )
    return Observed(
        map=ClusterMap(3, 1, {"d": DatabaseRecord("d", 1, shards)}),
        nodes={"a": NodeRecord(id="a", incarnation="i", peer="")},
        alive=frozenset("a"),
        beats={"a": Heartbeat("a", "i", 1, 3, reports)},
        placed={"d": placed("d", len(checkpointed), Sharding(strategy))},
    )


def test_a_log_that_feeds_several_shards_goes_as_far_as_all_allow() -> None:
    assert may_truncate(shared([500, 300, 400], "hash"), retained=100) == {"d": {0: 400, 1: 200, 2: 300}}
    assert may_truncate(shared([500, 300, 400], "vector"), retained=100) == {"d": {0: 200}}
    assert may_truncate(shared([500, None, 400], "vector"), retained=100) == {}
    assert may_truncate(shared([500, 90, 400], "vector"), retained=100) == {}


def test_a_database_whose_record_is_not_known_keeps_its_logs() -> None:
    assert may_truncate(replace(shared([500, 300], "vector"), placed={}), retained=100) == {}
