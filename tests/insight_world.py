"""What tests of reports, retention and alerts stand on: a clock that is set by hand, and real stores in a folder."""

from __future__ import annotations

import itertools
from pathlib import Path

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.main import RealWorld

START_MS = 1_760_000_000_000  # a Thursday in October 2025


class SetClock:
    """Both its clocks move only when told."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms
        self.seconds = 0.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.seconds

    def pass_days(self, days: float) -> None:
        self.ms += int(days * 86_400_000)


class Place:
    """One database with an id, as the server's catalog hands it out."""

    def __init__(self, handle: Database) -> None:
        self.handle = handle

    @property
    def id(self) -> str:
        return self.handle.name


def open_at(folder: Path, clock: SetClock) -> Store:
    """A store whose writes carry the times of this clock."""
    world = RealWorld()
    world.clock = clock  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    return Store(folder, world)


def metadata_at(folder: Path) -> SqliteStore:
    folder.mkdir(parents=True, exist_ok=True)
    return SqliteStore(folder / "metadata.sqlite")


class Numbers:
    """Short texts that are never the same."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def __call__(self) -> str:
        return f"n{next(self._count)}"
