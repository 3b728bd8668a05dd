"""Whatever is wrong with a call: an error with its code, a sentence that helps, and a database as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld

Call = Callable[[Any], object]
V = [1.0, 2.0, 3.0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[jade.Store]:
    with jade.Store(tmp_path, RealWorld(InlineCompute)) as opened:
        yield opened


@pytest.fixture
def db(store: jade.Store) -> jade.Database:
    made = store.create_database("d", 3, shards=2, schema={"n": "integer", "body": "text", "day": "date"})
    made.upsert(["a", "b"], np.eye(3)[:2], [{"n": 1, "body": "oak"}, {"n": 2}])
    return made


def refused(db: jade.Database, call: Call, code: str, *words: str, **details: Any) -> None:
    before, watermarks, contents = (
        db.digest(),
        db.stats().watermarks,
        [item.as_dict(vector=True) for item in db.items()],
    )
    with pytest.raises(jade.JadeError) as caught:
        call(db)
    error = caught.value
    assert error.code == code, str(error)
    assert all(word in error.message for word in words), error.message
    assert {key: error.details.get(key) for key in details} == details
    assert error.message[-1] not in " \n" and len(error.message) < 500
    assert [item.as_dict(vector=True) for item in db.items()] == contents, "nothing changed"
    if code != "VERSION_CONFLICT":  # which is decided where the entry is applied
        assert db.digest() == before and db.stats().watermarks == watermarks, "the log was not touched"


BAD_VECTORS: list[tuple[Any, str, dict[str, Any]]] = [
    ([[1.0, 2.0]], "DIMENSION_MISMATCH", {"expected": 3, "actual": 2, "row": 0}),
    ([[1.0, 2.0], [1.0, 2.0, 3.0]], "DIMENSION_MISMATCH", {"expected": 3, "actual": 2, "row": 0}),
    (np.zeros((1, 3, 1)), "INVALID_VECTOR", {}),
    (np.array([["x", "y", "z"]]), "INVALID_VECTOR", {}),
    (np.array([[1, None, 2]], object), "INVALID_VECTOR", {"row": 0}),
    (np.ones((1, 3), complex), "INVALID_VECTOR", {}),
    (np.array([["2024-01-01"] * 3], "datetime64[D]"), "INVALID_VECTOR", {}),
    ([[True, False, True]], "INVALID_VECTOR", {}),
    ([[1.0, np.nan, 0.0]], "INVALID_VECTOR", {"row": 0}),
    ([[1.0, 0.0, np.inf]], "INVALID_VECTOR", {"row": 0}),
    ([[1e300, 0.0, 0.0]], "INVALID_VECTOR", {"row": 0}),
    ([[0.0, 0.0, 0.0]], "INVALID_VECTOR", {"row": 0}),
    ("abc", "INVALID_VECTOR", {}),
    (None, "INVALID_VECTOR", {}),
]


@pytest.mark.parametrize(("vectors", "code", "details"), BAD_VECTORS, ids=lambda value: repr(value)[:30])
def test_bad_vectors(db: jade.Database, vectors: Any, code: str, details: dict[str, Any]) -> None:
    count = 1 if vectors is None or isinstance(vectors, str) else len(vectors)
    refused(db, lambda d: d.upsert([f"x{i}" for i in range(count)], vectors), code, **details)
    if vectors is not None and count == 1:
        refused(db, lambda d: d.search(vectors), code)
        refused(db, lambda d: d.search_batch(vectors), code)


def test_one_bad_vector_refuses_its_whole_batch(db: jade.Database) -> None:
    vectors = np.ones((100, 3), np.float32)
    vectors[57, 1] = np.nan
    refused(db, lambda d: d.upsert([f"x{i}" for i in range(100)], vectors), "INVALID_VECTOR", "Vector 57", row=57)
    assert db.count() == 2


BAD_IDS: list[tuple[Any, str, dict[str, Any]]] = [
    ([1], "INVALID_ID", {"position": 0}),
    (["ok", b"x"], "INVALID_ID", {"position": 1}),
    ([""], "INVALID_ID", {"position": 0}),
    (["x" * 513], "INVALID_ID", {"position": 0}),
    (["ok", "a\nb"], "INVALID_ID", {"position": 1}),
    (["\x00"], "INVALID_ID", {"position": 0}),
    (["\x7f"], "INVALID_ID", {"position": 0}),
    (["\ud800"], "INVALID_ID", {"position": 0}),
    (["x", "y", "x"], "DUPLICATE_ID", {"id": "x"}),
    ("abc", "INVALID_ARGUMENT", {}),
    (b"abc", "INVALID_ARGUMENT", {}),
    (None, "INVALID_ARGUMENT", {}),
    (5, "INVALID_ARGUMENT", {}),
    (["x"], "INVALID_ARGUMENT", {}),  # two vectors
]


@pytest.mark.parametrize(("ids", "code", "details"), BAD_IDS, ids=lambda value: repr(value)[:30])
def test_bad_ids(db: jade.Database, ids: Any, code: str, details: dict[str, Any]) -> None:
    count = 2 if ids == ["x"] else len(ids) if isinstance(ids, list) else 1
    refused(db, lambda d: d.upsert(ids, np.ones((count, 3))), code, **details)
    if ids not in (["x"], "abc", None):
        refused(db, lambda d: d.delete(ids), code, **details)
        refused(db, lambda d: d.update_metadata(ids, {}), code, **details)


def test_ids_of_any_script_and_length_come_back(db: jade.Database) -> None:
    ids = ["ü", "日本", "🙂", " ", "x" * 512, "../../etc", "a\u00a0b", "NULL"]
    db.upsert(ids, np.ones((8, 3)))
    assert [item.id for item in db.get(ids) if item] == ids
    assert sorted(item.id for item in db.items()) == sorted([*ids, "a", "b"])


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda d: d.upsert(["x"], [V], [{"n": "text"}]), "SCHEMA_VIOLATION"),
        (lambda d: d.upsert(["x"], [V], [{"day": "yesterday"}]), "SCHEMA_VIOLATION"),
        (lambda d: d.update_metadata("a", {"n": 1.5}), "SCHEMA_VIOLATION"),
        (lambda d: d.upsert(["x"], [V], [{"x": float("nan")}]), "INVALID_METADATA"),
        (lambda d: d.upsert(["x"], [V], [{1: 2}]), "INVALID_METADATA"),
        (lambda d: d.upsert(["x"], [V], [{"x": object()}]), "INVALID_METADATA"),
        (lambda d: d.upsert(["x"], [V], [{"x": "\ud800"}]), "INVALID_METADATA"),
        (lambda d: d.upsert(["x"], [V], ["{}"]), "INVALID_METADATA"),
        (lambda d: d.upsert(["x"], [V], [{"x": "y" * (2 << 20)}]), "INVALID_METADATA"),
        (lambda d: d.upsert(["x"], [V], []), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], 5), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], "{}"), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x", "y"], [V, V], {"n": 1}), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], if_version=[1, 2]), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], if_version=-1), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], if_version="1"), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], if_version=1.5), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], if_version=1 << 80), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], request_id=5), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], request_id="\ud800"), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["x"], [V], request_id="r" * 600), "INVALID_ARGUMENT"),
        (lambda d: d.upsert(["a", "b"], [V, V], if_version=0), "VERSION_CONFLICT"),
        (lambda d: d.delete("a", if_version=99), "VERSION_CONFLICT"),
        (lambda d: d.update_metadata("a", {}, if_version=99), "VERSION_CONFLICT"),
        (lambda d: d.delete(), "INVALID_ARGUMENT"),
        (lambda d: d.delete("a", filter={"n": 1}), "INVALID_ARGUMENT"),
        (lambda d: d.delete(filter={}), "INVALID_ARGUMENT"),
        (lambda d: d.delete(filter={"n": 1}, if_version=1), "INVALID_ARGUMENT"),
        (lambda d: d.delete(filter={"n": {"$foo": 1}}), "INVALID_FILTER"),
        (lambda d: d.update_metadata(["a", "b"], [{}]), "INVALID_ARGUMENT"),
    ],
)
def test_bad_writes(db: jade.Database, call: Call, code: str) -> None:
    refused(db, call, code)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda d: d.search(), "INVALID_ARGUMENT"),
        (lambda d: d.search(V, id="a"), "INVALID_ARGUMENT"),
        (lambda d: d.search(id=5), "INVALID_ARGUMENT"),
        (lambda d: d.search(id="nobody"), "NOT_FOUND"),
        (lambda d: d.search([V, V]), "INVALID_ARGUMENT"),
        *[(lambda d, k=k: d.search(V, k=k), "INVALID_ARGUMENT") for k in (0, -1, 10_001, 1.5, "1", True, None)],
        *[(lambda d, k=k: d.search_batch([V], k=k), "INVALID_ARGUMENT") for k in (0, "1", None)],
        *[(lambda d, r=r: d.search(V, recall=r), "INVALID_ARGUMENT") for r in (0, 1.1, float("nan"), "1", None, True)],
        *[(lambda d, r=r: d.search_batch([V], recall=r), "INVALID_ARGUMENT") for r in (0, "high")],
        *[(lambda d, t=t: d.search(V, threshold=t), "INVALID_ARGUMENT") for t in ("1", float("nan"), True)],
        (lambda d: d.search(V, max_distance="1"), "INVALID_ARGUMENT"),
        (lambda d: d.search(V, max_distance=1, threshold=1), "INVALID_ARGUMENT"),
        (lambda d: d.search(V, text="oak", threshold=0.5), "INVALID_ARGUMENT"),
        (lambda d: d.search(text=5), "INVALID_ARGUMENT"),
        (lambda d: d.search(V, text="oak", fusion="sum"), "INVALID_ARGUMENT"),
        *[
            (lambda d, a=a: d.search(V, text="oak", alpha=a), "INVALID_ARGUMENT")
            for a in (-0.1, 1.1, "x", float("nan"))
        ],
        *[(lambda d, p=p: d.search(V, nprobe=p), "INVALID_ARGUMENT") for p in (0, 1.5, "1")],
        (lambda d: d.search(V, candidates=0), "INVALID_ARGUMENT"),
        (lambda d: d.search(V, ef_search=-1), "INVALID_ARGUMENT"),
        *[(lambda d, g=g: d.search(V, group_by=g), "INVALID_ARGUMENT") for g in ("", 5)],
        (lambda d: d.search(V, group_by="n", group_size=0), "INVALID_ARGUMENT"),
        (lambda d: d.search_groups(V, group_by="n", group_size=10**9), "INVALID_ARGUMENT"),
        (lambda d: d.search(V, k=None, max_distance=1, group_by="n"), "INVALID_ARGUMENT"),
        (lambda d: d.search(V, filter={"n": "text"}), "INVALID_FILTER"),
        (lambda d: d.search(V, filter="n = 1"), "INVALID_FILTER"),
        (lambda d: d.search(V, filter={"$or": []}), "INVALID_FILTER"),
        (lambda d: d.count({"n": {"$gt": None}}), "INVALID_FILTER"),
        (lambda d: d.count({"a": {"$regex": "("}}), "INVALID_FILTER"),
        (lambda d: d.get(5), "INVALID_ARGUMENT"),
        (lambda d: d.get([1]), "INVALID_ARGUMENT"),
        (lambda d: d.get("\ud800"), "INVALID_ID"),
        (lambda d: d.exists(None), "INVALID_ARGUMENT"),
        (lambda d: d.search(id="\ud800"), "INVALID_ID"),
        *[(lambda d, n=n: d.scroll(n), "INVALID_ARGUMENT") for n in (0, 10_001, "5", None)],
        (lambda d: d.scroll(5, 7), "INVALID_ARGUMENT"),
        (lambda d: d.scroll(5, "\ud800"), "INVALID_ARGUMENT"),
        (lambda d: d.wait_indexed("soon"), "INVALID_ARGUMENT"),
        (lambda d: d.compact("soon"), "INVALID_ARGUMENT"),
    ],
)
def test_bad_questions(db: jade.Database, call: Call, code: str) -> None:
    refused(db, call, code)


def test_numbers_of_numpy_are_numbers(db: jade.Database) -> None:
    hits = db.search(np.array(V), k=np.int64(2), recall=np.float32(1.0), threshold=np.float32(0.1))
    assert len(hits) == 2
    assert len(db.scroll(np.int32(1)).items) == 1
    assert db.upsert(np.array(["n"]), [V], if_version=np.int64(0)).count == 1
    assert db.get(np.array(["n"]))[0] is not None


def test_too_large_a_request(db: jade.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.query.drafts.BATCH_ROWS_MAX", 10)
    ids = [f"x{i}" for i in range(11)]
    refused(db, lambda d: d.upsert(ids, np.ones((11, 3))), "REQUEST_TOO_LARGE", "smaller batches", rows=11)


def test_a_strict_schema_names_what_it_does_not_know(store: jade.Store) -> None:
    strict = store.create_database("s", 3, schema={"n": "integer"}, strict=True)
    refused(strict, lambda d: d.upsert(["x"], [V], [{"m": 1}]), "SCHEMA_VIOLATION", "m", field="m")
    refused(strict, lambda d: d.count({"m": 1}), "UNKNOWN_FIELD", "m", field="m")
    refused(strict, lambda d: d.search(text="oak"), "UNKNOWN_FIELD", "text")


def test_hamming_takes_zeros_and_ones_only(store: jade.Store) -> None:
    bits = store.create_database("bits", 9, metric="hamming")
    sent = np.array([[1, 0, 1, 0, 0, 0, 1, 1, 1]])
    bits.upsert(["a"], sent)
    bits.upsert(["b"], sent.astype(bool))
    bits.upsert(["c"], sent.astype(np.float64))
    for item in bits.items():
        assert item.vector.dtype == np.uint8 and item.vector.tolist() == sent[0].tolist()
        assert not item.vector.flags.writeable
    refused(bits, lambda d: d.upsert(["x"], [[2] * 9]), "INVALID_VECTOR", "0 and 1", row=0)
    refused(bits, lambda d: d.upsert(["x"], [[0.5] * 9]), "INVALID_VECTOR", "0 and 1")
    refused(bits, lambda d: d.search([0] * 8), "DIMENSION_MISMATCH", expected=9, actual=8)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_vectors_come_back_as_sent(store: jade.Store, metric: str) -> None:
    db = store.create_database(metric, 5, metric=metric)
    sent = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32) * 3
    sent[3] = [0.0, -0.0, 1e-30, 1e-38, 1.0]
    ids = [f"{i}" for i in range(20)]
    given = sent.copy()
    db.upsert(ids, given)
    wide = np.random.default_rng(2).standard_normal((3, 5))
    db.upsert(["w0", "w1", "w2"], np.asfortranarray(wide))
    db.upsert(["list"], [[1, 2, 3, 4, 5]])
    given[:] = 7  # the caller's array is the caller's
    for _ in range(2):
        for name, row in zip(ids, sent, strict=True):
            item = db.get(name)
            assert item is not None and item.vector.tobytes() == row.tobytes()
            assert not item.vector.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                item.vector[0] = 1
        for i, row in enumerate(wide.astype(np.float32)):
            assert db.get(f"w{i}").vector.tobytes() == row.tobytes()  # type: ignore[union-attr]
        assert db.search(sent[4], k=1, recall=1.0)[0].vector.dtype == np.float32
        db.wait_indexed(60)


def test_an_empty_batch_and_an_empty_database(store: jade.Store) -> None:
    db = store.create_database("empty", 3, schema={"body": "text"})
    assert db.upsert([], []).count == 0 and db.delete([]).count == 0 and db.update_metadata([], []).count == 0
    assert db.search(V) == [] and db.search(text="oak") == [] and db.search(V, text="oak") == []
    assert db.search_batch(np.empty((0, 3))) == [] and db.search_batch([V, V]) == [[], []]
    assert db.search_groups(V, group_by="n") == [] and db.search(V, k=None, max_distance=5) == []
    assert db.count() == 0 and db.count({"n": 1}) == 0 and db.scroll().items == [] and list(db.items()) == []
    assert db.get([]) == [] and db.exists([]) == [] and "x" not in db
    db.wait_indexed(10)
    db.compact(10)
    assert db.explain(V)["segments"] == []
