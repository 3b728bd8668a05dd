"""What an operator looks at when something is odd: the newest log lines, and slow searches with their plans. For admins."""

from __future__ import annotations

from typing import Any

import msgspec

from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.service.services import Services
from jadevectordb.gateway.service.slow_queries import SlowQuery
from jadevectordb.model.limits import LOG_ENTRIES_MAX, SLOW_QUERIES_MAX

_LIMIT = 100


class LogsAnswer(msgspec.Struct):
    """entries, newest first: {time, level, logger, message, trace?} and whatever the line carried (request_id, ...)."""

    entries: list[dict[str, Any]]


class SlowQueryAnswer(msgspec.Struct):
    """plan: as `explain` gives it, null when it was not taken; plan_note says of which run it is, or why there is none."""

    time: str
    request_id: str
    database_id: str
    database: str
    duration_ms: float
    k: int | None
    recall: float
    filter: str
    options: dict[str, Any]
    hits: int
    plan: dict[str, Any] | None
    plan_note: str


class SlowQueriesAnswer(msgspec.Struct):
    """queries, newest first. threshold_ms: the setting log.slow_query_ms; 0 = none is kept."""

    threshold_ms: float
    queries: list[SlowQueryAnswer]


def _logs(services: Services, request: Request) -> Response:
    limit = request.integer("limit", _LIMIT, 1, LOG_ENTRIES_MAX)
    level = request.query.get("level", "") or "debug"
    entries = services.telemetry.logs(level, request.query.get("contains", ""), limit)
    return reply(LogsAnswer([entry.as_dict() for entry in entries]))


def _slow(services: Services, request: Request) -> Response:
    limit = request.integer("limit", _LIMIT, 1, SLOW_QUERIES_MAX)
    queries = [_shown(slow) for slow in services.telemetry.slow_queries(limit)]
    return reply(SlowQueriesAnswer(services.settings.log.slow_query_ms, queries))


def _shown(slow: SlowQuery) -> SlowQueryAnswer:
    return SlowQueryAnswer(
        time=iso(slow.time_ms) or "",
        request_id=slow.request_id,
        database_id=slow.database,
        database=slow.database_name,
        duration_ms=slow.duration_ms,
        k=slow.k,
        recall=slow.recall,
        filter=slow.filter,
        options=slow.options,
        hits=slow.hits,
        plan=slow.plan,
        plan_note=slow.plan_note,
    )


ROUTES = (
    Route("GET", "/v2/logs", "log.read", _logs, summary="The newest log lines", answer=LogsAnswer),
    Route(
        "GET", "/v2/queries/slow", "log.read", _slow, summary="Slow searches with their plans", answer=SlowQueriesAnswer
    ),
)
