"""Retention with a clock set by hand: never early, archived before deleted, importable again; ages from a bounded table."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.insight_world import START_MS, Place, SetClock, metadata_at, open_at

from jadevectordb.adapters.file_archive import FileArchive
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.gateway.service.lifecycle import DAY_MS, Lifecycle
from jadevectordb.gateway.service.write_times import WriteTimes
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import WRITE_TIMES_KEPT_MAX
from jadevectordb.transfer.importer import import_file


class World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SetClock()
        self.told: list[tuple[str, str]] = []
        self.open()

    def open(self) -> None:
        self.store: Store = open_at(self.folder / "data", self.clock)
        self.metadata: SqliteStore = metadata_at(self.folder)
        self.lifecycle = Lifecycle(
            lambda: [Place(self.store.database(name)) for name in self.store.databases()],
            self.metadata,
            self.clock,
            FileArchive(self.folder / "archive"),
            deleted=lambda database, ids: self.told.extend((database, one) for one in ids),
            background=False,
        )

    def close(self) -> None:
        self.lifecycle.close()
        self.store.close()
        self.metadata.close()

    def archived(self, database: str = "db_1") -> list[Path]:
        return sorted((self.folder / "archive" / database).glob("*"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def _store(database: Database, names: list[str], value: float = 1.0) -> None:
    database.upsert(names, np.full((len(names), 2), value), [{"name": name} for name in names])


def test_old_vectors_go_and_younger_ones_stay(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    world.lifecycle.set_policy("db_1", {"max_age_days": 30, "delete": True})
    for day in range(10):
        _store(database, [f"day{day}"])
        world.lifecycle.sweep()
        world.clock.pass_days(1)
    world.clock.pass_days(24.5)  # day0 is 34.5 days old, day9 25.5
    assert world.lifecycle.sweep() == 5
    assert sorted(item.id for item in database.items()) == [f"day{day}" for day in range(5, 10)]
    assert sorted(name for _, name in world.told) == [f"day{day}" for day in range(5)]
    retention = world.lifecycle.retention("db_1")
    assert (retention.deleted, retention.archived, retention.last_run_ms) == (5, 0, world.clock.ms)
    assert world.archived() == []


def test_never_a_moment_early(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    world.lifecycle.set_policy("db_1", {"max_age_days": 1, "delete": True})
    _store(database, ["a"])
    written_ms = world.clock.ms
    world.lifecycle.sweep()
    world.clock.ms = written_ms + DAY_MS - 1
    assert world.lifecycle.sweep() == 0
    world.clock.ms = written_ms + DAY_MS
    assert world.lifecycle.sweep() == 1


def test_a_write_makes_young_again(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    world.lifecycle.set_policy("db_1", {"max_age_days": 10, "delete": True})
    _store(database, ["replaced", "changed", "left"])
    world.lifecycle.sweep()
    world.clock.pass_days(8)
    _store(database, ["replaced"], 2.0)
    database.update_metadata("changed", {"seen": True})
    world.lifecycle.sweep()
    world.clock.pass_days(3)
    assert world.lifecycle.sweep() == 1
    assert {item.id for item in database.items()} == {"replaced", "changed"}


def test_ages_of_random_writes_in_shards_and_segments(world: World) -> None:
    """Against a plain dict of last writes: what is gone was old, what is clearly old is gone."""
    rng = random.Random(4)
    database = world.store.create_database("db_1", 2, metric="euclidean", shards=2, seal_rows=40)
    world.lifecycle.set_policy("db_1", {"max_age_days": 5, "delete": True})
    written: dict[str, int] = {}
    for _ in range(60):
        names = sorted({f"v{rng.randrange(200)}" for _ in range(15)})
        _store(database, names, rng.random())
        written |= dict.fromkeys(names, world.clock.ms)
        if rng.random() < 0.3:
            gone = rng.choice(sorted(written))
            database.delete(gone)
            del written[gone]
        if rng.random() < 0.08:
            database.wait_indexed(30)
        world.lifecycle.sweep()
        world.clock.pass_days(rng.random() * 0.5)
        before = set(written)
        world.lifecycle.sweep()
        left = {item.id for item in database.items()}
        for name in before - left:
            assert written.pop(name) <= world.clock.ms - 5 * DAY_MS
        for name in left:
            assert written[name] > world.clock.ms - 5.6 * DAY_MS


def test_archives_can_be_imported_to_the_bit(world: World) -> None:
    database = world.store.create_database("db_1", 3, metric="cosine", seal_rows=16)
    names = [f"v{n}" for n in range(50)]
    vectors = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    metadata = [{"n": n, "text": 'quote " and\nline', "deep": {"list": [1, None, True]}} for n in range(50)]
    database.upsert(names, vectors, metadata)
    world.lifecycle.set_policy("db_1", {"max_age_days": 7, "archive": True})
    world.lifecycle.sweep()
    world.clock.pass_days(8)
    assert world.lifecycle.sweep() == 50
    assert database.count() == 0
    assert world.lifecycle.retention("db_1").archived == 50
    assert world.lifecycle.sweep() == 0
    again = world.store.create_database("again", 3)
    assert len(world.archived()) == 1
    import_file(again, world.archived()[0])
    assert again.count() == 50
    for name, vector, one in zip(names, vectors, metadata, strict=True):
        item = again.get(name)
        assert item is not None
        assert np.array_equal(item.vector, vector)
        assert item.metadata == one


def test_archives_of_bits(world: World) -> None:
    database = world.store.create_database("db_1", 12, metric="hamming")
    bits = np.random.default_rng(1).integers(0, 2, (5, 12))
    database.upsert(list("abcde"), bits)
    world.lifecycle.set_policy("db_1", {"max_age_days": 1, "archive": True})
    world.lifecycle.sweep()
    world.clock.pass_days(2)
    world.lifecycle.sweep()
    again = world.store.create_database("again", 12, metric="hamming")
    import_file(again, world.archived()[0])
    found = again.get("c")
    assert found is not None
    assert np.array_equal(found.vector, bits[2])


def test_what_cannot_be_archived_is_not_deleted(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    other = world.store.create_database("db_2", 2, metric="euclidean")
    for name, one in (("db_1", database), ("db_2", other)):
        _store(one, ["a"])
        world.lifecycle.set_policy(name, {"max_age_days": 1, "archive": True})
    world.lifecycle.sweep()
    world.clock.pass_days(2)
    (world.folder / "archive").mkdir(exist_ok=True)
    (world.folder / "archive" / "db_1").write_text("a file where a folder should be")
    assert world.lifecycle.sweep() == 1  # the other database is looked after all the same
    assert database.count() == 1
    assert world.lifecycle.retention("db_1").trouble
    (world.folder / "archive" / "db_1").unlink()
    assert world.lifecycle.sweep() == 1
    assert world.lifecycle.retention("db_1").trouble == ""


def test_a_vector_written_while_the_sweep_looks_stays(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    _store(database, ["a", "b", "c"])
    world.lifecycle.sweep()
    world.clock.pass_days(2)

    class Meddling(FileArchive):
        def write(self, folder, name, lines):  # type: ignore[no-untyped-def]
            where = super().write(folder, name, lines)
            _store(database, ["b"], 5.0)  # between archiving and deleting
            return where

    lifecycle = Lifecycle(
        lambda: [Place(database)], world.metadata, world.clock, Meddling(world.folder / "archive"), background=False
    )
    lifecycle.set_policy("db_1", {"max_age_days": 1, "archive": True})
    assert lifecycle.sweep() == 2
    assert [item.id for item in database.items()] == ["b"]
    assert lifecycle.retention("db_1").archived == 2
    lifecycle.close()


def test_ages_survive_a_restart_and_data_from_before_the_server(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    _store(database, ["a"])
    database.wait_indexed(30)
    world.close()
    world.clock.pass_days(20)
    world.open()  # no sweep ever saw the write: its age comes from the log's newest time
    world.lifecycle.set_policy("db_1", {"max_age_days": 10, "delete": True})
    world.lifecycle.sweep()
    assert world.store.database("db_1").count() == 0
    _store(world.store.database("db_1"), ["b"])
    world.close()
    world.open()
    world.clock.pass_days(6)
    _store(world.store.database("db_1"), ["c"])
    world.close()
    world.open()
    world.clock.pass_days(5)
    world.lifecycle.sweep()
    assert [item.id for item in world.store.database("db_1").items()] == ["c"]
    assert world.lifecycle.retention("db_1").deleted == 2


def test_policies(world: World) -> None:
    world.store.create_database("db_1", 2)
    with pytest.raises(JadeError) as caught:
        world.lifecycle.retention("db_1")
    assert caught.value.code is ErrorCode.NOT_FOUND
    wrong: list[dict[str, object]] = [
        {},
        {"delete": True},
        {"max_age_days": 0},
        {"max_age_days": 10, "archive": True, "delete": True},
    ]
    for changes in wrong:
        with pytest.raises(JadeError) as caught:
            world.lifecycle.set_policy("db_1", changes)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    world.lifecycle.set_policy("db_1", {"max_age_days": 10, "auto_scale": True})
    kept = world.lifecycle.set_policy("db_1", {"archive": True}).policy
    assert (kept.max_age_days, kept.archive, kept.delete, kept.auto_scale) == (10, True, False, True)
    world.close()
    world.open()
    assert world.lifecycle.retention("db_1").policy == kept
    world.lifecycle.forget("db_1")
    with pytest.raises(JadeError):
        world.lifecycle.retention("db_1")


def test_a_policy_that_takes_nothing_out_takes_nothing_out(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    _store(database, ["a"])
    world.lifecycle.set_policy("db_1", {"max_age_days": 1})
    world.lifecycle.sweep()
    world.clock.pass_days(100)
    assert world.lifecycle.sweep() == 0
    world.lifecycle.set_policy("db_1", {"delete": True})
    assert world.lifecycle.sweep() == 1


def test_the_background_sweep_runs_by_itself(world: World) -> None:
    database = world.store.create_database("db_1", 2, metric="euclidean")
    _store(database, ["a"])
    world.lifecycle.set_policy("db_1", {"max_age_days": 1, "delete": True})
    world.lifecycle.sweep()
    world.clock.pass_days(2)
    import threading

    gone = threading.Event()
    lifecycle = Lifecycle(
        lambda: [Place(database)],
        world.metadata,
        world.clock,
        FileArchive(world.folder / "archive"),
        sweep_s=0.01,
        deleted=lambda _database, _ids: gone.set(),
    )
    assert gone.wait(60)
    lifecycle.close()
    assert database.count() == 0


# The table of moments


def test_moments_never_overstate_an_age_and_stay_few() -> None:
    rng = random.Random(8)
    times, truth, now, mark = WriteTimes(), [], START_MS, 0
    for _ in range(20_000):
        now += rng.randrange(1, 30 * 60_000)
        mark += rng.randrange(0, 5)
        truth.append((now, mark))
        times = times.noted(now, (mark,))
        assert len(times.points) <= WRITE_TIMES_KEPT_MAX
    assert now - START_MS > 180 * DAY_MS
    for days in (0.01, 0.5, 1, 3, 7, 30, 90, 180):
        cutoff = now - int(days * DAY_MS)
        exact = max(m for t, m in truth if t <= cutoff)
        found = times.written_by(cutoff)
        assert found is not None
        assert found[0] <= exact
        late = cutoff - int(0.04 * days * DAY_MS) - 30 * 60_000
        assert found[0] >= max((m for t, m in truth if t <= late), default=0)


def test_moments_with_a_clock_that_jumps_back() -> None:
    times = WriteTimes().noted(1000, (1,)).noted(5000, (2,)).noted(3000, (3,))
    assert times.written_by(4999) == (1,)
    assert times.written_by(5000) == (3,)
    assert times.written_by(999) is None
    assert times.noted(9000, (3,)) is times


def test_moments_of_a_database_that_was_put_back_to_an_older_copy() -> None:
    times = WriteTimes().noted(1000, (10, 4)).noted(2000, (20, 9))
    back = times.noted(2500, (15, 9))
    assert back.written_by(2499) == (10, 4)
    assert back.written_by(2500) == (15, 9)
    assert times.noted(2500, (10, 4)).points == times.points[:1]
    assert times.noted(2500, (5, 4)).written_by(2499) is None
