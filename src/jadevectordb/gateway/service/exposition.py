"""Figures in the form that Prometheus reads: collected when they are asked for, from meters, tallies and databases.

Nothing here is global: a server has a registry of its own, so two servers in one process (tests) do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jadevectordb.gateway.service.meters import FINE_BOUNDS_S, Meter, shown_buckets

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "jadevectordb_"
# Operations on databases, under the names that dashboards of earlier servers know
_DATABASE_OPERATIONS = ("database", "vector", "search", "index", "bm25", "lifecycle", "analytics", "rerank")
_ROUTE = ["door", "method", "route"]
_REFUSED_CREDENTIAL: frozenset[int | str] = frozenset({401, "UNAUTHENTICATED"})
_REFUSED_FOR_NUMBER: frozenset[int | str] = frozenset({429, "RESOURCE_EXHAUSTED"})


def requests(meters: Iterable[Meter], flights: dict[str, int]) -> Iterator[Metric]:
    """Families of the meters. Routes that nobody has called yet are left out. flights: what doors count by themselves."""
    count = CounterMetricFamily(PREFIX + "requests", "Requests answered, by status.", labels=[*_ROUTE, "status"])
    duration = HistogramMetricFamily(
        PREFIX + "request_duration_seconds", "From a whole request to its answer.", labels=_ROUTE
    )
    flight = GaugeMetricFamily(PREFIX + "requests_in_flight", "Requests being served.", labels=["door"])
    bytes_in = CounterMetricFamily(PREFIX + "request_bytes", "Bytes of request bodies.", labels=_ROUTE)
    bytes_out = CounterMetricFamily(PREFIX + "response_bytes", "Bytes of answer bodies.", labels=_ROUTE)
    flying = {"rest": 0, "grpc": 0, **flights}
    by_operation: dict[str, _Operation] = {}
    access = _Access()
    for meter in meters:
        figures = meter.figures()
        access.add(meter.operation, figures.statuses)
        flying[meter.door] = flying.get(meter.door, 0) + figures.in_flight
        if not figures.statuses:
            continue
        labels = [meter.door, meter.method, meter.route]
        for status, number in figures.statuses.items():
            count.add_metric([*labels, str(status)], number)
        duration.add_metric(labels, shown_buckets(figures.counts), figures.sum_s)
        bytes_in.add_metric(labels, figures.bytes_in)
        bytes_out.add_metric(labels, figures.bytes_out)
        if meter.operation.partition(".")[0] in _DATABASE_OPERATIONS:
            whole = by_operation.setdefault(meter.operation, _Operation())
            whole.counts += figures.counts
            whole.sum_s += figures.sum_s
            for status, number in figures.statuses.items():
                outcome = "success" if is_success(status) else "error"
                whole.outcomes[outcome] = whole.outcomes.get(outcome, 0) + number
    for door, number in flying.items():
        flight.add_metric([door], number)
    yield from (count, duration, flight, bytes_in, bytes_out)
    yield from _operations(by_operation)
    yield from access.collect()


@dataclass(slots=True)
class _Access:
    """Sign-ins and refusals, under the names that dashboards of earlier servers know; they are sums of what meters have."""

    auth_requests: int = 0
    auth_errors: int = 0
    failed_logins: int = 0
    ip_blocks: int = 0
    rate_limit_exceeded: int = 0

    def add(self, operation: str, statuses: dict[int | str, int]) -> None:
        unknown = sum(statuses.get(status, 0) for status in _REFUSED_CREDENTIAL)
        too_many = sum(statuses.get(status, 0) for status in _REFUSED_FOR_NUMBER)
        self.auth_errors += unknown
        self.rate_limit_exceeded += too_many
        if operation.startswith(("auth.", "password.")):
            self.auth_requests += sum(statuses.values())
        if operation == "auth.login":
            self.failed_logins += unknown
            self.ip_blocks += too_many

    def collect(self) -> Iterator[Metric]:
        for name, text in (
            ("auth_requests", "Requests to sign in, sign out, register, or change a password."),
            ("auth_errors", "Requests refused for a missing, wrong, expired or revoked credential."),
            ("failed_logins", "Sign-ins with a wrong name or password."),
            ("ip_blocks", "Sign-ins refused because too many failed before."),
            ("rate_limit_exceeded", "Requests refused because too many came."),
        ):
            yield counter(name, text, getattr(self, name))


@dataclass(slots=True)
class _Operation:
    counts: np.ndarray[tuple[int], np.dtype[np.int64]] = field(
        default_factory=lambda: np.zeros(len(FINE_BOUNDS_S) + 1, np.int64)
    )
    sum_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)


def _operations(by_operation: dict[str, _Operation]) -> Iterator[Metric]:
    count = CounterMetricFamily(
        PREFIX + "db_operations", "Operations on databases through any door.", labels=["operation", "status"]
    )
    duration = HistogramMetricFamily(
        PREFIX + "db_operation_duration_seconds", "Duration of operations on databases.", labels=["operation"]
    )
    for operation, whole in sorted(by_operation.items()):
        for outcome, number in sorted(whole.outcomes.items()):
            count.add_metric([operation, outcome], number)
        duration.add_metric([operation], shown_buckets(whole.counts), whole.sum_s)
    yield from (count, duration)


def is_success(status: int | str) -> bool:
    return status < 400 if isinstance(status, int) else status == "OK"


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def counts_by_label(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for value, number in sorted(counts.items()):
        family.add_metric([value], number)
    return family


class Collected:
    """A Prometheus collector made of functions; asked anew at every scrape."""

    def __init__(self, parts: Iterable[Callable[[], Iterable[Metric]]]) -> None:
        self._parts = tuple(parts)

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part()

    def describe(self) -> list[Metric]:
        return []  # nothing is read at registration
