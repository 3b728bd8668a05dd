"""What a node of a cluster tells Prometheus about writes at EVENTUAL: what waits on it, how long that took, what was in conflict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.gateway.service.exposition import PREFIX
from jadevectordb.model.limits import DATABASES_IN_LABELS_MAX
from jadevectordb.node.hosted_shard import HostedShard
from jadevectordb.query.outbox import LAG_BOUNDS_S, OutboxFigures

_DATABASE, _SHARD = ["database"], ["database", "shard"]


def eventual(store: ClusterStore, hosted: Callable[[], Iterable[HostedShard]]) -> Iterator[Metric]:
    """Of this node's outboxes, and of the replicas it holds; of so many databases at most."""
    outboxes = sorted(store.outbox_figures().items())[:DATABASES_IN_LABELS_MAX]
    yield from _outboxes(outboxes)
    conflicts = CounterMetricFamily(
        PREFIX + "eventual_conflicts",
        "Writes at EVENTUAL that had not seen another one of the same vector, as this node's replica of the shard counted. "
        "Every replica counts all of them: take the maximum over nodes.",
        labels=_SHARD,
    )
    superseded = CounterMetricFamily(
        PREFIX + "eventual_superseded",
        "Writes at EVENTUAL that arrived behind a later one of their own node, counted likewise.",
        labels=_SHARD,
    )
    shown: set[str] = set()
    for one in sorted(hosted(), key=lambda one: (one.database_id, one.shard)):
        shown.add(one.database_id)
        report = one.conflicts() if len(shown) <= DATABASES_IN_LABELS_MAX else None
        if report is not None:
            conflicts.add_metric([one.database_id, str(one.shard)], report.found)
            superseded.add_metric([one.database_id, str(one.shard)], report.superseded)
    yield from (conflicts, superseded)


def _outboxes(outboxes: list[tuple[str, OutboxFigures]]) -> Iterator[Metric]:
    lag = HistogramMetricFamily(
        PREFIX + "eventual_lag_seconds",
        "Of log entries written at EVENTUAL through this node: from the acknowledgement until a majority of the log's servers had "
        "them on disk.",
        labels=_DATABASE,
    )
    waiting = GaugeMetricFamily(
        PREFIX + "eventual_waiting_entries",
        "Log entries acknowledged here that are not published yet.",
        labels=_DATABASE,
    )
    oldest = GaugeMetricFamily(
        PREFIX + "eventual_oldest_seconds", "Since the oldest of those was acknowledged.", labels=_DATABASE
    )
    refused = CounterMetricFamily(
        PREFIX + "eventual_refused", "Log entries that can never be published: of a dropped database.", labels=_DATABASE
    )
    for database, figures in outboxes:
        counts = zip([*map(repr, LAG_BOUNDS_S), "+Inf"], accumulate(figures.lag_counts), strict=True)
        lag.add_metric([database], [(bound, float(count)) for bound, count in counts], figures.lag_sum_s)
        waiting.add_metric([database], figures.entries)
        oldest.add_metric([database], figures.lag_s)
        refused.add_metric([database], figures.refused)
    yield from (lag, waiting, oldest, refused)
