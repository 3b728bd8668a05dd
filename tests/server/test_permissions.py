"""Every route, tried by people who may not: without a credential, with a forged, revoked or expired one, with too few rights."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving

from jadevectordb.gateway.access.operations import OPERATIONS, Right
from jadevectordb.gateway.rest.http import Route
from jadevectordb.gateway.rest.routes import all_routes

PASSWORD = "tester pass word 1"
ROUTES = all_routes()
PUBLIC = [route for route in ROUTES if OPERATIONS[route.operation].right is Right.NONE]
GUARDED = [route for route in ROUTES if OPERATIONS[route.operation].right is not Right.NONE]
# What may be had without signing in; whoever adds to it should think twice.
PUBLIC_PATHS = {
    "/health", "/health/live", "/health/ready", "/v1/auth/register", "/v1/auth/login", "/v1/auth/forgot-password",
    "/v1/auth/reset-password", "/v2/setup", "/openapi.json", "/docs", "/docs/{file}", "/console", "/console/{file}",
    "/console/pages/{file}", "/",
}  # fmt: skip


class People:
    """A server with an admin, an owner of a database, and people with less."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.admin = self.sign_in("admin", ADMIN_PASSWORD)
        self.owner = self.make("owner", ["developer"])
        self.stranger = self.make("stranger", ["developer"])
        self.viewer = self.make("viewer", ["viewer"])
        status, made = server.call("POST", "/v1/databases", {"name": "secret", "vectorDimension": 2}, token=self.owner)
        assert status == 201, made
        self.database: str = made["databaseId"]
        server.call("POST", f"/v1/databases/{self.database}/vectors", {"id": "a", "values": [1, 0]}, token=self.owner)
        grant = f"/v2/databases/{self.database}/grants/{self.id_of('viewer')}"
        assert server.call("PUT", grant, {"right": "read"}, token=self.owner)[0] == 200
        made = server.call("POST", "/v1/api-keys", {"description": "k", "permissions": ["read"]}, token=self.owner)[1]
        self.read_key: str = made["api_key"]
        made = server.call("POST", "/v1/api-keys", {"description": "gone"}, token=self.owner)[1]
        self.revoked_key: str = made["api_key"]
        assert server.call("DELETE", f"/v1/api-keys/{made['key_id']}", token=self.owner)[0] == 200
        self.logged_out = self.sign_in("owner", PASSWORD)
        assert server.call("POST", "/v1/auth/logout", token=self.logged_out)[0] == 200

    def id_of(self, name: str) -> str:
        found: str = self.server.call("GET", f"/v1/users/{name}", token=self.admin)[1]["user_id"]
        return found

    def make(self, name: str, roles: list[str]) -> str:
        body = {"username": name, "password": PASSWORD, "roles": roles}
        assert self.server.call("POST", "/v1/users", body, token=self.admin)[0] == 201
        return self.sign_in(name, PASSWORD)

    def sign_in(self, name: str, password: str) -> str:
        status, answer = self.server.call("POST", "/v1/auth/login", {"username": name, "password": password})
        assert status == 200, answer
        token: str = answer["token"]
        return token

    def try_route(self, route: Route, headers: dict[str, str] | None = None, token: str = "") -> tuple[int, Any]:
        path = re.sub(r"\{(databaseId|db)\}", self.database, route.template)
        path = path.replace("{vectorId}", "a").replace("{userId}", "admin").replace("{nodeId}", "local")
        path = path.replace("{shardId}", f"{self.database}-0")
        return self.server.call(
            route.method, re.sub(r"\{[^}]*\}", "x", path), b"{}" if route.method != "GET" else None, headers, token
        )


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    environment = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}
    with serving(tmp_path_factory.mktemp("rights") / "data", auth="required", env=environment) as server:
        yield People(server)


def name_of(route: Route) -> str:
    return f"{route.method} {route.template}"


def test_what_is_public_is_known() -> None:
    assert {route.template for route in PUBLIC} <= PUBLIC_PATHS


