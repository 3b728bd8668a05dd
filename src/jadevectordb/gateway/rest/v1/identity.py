"""Accounts, keys, sessions and audit events as JSON, and the reading of fields about them: one shape wherever they appear.

Clients disagree on spelling, so every object carries the names all of them read. Ids and names are always strings, never null.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.access.accounts import Account
from jadevectordb.gateway.access.keys import Key
from jadevectordb.gateway.access.principals import Principal
from jadevectordb.gateway.access.sessions import Session
from jadevectordb.gateway.access.usage import Use
from jadevectordb.gateway.rest.http import Request, invalid, iso
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.event_log import Event


def user_json(account: Account, roles: tuple[str, ...] | None = None) -> dict[str, Any]:
    """roles: those in force, where they are not the account's own."""
    created, last_login = iso(account.created_ms), iso(account.last_login_ms)
    return {
        "user_id": account.user_id,
        "id": account.user_id,
        "userId": account.user_id,
        "username": account.username,
        "email": account.email,
        "roles": list(account.roles if roles is None else roles),
        "is_active": account.is_active,
        "isActive": account.is_active,
        "status": "active" if account.is_active else "inactive",
        "created_at": created,
        "createdAt": created,
        "last_login": last_login,
        "lastLogin": last_login,
        "must_change_password": account.must_change_password,
        "mustChangePassword": account.must_change_password,
    }


def key_json(key: Key, use: Use | None, now_ms: int) -> dict[str, Any]:
    status = key.status(now_ms)
    created, expires = iso(key.created_ms), iso(key.expires_ms)
    last_used = iso(use.last_ms) if use is not None else None
    return {
        "key_id": key.key_id,
        "keyId": key.key_id,
        "id": key.key_id,
        "user_id": key.user_id,
        "userId": key.user_id,
        "description": key.description,
        "name": key.description,
        "key_prefix": key.shown,
        "permissions": list(key.permissions),
        "status": status,
        "is_active": status == "active",
        "isActive": status == "active",
        "created_at": created,
        "createdAt": created,
        "expires_at": expires,
        "expiresAt": expires,
        "last_used_at": last_used,
        "lastUsed": last_used,
        "usage_count": use.count if use is not None else 0,
    }


def session_json(session: Session, use: Use | None, principal: Principal) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "user_id": session.user_id,
        "ip_address": session.address,
        "is_active": True,
        "created_at": iso(session.created_ms),
        "last_activity": iso(session.created_ms if use is None else use.last_ms),
        "expires_at": iso(session.expires_ms),
        "current": principal.kind == "session" and principal.credential_id == session.session_id,
    }


def event_json(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "event_id": event.id,
        "event_type": event.kind,
        "event": event.kind,
        "action": event.kind,
        "user_id": event.user_id or "system",
        "user": event.user or "system",
        "timestamp": iso(event.time_ms),
        "status": "success" if event.success else "failure",
        "success": event.success,
        "details": event.details,
        "ip_address": event.address,
        "resource": event.resource,
        "operation": event.operation,
        "session_id": event.session_id,
    }


def text(fields: Mapping[str, Any], name: str) -> str:
    """A field that is text; "" when it is absent. Raises INVALID_ARGUMENT."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise invalid(f"{name} must be text.")
    return value


def required(fields: Mapping[str, Any], *names: str) -> list[str]:
    """Fields that must be there and not empty. Raises INVALID_ARGUMENT; it never repeats what was sent: it may be a password."""
    values = [text(fields, name) for name in names]
    missing = [name for name, value in zip(names, values, strict=True) if not value]
    if missing:
        raise invalid(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.")
    return values


def flag(fields: Mapping[str, Any], name: str) -> bool | None:
    """A field that is true or false; None when it is absent. Raises INVALID_ARGUMENT."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name} must be true or false.")
    return value


def whole(fields: Mapping[str, Any], name: str, default: int) -> int:
    """A field that is a whole number, maybe as text. Raises INVALID_ARGUMENT."""
    value = fields.get(name, default)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # exact far beyond any number that makes sense here
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(f"{name} must be a whole number.")
    return value


def subject(services: Services, request: Request, asked: str, what: str) -> str:
    """The id of the user a list is asked for: the caller's own, or with an admin's rights anybody's, known today or not.

    Raises FORBIDDEN.
    """
    principal = request.principal
    account = services.access.accounts.find(asked)
    user_id = asked if account is None else account.user_id
    if user_id != principal.user_id and not principal.may_administer:
        raise JadeError(ErrorCode.FORBIDDEN, f"You may see your own {what} only; those of others need the role admin.")
    return user_id


def note(services: Services, request: Request, event: str, about: str, details: str = "") -> None:
    """Record a change of accounts or keys. about: the id of what was changed."""
    services.access.audit.record(event, request.principal, request.client, resource=about, details=details)
