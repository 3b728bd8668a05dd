"""Who is master, on virtual time: at most one at any moment whatever happens to processes, network and store, and soon one again.

The store is a real one; see `tests.election_world`. Every check of the rule "at most one has the right" is made at every event.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.election_world import World

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.control.election import Candidate, Kind, Lease, decode_lease
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record
from jadevectordb.topology.cluster_map import LEASE_KEY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "meta.db")
    yield store
    store.close()


def names(count: int) -> list[str]:
    return [f"n{n}" for n in range(1, count + 1)]


def master(world: World) -> str:
    (leader,) = world.leaders()
    return leader.name


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_from_cold_one_is_elected_at_once_and_stays(store: SqliteStore, count: int) -> None:
    world = World(store, count, names(count))
    world.run_until(0.5)
    first = master(world)
    world.run_until(60)
    assert master(world) == first and len(world.masters) == 1 and world.masters[0][2] == 1
    lease = decode_lease(store.get(LEASE_KEY).value)  # type: ignore[union-attr]
    assert 50 <= lease.renewals <= 70, "one renewal a second, by its own clock"


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_killed_master_is_replaced_within_a_lease_and_a_little(store: SqliteStore, count: int) -> None:
    world = World(store, 10 + count, names(count))
    world.run_until(5)
    for _ in range(10):
        world.kill(victim := master(world))
        killed = world.now
        world.run_until(world.now + 4)
        assert master(world) != victim
        assert world.masters[-1][0] - killed < 3.0 * 1.12 + 0.2, "a lease by a clock up to 10 % slow"
        world.start(victim)
        world.run_until(world.now + 1 + world.random.random())
    assert [term for _, _, term in world.masters] == list(range(1, 12))


def test_a_restarted_master_is_another_candidate(store: SqliteStore) -> None:
    world = World(store, 3, ["n1"])
    world.run_until(5)
    world.kill("n1")
    world.start("n1")
    restarted = world.now
    world.run_until(20)
    assert [term for _, _, term in world.masters] == [1, 2]
    assert 1.5 < world.masters[1][0] - restarted < 3.5, (
        "it waits for the lease of its earlier process like anybody else"
    )


@pytest.mark.parametrize("pause_s", [0.5, 1.9, 4, 10, 60])
def test_a_paused_master_knows_at_once_that_its_time_is_over(store: SqliteStore, pause_s: float) -> None:
    world = World(store, 4, names(3))
    world.run_until(5)
    first = world.leaders()[0]
    world.pause(first.name, pause_s)
    world.run_until(5 + pause_s)
    if pause_s > 3:
        assert first.candidate.term_if_leader(world.local(first)) is None and len(world.masters) == 2
    world.run_until(5 + pause_s + 10)
    assert len(world.leaders()) == 1
    assert len(world.masters) == (2 if pause_s > 4 else len(world.masters)) <= 2


def test_a_master_cut_off_from_the_store_stops_before_another_begins(store: SqliteStore) -> None:
    world = World(store, 5, names(5))
    world.run_until(5)
    for _ in range(5):
        cut = world.leaders()[0]
        world.cut_off(cut.name, 10)
        world.run_until(world.now + 2.5)
        assert cut.candidate.term_if_leader(world.local(cut)) is None
        world.run_until(world.now + 12)
        assert world.leaders() and world.leaders()[0] is not cut
    assert min(world.outages[1:]) > 0, "there was a moment without a master in between, never one with two"


def test_without_the_store_there_is_no_master_and_afterwards_one_within_a_lease(store: SqliteStore) -> None:
    world = World(store, 6, names(3))
    world.run_until(5)
    world.store_away_until = 25
    world.run_until(24)
    assert world.leaders() == []
    world.run_until(29)
    assert len(world.leaders()) == 1


@pytest.mark.parametrize("count", [3, 5])
def test_who_resigns_is_replaced_at_once_and_stands_back(store: SqliteStore, count: int) -> None:
    world = World(store, 20 + count, names(count))
    world.run_until(5)
    for _ in range(5):
        first, when = master(world), world.now
        world.resign(first, 6.0)
        assert world.leaders() == []
        world.run_until(when + 0.3)
        assert master(world) != first and world.masters[-1][0] - when < 0.2
        world.run_until(when + 15)
        assert master(world) != first, "nobody takes it from who has it"


def test_alone_it_comes_back_after_standing_back(store: SqliteStore) -> None:
    world = World(store, 7, ["n1"])
    world.run_until(5)
    world.resign("n1", 6.0)
    world.run_until(10)
    assert world.leaders() == []
    world.run_until(12)
    assert master(world) == "n1" and [term for _, _, term in world.masters] == [1]


@pytest.mark.parametrize("seed", range(24))
def test_never_two_whatever_happens(store: SqliteStore, seed: int) -> None:
    """Kills, pauses, partitions, resignations, twins, lost and late messages, clocks 15 % apart; then quiet, and one master."""
    dice = random.Random(seed)
    count = (3, 5, 7)[seed % 3]
    world = World(store, seed, names(count), skew=0.15)
    world.loss, world.late, world.slowest_s = dice.choice([(0.0, 0.0, 0.02), (0.05, 0.03, 0.2), (0.2, 0.1, 0.5)])
    for _ in range(40):
        world.run_until(world.now + dice.expovariate(0.6))
        name = dice.choice([n.name for n in world.leaders()] or names(count)) if dice.random() < 0.6 else None
        name = name or dice.choice(names(count))
        match dice.randrange(6):
            case 0:
                world.kill(name)
                world.start(name)
            case 1:
                world.pause(name, dice.choice([0.5, 2, 3, 8]))
            case 2:
                world.cut_off(name, dice.choice([1, 2.5, 6]))
            case 3:
                world.resign(name, 6.0)
            case 4:
                world.start(name)  # a second process of the same node
            case 5:
                world.store_away_until = world.now + dice.choice([0.5, 3, 7])
    world.loss = world.late = 0.0
    world.run_until(world.now + 25)  # everything late has arrived, all have stood back long enough
    assert len(world.leaders()) == 1
    last = world.masters[-1]
    world.run_until(world.now + 20)
    assert world.masters[-1] == last and len(world.leaders()) == 1


# --- one candidate, step by step ---------------------------------------------------------------------------------------


def test_a_write_of_unknown_outcome_gives_no_right_until_a_renewal_after_it() -> None:
    candidate = Candidate("n1", "i1")
    candidate.on_read(None, 10.0)
    create = candidate.step(10.0)
    assert create.kind is Kind.CREATE and create.expected == 0
    candidate.on_written(create, "unknown", 10.0, 12.0)
    assert candidate.term_if_leader(12.0) is None
    assert candidate.step(12.0).kind is Kind.WAIT and candidate.step(12.3).kind is Kind.READ
    candidate.on_read(Record(create.value, 7), 12.3)
    assert candidate.holds_record and candidate.term_if_leader(12.3) is None
    renew = candidate.step(12.3)
    assert renew.kind is Kind.RENEW and renew.expected == 7
    candidate.on_written(renew, 8, 12.3, 12.4)
    assert candidate.term_if_leader(12.3 + 1.99) == 1 and candidate.term_if_leader(12.3 + 2.0) is None


def test_an_answer_that_took_too_long_gives_no_right() -> None:
    candidate = Candidate("n1", "i1")
    candidate.on_read(None, 0.0)
    candidate.on_written(candidate.step(0.0), 1, 0.0, 5.0)
    assert candidate.term_if_leader(5.0) is None and candidate.step(5.0).kind is Kind.RENEW


def test_who_resigns_while_a_renewal_is_on_its_way_has_no_right_by_it() -> None:
    candidate = Candidate("n1", "i1")
    candidate.on_read(None, 0.0)
    candidate.on_written(candidate.step(0.0), 1, 0.0, 0.1)
    renew = candidate.step(1.0)
    candidate.resign(1.1, 6.0)
    candidate.on_written(renew, 2, 1.0, 1.2)
    assert candidate.term_if_leader(1.2) is None
    release = candidate.step(1.2)
    assert release.kind is Kind.RELEASE and decode_lease(release.value) == Lease("", "", 1, 2)


def test_what_a_watch_tells_late_is_not_believed() -> None:
    candidate = Candidate("n1", "i1")
    old = Lease("n2", "i2", 4)
    newer = Lease("n3", "i3", 5)
    from msgspec import json

    candidate.on_read(Record(json.encode(newer), 9), 0.0)
    candidate.on_told(Record(json.encode(old), 8), 1.0)
    assert candidate.leader(1.0) == newer and candidate.leader(3.0) is None
    take = candidate.step(3.0)
    assert take.kind is Kind.TAKE_OVER and decode_lease(take.value) == Lease("n1", "i1", 6)


def test_a_record_that_cannot_be_read_is_told_and_changes_nothing() -> None:
    candidate = Candidate("n1", "i1")
    for value in (b"", b"{}", b"\xff", b"[1]"):
        with pytest.raises(JadeError) as caught:
            candidate.on_read(Record(value, 3), 0.0)
        assert caught.value.code is ErrorCode.CORRUPT
    assert candidate.step(0.0).kind is Kind.READ


def test_a_record_that_vanished_is_made_again_with_a_higher_term() -> None:
    candidate = Candidate("n1", "i1")
    from msgspec import json

    candidate.on_read(Record(json.encode(Lease("n2", "i2", 4)), 9), 0.0)
    candidate.on_told(None, 1.0)
    assert candidate.step(1.0).kind is Kind.READ
    candidate.on_read(None, 1.0)
    create = candidate.step(1.0)
    assert create.kind is Kind.CREATE and decode_lease(create.value).term == 5
