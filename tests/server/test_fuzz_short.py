"""A short run of the fuzzer (`make fuzz` is the long one): a few thousand hostile requests and calls, the same every time."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.campaign import run
from tests.fuzz.requests import request_of


def test_hostile_requests_are_answered_and_do_no_harm(tmp_path: Path) -> None:
    report = run(tmp_path, seed=20, count=2000)
    assert not report.wrong, "\n".join(report.wrong)
    assert report.requests >= 2000 and report.calls >= 240
    # They reach what is behind the checks, and the checks
    for status in ("200", "201", "400", "404", "gRPC OK", "gRPC INVALID_ARGUMENT"):
        assert report.statuses[status] > 10, report


def test_a_number_names_the_same_request_every_time() -> None:
    for number in range(50):
        assert request_of(3, number).bytes() == request_of(3, number).bytes()
    assert len({request_of(3, number).bytes() for number in range(50)}) > 45
