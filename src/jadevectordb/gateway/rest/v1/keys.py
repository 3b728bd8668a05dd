"""API keys as existing clients know them: create (the secret is shown once), list, revoke."""

from __future__ import annotations

from jadevectordb.gateway.access.keys import Key
from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, reply
from jadevectordb.gateway.rest.v1.identity import key_json, note, subject, text, whole
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError

_LIST_MAX = 10_000
_CREATE = {
    "user_id": "user_id", "userId": "user_id", "description": "description", "name": "description",
    "permissions": "permissions", "scopes": "permissions", "validity_days": "validity_days", "validityDays": "validity_days",
    "expires_in_days": "validity_days", "expiresInDays": "validity_days",
}  # fmt: skip


def _create(services: Services, request: Request) -> Response:
    fields = request.fields(_CREATE)
    access, principal = services.access, request.principal
    owner = access.accounts.find(text(fields, "user_id") or principal.user_id)
    if owner is None or owner.user_id != principal.user_id:
        if not principal.may_administer:
            raise JadeError(
                ErrorCode.FORBIDDEN, "You may create API keys for yourself only; for others it needs the role admin."
            )
        if owner is None:
            raise JadeError(ErrorCode.NOT_FOUND, f"User not found: {text(fields, 'user_id')!r:.200}.")
    permissions = fields.get("permissions", [])
    if isinstance(permissions, str):
        permissions = [word for word in permissions.replace(",", " ").split() if word]
    if not isinstance(permissions, list) or not all(isinstance(word, str) for word in permissions):
        raise invalid("permissions must be a list of words such as read and write.")
    secret, key = access.keys.create(
        owner.user_id, description=text(fields, "description"), permissions=tuple(permissions),
        valid_days=whole(fields, "validity_days", 0),
    )  # fmt: skip
    note(
        services,
        request,
        "api_key_create",
        key.key_id,
        f"for {owner.username}: {', '.join(key.permissions) or 'all rights'}",
    )
    answer = {
        "api_key": secret, "apiKey": secret, "key": secret, **key_json(key, None, services.clock.now_ms()),
        "message": "Keep the key now: it is not shown again.",
    }  # fmt: skip
    return reply(answer, 201)


def _list(services: Services, request: Request) -> Response:
    access, principal = services.access, request.principal
    asked = request.parameter("user_id")
    limit, offset = request.integer("limit", _LIST_MAX, 1, _LIST_MAX), request.integer("offset", 0, 0, 1 << 31)
    if asked:
        found = access.keys.of_user(subject(services, request, asked, "API keys"))
    elif principal.may_administer:
        found = access.keys.every()
    else:
        found = access.keys.of_user(principal.user_id)
    page = _shown(services, found[offset : offset + limit])
    return reply(
        {"api_keys": page, "apiKeys": page, "count": len(page), "total": len(found), "limit": limit, "offset": offset}
    )


def _shown(services: Services, keys: list[Key]) -> list[dict[str, object]]:
    usage, now_ms = services.access.usage, services.clock.now_ms()
    uses = {user_id: usage.of_user(user_id) for user_id in {key.user_id for key in keys}}
    return [key_json(key, uses[key.user_id].get(key.key_id), now_ms) for key in keys]


def _revoke(services: Services, request: Request) -> Response:
    access, principal, key_id = services.access, request.principal, request.params["keyId"]
    key = access.keys.find(key_id, principal.user_id) or (
        access.keys.find(key_id) if principal.may_administer else None
    )
    if key is None or access.keys.revoke(key) is None:
        raise JadeError(ErrorCode.NOT_FOUND, f"API key not found: {key_id!r:.100}. GET /v1/api-keys lists yours.")
    if key.revoked_ms is None:
        note(services, request, "api_key_revoke", key_id, key.description)
    return reply({"key_id": key_id, "success": True, "message": "The API key was revoked."})


ROUTES: tuple[Route, ...] = tuple(
    route
    for base in ("/v1/api-keys", "/v1/apikeys")
    for route in (
        Route("POST", base, "key.create", _create, summary="Create an API key; its secret is shown once", success=201),
        Route("GET", base, "key.list", _list, summary="List API keys"),
        Route("DELETE", base + "/{keyId}", "key.revoke", _revoke, summary="Revoke an API key"),
    )
)
