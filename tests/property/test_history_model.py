"""Histories of a correct cluster pass, whatever overlaps; the same histories with one thing wrong never do."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.history_model import VECTORS, model_history
from tests.history_mutations import MUTATIONS, without_versions

from jadevectordb.sim.checkers import check
from jadevectordb.sim.checks.evidence import Evidence
from jadevectordb.sim.checks.violation import Rule

FOUND_AS = {
    "lost_write": {Rule.LOST_WRITE, Rule.STALE_READ, Rule.RESURRECTED, Rule.UNDELETED},
    "stale_read": {Rule.STALE_READ, Rule.LOST_WRITE, Rule.UNDELETED, Rule.RESURRECTED},
    "resurrected_write": {Rule.RESURRECTED, Rule.LOST_WRITE},
    "undeleted": {Rule.UNDELETED, Rule.STALE_READ, Rule.RESURRECTED, Rule.LOST_WRITE},
    "duplicate_application": {Rule.APPLIED_TWICE},
    "torn_batch": {Rule.TORN_BATCH},
    "wrong_value": {Rule.NEVER_WRITTEN},
    "failed_write_seen": {Rule.FAILED_SEEN},
    "session_backwards": {Rule.SESSION},
    "wrong_score": {Rule.SEARCH_SCORE},
    "version_against_time": {Rule.VERSION_ORDER},
}
WITHOUT_VERSIONS = ("lost_write", "stale_read", "resurrected_write", "undeleted", "duplicate_application")
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32)


@SLOW
@given(seeds, st.integers(10, 600))
def test_histories_of_a_correct_cluster_pass(seed: int, steps: int) -> None:
    report = check(model_history(seed, steps), vectors=VECTORS, replicas_expected=3)
    assert report.verdict == "passed", report.text()


@SLOW
@given(seeds, st.integers(10, 400))
def test_they_pass_where_no_version_is_ever_told(seed: int, steps: int) -> None:
    report = check(without_versions(model_history(seed, steps)), vectors=VECTORS)
    assert not report.violations, report.text()


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_made_wrong_is_found(name: str) -> None:
    tried = 0
    for seed in range(400):
        evidence = Evidence(model_history(seed))
        mutated = MUTATIONS[name](evidence, random.Random(seed))
        if mutated is None:
            continue
        tried += 1
        history, vector_id = mutated
        report = check(history, vectors=VECTORS)
        about_it = [v for v in report.violations if vector_id in v.ids or f'"{vector_id}"' in v.message]
        assert {v.rule for v in about_it} & FOUND_AS[name], f"seed {seed}, {vector_id}:\n{report.text()}"
        if tried == 20:
            break
    assert tried >= 10


@pytest.mark.parametrize("name", WITHOUT_VERSIONS)
def test_it_is_found_without_versions_too(name: str) -> None:
    """By the order of what was seen alone. Not each one is wrong then, as another order of the writes may explain it."""
    found = tried = 0
    for seed in range(400):
        mutated = MUTATIONS[name](Evidence(model_history(seed)), random.Random(seed))
        if mutated is not None:
            tried += 1
            found += bool(check(without_versions(mutated[0])).violations)
        if tried == 20:
            break
    assert found >= tried * 0.5
