"""Placement, rule by rule, on small clusters: what changes, and the reason that people are told."""

from __future__ import annotations

import msgspec
import pytest
from tests.placement_world import Cluster, S

from jadevectordb.control.placement import apply_changes
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.topology.cluster_map import ClusterMap, ReplicaState


def cluster_of(*nodes: str, zones: str = "", shards: int = 4, replication: int = 3) -> Cluster:
    """A settled cluster with one database."""
    cluster = Cluster()
    for at, node in enumerate(nodes):
        cluster.start(node, zones[at] if zones else "")
    cluster.create("d", shards, replication)
    cluster.settle()
    cluster.reasons.clear()
    return cluster


def states(cluster: Cluster, shard: int = 0) -> dict[str, ReplicaState]:
    return {r.node: r.state for r in cluster.map.databases["d"].shards[shard].replicas}


def primaries(cluster: Cluster) -> list[str]:
    return [shard.primary for shard in cluster.map.databases["d"].shards]


def test_a_new_database_is_spread_and_so_are_its_primaries() -> None:
    cluster = cluster_of("n1", "n2", "n3", "n4", shards=4, replication=2)
    held = [node for shard in cluster.map.databases["d"].shards for node in (r.node for r in shard.replicas)]
    assert sorted(held) == ["n1", "n1", "n2", "n2", "n3", "n3", "n4", "n4"]
    assert sorted(primaries(cluster)) == ["n1", "n2", "n3", "n4"]


def test_replicas_lie_in_different_zones_where_there_are_enough() -> None:
    cluster = cluster_of("a1", "a2", "b1", "c1", zones="aabc", shards=6, replication=3)
    for shard in cluster.map.databases["d"].shards:
        assert {r.node[0] for r in shard.replicas} == {"a", "b", "c"}


def test_a_zone_that_comes_later_gets_replicas() -> None:
    cluster = cluster_of("a1", "a2", "b1", zones="aab", shards=3, replication=3)
    cluster.start("c1", "c")
    cluster.settle()
    for shard in cluster.map.databases["d"].shards:
        assert {r.node[0] for r in shard.replicas} == {"a", "b", "c"}
    assert "d/0: moves from a1 to c1: zones" in cluster.reasons


def test_without_enough_nodes_there_are_fewer_replicas_until_they_come() -> None:
    cluster = cluster_of("n1")
    assert states(cluster) == {"n1": S.ACTIVE}
    cluster.start("n2")
    cluster.start("n3")
    cluster.decide()
    assert "d/0: n2 gets a replica: 1 of 3 are kept" in cluster.reasons
    cluster.settle()
    assert states(cluster) == {"n1": S.ACTIVE, "n2": S.ACTIVE, "n3": S.ACTIVE}


def test_a_dead_node_loses_its_primaries_at_once_and_keeps_its_replicas_for_a_while() -> None:
    cluster = cluster_of("n1", "n2", "n3", "n4", replication=2)
    before = cluster.map
    cluster.kill("n1", dead_s=3.5)
    cluster.decide()
    assert "n1" not in primaries(cluster) and any("n1 serves no more" in reason for reason in cluster.reasons)
    assert [s.replicas for s in cluster.map.databases["d"].shards] == [s.replicas for s in before.databases["d"].shards]
    cluster.kill("n1", dead_s=60.0)
    cluster.settle()
    assert not any(shard.on("n1") for shard in cluster.map.databases["d"].shards)
    assert any("n1 has no replica any more: it has been away for too long" in reason for reason in cluster.reasons)


def test_where_there_is_no_other_node_a_dead_one_keeps_its_place() -> None:
    cluster = cluster_of("n1", "n2", "n3")
    cluster.kill("n1", dead_s=1e6)
    cluster.settle()
    assert states(cluster) == {"n1": S.ACTIVE, "n2": S.ACTIVE, "n3": S.ACTIVE}
    cluster.start("n1")
    cluster.settle()
    assert states(cluster) == {"n1": S.ACTIVE, "n2": S.ACTIVE, "n3": S.ACTIVE} and "n1" in primaries(cluster)


