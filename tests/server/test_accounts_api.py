"""Accounts, sign-in, keys, sessions and the audit log over the REST contract, on a whole server without a socket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jadevectordb.gateway.access.operations import OPERATIONS, Right
from jadevectordb.gateway.rest.http import Request
from jadevectordb.gateway.service.logs import RecentLogs
from jadevectordb.server import Server
from jadevectordb.settings.sources import load

ADMIN_PASSWORD = "from the environment"
PASSWORD = "RunnerPass123!"


class Answer:
    def __init__(self, status: int, body: bytes, headers: tuple[tuple[str, str], ...]) -> None:
        self.status = status
        self.text = body.decode()
        self.headers = dict(headers)

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Caller:
    """Calls the application of a server that listens nowhere."""

    def __init__(self, data: Path, **flags: Any) -> None:
        known = load(
            None, {}, {"server.data": str(data), "server.grpc_port": -1, "limits.login_failures_max": 40, **flags}
        )
        self.server = Server(known, RecentLogs())
        self.access = self.server.services.access

    def __call__(self, method: str, target: str, body: Any = None, auth: str | None = None, **headers: str) -> Answer:
        path, _, query = target.partition("?")
        sent = {"host": "localhost", "content-type": "application/json", **headers}
        if auth is not None:
            sent["authorization"] = auth if " " in auth else f"Bearer {auth}"
        request = Request(
            method,
            path,
            sent,
            b"" if body is None else json.dumps(body).encode(),
            query_string=query,
            client="127.0.0.1",
        )
        answer = asyncio.run(self.server.application.answer(request))
        return Answer(answer.status, answer.body, answer.headers)

    def person(self, name: str, password: str = PASSWORD, **more: Any) -> tuple[str, str]:
        """(user id, session token) of a self-registered account."""
        made = self("POST", "/v1/auth/register", {"username": name, "password": password, **more})
        assert made.status == 201, made.text
        return made.json["user_id"], self.token(name, password)

    def token(self, name: str, password: str = PASSWORD) -> str:
        answer = self("POST", "/v1/auth/login", {"username": name, "password": password})
        assert answer.status == 200, answer.text
        return str(answer.json["token"])


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    caller = Caller(tmp_path_factory.mktemp("required") / "data", **{"auth.admin_password": ADMIN_PASSWORD})
    yield caller
    caller.server.close()


@pytest.fixture(scope="module")
def admin(call: Caller) -> str:
    return call.token("admin", ADMIN_PASSWORD)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    caller = Caller(tmp_path_factory.mktemp("open") / "data", **{"auth.mode": "open-loopback"})
    yield caller
    caller.server.close()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


USER_TEXTS = ("user_id", "id", "userId", "username", "email", "status", "created_at", "createdAt")


def check_user(user: dict[str, Any]) -> None:
    assert all(isinstance(user[name], str) for name in USER_TEXTS), user
    assert user["user_id"] == user["id"] == user["userId"] and user["user_id"].startswith("user_")
    assert user["is_active"] is user["isActive"] is (user["status"] == "active")
    assert isinstance(user["roles"], list) and isinstance(user["must_change_password"], bool)
    assert "last_login" in user and "password_hash" not in user


def test_the_runners_way_in(call: Caller) -> None:
    made = call(
        "POST", "/v1/auth/register", {"username": "runner", "password": PASSWORD, "email": "runner@examples.local"}
    )
    assert made.status == 201
    check_user(made.json)
    assert made.json["roles"] == ["developer", "user"] and made.json["message"]
    again = call("POST", "/v1/auth/register", {"username": "RUNNER", "password": PASSWORD})
    assert (again.status, again.json["error"]) == (409, "CONFLICT")
    signed_in = call("POST", "/v1/auth/login", {"username": "runner", "password": PASSWORD})
    token, user_id = signed_in.json["token"], signed_in.json["user_id"]
    assert (
        f'"token":"{token}"' in signed_in.text and f'"user_id":"{user_id}"' in signed_in.text
    )  # as scripts cut it out
    assert signed_in.json["token_type"] == "Bearer" and signed_in.json["must_change_password"] is False
    assert signed_in.json["expires_at"].endswith("Z") and signed_in.json["expiresAt"] == signed_in.json["expires_at"]
    me = call("GET", "/v1/auth/me", auth=token)
    check_user(me.json)
    assert me.json["user_id"] == user_id and me.json["last_login"] is not None
    assert call("GET", "/v1/auth/validate", auth=token).json["valid"] is True
    assert call("POST", "/v1/databases", {"name": "d", "vectorDimension": 4}, auth=token).status == 201
    out = call("POST", "/v1/auth/logout", auth=token)
    assert (out.status, out.json["user_id"]) == (200, user_id)
    gone = call("GET", "/v1/auth/me", auth=token)
    assert (gone.status, gone.json["error"]) == (401, "UNAUTHORIZED") and "unauthorized" in gone.text.lower()


@pytest.mark.parametrize(
    "body",
    [{}, {"username": "x"}, {"password": PASSWORD}, {"username": "x", "password": "short"}, {"username": "", "password": PASSWORD},
     {"username": 5, "password": PASSWORD}, {"username": "x", "password": PASSWORD, "roles": ["root"]}, [1], "text",
     {"username": "x\n", "password": PASSWORD}, {"username": "x", "password": PASSWORD, "email": "nowhere"},
     {"username": "x", "password": 12345678}, {"username": "x", "password": PASSWORD, "roles": ["admin"], "role": "user"}],
)  # fmt: skip
def test_registrations_that_make_no_sense(call: Caller, body: Any) -> None:
    answer = call("POST", "/v1/auth/register", body)
    assert (answer.status, answer.json["error"], answer.json["status"]) == (400, "INVALID_ARGUMENT", 400)
    assert PASSWORD not in answer.text


def test_nobody_registers_as_an_admin(call: Caller) -> None:
    answer = call(
        "POST", "/v1/auth/register", {"username": "greedy", "password": PASSWORD, "roles": ["role_admin", "tester"]}
    )
    assert answer.status == 201 and answer.json["roles"] == ["tester"] and "admin" in answer.json["message"]


def test_a_failed_sign_in_says_nothing_about_why(call: Caller) -> None:
    call.person("careful")
    tried = [("careful", "wrong password"), ("nobody here", PASSWORD), ("careful", "")]
    answers = [call("POST", "/v1/auth/login", {"username": name, "password": password}) for name, password in tried]
    assert [a.status for a in answers] == [401, 401, 400]
    assert answers[0].text == answers[1].text
    by_mail = call("POST", "/v1/auth/login", {"username": "", "email": "careful", "password": PASSWORD})
    assert by_mail.status == 200


def test_the_life_of_a_user(call: Caller, admin: str) -> None:
    body = {
        "username": "alice_engineer",
        "password": "SecurePass123!",
        "roles": ["developer"],
        "email": "alice@example.com",
    }
    for _ in range(2):  # with fixed names, run after run
        made = call("POST", "/v1/users", body, auth=admin)
        assert made.status == 201, made.text
        check_user(made.json)
        user_id = made.json["user_id"]
        token = call.token("alice_engineer", "SecurePass123!")
        listed = call("GET", "/v1/users", auth=admin).json
        assert listed["count"] == listed["total"] == len(listed["users"]) and user_id in {
            u["id"] for u in listed["users"]
        }
        for one in (user_id, "alice_engineer", "ALICE@example.com"):
            assert call("GET", f"/v1/users/{one}", auth=admin).json["user_id"] == user_id
        assert call("PUT", f"/v1/users/{user_id}", {"roles": ["admin"]}, auth=admin).json["roles"] == ["admin"]
        off = call("PUT", f"/v1/users/{user_id}", {"is_active": False}, auth=admin)
        assert off.json["is_active"] is False and off.json["message"]
        assert call("GET", "/v1/auth/me", auth=token).status == 401
        assert (
            call("POST", "/v1/auth/login", {"username": "alice_engineer", "password": "SecurePass123!"}).status == 401
        )
        found = call("GET", "/v1/users?status=inactive&role=role_admin", auth=admin).json["users"]
        assert [u["user_id"] for u in found] == [user_id]
        assert call("PUT", f"/v1/users/{user_id}", {"status": "active"}, auth=admin).json["isActive"] is True
        gone = call("DELETE", f"/v1/users/{user_id}", auth=admin)
        assert (gone.status, gone.json["user_id"], gone.json["username"]) == (200, user_id, "alice_engineer")
        missing = call("GET", f"/v1/users/{user_id}", auth=admin)
        assert (missing.status, missing.json["error"]) == (404, "NOT_FOUND") and "not found" in missing.text.lower()
        assert call("DELETE", f"/v1/users/{user_id}", auth=admin).status == 404


def test_a_user_made_from_an_address_gets_a_password_to_change(call: Caller, admin: str) -> None:
    made = call("POST", "/v1/users", {"email": "js@example.com", "role": "user"}, auth=admin).json
    assert made["username"] == "js@example.com" and made["must_change_password"] is True
    token = call.token("js@example.com", made["temporary_password"])
    for method, target in (
        ("GET", "/v1/databases"),
        ("GET", "/status"),
        ("POST", "/v1/api-keys"),
        ("GET", "/v1/users/js@example.com"),
    ):
        answer = call(method, target, {}, auth=token)
        assert (answer.status, answer.json["error"]) == (403, "PASSWORD_CHANGE_REQUIRED"), target
    assert call("GET", "/v1/auth/me", auth=token).json["must_change_password"] is True
    changed = call(
        "PUT", "/v1/users/js@example.com/password",
        {"old_password": made["temporary_password"], "new_password": "my own choice"}, auth=token,
    )  # fmt: skip
    assert (changed.status, changed.json["success"]) == (200, True)
    assert call("GET", "/v1/databases", auth=token).status == 200  # the calling session goes on
    assert call("POST", "/v1/users", {"username": "nopassword"}, auth=admin).status == 400


def test_passwords(call: Caller, admin: str) -> None:
    user_id, token = call.person("changer")
    _, stranger = call.person("stranger")
    path = f"/v1/users/{user_id}/password"
    assert call("PUT", path, {"old_password": PASSWORD, "new_password": "another one"}, auth=stranger).status == 403
    wrong = call("PUT", path, {"old_password": "not this", "new_password": "another one"}, auth=token)
    assert (wrong.status, wrong.json["error"]) == (401, "UNAUTHORIZED")
    assert call("PUT", path, {"oldPassword": PASSWORD}, auth=token).status == 400
    assert call("PUT", path, {"old_password": PASSWORD, "new_password": "short"}, auth=token).status == 400
    assert call("PUT", path, {"oldPassword": PASSWORD, "newPassword": "another one"}, auth=token).status == 200
    reset = f"/v1/admin/users/{user_id}/reset-password"
    assert call("PUT", reset, {"new_password": "AdminReset789!"}, auth=token).status == 403
    for method, password in (("PUT", "AdminReset789!"), ("POST", "AdminReset790!")):
        answer = call(method, reset, {"new_password": password}, auth=admin)
        assert answer.status == 200
        assert (
            answer.json["success"] and answer.json["user_id"] == user_id and answer.json["must_change_password"] is True
        )
        assert call("GET", "/v1/auth/me", auth=token).status == 401
        token = call.token("changer", password)
    assert (
        call("PUT", "/v1/admin/users/nobody/reset-password", {"new_password": "whatever12"}, auth=admin).status == 404
    )


def test_what_people_may_do_to_themselves(call: Caller, admin: str) -> None:
    user_id, token = call.person("selfish", email="old@example.com")
    other, _ = call.person("other")
    assert call("GET", f"/v1/users/{user_id}", auth=token).status == 200
    assert call("PUT", "/v1/users/selfish", {"email": "new@example.com"}, auth=token).json["email"] == "new@example.com"
    for body in (
        {"roles": ["admin"]},
        {"username": "me"},
        {"is_active": False},
        {"password": "new password"},
        {"email": "", "role": "admin"},
    ):
        assert call("PUT", f"/v1/users/{user_id}", body, auth=token).status == 403, body
    assert call("PUT", f"/v1/users/{user_id}", {}, auth=token).status == 400
    for method in ("GET", "PUT"):
        for whom in (other, "nobody at all"):
            assert call(method, f"/v1/users/{whom.replace(' ', '%20')}", {"email": "a@b.c"}, auth=token).status == 403
    assert call("GET", "/v1/users", auth=token).status == 403
    assert call("DELETE", f"/v1/users/{user_id}", auth=token).status == 403
    assert call("DELETE", "/v1/users/admin", auth=admin).status == 409
    assert call("PUT", "/v1/users/admin", {"is_active": False}, auth=admin).status == 409
    assert call("PUT", "/v1/users/admin", {"roles": ["user"]}, auth=admin).status == 409
    assert call("PUT", f"/v1/users/{user_id}", {"is_active": True, "status": "inactive"}, auth=admin).status == 400
    assert call("PUT", f"/v1/users/{user_id}", {"is_active": "yes"}, auth=admin).status == 400


@pytest.mark.parametrize("base", ["/v1/api-keys", "/v1/apikeys", "/api/v1/api-keys"])
def test_the_life_of_a_key(call: Caller, admin: str, base: str) -> None:
    user_id, token = call.person(f"keeper of {base.replace('/', ' ').strip()}")
    body = {
        "user_id": user_id,
        "description": "CI/CD — nightly",
        "permissions": ["read", "write"],
        "validity_days": "90",
    }
    made = call("POST", base, body, auth=token)
    assert made.status == 201, made.text
    secret, key_id = made.json["api_key"], made.json["key_id"]
    assert made.json["apiKey"] == made.json["key"] == secret and f'"apiKey":"{secret}"' in made.text
    assert secret.startswith("jadevdb_") and len(secret) >= 51
    listed = call("GET", f"{base}?user_id={user_id}", auth=token).json
    assert listed["api_keys"] == listed["apiKeys"] and listed["count"] == 1
    (key,) = listed["api_keys"]
    assert (key["key_id"], key["description"], key["name"], key["status"]) == (
        key_id,
        "CI/CD — nightly",
        "CI/CD — nightly",
        "active",
    )
    assert (
        key["key_prefix"] == secret[:12] and key["expires_at"].endswith("Z") and key["permissions"] == ["read", "write"]
    )
    assert secret not in json.dumps(listed)
    for header in (
        {"auth": secret},
        {"auth": f"ApiKey {secret}"},
        {"x-api-key": secret},
        {"auth": basic("any", secret)},
    ):
        assert call("GET", "/status", **header).status == 200  # type: ignore[arg-type]
    assert call("POST", base, {}, auth=secret).status == 403  # a limited key makes no wider one
    (key,) = call("GET", base, auth=token).json["api_keys"]
    assert key["usage_count"] == 5 and key["last_used_at"] is not None
    _, stranger = call.person(f"thief of {base.replace('/', ' ').strip()}")
    assert call("GET", f"{base}?user_id={user_id}", auth=stranger).status == 403
    assert call("POST", base, {"user_id": user_id}, auth=stranger).status == 403
    assert call("DELETE", f"{base}/{key_id}", auth=stranger).status == 404
    assert key_id in {k["key_id"] for k in call("GET", base, auth=admin).json["api_keys"]}
    assert call("DELETE", f"{base}/{key_id}", auth=token).json["key_id"] == key_id
    assert call("GET", "/status", auth=secret).status == 401
    (key,) = call("GET", base, auth=token).json["api_keys"]
    assert (key["status"], key["is_active"]) == ("revoked", False)
    assert call("DELETE", f"{base}/key_unknown", auth=admin).status == 404
    for wrong in ({"permissions": ["fly"]}, {"permissions": 5}, {"validity_days": -1}, {"validity_days": "soon"}, {"description": 5},
                  {"validity_days": 1.5}, {"validity_days": True}):  # fmt: skip
        assert call("POST", base, wrong, auth=token).status == 400, wrong
    others = call(
        "POST", base, {"userId": user_id, "name": "by an admin", "scopes": [], "expires_in_days": None}, auth=admin
    )
    assert others.status == 201 and others.json["user_id"] == user_id and others.json["expires_at"] is None


def test_what_was_owned_passes_to_who_deletes(call: Caller, admin: str) -> None:
    user_id, token = call.person("leaving")
    made = call("POST", "/v1/databases", {"name": "inheritance", "vectorDimension": 4}, auth=token).json
    assert call("DELETE", f"/v1/users/{user_id}", auth=admin).status == 200
    found = call("GET", f"/v1/databases/{made['databaseId']}", auth=admin).json
    assert found["owner"] == call("GET", "/v1/auth/me", auth=admin).json["user_id"]


def test_the_audit_log_and_sessions(call: Caller, admin: str) -> None:
    user_id, token = call.person("watched")
    call("GET", "/v1/users", auth=token)
    path = "/v1/security/audit-log"
    mine = call("GET", path, auth=token).json
    assert [e["event_type"] for e in mine["events"]] == ["permission_denied", "login", "register"]
    assert mine["events"] == mine["logs"] and mine["count"] == mine["total"] == 3
    for event in call("GET", path, auth=admin).json["events"]:
        assert all(
            isinstance(event[n], str) and event[n]
            for n in ("event_type", "event", "action", "user_id", "user", "timestamp", "id")
        )
        assert event["status"] == ("success" if event["success"] else "failure") and isinstance(event["details"], str)
    by_user = call("GET", f"{path}?user_id={user_id}&event_type=login&limit=1", auth=admin).json
    assert [e["user"] for e in by_user["events"]] == ["watched"] and by_user["limit"] == 1
    assert len(call("GET", f"{path}?limit=1&offset=1", auth=token).json["events"]) == 1
    classes = call("GET", f"{path}?event_type=AUTHORIZATION_DENIED", auth=token).json["events"]
    assert {e["event_type"] for e in classes} == {"permission_denied"}
    assert call("GET", f"{path}?user_id=admin", auth=token).status == 403
    for wrong in ("event_type=nothing", "limit=0", "limit=1001", "limit=x", "offset=-1"):
        assert call("GET", f"{path}?{wrong}", auth=token).status == 400, wrong
    call("POST", "/v1/users", {"username": "audited", "password": PASSWORD}, auth=admin)
    call("DELETE", "/v1/users/audited", auth=admin)
    kinds = [e["event_type"] for e in call("GET", f"{path}?user_id=admin&limit=2", auth=admin).json["events"]]
    assert kinds == ["user_delete", "user_create"]
    assert PASSWORD not in call("GET", f"{path}?limit=1000", auth=admin).text
    sessions = call("GET", "/v1/security/sessions", auth=token).json
    assert (sessions["user_id"], sessions["count"]) == (user_id, 1)
    (session,) = sessions["sessions"]
    assert (
        session["session_id"].startswith("sess_")
        and session["current"] is True
        and session["ip_address"] == "127.0.0.1"
    )
    assert token not in json.dumps(sessions)
    assert call("GET", f"/v1/security/sessions?user_id={user_id}", auth=admin).json["sessions"][0]["current"] is False
    assert call("GET", "/v1/security/sessions?user_id=admin", auth=token).status == 403
    stats = call("GET", "/v1/security/audit-stats", auth=token).json
    assert stats["scope"] == "own" and stats["events_by_type"] == {"login": 1, "permission_denied": 3, "register": 1}
    assert stats["total_events"] == 5 and stats["failed_events"] == 3 and stats["enabled"] is True
    assert call("GET", "/v1/security/audit-stats", auth=admin).json["scope"] == "all"


def test_forgotten_passwords_tell_nothing(call: Caller) -> None:
    call.person("forgetful", email="f@example.com")
    asked = [
        {"username": "forgetful", "email": ""},
        {"username": "", "email": "f@example.com"},
        {"email": "nobody@example.com"},
    ]
    answers = [call("POST", "/v1/auth/forgot-password", body) for body in asked]
    assert {a.status for a in answers} == {200} and len({a.text for a in answers}) == 1
    assert "reset_token" not in answers[0].json and answers[0].json["success"] is True
    assert call("POST", "/v1/auth/forgot-password", {}).status == 400
    for body in (
        {"token": "x", "newPassword": "long enough"},
        {"reset_token": "x", "new_password": "short"},
        {"reset_token": "x"},
    ):
        assert call("POST", "/v1/auth/reset-password", body).status == 400


def test_every_route_wants_a_credential_and_a_right_one(call: Caller) -> None:
    public = {name for name, operation in OPERATIONS.items() if operation.right is Right.NONE}
    _, token = call.person("door to door")
    call("POST", "/v1/auth/logout", auth=token)
    forged = [token, token[:-1] + "a", "jadevdb_" + "x" * 60, basic("admin", "guess guess"), "Digest x"]
    seen = 0
    for route in call.server.application.routes:
        target = "/".join("x" if part.startswith("{") else part for part in route.template.split("/"))
        if route.operation == "health":
            assert call(route.method, target, auth="Bearer wrong").status in (200, 503)
            continue
        if route.operation not in public:
            answer = call(route.method, target)
            assert (answer.status, answer.json["error"]) == (401, "UNAUTHORIZED"), target
        if route.operation == "documentation":
            continue
        answer = call(route.method, target, auth=forged[seen % len(forged)])
        assert answer.status in (401, 429), (target, answer.text)
        seen += 1
    assert seen > 80


def test_open_mode(opened: Caller) -> None:
    me = opened("GET", "/v1/auth/me").json
    check_user(me)
    assert me["username"] == "dev" and "admin" in me["roles"]
    assert opened("GET", "/v1/auth/me", auth="wrong").status == 401
    assert opened("GET", "/v1/users", host="evil.example").status == 403
    assert opened("GET", "/v1/users", origin="http://evil.example").status == 403
    user_id, token = opened.person("runner")
    assert "admin" in opened("GET", "/v1/auth/me", auth=token).json["roles"]
    assert opened("GET", f"/v1/users/{user_id}", auth=token).json["roles"] == ["developer", "user"]
    # what the examples do with accounts, with the runner's token
    made = opened(
        "POST", "/v1/users", {"username": "alice", "password": PASSWORD, "roles": ["developer"]}, auth=token
    ).json
    path = f"/v1/users/{made['user_id']}"
    for body in ({"roles": ["admin"]}, {"is_active": False}, {"is_active": True}):
        assert opened("PUT", path, body, auth=token).status == 200, body
    assert opened("DELETE", path, auth=token).status == 200
    assert opened("DELETE", f"/v1/users/{user_id}", auth=token).status == 409
    key = opened("POST", "/v1/api-keys", {"permissions": ["read"]}).json  # for `dev`
    assert opened("GET", "/status", auth=key["api_key"]).status == 200
    assert opened("POST", "/v1/users", {"username": "x", "password": PASSWORD}, auth=key["api_key"]).status == 403
    assert opened("DELETE", f"/v1/api-keys/{key['key_id']}").status == 200
    for method, target, body in (("DELETE", "/v1/users/dev", None), ("PUT", "/v1/users/dev", {"email": "a@b.c"})):
        assert opened(method, target, body).status == 409
    assert opened("POST", "/v2/setup", {"token": "x", "username": "root", "password": PASSWORD}).status == 409


def test_the_first_admin_by_the_token_on_the_console(tmp_path: Path) -> None:
    call = Caller(tmp_path / "data")
    try:
        setup = call.access.setup_token
        body = {"token": setup, "username": "root", "password": PASSWORD}
        assert call("POST", "/v2/setup", {**body, "token": "jadesetup_no"}).status == 401
        made = call("POST", "/v2/setup", body)
        assert made.status == 201 and made.json["roles"] == ["admin"]
        assert call("POST", "/v2/setup", body).status == 409
        assert call("GET", "/v1/users", auth=call.token("root")).json["total"] == 1
    finally:
        call.server.close()
