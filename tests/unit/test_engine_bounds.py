"""Bounds that hold however a database is used: merged metadata, times in the log, leftovers of snapshots; and what a search costs."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_store_surface import refuses, store_at

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld
from jadevectordb.model.ids import ShardId
from jadevectordb.model.limits import METADATA_BYTES_MAX

# Merged metadata


@pytest.mark.parametrize("shards", [1, 3])
def test_merged_metadata_keeps_to_the_limit_of_metadata(tmp_path: Path, shards: int) -> None:
    with store_at(tmp_path) as store:
        database = store.create_database("d", 2, shards=shards)
        ids = [f"v{n}" for n in range(12)]
        database.upsert(ids, np.ones((12, 2)), [{"a": "x" * 400_000 if n == 5 else ""} for n in range(12)])
        patch = {"b": "y" * 400_000}
        database.update_metadata(ids[5], patch)
        before = database.digest()
        error = refuses(lambda: database.update_metadata(ids, {"c": "z" * 300_000}), "INVALID_METADATA", "v5", "bytes")
        assert error.details["id"] == "v5" and error.details["bytes"] > METADATA_BYTES_MAX
        assert database.digest() == before, "nothing of the batch was changed"
        refuses(lambda: database.update_metadata("v5", {"c": "z" * 300_000}), "INVALID_METADATA")
        # What replaces a large value adds nothing, and what replaces everything is judged alone.
        assert database.update_metadata("v5", {"a": "short", "c": "z" * 300_000}).count == 1
        assert database.update_metadata("v5", {"c": "z" * 1_000_000}, merge=False).count == 1
        assert database.update_metadata("missing", {"c": "z" * 1_000_000}).count == 0
        refuses(lambda: database.update_metadata("v5", {"d": "z" * 100_000}), "INVALID_METADATA")


def test_to_the_byte(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        database = store.create_database("d", 2)
        database.upsert(["v"], [[1, 2]], [{"a": ""}])
        room = METADATA_BYTES_MAX - len(b'{"a":"","b":""}')
        refuses(lambda: database.update_metadata("v", {"b": "x" * (room + 1)}), "INVALID_METADATA")
        database.update_metadata("v", {"b": "x" * room})
        item = database.get("v")
        assert item is not None and len(json.dumps(item.metadata, separators=(",", ":"))) == METADATA_BYTES_MAX


def test_writers_at_the_same_time_do_not_pass_the_limit_together(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        database = store.create_database("d", 2)
        database.upsert(["v"], [[1, 2]])
        refused: list[jade.JadeError] = []

        def merge(number: int) -> None:
            try:
                database.update_metadata("v", {f"key{number}": "x" * 200_000})
            except jade.JadeError as error:
                refused.append(error)

        threads = [threading.Thread(target=merge, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        item = database.get("v")
        assert item is not None and len(item.metadata) == 5 and len(refused) == 7
        assert {error.code for error in refused} == {jade.ErrorCode.INVALID_METADATA}


def test_a_retry_of_a_large_merge_is_a_retry(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        database = store.create_database("d", 2)
        database.upsert(["v"], [[1, 2]], [{"a": "x" * 500_000}])
        assert not database.update_metadata("v", {"b": "y" * 500_000}, request_id="once").duplicate
        database.update_metadata("v", {"c": "z" * 40_000})
        assert database.update_metadata("v", {"b": "y" * 500_000}, request_id="once").duplicate


# Time


class SetClock:
    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


@pytest.mark.parametrize("forgotten", [False, True])
def test_times_in_the_log_go_on_when_the_wall_clock_was_set_back(tmp_path: Path, forgotten: bool) -> None:
    """forgotten: the log was truncated, only the checkpoint knows."""

    def store_of(now_ms: int) -> jade.Store:
        world = RealWorld(InlineCompute)
        world.clock = SetClock(now_ms)  # type: ignore[assignment]
        return jade.Store(tmp_path, world)

    def newest(database: jade.Database) -> int:
        return int(database._use().newest_time)

    with store_of(5_000_000) as store:
        database = store.create_database("d", 2, seal_rows=10)
        database.upsert(["a"], [[1, 2]])
        if forgotten:
            for n in range(40):
                database.upsert(
                    [f"v{m}" for m in range(n * 20, n * 20 + 20)], np.ones((20, 2)), [{"x": "y" * 4000}] * 20
                )
            database.compact()
            database.compact()
            assert database._use().log.first(ShardId(0)) > 1
        before = newest(database)
        assert before >> 16 >= 5_000_000
    with store_of(1_000) as store:
        database = store.database("d")
        assert newest(database) == before
        database.upsert(["b"], [[1, 2]])
        assert newest(database) == before + 1
        log = database._use().log
        times = [one.entry.time for frame in log.read({ShardId(0): log.first(ShardId(0))}) for one in frame]
        assert times == sorted(set(times)) and times[-1] == before + 1


# Snapshots


def test_what_a_killed_snapshot_left_goes_with_the_next_one(tmp_path: Path) -> None:
    with store_at(tmp_path / "store") as store:
        store.create_database("d", 2).upsert(["a"], [[1, 2]])
        store.snapshot(tmp_path / "first")
        leftover = tmp_path / "copy.unfinished-0123456789"
        (tmp_path / "first").rename(leftover)
        (tmp_path / "copy.unfinished-abc").mkdir()
        others = [tmp_path / "copy2.unfinished-0123456789", tmp_path / "copy.unfinished-notes"]
        for other in others:
            other.mkdir()
            (other / "letter.txt").write_text("mine")
        store.snapshot(tmp_path / "copy")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["store", "copy", *(p.name for p in others)])
    with store_at(tmp_path / "copy") as copy:
        assert copy.database("d").count() == 1


# What a search costs


def test_the_cost_of_a_search_follows_its_size_and_is_kept_for_a_view(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)

    def filled(store: jade.Store, name: str, rows: int, dimension: int, **options: Any) -> jade.Database:
        database = store.create_database(name, dimension, **options)
        database.upsert([str(n) for n in range(rows)], numbers.standard_normal((rows, dimension)))
        return database

    with store_at(tmp_path) as store:
        empty = store.create_database("empty", 8)
        assert 0 < empty.search_cost_us() < 50
        small = filled(store, "small", 100, 8)
        large = filled(store, "large", 2500, 64, index="FLAT")
        assert empty.search_cost_us() < small.search_cost_us() < 40 < large.search_cost_us()
        growing = large.search_cost_us()
        assert growing == large.search_cost_us()
        large.upsert([f"more{n}" for n in range(500)], numbers.standard_normal((500, 64)))
        assert large.search_cost_us() > growing
        flat = large.search_cost_us()
        for index in ("IVF", "HNSW", "LSH"):
            store.alter_database("large", index=index)
            large.wait_indexed()
            assert 0 < large.search_cost_us() < 5 * flat
        store.alter_database("large", index="HNSW", index_parameters={"efSearch": 10})
        large.wait_indexed()
        narrow = large.search_cost_us()
        store.alter_database("large", index="HNSW", index_parameters={"efSearch": 1000})
        assert large.search_cost_us() > 3 * narrow
        # Many shards are slow to search, and that must not be slow to say.
        many = store.create_database("many", 8, shards=200)
        many.upsert([str(n) for n in range(2000)], numbers.standard_normal((2000, 8)))
        assert many.search_cost_us() > 1000
        store.close()
        refuses(large.search_cost_us, "CLOSED")
