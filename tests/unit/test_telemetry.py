"""Figures of requests and databases: counted exactly, shown as Prometheus reads them, cheap, bounded."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.telemetry_world import READING, HandClock, ToldHost, telemetry_of, watched

import jadevectordb as jade
from jadevectordb.adapters.os_host import OsHost
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.service.meters import FINE_BOUNDS_S, SHOWN_BOUNDS_S, Histogram, quantile_s
from jadevectordb.gateway.service.performance import WINDOW_S
from jadevectordb.gateway.service.system_usage import usage_between
from jadevectordb.gateway.service.telemetry import METRICS_CONTENT_TYPE, NO_ROUTE, Telemetry, one_in
from jadevectordb.gateway.service.telemetry_engine import OTHER
from jadevectordb.model.errors import ErrorCode
from jadevectordb.model.limits import DATABASES_IN_LABELS_MAX, ROUTES_METERED_MAX

Labels = frozenset[tuple[str, str]]
ROUTE = "/v2/databases/{db}/search"
KEPT_NAMES = (
    "auth_requests_total", "auth_errors_total", "failed_logins_total", "ip_blocks_total", "rate_limit_exceeded_total",
    "db_operations_total", "db_operation_duration_seconds_bucket", "db_connection_errors_total", "circuit_breaker_open",
)  # fmt: skip


def scraped(telemetry: Telemetry) -> dict[str, dict[Labels, float]]:
    """Samples by name and labels, as Prometheus' own parser reads them; a series that is there twice fails."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(telemetry.render_prometheus().decode()):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {}), f"{sample.name} {sample.labels} is there twice"
            found[sample.name][labels] = sample.value
    return found


def of(**labels: str) -> Labels:
    return frozenset(labels.items())


def test_requests_are_counted_by_route_method_and_status() -> None:
    telemetry = telemetry_of()
    telemetry.observe_request(ROUTE, "POST", 200, 0.0003, 100, 2000)
    telemetry.observe_request(ROUTE, "POST", 200, 0.003, 100, 2000)
    telemetry.observe_request(ROUTE, "POST", 404, 0.0001, 50, 80)
    telemetry.meter("grpc", "Search", "/jadevectordb.v1.Search/Search", "search").record("OK", 0.1)
    figures = scraped(telemetry)
    route = {"door": "rest", "method": "POST", "route": ROUTE}
    assert figures["jadevectordb_requests_total"][of(**route, status="200")] == 2
    assert figures["jadevectordb_requests_total"][of(**route, status="404")] == 1
    assert figures["jadevectordb_request_bytes_total"][of(**route)] == 250
    assert figures["jadevectordb_response_bytes_total"][of(**route)] == 4080
    buckets = figures["jadevectordb_request_duration_seconds_bucket"]
    # A duration equal to a bound belongs to its bucket, as Prometheus defines it
    for bound, number in (("0.0001", 1), ("0.00025", 1), ("0.0005", 2), ("0.0025", 2), ("0.005", 3), ("+Inf", 3)):
        assert buckets[of(**route, le=bound)] == number
    assert figures["jadevectordb_request_duration_seconds_sum"][of(**route)] == pytest.approx(0.0034)
    grpc = of(door="grpc", method="Search", route="/jadevectordb.v1.Search/Search", status="OK")
    assert figures["jadevectordb_requests_total"][grpc] == 1


