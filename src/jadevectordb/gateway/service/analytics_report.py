"""Insights and exports: a report in one piece, and recommendations that each name the numbers they come from.

Every recommendation follows from a rule below with its threshold; a rule that does not hold says nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from jadevectordb.gateway.service.analytics import BUCKET_MS, DAY_MS, Analytics
from jadevectordb.ports.query_log import BucketStats, Granularity, Pattern, QueryRecord, Trend

_ITEMS = 10  # of each list in a report
_GROWTH_MIN = 0.5
_FAILED_SHARE = 0.05
_NOTHING_SHARE = 0.10
_TAIL_FACTOR = 5.0  # p95 over p50
_TAIL_MS_MIN = 20.0
_REPEATED_SHARE = 0.20
_QUERIES_MIN = 20  # shares of fewer searches say little
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")
CSV_COLUMNS = ("Type", "Data", "Count", "Metric", "Value")


class Report(msgspec.Struct, frozen=True):
    """peak: the hour with the most searches, None without any. errors: code and count, most frequent first."""

    database: str
    start_ms: int
    end_ms: int
    total: BucketStats
    peak: BucketStats | None
    patterns: list[Pattern]
    slow: list[QueryRecord]
    found_nothing: list[Pattern]
    trends: list[Trend]
    errors: list[tuple[str, int]]
    recommendations: list[str]

    @property
    def succeeded(self) -> int:
        return self.total.total - self.total.failed

    @property
    def success_rate(self) -> float:
        return self.succeeded / self.total.total if self.total.total else 1.0

    @property
    def queries_per_second(self) -> float:
        return self.total.total * 1000 / max(1, self.end_ms - self.start_ms)


def make_report(analytics: Analytics, database: str, start_ms: int, end_ms: int) -> Report:
    total = analytics.total(database, start_ms, end_ms)
    hours = analytics.stats(database, start_ms, end_ms, Granularity.HOURLY)
    patterns = analytics.patterns(database, start_ms, end_ms, 2, _ITEMS)
    nothing = analytics.patterns(database, start_ms, end_ms, 1, _ITEMS, found_nothing=True)
    slow = analytics.slowest(database, start_ms, end_ms, _ITEMS)
    errors = analytics.errors(database, start_ms, end_ms)
    bucket_ms = min(BUCKET_MS[Granularity.WEEKLY], max(BUCKET_MS[Granularity.HOURLY], min(DAY_MS, end_ms - start_ms)))
    return Report(
        database=database,
        start_ms=start_ms,
        end_ms=end_ms,
        total=total,
        peak=max(hours, key=lambda hour: (hour.total, -hour.start_ms), default=None),
        patterns=patterns,
        slow=slow,
        found_nothing=nothing,
        trends=analytics.trends(database, end_ms, bucket_ms, _GROWTH_MIN, _ITEMS),
        errors=errors,
        recommendations=list(_recommend(total, patterns, nothing, slow, errors)),
    )


def _recommend(
    total: BucketStats,
    patterns: list[Pattern],
    nothing: list[Pattern],
    slow: list[QueryRecord],
    errors: list[tuple[str, int]],
) -> Iterator[str]:
    if total.total == 0:
        yield "No search was recorded in this time: there is nothing to recommend."
        return
    if total.failed and total.failed / total.total >= _FAILED_SHARE:
        code, count = errors[0]
        yield (
            f"{total.failed} of {total.total} searches failed ({total.failed / total.total:.0%}), {count} of them with {code}: "
            "look at what these callers send."
        )
    if total.zero_results and total.zero_results / total.total >= _NOTHING_SHARE:
        most = f", most often {nothing[0].example!r} ({nothing[0].count} times)" if nothing else ""
        yield (
            f"{total.zero_results} of {total.total} searches found nothing{most}: check their filters and thresholds, "
            "or add what people look for."
        )
    if total.latency_p95_ms >= max(_TAIL_MS_MIN, _TAIL_FACTOR * total.latency_p50_ms):
        factor = total.latency_p95_ms / max(total.latency_p50_ms, 0.001)
        yield (
            f"One search in twenty takes {total.latency_p95_ms:.1f} ms or more, {factor:.0f} times the median of "
            f"{total.latency_p50_ms:.1f} ms; the slowest was a {slow[0].kind} search with k={slow[0].k}: ask for its plan with explain."
        )
    if total.total >= _QUERIES_MIN and patterns and patterns[0].count / total.total >= _REPEATED_SHARE:
        top = patterns[0]
        yield (
            f"{top.count} of {total.total} searches ask {top.example!r} ({top.count / total.total:.0%}): a cache in the "
            f"application would save about {top.count * top.latency_avg_ms:.0f} ms of search time."
        )


def summary_of(report: Report) -> dict[str, float]:
    """The figures of the whole time by the names that answers and exports give them, in the order of an export."""
    total = report.total
    return {
        "total_queries": total.total,
        "successful_queries": report.succeeded,
        "failed_queries": total.failed,
        "zero_result_queries": total.zero_results,
        "success_rate": report.success_rate,
        "avg_latency_ms": total.latency_avg_ms,
        "p50_latency_ms": total.latency_p50_ms,
        "p95_latency_ms": total.latency_p95_ms,
        "p99_latency_ms": total.latency_p99_ms,
        "queries_per_second": report.queries_per_second,
    }


# Exports


def to_csv(report: Report) -> bytes:
    """Columns Type, Data, Count, Metric, Value; texts of people that a spreadsheet would run as a formula get a leading '."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    for row in _csv_rows(report):
        writer.writerow(row)
    return out.getvalue().encode("utf-8", "replace")


def _csv_rows(report: Report) -> Iterator[tuple[Any, ...]]:
    for name, value in summary_of(report).items():
        yield "summary", "", "", name, value
    for pattern in report.patterns:
        yield "pattern", _cell(pattern.normalized), pattern.count, "avg_latency_ms", pattern.latency_avg_ms
    for query in report.slow:
        yield "slow_query", _cell(query.text), query.results, "total_time_ms", query.latency_ms
    for pattern in report.found_nothing:
        yield "zero_result_query", _cell(pattern.normalized), pattern.count, "avg_latency_ms", pattern.latency_avg_ms
    for trend in report.trends:
        yield "trending_query", _cell(trend.normalized), trend.current, "growth_rate_percent", growth_percent(trend)


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_START) else text


def growth_percent(trend: Trend) -> float:
    """What is new grows as if from one search before."""
    return (trend.current - trend.previous) / max(trend.previous, 1) * 100
