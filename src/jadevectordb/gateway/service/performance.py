"""Searches of the last minute: how many a second, how long they took, and whether that is more or less than the minute before.

Meters only ever count up. Every few seconds their sum is remembered; a minute is the difference of two such sums.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np

from jadevectordb.gateway.service.meters import FINE_BOUNDS_S, Counts, Meter, quantile_s
from jadevectordb.gateway.service.system_usage import SystemUsage
from jadevectordb.model.limits import PERFORMANCE_SUMS_MAX
from jadevectordb.ports.clock import Clock

TICK_S = 5.0
WINDOW_S = 60.0
_CHANGE_MIN = 0.05  # a smaller change than this share is no trend


class Performance(msgspec.Struct, frozen=True):
    """Measured over the last `window_s` seconds (less than a minute after a start). Latencies are None without a search.

    trends: "up" or "down" for figures that changed by 5 % or more since the minute before.
    """

    timestamp_ms: int
    window_s: float
    queries: int  # searches in the window
    queries_total: int  # since the start
    queries_per_second: float
    latency_mean_ms: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    in_flight: int
    system: SystemUsage
    trends: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Sum:
    moment_s: float
    counts: Counts
    sum_s: float

    @property
    def queries(self) -> int:
        return int(self.counts.sum())


class PerformanceWindow:
    """Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        nothing = np.zeros(len(FINE_BOUNDS_S) + 1, np.int64)
        self._sums: deque[_Sum] = deque([_Sum(clock.monotonic_s(), nothing, 0.0)], maxlen=PERFORMANCE_SUMS_MAX)

    def tick(self, meters: Iterable[Meter]) -> None:
        """Remember the sum of these meters; called every `TICK_S`."""
        now = self._sum(meters)
        with self._lock:
            self._sums.append(now)

    def read(self, meters: Iterable[Meter], in_flight: int, system: SystemUsage) -> Performance:
        now = self._sum(meters)
        with self._lock:
            known = list(self._sums)
        begin = _before(known, now.moment_s - WINDOW_S)
        earlier = _before(known, begin.moment_s - WINDOW_S)
        window_s = max(0.0, now.moment_s - begin.moment_s)
        current = _rates(begin, now)
        trends = {} if earlier is begin else _trends(_rates(earlier, begin), current)
        queries = now.queries - begin.queries
        return Performance(
            timestamp_ms=self._clock.now_ms(),
            window_s=round(window_s, 3),
            queries=queries,
            queries_total=now.queries,
            queries_per_second=round(current["queries_per_second"] or 0.0, 3),
            latency_mean_ms=None if queries == 0 else round((now.sum_s - begin.sum_s) / queries * 1000, 4),
            latency_p50_ms=current["latency_p50_ms"],
            latency_p95_ms=current["latency_p95_ms"],
            latency_p99_ms=current["latency_p99_ms"],
            in_flight=in_flight,
            system=system,
            trends=trends,
        )

    def _sum(self, meters: Iterable[Meter]) -> _Sum:
        counts, sum_s = np.zeros(len(FINE_BOUNDS_S) + 1, np.int64), 0.0
        for meter in meters:
            figures = meter.figures()
            counts += figures.counts
            sum_s += figures.sum_s
        return _Sum(self._clock.monotonic_s(), counts, sum_s)


def _before(sums: list[_Sum], moment_s: float) -> _Sum:
    """The newest sum at or before the moment, else the oldest there is."""
    for known in reversed(sums):
        if known.moment_s <= moment_s:
            return known
    return sums[0]


def _rates(begin: _Sum, end: _Sum) -> dict[str, float | None]:
    counts = end.counts - begin.counts
    rates: dict[str, float | None] = {
        # In the first second after a start a handful of searches is no rate of thousands
        "queries_per_second": int(counts.sum()) / max(1.0, end.moment_s - begin.moment_s)
    }
    for name, share in (("latency_p50_ms", 0.5), ("latency_p95_ms", 0.95), ("latency_p99_ms", 0.99)):
        seconds = quantile_s(counts, share)
        rates[name] = None if seconds is None else round(seconds * 1000, 4)
    return rates


def _trends(before: dict[str, float | None], now: dict[str, float | None]) -> dict[str, str]:
    trends = {}
    for name, value in now.items():
        old = before[name]
        if value is not None and old is not None and abs(value - old) > _CHANGE_MIN * old:
            trends[name] = "up" if value > old else "down"
    return trends
