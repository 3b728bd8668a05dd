"""Session tokens and consistencies as clients send them: what becomes of them on a single node, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import jadevectordb
from jadevectordb.gateway.service.catalog import DatabaseRecord, Entry
from jadevectordb.gateway.service.sessions import reading, seen_after, seen_in, token_of, writing
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.seen import SeenSequences


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    folder: Path = tmp_path_factory.mktemp("sessions")
    with jadevectordb.open(folder) as store:
        database = store.create_database("d", 2, shards=2)
        yield Entry(DatabaseRecord(id="d", name="d"), database, 0)


def test_a_token_names_what_a_write_answered(entry: Entry) -> None:
    result = entry.handle.upsert([f"v{n}" for n in range(20)], [[1.0, 0.0]] * 20)
    token = token_of("d", result.sequences)
    assert seen_in(token, entry) == result.sequences
    assert seen_in(f"other~0.99|{token}|{token}", entry) == result.sequences
    assert reading(token, "", entry) == {} == reading(token, "Strong", entry)
    assert token_of("d", {}) == ""


def test_what_was_seen_only_grows_and_nothing_is_nothing() -> None:
    seen = SeenSequences()
    seen.raise_to([(0, 5), (1, 0), (2, 7)])  # an empty shard has nothing to see
    seen.raise_to([(0, 4), (1, 3), (2, 8)])
    assert seen == {0: 5, 1: 3, 2: 8}
    assert token_of("d", seen) == "d~0.5,2.8,1.3"
    assert token_of("d", SeenSequences()) == "" == token_of("d", None)


def test_on_a_single_node_a_write_answers_for_itself(entry: Entry) -> None:
    """Its reads answer nothing, so there is nothing to add up."""
    assert seen_after("d~0.1", {1: 3}, entry) == {1: 3}
    assert seen_after("no token at all", {1: 3}, entry) == {1: 3}


def test_a_single_node_that_is_behind_says_so(entry: Entry) -> None:
    for token in ("d~0.999999", "d~7.1"):
        with pytest.raises(JadeError) as behind:
            reading(token, "", entry)
        assert behind.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(
    "token", ["d~x.1", "d~1", "d~1.2.3", "d~-1.2", "d~1." + "9" * 30, "d~1.1," * 10_000, "d~\u0661.1"]
)
def test_what_is_no_token_is_refused(entry: Entry, token: str) -> None:
    with pytest.raises(JadeError) as refused:
        reading(token, "", entry)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_consistencies_are_checked_where_they_change_nothing(entry: Entry) -> None:
    for level in ("session", "strong", "EVENTUAL"):
        assert reading("", level, entry) == {}
    for level in ("quorum", "strong", "eventual"):
        assert writing(level, entry) == {}
    for ask in (lambda: reading("", "quorum", entry), lambda: writing("session", entry)):
        with pytest.raises(JadeError) as refused:
            ask()
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT
