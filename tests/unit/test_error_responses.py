"""What an answer of a server says about a request that failed: always whether something of it was done, never more of the inside."""

from __future__ import annotations

import json

import pytest

from jadevectordb.gateway.rest.errors import error_response
from jadevectordb.gateway.rest.http import decode
from jadevectordb.gateway.rest.v2.databases import CreateBody
from jadevectordb.gateway.rest.v2.vectors import GetBody
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


def test_only_who_must_not_find_digits_gets_none() -> None:
    error = JadeError(ErrorCode.UNAVAILABLE, "No answer from shard 3.")
    assert json.loads(error_response(error).body)["message"] == "No answer from shard #."
    assert json.loads(error_response(error, hides_digits=False).body)["message"] == "No answer from shard 3."


def test_a_word_that_is_none_is_answered_with_those_there_are() -> None:
    for body, words in (
        (b'{"sharding": "foo"}', "`$.sharding`; use one of hash, range, vector, auto."),
        (b'{"sharding": {"kind": "foo"}}', "`$.sharding.kind`; use one of "),
    ):
        with pytest.raises(JadeError) as caught:
            decode(body, CreateBody)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT and words in caught.value.message
    with pytest.raises(JadeError, match=r"`\$.include\[0\]`; use one of metadata, vector, version"):
        decode(b'{"ids": ["a"], "include": ["foo"]}', GetBody)
