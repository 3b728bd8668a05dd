"""What the server knows about itself, in one place: every door reports here, operators read here.

Reporting is cheap and never waits: a few additions under a lock (`meters`). What costs more, repeating a search exactly to
measure recall, explaining a slow one, reading the machine's counters, is done by one background thread that keeps to a share
of the time. Reading (`render_prometheus`, `performance`, `logs`, `slow_queries`) collects when it is asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.service import exposition
from jadevectordb.gateway.service.logs import LogEntry, RecentLogs
from jadevectordb.gateway.service.meters import Meter, Tally
from jadevectordb.gateway.service.performance import TICK_S, Performance, PerformanceWindow
from jadevectordb.gateway.service.recall_probe import RecallEstimate, RecallProbe
from jadevectordb.gateway.service.slow_queries import SlowQueries, SlowQuery
from jadevectordb.gateway.service.system_usage import SystemUsage, UsageMeter
from jadevectordb.gateway.service.telemetry_engine import EngineFigures, SearchMeters
from jadevectordb.gateway.service.tracing import UNTRACED, AnyTracing
from jadevectordb.gateway.service.watched import FilterLike, Hits, ObservedSearch, WatchedDatabase
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ROUTES_METERED_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.host import Host

logger = logging.getLogger("jadevectordb.telemetry")

METRICS_CONTENT_TYPE = exposition.CONTENT_TYPE
NO_ROUTE = "(none)"  # of requests that no route fits
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_OTHER_METHOD = "OTHER"
_STORAGE_CODES = frozenset({ErrorCode.IO_ERROR, ErrorCode.CORRUPT, ErrorCode.LOCKED, ErrorCode.READ_ONLY})
_NO_OPTIONS: Mapping[str, Any] = {}


def one_in(share: float) -> int:
    """ "A share of 0.001 of the searches" as "one in 1000"; 0 for none."""
    return 0 if share <= 0 else max(1, round(1 / share))


class RouteLike(Protocol):
    """`gateway.rest.http.Route` is one."""

    @property
    def method(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def operation(self) -> str: ...


class Telemetry:
    """Thread-safe.

    databases: those there are now. below: a random integer from 0 to its argument, exclusive. slow_query_ms: None = never.
    recall_one_in: repeat about one of so many searches exactly; 0 = none. logs: where recent lines are kept.
    """

    def __init__(
        self,
        *,
        version: str,
        clock: Clock,
        host: Host,
        databases: Callable[[], Iterable[WatchedDatabase]],
        below: Callable[[int], int],
        slow_query_ms: float | None = 100.0,
        recall_one_in: int = 1000,
        logs: RecentLogs | None = None,
        tracing: AnyTracing = UNTRACED,
    ) -> None:
        self.tracing = tracing
        self._version = version
        self._clock = clock
        self._recent_logs = RecentLogs() if logs is None else logs
        self._usage = UsageMeter(host, clock)
        self._window = PerformanceWindow(clock)
        self._probe = RecallProbe(recall_one_in, clock, below)
        self._slow = SlowQueries(slow_query_ms, clock)
        self._searches = SearchMeters()
        self._errors = {code: Tally() for code in ErrorCode}
        self._meters: dict[tuple[str, str, str], Meter] = {}
        self._meters_lock = threading.Lock()  # to add; readers use the dict as it is
        self._breakers: dict[str, Callable[[], bool]] = {}
        self._flights: dict[str, Callable[[], int]] = {}
        self._others: list[Callable[[], Iterable[Metric]]] = []
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._started_s = clock.monotonic_s()
        self._next_tick_s = self._started_s + TICK_S
        self._registry = CollectorRegistry()
        engine = EngineFigures(databases, self._searches, self._probe)
        parts = (self._about, self._requests, engine.collect, self._machine, self._of_others)
        self._registry.register(exposition.Collected(parts))
        ProcessCollector(registry=self._registry)  # CPU, memory, open files of this process, under the usual names
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jade-telemetry", daemon=True)

    # Reporting: requests

    def meter(self, door: str, method: str, route: str, operation: str) -> Meter:
        """The meter of a route or RPC, made if need be; keep it and spare the look-up. door: rest or grpc."""
        key = (door, method, route)
        known = self._meters.get(key)
        if known is not None:
            return known
        with self._meters_lock:
            if len(self._meters) >= ROUTES_METERED_MAX:
                key = (door, _OTHER_METHOD, NO_ROUTE)
            return self._meters.setdefault(key, Meter(door, key[1], key[2], operation))

    def add_routes(self, routes: Iterable[RouteLike]) -> None:
        """Say which operation each REST route is, before the first request: the figures by operation come from it."""
        for route in routes:
            self.meter("rest", route.method, route.template, route.operation)

    def observe_request(
        self,
        route: str,
        method: str,
        status: int,
        seconds: float,
        bytes_in: int = 0,
        bytes_out: int = 0,
        operation: str = "",
    ) -> None:
        """A REST request was answered. route: its template, `NO_ROUTE` when none fits."""
        found = self._meters.get(("rest", method, route))
        if found is None:
            found = self.meter("rest", method if method in _METHODS else _OTHER_METHOD, route, operation)
        found.record(status, seconds, bytes_in, bytes_out)

    def count_error(self, code: ErrorCode) -> None:
        """A request was refused or failed for this reason."""
        self._errors[code].add()

    # Reporting: searches

    def observe_search(
        self,
        database: WatchedDatabase,
        vector: npt.ArrayLike | None,
        k: int | None,
        filter: FilterLike,
        recall: float,
        hits: Hits,
        seconds: float,
        *,
        request_id: str = "",
        options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> None:
        """A search was answered, `seconds` of it in the engine. options: what else `Database.search` was given.

        Nothing is kept of it unless it is slow or chosen for the recall estimate; then the vector is copied.
        """
        self._searches.of(database.id).record(200, seconds)
        slow = seconds >= self._slow.threshold_s
        chosen = self._probe.is_chosen() and _is_comparable(vector, k, recall, options)
        if slow or chosen:
            self._keep(
                ObservedSearch(
                    database, None if vector is None else np.array(vector), k, filter, recall, hits, seconds, request_id,
                    dict(options),
                ),
                slow,
                chosen,
            )  # fmt: skip

    def count_search(self, database_id: str, seconds: float) -> None:
        """A search was answered by another process of this server."""
        self._searches.of(database_id).record(200, seconds)

    def note_slow(self, search: ObservedSearch) -> None:
        """A slow search was answered by another process of this server."""
        self._keep(search, slow=True, chosen=False)

    def _keep(self, search: ObservedSearch, slow: bool, chosen: bool) -> None:
        if slow:
            self._slow.note(search)
        if chosen and isinstance(search.database.handle, Database):  # a cluster's views are elsewhere, and several
            try:
                self._probe.offer(search.with_view(search.database.handle._use().view))
            except JadeError:  # closed in this moment
                return
        self._wake.set()

    # Reporting: what others hold

    def watch_breaker(self, peer: str, is_open: Callable[[], bool]) -> None:
        """A circuit breaker towards another node; asked at every scrape. The same peer again replaces it."""
        self._breakers[peer] = is_open

    def watch_gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """A level that someone else holds (connections, waiting requests); name without the prefix."""
        self._gauges[name] = (help, read)

    def watch_families(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Figures with labels that someone else collects; their names begin with the prefix."""
        self._others.append(read)

    def watch_in_flight(self, door: str, read: Callable[[], int]) -> None:
        """How many requests of a door wait or run, where the door counts them itself instead of by `Meter.begin`."""
        self._flights[door] = read

    # Reading

    def render_prometheus(self) -> bytes:
        """All metrics as text (`METRICS_CONTENT_TYPE`). Reads every database's figures: not for the event loop."""
        return generate_latest(self._registry)

    def performance(self) -> Performance:
        return self._window.read(self._search_meters(), self.in_flight, self._usage.now())

    def system_usage(self) -> SystemUsage:
        return self._usage.now()

    def logs(self, level: str = "debug", contains: str = "", limit: int = 100) -> list[LogEntry]:
        """Newest first. Raises INVALID_ARGUMENT for an unknown level."""
        return self._recent_logs.find(level, contains, limit)

    def slow_queries(self, limit: int = 100) -> list[SlowQuery]:
        """Newest first."""
        return self._slow.newest(limit)

    def recall(self, database_id: str) -> RecallEstimate | None:
        """What sampled searches of the last hour found; None while there is no sample."""
        return self._probe.estimate(database_id)

    @property
    def in_flight(self) -> int:
        counted = sum(meter.figures().in_flight for meter in list(self._meters.values()))
        return counted + sum(read() for read in list(self._flights.values()))

    # In the background

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the background thread; what it was about to measure is dropped."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.tracing.close()

    def step(self) -> float:
        """Do what is due; seconds until something is due again. Called by the background thread, or by a test instead of it."""
        if self._clock.monotonic_s() >= self._next_tick_s:
            self._next_tick_s = self._clock.monotonic_s() + TICK_S
            self._usage.tick()
            self._window.tick(self._search_meters())
        self._probe.step()
        self._slow.step()
        waits = [max(0.0, self._next_tick_s - self._clock.monotonic_s())]
        if self._slow.wait_s is not None:
            waits.append(self._slow.wait_s)
        return 0.0 if self._probe.is_waiting else min(waits)

    def _run(self) -> None:
        while not self._closing:
            try:
                wait_s = self.step()
            except Exception:  # a defect here must not end the figures
                logger.exception("background telemetry failed; it goes on")
                wait_s = TICK_S
            self._wake.wait(wait_s)
            self._wake.clear()

    # For the scrape

    def _search_meters(self) -> list[Meter]:
        return [meter for meter in list(self._meters.values()) if meter.operation == "search"]

    def _about(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(exposition.PREFIX + "info", "The server; always 1.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        yield exposition.gauge(
            "uptime_seconds", "Since the server was started.", self._clock.monotonic_s() - self._started_s
        )
        yield exposition.counter("slow_queries", "Searches slower than log.slow_query_ms.", self._slow.total)
        yield exposition.gauge(
            "circuit_breaker_open",
            "Circuit breakers towards other nodes that are open.",
            sum(is_open() for is_open in list(self._breakers.values())),
        )
        for name, (help, read) in list(self._gauges.items()):
            yield exposition.gauge(name, help, read())

    def _requests(self) -> Iterator[Metric]:
        flights = {door: read() for door, read in list(self._flights.items())}
        yield from exposition.requests(list(self._meters.values()), flights)
        counts = {str(code): tally.value for code, tally in self._errors.items() if tally.value}
        yield exposition.counts_by_label("errors", "Requests refused or failed, by reason.", "code", counts)
        yield exposition.counter(
            "db_connection_errors",
            "Requests that failed because storage could not be read or written.",
            sum(self._errors[code].value for code in _STORAGE_CODES),
        )

    def _of_others(self) -> Iterator[Metric]:
        for read in list(self._others):
            yield from read()

    def _machine(self) -> Iterator[Metric]:
        usage = self._usage.now()
        for name, help, value in (
            ("machine_cpu_percent", "CPU of all cores in use, last minute.", usage.cpu_percent),
            ("machine_memory_percent", "Memory in use.", usage.memory_percent),
            ("data_disk_percent", "File system of the data folder in use.", usage.disk_percent),
            ("data_disk_available_bytes", "Space left for data.", usage.disk_available_bytes),
        ):
            if value is not None:  # what can't be measured has no sample rather than a wrong one
                yield exposition.gauge(name, help, value)


def _is_comparable(vector: npt.ArrayLike | None, k: int | None, recall: float, options: Mapping[str, Any]) -> bool:
    """Whether an exact search answers the same question, and could answer it differently."""
    plain = not options or options.keys() <= {"explain"}
    return plain and vector is not None and k is not None and recall < 1.0
