"""Counting requests where it must cost next to nothing: one lock and a few additions a request, everything else at reading.

A `Meter` holds the figures of one route. Its latencies go into fine buckets, a few for each of the coarse ones that
Prometheus is shown, so that the server's own percentiles are good to a few percent without keeping single measurements.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHOWN_BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_PARTS = 8  # fine buckets in each shown one
_FIRST_S = 0.00001  # where the fine buckets begin

Counts = npt.NDArray[np.int64]


def _fine_bounds() -> tuple[float, ...]:
    bounds, low = [_FIRST_S], _FIRST_S
    for high in SHOWN_BOUNDS_S:
        bounds += [low * (high / low) ** (part / _PARTS) for part in range(1, _PARTS)]
        bounds.append(high)  # exactly: a shown bucket must be a sum of fine ones
        low = high
    return tuple(bounds)


FINE_BOUNDS_S = _fine_bounds()
_BUCKETS = len(FINE_BOUNDS_S) + 1  # the last: longer than every bound
_SHOWN_AT = [FINE_BOUNDS_S.index(bound) for bound in SHOWN_BOUNDS_S]


class Histogram:
    """Durations in buckets. Not thread-safe by itself: its owner holds a lock around `add`."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(FINE_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """What a meter has counted so far."""

    counts: Counts  # int64 (buckets,)
    sum_s: float
    in_flight: int
    bytes_in: int
    bytes_out: int
    statuses: dict[int | str, int]

    @property
    def requests(self) -> int:
        return int(self.counts.sum())


class Meter:
    """The figures of one route or RPC; thread-safe. operation: its name in the table of rights."""

    __slots__ = (
        "_bytes_in", "_bytes_out", "_histogram", "_in_flight", "_lock", "_statuses", "door", "method", "operation", "route",
    )  # fmt: skip

    def __init__(self, door: str, method: str, route: str, operation: str) -> None:
        self.door = door
        self.method = method
        self.route = route
        self.operation = operation
        self._lock = threading.Lock()
        self._histogram = Histogram()
        self._in_flight = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._statuses: dict[int | str, int] = {}

    def begin(self) -> None:
        """A request is being served; `leave` is owed."""
        with self._lock:
            self._in_flight += 1

    def leave(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def record(self, status: int | str, seconds: float, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """A request was answered. status: of HTTP, or the name of a gRPC status code."""
        place = bisect_left(FINE_BOUNDS_S, seconds)
        statuses, histogram = self._statuses, self._histogram
        with self._lock:
            histogram.counts[place] += 1
            histogram.sum_s += seconds
            self._bytes_in += bytes_in
            self._bytes_out += bytes_out
            statuses[status] = statuses.get(status, 0) + 1

    def figures(self) -> Figures:
        with self._lock:
            return Figures(
                np.array(self._histogram.counts, np.int64),
                self._histogram.sum_s,
                self._in_flight,
                self._bytes_in,
                self._bytes_out,
                dict(self._statuses),
            )


class Tally:
    """A count that only grows; thread-safe."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0

    def add(self, count: int = 1) -> None:
        with self._lock:
            self._value += count

    @property
    def value(self) -> int:
        return self._value


def shown_buckets(counts: Sequence[int] | Counts) -> list[tuple[str, float]]:
    """Cumulative counts at the bounds that Prometheus is shown, and at +Inf."""
    cumulative = np.cumsum(np.asarray(counts, np.int64))
    shown = [(repr(bound), float(cumulative[at])) for bound, at in zip(SHOWN_BOUNDS_S, _SHOWN_AT, strict=True)]
    return [*shown, ("+Inf", float(cumulative[-1]))]


def quantile_s(counts: Counts, share: float) -> float | None:
    """The duration that `share` of the requests did not exceed, to the width of a fine bucket; None without requests.

    Within a bucket durations are taken to lie evenly on a logarithmic scale. Beyond the last bound: that bound.
    """
    total = int(counts.sum())
    if total == 0:
        return None
    cumulative = np.cumsum(counts)
    wanted = share * total
    at = int(np.searchsorted(cumulative, wanted, side="left"))
    if at >= len(FINE_BOUNDS_S):
        return FINE_BOUNDS_S[-1]
    high = FINE_BOUNDS_S[at]
    low = FINE_BOUNDS_S[at - 1] if at else high / 2
    before = int(cumulative[at]) - int(counts[at])
    within = min(1.0, max(0.0, (wanted - before) / max(1, int(counts[at]))))
    return float(low * (high / low) ** within)
