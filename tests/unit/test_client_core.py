"""What a client decides, without a connection: addresses, credentials, retries, sessions, requests and the reading of answers."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from jadevectordb import F, JadeError
from jadevectordb.client.address import Address
from jadevectordb.client.call import Answer, Call, read_as, result
from jadevectordb.client.core import Core, Credentials, Retries, Timeouts, merged, settings_of, timeouts_of
from jadevectordb.client.database_calls import DatabaseCalls
from jadevectordb.client.nodes import Nodes
from jadevectordb.client.raw import RAW, framed, unframed
from jadevectordb.client.values import DatabaseInfo
from jadevectordb.model.errors import ErrorCode
from jadevectordb.model.filter_document import document, wire_form
from jadevectordb.model.filter_parse import parse


def calls(dimension: int = 4, metric: str = "cosine") -> DatabaseCalls:
    return DatabaseCalls(DatabaseInfo("db_1", "words", dimension, metric), lambda: "fresh")


def code(function: Any, *arguments: Any, **options: Any) -> ErrorCode:
    with pytest.raises(JadeError) as refused:
        function(*arguments, **options)
    return refused.value.code


def core(**credentials: Any) -> Core:
    addresses, who = settings_of("http://h:1/base/", environment={}, **{**_NOBODY, **credentials})
    return Core(Nodes(addresses, 0.0), who, Timeouts(), Retries(), 4)


HERE = Address.of("http://h:1/base")
_NOBODY = {"token": None, "api_key": None, "user": None, "password": None}


# Settings


def test_addresses() -> None:
    assert Address.of("https://Example.org").authority == "example.org"
    assert Address.of("http://[::1]:8080/").authority == "[::1]:8080"
    there = Address.of("https://h:444/jade/")
    assert (there.host, there.port, there.is_tls, there.path, there.url) == (
        "h",
        444,
        True,
        "/jade",
        "https://h:444/jade",
    )
    for url in (
        "h:8080",
        "ftp://h",
        "http://",
        "http://u:secret@h",
        "http://h:99999",
        "http://h/?a=1",
        "http://h/a b",
        7,
    ):
        with pytest.raises(JadeError) as refused:
            Address.of(url)  # type: ignore[arg-type]
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT
        assert "secret" not in str(refused.value)


def test_the_environment_fills_in_what_is_not_given() -> None:
    there = {"JADEVECTORDB_URL": "http://there:1", "JADEVECTORDB_API_KEY": "key"}
    (address,), who = settings_of(None, **_NOBODY, environment=there)
    assert (address.host, who.token) == ("there", "key")
    (address,), who = settings_of("http://here:2", **{**_NOBODY, "token": "t"}, environment=there)
    assert (address.host, who.token) == ("here", "t")
    _, who = settings_of(None, **{**_NOBODY, "user": "u", "password": "p"}, environment=there)
    assert who.must_sign_in
    assert settings_of(None, **_NOBODY, environment={})[0][0].url == "http://127.0.0.1:8080"
    assert code(settings_of, None, "t", "k", None, None, {}) is ErrorCode.INVALID_ARGUMENT
    assert code(settings_of, None, None, None, "u", None, {}) is ErrorCode.INVALID_ARGUMENT
    assert code(settings_of, None, "a\r\nX: y", None, None, None, {}) is ErrorCode.INVALID_ARGUMENT
    assert "p4ss" not in repr(Credentials(None, "u", "p4ss"))


def test_timeouts() -> None:
    assert timeouts_of(2.0) == Timeouts(2.0, 2.0, 2.0)
    assert timeouts_of(100) == Timeouts(5.0, 30.0, 100)
    for wrong in (0, -1, "1", float("nan")):
        assert code(timeouts_of, wrong) is ErrorCode.INVALID_ARGUMENT
    assert code(Retries, attempts_max=0) is ErrorCode.INVALID_ARGUMENT


# When to try again


def _failure(error: ErrorCode, **details: Any) -> JadeError:
    return JadeError(error, "x", details=details)


def test_which_failures_are_tried_again() -> None:
    retries = Retries(attempts_max=3, backoff_s=0.1, backoff_s_max=1.0)
    read: Call[Any] = Call("GET", "/", json.loads)
    create: Call[Any] = Call("POST", "/", json.loads, repeatable=False)

    def pause(call: Call[Any], error: JadeError, attempt: int = 1, left_s: float = 60.0) -> float | None:
        return retries.pause_s(call, error, attempt, left_s, 1.0)

    broken = _failure(ErrorCode.UNAVAILABLE, phase="receive")
    assert pause(read, broken) == pytest.approx(0.1)
    assert pause(read, broken, 2) == pytest.approx(0.2)
    assert pause(read, broken, 3) is None
    assert pause(create, broken) is None
    assert pause(create, _failure(ErrorCode.UNAVAILABLE, phase="connect")) is not None
    assert pause(read, _failure(ErrorCode.TIMEOUT, phase="receive")) is not None
    assert pause(read, _failure(ErrorCode.UNAVAILABLE, phase="tls")) is None
    # The server's own word: it did nothing, so everything may be tried again, after the time it names
    assert pause(create, _failure(ErrorCode.RATE_LIMITED, status=429, retry_after_s=2.0)) == 2.0
    assert pause(create, _failure(ErrorCode.RATE_LIMITED, status=429, retry_after_s=2.0), left_s=1.0) is None
    assert pause(create, _failure(ErrorCode.UNAVAILABLE, status=502)) is None
    assert pause(read, _failure(ErrorCode.UNAVAILABLE, status=502)) is not None
    for final in (ErrorCode.TIMEOUT, ErrorCode.DISK_FULL, ErrorCode.UNAUTHORIZED, ErrorCode.INTERNAL_ERROR):
        assert pause(read, _failure(final, status=503)) is None
    assert retries.pause_s(read, broken, 1, 60.0, 0.0) == pytest.approx(0.05)


def test_a_token_is_renewed_only_for_who_can_sign_in() -> None:
    call: Call[Any] = Call("GET", "/", json.loads)
    refused = _failure(ErrorCode.UNAUTHORIZED, status=401)
    assert not core(token="t").signs_in_again(call, refused, "t")
    signed_in = core(user="u", password="p")
    assert not signed_in.signs_in_again(call, refused, None)  # the password itself was refused
    signed_in.credentials.token = "old"
    assert signed_in.signs_in_again(call, refused, "old")
    assert signed_in.credentials.must_sign_in
    signed_in.credentials.token = "new"
    assert signed_in.signs_in_again(call, refused, "old")  # another thread has renewed it already
    assert signed_in.credentials.token == "new"


# Sessions and heads


def test_sessions_stand_for_everything_seen() -> None:
    assert merged("", "db~0.5") == "db~0.5"
    assert merged("db~0.5,1.2", "db~0.4,2.1") == "db~0.5,1.2,2.1"
    assert merged("db~0.5", "other~0.4") == "other~0.4"
    assert merged("db~0.5", "of a newer kind") == "of a newer kind"
    assert merged("db~0.5", "db~1." + "9" * 5000) == "db~1." + "9" * 5000  # no number: it is sent back as it came
    wide, other = ("db~" + ",".join(f"{shard}.100" for shard in range(start, start + 2000)) for start in (1000, 4000))
    assert merged(other, wide) == wide  # both would be too long for a header
    mine = core()
    stats = calls().stats()
    for value in ("db_1~0.7", "a\r\nb", "x" * 40_000):
        mine.take(stats, Answer(200, {"x-jade-session": value}, b'{"rows":1}'))
    assert mine.session("db_1") == "db_1~0.7"
    assert b"\r\nX-Jade-Session: db_1~0.7\r\n" in mine.head(stats, HERE)
    with pytest.raises(JadeError):  # who was told of a newer version reads no older one next
        mine.take(
            stats,
            Answer(409, {"x-jade-session": "db_1~0.9"}, b'{"code":"VERSION_CONFLICT","message":"it has version 9"}'),
        )
    assert mine.session("db_1") == "db_1~0.9"
    mine.remember("db_1", "")
    assert b"Session" not in mine.head(stats, HERE)


def test_no_thread_s_session_is_lost_over_another_s() -> None:
    """Answers that arrive at once: the session stands for all of them, and at no moment for none."""
    mine = core()
    stats = calls().stats()
    mine.remember("db_1", "db_1~99.1")

    def take(shard: int) -> bool:
        always = True
        for sequence in range(1, 300):
            mine.take(stats, Answer(200, {"x-jade-session": f"db_1~{shard}.{sequence}"}, b'{"rows":1}'))
            always = always and f"{shard}.{sequence}" in mine.session("db_1") and b"99.1" in mine.head(stats, HERE)
        return always

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(take, range(4)))
    assert sorted(mine.session("db_1").partition("~")[2].split(",")) == ["0.299", "1.299", "2.299", "3.299", "99.1"]


def test_sessions_of_many_databases_are_bounded() -> None:
    mine = core()
    for number in range(3000):
        mine.remember(f"db_{number}", f"db_{number}~0.1")
    kept = sum(bool(mine.session(f"db_{number}")) for number in range(3000))
    assert kept == 1024 and mine.session("db_2999")


def test_heads() -> None:
    head = core(token="t").head(calls().search(np.zeros(4, np.float32)), HERE)
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/v2/databases/db_1/search?k=10&recall=0.95 HTTP/1.1"
    assert {"Host: h:1", "Authorization: Bearer t", f"Content-Type: {RAW}", "Content-Length: 16"} <= set(lines)
    login = core(user="u", password="p")
    assert b"Authorization" not in login.head(login.credentials.sign_in(), HERE)


# Requests


def test_a_search_is_raw_where_it_can_be() -> None:
    query = np.arange(4, dtype=np.float32)
    call = calls().search(query, k=3, filter={"pos": "nöun"}, threshold=0.5, exact=True, include=("vector",))
    assert call.target.endswith(
        "k=3&recall=0.95&filter=%7B%22pos%22%3A%22n%C3%B6un%22%7D&threshold=0.5&include=vector&exact=true"
    )
    assert bytes(call.body[0]) == query.tobytes()
    assert (call.content_type, call.accept, call.repeatable) == (RAW, RAW, True)
    long = calls().search(query, filter={"id": {"$in": list(range(5000))}})
    assert json.loads(bytes(long.body[0]))["vector"] == [0.0, 1.0, 2.0, 3.0]
    by_id = calls().search(id="a", text="b", fusion="weighted", alpha=0.25, k=np.int64(7), explain=True)
    assert json.loads(bytes(by_id.body[0])) == {
        "recall": 0.95, "include": ["metadata"], "k": 7, "id": "a", "text": "b", "fusion": "weighted", "alpha": 0.25,
        "explain": True,
    }  # fmt: skip


def test_a_write_is_framed_and_named() -> None:
    rows = np.arange(8, dtype=np.float64).reshape(2, 4)
    moment = datetime.datetime(2024, 5, 17, tzinfo=datetime.UTC)
    call = calls().upsert(["a", "b"], rows, [{"year": np.int64(3), "at": moment}, None], if_version=[0, None])
    body = b"".join(map(bytes, call.body))
    header, sent = unframed(body, 4)
    assert json.loads(header) == {
        "ids": ["a", "b"], "metadata": [{"year": 3, "at": "2024-05-17T00:00:00Z"}, {}], "if_version": [0, None],
        "request_id": "fresh",
    }  # fmt: skip
    assert sent.tolist() == rows.tolist()
    assert call.repeatable
    mine = calls().upsert(["a"], rows[:1], request_id="mine")
    assert b'"request_id":"mine"' in bytes(mine.body[0])
    own = np.zeros((3, 4), np.float32)
    assert np.shares_memory(np.frombuffer(calls().upsert(list("abc"), own).body[1], np.float32), own)


def test_arguments_that_cannot_be_sent() -> None:
    db, row = calls(), [1.0, 2.0, 3.0, 4.0]
    assert code(db.upsert, ["a"], [[1.0, 2.0]]) is ErrorCode.DIMENSION_MISMATCH
    assert code(db.upsert, ["a", "b"], [row, [1.0]]) is ErrorCode.DIMENSION_MISMATCH
    assert code(db.upsert, ["a"], [["x"] * 4]) is ErrorCode.INVALID_VECTOR
    assert code(db.upsert, ["a"], [[True] * 4]) is ErrorCode.INVALID_VECTOR
    assert code(db.upsert, ["a"], [row, row]) is ErrorCode.INVALID_ARGUMENT
    assert code(db.upsert, "a", [row]) is ErrorCode.INVALID_ARGUMENT
    assert code(db.upsert, [1], [row]) is ErrorCode.INVALID_ID
    assert code(db.upsert, ["\ud800"], [row]) is ErrorCode.INVALID_ID
    assert code(db.upsert, ["a"], [row], [{"x": float("nan")}]) is ErrorCode.INVALID_METADATA
    assert code(db.upsert, ["a"], [row], [{}, {}]) is ErrorCode.INVALID_ARGUMENT
    assert code(db.upsert, ["a"], [row], if_version=True) is ErrorCode.INVALID_ARGUMENT
    assert code(db.search, [row, row]) is ErrorCode.INVALID_ARGUMENT
    assert code(db.search, row, k=2.5) is ErrorCode.INVALID_ARGUMENT
    assert code(db.search, row, k=None) is ErrorCode.INVALID_ARGUMENT
    assert code(db.search, row, recall=float("nan")) is ErrorCode.INVALID_ARGUMENT
    assert code(db.search, row, include=["vectors"]) is ErrorCode.INVALID_ARGUMENT
    assert code(db.search, [float("nan")] * 4, text="x") is ErrorCode.INVALID_VECTOR
    assert code(db.search, row, filter={"a": {"$in": {1, float("inf")}}}) is ErrorCode.INVALID_FILTER
    assert code(db.delete) is ErrorCode.INVALID_ARGUMENT
    assert code(db.delete, filter={}) is ErrorCode.INVALID_ARGUMENT
    assert code(db.search, row, id="\ud800") is ErrorCode.INVALID_ARGUMENT


# Filters


def test_filters_mean_the_same_on_the_other_side() -> None:
    moment = datetime.datetime(2024, 5, 17, 12, 30, 1, 5, tzinfo=datetime.UTC)
    conditions = [
        F("a") == 1,
        F("a") != "x",
        (F("a") > 1.5) & (F("b") <= moment) | ~F("c").exists(),
        F("a").between(1, 2, low_included=False) & F("b").between(None, moment, high_included=False),
        F("a").is_in([1, "x", True, None, moment]) & F("a").not_in([False]),
        F("a.b").contains("x") & F("a").prefix("y") & F("a").matches("^z+$"),
        F("d") == datetime.date(1, 1, 1),
    ]
    for condition in conditions:
        sent = json.loads(json.dumps(document(condition)))
        assert parse(sent) == condition
    given = {"a": {"$lt": moment}, "b": np.int64(3), "c": (1, 2)}
    assert parse(json.loads(json.dumps(wire_form(given)))) == parse(given)
    plain = {"a": {"$gte": 1}, "b": [True, None, "x"]}
    assert wire_form(plain) is plain
    assert wire_form({}) is None
    assert wire_form(None) is None
    assert code(wire_form, {"a": float("nan")}) is ErrorCode.INVALID_FILTER
    assert code(wire_form, {"a": {"$lt": object()}}) is ErrorCode.INVALID_FILTER
    deep: dict[str, Any] = {"a": 1}
    for _ in range(5000):
        deep = {"$not": deep}
    assert code(wire_form, deep) is ErrorCode.INVALID_FILTER


def test_dates_and_open_ranges_in_the_dict_form() -> None:
    moment = datetime.datetime(2024, 5, 17, tzinfo=datetime.UTC)
    assert parse({"a": {"$date": "2024-05-17"}}) == (F("a") == moment)
    assert parse({"a": [{"$date": "2024-05-17"}]}) == F("a").is_in([moment])
    assert parse({"a": {"$range": {"$gt": 1, "$lte": 2}}}) == F("a").between(1, 2, low_included=False)
    assert parse({"a": {"$range": {"$lt": 2}}}) == F("a").between(None, 2, high_included=False)
    for wrong in (
        {"$date": "soon"},
        {"$date": 5},
        {"$range": {"$gt": 1, "$gte": 2}},
        {"$range": {}},
        {"$range": {"$eq": 1}},
    ):
        assert code(parse, {"a": wrong}) is ErrorCode.INVALID_FILTER


# Answers


def test_errors_of_the_server_become_errors() -> None:
    call: Call[Any] = Call("GET", "/x?y", read_as(dict))

    def error(status: int, body: bytes, **headers: str) -> JadeError:
        with pytest.raises(JadeError) as raised:
            result(call, Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body))
        return raised.value

    precise = error(
        404, b'{"error":"NOT_FOUND","code":"UNKNOWN_DATABASE","message":"m","details":{"name":"x"}}', x_request_id="r1"
    )
    assert (precise.code, precise.message) == (ErrorCode.UNKNOWN_DATABASE, "m")
    assert precise.details == {"name": "x", "status": 404, "request_id": "r1"}
    assert error(413, b'{"error":"PAYLOAD_TOO_LARGE","message":"m"}').code is ErrorCode.REQUEST_TOO_LARGE
    assert error(400, b'{"code":"OF_THE_FUTURE","message":"m"}').code is ErrorCode.INVALID_ARGUMENT
    assert error(500, b'{"error":"INTERNAL_ERROR","message":"m"}').code is ErrorCode.INTERNAL_ERROR
    busy = error(429, b"", retry_after="7")
    assert (busy.code, busy.details["retry_after_s"], busy.retryable) == (ErrorCode.RATE_LIMITED, 7.0, True)
    proxy = error(502, b"<html>\x00bad\xff gateway</html>")
    assert proxy.code is ErrorCode.UNAVAILABLE
    assert "bad" in proxy.message
    assert "https://other" in error(308, b"", location="https://other/").message
    assert error(200, b"<html>").code is ErrorCode.IO_ERROR
    assert error(418, b"[]").code is ErrorCode.INVALID_ARGUMENT


def test_answers_that_do_not_fit_are_refused() -> None:
    get = calls().get(["a"])
    header, rows = framed(b'{"vectors":[{"id":"a","version":1}]}', np.ones((1, 4), np.float32))
    (item,) = get.read(header + bytes(rows))
    assert item is not None
    assert item.vector.tolist() == [1.0] * 4
    assert not item.vector.flags.writeable
    with pytest.raises(JadeError) as not_asked:
        item.metadata
    assert "include" in not_asked.value.message
    for wrong in (b"", b"\xff\xff\xff\xff", header, header + bytes(rows)[:-1], header + bytes(rows) * 2):
        assert code(get.read, wrong) is ErrorCode.IO_ERROR


def test_bits_come_back_as_bits() -> None:
    db = calls(3, "hamming")
    header, rows = framed(b'{"vectors":[{"id":"a","version":1}]}', np.array([[1, 0, 1]], np.float32))
    (item,) = db.get(["a"]).read(header + bytes(rows))
    assert item is not None
    assert item.vector.dtype == np.uint8
    assert bytes(db.search([True, False, True]).body[0]) == np.array([1, 0, 1], np.float32).tobytes()


def test_using_the_client_loads_no_engine() -> None:
    """Neither faiss nor anything of the engine, and not the engine's exporters, is imported with the client."""
    program = (
        "import sys, jadevectordb as jade\n"
        "assert 'numpy' not in sys.modules\n"
        "jade.Client, jade.AsyncClient\n"
        "loaded = {name for name in sys.modules if name.startswith('jadevectordb.')}\n"
        "own = 'jadevectordb.client', 'jadevectordb.model', 'jadevectordb.prepared_structs'\n"
        "wrong = [name for name in loaded if not name.startswith(own)]\n"
        "assert not wrong, wrong\n"
        "assert not {'faiss', 're2', 'tantivy', 'rich', 'click'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
