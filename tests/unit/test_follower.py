"""What a follower leaves alone, what it refuses, and what becomes of one whose database goes away."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tests.following_world import ShownWorld, as_database, follow

import jadevectordb as jade
from jadevectordb.adapters.local_log_follow import LogFollower
from jadevectordb.adapters.shared_page import SharedPage
from jadevectordb.gateway.access.operations import check
from jadevectordb.gateway.processes import shown as shown_module
from jadevectordb.gateway.processes.followed import FollowedDatabases
from jadevectordb.gateway.processes.shown import AHEAD, EPOCH, Shown
from jadevectordb.gateway.service.catalog import DatabaseRecord, Entry
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node import follower as follower_module
from jadevectordb.node.follower import Follower
from jadevectordb.node.open_database import OpenDatabase

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
ROWS = np.random.default_rng(1).standard_normal((300, 4)).astype(np.float32)


def filled(world: ShownWorld, folder: Path) -> tuple[jade.Store, jade.Database]:
    folder.mkdir()
    store = jade.Store(folder, world)
    database = store.create_database("d", 4, seal_rows=64, schema={"body": "text"}, index="IVF")
    for at in range(0, 300, 30):
        database.upsert([f"v{i}" for i in range(at, at + 30)], ROWS[at : at + 30], [{"body": "oak", "n": 1}] * 30)
    return store, database


def test_following_changes_nothing_in_the_folder(tmp_path: Path) -> None:
    world = ShownWorld(1 << 20)
    store, database = filled(world, tmp_path / "store")
    database.wait_indexed(timeout=60)
    database.upsert(["last"], ROWS[:1])
    config = database.config
    follower = follow(store, world, config)
    follower.refresh()
    expected = database.digest()
    store.close()
    folder = tmp_path / "store" / config.folder
    before = {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}
    alone = Follower(config, folder, LogFollower)
    for one in (follower, alone):
        one.refresh()
        reader = as_database(one)
        assert reader.search(ROWS[3], k=3, recall=0.9).ids[0] == "v3"
        assert reader.search(text="oak", filter={"n": 1}, k=3).ids
        assert one.digest() == expected
        one.close()
    assert {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")} == before
    world.page.close()


def test_a_followed_database_refuses_to_be_written(tmp_path: Path) -> None:
    world = ShownWorld(1 << 20)
    store, database = filled(world, tmp_path / "store")
    follower = follow(store, world, database.config)
    follower.refresh()
    reader = as_database(follower)
    for attempt in (
        lambda: reader.upsert(["a"], ROWS[:1]),
        lambda: reader.delete(["v1"]),
        lambda: reader.update_metadata("v1", {}),
        reader.compact,
        reader.stats,
    ):
        with pytest.raises(JadeError) as refused:
            attempt()
        assert refused.value.code is ErrorCode.READ_ONLY
    assert reader.count() == 300
    follower.close()
    store.close()
    world.page.close()


def test_it_applies_no_more_than_the_writer_shows(tmp_path: Path) -> None:
    """A write that is durable and not yet seen by the writer's own searches is not seen by a reader's."""
    world = ShownWorld(1 << 20)
    store, database = filled(world, tmp_path / "store")
    end = world.position(database.config)
    follower = Follower(database.config, store.path / database.config.folder, LogFollower, lambda: end)
    follower.refresh()
    database.upsert(["new"], ROWS[:1])
    assert follower.catch_up() and follower.position == end
    assert not as_database(follower).exists("new")
    end += 1
    assert follower.catch_up(now=True) and follower.position == end
    assert as_database(follower).exists("new")
    follower.close()
    assert not follower.catch_up()
    store.close()
    world.page.close()


def test_it_opens_nothing_that_the_writer_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that found the old view in step may take the new one a moment later: it must not be ahead of the writer's."""
    monkeypatch.setattr(follower_module, "FOLLOW_SHOWN_LOOKS_MAX", 2)
    world = ShownWorld(1 << 20)
    store, database = filled(world, tmp_path / "store")
    end = world.position(database.config)
    follower = Follower(database.config, store.path / database.config.folder, LogFollower, lambda: end)
    assert follower.refresh()
    database.upsert(["new"], ROWS[:1])
    assert not follower.refresh()
    assert follower.position == end and not as_database(follower).exists("new")
    end += 1
    assert follower.refresh() and as_database(follower).exists("new")
    follower.close()
    store.close()
    world.page.close()


