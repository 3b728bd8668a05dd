"""Alerts: list, raise, acknowledge."""

from __future__ import annotations

from typing import Any

from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, iso, reply
from jadevectordb.gateway.rest.v1.databases import text
from jadevectordb.gateway.service.alerts import Alert
from jadevectordb.gateway.service.services import Services


def _list(services: Services, request: Request) -> Response:
    acknowledged = request.flag("acknowledged") if request.parameter("acknowledged") else None
    alerts = services.alerts.list(request.parameter("type") or None, acknowledged)
    return reply({"alerts": [_shown(alert) for alert in alerts], "total": len(alerts)})


def _create(services: Services, request: Request) -> Response:
    fields = request.fields({"type": "type", "severity": "type", "message": "message"})
    if "type" not in fields or "message" not in fields:
        raise invalid("An alert needs a type (error, warning or info) and a message.")
    return reply(_shown(services.alerts.create(text(fields, "type"), text(fields, "message"))), 201)


def _acknowledge(services: Services, request: Request) -> Response:
    return reply(_shown(services.alerts.acknowledge(request.params["alertId"], request.principal.user_id)))


def _shown(alert: Alert) -> dict[str, Any]:
    time = iso(alert.time_ms)
    return {
        "id": alert.id,
        "alert_id": alert.id,
        "type": alert.type,
        "severity": alert.type,
        "message": alert.message,
        "timestamp": time,
        "time": time,
        "acknowledged": alert.acknowledged,
        "acknowledgedBy": alert.acknowledged_by or None,
        "acknowledgedAt": iso(alert.acknowledged_ms),
        "source": "system" if alert.condition else "user",
        "endedAt": iso(alert.ended_ms),
    }


ROUTES = (
    Route("GET", "/v1/alerts", "alert.list", _list, summary="Alerts, newest first"),
    Route("POST", "/v1/alerts", "alert.create", _create, summary="Raise an alert", success=201),
    Route("PUT", "/v1/alerts/{alertId}/acknowledge", "alert.acknowledge", _acknowledge, summary="Acknowledge an alert"),
)
