"""Accounts as existing clients know them: create, list, get, change, delete, and their passwords.

`{userId}` is an id, a username or an e-mail address. Everything needs the role admin, except what people do to themselves: see
their account, change its e-mail address and its password.
"""

from __future__ import annotations

from typing import Any

from jadevectordb.gateway.access.accounts import Account
from jadevectordb.gateway.access.principals import CREATED_ROLES, parse_roles
from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.v1.identity import flag, note, required, text, user_json
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError

_LIST_MAX = 1000
_USER = {
    "username": "username", "password": "password", "email": "email", "roles": "roles", "role": "roles",
    "is_active": "is_active", "isActive": "is_active", "status": "status",
}  # fmt: skip
_PASSWORD = {
    "old_password": "old_password", "oldPassword": "old_password", "current_password": "old_password",
    "currentPassword": "old_password", "new_password": "new_password", "newPassword": "new_password",
}  # fmt: skip
_STATUS = {"active": True, "inactive": False}


def _create(services: Services, request: Request) -> Response:
    fields = request.fields(_USER)
    username, email, password = text(fields, "username"), text(fields, "email"), text(fields, "password")
    if not username and not email:
        raise invalid("username is missing: send username and password, or an email.")
    one_time = ""
    if not password:
        if username:
            raise invalid("password is missing.")
        password = one_time = services.access.passwords.one_time()
    roles = parse_roles(fields.get("roles", ())) or CREATED_ROLES
    is_active = _is_active(fields)
    account = services.access.accounts.create(
        username or email, password, roles=roles, email=email,
        is_active=True if is_active is None else is_active, must_change_password=bool(one_time),
    )  # fmt: skip
    note(services, request, "user_create", account.user_id, f"{account.username}, roles {', '.join(roles)}")
    answer = {**user_json(account), "message": "The user was created."}
    if one_time:
        answer["temporary_password"] = one_time
        answer["message"] = "The user was created; the temporary password is shown this once and must be changed."
    return reply(answer, 201)


def _list(services: Services, request: Request) -> Response:
    status = request.parameter("status").lower()
    if status and status not in _STATUS:
        raise invalid("status must be active or inactive.")
    wanted = request.parameter("role")
    role = parse_roles(wanted)[0] if wanted else None
    limit, offset = request.integer("limit", _LIST_MAX, 1, _LIST_MAX), request.integer("offset", 0, 0, 1 << 31)
    found = services.access.accounts.list(role=role, is_active=_STATUS[status] if status else None)
    page = [user_json(account) for account in found[offset : offset + limit]]
    return reply({"users": page, "count": len(page), "total": len(found), "limit": limit, "offset": offset})


def _get(services: Services, request: Request) -> Response:
    return reply(user_json(_self_or_admin(services, request, "see")))


def _update(services: Services, request: Request) -> Response:
    fields = {name: value for name, value in request.fields(_USER).items() if value != ""}
    account = _self_or_admin(services, request, "change")
    if not fields:
        raise invalid("There is nothing to change: send is_active, roles, username, email or password.")
    if not request.principal.may_administer and fields.keys() != {"email"}:
        raise JadeError(
            ErrorCode.FORBIDDEN,
            "Of your own account you may change the email here, and the password at /v1/users/{id}/password; ask an admin for the rest.",
        )
    is_active = _is_active(fields)
    roles = parse_roles(fields["roles"]) if "roles" in fields else None
    password = text(fields, "password") or None
    changed = services.access.accounts.update(
        account.user_id, by=request.principal, username=text(fields, "username") or None,
        email=text(fields, "email") if "email" in fields else None, roles=roles, is_active=is_active, password=password,
    )  # fmt: skip
    note(services, request, "user_update", account.user_id, _changes(account, changed))
    if password:
        note(services, request, "password_reset", account.user_id, "by an admin")
    return reply({**user_json(changed), "message": "The user was updated."})