def test_every_guarded_route_needs_a_valid_credential(people: People) -> None:
    basic = base64.b64encode(b"admin:wrong password").decode()
    forged = {
        "nothing": {},
        "made up token": {"Authorization": "Bearer jadesess_" + "A" * 43},
        "made up key": {"Authorization": "Bearer jadevdb_" + "A" * 43},
        "key in its header": {"X-API-Key": "jadevdb_" + "B" * 43},
        "altered token": {"Authorization": f"Bearer {people.admin[:-1]}{'A' if people.admin[-1] != 'A' else 'B'}"},
        "signed out": {"Authorization": f"Bearer {people.logged_out}"},
        "revoked key": {"Authorization": f"ApiKey {people.revoked_key}"},
        "empty": {"Authorization": "Bearer "},
        "unknown scheme": {"Authorization": "Digest abc"},
        "wrong password": {"Authorization": f"Basic {basic}"},
    }
    for route in GUARDED:
        for kind, headers in forged.items():
            if kind == "wrong password" and route is not GUARDED[0]:
                continue  # each one costs a slow hash, and after a few the address is locked out, as it should be
            status, answer = people.try_route(route, headers)
            assert status == 401, (name_of(route), kind, status, answer)
            assert "unauthorized" in answer["message"].lower()


def test_a_viewer_reads_and_searches_and_nothing_else(people: People) -> None:
    allowed = {Right.READ, Right.SIGNED_IN}
    for route in GUARDED:
        if OPERATIONS[route.operation].right not in allowed:
            status, answer = people.try_route(route, token=people.viewer)
            assert status == 403, (name_of(route), status, answer)
    assert (
        people.server.call(
            "POST", f"/v1/databases/{people.database}/search", {"queryVector": [1, 0]}, token=people.viewer
        )[0]
        == 200
    )


def test_to_a_stranger_the_database_does_not_exist(people: People) -> None:
    for route in GUARDED:
        if "{databaseId}" in route.template or "{db}" in route.template:
            status, answer = people.try_route(route, token=people.stranger)
            assert status == 404 and "not found" in answer["message"].lower(), (name_of(route), status, answer)
    listed = people.server.call("GET", "/v1/databases", token=people.stranger)[1]
    assert (
        listed["databases"] == []
        and people.server.call("GET", "/v1/cluster/shards", token=people.stranger)[1]["shards"] == []
    )


def test_a_developer_is_no_admin(people: People) -> None:
    for route in GUARDED:
        if OPERATIONS[route.operation].right is Right.ADMIN:
            assert people.try_route(route, token=people.owner)[0] == 403, name_of(route)


def test_a_key_limited_to_reading_can_only_read(people: People) -> None:
    changing = {Right.WRITE, Right.DELETE, Right.CREATE, Right.ADMIN, Right.OWN}
    for route in GUARDED:
        if OPERATIONS[route.operation].right in changing:
            assert people.try_route(route, {"Authorization": f"Bearer {people.read_key}"})[0] == 403, name_of(route)
    body = {"queryVector": [1, 0]}
    for headers in ({"Authorization": f"ApiKey {people.read_key}"}, {"X-API-Key": people.read_key}):
        assert people.server.call("POST", f"/v1/databases/{people.database}/search", body, headers)[0] == 200


def test_the_database_is_as_it_was(people: People) -> None:
    """After all that was tried above."""
    status, answer = people.server.call("GET", f"/v1/databases/{people.database}/vectors/a", token=people.owner)
    assert status == 200 and answer["values"] == [1, 0]
    assert people.server.call("GET", "/health")[0] == 200
    log = people.server.log()
    for secret in (people.admin, people.owner, people.read_key, people.revoked_key, PASSWORD, ADMIN_PASSWORD):
        assert secret not in log


def test_an_expired_session_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD, "JADEVECTORDB_AUTH_SESSION_HOURS": str(1 / 3600)}
    with serving(tmp_path_factory.mktemp("expiry") / "data", auth="required", env=environment) as server:
        until = time.monotonic() + 60

        def sign_in() -> str:
            told = {"username": "admin", "password": ADMIN_PASSWORD}
            return str(server.call("POST", "/v1/auth/login", told)[1]["token"])

        token = sign_in()
        while (
            server.call("GET", "/v1/auth/me", token=token)[0] != 200
        ):  # a busy machine may take the second of a session
            assert time.monotonic() < until
            token = sign_in()
        while (status := server.call("GET", "/v1/auth/me", token=token)[0]) == 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert status == 401


def test_open_mode_only_on_loopback(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(RuntimeError, match="loopback"):
        ServerProcess(tmp_path_factory.mktemp("open") / "data", "--host", "0.0.0.0")
