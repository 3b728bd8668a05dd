"""Simulated clusters with a database whose vectors decide their shard: every write may move its ids."""

from __future__ import annotations

import pytest

from jadevectordb.sim.world import Shape, by_vector, run_seed, shape_of

SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_and_no_id_is_alive_twice(seed: int) -> None:
    """A failure names its seed: `python -m jadevectordb.sim --seed SEED --short --by-vector` shows everything that happened in it."""
    outcome = run_seed(seed, by_vector(shape_of(seed, short=True)))
    assert not outcome.report.violations, "\n".join(outcome.told) + outcome.report.text()
    assert outcome.report.coverage.settled and outcome.report.coverage.ids_unread_at_end == 0


def test_without_faults_nothing_fails() -> None:
    outcome = run_seed(5, by_vector(Shape(faults=False, busy_s=6.0)))
    assert outcome.report.verdict == "passed"
    assert not any(count.failed or count.unknown for count in outcome.report.counts)
