"""A store whose databases show how far they are, with logs so small that files are begun and removed all the time."""

from __future__ import annotations

from pathlib import Path

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.local_log_follow import LogFollower
from jadevectordb.adapters.os_disk import write_file_atomically
from jadevectordb.adapters.shared_page import SharedPage
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.processes.shown import EPOCH, NUMBERS, POSITION, Shown
from jadevectordb.main import RealWorld
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.ids import NodeId
from jadevectordb.node.follower import Follower
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.shard.maintenance import Lane


class ShownWorld(RealWorld):
    def __init__(self, log_bytes: int) -> None:
        super().__init__(InlineCompute)
        self.page = SharedPage.create(NUMBERS)
        self.shown = Shown(self.page)
        self._log_bytes = log_bytes

    def open_database(self, config: DatabaseConfig, directory: Path) -> OpenDatabase:
        log = LocalLog(directory / "log", file_bytes=self._log_bytes, rotate_bytes_min=self._log_bytes // 4)
        try:
            return OpenDatabase(
                config,
                directory,
                log=log,
                compute={lane: InlineCompute() for lane in Lane},
                clock=self.clock,
                write_atomically=write_file_atomically,
                threads=1,
                progress=self.shown.progress_of(config),
            )
        except BaseException:
            log.close()
            raise

    def place(self, config: DatabaseConfig) -> int:
        slot = self.shown.progress_of(config)
        return slot.place  # type: ignore[attr-defined, no-any-return]

    def position(self, config: DatabaseConfig) -> int:
        return self.page.get(self.place(config) + POSITION)

    def epoch(self, config: DatabaseConfig) -> int:
        return self.page.get(self.place(config) + EPOCH)


def follow(store: jade.Store, world: ShownWorld, config: DatabaseConfig) -> Follower:
    place = world.place(config)
    return Follower(config, store.path / config.folder, LogFollower, lambda: world.page.get(place + POSITION))


def as_database(follower: Follower) -> Database:
    return Database(follower, NodeId("reader"))
