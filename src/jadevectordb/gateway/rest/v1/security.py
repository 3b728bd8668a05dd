"""The audit log and sessions as existing clients read them. Admins see everything, others what is theirs."""

from __future__ import annotations

from jadevectordb.gateway.access.audit import which
from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.rest.v1.identity import event_json, session_json, subject
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.limits import AUDIT_PAGE_MAX
from jadevectordb.ports.event_log import EventFilter


def _audit_log(services: Services, request: Request) -> Response:
    audit, principal = services.access.audit, request.principal
    limit, offset = request.integer("limit", 100, 1, AUDIT_PAGE_MAX), request.integer("offset", 0, 0, 1 << 31)
    asked = request.parameter("user_id")
    if asked:
        user_id: str | None = (
            "" if asked == "system" and principal.may_administer else subject(services, request, asked, "events")
        )
    else:
        user_id = None if principal.may_administer else principal.user_id
    filter_ = which(request.parameter("event_type"), user_id)
    events = [event_json(event) for event in audit.query(filter_, limit=limit, offset=offset)]
    total = audit.count(filter_)
    return reply(
        {"events": events, "logs": events, "count": len(events), "total": total, "limit": limit, "offset": offset}
    )


def _sessions(services: Services, request: Request) -> Response:
    access, principal = services.access, request.principal
    asked = request.parameter("user_id")
    user_id = subject(services, request, asked, "sessions") if asked else principal.user_id
    uses = access.usage.of_user(user_id)
    found = [session_json(s, uses.get(s.session_id), principal) for s in access.sessions.of_user(user_id)]
    return reply({"sessions": found, "count": len(found), "user_id": user_id})


def _audit_stats(services: Services, request: Request) -> Response:
    audit, principal = services.access.audit, request.principal
    sums = audit.sums(EventFilter(user_id=None if principal.may_administer else principal.user_id))
    return reply(
        {
            "enabled": True,
            "total_events": sums.total,
            "events_by_type": sums.by_kind,
            "failed_events": sums.failed,
            "first_event": iso(sums.first_ms),
            "last_event": iso(sums.last_ms),
            "lost_events": audit.dropped,
            "scope": "all" if principal.may_administer else "own",
        }
    )


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/security/audit-log", "audit.read", _audit_log, summary="Audit events, newest first"),
    Route("GET", "/v1/security/sessions", "session.list", _sessions, summary="Sessions of a user"),
    Route("GET", "/v1/security/audit-stats", "audit.stats", _audit_stats, summary="Counts of audit events"),
)