def test_names_that_dashboards_know() -> None:
    telemetry = telemetry_of()
    telemetry.meter("rest", "POST", ROUTE, "search").record(200, 0.001)
    telemetry.meter("rest", "POST", "/v2/databases/{db}/vectors", "vector.write").record(503, 0.001)
    telemetry.meter("grpc", "Upsert", "Upsert", "vector.write").record("OK", 0.001)
    login = telemetry.meter("rest", "POST", "/v1/auth/login", "auth.login")
    for status in (200, 401, 401, 429):
        login.record(status, 0.1)
    telemetry.meter("rest", "GET", "/v1/users", "user.list").record(401, 0.001)
    telemetry.meter("grpc", "Search", "Search", "search").record("RESOURCE_EXHAUSTED", 0.001)
    telemetry.count_error(ErrorCode.IO_ERROR)
    telemetry.count_error(ErrorCode.INVALID_FILTER)
    figures = scraped(telemetry)
    for name in KEPT_NAMES:
        assert f"jadevectordb_{name}" in figures
    operations = figures["jadevectordb_db_operations_total"]
    assert operations == {
        of(operation="search", status="success"): 1,
        of(operation="search", status="error"): 1,
        of(operation="vector.write", status="error"): 1,
        of(operation="vector.write", status="success"): 1,
    }
    for name, value in (
        ("auth_requests", 4), ("auth_errors", 3), ("failed_logins", 2), ("ip_blocks", 1), ("rate_limit_exceeded", 2),
        ("db_connection_errors", 1),
    ):  # fmt: skip
        assert figures[f"jadevectordb_{name}_total"] == {of(): value}
    assert figures["jadevectordb_errors_total"] == {of(code="IO_ERROR"): 1, of(code="INVALID_FILTER"): 1}
    assert METRICS_CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_breakers_and_gauges_are_asked_at_every_scrape() -> None:
    telemetry = telemetry_of()
    is_open = {"n1": False, "n2": True}
    telemetry.watch_breaker("n1", lambda: is_open["n1"])
    telemetry.watch_breaker("n2", lambda: is_open["n2"])
    telemetry.watch_gauge("connections", "Open connections.", lambda: 42.0)
    assert scraped(telemetry)["jadevectordb_circuit_breaker_open"][of()] == 1
    is_open["n1"] = True
    figures = scraped(telemetry)
    assert figures["jadevectordb_circuit_breaker_open"][of()] == 2
    assert figures["jadevectordb_connections"][of()] == 42


def test_two_servers_in_one_process_do_not_mix() -> None:
    first, second = telemetry_of(), telemetry_of()
    first.observe_request(ROUTE, "GET", 200, 0.1)
    assert "jadevectordb_requests_total" not in scraped(second)


def test_what_clients_invent_makes_no_series() -> None:
    telemetry = telemetry_of()
    for number in range(ROUTES_METERED_MAX + 100):
        telemetry.observe_request(NO_ROUTE, f"METHOD{number}", 405, 0.001)
    assert len(scraped(telemetry)["jadevectordb_requests_total"]) == 1
    for number in range(ROUTES_METERED_MAX + 100):
        telemetry.observe_request(f"/route{number}", "GET", 200, 0.001)
    series = scraped(telemetry)["jadevectordb_requests_total"]
    assert len(series) <= ROUTES_METERED_MAX + 2
    assert sum(series.values()) == 2 * (ROUTES_METERED_MAX + 100)


def test_no_request_is_lost_among_threads() -> None:
    telemetry = telemetry_of()
    meter = telemetry.meter("rest", "POST", ROUTE, "search")
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(5000):
            meter.begin()
            telemetry.observe_request(ROUTE, "POST", 200, 0.001, 1, 2)
            meter.leave()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = meter.figures()
    assert (figures.requests, figures.statuses, figures.in_flight) == (20_000, {200: 20_000}, 0)
    assert (figures.bytes_in, figures.bytes_out) == (20_000, 40_000)


def test_in_flight() -> None:
    telemetry = telemetry_of()
    meter = telemetry.meter("rest", "POST", ROUTE, "search")
    meter.begin()
    meter.begin()
    meter.leave()
    telemetry.watch_in_flight("grpc", lambda: 5)  # a door that counts by itself
    assert telemetry.in_flight == telemetry.performance().in_flight == 6
    assert scraped(telemetry)["jadevectordb_requests_in_flight"] == {of(door="rest"): 1, of(door="grpc"): 5}


def test_shown_bounds_are_fine_bounds() -> None:
    assert set(SHOWN_BOUNDS_S) <= set(FINE_BOUNDS_S)
    assert list(FINE_BOUNDS_S) == sorted(FINE_BOUNDS_S)


