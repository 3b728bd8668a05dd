"""Altering a database while it is in use: what it answers before, meanwhile and after, and every way it is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.unit.test_store_surface import refuses

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.open_database import OpenDatabase

ROWS = 1500
DIMENSION = 16
NUMBERS = np.random.default_rng(11)
VECTORS = NUMBERS.standard_normal((ROWS, DIMENSION)).astype(np.float32)
IDS = [f"v{n:04}" for n in range(ROWS)]
WORDS = ("amber", "basalt", "cedar", "delta")


class NoBuilders:
    """The compute port of a database whose background work never gets anywhere: what an alteration leaves stays as it is."""

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        raise JadeError(ErrorCode.TIMEOUT, "Nothing is built here.")

    def interrupt(self) -> None:
        pass

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


def metadata_of(n: int) -> dict[str, Any]:
    return {
        "n": n,
        "day": f"2024-0{1 + n % 9}-01T00:00:00Z",
        "body": f"{WORDS[n % 4]} {WORDS[n % 3]}",
        "mixed": [n, str(n)][n % 2],
    }


def store_at(path: Path, make_compute: Any = InlineCompute) -> jade.Store:
    path.mkdir(exist_ok=True)
    return jade.Store(path, RealWorld(make_compute))


def filled(store: jade.Store, **options: Any) -> jade.Database:
    """Segments on disk, tombstones in them, changed rows, and rows that are still growing."""
    database = store.create_database("d", DIMENSION, **{"seal_rows": 400, **options})
    database.upsert(IDS, VECTORS, [metadata_of(n) for n in range(ROWS)])
    database.delete(IDS[::10])
    database.update_metadata(IDS[1:9], {"changed": True})
    return database


@pytest.fixture
def store(tmp_path: Path) -> Iterator[jade.Store]:
    with store_at(tmp_path / "store") as opened:
        yield opened


LIVE = np.array([n for n in range(ROWS) if n % 10])


def brute(query: npt.NDArray[np.float32], among: npt.NDArray[np.int64], k: int = 10) -> list[str]:
    unit = VECTORS[among] / np.linalg.norm(VECTORS[among], axis=1, keepdims=True)
    order = np.argsort(-(unit @ (query / np.linalg.norm(query))), kind="stable")[:k]
    return [IDS[n] for n in among[order]]


def recall_of(database: jade.Database, **options: Any) -> float:
    queries = np.random.default_rng(3).standard_normal((40, DIMENSION)).astype(np.float32)
    return float(np.mean([len(set(database.search(q, **options).ids) & set(brute(q, LIVE))) / 10 for q in queries]))


def check(database: jade.Database) -> None:
    """Everything that does not depend on how the database is configured."""
    assert database.count() == len(LIVE)
    queries = np.random.default_rng(5).standard_normal((5, DIMENSION)).astype(np.float32)
    for query in queries:
        assert database.search(query, recall=1.0).ids == brute(query, LIVE)
        few = LIVE[(LIVE % 7) == 3]
        found = database.search(query, filter={"n": {"$in": few.tolist()}}, recall=1.0).ids
        assert found == brute(query, few)
    assert database.count({"changed": True}) == 8
    assert database.get("v0002") is not None and database.get("v0000") is None
    database.verify()


def kinds(database: jade.Database) -> set[str]:
    """Of the segments that are large enough for a structure."""
    return {segment.index for segment in database.stats().segments if segment.disk_bytes and segment.rows >= 256}


# Indexes


@pytest.mark.parametrize("new", ["FLAT", "IVF", "HNSW", "LSH"])
def test_another_index(store: jade.Store, new: str) -> None:
    database = filled(store, index="IVF" if new != "IVF" else "FLAT")
    database.wait_indexed()
    before = database.digest()
    assert store.alter_database("d", index=new) is database
    check(database)
    assert database.digest() == before
    assert database.config.index == new == store.describe("d").index
    database.wait_indexed()
    assert kinds(database) == {new}
    check(database)
    assert recall_of(database) >= 0.9
    assert database.stats().rows_to_build == 0


def test_segments_are_searched_with_the_index_they_have_until_they_are_rebuilt(tmp_path: Path) -> None:
    with store_at(tmp_path / "store") as store:
        filled(store, index="IVF").wait_indexed()
    with store_at(tmp_path / "store", NoBuilders) as store:
        database = store.alter_database("d", index="HNSW", index_parameters={"M": 8})
        assert kinds(database) == {"IVF"}
        assert database.stats().rows_to_build > 1000
        check(database)
        assert recall_of(database) >= 0.9
    with store_at(tmp_path / "store") as store:
        database = store.database("d")
        database.wait_indexed()
        assert kinds(database) == {"HNSW"}
        check(database)


def lists_of(database: jade.Database, vector: npt.NDArray[np.float32], **options: Any) -> set[tuple[int, int, int]]:
    segments = database.explain(vector, **options)["segments"]
    return {(s["nprobe"], s["ef_search"], s["compared"]) for s in segments if s["strategy"] == "index"}


def test_search_parameters_are_the_default_and_a_search_may_ask_otherwise(store: jade.Store) -> None:
    database = filled(store, index="IVF", index_parameters={"nlist": 20, "nprobe": 3})
    database.wait_indexed()
    probed = {nprobe for nprobe, _, _ in lists_of(database, VECTORS[1])}
    assert probed == {3}
    assert {nprobe for nprobe, _, _ in lists_of(database, VECTORS[1], nprobe=5)} == {5}
    assert not lists_of(database, VECTORS[1], recall=1.0)
    folders = sorted(store.path.glob("db-*/shard-*/0*"))
    store.alter_database("d", index_parameters={"nlist": 20, "nprobe": 7})
    database.wait_indexed()
    assert {nprobe for nprobe, _, _ in lists_of(database, VECTORS[1])} == {7}
    assert sorted(store.path.glob("db-*/shard-*/0*")) == folders, "search parameters alone rebuild nothing"
    assert [hits.ids for hits in database.search_batch(VECTORS[1:4])] == [database.search(v).ids for v in VECTORS[1:4]]
    store.alter_database("d", index_parameters={"nlist": 20, "nprobe": 20})
    assert recall_of(database) > 0.99
    check(database)


def test_few_lists_never_mean_few_hits(store: jade.Store) -> None:
    database = filled(store, index="IVF", index_parameters={"nlist": 100, "nprobe": 1})
    database.wait_indexed()
    assert len(database.search(VECTORS[1], k=500)) == 500
    assert len(database.search(VECTORS[1], k=50, filter={"n": {"$lt": 100}})) == 50
    assert len(database.search(VECTORS[1], k=500, filter={"n": {"$lt": 100}})) == 90


@pytest.mark.parametrize(
    ("index", "parameters"),
    [
        ("HNSW", {"M": 2, "efConstruction": 4, "efSearch": 1}),
        ("HNSW", {"M": 64, "efConstruction": 400, "efSearch": 500}),
        ("IVF", {"nlist": 1, "nprobe": 1}),
        ("IVF", {"nlist": 65536, "nprobe": 40}),
        ("LSH", {"numTables": 1, "numBits": 1}),
        ("LSH", {"numTables": 10, "numBits": 20}),
        ("LSH", {"numBits": 128}),
    ],
)
def test_parameters_at_both_ends(store: jade.Store, index: str, parameters: dict[str, int]) -> None:
    database = filled(store, index=index)
    database.wait_indexed()
    old = sorted(store.path.glob("db-*/shard-*/0*"))
    store.alter_database("d", index_parameters=parameters)
    assert dict(database.config.index_parameters) == parameters
    database.wait_indexed()
    assert kinds(database) == {index}
    assert not set(old) & set(store.path.glob("db-*/shard-*/0*")), "build parameters rebuild every segment"
    check(database)
    assert all(len(database.search(v, k=20)) == 20 for v in VECTORS[:5])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"index": "BTREE"}, ["BTREE"]),
        ({"index": "HNSW", "index_parameters": {"m": 16}}, ["'m'", "efSearch"]),
        ({"index": "HNSW", "index_parameters": {"nlist": 16}}, ["nlist", "HNSW"]),
        ({"index": "HNSW", "index_parameters": {"M": 1}}, ["M", "2 to"]),
        ({"index": "HNSW", "index_parameters": {"M": 16.0}}, ["integer"]),
        ({"index": "HNSW", "index_parameters": {"M": True}}, ["integer"]),
        ({"index": "HNSW", "index_parameters": {"efSearch": 0}}, ["efSearch"]),
        ({"index": "HNSW", "index_parameters": {"efConstruction": 10**6}}, ["efConstruction"]),
        ({"index": "IVF", "index_parameters": {"nlist": 0}}, ["nlist"]),
        ({"index": "IVF", "index_parameters": {"nlist": 4, "nprobe": 5}}, ["nprobe", "nlist"]),
        ({"index": "LSH", "index_parameters": {"numTables": 256, "numBits": 1024}}, ["times"]),
        ({"index": "FLAT", "index_parameters": {"M": 16}}, ["none"]),
        ({"index": "AUTO", "index_parameters": {"nprobe": 1}}, ["none"]),
        ({"index_parameters": [("M", 16)]}, ["dict"]),
        ({"schema": {"a": "varchar"}}, ["varchar"]),
        ({"schema": {f"t{n}": "text" for n in range(17)}}, ["16"]),
        ({"dimension": 0}, ["dimension"]),
        ({"dimension": "3"}, ["dimension"]),
        ({"dimension": True}, ["dimension"]),
    ],
)
def test_what_can_not_be_is_refused_when_creating_and_when_altering(
    store: jade.Store, options: dict[str, Any], words: list[str]
) -> None:
    database = store.create_database("d", 3)
    before = database.config
    refuses(lambda: store.alter_database("d", **options), "INVALID_ARGUMENT", *words)
    assert database.config == before == store.describe("d")
    if "dimension" not in options and "schema" not in options:
        refuses(lambda: store.create_database("e", 3, **options), "INVALID_ARGUMENT", *words)


def test_parameters_belong_to_their_index(store: jade.Store) -> None:
    database = store.create_database("d", 3, index="HNSW", index_parameters={"efSearch": 50, "M": 8})
    assert list(database.config.index_parameters) == ["M", "efSearch"]
    refuses(lambda: store.create_database("d", 3, index="HNSW", exist_ok=True), "ALREADY_EXISTS", "index_parameters")
    store.alter_database("d", schema={"a": "integer"})
    assert database.config.index_parameters == {"M": 8, "efSearch": 50}
    store.alter_database("d", index_parameters={"M": 4})
    assert database.config.index_parameters == {"M": 4}
    store.alter_database("d", index="HNSW")
    assert database.config.index_parameters == {"M": 4}
    store.alter_database("d", index="IVF")
    assert database.config.index_parameters == {}
    refuses(lambda: store.alter_database("x", index="IVF"), "UNKNOWN_DATABASE")


# Schema


@pytest.mark.parametrize("make_compute", [InlineCompute, NoBuilders])
def test_fields_declared_later_are_filtered_and_searched_at_once(tmp_path: Path, make_compute: Any) -> None:
    with store_at(tmp_path / "store") as store:
        filled(store, schema={"day": "string"}).wait_indexed()
    with store_at(tmp_path / "store", make_compute) as store:
        database = store.database("d")
        refuses(lambda: database.search(text="cedar"), "UNKNOWN_FIELD")
        # As strings these compare letter by letter; as dates they are moments, however written.
        late = {"day": {"$gte": "2024-05-01T02:00:00+02:00"}}
        as_text = database.count(late)
        store.alter_database("d", schema={"day": "date", "n": "integer", "body": "text"})
        expected = [n for n in LIVE.tolist() if n % 9 >= 4]
        assert database.count(late) == len(expected) != as_text
        assert {item.id for item in database.items(late)} == {IDS[n] for n in expected}
        having = {IDS[n] for n in LIVE.tolist() if n % 4 == 2 or n % 3 == 2}
        assert {hit.id for hit in database.search(text="Cedars", k=5000)} == having
        hits = database.search(VECTORS[1], text="cedar", filter={"n": {"$lt": 50}}, k=5)
        assert len(hits) == 5
        refuses(lambda: database.upsert(["bad"], VECTORS[:1], [{"n": "x"}]), "SCHEMA_VIOLATION")
        database.upsert(["more"], VECTORS[:1], [{"n": 5, "body": "cedar"}])
        assert "more" in database.search(text="cedar", k=5000).ids
        database.delete("more")
        check(database)
        if make_compute is InlineCompute:
            database.wait_indexed()
            assert database.stats().rows_to_build == 0
            assert {hit.id for hit in database.search(text="cedar", k=5000)} == having
            scores = database.search(text="cedar basalt", k=20)
            # A database that was created like this says the same.
            same = filled_again(store)
            again = same.search(text="cedar basalt", k=20)
            assert [(h.id, pytest.approx(h.score)) for h in again] == [(h.id, h.score) for h in scores]


def filled_again(store: jade.Store) -> jade.Database:
    database = store.create_database(
        "same", DIMENSION, seal_rows=400, schema={"day": "date", "n": "integer", "body": "text"}
    )
    database.upsert(IDS, VECTORS, [metadata_of(n) for n in range(ROWS)])
    database.delete(IDS[::10])
    database.compact()
    return database


def test_text_fields_come_and_go(store: jade.Store) -> None:
    database = filled(store, schema={"body": "text"})
    database.wait_indexed()
    having = set(database.search(text="delta", k=5000).ids)
    store.alter_database("d", schema={"body": "text", "day": "text"})
    assert set(database.search(text="delta", k=5000).ids) == having
    assert len(database.search(text="2024", k=5000)) == len(LIVE)
    database.wait_indexed()
    store.alter_database("d", schema={"body": "string"})
    refuses(lambda: database.search(text="delta"), "UNKNOWN_FIELD")
    assert database.count({"body": "delta amber"}) == sum(
        metadata_of(n)["body"] == "delta amber" for n in LIVE.tolist()
    )
    database.wait_indexed()
    assert not list(store.path.glob("db-*/shard-*/0*/text*"))
    check(database)
    store.alter_database("d", schema={})
    check(database)


@pytest.mark.parametrize("settled", [True, False])
def test_what_does_not_fit_is_named_and_nothing_is_changed(store: jade.Store, settled: bool) -> None:
    database = filled(store)
    if settled:
        database.wait_indexed()
    before = database.config, database.digest()
    error = refuses(
        lambda: store.alter_database("d", schema={"mixed": "integer"}), "SCHEMA_VIOLATION", "mixed", "string"
    )
    named = database.get(error.details["id"])
    assert named is not None and isinstance(named.metadata["mixed"], str)
    refuses(lambda: store.alter_database("d", schema={"n": "text"}), "SCHEMA_VIOLATION", "declared text")
    refuses(lambda: store.alter_database("d", schema={"body": "date"}), "SCHEMA_VIOLATION", "no date")
    error = refuses(
        lambda: store.alter_database("d", schema={"n": "integer"}, strict=True), "SCHEMA_VIOLATION", "strict"
    )
    assert database.get(error.details["id"]) is not None
    assert (database.config, database.digest()) == before
    check(database)


def test_only_living_vectors_must_fit(store: jade.Store) -> None:
    database = store.create_database("d", 3, seal_rows=10)
    rows = np.random.default_rng(0).standard_normal((50, 3))
    ids = [f"v{n}" for n in range(50)]
    database.upsert(ids, rows, [{"n": "word"} for _ in ids])
    database.update_metadata(ids[25:], [{"n": n} for n in range(25)])
    database.delete(ids[:25])
    store.alter_database("d", schema={"n": "integer"}, strict=True)
    assert database.count({"n": {"$gte": 20}}) == 5
    database.wait_indexed()
    assert database.count({"n": {"$gte": 20}}) == 5
    refuses(lambda: database.upsert(["x"], rows[:1], [{"other": 1}]), "SCHEMA_VIOLATION")
    store.alter_database("d", strict=False)
    database.upsert(["x"], rows[:1], [{"other": 1}])
    assert database.count({"other": 1}) == 1


def test_a_filter_that_deleted_is_not_read_anew_under_another_schema(tmp_path: Path) -> None:
    """The log keeps filters as they were written; what they meant must not change when it is replayed."""
    with store_at(tmp_path / "store", NoBuilders) as store:
        database = store.create_database("d", 3)
        days = ["2024-05-01T00:30:00+02:00", "2024-05-01T00:00:00Z", "2024-04-30T23:59:59Z"]
        database.upsert(["a", "b", "c"], np.eye(3), [{"day": day} for day in days])
        assert database.delete(filter={"day": {"$gte": "2024-05-01T00:00:00Z"}}).count == 2  # by letters
        store.alter_database("d", schema={"day": "date"})
        assert [item.id for item in database.items()] == ["c"]
    with store_at(tmp_path / "store", NoBuilders) as store:
        assert [item.id for item in store.database("d").items()] == ["c"]


# Dimension


@pytest.mark.parametrize("metric", ["cosine", "hamming"])
def test_the_dimension_of_an_empty_database(tmp_path: Path, metric: str) -> None:
    folder = tmp_path / "store"
    with store_at(folder) as store:
        database = store.create_database("d", 8, metric, shards=2, seal_rows=20)
        ids = [f"v{n}" for n in range(100)]
        first = database.upsert(
            ids, NUMBERS.integers(0, 2, (100, 8)) if metric == "hamming" else NUMBERS.random((100, 8))
        )
        error = refuses(lambda: store.alter_database("d", dimension=24), "CONFLICT", "100 vectors", "empty")
        assert error.details == {"vectors": 100, "dimension": 8}
        database.delete(ids)
        store.alter_database("d", dimension=24)
        assert (database.dimension, database.count(), database.config.dimension) == (24, 0, 24)
        refuses(lambda: database.upsert(["a"], [[1.0] * 8]), "DIMENSION_MISMATCH")
        second = database.upsert(
            ids, NUMBERS.integers(0, 2, (100, 24)) if metric == "hamming" else NUMBERS.random((100, 24))
        )
        assert all(second.sequences[s] > first.sequences[s] for s in first.sequences), "sequences go on"
        item = database.get("v1")
        assert item is not None and item.vector.shape == (24,)
        assert len(database.search(item.vector, k=7)) == 7
    with store_at(folder) as store:
        assert store.database("d").count() == 100 and store.database("d").dimension == 24
        store.database("d").compact()
        store.database("d").verify()


# Under way


def test_handles_snapshots_and_reopening(store: jade.Store, tmp_path: Path) -> None:
    database = filled(store)
    hit = database.search(VECTORS[1], k=1)[0]
    scrolled = database.scroll(100)
    store.alter_database("d", index="LSH", schema={"body": "text"})
    assert store.database("d") is database
    assert hit.metadata == {**metadata_of(1), "changed": True} and hit.version
    seen = {item.id for item in scrolled.items}
    while scrolled.cursor:
        scrolled = database.scroll(100, scrolled.cursor)
        seen |= {item.id for item in scrolled.items}
    assert seen == {IDS[n] for n in LIVE.tolist()}
    request = database.upsert(["x"], VECTORS[:1], request_id="once")
    store.alter_database("d", schema={"n": "integer"})
    again = database.upsert(["x"], VECTORS[:1], request_id="once")
    assert again.duplicate and again.sequences == request.sequences
    database.delete("x")
    store.snapshot(tmp_path / "copy")
    with store_at(tmp_path / "copy") as copy:
        assert copy.describe("d") == store.describe("d")
        check(copy.database("d"))
    store.drop_database("d")
    refuses(lambda: store.alter_database("d", index="IVF"), "UNKNOWN_DATABASE")
    refuses(database.count, "CLOSED")


def test_when_it_can_not_be_opened_as_wanted_it_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store_at(tmp_path / "store") as store:
        database = filled(store)
        refusals = ["wanted"]
        really = RealWorld.open_database

        def refusing(self: RealWorld, config: Any, directory: Path) -> OpenDatabase:
            if refusals:
                raise JadeError(ErrorCode.IO_ERROR, f"{refusals.pop()} is refused")
            return really(self, config, directory)

        monkeypatch.setattr(RealWorld, "open_database", refusing)
        refuses(lambda: store.alter_database("d", index="HNSW"), "IO_ERROR", "wanted")
        assert database.config.index == store.describe("d").index == "AUTO"
        check(database)
        refusals += ["before", "wanted"]
        refuses(lambda: store.alter_database("d", index="HNSW"), "IO_ERROR", "wanted")
        assert store.describe("d").index == "AUTO"
        refuses(database.count, "CLOSED")
        check(store.database("d"))


def test_everybody_goes_on_while_a_database_is_altered(tmp_path: Path) -> None:
    """Searchers, writers, readers and waiters in threads, while everything about the database changes again and again."""
    with store_at(tmp_path / "store") as store:
        database = filled(store, schema={"body": "text"}, shards=2)
        ending = threading.Event()
        failures: list[BaseException] = []
        written: dict[str, int] = {}

        def until_the_end(call: Any) -> None:
            count = 0
            try:
                while not ending.is_set():
                    call(count)
                    count += 1
            except BaseException as error:
                failures.append(error)

        def search(count: int) -> None:
            query = VECTORS[count % ROWS]
            assert [h for h in database.search(query, recall=1.0, k=5).ids if h[0] == "v"][:1] == brute(query, LIVE, 1)
            assert len(database.search(text="cedar", filter={"n": {"$lt": 200}}, k=20)) == 20
            assert len(database.get(IDS[:50])) == 50 and database.count({"changed": True}) == 8
            assert len(database.scroll(50).items) == 50
            database.stats()

        def write(count: int) -> None:
            result = database.upsert(
                [f"w{count % 40}"], VECTORS[:1] * 1e-3 + 1, [{"body": "written", "n": count + 5000}]
            )
            written[f"w{count % 40}"] = count + 5000
            assert result.count == 1
            if count % 9 == 0:
                database.update_metadata([f"w{count % 40}"], {"n": count + 5000})

        def wait(count: int) -> None:
            (database.wait_indexed, database.compact, database.verify)[count % 3]()

        threads = [threading.Thread(target=until_the_end, args=(call,)) for call in (search, search, write, wait)]
        for thread in threads:
            thread.start()
        try:
            for turn, index in enumerate(("IVF", "FLAT", "HNSW", "LSH", "IVF")):
                schema = {"body": "text", **({"n": "integer"} if turn % 2 else {"day": "date"})}
                store.alter_database("d", index=index, schema=schema)
                assert not failures, failures
        finally:
            ending.set()
            for thread in threads:
                thread.join()
        assert not failures, failures
        for name, n in written.items():
            item = database.get(name)
            assert item is not None and item.metadata["n"] == n
        database.delete(list(written))
        check(database)


def test_two_alterations_at_once_both_take_place(store: jade.Store) -> None:
    database = filled(store)
    jobs = [{"index": "LSH"}, {"schema": {"n": "integer"}}, {"schema": {"n": "integer", "body": "text"}}]
    threads = [threading.Thread(target=store.alter_database, args=("d",), kwargs=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.config.index == "LSH" and "n" in database.config.schema.fields
    assert store.describe("d") == database.config
    check(database)