def test_searches_see_more_only_after_that_was_announced(tmp_path: Path) -> None:
    """Whoever answers for the writer has to know, before anybody can have seen it, that there is something new."""
    told: list[tuple[str, int]] = []

    class Telling(ShownWorld):
        def open_database(self, config: DatabaseConfig, directory: Path) -> OpenDatabase:
            opened = super().open_database(config, directory)
            opened.progress = Told(opened, told)
            return opened

    world = Telling(1 << 20)
    store, database = filled(world, tmp_path / "store")
    told.clear()
    database.upsert(["one"], ROWS[:1])
    database.delete("one")
    assert told == [("applying 1", 300), ("applied 1", 301), ("applying 1", 301), ("applied 1", 300)]
    store.close()
    world.page.close()


class Told:
    """Notes what searches see at each call of the progress port."""

    def __init__(self, database: OpenDatabase, told: list[tuple[str, int]]) -> None:
        self._database = database
        self._told = told

    def opened(self, position: int) -> None:
        pass

    def applying(self, entries: int) -> None:
        self._told.append((f"applying {entries}", self._database.view.live))

    def applied(self, entries: int) -> None:
        self._told.append((f"applied {entries}", self._database.view.live))

    def installed(self) -> None:
        pass

    def ended(self) -> None:
        pass


def test_slots_are_used_again_and_never_taken_for_another_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_module, "FOLLOWED_DATABASES_MAX", 2)
    world = ShownWorld(1 << 20)
    world.shown = Shown(world.page)
    (tmp_path / "store").mkdir()
    store = jade.Store(tmp_path / "store", world)
    first = store.create_database("a", 4).config
    store.create_database("b", 4)
    epoch = world.epoch(first)
    place = world.place(first)
    store.create_database("c", 4)  # there is no slot: it is served by the writer alone
    store.drop_database("a")
    assert world.page.get(place + EPOCH) == 0
    fourth = store.create_database("d", 4).config
    assert world.place(fourth) == place and world.epoch(fourth) > epoch
    entries = [Entry(DatabaseRecord(id=name, name=name), store.database(name), 0) for name in "bcd"]
    world.shown.every = lambda: entries
    world.shown.publish()
    directory = FollowedDatabases(
        world.page,
        lambda config, written: Follower(config, store.path / config.folder, LogFollower, written),
        world.clock,
        check,
    )
    assert directory.refresh()
    directory.start()
    entries_seen = {entry.id: entry for entry in directory.every()}
    assert sorted(entries_seen) == ["b", "c", "d"]
    assert not directory.is_ready(entries_seen["c"])
    for name in "bd":
        while not directory.is_ready(entries_seen[name]):
            pass
    assert not directory.is_ready(entries_seen["c"])
    directory.close()
    store.close()
    world.page.close()


def test_a_database_is_followed_from_the_first_request_on(tmp_path: Path) -> None:
    world = ShownWorld(1 << 20)
    store, database = filled(world, tmp_path / "store")
    entries = [Entry(DatabaseRecord(id="d", name="words"), database, 0)]
    world.shown.every = lambda: entries
    world.shown.publish()
    page = SharedPage.attach(*map(os.dup, world.page.fds))
    directory = FollowedDatabases(
        page,
        lambda config, written: Follower(config, store.path / config.folder, LogFollower, written),
        world.clock,
        check,
    )
    assert directory.refresh()
    (entry,) = directory.every()
    assert not directory.is_ready(entry)  # asked for: the thread opens it
    directory.start()
    while not directory.is_ready(entry):
        pass
    database.upsert(["new"], ROWS[:1])
    assert directory.is_ready(entry) and entry.handle.exists("new")
    world.page.add(world.place(database.config) + AHEAD, 1)  # the writer's searches may show more at any moment
    assert not directory.is_ready(entry)
    world.page.add(world.place(database.config) + AHEAD, -1)
    assert directory.is_ready(entry)
    store.alter_database("d", index="FLAT")
    assert not directory.is_ready(entry)
    world.shown.publish_if_stale()
    assert directory.refresh()
    (altered,) = directory.every()
    assert altered is not entry and altered.handle.config.index == "FLAT"
    while not directory.is_ready(altered):
        pass
    store.close()
    assert not directory.is_ready(altered)
    directory.close()
    page.close()
    world.page.close()
