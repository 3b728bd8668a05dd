"""What tests of telemetry share: a clock that is set by hand, a host that says what it is told, databases with a name and an id."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.service.telemetry import Telemetry
from jadevectordb.gateway.service.watched import WatchedDatabase
from jadevectordb.ports.host import HostReading


class HandClock:
    """The clock port, moved by the test."""

    def __init__(self) -> None:
        self.moment_s = 1000.0

    def now_ms(self) -> int:
        return 1_700_000_000_000 + int(self.moment_s * 1000)

    def monotonic_s(self) -> float:
        return self.moment_s


READING = HostReading(
    machine_busy_s=100.0,
    machine_total_s=1000.0,
    memory_total_bytes=1000,
    memory_available_bytes=250,
    disk_total_bytes=2000,
    disk_available_bytes=1000,
    process_cpu_s=10.0,
    process_memory_bytes=123,
    process_open_files=7,
    cores=2,
)


class ToldHost:
    """The host port, saying what the test told it."""

    def __init__(self) -> None:
        self.reading = READING

    def tell(self, **changes: Any) -> None:
        self.reading = replace(self.reading, **changes)

    def read(self) -> HostReading:
        return self.reading


@dataclass(frozen=True)
class Record:
    name: str


@dataclass(frozen=True)
class Watched:
    """As `service.catalog.Entry`: id, record, handle."""

    id: str
    record: Record
    handle: Database


def watched(database: Database, id: str = "db_1", name: str = "") -> Watched:
    return Watched(id, Record(name or database.name), database)


def telemetry_of(databases: Sequence[WatchedDatabase] = (), **changes: Any) -> Telemetry:
    """Its background thread is not started: the test calls `step`. databases: may change later."""
    options: dict[str, Any] = {
        "version": "1.2.3",
        "clock": HandClock(),
        "host": ToldHost(),
        "databases": lambda: databases,
        "below": secrets.randbelow,
        "recall_one_in": 0,
        "slow_query_ms": None,
    }
    return Telemetry(**{**options, **changes})
