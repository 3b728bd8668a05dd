"""What the databases are made of, as gauges: rows, segments, bytes, trouble, searches, recall; read at every scrape.

Only so many databases get figures of their own, the largest; the rest is one sum under the label "_other", so that a server
with ten thousand databases does not flood whoever scrapes it. Totals are over all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jadevectordb.gateway.service.exposition import PREFIX
from jadevectordb.gateway.service.meters import Meter, shown_buckets
from jadevectordb.gateway.service.recall_probe import RecallProbe
from jadevectordb.gateway.service.watched import WatchedDatabase
from jadevectordb.model.errors import JadeError
from jadevectordb.model.limits import DATABASES_IN_LABELS_MAX

OTHER = "_other"
_LABELS = ["database", "name"]
_GAUGES = {
    "rows": "Live vectors.",
    "indexed_rows": "Live vectors in indexed segments; the rest is searched exactly.",
    "dead_rows": "Rows replaced or deleted that still take space.",
    "segments": "Segments, growing and sealed.",
    "memory_bytes": "Memory the database keeps beyond the page cache.",
    "disk_bytes": "Files of the database, its log included.",
    "log_bytes": "The log's files, space reserved ahead included.",
    "trouble": "1 when background work can't go on or the database can't be read, else 0.",
}


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    name: str
    values: tuple[int, ...]  # in the order of _GAUGES


class SearchMeters:
    """How long searches of each database took inside the engine. Thread-safe; bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_database: dict[str, Meter] = {}
        self._other = Meter("engine", "", OTHER, "search")

    def of(self, database_id: str) -> Meter:
        meter = self._by_database.get(database_id)
        if meter is None:
            with self._lock:
                if len(self._by_database) >= DATABASES_IN_LABELS_MAX and database_id not in self._by_database:
                    return self._other
                meter = self._by_database.setdefault(database_id, Meter("engine", "", database_id, "search"))
        return meter

    def known(self) -> list[Meter]:
        with self._lock:
            return [*self._by_database.values(), self._other]

    def keep_only(self, database_ids: set[str]) -> None:
        with self._lock:
            for gone in self._by_database.keys() - database_ids:
                del self._by_database[gone]


class EngineFigures:
    """databases: those that are there now."""

    def __init__(
        self, databases: Callable[[], Iterable[WatchedDatabase]], searches: SearchMeters, probe: RecallProbe
    ) -> None:
        self._databases = databases
        self._searches = searches
        self._probe = probe

    def collect(self) -> Iterator[Metric]:
        databases = list(self._databases())
        ids = {database.id for database in databases}
        self._searches.keep_only(ids)
        self._probe.keep_only(ids)
        rows = [_row(database) for database in databases]
        rows.sort(key=lambda row: (-row.values[0], row.id))
        shown, rest = rows[:DATABASES_IN_LABELS_MAX], rows[DATABASES_IN_LABELS_MAX:]
        if rest:
            shown.append(
                _Row(OTHER, OTHER, tuple(sum(column) for column in zip(*(r.values for r in rest), strict=True)))
            )
        yield GaugeMetricFamily(PREFIX + "databases", "Databases.", value=len(databases))
        for place, (name, text) in enumerate(_GAUGES.items()):
            family = GaugeMetricFamily(f"{PREFIX}database_{name}", text, labels=_LABELS)
            for row in shown:
                family.add_metric([row.id, row.name], row.values[place])
            yield family
        names = {database.id: database.record.name for database in databases}
        yield from self._recall(shown)
        yield from self._search_times(names)

    def _recall(self, shown: list[_Row]) -> Iterator[Metric]:
        recall = GaugeMetricFamily(
            PREFIX + "recall", "Recall measured on sampled searches repeated exactly; the last hour.", labels=_LABELS
        )
        target = GaugeMetricFamily(PREFIX + "recall_target", "Mean recall those searches asked for.", labels=_LABELS)
        samples = GaugeMetricFamily(PREFIX + "recall_samples", "Searches the recall is the mean of.", labels=_LABELS)
        total = CounterMetricFamily(
            PREFIX + "recall_measurements", "Searches repeated exactly to measure recall.", labels=_LABELS
        )
        for row in shown:
            estimate = self._probe.estimate(row.id)
            if estimate is not None:
                labels = [row.id, row.name]
                recall.add_metric(labels, estimate.recall)
                target.add_metric(labels, round(estimate.target, 6))
                samples.add_metric(labels, estimate.samples)
                total.add_metric(labels, estimate.samples_total)
        yield from (recall, target, samples, total)

    def _search_times(self, names: dict[str, str]) -> Iterator[Metric]:
        duration = HistogramMetricFamily(
            PREFIX + "search_duration_seconds", "Searches inside the engine, without the way there.", labels=_LABELS
        )
        for meter in self._searches.known():
            figures = meter.figures()
            if figures.statuses:
                name = names.get(meter.route, OTHER if meter.route == OTHER else "")
                duration.add_metric([meter.route, name], shown_buckets(figures.counts), figures.sum_s)
        yield duration


def _row(database: WatchedDatabase) -> _Row:
    name = database.record.name
    try:
        stats = database.handle.stats()
    except (JadeError, OSError):  # closed or damaged: that it can't be read is the figure
        return _Row(database.id, name, (0, 0, 0, 0, 0, 0, 0, 1))
    return _Row(
        database.id,
        name,
        (
            stats.rows,
            stats.indexed_rows,
            stats.dead_rows,
            len(stats.segments),
            stats.memory_bytes,
            stats.disk_bytes,
            stats.log_bytes,
            int(stats.trouble != ""),
        ),
    )
