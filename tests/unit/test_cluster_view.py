"""What a cluster says of itself, from facts made by hand and a real metadata store: health, shards, drains, failovers, refusals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.clustered_view import ClusteredView
from jadevectordb.gateway.cluster.facts import ClusterFacts, overall, reasons
from jadevectordb.gateway.cluster.resignation import RESIGN_KEY, Resignations, ask_to_resign
from jadevectordb.gateway.service.performance import Performance
from jadevectordb.gateway.service.system_usage import SystemUsage
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import MAP_CHANGES_KEPT_MAX, MAP_REASON_LENGTH_MAX
from jadevectordb.topology.cluster_map import (
    MAP_KEY,
    NODE_PREFIX,
    ClusterMap,
    DatabaseRecord,
    Heartbeat,
    NodeRecord,
    ReplicaRecord,
    ReplicaReport,
    ReplicaState,
    ShardRecord,
)

ACTIVE, ASSIGNED, RETIRING = ReplicaState.ACTIVE, ReplicaState.ASSIGNED, ReplicaState.RETIRING
PERFORMANCE = Performance(0, 60.0, 0, 0, 0.0, None, None, None, None, 0, SystemUsage(*[None] * 7), {})


def node(name: str, **changes: Any) -> NodeRecord:
    number = int(name[1:])
    record = NodeRecord(
        id=name,
        incarnation="i",
        peer=f"127.0.0.1:{9000 + number}",
        rest=f"http://127.0.0.1:{8000 + number}",
        version="1",
    )
    return msgspec.structs.replace(record, **changes)


def shard(number: int, *replicas: tuple[str, ReplicaState]) -> ShardRecord:
    records = tuple(ReplicaRecord(name, state) for name, state in replicas)
    return ShardRecord(number, records, next((name for name, state in replicas if state is ACTIVE), ""))


def beat(name: str, *reports: ReplicaReport, **changes: Any) -> Heartbeat:
    figures = {"cpu_percent": 10.0 * int(name[1:]), "queries_per_second": 5.0, "latency_p99_ms": float(name[1:])}
    return msgspec.structs.replace(Heartbeat(name, "i", 7, 3, reports, figures=figures), **changes)


def report(number: int, watermark: int = 100, state: ReplicaState = ACTIVE, **more: Any) -> ReplicaReport:
    return ReplicaReport("db", number, state, watermark, watermark, rows=10, bytes=1000, **more)


def facts(**changes: Any) -> ClusterFacts:
    """Three nodes, one database of two shards with three replicas each, everything well."""
    names = ("n1", "n2", "n3")
    everywhere = [(name, ACTIVE) for name in names]
    values: dict[str, Any] = {
        "cluster_id": "c",
        "map": ClusterMap(3, 5, {"db": DatabaseRecord("db", 3, (shard(0, *everywhere), shard(1, *everywhere)))}),
        "nodes": {name: node(name) for name in names},
        "beats": {name: beat(name, report(0), report(1)) for name in names},
        "alive": frozenset(names),
        "beat_age_s": dict.fromkeys(names, 0.5),
        "master": "n2",
        "term": 5,
    }
    return ClusterFacts(**{**values, **changes})


class World:
    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "store.sqlite")
        self.facts = facts()
        self.view = ClusteredView("n2", lambda: self.facts, self.store, SystemClock(), lambda: PERFORMANCE)
        for name, record in self.facts.nodes.items():
            self.store.compare_and_set(NODE_PREFIX + name, msgspec.json.encode(record), 0)

    def stored(self, name: str) -> NodeRecord | None:
        found = self.store.get(NODE_PREFIX + name)
        return None if found is None else msgspec.json.decode(found.value, type=NodeRecord)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.view.close()
    made.store.close()


def refused(code: ErrorCode, action: Any) -> str:
    with pytest.raises(JadeError) as caught:
        action()
    assert caught.value.code is code
    return caught.value.message


def test_a_cluster_that_is_well_says_so(world: World) -> None:
    status = world.view.status()
    assert (status.status, status.master_node, status.term, status.reasons) == ("HEALTHY", "n2", 5, [])
    assert (status.total_nodes, status.active_nodes, status.healthy_nodes) == (3, 3, 3)
    assert (status.total_shards, status.replication_factor) == (2, 3)
    assert [one.role for one in status.nodes] == ["worker", "master", "worker"]
    assert status.nodes[0].address == "127.0.0.1:8001" and status.nodes[0].cpu == "10%"
    assert status.nodes[0].memory == "unknown" and status.nodes[0].shards == 2
    assert list(msgspec.to_builtins(status.nodes[0]))[-4:] == ["id", "nodeId", "host", "port"]


def test_a_dead_node_degrades_the_shards_it_holds(world: World) -> None:
    world.facts = facts(alive=frozenset({"n1", "n2"}), beat_age_s={"n3": 42.0})
    assert world.view.status().status == "DEGRADED"
    gone = world.view.nodes()[2]
    assert (gone.status, gone.health, gone.cpu) == ("inactive", "UNHEALTHY", "unknown")
    assert world.view.node_health("n3").checks["heartbeat"] == "not heard of for 42 s"
    first = world.view.shards({"db"})[0]
    assert (first.status, first.replicas, first.replica_nodes) == ("DEGRADED", 2, "n1,n2,n3")
    told = reasons(world.facts, {"db"})
    assert "shard db-0: DEGRADED, 2 of 3 serve" in told and "node n3: not heard of for 42 s" in told


def test_the_node_whose_clock_is_off_is_told_and_not_the_others(world: World) -> None:
    world.facts = facts(clock_ms={"n1": 20, "n2": -300, "n3": 3_600_000})
    assert world.view.status().status == "DEGRADED"
    assert "+3600 s" in world.view.node_health("n3").checks["clock"]
    assert [world.view.node_health(name).checks["clock"] for name in ("n1", "n2")] == ["ok", "ok"]
    # Seen by the one that is wrong it is the same one; with one that is away the two left can't tell who is right
    world.facts = facts(clock_ms={"n1": -3_600_000, "n2": -3_600_200, "n3": 0})
    assert [line for line in reasons(world.facts) if "clock" in line and not line.startswith("node n3: ")] == []
    world.facts = facts(clock_ms={"n1": 0, "n3": 3_600_000}, alive=frozenset({"n1", "n3"}))
    assert {name: world.view.node_health(name).checks["clock"][:30] for name in ("n1", "n3")} == {
        "n1": "its clock differs from the oth", "n3": "its clock differs from the oth"
    }  # fmt: skip
    world.facts = facts(clock_ms={"n1": 3000, "n2": 0, "n3": -4000})  # beats are not all equally old
    assert world.view.status().status == "HEALTHY"


def test_notes_tell_what_keeps_nothing_from_working(world: World) -> None:
    assert world.view.diagnostics({"db"}).notes == []
    nodes = {**world.facts.nodes, "n3": node("n3", version="0.9")}
    beats = {**world.facts.beats, "n2": beat("n2", report(0, repaired="A file was damaged."), report(1))}
    world.facts = facts(nodes=nodes, beats=beats)
    told = world.view.diagnostics({"db"})
    assert told.status == "HEALTHY" and told.errors == []
    versions, repaired = told.notes
    assert "n1 1, n2 1, n3 0.9" in versions
    assert repaired.startswith("node n2: db-0 was damaged") and "A file was damaged." in repaired
    assert len(world.view.diagnostics(()).notes) == 1
    world.facts = facts(nodes=nodes, alive=frozenset({"n1", "n2"}))
    assert world.view.diagnostics({"db"}).notes == []  # one that is away runs no version


def test_a_shard_that_nobody_serves_is_unavailable(world: World) -> None:
    world.facts = facts(alive=frozenset())
    assert {one.status for one in world.view.shards({"db"})} == {"UNAVAILABLE"}
    assert overall(world.facts) == "UNHEALTHY"


def test_without_a_master_or_quorum_it_is_unhealthy_and_nothing_changes(world: World) -> None:
    world.facts = facts(master="")
    assert world.view.status().master_node == "none" and world.view.status().status == "UNHEALTHY"
    assert "no master" in refused(ErrorCode.UNAVAILABLE, lambda: world.view.drain("n1"))
    world.facts = facts(store_trouble="two of three servers are away")
    assert "last known" in world.view.status().reasons[0]
    assert "No quorum" in refused(ErrorCode.UNAVAILABLE, world.view.failover)


def test_who_asks_sees_shards_of_databases_he_may_see(world: World) -> None:
    world.facts = facts(alive=frozenset({"n1", "n2"}))
    assert world.view.shards(()) == [] and world.view.node("n1", ()).replicas == []
    refused(ErrorCode.NOT_FOUND, lambda: world.view.shard("db-0", ()))
    told = world.view.diagnostics(())
    assert told.shards == [] and not any("db-" in text for text in told.errors)
    assert "2 shards: DEGRADED" in told.errors


def test_databases_are_named_as_the_catalog_knows_them(world: World) -> None:
    world.facts = facts(database_ids={"db": "db_1"}, alive=frozenset({"n1", "n2"}))
    assert world.view.shards({"db"}) == []
    assert [one.shard_id for one in world.view.shards({"db_1"})] == ["db_1-0", "db_1-1"]
    assert world.view.shard("db_1-1", {"db_1"}).database_id == "db_1"
    assert any("db_1-0" in reason for reason in reasons(world.facts, {"db_1"}))


def test_a_move_is_shown_with_both_ends(world: World) -> None:
    moving = shard(0, ("n1", ACTIVE), ("n2", ACTIVE), ("n3", RETIRING), ("n4", ASSIGNED))
    beats = {name: beat(name, report(0)) for name in ("n1", "n2", "n3")}
    beats["n4"] = beat("n4", report(0, 40, ReplicaState.LOADING))
    names = frozenset(beats)
    world.facts = facts(
        map=ClusterMap(4, 5, {"db": DatabaseRecord("db", 2, (moving,))}),
        nodes={name: node(name) for name in names},
        beats=beats,
        alive=names,
    )
    detail = world.view.shard("db-0", {"db"})
    assert detail.status == "MIGRATING" and detail.replicas == 3
    assert detail.migration is not None
    assert (detail.migration["phase"], detail.migration["source_node"], detail.migration["target_node"]) == (
        "loading",
        "n3",
        "n4",
    )
    assert detail.migration["behind"] == 60
    for wrong in ("db-1", "db", "db-x", "other-0", "-1", "db-99999999"):
        refused(ErrorCode.NOT_FOUND, lambda wrong=wrong: world.view.shard(wrong, {"db"}))


def test_a_failed_replica_and_troubles_are_told(world: World) -> None:
    beats = {**facts().beats, "n1": beat("n1", report(0, 0, ReplicaState.FAILED, reason="disk full"), report(1))}
    beats["n3"] = beat("n3", report(0), report(1), troubles=("the clock is an hour off",))
    world.facts = facts(beats=beats)
    health = world.view.node_health("n1")
    assert health.status == "DEGRADED" and health.checks["replicas"] == "db-0 failed: disk full"
    assert health.applied_lag == 100
    assert world.view.node("n3", {"db"}).troubles == ["node: the clock is an hour off"]
    assert world.view.diagnostics({"db"}).replication["lagging_replicas"] == 1


def test_figures_are_summed_only_when_every_live_node_told_them(world: World) -> None:
    metrics = world.view.metrics()
    assert metrics.queries_per_second == 15.0 and metrics.cpu_usage == 20.0 and metrics.total_vectors == 20
    assert metrics.query_latency_ms == {"p50": None, "p95": None, "p99": 3.0}
    assert metrics.writes_per_second is None and metrics.memory_usage is None
    world.facts = facts(beats={**facts().beats, "n3": beat("n3", figures={})})
    assert world.view.metrics().queries_per_second is None


def test_every_node_tells_what_was_changed_lately(world: World) -> None:
    known = world.facts.map
    for version in range(4, 4 + MAP_CHANGES_KEPT_MAX):
        known = msgspec.structs.replace(known, version=version).explained([f"reason {version}", "x" * 1000], 1000)
    for master in ("n1", "n2"):
        world.facts = facts(master=master, map=known)
        told = world.view.diagnostics(()).changes
        assert len(told) == MAP_CHANGES_KEPT_MAX and told[0].reason == "x" * MAP_REASON_LENGTH_MAX
        assert (told[1].reason, told[1].term, told[1].map_version) == (f"reason {known.version}", 5, known.version)


def test_clients_learn_the_nodes(world: World) -> None:
    world.facts = facts(alive=frozenset({"n1", "n2"}))
    learnt = world.view.client_map()
    assert learnt.is_cluster and learnt.version == 3
    assert [(one.rest, one.alive) for one in learnt.nodes] == [
        ("http://127.0.0.1:8001", True),
        ("http://127.0.0.1:8002", True),
        ("http://127.0.0.1:8003", False),
    ]


def test_a_node_is_drained_then_forgotten_and_may_be_kept_instead(world: World) -> None:
    four = {**facts().nodes, "n4": node("n4")}
    world.facts = facts(nodes=four, alive=frozenset(four))
    drained = world.view.drain("n1")
    assert (drained.status, drained.shards_to_move) == ("draining", 2)
    stored = world.stored("n1")
    assert stored is not None and stored.draining
    draining = facts(nodes={**four, "n1": node("n1", draining=True)}, alive=frozenset(four))
    world.facts = draining
    assert world.view.nodes()[0].status == "draining"
    world.view.add_node("n1", "127.0.0.1:1")
    stored = world.stored("n1")
    assert stored is not None and not stored.draining
    elsewhere = [(name, ACTIVE) for name in ("n2", "n3", "n4")]
    empty = ClusterMap(4, 5, {"db": DatabaseRecord("db", 3, (shard(0, *elsewhere), shard(1, *elsewhere)))})
    world.facts = facts(nodes=draining.nodes, alive=draining.alive, map=empty)
    assert world.view.drain("n1").status == "removed" and world.stored("n1") is None


def test_a_drain_that_could_not_be_carried_out_is_refused(world: World) -> None:
    assert "no other node to go to" in refused(ErrorCode.CONFLICT, lambda: world.view.drain("n1"))
    stored = world.stored("n1")
    assert stored is not None and not stored.draining
    world.facts = facts(alive=frozenset({"n1"}))
    assert "last node" in refused(ErrorCode.CONFLICT, lambda: world.view.drain("n1"))
    refused(ErrorCode.NOT_FOUND, lambda: world.view.drain("n9"))


def leaving(*shards: ShardRecord, replication: int = 3, **changes: Any) -> ClusterFacts:
    """n4 is draining; n1 to n4 have told of their replicas of one database."""
    names = ("n1", "n2", "n3", "n4")
    values: dict[str, Any] = {
        "map": ClusterMap(3, 5, {"db": DatabaseRecord("db", replication, shards)}),
        "nodes": {name: node(name, draining=name == "n4") for name in names},
        "beats": {name: beat(name, report(0)) for name in names},
        "alive": frozenset(names),
    }
    return facts(**{**values, **changes})


def test_a_drain_tells_how_far_it_is(world: World) -> None:
    world.facts = leaving(shard(0, ("n1", ACTIVE), ("n2", ACTIVE), ("n4", ACTIVE)))
    told = world.view.drain("n4")
    assert (told.moves, told.waits_for) == (["db-0: 2 of 3 serve elsewhere"], "")  # the master is about to place it
    beats = {**world.facts.beats, "n3": beat("n3", report(0, 40, ReplicaState.CATCHING_UP))}
    moving = shard(0, ("n1", ACTIVE), ("n2", ACTIVE), ("n4", ACTIVE), ("n3", ASSIGNED))
    world.facts = leaving(moving, beats=beats)
    told = world.view.drain("n4")
    assert (told.moves, told.waits_for) == (["db-0: to n3, catching up, 60 entries behind"], "")
    world.facts = leaving(shard(0, ("n1", ACTIVE), ("n2", ACTIVE), ("n4", RETIRING), ("n3", ACTIVE)))
    assert world.view.drain("n4").moves == ["db-0: others serve, n4 lets go of it"]
    assert world.view.status().status == "HEALTHY"


@pytest.mark.parametrize(
    ("replicas", "changes", "says"),
    [
        (["n1", "n2", "n4"], {"alive": frozenset({"n1", "n2", "n4"})}, "only 2 other nodes are up and stay (n3 away)"),
        (["n1", "n2", "n3", "n4"], {"alive": frozenset({"n1", "n2", "n4"})}, "n3, which is to serve it then, is away"),
        (["n4"], {"alive": frozenset({"n1", "n2", "n3"})}, "only n4 has its data and is away: start it"),
        (["n1", "n2", "n3", "n4"], {}, "its replica on n3 does not get ready (No space left): mend that"),
    ],
)
def test_a_drain_that_can_not_go_on_says_so_everywhere(
    world: World, replicas: list[str], changes: dict[str, Any], says: str
) -> None:
    if not changes:
        failed = report(0, 0, ReplicaState.FAILED, reason="No space left.")
        changes = {"beats": {name: beat(name, failed if name == "n3" else report(0)) for name in replicas}}
    world.facts = leaving(shard(0, *[(name, ASSIGNED if name == "n3" else ACTIVE) for name in replicas]), **changes)
    told = world.view.drain("n4").waits_for
    assert told.startswith("n4 can't be emptied now: db-0 stays there, as ") and says in told
    assert told.endswith("or take the drain back (`jade cluster keep n4`)")
    status = world.view.status()
    assert status.status != "HEALTHY" and told in status.reasons and told in world.view.diagnostics(()).errors
    kept = {**world.facts.nodes, "n4": node("n4")}
    world.facts = leaving(*world.facts.map.databases["db"].shards, **{**changes, "nodes": kept})
    assert told not in world.view.status().reasons


def test_who_keeps_the_log_is_told_to_stay_up(world: World) -> None:
    four = {name: node(name, keeps_log=name != "n4") for name in ("n1", "n2", "n3", "n4")}
    world.facts = facts(nodes=four, alive=frozenset(four))
    assert "n1 also keeps the log, with n2, n3" in world.view.drain("n1").note
    world.facts = facts(nodes={**four, "n4": node("n4", draining=True)}, alive=frozenset(four))
    assert world.view.drain("n4").note == ""


def test_a_master_that_is_removed_is_asked_to_resign(world: World) -> None:
    without = ClusterMap(4, 5, {"db": DatabaseRecord("db", 2, (shard(0, ("n1", ACTIVE), ("n3", ACTIVE)),))})
    world.facts = facts(map=without, nodes={**facts().nodes, "n2": node("n2", draining=True)})
    assert world.view.drain("n2").status == "removed"
    assert world.store.get(RESIGN_KEY) is not None


def test_a_replica_is_moved_by_hand_through_the_map(world: World) -> None:
    four = {**facts().nodes, "n4": node("n4")}
    world.facts = facts(nodes=four, alive=frozenset(four))
    assert world.store.compare_and_set(MAP_KEY, msgspec.json.encode(world.facts.map), 0) is not None
    begun = world.view.migrate("db-0", "", "n4", "", {"db"})
    assert (begun.source_node, begun.target_node, begun.migration_id) == ("n1", "n4", "db-0-4")
    found = world.store.get(MAP_KEY)
    assert found is not None
    written = msgspec.json.decode(found.value, type=ClusterMap)
    assert (written.version, written.term) == (4, 5)
    assert written.changes[-1].reason == "db/0: moves from n1 to n4: by hand, asked of n2"
    world.facts = facts(nodes=four, alive=frozenset(four), map=written)
    shown = world.view.shard("db-0", {"db"})
    assert shown.migration is not None and shown.migration["source_node"] == "n1"
    assert [one.by_hand for one in shown.placement] == [False, False, False, True]
    refused(ErrorCode.ALREADY_EXISTS, lambda: world.view.migrate("db-0", "n2", "n4", "", {"db"}))
    refused(ErrorCode.NOT_FOUND, lambda: world.view.migrate("db-7", "", "n4", "", {"db"}))
    refused(ErrorCode.NOT_FOUND, lambda: world.view.migrate("db-0", "", "n4", "", ()))
    assert "LIVE_COPY" in refused(ErrorCode.INVALID_ARGUMENT, lambda: world.view.migrate("db-1", "", "n4", "x", {"db"}))
    world.facts = facts(master="")
    refused(ErrorCode.UNAVAILABLE, lambda: world.view.migrate("db-1", "", "n4", "SNAPSHOT", {"db"}))


def test_what_can_not_be_done_is_refused(world: World) -> None:
    assert "joins by itself" in refused(ErrorCode.CONFLICT, lambda: world.view.add_node("n9", "h:1"))
    refused(ErrorCode.ALREADY_EXISTS, lambda: world.view.add_node("n1", "h:1"))
    world.facts = facts(alive=frozenset({"n2"}))
    assert "no other node alive" in refused(ErrorCode.CONFLICT, world.view.failover)


def test_a_failover_asks_the_master_of_that_term_and_waits_for_another(world: World) -> None:
    resigned = threading.Event()

    def resign() -> None:
        world.facts = facts(master="n3", term=6)
        resigned.set()

    requests = Resignations(world.store, lambda: world.facts.term if world.facts.master == "n2" else None, resign)
    try:
        done = world.view.failover()
        assert resigned.is_set() and (done.old_master, done.new_master, done.term) == ("n2", "n3", 6)
        resigned.clear()
        ask_to_resign(world.store, 5, "n1")  # late: about a term that is over
        ask_to_resign(world.store, 6, "n1")  # this node is not the master of that one
    finally:
        requests.close()
    assert not resigned.is_set()


def test_who_waits_for_a_failover_is_told_when_the_server_stops(world: World) -> None:
    world.view.close()
    assert "no other master was seen" in refused(ErrorCode.UNAVAILABLE, world.view.failover)
