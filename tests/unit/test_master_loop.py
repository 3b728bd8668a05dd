"""The master at work on a real store: what it does in a turn, what refuses an old one, and what it survives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.control_world import HandClock, ListedLogs, SpokenNode, put, put_placed, read_map
from tests.placement_world import placed_database

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.control.elector import Elector
from jadevectordb.control.loop import MasterLoop, MasterSettings
from jadevectordb.control.mirror import ClusterMirror
from jadevectordb.topology.cluster_map import BEAT_PREFIX, MAP_KEY, ClusterMap, ReplicaState
from jadevectordb.topology.placed import placed_key

WAIT_S = 60.0
MARKER = "cluster/marker"


class Master:
    """A loop whose turns are taken by hand; what its mirror has heard of is awaited, not guessed."""

    def __init__(self, store: SqliteStore, term: int | None = 1, settings: MasterSettings | None = None) -> None:
        self.store = store
        self.term = term
        self.clock = HandClock()
        self.logs = ListedLogs()
        self.mirror = ClusterMirror(store, self.clock)
        self.mirror.start()
        self._heard, self._markers = threading.Event(), 0
        self.mirror.listen(lambda key: self._heard.set() if key == MARKER else None)
        self.loop = MasterLoop(
            store, self.mirror, self.clock, lambda: self.term, self.logs, settings or MasterSettings(retained_entries=0)
        )

    def turns(self, count: int = 4) -> ClusterMap:
        for _ in range(count):
            self.hear()
            self.loop.turn()
        return read_map(self.store)

    def hear(self) -> None:
        """Return when the mirror has been told of everything up to now: changes are told in order."""
        self._heard.clear()
        self._markers += 1
        put(self.store, MARKER, b"%d" % self._markers)
        assert self._heard.wait(WAIT_S)

    def reasons(self) -> list[str]:
        return [change.reason for change in read_map(self.store).changes]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "meta.db")
    yield store
    store.close()


@pytest.fixture
def nodes(store: SqliteStore) -> list[SpokenNode]:
    return [SpokenNode(store, name) for name in ("n1", "n2", "n3")]


def settle(master: Master, nodes: list[SpokenNode], checkpointed: int = 0) -> ClusterMap:
    for _ in range(6):
        cluster_map = master.turns(3)
        for node in nodes:
            node.follow(cluster_map, checkpointed)
    return master.turns(2)


def test_who_is_not_master_does_nothing(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    put_placed(store, placed_database("d1", 2, 3))
    master = Master(store, term=None)
    assert master.turns() == ClusterMap() and master.logs.there == {}


def test_a_new_database_gets_logs_then_replicas_then_primaries(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    put_placed(store, placed_database("d1", 2, 3))
    master = Master(store)
    assert master.turns(1).databases == {} and master.logs.there == {"d1": 2}
    cluster_map = settle(master, nodes)
    record = cluster_map.databases["d1"]
    assert all(r.state is ReplicaState.ACTIVE for shard in record.shards for r in shard.replicas)
    assert all(len(shard.replicas) == 3 and shard.primary for shard in record.shards)
    assert cluster_map.term == 1 and master.reasons()[:2] == ["master of term 1", "d1: new, 2 shards on n1, n2, n3"]
    version = cluster_map.version
    assert master.turns(5).version == version, "nothing to do, nothing written"


def test_a_dead_node_loses_its_primaries_at_once_and_its_replicas_later(
    store: SqliteStore, nodes: list[SpokenNode]
) -> None:
    put_placed(store, placed_database("d1", 3, 2))
    master = Master(store, settings=MasterSettings(replace_after_s=60))
    settle(master, nodes)

    def live_on(seconds: float) -> ClusterMap:
        for _ in range(int(seconds)):
            master.clock.seconds += 1.0
            for node in nodes[1:]:
                node.follow(read_map(store))
            cluster_map = master.turns(1)
        return cluster_map

    cluster_map = live_on(5)
    assert all(shard.primary != "n1" for shard in cluster_map.databases["d1"].shards)
    assert any(shard.on("n1") for shard in cluster_map.databases["d1"].shards)
    cluster_map = live_on(66)
    assert not any(shard.on("n1") for shard in cluster_map.databases["d1"].shards)
    assert all(len(shard.readable) == 2 for shard in cluster_map.databases["d1"].shards)


def test_a_dropped_database_loses_replicas_then_logs_then_its_entry(
    store: SqliteStore, nodes: list[SpokenNode]
) -> None:
    put_placed(store, placed_database("d1", 2, 3))
    master = Master(store)
    settle(master, nodes)
    put(store, placed_key("d1"), None)
    master.logs.refused.add("d1")
    cluster_map = master.turns()
    record = cluster_map.databases["d1"]
    assert record.dropped and not any(shard.replicas for shard in record.shards) and master.logs.there == {"d1": 2}
    assert "the logs of d1 could not be deleted" in master.loop.trouble
    other = Master(store, term=2)  # the first one dies here
    other.logs.there = dict(master.logs.there)
    assert other.turns().databases == {} and other.logs.there == {}
    assert other.loop.trouble == ""


def test_a_drop_is_believed_only_of_the_store_itself(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    put_placed(store, placed_database("d1", 2, 3))
    master = Master(store)
    before = settle(master, nodes)
    put(store, placed_key("d1"), None)
    master.hear()
    assert "d1" not in master.mirror.observe().placed
    master.mirror.close()  # from now on it hears nothing
    put_placed(store, placed_database("d1", 2, 3))
    master.loop.turn()
    assert read_map(store) == before


def test_logs_that_cannot_be_made_keep_no_other_database_waiting(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    master = Master(store)
    for name in ("d1", "d2", "d3"):
        put_placed(store, placed_database(name, 1, 3))
    master.logs.refused.add("d1")
    for _ in range(8):
        master.clock.seconds += 0.5
        for node in nodes:
            node.beat()
        cluster_map = master.turns(1)
    assert sorted(cluster_map.databases) == ["d2", "d3"]
    trouble = master.loop.trouble
    assert "the logs of d1 could not be created: too few servers are up" in trouble
    master.term = None
    master.turns(1)
    assert master.loop.trouble == ""  # it is another's now
    master.term = 1
    master.turns(1)
    assert master.loop.trouble == trouble
    put(store, placed_key("d1"), None)
    master.turns()
    assert master.loop.trouble == "" and sorted(master.logs.there) == ["d2", "d3"]


def test_logs_of_a_database_dropped_before_it_was_placed_are_deleted(
    store: SqliteStore, nodes: list[SpokenNode]
) -> None:
    master = Master(store)
    put_placed(store, placed_database("d1", 1, 3))
    master.turns(1)
    assert master.logs.there == {"d1": 1}
    put(store, placed_key("d1"), None)
    assert master.turns(2).databases == {} and master.logs.there == {}


def test_a_master_that_was_replaced_writes_nothing(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    old = Master(store, term=1)
    old.turns()
    put_placed(store, placed_database("d1", 2, 3))
    old.hear()
    old.mirror.close()  # paused: it hears nothing more, and believes that it is master
    old.loop.turn()
    assert old.logs.there == {"d1": 2}
    new = Master(store, term=2)
    assert new.turns(1).term == 2
    before = read_map(store)
    old.loop.turn()
    assert read_map(store) == before and before.changes[-1].term == 2
    old.loop.turn()  # has read the map again: another is master
    assert read_map(store) == before


def test_logs_are_cut_now_and_then_and_not_twice_to_the_same_place(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    put_placed(store, placed_database("d1", 2, 3))
    master = Master(store, settings=MasterSettings(retained_entries=100, truncate_every_s=10))
    settle(master, nodes, checkpointed=350)
    assert master.logs.cut == []  # at its first turn nothing was checkpointed

    def later(checkpointed: int) -> None:
        for _ in range(11):
            master.clock.seconds += 1.0
            for node in nodes:
                node.follow(read_map(store), checkpointed)
            master.turns(1)

    later(350)
    assert master.logs.cut == [("d1", {0: 250, 1: 250})]
    later(350)
    assert len(master.logs.cut) == 1
    master.logs.refused.add("d1")
    later(900)
    assert len(master.logs.cut) == 1
    master.logs.refused.clear()
    later(900)
    assert master.logs.cut[1:] == [("d1", {0: 800, 1: 800})]


def test_nothing_is_decided_while_nobody_is_heard_of(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    put_placed(store, placed_database("d1", 3, 3))
    master = Master(store)
    before = settle(master, nodes)
    master.clock.seconds += 500.0
    assert master.mirror.is_deaf and master.turns().version == before.version
    nodes[0].follow(before)
    assert master.turns().version == before.version, "the others have as long as ever to be heard again"


def test_records_that_cannot_be_read_are_told_and_keep_their_last_value(
    store: SqliteStore, nodes: list[SpokenNode]
) -> None:
    put_placed(store, placed_database("d1", 1, 3))
    master = Master(store)
    settle(master, nodes)
    put(store, BEAT_PREFIX + "n1", b"\xff")
    put(store, placed_key("d1"), b"{}")
    put(store, placed_key("d2"), b"[")
    cluster_map = master.turns()
    assert "d1" in cluster_map.databases and not cluster_map.databases["d1"].dropped
    assert set(master.mirror.troubles) == {BEAT_PREFIX + "n1", placed_key("d1"), placed_key("d2")}
    nodes[0].beat()
    put(store, placed_key("d2"), None)
    master.turns(1)
    assert set(master.mirror.troubles) == {placed_key("d1")}


def test_two_nodes_at_work_hand_over(store: SqliteStore, nodes: list[SpokenNode]) -> None:
    """Threads, and the real clock: one is master, resigns, and the other goes on where it was."""
    clock = SystemClock()
    gained = {name: threading.Event() for name in ("n1", "n2")}
    lost = {name: threading.Event() for name in ("n1", "n2")}
    electors, loops, mirrors = {}, {}, {}
    for name in ("n1", "n2"):
        mirrors[name] = ClusterMirror(store, clock)
        mirrors[name].start()
        electors[name] = Elector(
            store, clock, name, f"{name}-i", lease_s=WAIT_S, renew_s=0.5,
            on_gain=lambda _term, name=name: gained[name].set(), on_loss=lambda _term, name=name: lost[name].set(),
        )  # fmt: skip
        loops[name] = MasterLoop(store, mirrors[name], clock, electors[name].term, ListedLogs())
        loops[name].start()

    changed = threading.Event()
    watch = store.watch(MAP_KEY, lambda _key, _record: changed.set())

    def await_term(term: int) -> None:
        while read_map(store).term != term:
            assert changed.wait(WAIT_S)
            changed.clear()

    electors["n1"].start()
    assert gained["n1"].wait(WAIT_S)
    electors["n2"].start()
    await_term(1)
    assert electors["n1"].resign(stand_back_s=10 * WAIT_S, wait_s=WAIT_S) and lost["n1"].wait(WAIT_S)
    assert electors["n1"].term() is None and not electors["n1"].resign()
    assert gained["n2"].wait(WAIT_S)
    await_term(2)
    lease = electors["n2"].leader()
    assert lease is not None and (lease.holder, lease.term) == ("n2", 2) and electors["n2"].trouble == ""
    put_placed(store, placed_database("d1", 1, 1))
    while "d1" not in read_map(store).databases:
        nodes[0].beat()
        changed.wait(0.2)  # the node may be called dead on a busy machine: it goes on beating
    for _ in range(2):  # again is fine
        for elector in electors.values():
            elector.stop(WAIT_S)
        for loop in loops.values():
            loop.stop()
    for mirror in mirrors.values():
        mirror.close()
    watch.close()
    assert lost["n2"].is_set()
    record = store.get("cluster/lease")
    assert record is not None and msgspec.json.decode(record.value)["holder"] == "", "released, not left to run out"


def test_a_candidate_whose_store_was_closed_ends(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "meta.db")
    lost = threading.Event()
    gained = threading.Event()
    elector = Elector(
        store, SystemClock(), "n1", "i", lease_s=WAIT_S, renew_s=0.1,
        on_gain=lambda _term: gained.set(), on_loss=lambda _term: lost.set(),
    )  # fmt: skip
    elector.start()
    assert gained.wait(WAIT_S)
    store.close()
    assert lost.wait(WAIT_S)
    elector.stop(wait_s=0.1)
    assert "closed" in elector.trouble
