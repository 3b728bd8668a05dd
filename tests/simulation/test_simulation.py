"""Simulated clusters: many seeds, the same run twice, and whether the simulation finds what it is there to find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace

import pytest

from jadevectordb.control.election import Candidate
from jadevectordb.gateway.cluster import reading
from jadevectordb.node.hosted_shard import HostedShard
from jadevectordb.query.barriers import Barriers
from jadevectordb.sim.checks.violation import Rule
from jadevectordb.sim.loop import DefectError
from jadevectordb.sim.world import Shape, run_seed, shape_of

SEEDS = range(100)
PER_TEST = 20
BLACKOUT = Shape(faults=False, busy_s=10.0, blackout_s=8.0)


@pytest.mark.parametrize("start", range(SEEDS.start, SEEDS.stop, PER_TEST))
def test_nothing_acknowledged_is_lost_and_everything_heals(start: int) -> None:
    """A failure names its seed: `make sim SEED=... SHORT=1` shows everything that happened in it."""
    for seed in range(start, start + PER_TEST):
        outcome = run_seed(seed, shape_of(seed, short=True))
        assert not outcome.violations, f"seed {seed}\n" + "\n".join(outcome.told) + outcome.report.text()
        assert outcome.report.coverage.settled and outcome.report.coverage.ids_unread_at_end == 0


def test_without_faults_nothing_fails() -> None:
    outcome = run_seed(5, Shape(faults=False, busy_s=6.0))
    assert outcome.report.verdict == "passed"
    assert sum(count.unknown for count in outcome.report.counts) == 0
    assert not any(count.failed for count in outcome.report.counts if count.kind != "write")  # conditions may fail


@pytest.mark.parametrize("seed", [2, 3])
def test_a_seed_is_the_same_run_every_time(seed: int) -> None:
    """Here, and in processes that order sets differently."""
    here = run_seed(seed, shape_of(seed, short=True)).fingerprint
    assert run_seed(seed, shape_of(seed, short=True)).fingerprint == here
    for hash_seed in ("0", "77"):
        said = subprocess.run(
            [sys.executable, "-m", "jadevectordb.sim", "--seed", str(seed), "--short"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert here in said


# What the simulation must find


def test_a_log_that_syncs_later_loses_what_it_acknowledged() -> None:
    """Servers that acknowledge before they sync, and all lose their power: it must show, in the history or before."""
    try:
        outcome = run_seed(3, replace(BLACKOUT, sync=False))
    except DefectError as error:
        assert "acknowledged" in str(error) or "not within" in str(error) or "map" in str(error)
    else:
        assert outcome.violations


@pytest.mark.parametrize("seed", range(5))
def test_a_log_that_syncs_first_loses_nothing_when_all_lose_their_power(seed: int) -> None:
    outcome = run_seed(seed, BLACKOUT)
    assert not outcome.violations and outcome.lost == 0


def test_a_master_that_remembers_its_right_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag instead of a deadline asked at each use: two masters at one moment, in one of some seeds."""

    def remembered(self: Candidate, now_s: float) -> int | None:
        lease = self._lease
        return lease.term if lease is not None and self.holds_record else None

    monkeypatch.setattr(Candidate, "term_if_leader", remembered)
    _expect("two masters", 40)


def test_strong_reads_without_a_barrier_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Barriers, shards: Collection[int], wait_s: float) -> dict[int, int]:
        return {}

    monkeypatch.setattr(Barriers, "sequences", none)
    for seed in range(40):
        outcome = run_seed(seed, shape_of(seed, short=True))
        if any(violation.rule is not Rule.SESSION for violation in outcome.violations):
            return
    pytest.fail("no stale read was found")


def test_reads_that_do_not_say_what_they_saw_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a session that asks another node may see less than before, which the checker must notice by what was shown alone."""
    monkeypatch.setattr(reading, "_noted", lambda wanted, gathered: gathered)
    for seed in range(16, 60):
        outcome = run_seed(seed, shape_of(seed))
        if any("what was seen by" in one.message for one in outcome.violations if one.rule is Rule.SESSION):
            return
    pytest.fail("no session that went back was found")


def test_a_replica_that_never_catches_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The liveness half: faults end, and the cluster must be whole within bounded time."""
    monkeypatch.setattr(HostedShard, "_catch_up", lambda self, opened: False)
    with pytest.raises(DefectError, match=r"not within|could not be created"):
        run_seed(1, shape_of(1, short=True))


def _expect(what: str, seeds: int) -> None:
    for seed in range(seeds):
        try:
            run_seed(seed, shape_of(seed, short=True))
        except DefectError as error:
            assert what in str(error)
            return
    pytest.fail(f"not found: {what}")