def test_quantiles_are_within_a_bucket_of_the_truth() -> None:
    durations = np.random.default_rng(5).lognormal(np.log(0.002), 1.0, 20_000)
    histogram = Histogram()
    for duration in durations:
        histogram.add(float(duration))
    counts = np.array(histogram.counts, np.int64)
    for share in (0.5, 0.95, 0.99):
        found = quantile_s(counts, share)
        assert found is not None
        assert found == pytest.approx(float(np.quantile(durations, share)), rel=0.05)
    assert quantile_s(np.zeros_like(counts), 0.5) is None
    forever = Histogram()
    forever.add(1e6)
    assert quantile_s(np.array(forever.counts), 0.5) == FINE_BOUNDS_S[-1]


# The last minute


def test_performance_is_of_the_last_minute() -> None:
    clock, host = HandClock(), ToldHost()
    telemetry = telemetry_of(clock=clock, host=host)
    search = telemetry.meter("rest", "POST", ROUTE, "search")
    other = telemetry.meter("rest", "GET", "/health", "health")
    nothing = telemetry.performance()
    assert (nothing.queries, nothing.queries_per_second, nothing.latency_p50_ms) == (0, 0.0, None)

    def minute(searches: int, seconds: float) -> None:
        for _ in range(12):
            for _ in range(searches // 12):
                search.record(200, seconds)
                other.record(200, 9.0)  # no search: not a query
            clock.moment_s += 5
            telemetry.step()

    minute(1200, 0.002)
    first = telemetry.performance()
    assert first.queries == 1200
    assert first.window_s == WINDOW_S
    assert first.queries_per_second == 20.0
    assert first.latency_mean_ms == pytest.approx(2.0)
    assert first.latency_p50_ms == pytest.approx(2.0, rel=0.15)
    assert first.trends == {}
    minute(2400, 0.02)
    second = telemetry.performance()
    assert (second.queries, second.queries_total, second.queries_per_second) == (2400, 3600, 40.0)
    assert second.latency_p99_ms == pytest.approx(20.0, rel=0.15)
    assert second.trends == dict.fromkeys(
        ("queries_per_second", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms"), "up"
    )
    minute(0, 0.0)
    third = telemetry.performance()
    assert (third.queries, third.queries_per_second, third.latency_p99_ms) == (0, 0.0, None)
    assert third.trends == {"queries_per_second": "down"}


def test_usage_of_the_machine() -> None:
    clock, host = HandClock(), ToldHost()
    telemetry = telemetry_of(clock=clock, host=host)
    assert telemetry.system_usage().cpu_percent is None, "one reading gives no share"
    clock.moment_s += 10
    host.tell(machine_busy_s=105.0, machine_total_s=1020.0, process_cpu_s=15.0)
    usage = telemetry.system_usage()
    assert (usage.cpu_percent, usage.process_cpu_percent) == (25.0, 50.0)
    assert (usage.memory_percent, usage.disk_percent) == (75.0, 50.0)
    host.tell(disk_available_bytes=0)
    assert telemetry.system_usage() is usage, "the machine is not asked for every health check"
    clock.moment_s += 1
    host.tell(machine_busy_s=None, memory_total_bytes=None, disk_total_bytes=None)
    unknown = telemetry.system_usage()
    assert (unknown.cpu_percent, unknown.memory_percent, unknown.disk_percent) == (None, None, None)
    assert "jadevectordb_machine_cpu_percent" not in scraped(telemetry)
    assert usage_between(READING, READING, 10.0).cpu_percent is None, "a machine without ticks"


def test_real_host(tmp_path: Path) -> None:
    host = OsHost(tmp_path)
    reading = host.read()
    assert reading.process_memory_bytes is not None
    assert 1 << 20 < reading.process_memory_bytes < 1 << 40
    assert reading.process_open_files is not None
    with (tmp_path / "held").open("w"):
        more = host.read()
        assert more.process_open_files == reading.process_open_files + 1
    assert reading.memory_total_bytes is not None
    assert reading.memory_available_bytes is not None
    assert 0 < reading.memory_available_bytes <= reading.memory_total_bytes
    assert reading.disk_total_bytes is not None
    assert reading.disk_available_bytes is not None
    assert 0 <= reading.disk_available_bytes <= reading.disk_total_bytes
    while host.read().process_cpu_s == reading.process_cpu_s:
        pass
    without = OsHost(tmp_path / "gone", proc=tmp_path / "no-proc").read()
    assert (without.machine_busy_s, without.memory_total_bytes, without.disk_total_bytes) == (None, None, None)
    assert (without.process_memory_bytes, without.process_open_files) == (None, None)


def test_damaged_proc_is_unknown_not_wrong(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  1 2 three\n")
    (tmp_path / "meminfo").write_text("MemTotal: many kB\n")
    reading = OsHost(tmp_path, proc=tmp_path).read()
    assert (reading.machine_busy_s, reading.memory_total_bytes) == (None, None)


# Databases


def test_databases(tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        database = store.create_database("products", 4)
        database.upsert([f"v{i}" for i in range(50)], np.random.default_rng(1).random((50, 4)))
        database.delete(["v1", "v2"])
        entry = watched(database, "db_abc")
        telemetry = telemetry_of([entry])
        hits = database.search(np.ones(4), k=5)
        telemetry.observe_search(entry, np.ones(4), 5, None, 0.95, hits, 0.0003)
        figures = scraped(telemetry)
        label = of(database="db_abc", name="products")
        stats = database.stats()
        for name, value in (
            ("rows", 48), ("indexed_rows", 0), ("dead_rows", 2), ("segments", 1), ("memory_bytes", stats.memory_bytes),
            ("disk_bytes", stats.disk_bytes), ("log_bytes", stats.log_bytes), ("trouble", 0),
        ):  # fmt: skip
            assert figures[f"jadevectordb_database_{name}"] == {label: value}
        assert figures["jadevectordb_databases"][of()] == 1
        assert figures["jadevectordb_search_duration_seconds_count"] == {label: 1}
    # A database that can't be read is trouble, not a failed scrape
    closed = scraped(telemetry)
    assert closed["jadevectordb_database_trouble"] == {label: 1}


def test_many_databases_share_labels(tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        full = store.create_database("full", 2)
        full.upsert(["a"], [[1, 1]])
        empty = store.create_database("empty", 2)
        extra = 3
        entries = [watched(empty, f"db_{i}") for i in range(DATABASES_IN_LABELS_MAX + extra)]
        entries += [watched(full, f"full_{i}") for i in range(2)]
        telemetry = telemetry_of(entries)
        for entry in entries:
            telemetry.observe_search(entry, [1, 1], 1, None, 0.95, entry.handle.search([1, 1], k=1), 0.001)
        figures = scraped(telemetry)
        rows = figures["jadevectordb_database_rows"]
        assert len(rows) == DATABASES_IN_LABELS_MAX + 1
        assert rows[of(database="full_0", name="full")] == 1, "the largest keep figures of their own"
        assert figures["jadevectordb_databases"][of()] == len(entries)
        searches = figures["jadevectordb_search_duration_seconds_count"]
        assert len(searches) == DATABASES_IN_LABELS_MAX + 1
        assert sum(searches.values()) == len(entries)
        assert searches[of(database=OTHER, name=OTHER)] == extra + 2


def test_dropped_databases_are_forgotten(tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        database = store.create_database("a", 2)
        database.upsert(["a"], [[1, 1]])
        known = [watched(database)]
        telemetry = telemetry_of(known)
        telemetry.observe_search(known[0], [1, 1], 1, None, 0.95, database.search([1, 1]), 0.001)
        assert "jadevectordb_search_duration_seconds_count" in scraped(telemetry)
        known.clear()
        assert "jadevectordb_search_duration_seconds_count" not in scraped(telemetry)


def test_same_name_twice_is_two_series(tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        database, odd = store.create_database("a", 2), 'odd "name"\\\n'
        figures = scraped(telemetry_of([watched(database, "db_1", odd), watched(database, "db_2", odd)]))
        assert set(figures["jadevectordb_database_rows"]) == {
            of(database="db_1", name=odd),
            of(database="db_2", name=odd),
        }


def test_background_thread_starts_and_ends(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    telemetry = telemetry_of(clock=SystemClock(), host=OsHost(tmp_path))
    telemetry.start()
    telemetry.close()
    assert set(threading.enumerate()) <= before


def test_share_as_one_in() -> None:
    assert [one_in(share) for share in (0, 0.001, 0.3, 0.9, 1)] == [0, 1000, 3, 1, 1]
