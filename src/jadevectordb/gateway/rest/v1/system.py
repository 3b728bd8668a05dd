"""Health, status, metrics, shutdown: what load balancers, scripts and people look at first."""

from __future__ import annotations

from typing import Any

from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.service.health_checks import storage_checks
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import JadeError

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def _checks(services: Services) -> dict[str, str]:
    return storage_checks(services.catalog, services.telemetry.system_usage())


def _health(services: Services, request: Request) -> Response:
    # A database in trouble still answers reads: it is told, but only a server that can't serve is 503
    return _health_reply(services, {**_checks(services), "network": "ok"}, 200)


def _health_db(services: Services, request: Request) -> Response:
    checks = _checks(services)
    more = {"network": "ok", "accounts": _accounts(services), "vectors": checks["database"]}
    return _health_reply(services, {**checks, **more}, 503)


def _health_reply(services: Services, checks: dict[str, str], unhealthy_status: int) -> Response:
    healthy = all(text == "ok" for text in checks.values())
    body = {
        "status": "healthy" if healthy else "unhealthy",
        "timestamp": iso(services.clock.now_ms()),
        "version": services.version,
        "checks": checks,
    }
    return reply(body, 200 if healthy else unhealthy_status)


def _accounts(services: Services) -> str:
    try:
        services.metadata.get("health")
    except JadeError as error:
        return error.message
    return "ok"


def uptime_text(seconds: float) -> str:
    """2h 3m 4s"""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    parts = [f"{days}d"] * bool(days) + [f"{hours}h"] * bool(days or hours)
    parts += [f"{minutes}m"] * bool(whole >= 60) + [f"{whole % 60}s"]
    return " ".join(parts)


def _status(services: Services, request: Request) -> Response:
    usage, performance = services.telemetry.system_usage(), services.telemetry.performance()
    checks = _checks(services)
    uptime = services.clock.monotonic_s() - services.started_s
    entries = services.catalog.every()
    body: dict[str, Any] = {
        "status": "operational" if all(text == "ok" for text in checks.values()) else "degraded",
        "version": services.version,
        "uptime": uptime_text(uptime),
        "uptime_seconds": int(uptime),
        "timestamp": iso(services.clock.now_ms()),
        "checks": checks,
        "system": {
            "cpu_usage_percent": usage.cpu_percent,
            "memory_usage_percent": usage.memory_percent,
            "disk_usage_percent": usage.disk_percent,
        },
        "performance": {
            "database_count": len(entries),
            "total_vectors": sum(services.catalog.of_each(entries, lambda entry: entry.handle.count())),
            "avg_query_time_ms": performance.latency_mean_ms or 0.0,
            "active_connections": performance.in_flight,
            "qps": performance.queries_per_second or 0.0,
        },
        "auth_mode": services.settings.auth.mode,
        "cluster": {"enabled": services.cluster.is_cluster, "nodes": max(1, len(services.cluster.client_map().nodes))},
    }
    if services.settings.auth.is_open:
        body["warning"] = "Open mode: everyone on this machine acts as an admin. For development only."
    return reply(body)


def _metrics(services: Services, request: Request) -> Response:
    return Response(200, services.telemetry.render_prometheus(), _PROMETHEUS)


def _shutdown(services: Services, request: Request) -> Response:
    services.shut_down()
    return reply({"status": "shutting_down", "message": "The server finishes running requests and stops."})


ROUTES = (
    Route("GET", "/health", "health", _health, inline=True, summary="Liveness; ignores credentials"),
    Route("GET", "/health/live", "health", _health, inline=True, summary="Liveness"),
    Route("GET", "/health/ready", "health", _health_db, summary="Readiness: storage and accounts"),
    Route("GET", "/health/db", "health.db", _health_db, summary="Storage and account store"),
    Route("GET", "/status", "status", _status, summary="Server status, system and performance numbers"),
    Route("GET", "/metrics", "metrics", _metrics, summary="Metrics for Prometheus"),
    Route("POST", "/v1/admin/shutdown", "server.shutdown", _shutdown, summary="Drain and stop"),
    Route("POST", "/admin/shutdown", "server.shutdown", _shutdown, summary="Alias of /v1/admin/shutdown"),
    Route("POST", "/shutdown", "server.shutdown", _shutdown, summary="Alias of /v1/admin/shutdown"),
)
