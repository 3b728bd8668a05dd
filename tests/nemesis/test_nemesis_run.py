"""A short run of the nemesis: some faults of several kinds on a real cluster. `make nemesis` is the long one."""

from __future__ import annotations

from pathlib import Path

from jadevectordb.model.errors import ErrorCode
from jadevectordb.sim.history import Fate
from jadevectordb.sim.recorder import fate_of_error
from tests.nemesis.caller import error_of
from tests.nemesis.run import Plan, run


def test_a_cluster_under_faults_keeps_its_word(tmp_path: Path) -> None:
    outcome = run(Plan(tmp_path, seconds=18.0, seed=20), print)
    print(outcome.text())
    assert outcome.is_good, outcome.text()
    assert outcome.report.coverage.settled and outcome.report.coverage.ids_unread_at_end == 0
    assert outcome.report.coverage.replicas == 12 and outcome.report.outages


def test_so_does_one_whose_vectors_decide_their_shard(tmp_path: Path) -> None:
    outcome = run(Plan(tmp_path, seconds=12.0, seed=3, by_vector=True), print)
    print(outcome.text())
    assert outcome.is_good, outcome.text()
    assert outcome.report.coverage.settled and outcome.report.coverage.replicas == 12


def test_what_a_server_says_of_a_failed_write_is_taken_at_its_word() -> None:
    def fate(status: int, code: str, details: str = "{}") -> Fate:
        body = f'{{"code": "{code}", "message": "m", "details": {details}}}'
        return fate_of_error(error_of(status, body.encode()))

    assert fate(503, "UNAVAILABLE") is Fate.FAILED
    assert fate(503, "UNAVAILABLE", '{"undecided": true}') is Fate.UNKNOWN
    assert fate(409, "VERSION_CONFLICT") is Fate.FAILED
    assert fate(500, "INTERNAL_ERROR") is Fate.UNKNOWN
    assert fate_of_error(error_of(502, b"<html>")) is Fate.UNKNOWN
    assert error_of(503, b'{"code": "DISK_FULL", "message": "m", "details": {}}').code is ErrorCode.DISK_FULL
