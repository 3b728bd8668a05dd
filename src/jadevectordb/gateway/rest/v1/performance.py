"""How the server does right now: searches of the last minute and how busy the machine is. What can't be measured is null."""

from __future__ import annotations

import msgspec

from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.service.performance import Performance
from jadevectordb.gateway.service.services import Services


class Figure(msgspec.Struct, omit_defaults=True):
    """One figure as a dashboard shows it. trend: compared with the minute before; absent when it is about the same."""

    label: str
    name: str
    value: float
    unit: str
    timestamp: str
    trend: str = ""


class PerformanceAnswer(msgspec.Struct):
    """The same figures twice: as a list for dashboards (those that are known), and by name. Latencies in milliseconds."""

    metrics: list[Figure]
    cpu_usage: float | None
    memory_usage: float | None
    disk_usage: float | None
    query_latency_p50: float | None
    query_latency_p95: float | None
    query_latency_p99: float | None
    queries_per_second: float
    queries_total: int
    requests_in_flight: int
    process_cpu_usage: float | None
    process_memory_bytes: int | None
    window_seconds: float
    timestamp: str


def _answer(measured: Performance) -> PerformanceAnswer:
    moment, system = iso(measured.timestamp_ms) or "", measured.system
    figures = (
        ("Queries per second", "queries_per_second", measured.queries_per_second, "/s", "queries_per_second"),
        ("Query latency p50", "query_latency_p50", measured.latency_p50_ms, "ms", "latency_p50_ms"),
        ("Query latency p95", "query_latency_p95", measured.latency_p95_ms, "ms", "latency_p95_ms"),
        ("Query latency p99", "query_latency_p99", measured.latency_p99_ms, "ms", "latency_p99_ms"),
        ("CPU usage", "cpu_usage", system.cpu_percent, "%", ""),
        ("Memory usage", "memory_usage", system.memory_percent, "%", ""),
        ("Disk usage", "disk_usage", system.disk_percent, "%", ""),
    )
    return PerformanceAnswer(
        metrics=[
            Figure(label, name, value, unit, moment, measured.trends.get(trend, ""))
            for label, name, value, unit, trend in figures
            if value is not None
        ],
        cpu_usage=system.cpu_percent,
        memory_usage=system.memory_percent,
        disk_usage=system.disk_percent,
        query_latency_p50=measured.latency_p50_ms,
        query_latency_p95=measured.latency_p95_ms,
        query_latency_p99=measured.latency_p99_ms,
        queries_per_second=measured.queries_per_second,
        queries_total=measured.queries_total,
        requests_in_flight=measured.in_flight,
        process_cpu_usage=system.process_cpu_percent,
        process_memory_bytes=system.process_memory_bytes,
        window_seconds=measured.window_s,
        timestamp=moment,
    )


def _performance(services: Services, request: Request) -> Response:
    return reply(_answer(services.telemetry.performance()))


ROUTES = (
    Route(
        "GET", "/v1/metrics/performance", "performance", _performance,
        summary="Searches of the last minute and the machine's load", answer=PerformanceAnswer,
    ),
    Route(
        "GET", "/v1/performance/metrics", "performance", _performance,
        summary="Alias of /v1/metrics/performance", answer=PerformanceAnswer,
    ),
)  # fmt: skip
