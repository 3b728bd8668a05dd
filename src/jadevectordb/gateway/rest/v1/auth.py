"""Signing in as existing clients know it: register, login, logout, who am I, forgotten passwords; and setting up the first admin.

These routes work without a credential, except logout, me and validate. No answer tells whether an account exists.
"""

from __future__ import annotations

from jadevectordb.gateway.access.accounts import BUILT_IN
from jadevectordb.gateway.access.principals import ANONYMOUS, BUILT_IN_ID, parse_roles
from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.rest.v1.identity import required, text, user_json
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError

_REGISTER = {"username": "username", "password": "password", "email": "email", "roles": "roles", "role": "roles"}
_LOGIN = {"username": "username", "email": "email", "password": "password"}
_FORGOT = {"username": "username", "email": "email"}
_RESET = {
    "reset_token": "token", "resetToken": "token", "token": "token",
    "new_password": "new_password", "newPassword": "new_password", "user_id": "user_id", "userId": "user_id",
}  # fmt: skip
_SETUP = {"token": "token", "setup_token": "token", "username": "username", "password": "password"}


def _register(services: Services, request: Request) -> Response:
    fields = request.fields(_REGISTER)
    username, password = required(fields, "username", "password")
    wanted = parse_roles(fields.get("roles", ()))
    account, refused = services.access.register(
        username, password, email=text(fields, "email"), wanted=wanted, client=request.client
    )
    message = f"Registered with the roles {', '.join(account.roles)}."
    if refused:
        message += f" Not granted: {', '.join(refused)}; an admin may grant them."
    return reply({**user_json(account), "success": True, "message": message}, 201)


def _login(services: Services, request: Request) -> Response:
    fields = request.fields(_LOGIN)
    name = text(fields, "username") or text(fields, "email")
    (password,) = required(fields, "password")
    if not name:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, "username is missing: send a username or an e-mail address.")
    token, session, account = services.access.sign_in(name, password, request.client)
    expires = iso(session.expires_ms)
    return reply(
        {
            "success": True,
            "token": token,
            "token_type": "Bearer",
            "user_id": account.user_id,
            "userId": account.user_id,
            "username": account.username,
            "email": account.email,
            "roles": list(account.roles),
            "must_change_password": account.must_change_password,
            "expires_at": expires,
            "expiresAt": expires,
            "session_id": session.session_id,
            "message": "Signed in.",
        }
    )


def _logout(services: Services, request: Request) -> Response:
    ended = services.access.sign_out(request.principal, request.client)
    message = "Signed out." if ended else "There was no session to end: the credential is not a session token."
    return reply({"success": True, "message": message, "user_id": request.principal.user_id})


def _me(services: Services, request: Request) -> Response:
    principal = request.principal
    account = BUILT_IN if principal.user_id == BUILT_IN_ID else services.access.accounts.get(principal.user_id)
    if account is None:  # deleted between the check of the credential and now
        raise JadeError(ErrorCode.UNAUTHORIZED, "Unauthorized: the account does not exist any more.")
    return reply({**user_json(account, principal.roles), "credential": principal.kind})


def _validate(services: Services, request: Request) -> Response:
    principal = request.principal
    return reply(
        {
            "valid": True,
            "user_id": principal.user_id,
            "userId": principal.user_id,
            "username": principal.username,
            "roles": list(principal.roles),
            "credential": principal.kind,
        }
    )


def _forgot_password(services: Services, request: Request) -> Response:
    fields = request.fields(_FORGOT)
    username, email = text(fields, "username").strip(), text(fields, "email").strip()
    if not username and not email:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, "username and email are missing: send one of them.")
    services.access.limits.password_reset(username or email, request.client)
    services.access.resets.ask(username, email)
    message = (
        "If there is such an account, and this server can deliver messages, its owner gets a reset token; "
        "an admin can set a password too."
    )
    return reply({"success": True, "message": message})


def _reset_password(services: Services, request: Request) -> Response:
    fields = request.fields(_RESET)
    token, new_password = required(fields, "token", "new_password")
    account = services.access.resets.finish(token, new_password, text(fields, "user_id") or None)
    services.access.audit.record(
        "password_reset", ANONYMOUS, request.client, user_id=account.user_id, user=account.username,
        resource=account.user_id, details="with a reset token",
    )  # fmt: skip
    return reply({"success": True, "message": "The password was set: sign in with it.", "user_id": account.user_id})


def _setup(services: Services, request: Request) -> Response:
    fields = request.fields(_SETUP)
    token, username, password = required(fields, "token", "username", "password")
    account = services.access.set_up(token, username, password, request.client)
    return reply({**user_json(account), "message": "The first admin was made: sign in as it."}, 201)


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/auth/register", "auth.register", _register, summary="Make an account for oneself", success=201),
    Route("POST", "/v1/auth/login", "auth.login", _login, summary="Sign in; answers a session token"),
    Route("POST", "/v1/auth/logout", "auth.logout", _logout, summary="End the session"),
    Route("GET", "/v1/auth/me", "auth.me", _me, summary="The account one is signed in as"),
    Route(
        "GET", "/v1/auth/validate", "auth.validate", _validate, inline=True, summary="Whether the credential is valid"
    ),
    Route(
        "POST",
        "/v1/auth/forgot-password",
        "auth.forgot_password",
        _forgot_password,
        summary="Have a reset token delivered",
    ),
    Route(
        "POST",
        "/v1/auth/reset-password",
        "auth.reset_password",
        _reset_password,
        summary="Set a password with a reset token",
    ),
    Route("POST", "/v2/setup", "auth.setup", _setup, summary="Make the first admin with the setup token", success=201),
)
