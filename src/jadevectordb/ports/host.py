"""The machine as a port: how busy, how full. What the operating system does not tell is None, never a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class HostReading:
    """Counters and levels of one moment. Seconds of CPU time grow from an unknown start: two readings give a share."""

    machine_busy_s: float | None  # all cores together
    machine_total_s: float | None  # busy and idle
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    disk_total_bytes: int | None  # of the file system that holds the data folder
    disk_available_bytes: int | None  # for this process's user
    process_cpu_s: float
    process_memory_bytes: int | None  # resident
    process_open_files: int | None
    cores: int  # this process may use


class Host(Protocol):
    def read(self) -> HostReading: ...