def test_a_draining_node_is_emptied_once_others_serve_and_not_before() -> None:
    cluster = cluster_of("n1", "n2", "n3", "n4", replication=3)
    cluster.drain("n1")
    cluster.decide()
    assert all(shard.on("n1") is None or len(shard.replicas) == 4 for shard in cluster.map.databases["d"].shards)
    assert "n1" not in primaries(cluster)
    cluster.settle()
    assert not any(shard.on("n1") for shard in cluster.map.databases["d"].shards)
    assert any("the replica on n1 retires: it is draining" in reason for reason in cluster.reasons)


def test_a_drain_that_would_leave_too_few_waits() -> None:
    cluster = cluster_of("n1", "n2", "n3")
    cluster.drain("n1")
    cluster.settle()
    assert states(cluster) == {"n1": S.ACTIVE, "n2": S.ACTIVE, "n3": S.ACTIVE}


def test_a_node_that_joins_is_given_replicas_one_after_the_other() -> None:
    cluster = cluster_of("n1", "n2", shards=6, replication=1)
    cluster.start("n3")
    for _ in range(60):
        under_way = [s for s in cluster.map.databases["d"].shards if len(s.replicas) > 1]
        assert len(under_way) <= 1
        for node in ("n1", "n2", "n3"):
            cluster.act(node)
        cluster.decide()
    cluster.check_settled()
    assert sorted(primaries(cluster)) == ["n1", "n1", "n2", "n2", "n3", "n3"]


def test_a_failed_replica_is_made_again_elsewhere() -> None:
    cluster = cluster_of("n1", "n2", "n3", "n4", shards=1, replication=2)
    (first, second) = states(cluster)
    cluster.fail(first, ("d", 0))
    cluster.decide()
    now = states(cluster)
    assert now[first] is S.ASSIGNED and now[second] is S.ACTIVE and len(now) == 3
    assert cluster.map.databases["d"].shards[0].primary == second
    cluster.settle()
    assert first not in states(cluster) and len(states(cluster)) == 2


def test_the_last_replica_stays_active_while_its_node_works_on_it() -> None:
    cluster = cluster_of("n1", shards=1)
    cluster.start("n1")  # again
    for _ in range(2):
        cluster.act("n1")
        assert cluster.agents["n1"].has[("d", 0)] in (S.CATCHING_UP, S.ACTIVE)
        cluster.decide()
        assert states(cluster) == {"n1": S.ACTIVE} and primaries(cluster) == ["n1"]


def test_a_node_that_restarts_answers_no_questions_until_it_has_caught_up() -> None:
    cluster = cluster_of("n1", "n2", "n3", shards=1)
    cluster.start("n2")
    cluster.act("n2")
    cluster.decide()
    assert states(cluster)["n2"] is S.ASSIGNED and "n2" not in primaries(cluster)
    cluster.settle()
    assert states(cluster)["n2"] is S.ACTIVE


def test_what_was_said_before_a_replica_was_placed_is_not_about_it() -> None:
    cluster = cluster_of("n1", "n2", shards=1, replication=1)
    (holder,) = states(cluster)
    other = "n2" if holder == "n1" else "n1"
    cluster.drain(holder)
    cluster.agents[other].has[("d", 0)] = S.ACTIVE  # left from long ago, and still told
    cluster.speak(other, acted=True)
    cluster.decide()
    assert states(cluster)[other] is S.ASSIGNED
    assert cluster.decide() == [], "not believed until it has acted upon the version that placed it"


def test_a_retiring_replica_is_called_back_when_no_other_answers() -> None:
    cluster = cluster_of("n1", "n2", shards=1, replication=1)
    (holder,) = states(cluster)
    other = "n2" if holder == "n1" else "n1"
    cluster.drain(holder)
    for _ in range(6):
        if states(cluster)[holder] is S.RETIRING:
            break
        cluster.act(other)
        cluster.decide()
    cluster.kill(other, dead_s=4.0)
    cluster.decide()
    assert states(cluster)[holder] is S.ACTIVE and primaries(cluster) == [holder]


