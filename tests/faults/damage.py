"""A small database with every kind of file, what it must say, and a way to look at a damaged copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.main import RealWorld
from jadevectordb.model.ids import ShardId
from tests.crash.worker import make_everything_small

ROWS = 460
DIMENSION = 8


def open_store(folder: Path) -> Store:
    return Store(folder, RealWorld(InlineCompute))


def make(folder: Path, *, log_is_truncated: bool = False) -> None:
    """A store whose database has an indexed and a fresh segment, tombstones, text, several log files and growing rows."""
    make_everything_small()
    folder.mkdir()
    numbers = np.random.default_rng(7)
    vectors = numbers.standard_normal((ROWS, DIMENSION)).astype(np.float32)
    with open_store(folder) as store:
        database = store.create_database("d", DIMENSION, index="IVF", seal_rows=300, schema={"body": "text"})
        for start in range(0, 400, 50):
            database.upsert(*_batch(vectors, start, 50))
        database.delete([f"v{n}" for n in range(0, 400, 9)])
        database.wait_indexed()
        database.upsert(*_batch(vectors, 400, 60))
        database.update_metadata(["v1", "v2"], {"tag": "changed"})
        if log_is_truncated:
            database.compact()
            database.compact()
            assert database._use().log.first(ShardId(0)) > 1


def _batch(vectors: np.ndarray, start: int, count: int) -> tuple[list[str], np.ndarray, list[dict[str, object]]]:
    places = range(start, start + count)
    metadata = [{"n": n, "tag": "ab"[n % 2], "body": f"word{n % 5} other"} for n in places]
    return [f"v{n}" for n in places], vectors[start : start + count], metadata


def everything(database: jade.Database) -> object:
    """All that a caller can be told: contents, filtered counts, searches by vector, filter and text."""
    items = sorted((i.id, i.version, i.vector.tobytes(), sorted(i.metadata.items())) for i in database.items())
    queries = np.random.default_rng(8).standard_normal((4, DIMENSION)).astype(np.float32)
    searches = [
        [(hit.id, hit.score) for hit in database.search(query, k=20, recall=recall, filter=condition)]
        for query in queries
        for recall in (0.9, 1.0)
        for condition in (None, {"tag": "a", "n": {"$lt": 200}})
    ]
    texts = [(hit.id, hit.score) for hit in database.search(text="word3", k=500)]
    found = [item is None or item.version for item in database.get([f"v{n}" for n in range(0, ROWS, 7)])]
    return items, searches, texts, found, database.count({"tag": "a"}), database.digest()


def look(folder: Path) -> object:
    """Open, verify, and read everything. Raises what opening, verifying or reading raises."""
    with open_store(folder) as store:
        database = store.database("d")
        told = everything(database)
        database.verify()
        return told


def files_of(folder: Path) -> list[Path]:
    """Every file below the folder, relative, in a fixed order; not the lock, which holds nothing."""
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != "LOCK")


def copy_of(folder: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))
