"""What a hosted replica is made of: who waits for its watermark, its folders, what the map wants of a node, deadlines."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jadevectordb.gateway.cluster.deadlines import Deadlines
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.limits import OUTCOMES_KEPT_MAX
from jadevectordb.model.operations import Outcome
from jadevectordb.node.agent import wanted_of
from jadevectordb.node.replica_folders import ReplicaFolders, replicas_in
from jadevectordb.node.watermark import RecentOutcomes, Watermark
from jadevectordb.topology.cluster_map import ClusterMap, DatabaseRecord, ReplicaRecord, ReplicaState, ShardRecord

ASSIGNED, ACTIVE, RETIRING = ReplicaState.ASSIGNED, ReplicaState.ACTIVE, ReplicaState.RETIRING


def test_each_waiter_is_called_once_when_its_entry_is_applied_or_the_replica_ends() -> None:
    mark = Watermark()
    mark.opened(10)
    called: list[tuple[int, ErrorCode | None]] = []

    def note(sequence: int) -> None:
        def callback(error: JadeError | None) -> None:
            called.append((sequence, error and error.code))

        cancels.append(mark.when_reached(sequence, callback))

    cancels: list[object] = []
    for sequence in (10, 13, 11, 12, 11, 99):
        note(sequence)
    assert called == [(10, None)] and cancels[0] is None
    cancel = cancels[3]  # of 12
    assert callable(cancel)
    cancel()
    cancel()
    mark.applied(1)
    assert called == [(10, None), (11, None), (11, None)]
    mark.applied(5)
    assert called[3:] == [(13, None)] and mark.position == 16
    mark.ended()
    mark.ended()
    assert called[4:] == [(99, ErrorCode.UNAVAILABLE)]
    note(16)
    note(17)
    assert called[5:] == [(16, None), (17, ErrorCode.UNAVAILABLE)]


def test_waiters_that_gave_up_take_no_room() -> None:
    mark = Watermark()
    for _ in range(1000):
        cancel = mark.when_reached(5, lambda error: pytest.fail("cancelled"))
        assert cancel is not None
        cancel()
    assert len(mark._due) <= 64 and not mark._waiting
    mark.applied(5)


def test_outcomes_of_the_newest_entries_are_kept() -> None:
    outcomes, shard = RecentOutcomes(), ShardId(0)
    for sequence in range(1, OUTCOMES_KEPT_MAX + 11):
        outcomes[shard, Sequence(sequence)] = Outcome(sequence, 1)
    assert len(outcomes) == OUTCOMES_KEPT_MAX
    assert (shard, Sequence(10)) not in outcomes and outcomes[shard, Sequence(11)].sequence == 11


def test_a_folder_is_a_replica_once_installed_and_the_one_before_stays_until_it_has_proved_itself(
    tmp_path: Path,
) -> None:
    base = tmp_path / "db"
    folders = ReplicaFolders(base, 7)
    assert folders.current is None and replicas_in(tmp_path) == set()
    part = folders.part()
    assert part.name == "0007-000001.part" and folders.current is None
    assert replicas_in(tmp_path) == {("db", 7)}
    first = folders.install(part)
    assert folders.current == first and folders.older == []
    (folders.part() / "half").write_bytes(b"x")
    assert (folders.part() / "half").exists(), "what an attempt left is there for the next"
    assert folders.current == first
    second = folders.install(folders.part())
    third = folders.install(folders.part())
    assert folders.current == third and folders.older == [first], "one that was never active is not kept"
    assert not second.exists()
    other = ReplicaFolders(base, 8)
    other.install(other.part())
    folders.drop_older()
    assert folders.older == [] and folders.current == third
    folders.remove()
    assert replicas_in(tmp_path) == {("db", 8)}
    other.remove()
    assert not base.exists()


def of(*replicas: tuple[str, ReplicaState], replication: int = 3) -> ClusterMap:
    shard = ShardRecord(0, tuple(ReplicaRecord(node, state) for node, state in replicas))
    return ClusterMap(1, 1, {"db": DatabaseRecord("db", replication, (shard,))})


@pytest.mark.parametrize(
    ("replicas", "replication", "held"),
    [
        ((("a", ASSIGNED), ("b", ACTIVE)), 3, True),
        ((("b", ACTIVE),), 3, False),
        ((("a", RETIRING), ("b", ACTIVE), ("c", ASSIGNED)), 2, True),
        ((("a", RETIRING), ("b", ACTIVE), ("c", ACTIVE)), 2, False),
        ((("a", RETIRING), ("b", ACTIVE)), 3, False),  # nobody is to come: the one that is there serves
        ((("a", RETIRING), ("b", RETIRING)), 2, True),
        ((("a", RETIRING),), 1, True),
    ],
)
def test_a_replica_is_held_while_the_map_wants_it_or_the_others_do_not_serve_yet(
    replicas: tuple[tuple[str, ReplicaState], ...], replication: int, held: bool
) -> None:
    wanted = wanted_of(of(*replicas, replication=replication), "a")
    assert (("db", 0) in wanted.hosted) is held
    assert (("db", 0) in wanted.gone) is (not held and replicas[0][0] == "a")


class HandClock:
    now_s = 1000.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


def test_deadlines_come_in_their_order_and_not_when_cancelled() -> None:
    clock = HandClock()
    deadlines = Deadlines(clock)
    done, calls = threading.Event(), []
    for _ in range(3000):
        deadlines.after(3600.0, lambda: calls.append("never"))()
    deadlines.after(30.0, done.set)
    deadlines.after(20.0, lambda: calls.append("second"))
    deadlines.after(10.0, lambda: calls.append("first"))
    deadlines.after(15.0, lambda: calls.append("cancelled"))()
    clock.now_s += 30
    deadlines.after(-100.0, lambda: calls.append("overdue"))  # the earliest: so the thread looks at the clock
    assert done.wait(60)
    assert calls == ["overdue", "first", "second"]
    assert len(deadlines._due) < 3000
    deadlines.close()
    deadlines.close()
