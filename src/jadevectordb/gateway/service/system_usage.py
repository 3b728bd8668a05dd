"""How busy the machine and how full its disk: readings of the host port turned into percent, over the last while."""

from __future__ import annotations

import threading
from collections import deque

import msgspec

from jadevectordb.model.limits import USAGE_READINGS_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.host import Host, HostReading

_FRESH_S = 1.0  # an answer of this age is given again: health checks and scrapes may come in crowds
_SPAN_S_MIN = 0.2  # CPU shares over less are noise: the kernel counts in ticks of 10 ms


class SystemUsage(msgspec.Struct, frozen=True):
    """None: the operating system does not tell. cpu_percent: of all cores of the machine, over the last minute at most.

    process_cpu_percent: 100 is one core.
    """

    cpu_percent: float | None
    memory_percent: float | None
    disk_percent: float | None
    process_cpu_percent: float | None
    process_memory_bytes: int | None
    process_open_files: int | None
    disk_available_bytes: int | None


class UsageMeter:
    """Remembers readings of the last minute. Thread-safe."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._lock = threading.Lock()
        self._readings: deque[tuple[float, HostReading]] = deque(maxlen=USAGE_READINGS_MAX)
        self._latest: tuple[float, SystemUsage] | None = None
        self.tick()

    def tick(self) -> None:
        """Take a reading; called every few seconds."""
        reading = self._host.read()
        with self._lock:
            self._readings.append((self._clock.monotonic_s(), reading))

    def now(self) -> SystemUsage:
        latest, moment = self._latest, self._clock.monotonic_s()
        if latest is not None and moment - latest[0] < _FRESH_S:
            return latest[1]
        reading = self._host.read()
        with self._lock:
            then, before = self._readings[0]
        usage = usage_between(before, reading, moment - then)
        self._latest = moment, usage
        return usage


def usage_between(before: HostReading, now: HostReading, elapsed_s: float) -> SystemUsage:
    """Levels of `now`, CPU shares of the time since `before`."""
    cpu = process_cpu = None
    if elapsed_s >= _SPAN_S_MIN:
        process_cpu = round(100 * max(0.0, now.process_cpu_s - before.process_cpu_s) / elapsed_s, 1)
        cpu = _cpu_percent(before, now)
    return SystemUsage(
        cpu_percent=cpu,
        memory_percent=_percent_used(now.memory_total_bytes, now.memory_available_bytes),
        disk_percent=_percent_used(now.disk_total_bytes, now.disk_available_bytes),
        process_cpu_percent=process_cpu,
        process_memory_bytes=now.process_memory_bytes,
        process_open_files=now.process_open_files,
        disk_available_bytes=now.disk_available_bytes,
    )


def _cpu_percent(before: HostReading, now: HostReading) -> float | None:
    if (
        now.machine_busy_s is None
        or now.machine_total_s is None
        or before.machine_busy_s is None
        or before.machine_total_s is None
    ):
        return None
    total_s = now.machine_total_s - before.machine_total_s
    if total_s <= 0:
        return None
    return round(min(100.0, max(0.0, 100 * (now.machine_busy_s - before.machine_busy_s) / total_s)), 1)


def _percent_used(total: int | None, available: int | None) -> float | None:
    return None if not total or available is None else round(100 * (1 - available / total), 1)
