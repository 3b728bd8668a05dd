"""What a reading process tells the writer about its work, in batches, so that metrics, analytics and the log are of the whole server.

A reader keeps events in memory and sends them every tenth of a second, and before every request that it passes on: whoever asks over
the same connection for what just happened is told of it. The writer takes them as if they had happened in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.embedded.hits import Hits as EngineHits
from jadevectordb.gateway.service.analytics import QueryRecorder
from jadevectordb.gateway.service.logs import LogEntry, RecentLogs
from jadevectordb.gateway.service.services import Services
from jadevectordb.gateway.service.tracing import AnyTracing
from jadevectordb.gateway.service.watched import FilterLike, Hits, ObservedSearch, WatchedDatabase
from jadevectordb.model import filters
from jadevectordb.model.errors import ErrorCode
from jadevectordb.model.limits import REPORTS_WAITING_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.query_log import QueryRecord

RequestSeen = tuple[str, str, int, float, int, int]  # route, method, status, seconds, bytes in, bytes out


class SlowSearch(msgspec.Struct, array_like=True, frozen=True):
    """A search that was slow, with what it takes to explain it. vector: float64. node, filter: in one of its two forms."""

    database: str
    vector: bytes | None
    k: int | None
    recall: float
    node: bytes | None
    filter: dict[str, Any] | None
    options: dict[str, Any]
    hits: int
    seconds: float
    request_id: str


class Report(msgspec.Struct, array_like=True):
    """searches: database id, seconds. uses: user id, credential id, how often, when last. dropped: events there was no room for."""

    requests: list[RequestSeen] = []
    searches: list[tuple[str, float]] = []
    slow: list[SlowSearch] = []
    queries: list[QueryRecord] = []
    errors: list[str] = []
    uses: list[tuple[str, str, int, int]] = []
    entries: list[LogEntry] = []
    dropped: int = 0


class Reports:
    """Collects; `take` hands over. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fresh = Report()
        self._uses: dict[tuple[str, str], tuple[int, int]] = {}
        self._events = 0

    def _has_room(self) -> bool:
        if self._events >= REPORTS_WAITING_MAX:
            self._fresh.dropped += 1
            return False
        self._events += 1
        return True

    def request(self, seen: RequestSeen) -> None:
        with self._lock:
            if self._has_room():
                self._fresh.requests.append(seen)

    def search(self, database: str, seconds: float) -> None:
        with self._lock:
            if self._has_room():
                self._fresh.searches.append((database, seconds))

    def slow(self, search: SlowSearch) -> None:
        with self._lock:
            if self._has_room():
                self._fresh.slow.append(search)

    def query(self, record: QueryRecord) -> None:
        with self._lock:
            if self._has_room():
                self._fresh.queries.append(record)

    def error(self, code: ErrorCode) -> None:
        with self._lock:
            if self._has_room():
                self._fresh.errors.append(str(code))

    def entry(self, entry: LogEntry) -> None:
        with self._lock:
            if self._has_room():
                self._fresh.entries.append(entry)

    def use(self, user_id: str, credential_id: str, now_ms: int) -> None:
        with self._lock:
            count, _ = self._uses.get((user_id, credential_id), (0, 0))
            self._uses[user_id, credential_id] = (count + 1, now_ms)

    def take(self) -> Report | None:
        """What came since it was last asked; None when nothing did."""
        with self._lock:
            if not self._events and not self._uses:
                return None
            report, self._fresh = self._fresh, Report()
            report.uses = [(*names, *use) for names, use in self._uses.items()]
            self._uses, self._events = {}, 0
        return report


class ReportedQueries(QueryRecorder):
    """Analytics of a reader: it records, the writer keeps."""

    def __init__(self, reports: Reports, clock: Clock, unique: Callable[[], str]) -> None:
        super().__init__(clock, unique)
        self._reports = reports

    def add(self, record: QueryRecord) -> None:
        self._reports.query(record)


class ReportedLogs(RecentLogs):
    """The log of a reader: its lines go to the writer's."""

    def __init__(self, reports: Reports) -> None:
        super().__init__(1)
        self._reports = reports

    def add(self, entry: LogEntry) -> None:
        self._reports.entry(entry)


class ReportedTelemetry:
    """What `Telemetry` is to the handlers of searches and reads. slow_query_ms: None = never."""

    def __init__(self, reports: Reports, tracing: AnyTracing, slow_query_ms: float | None) -> None:
        self.tracing = tracing
        self._reports = reports
        self._slow_s = float("inf") if slow_query_ms is None else slow_query_ms / 1000

    def watch_in_flight(self, door: str, read: Callable[[], int]) -> None:
        """The writer's figure is its own."""

    def observe_request(
        self, route: str, method: str, status: int, seconds: float, bytes_in: int = 0, bytes_out: int = 0
    ) -> None:
        self._reports.request((route, method, status, seconds, bytes_in, bytes_out))

    def count_error(self, code: ErrorCode) -> None:
        self._reports.error(code)

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
        options: Mapping[str, Any],
    ) -> None:
        self._reports.search(database.id, seconds)
        if seconds >= self._slow_s:
            node = None if filter is None or isinstance(filter, Mapping) else filters.to_json(filter)
            given = dict(filter) if isinstance(filter, Mapping) else None
            packed = None if vector is None else np.asarray(vector, np.float64).tobytes()
            self._reports.slow(
                SlowSearch(database.id, packed, k, recall, node, given, dict(options), len(hits), seconds, request_id)
            )


# At the writer


def take(report: Report, services: Services, add_entry: Callable[[LogEntry], None]) -> None:
    """Count it all as if it had happened here."""
    telemetry, usage = services.telemetry, services.access.usage
    for seen in report.requests:
        telemetry.observe_request(*seen)
    for database, seconds in report.searches:
        telemetry.count_search(database, seconds)
    for slow in report.slow:
        entry = services.catalog.find(slow.database)
        if entry is not None:  # else it was dropped meanwhile
            telemetry.note_slow(_observed(slow, entry))
    for record in report.queries:
        services.analytics.add(record)
    for code in report.errors:
        telemetry.count_error(ErrorCode(code))
    for user_id, credential_id, count, last_ms in report.uses:
        usage.add(user_id, credential_id, count, last_ms)
    for line in report.entries:
        add_entry(line)


class _Hit(msgspec.Struct, frozen=True):
    id: str = ""
    score: float = 0.0


def _observed(slow: SlowSearch, entry: WatchedDatabase) -> ObservedSearch:
    hits: Hits = [_Hit()] * slow.hits  # only their number is looked at
    assert not isinstance(hits, EngineHits)
    vector = None if slow.vector is None else np.frombuffer(slow.vector, np.float64)
    node = slow.filter if slow.node is None else filters.from_json(slow.node)
    return ObservedSearch(
        entry, vector, slow.k, node, slow.recall, hits, slow.seconds, slow.request_id, slow.options
    )  # fmt: skip
