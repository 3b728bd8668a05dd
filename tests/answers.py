"""Asking a test server and looking at what it answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from tests.serving import ADMIN_PASSWORD, ServerProcess


def ok(answer: tuple[int, Any], status: int = 200) -> Any:
    """The body, when the status is the right one."""
    assert answer[0] == status, answer
    return answer[1]


def raw(server: ServerProcess, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    """(status, body as it came, headers)."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        server.url + path, data, {"Content-Type": "application/json", **headers}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def new_user(server: ServerProcess, name: str) -> str:
    made = ok(server.call("POST", "/v1/users", {"username": name, "password": ADMIN_PASSWORD}), 201)
    found: str = made["user_id"]
    return found


def new_database(server: ServerProcess, name: str = "rules", dimension: int = 2) -> str:
    """Its path."""
    made = ok(server.call("POST", "/v1/databases", {"name": name, "vectorDimension": dimension}), 201)
    return f"/v1/databases/{made['databaseId']}"
