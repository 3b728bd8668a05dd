"""What a program sees is the same, whether it opens a folder or asks a server: these tests run over both, and over tasks too.

`remote` is a `Client` to a real server process, `tasks` an `AsyncClient` to the same. Failures must carry the same codes.
"""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving

import jadevectordb as jade
from jadevectordb import ErrorCode, F, JadeError

DIMENSION = 8
SCHEMA = {"year": "integer", "seen": "date", "body": "text", "tags": "string[]"}
WORDS = ("jade", "stone", "green", "river", "carving", "mountain", "smooth", "polished")


class Tasks:
    """An asynchronous client or database used as if it were the other kind: every call runs to its end on a loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, subject: Any) -> None:
        self._loop = loop
        self._subject = subject

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._subject, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            made = value(*arguments, **options)
            if hasattr(made, "__aiter__"):
                return self._loop.run_until_complete(_listed(made))
            found = self._loop.run_until_complete(made)
            return Tasks(self._loop, found) if isinstance(found, jade.client.AsyncDatabase) else found

        return call

    def __len__(self) -> int:
        return self.count()  # type: ignore[no-any-return]

    def __contains__(self, vector_id: str) -> bool:
        return self.exists(vector_id)  # type: ignore[no-any-return]


async def _listed(made: Any) -> list[Any]:
    return [item async for item in made]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("contract") / "data") as running:
        yield running


@pytest.fixture(params=["embedded", "remote", "tasks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "embedded":
        with jade.open(tmp_path / "store") as opened:
            yield opened
        return
    url = request.getfixturevalue("server").url
    with jade.Client(url) as client:
        for name in client.databases():
            client.drop_database(name)
        if request.param == "remote":
            yield client
            return
    loop = asyncio.new_event_loop()
    asynchronous = jade.AsyncClient(url)
    yield Tasks(loop, asynchronous)
    loop.run_until_complete(asynchronous.close())
    loop.close()


def vectors(count: int, seed: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def record(i: int) -> dict[str, Any]:
    return {
        "year": 1990 + i % 30,
        "seen": datetime.date(2024, 1, 1 + i % 28),
        "body": " ".join(WORDS[(i + j) % len(WORDS)] for j in range(1 + i % 4)),
        "tags": [WORDS[i % 8], "ümlaut 玉"],
        "nested": {"big": 10**25 + i, "none": None, "float": i / 7},
    }


@pytest.fixture()
def words(store: Any) -> Any:
    made = store.create_database("words", DIMENSION, schema=SCHEMA)
    made.upsert([f"w{i}" for i in range(200)], vectors(200), [record(i) for i in range(200)])
    return made


def failing(function: Callable[..., Any], *arguments: Any, **options: Any) -> ErrorCode:
    with pytest.raises(JadeError) as raised:
        function(*arguments, **options)
    assert raised.value.message
    return raised.value.code


# Databases


def test_databases_are_made_listed_and_dropped(store: Any) -> None:
    assert store.databases() == []
    made = store.create_database("a", 4, "euclidean", 2, "flat", {"pos": "string"}, strict=True)
    assert (made.name, made.dimension, made.metric) == ("a", 4, "euclidean")
    same = store.create_database("a", 4, "euclidean", 2, "flat", {"pos": "string"}, strict=True, exist_ok=True)
    assert same.name == "a"
    assert failing(store.create_database, "a", 4) is ErrorCode.ALREADY_EXISTS
    assert failing(store.create_database, "a", 5, exist_ok=True) is ErrorCode.ALREADY_EXISTS
    assert failing(store.create_database, "b", 0) is ErrorCode.INVALID_ARGUMENT
    assert failing(store.create_database, "b", 4, "manhattan") is ErrorCode.INVALID_ARGUMENT
    assert failing(store.create_database, "b", 4, schema={"x": "strin"}) is ErrorCode.INVALID_ARGUMENT
    assert failing(store.create_database, "", 4) is ErrorCode.INVALID_ARGUMENT
    store.create_database("b", 4)
    assert sorted(store.databases()) == ["a", "b"]
    assert store.database("a").metric == "euclidean"
    described = store.describe("a")
    assert (described.name, described.dimension, described.shards, str(described.metric)) == ("a", 4, 2, "euclidean")
    store.drop_database("a")
    assert store.databases() == ["b"]
    assert failing(store.database, "a") is ErrorCode.UNKNOWN_DATABASE
    assert failing(store.drop_database, "a") is ErrorCode.UNKNOWN_DATABASE


# Writing and reading


def test_what_is_stored_comes_back_to_the_last_bit(words: Any) -> None:
    sent = vectors(200)
    items = words.get([f"w{i}" for i in range(200)])
    assert all(np.array_equal(item.vector, row) for item, row in zip(items, sent, strict=True))
    assert all(item.vector.dtype == np.float32 and not item.vector.flags.writeable for item in items)
    expected = [{**record(i), "seen": record(i)["seen"].isoformat()} for i in range(200)]
    assert [item.metadata for item in items] == expected
    assert len({item.version for item in items}) == 1
    assert words.get("w3").id == "w3"
    assert words.get("nobody") is None
    assert words.get(["w1", "nobody", "w1"])[1] is None
    assert words.get([]) == []
    assert words.exists("w1") and not words.exists("nobody")
    assert words.exists(["w1", "nobody"]) == [True, False]
    assert "w1" in words and len(words) == 200


def test_ids_of_every_kind(words: Any) -> None:
    ids = ["a/b", "a b+c", "100%", "ümlaut 玉 🪨", "..", "?x=1#y", "x" * 512, '"quoted\\']
    words.upsert(ids, vectors(len(ids)), [{"i": i} for i in range(len(ids))])
    assert [item.metadata["i"] for item in words.get(ids)] == list(range(len(ids)))
    assert words.search(id=ids[3], k=3, filter={"i": {"$exists": True}}).ids[0] in ids
    assert words.delete(ids).count == len(ids)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8"])
def test_vectors_of_any_numbers(store: Any, dtype: str) -> None:
    made = store.create_database("numbers", 3, "dot")
    rows = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    made.upsert(["a", "b"], rows[::-1])
    assert made.get("a").vector.tolist() == [4.0, 5.0, 6.0]
    assert made.search(rows[1]).ids == ["a", "b"]
    made.upsert(["c"], [[7, 8.5, 9]])
    made.upsert(["d"], [7, 8.5, 9])
    assert made.get("d").vector.tolist() == [7.0, 8.5, 9.0]


def test_bits(store: Any) -> None:
    made = store.create_database("bits", 11, "hamming")
    rows = np.random.default_rng(0).integers(0, 2, (20, 11), np.uint8)
    made.upsert([str(i) for i in range(20)], rows)
    item = made.get("7")
    assert item.vector.dtype == np.uint8
    assert np.array_equal(item.vector, rows[7])
    found = made.search(rows[7].astype(bool), k=1)
    assert found[0].score == 1.0
    assert failing(made.upsert, ["x"], [[2] * 11]) is ErrorCode.INVALID_VECTOR


def test_writes_with_conditions(words: Any) -> None:
    version = words.get("w1").version
    row = vectors(1)
    assert failing(words.upsert, ["w1"], row, if_version=0) is ErrorCode.VERSION_CONFLICT
    assert failing(words.upsert, ["w1", "new"], vectors(2), if_version=[version, 5]) is ErrorCode.VERSION_CONFLICT
    result = words.upsert(["w1", "new", "w2"], vectors(3), if_version=[version, 0, None])
    assert (result.count, result.duplicate) == (3, False)
    assert words.get("new").version == result.version > version
    assert words.delete("new", if_version=result.version).count == 1
    assert failing(words.delete, ["w1"], if_version=[version]) is ErrorCode.VERSION_CONFLICT
    assert words.update_metadata("w1", {"x": 1}, if_version=result.version).count == 1


def test_a_request_id_is_applied_once(words: Any) -> None:
    assert words.upsert(["r"], vectors(1), request_id="once").count == 1
    words.delete(["r"])
    again = words.upsert(["r"], vectors(1), request_id="once")
    assert again.duplicate
    assert not words.exists("r")


def test_metadata_is_changed_and_vectors_deleted(words: Any) -> None:
    assert words.update_metadata(["w1", "nobody"], {"mood": "good"}).count == 1
    assert words.get("w1").metadata["mood"] == "good"
    assert words.get("w1").metadata["year"] == 1991
    words.update_metadata(["w1", "w2"], [{"only": 1}, {"only": 2}], merge=False)
    assert words.get("w2").metadata == {"only": 2}
    assert words.count({"only": {"$exists": True}}) == 2
    assert words.delete(["w1", "nobody"]).count == 1
    assert words.delete(filter=F("only") == 2).count == 1
    assert words.count() == 198
    assert failing(words.delete) is ErrorCode.INVALID_ARGUMENT
    assert failing(words.delete, filter={}) is ErrorCode.INVALID_ARGUMENT


def test_scrolling_sees_everything_once(words: Any) -> None:
    seen, cursor = [], None
    while True:
        page = words.scroll(30, cursor, {"year": {"$lt": 2010}})
        seen += page.items
        cursor = page.cursor
        if cursor is None:
            break
    assert len(seen) == len({item.id for item in seen}) == words.count(F("year") < 2010) > 100
    assert all(np.array_equal(item.vector, vectors(200)[int(item.id[1:])]) for item in seen)
    assert [item.id for item in words.items(F("year") == 1999)] == [i.id for i in seen if i.metadata["year"] == 1999]


# Searching


def test_searches_find_the_same(words: Any, tmp_path: Path) -> None:
    """Against an embedded database of the same contents: ids, scores to the last bit, metadata."""
    query = vectors(1, seed=9)[0]
    moment = datetime.datetime(2024, 1, 15, tzinfo=datetime.UTC)
    options: list[dict[str, Any]] = [
        {},
        {"k": 3, "recall": 1.0},
        {"k": 200, "exact": True},
        {"filter": {"year": {"$gte": 2000}, "tags": "jade"}},
        {
            "filter": (F("year") >= 2000) & ~F("tags").contains("jade")
            | F("seen").between(moment, None, low_included=False)
        },
        {"filter": {"nested.big": 10**25 + 7}},
        {"filter": {"seen": {"$lt": moment}}},
        {"threshold": 0.3},
        {"max_distance": 0.8, "k": None},
        {"text": "green river"},
        {"text": "green river", "fusion": "weighted", "alpha": 0.25, "k": 20},
        {"group_by": "year", "group_size": 2, "k": 4},
        {"nprobe": 3, "candidates": 50},
    ]
    with jade.open(tmp_path / "reference") as opened:
        reference = opened.create_database("words", DIMENSION, schema=SCHEMA)
        reference.upsert([f"w{i}" for i in range(200)], vectors(200), [record(i) for i in range(200)])
        for option in options:
            expected, found = reference.search(query, **option), words.search(query, **option)
            assert found.ids == expected.ids, option
            assert found.scores == expected.scores, option
            assert [hit.metadata for hit in found] == [hit.metadata for hit in expected]
        for expected, found in (
            (reference.search(id="w5", k=4), words.search(id="w5", k=4)),
            (reference.search(text="smooth stone"), words.search(text="smooth stone")),
        ):
            assert (found.ids, found.scores) == (expected.ids, expected.scores)
        for expected, found in zip(
            reference.search_batch(vectors(7, 11), k=5, filter=F("year") > 1995),
            words.search_batch(vectors(7, 11), k=5, filter=F("year") > 1995),
            strict=True,
        ):
            assert found.ids == expected.ids
            assert found.scores == pytest.approx(expected.scores, rel=1e-6)
        plan = words.explain(query, k=3)
        assert plan.keys() == reference.explain(query, k=3).keys()
        assert plan["segments"][0].keys() == reference.explain(query, k=3)["segments"][0].keys()


def test_a_filter_of_many_values(words: Any) -> None:
    wanted = {"year": {"$in": [*range(1990, 1995), *range(5000, 9000)]}}
    assert words.count(wanted) == 35
    assert len(words.search(vectors(1)[0], k=100, filter=wanted)) == 35


def test_what_is_wrong_is_refused_alike(words: Any) -> None:
    row = vectors(1)[0]
    bad = row.copy()
    bad[2] = np.nan
    search, upsert = words.search, words.upsert
    assert failing(upsert, ["a"], [row[:3]]) is ErrorCode.DIMENSION_MISMATCH
    assert failing(upsert, ["a"], [bad]) is ErrorCode.INVALID_VECTOR
    assert failing(upsert, ["a"], [np.zeros(DIMENSION)]) is ErrorCode.INVALID_VECTOR
    assert failing(upsert, ["a"], [np.full(DIMENSION, 1e300)]) is ErrorCode.INVALID_VECTOR
    assert failing(upsert, ["a", "a"], [row, row]) is ErrorCode.DUPLICATE_ID
    assert failing(upsert, ["a\n"], [row]) is ErrorCode.INVALID_ID
    assert failing(upsert, ["x" * 513], [row]) is ErrorCode.INVALID_ID
    assert failing(upsert, [5], [row]) is ErrorCode.INVALID_ID
    assert failing(upsert, ["\ud800"], [row]) is ErrorCode.INVALID_ID
    assert failing(upsert, ["a"], [row], [{"year": "old"}]) is ErrorCode.SCHEMA_VIOLATION
    assert failing(upsert, ["a"], [row], [{"x": object()}]) is ErrorCode.INVALID_METADATA
    assert failing(upsert, ["a"], [row], [{"x": float("inf")}]) is ErrorCode.INVALID_METADATA
    assert failing(upsert, ["a"], [row], ["text"]) is ErrorCode.INVALID_METADATA
    assert failing(upsert, ["a"], [row], if_version=-1) is ErrorCode.INVALID_ARGUMENT
    assert failing(search, row[:3]) is ErrorCode.DIMENSION_MISMATCH
    assert failing(search, bad) is ErrorCode.INVALID_VECTOR
    assert failing(search) is ErrorCode.INVALID_ARGUMENT
    assert failing(search, row, id="w1") is ErrorCode.INVALID_ARGUMENT
    assert failing(search, id="nobody") is ErrorCode.NOT_FOUND
    for wrong in (
        {"k": 0},
        {"k": 10**9},
        {"k": 2.5},
        {"recall": 0.0},
        {"recall": 2.0},
        {"nprobe": 0},
        {"alpha": 3.0, "text": "x"},
    ):
        assert failing(search, row, **wrong) is ErrorCode.INVALID_ARGUMENT, wrong
    assert failing(search, row, threshold=0.1, max_distance=0.1) is ErrorCode.INVALID_ARGUMENT
    for wrong in ({"a": {"$near": 1}}, {"$or": []}, {"a": {"$in": "x"}}, {"a": float("nan")}, {"year": "2000"}):
        assert failing(search, row, filter=wrong) is ErrorCode.INVALID_FILTER, wrong
    assert words.count() == 200


# Looking after it


def test_statistics_and_waiting(words: Any) -> None:
    words.delete(["w0"])
    words.wait_indexed(timeout=120)
    stats = words.stats()
    assert (stats.rows, stats.indexed_rows, stats.trouble) == (199, 199, "")
    assert sum(segment.live for segment in stats.segments) == 199
    assert stats.as_dict()["rows"] == 199
    words.compact()
    assert words.stats().dead_rows == 0


# Remote only


def test_many_rows_in_batches(server: ServerProcess, tmp_path: Path) -> None:
    with jade.Client(server.url) as client:
        db = client.create_database("many", DIMENSION)
        rows = [(f"m{i % 4500}", row, {"i": i}) for i, row in enumerate(vectors(5000))]
        report = db.upsert_many(rows, batch_rows=300, parallel=4)
        assert (report.rows, report.batches) == (5000, 17)
        assert db.count() == 4500
        assert all(
            item.metadata["i"] == int(item.id[1:]) + (4500 if int(item.id[1:]) < 500 else 0) for item in db.items()
        )


def test_a_bulk_upsert_goes_on_where_it_was(server: ServerProcess, tmp_path: Path) -> None:
    with jade.Client(server.url) as client:
        db = client.create_database("resumed", DIMENSION)
        progress = tmp_path / "progress.json"
        good = [(f"m{i}", row, {"i": i}) for i, row in enumerate(vectors(1000))]
        broken = [*good[:650], ("m650", [1.0], {}), *good[651:]]
        with pytest.raises(JadeError) as stopped:
            db.upsert_many(broken, batch_rows=100, resume=progress)
        assert stopped.value.code is ErrorCode.DIMENSION_MISMATCH
        assert (stopped.value.details["row"], stopped.value.details["rows_done"]) == (650, 600)
        assert db.count() == 600
        with pytest.raises(JadeError, match="not the same rows"):
            db.upsert_many([("other", good[0][1]), *good[1:]], batch_rows=100, resume=progress)
        with pytest.raises(JadeError, match="batches of"):
            db.upsert_many(good, batch_rows=50, resume=progress)
        read = []
        report = db.upsert_many((read.append(row[0]) or row for row in good), batch_rows=100, resume=str(progress))
        assert (report.rows, report.rows_before, report.batches, len(read)) == (1000, 600, 4, 1000)
        assert db.count() == 1000
        assert not progress.exists()

        async def once_more() -> None:
            async def source() -> Any:
                for row in good:
                    yield {"id": row[0], "vector": row[1]}

            async with jade.AsyncClient(server.url) as asynchronous:
                target = await asynchronous.database("resumed")
                report = await target.upsert_many(source(), batch_rows=128)
                assert (report.rows, report.batches) == (1000, 8)

        asyncio.run(once_more())
        assert db.get("m5").metadata == {}


def test_a_database_is_kept_to_by_its_id(server: ServerProcess) -> None:
    with jade.Client(server.url) as client:
        db = client.create_database("before", 3)
        client.call("PATCH", f"/v2/databases/{db.id}", {"name": "after"})
        db.upsert(["a"], [[1, 2, 3]])
        assert client.database("after").get("a").vector.tolist() == [1.0, 2.0, 3.0]
        assert db.describe().name == "after"
        client.drop_database(db.id)
        assert failing(db.count) is ErrorCode.UNKNOWN_DATABASE
        assert failing(db.upsert, ["a"], [[1, 2, 3]]) is ErrorCode.UNKNOWN_DATABASE


def test_sessions_are_carried(server: ServerProcess) -> None:
    with jade.Client(server.url) as client, jade.Client(server.url, retries=jade.Retries(attempts_max=1)) as other:
        db = client.create_database("sessions", 3, shards=3)
        threads = [
            threading.Thread(target=lambda i=i: db.upsert([f"{i}-{j}" for j in range(9)], np.ones((9, 3))))
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        marks = dict(pair.split(".") for pair in db.session.partition("~")[2].split(","))
        assert [int(marks[str(shard)]) for shard in range(3)] == db.stats().watermarks
        there = other.database("sessions")
        there.session = db.session
        assert there.count() == 72
        there.session = f"{db.id}~0.999999"
        assert failing(there.count) is ErrorCode.UNAVAILABLE


def test_who_calls(tmp_path: Path) -> None:
    password = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}
    with serving(tmp_path / "data", auth="required", env=password) as server:
        url = server.url
        with jade.Client(url, retries=jade.Retries(attempts_max=1)) as nobody:
            assert failing(nobody.databases) is ErrorCode.UNAUTHORIZED
        with jade.Client(url, user="admin", password="wrong wrong") as wrong:
            assert failing(wrong.databases) is ErrorCode.UNAUTHORIZED
        with jade.Client(url, user="admin", password=ADMIN_PASSWORD) as admin:
            db = admin.create_database("mine", 3)
            key = admin.call("POST", "/v1/api-keys", {"description": "reader", "permissions": ["read"]})
            with jade.Client(url, api_key=key["api_key"]) as reader:
                assert reader.databases() == ["mine"]
                assert failing(reader.database("mine").upsert, ["a"], [[1, 2, 3]]) is ErrorCode.FORBIDDEN
                assert failing(reader.drop_database, "mine") is ErrorCode.FORBIDDEN
                admin.call("DELETE", f"/v1/api-keys/{key['key_id']}")
                assert failing(reader.databases) is ErrorCode.UNAUTHORIZED
            admin.call("POST", "/v1/auth/logout")
            assert db.count() == 0  # signs in again by itself
        assert ADMIN_PASSWORD not in server.log()


def test_a_restart_is_ridden_out(tmp_path: Path) -> None:
    """A server that is killed and comes back on the same port: writes are sent again and applied once."""
    with serving(tmp_path / "data") as first:
        port = first.url.rpartition(":")[2]
        client = jade.Client(first.url, retries=jade.Retries(10, 0.2, 60.0), timeout=jade.Timeouts(5.0, 30.0, 300.0))
        db = client.create_database("kept", 3)
        db.upsert(["a"], [[1, 2, 3]])
        first.kill()
        done: list[Any] = []
        writer = threading.Thread(target=lambda: done.append(db.upsert(["b"], [[1, 2, 4]])))
        writer.start()
        with serving(tmp_path / "data", "--port", port) as second:
            assert second.url == first.url
            writer.join()
            assert done[0].count == 1
            assert {item.id for item in db.items()} == {"a", "b"}
        client.close()