def test_what_is_moved_by_hand_stays_where_it_was_put() -> None:
    cluster = cluster_of("n1", "n2", "n3", shards=4, replication=1)
    (first,) = (shard for shard in cluster.map.databases["d"].shards if shard.number == 0)
    source = first.primary
    for shard in cluster.map.databases["d"].shards:  # all to one node, as uneven as can be
        if shard.primary != "n3":
            cluster.move("d", shard.number, "", "n3")
            cluster.settle()
    cluster.settle()
    by_hand = [shard.number for shard in cluster.map.databases["d"].shards if shard.replicas[0].by_hand]
    assert by_hand and all(primaries(cluster)[number] == "n3" for number in by_hand)
    assert f"d/0: the replica on {source} retires: it is one more than 1" in cluster.reasons
    cluster.drain("n3")
    cluster.settle()
    assert "n3" not in primaries(cluster)
    cluster.drain("n3", draining=False)
    cluster.settle()
    cluster.check_settled()


def test_a_move_by_hand_to_a_node_that_dies_is_given_up() -> None:
    cluster = cluster_of("n1", "n2", shards=1, replication=1)
    (holder,) = states(cluster)
    other = "n2" if holder == "n1" else "n1"
    cluster.move("d", 0, holder, other)
    cluster.act(other)
    cluster.kill(other, dead_s=61.0)
    cluster.settle()
    assert states(cluster) == {holder: S.ACTIVE} and primaries(cluster) == [holder]


def test_a_move_that_makes_no_sense_is_refused() -> None:
    cluster = cluster_of("n1", "n2", "n3", "n4", shards=1, replication=2)
    here, there = sorted(states(cluster))
    free, other = sorted({"n1", "n2", "n3", "n4"} - {here, there})

    def refused(code: ErrorCode, source: str, target: str, database: str = "d", shard: int = 0) -> str:
        before = cluster.map
        with pytest.raises(JadeError) as caught:
            cluster.move(database, shard, source, target)
        assert caught.value.code is code and cluster.map is before
        return caught.value.message

    refused(ErrorCode.NOT_FOUND, "", free, shard=7)
    refused(ErrorCode.NOT_FOUND, "", free, database="x")
    refused(ErrorCode.NOT_FOUND, "", "n9")
    refused(ErrorCode.NOT_FOUND, "n9", free)
    refused(ErrorCode.INVALID_ARGUMENT, here, here)
    assert "has a replica of this shard already" in refused(ErrorCode.ALREADY_EXISTS, here, there)
    assert f"{here}, {there} do" in refused(ErrorCode.CONFLICT, free, other)
    cluster.drain(free)
    assert "is being drained" in refused(ErrorCode.CONFLICT, here, free)
    cluster.drain(free, draining=False)
    cluster.kill(free)
    assert "is away" in refused(ErrorCode.CONFLICT, here, free)
    cluster.start(free)
    cluster.move("d", 0, here, free)
    assert f"{free} takes over from {here}" in refused(ErrorCode.CONFLICT, there, other)
    cluster.settle()
    assert set(states(cluster)) == {free, there}


@pytest.mark.parametrize("replication", [1, 2, 4])
def test_the_number_of_replicas_can_be_altered(replication: int) -> None:
    cluster = cluster_of("n1", "n2", "n3", "n4", "n5")
    cluster.create("d", 4, replication)
    cluster.settle()
    cluster.check_settled()
    assert {len(shard.replicas) for shard in cluster.map.databases["d"].shards} == {replication}


def test_each_version_has_a_term_that_never_goes_back() -> None:
    cluster_map = apply_changes(ClusterMap(), [], 3)
    assert (cluster_map.version, cluster_map.term) == (1, 3)
    assert apply_changes(cluster_map, [], 4).version == 2
    with pytest.raises(AssertionError):
        apply_changes(cluster_map, [], 2)


def test_a_map_of_an_earlier_version_can_be_read() -> None:
    written = (
        b'{"version":7,"term":2,"databases":{"d":{"id":"d","replication":1,'
        b'"shards":[{"number":0,"replicas":[{"node":"n1","state":"active"}],"primary":"n1"}]}}}'
    )
    shard = msgspec.json.decode(written, type=ClusterMap).shard("d", 0)
    assert shard is not None and shard.readable == ("n1",) and shard.replicas[0].since == 0
