"""The host port over /proc and the os module. Where there is no /proc (macOS) the figures only it has are None."""

from __future__ import annotations

import os
import time
from pathlib import Path

from jadevectordb.ports.host import HostReading

_IDLE_FIELDS = (3, 4)  # idle, iowait: the columns of /proc/stat that are no work
_GUEST_FROM = 8  # guest time is counted in user time already


class OsHost:
    """data: the folder whose file system is watched."""

    def __init__(self, data: Path, proc: Path = Path("/proc")) -> None:
        self._data = data
        self._proc = proc

    def read(self) -> HostReading:
        busy_s, total_s = self._machine_cpu()
        memory = self._memory()
        disk_total, disk_available = self._disk()
        return HostReading(
            machine_busy_s=busy_s,
            machine_total_s=total_s,
            memory_total_bytes=memory.get("MemTotal"),
            memory_available_bytes=memory.get("MemAvailable"),
            disk_total_bytes=disk_total,
            disk_available_bytes=disk_available,
            process_cpu_s=time.process_time(),
            process_memory_bytes=self._resident(),
            process_open_files=self._open_files(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        )

    def _machine_cpu(self) -> tuple[float | None, float | None]:
        try:
            with (self._proc / "stat").open() as file:
                ticks = [int(field) for field in file.readline().split()[1:][:_GUEST_FROM]]
        except (OSError, ValueError):
            return None, None
        if len(ticks) <= max(_IDLE_FIELDS):
            return None, None
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - sum(ticks[place] for place in _IDLE_FIELDS)) * tick_s, sum(ticks) * tick_s

    def _memory(self) -> dict[str, int]:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            fields = [line.split() for line in lines[:8]]
            return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if len(field) > 1}
        except (OSError, ValueError):
            return {}

    def _disk(self) -> tuple[int | None, int | None]:
        try:
            found = os.statvfs(self._data)
        except OSError:
            return None, None
        # Blocks reserved for root are neither used nor to be had: left out, as df does
        used = found.f_blocks - found.f_bfree
        return (used + found.f_bavail) * found.f_frsize, found.f_bavail * found.f_frsize

    def _resident(self) -> int | None:
        try:
            return int((self._proc / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return None

    def _open_files(self) -> int | None:
        try:
            return len(os.listdir(self._proc / "self" / "fd")) - 1  # one is of this very listing
        except OSError:
            return None
