"""Reports about the searches of a database. Times are integer ms since 1970 here, in and out; ISO 8601 is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.v1.databases import number, text
from jadevectordb.gateway.service.analytics import BUCKET_MS, DAY_MS
from jadevectordb.gateway.service.analytics_report import Report, growth_percent, make_report, summary_of, to_csv
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.limits import ANALYTICS_ITEMS_MAX
from jadevectordb.ports.query_log import BucketStats, Granularity, Pattern, QueryRecord, Trend

_FEEDBACK_ALIASES: Mapping[str, str] = {
    "queryId": "query_id",
    "query_id": "query_id",
    "userId": "label",
    "user_id": "label",
    "rating": "rating",
    "feedbackText": "text",
    "feedback_text": "text",
    "clickedResultId": "clicked_id",
    "clicked_result_id": "clicked_id",
    "clickedId": "clicked_id",
    "clicked_id": "clicked_id",
    "clickedRank": "clicked_rank",
    "clicked_rank": "clicked_rank",
    "clicked_result_rank": "clicked_rank",
}
_OFFSET_MAX = 1 << 40
_RANK_MAX = 1 << 31
_Choice = TypeVar("_Choice", bound=StrEnum)


def _stats(services: Services, request: Request) -> Response:
    start, end = _window(services, request)
    granularity = _choice(request, "granularity", Granularity.HOURLY, tuple(Granularity))
    buckets = [_bucket(bucket) for bucket in services.analytics.stats(request.entry.id, start, end, granularity)]
    common = {"database_id": request.entry.id, "start_time": start, "end_time": end, "granularity": granularity}
    return reply({"statistics": buckets, "stats": buckets, **common})


def _queries(services: Services, request: Request) -> Response:
    start, end = _window(services, request)
    limit = request.integer("limit", 100, 1, ANALYTICS_ITEMS_MAX)
    offset = request.integer("offset", 0, 0, _OFFSET_MAX)
    queries, total = services.analytics.queries(request.entry.id, start, end, limit, offset)
    answer = {"queries": [_query(query) for query in queries], "total_count": total, "limit": limit, "offset": offset}
    return reply({**answer, "database_id": request.entry.id, "start_time": start, "end_time": end})


def _patterns(services: Services, request: Request) -> Response:
    start, end = _window(services, request)
    count_min = request.integer("min_count", 2, 1, _RANK_MAX)
    limit = request.integer("limit", 100, 1, ANALYTICS_ITEMS_MAX)
    patterns = services.analytics.patterns(request.entry.id, start, end, count_min, limit)
    answer = {"patterns": [_pattern(pattern) for pattern in patterns], "min_count": count_min}
    return reply({**answer, "database_id": request.entry.id, "start_time": start, "end_time": end})


def _insights(services: Services, request: Request) -> Response:
    start, end = _window(services, request)
    report = make_report(services.analytics, request.entry.id, start, end)
    patterns, trends = [_pattern(p) for p in report.patterns], [_trend(t) for t in report.trends]
    return reply(
        {
            "summary": _summary(report),
            "top_patterns": patterns,
            "common_patterns": patterns,
            "slow_queries": [_query(query) for query in report.slow],
            "zero_result_queries": [_pattern(p) for p in report.found_nothing],
            "trending_queries": trends,
            "trending": trends,
            "recommendations": report.recommendations,
            "database_id": request.entry.id,
            "start_time": start,
            "end_time": end,
        }
    )


def _trending(services: Services, request: Request) -> Response:
    _, end = _window(services, request)
    bucket = _choice(request, "time_bucket", Granularity.DAILY, tuple(BUCKET_MS))
    growth = _fraction(request)
    limit = request.integer("limit", 100, 1, ANALYTICS_ITEMS_MAX)
    trends = services.analytics.trends(request.entry.id, end, BUCKET_MS[bucket], growth, limit)
    answer = {"trending": [_trend(trend) for trend in trends], "min_growth": growth, "min_growth_rate": growth * 100}
    return reply({**answer, "time_bucket": bucket, "database_id": request.entry.id, "end_time": end})


def _feedback(services: Services, request: Request) -> Response:
    fields = request.fields(_FEEDBACK_ALIASES)
    label = fields.get("label", "")
    feedback = services.analytics.add_feedback(
        request.entry.id,
        text(fields, "query_id"),
        user=request.principal.user_id,
        label=str(label) if isinstance(label, int) and not isinstance(label, bool) else text(fields, "label"),
        rating=number(fields["rating"], "rating", 1, 5) if "rating" in fields else None,
        text=text(fields, "text"),
        clicked_id=text(fields, "clicked_id"),
        clicked_rank=number(fields["clicked_rank"], "clickedRank", 0, _RANK_MAX) if "clicked_rank" in fields else None,
    )
    return reply(
        {
            "success": True,
            "query_id": feedback.query_id,
            "feedback_id": feedback.feedback_id,
            "query_known": feedback.query_known,
            "message": "Thank you: the feedback is kept."
            if feedback.query_known
            else "The feedback is kept; no search with this id was recorded here.",
        }
    )


def _export(services: Services, request: Request) -> Response:
    form = request.parameter("format").lower() or "json"
    if form not in ("json", "csv"):
        raise invalid(f"format must be json or csv, got {form!r:.60}.")
    start, end = _window(services, request)
    report = make_report(services.analytics, request.entry.id, start, end)
    if form == "csv":
        name = f'attachment; filename="analytics-{request.entry.id}.csv"'
        return Response(200, to_csv(report), "text/csv; charset=utf-8", (("content-disposition", name),))
    patterns, slow = [_pattern(p) for p in report.patterns], [_query(query) for query in report.slow]
    data = {
        "summary": _summary(report),
        "patterns": patterns,
        "slow_queries": slow,
        "zero_result_queries": [_pattern(p) for p in report.found_nothing],
        "trending_queries": [_trend(trend) for trend in report.trends],
    }
    return reply(
        {
            "export_time": services.clock.now_ms(),
            "time_range": {"start_time": start, "end_time": end},
            "database_id": request.entry.id,
            "data": data,
            "patterns": patterns,
            "slow_queries": slow,
        }
    )


# Parameters


def _window(services: Services, request: Request) -> tuple[int, int]:
    """[start, end) in ms: the last 24 hours unless said otherwise."""
    end = request.time_ms("end_time")
    if end is None:
        end = services.clock.now_ms() + 1  # what ended in this millisecond is in it
    start = request.time_ms("start_time")
    if start is None:
        start = end - DAY_MS
    if not 0 <= start < 1 << 53 or not 0 <= end < 1 << 53:
        raise invalid("start_time and end_time must be times since 1970.")
    if start > end:
        raise invalid("start_time must not be after end_time.")
    return start, end


def _choice(request: Request, name: str, default: _Choice, allowed: tuple[_Choice, ...]) -> _Choice:
    value = request.parameter(name).lower() or default
    for one in allowed:
        if one == value:
            return one
    raise invalid(f"{name} must be one of {', '.join(allowed)}, got {value!r:.60}.")


def _fraction(request: Request) -> float:
    """How much more often: `min_growth` as a fraction or `min_growth_rate` in percent."""
    for name, scale in (("min_growth", 1.0), ("min_growth_rate", 100.0)):
        value = request.parameter(name)
        if value:
            try:
                growth = float(value) / scale
            except ValueError:
                raise invalid(f"{name} must be a number, got {value!r:.60}.") from None
            if not 0 <= growth <= 1e9:
                raise invalid(f"{name} must be 0 or more, got {value!r:.60}.")
            return growth
    return 0.5


# Shapes


def _bucket(bucket: BucketStats) -> dict[str, Any]:
    return {
        "time_bucket": bucket.start_ms,
        "total_queries": bucket.total,
        "successful_queries": bucket.total - bucket.failed,
        "failed_queries": bucket.failed,
        "zero_result_queries": bucket.zero_results,
        "avg_latency_ms": bucket.latency_avg_ms,
        "p50_latency_ms": bucket.latency_p50_ms,
        "p95_latency_ms": bucket.latency_p95_ms,
        "p99_latency_ms": bucket.latency_p99_ms,
        "unique_users": bucket.users,
        "unique_sessions": bucket.sessions,
        "vector_queries": bucket.vector,
        "hybrid_queries": bucket.hybrid,
        "bm25_queries": bucket.bm25,
        "reranked_queries": bucket.rerank,
    }


def _query(query: QueryRecord) -> dict[str, Any]:
    return {
        "query_id": query.query_id,
        "query_text": query.text,
        "query_type": query.kind,
        "latency_ms": query.latency_ms,
        "total_time_ms": query.latency_ms,
        "result_count": query.results,
        "num_results": query.results,
        "k": query.k,
        "timestamp": query.time_ms,
        "has_error": bool(query.error),
        "error_code": query.error,
        "user_id": query.user,
        "fusion_method": query.fusion,
        "hybrid_alpha": query.alpha,
    }


def _pattern(pattern: Pattern) -> dict[str, Any]:
    return {
        "normalized_text": pattern.normalized,
        "pattern": pattern.normalized,
        "query_text": pattern.example,
        "count": pattern.count,
        "query_count": pattern.count,
        "avg_latency_ms": pattern.latency_avg_ms,
        "avg_results": pattern.results_avg,
        "first_seen": pattern.first_ms,
        "last_seen": pattern.last_ms,
    }


def _trend(trend: Trend) -> dict[str, Any]:
    return {
        "query_text": trend.example,
        "normalized_text": trend.normalized,
        "current_count": trend.current,
        "previous_count": trend.previous,
        "growth_rate": growth_percent(trend),
    }


def _summary(report: Report) -> dict[str, Any]:
    return {
        **summary_of(report),
        "unique_users": report.total.users,
        "peak_hour": None if report.peak is None else report.peak.start_ms,
        "peak_hour_queries": 0 if report.peak is None else report.peak.total,
        "errors": dict(report.errors),
    }


_A = "/v1/databases/{databaseId}/analytics"
ROUTES = (
    Route("GET", _A + "/stats", "analytics.read", _stats, summary="Searches by hour, day, week or month"),
    Route("GET", _A + "/queries", "analytics.read", _queries, summary="Recorded searches"),
    Route("GET", _A + "/patterns", "analytics.read", _patterns, summary="Texts searched for again and again"),
    Route("GET", _A + "/insights", "analytics.read", _insights, summary="A report with recommendations"),
    Route("GET", _A + "/trending", "analytics.read", _trending, summary="Texts searched for more than before"),
    Route("POST", _A + "/feedback", "analytics.feedback", _feedback, summary="Say how good a search was"),
    Route("GET", _A + "/export", "analytics.read", _export, summary="The report as JSON or CSV"),
)