def _delete(services: Services, request: Request) -> Response:
    account = services.access.accounts.require(request.params["userId"])
    services.access.accounts.delete(account.user_id, by=request.principal)
    services.access.usage.forget(account.user_id)
    note(services, request, "user_delete", account.user_id, account.username)
    message = f"User {account.username} was deleted; databases it owned are yours now."
    return reply({"user_id": account.user_id, "username": account.username, "message": message})


def _change_password(services: Services, request: Request) -> Response:
    account = _self_or_admin(services, request, "change the password of")
    old, new = required(request.fields(_PASSWORD), "old_password", "new_password")
    attempt = services.access.limits.password_attempt(account.username, request.client)
    try:
        services.access.accounts.change_password(account.user_id, old, new, by=request.principal)
    except JadeError as error:
        if error.code is not ErrorCode.UNAUTHORIZED:
            attempt.cancelled()
        raise
    attempt.succeeded()
    note(services, request, "password_change", account.user_id)
    return reply({"success": True, "message": "The password was changed; other sessions of the account have ended."})


def _reset_password(services: Services, request: Request) -> Response:
    account = services.access.accounts.require(request.params["userId"])
    (new,) = required(request.fields(_PASSWORD), "new_password")
    changed = services.access.accounts.reset_password(account.user_id, new, must_change=True)
    note(services, request, "password_reset", account.user_id, "by an admin")
    return reply(
        {
            "success": True,
            "message": "The password was set; its owner must change it after signing in.",
            "user_id": changed.user_id,
            "must_change_password": changed.must_change_password,
        }
    )


def _self_or_admin(services: Services, request: Request, verb: str) -> Account:
    """The account of the path. Raises NOT_FOUND to admins, FORBIDDEN to others, whether it exists or not."""
    accounts, principal, asked = services.access.accounts, request.principal, request.params["userId"]
    if principal.may_administer:
        return accounts.require(asked)
    account = accounts.find(asked)
    if account is None or account.user_id != principal.user_id:
        raise JadeError(ErrorCode.FORBIDDEN, f"You may {verb} your own account only; others need the role admin.")
    return account


def _is_active(fields: dict[str, Any]) -> bool | None:
    """From `is_active`, or `status` as other clients say it."""
    value, status = flag(fields, "is_active"), text(fields, "status").lower()
    if not status:
        return value
    if status not in _STATUS:
        raise invalid("status must be active or inactive.")
    if value is not None and value != _STATUS[status]:
        raise invalid("is_active and status contradict each other: send one of them.")
    return _STATUS[status]


def _changes(old: Account, new: Account) -> str:
    """What an update changed, for the audit log: names, and values where they decide about rights."""
    parts = [name for name in ("username", "email") if getattr(old, name) != getattr(new, name)]
    if old.roles != new.roles:
        parts.append(f"roles {', '.join(new.roles)}")
    if old.is_active != new.is_active:
        parts.append("activated" if new.is_active else "deactivated")
    if old.password_hash != new.password_hash:
        parts.append("password")
    return "; ".join(parts) or "nothing"


_ONE = "/v1/users/{userId}"
_RESET = "/v1/admin/users/{userId}/reset-password"
ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/users", "user.create", _create, summary="Create a user", success=201),
    Route("GET", "/v1/users", "user.list", _list, summary="List users, by role and status"),
    Route("GET", _ONE, "user.read", _get, summary="Get a user by id, username or e-mail"),
    Route("PUT", _ONE, "user.update", _update, summary="Change a user"),
    Route("DELETE", _ONE, "user.delete", _delete, summary="Delete a user, its sessions and keys"),
    Route("PUT", _ONE + "/password", "password.change", _change_password, summary="Change a password with the old one"),
    Route("PUT", _RESET, "user.reset_password", _reset_password, summary="Set the password of a user"),
    Route("POST", _RESET, "user.reset_password", _reset_password, summary="Set the password of a user (alias)"),
)
