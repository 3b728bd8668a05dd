"""What an answer of a server says about a request that failed: always whether something of it was done, never more of the inside."""

from __future__ import annotations

import json

from jadevectordb.gateway.rest.errors import error_response
from jadevectordb.model.errors import ErrorCode, JadeError


def details_of(code: ErrorCode, **details: object) -> dict[str, object]:
    body: dict[str, object] = json.loads(error_response(JadeError(code, "It failed.", details=details)).body)["details"]
    return body


def test_a_failure_says_what_was_done_and_nothing_of_the_inside() -> None:
    assert details_of(ErrorCode.UNAVAILABLE, undecided=True, path="/data/x") == {"undecided": True}
    assert details_of(ErrorCode.UNAVAILABLE, undecided=False, written=0) == {}
    partial = {"written": 2, "failed": 1, "failed_ids": ["a"]}
    assert details_of(ErrorCode.TIMEOUT, **partial, node="n2") == partial


def test_a_request_that_was_wrong_is_told_all_about_it() -> None:
    assert details_of(ErrorCode.INVALID_ARGUMENT, field="k", given=-1) == {"field": "k", "given": -1}
