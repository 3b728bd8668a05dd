"""Retention policies: set one, look at what it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.rest.v1.databases import number
from jadevectordb.gateway.rest.v1.search import flag
from jadevectordb.gateway.service.lifecycle import AGE_DAYS_MAX, Retention
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.topology.sharding import shares_one_log

_ALIASES: Mapping[str, str] = {
    "maxAgeDays": "max_age_days",
    "max_age_days": "max_age_days",
    "archiveOnExpire": "archive",
    "archive_on_expire": "archive",
    "deleteOnExpire": "delete",
    "delete_on_expire": "delete",
    "autoScale": "auto_scale",
    "auto_scale": "auto_scale",
}
_NAMES = {"archive": "archiveOnExpire", "delete": "deleteOnExpire", "auto_scale": "autoScale"}


def _set(services: Services, request: Request) -> Response:
    handle = request.entry.handle
    if isinstance(handle, ClusterDatabase) and shares_one_log(handle.placed.sharding):
        raise JadeError(
            ErrorCode.NOT_IMPLEMENTED,
            "Retention deletes only the version that it saw, which is not offered where vectors decide their shard: delete by a filter.",
        )
    fields = request.fields(_ALIASES)
    changes: dict[str, Any] = {
        name: flag({shown: fields[name]}, shown, False) for name, shown in _NAMES.items() if name in fields
    }
    if "max_age_days" in fields:
        changes["max_age_days"] = number(fields["max_age_days"], "maxAgeDays", 1, AGE_DAYS_MAX)
    retention = services.lifecycle.set_policy(request.entry.id, changes)
    return reply({**_shown(services, request, retention), "message": "The policy is in force from the next sweep."})


def _status(services: Services, request: Request) -> Response:
    return reply(_shown(services, request, services.lifecycle.retention(request.entry.id)))


def _shown(services: Services, request: Request, retention: Retention) -> dict[str, Any]:
    policy = retention.policy
    return {
        "databaseId": request.entry.id,
        "retentionPolicy": {
            "maxAgeDays": policy.max_age_days,
            "archiveOnExpire": policy.archive,
            "deleteOnExpire": policy.delete,
            "autoScale": policy.auto_scale,
        },
        "archivedCount": retention.archived,
        "deletedCount": retention.deleted,
        "lastRunAt": iso(retention.last_run_ms or None),
        "nextRunAt": iso(services.lifecycle.next_run_ms),
        "lastError": retention.trouble,
        "note": "autoScale has no effect." if policy.auto_scale else "",
    }


_L = "/v1/databases/{databaseId}/lifecycle"
ROUTES = (
    Route("PUT", _L, "lifecycle.write", _set, summary="Set the retention policy"),
    Route("GET", _L + "/status", "lifecycle.read", _status, summary="Retention policy and what it did"),
)
