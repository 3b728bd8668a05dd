"""The store: creating, opening, listing, dropping and copying databases, and every way that can go wrong."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld

V = [1.0, 2.0, 3.0]


def store_at(path: Path) -> jade.Store:
    path.mkdir(exist_ok=True)
    return jade.Store(path, RealWorld(InlineCompute))


def refuses(call: Callable[[], object], code: str, *words: str) -> jade.JadeError:
    with pytest.raises(jade.JadeError) as caught:
        call()
    assert caught.value.code == code, str(caught.value)
    assert all(word in caught.value.message for word in words), caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": ".."},
        {"name": "a/b"},
        {"name": "x" * 129},
        {"name": "ü"},
        {"name": "a\n"},
        {"name": 5},
        {"dimension": 0},
        {"dimension": 4097},
        {"dimension": 1.5},
        {"dimension": "3"},
        {"dimension": True},
        {"metric": "manhattan"},
        {"metric": None},
        {"shards": 0},
        {"shards": 1025},
        {"shards": "2"},
        {"index": "BTREE"},
        {"seal_rows": 0},
        {"seal_rows": "many"},
        {"seal_rows": 1 << 40},
        {"schema": {"a": "varchar"}},
        {"schema": {"": "string"}},
        {"schema": 5},
        {"schema": {"body": "text"}, "text_language": "klingon"},
        {"text_language": 5},
        {"schema": {f"t{n}": "text" for n in range(17)}},
    ],
)
def test_create_with_bad_settings(tmp_path: Path, options: dict[str, Any]) -> None:
    with store_at(tmp_path) as store:
        refuses(lambda: store.create_database(**{"name": "d", "dimension": 3, **options}), "INVALID_ARGUMENT")
        assert store.databases() == [] and not list(tmp_path.glob("db-*"))


def test_create_again(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        db = store.create_database("d", 3, "euclidean", seal_rows=99)
        db.upsert(["a"], [V])
        assert refuses(lambda: store.create_database("d", 3), "ALREADY_EXISTS", "exist_ok").details == {"name": "d"}
        assert store.create_database("d", 3, "euclidean", seal_rows=99, exist_ok=True) is db
        error = refuses(
            lambda: store.create_database("d", 4, "euclidean", exist_ok=True), "ALREADY_EXISTS", "dimension"
        )
        assert error.details["different"] == ["dimension", "seal_rows"]
        assert store.databases() == ["d"] and db.count() == 1
        assert store.describe("d").seal_rows == 99 and store.database("d") is db


def test_unknown_databases(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        store.create_database("known", 3)
        for call in (store.database, store.describe, store.drop_database):
            assert refuses(lambda call=call: call("nope"), "UNKNOWN_DATABASE", "nope").details == {"name": "nope"}
        refuses(lambda: store.database("nope"), "UNKNOWN_DATABASE", "known")


def test_drop(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        db = store.create_database("d", 3)
        db.upsert(["a"], [V])
        store.create_database("e", 3)
        store.drop_database("d")
        assert store.databases() == ["e"] and len(list(tmp_path.glob("db-*"))) == 1
        refuses(lambda: db.search(V), "CLOSED")
        refuses(lambda: db.upsert(["b"], [V]), "CLOSED")
        again = store.create_database("d", 4)
        assert again.count() == 0 and again.dimension == 4


def test_drop_while_others_use_it(tmp_path: Path) -> None:
    """Threads in the middle of a call end with an answer or CLOSED; nothing hangs."""
    with store_at(tmp_path) as store:
        db = store.create_database("d", 3, shards=2, seal_rows=50)
        db.upsert(["a"], [V])
        outcomes: list[str] = []
        started = threading.Barrier(4)

        def use(kind: int) -> None:
            started.wait()
            try:
                for n in range(10_000_000):
                    if kind:
                        db.upsert([f"{kind}-{n}"], [V])
                    else:
                        db.search(V)
            except jade.JadeError as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=use, args=(kind,)) for kind in (0, 1, 2)]
        for thread in threads:
            thread.start()
        started.wait()
        store.drop_database("d")
        for thread in threads:
            thread.join(60)
        assert outcomes == ["CLOSED"] * 3
        assert store.databases() == []


def test_everything_on_a_closed_store_says_closed(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    db = store.create_database("d", 3, schema={"body": "text"})
    db.upsert(["a"], [V])
    item, hit = db.get("a"), db.search(V)[0]
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.create_database("x", 3),
        lambda: store.database("d"),
        store.databases,
        lambda: store.describe("d"),
        lambda: store.drop_database("d"),
        lambda: store.snapshot(tmp_path / "copy"),
        lambda: db.upsert(["b"], [V]),
        lambda: db.update_metadata("a", {}),
        lambda: db.delete("a"),
        lambda: db.delete(filter={"a": 1}),
        lambda: db.get("a"),
        lambda: db.exists("a"),
        lambda: "a" in db,
        lambda: len(db),
        db.count,
        db.scroll,
        lambda: next(db.items()),
        lambda: db.search(V),
        lambda: db.search(text="oak"),
        lambda: db.search_batch([V]),
        lambda: db.search_groups(V, group_by="x"),
        lambda: db.explain(V),
        db.stats,
        lambda: db.wait_indexed(1),
        lambda: db.compact(1),
        db.verify,
        db.digest,
    ]
    for call in calls:
        refuses(call, "CLOSED", "open")
    assert "closed" in repr(db) and "closed" in repr(store)
    assert item is not None and item.vector.tolist() == V and hit.metadata == {}, "what was read stays"


def test_one_store_a_folder(tmp_path: Path) -> None:
    with store_at(tmp_path):
        error = refuses(lambda: store_at(tmp_path), "LOCKED")
        assert error.retryable
    store_at(tmp_path).close()
    (tmp_path / "file").write_text("x")
    refuses(lambda: jade.open(tmp_path / "file"), "INVALID_ARGUMENT", "folder")


def test_snapshot_is_a_store_of_its_own(tmp_path: Path) -> None:
    with store_at(tmp_path / "s") as store:
        db = store.create_database("d", 3, shards=3, seal_rows=8, schema={"body": "text"})
        rows = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
        db.upsert([f"{i}" for i in range(50)], rows, [{"body": f"word{i % 3}"} for i in range(50)])
        db.wait_indexed(30)
        db.delete([f"{i}" for i in range(7)])
        store.create_database("empty", 2)
        store.snapshot(tmp_path / "copy")
        before = db.digest()
        db.delete(filter={"body": "word1"})
        refuses(lambda: store.snapshot(tmp_path / "copy"), "ALREADY_EXISTS", "copy")
        with store_at(tmp_path / "copy") as copy:
            other = copy.database("d")
            assert copy.databases() == ["d", "empty"] and other.digest() == before and other.count() == 43
            other.verify()
            other.upsert(["new"], [V])
            other.compact(30)
            assert len(other.search(text="word1", k=50)) > 0
        assert "new" not in db and len(db.search(text="word1", k=50)) == 0
        db.verify()
    assert not list(tmp_path.glob("*unfinished*"))


def test_errors_travel(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        error = refuses(lambda: store.database("x"), "UNKNOWN_DATABASE")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.message, copy.details) == (error.code, error.message, error.details)
    assert str(error).startswith("UNKNOWN_DATABASE: ") and not error.retryable


def test_stats_are_true(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        db = store.create_database("d", 16, metric="dot", shards=2, seal_rows=100)
        rows = np.random.default_rng(0).standard_normal((700, 16)).astype(np.float32)
        db.upsert([f"{i}" for i in range(700)], rows)
        db.wait_indexed(30)
        db.upsert(["0", "1", "x"], rows[:3])
        stats = db.stats()
        assert (stats.rows, stats.indexed_rows, stats.dead_rows) == (701, 698, 2)
        assert stats.trouble == "" and sum(s.live for s in stats.segments) == 701
        on_disk = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file() and f.parent.name != tmp_path.name)
        assert 0.95 * on_disk <= stats.disk_bytes <= 1.05 * on_disk
        assert stats.as_dict()["name"] == "d" and len(stats.watermarks) == 2
        growing = [s for s in stats.segments if s.index == "growing"]
        assert all(s.memory_bytes >= s.rows * 64 and s.disk_bytes == 0 for s in growing)
        assert os.listdir(tmp_path)


def test_items_and_hits(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        db = store.create_database("d", 3, metric="euclidean")
        db.upsert(["a", "b"], [V, [1, 2, 4]], [{"n": 1}, None])
        hits = db.search(V, explain=True)
        assert hits.ids == ["a", "b"] and hits.scores == [1.0, 0.5]
        assert hits[0].as_dict() == {"id": "a", "score": 1.0, "version": 1, "metadata": {"n": 1}}
        assert hits[0].as_dict(vector=True)["vector"] == V
        assert hits.explanation is not None and hits.explanation.as_dict()["matches"] == 2
        assert db.search(V).explanation is None
        item = db.get("a")
        assert item is not None and item == db.get("a") and item != db.get("b") and item != 5
        assert repr(item) == "Item(id='a', version=1, metadata={'n': 1})" and "score=1" in repr(hits[0])
        with pytest.raises(TypeError, match="as_dict"):
            pickle.dumps(item)
        with pytest.raises(TypeError, match="unhashable"):
            hash(item)
        db.upsert(["a"], [[9, 9, 9]], [{"n": 2}])
        assert item.metadata == {"n": 1} and item.vector.tolist() == V and hits[0].vector.tolist() == V
        page = db.scroll(1)
        assert page.cursor == page.items[0].id and "1 items" in repr(page)
        (group, other) = db.search_groups(V, group_by="n", k=5), db.search_groups(V, group_by="nope")
        assert group[0].key == 2 and "Group(key=2" in repr(group[0]) and other == []
        assert repr(db) == "<Database 'd': 2 vectors, dimension 3, euclidean>"
        assert (db.name, db.dimension, db.metric, db.config.shards) == ("d", 3, "euclidean", 1)
