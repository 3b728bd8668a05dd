"""The rules every route of version 1 keeps: statuses, bodies, errors, names, ids and times."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.answers import new_database, new_user, ok, raw
from tests.serving import ServerProcess, serving

from jadevectordb.gateway.rest.errors import error_response, internal_error, status_of
from jadevectordb.model.errors import ErrorCode, JadeError

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NAMES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 409: "CONFLICT", 413: "PAYLOAD_TOO_LARGE",
    429: "RATE_LIMITED", 500: "INTERNAL_ERROR", 501: "NOT_IMPLEMENTED", 503: "UNAVAILABLE",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("rules") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("rules") / "guarded", auth="required") as running:
        yield running


@pytest.fixture()
def database(server: ServerProcess) -> str:
    return new_database(server)


# Responses


LIFE = """
201 POST /v1/auth/register {"username":"reg","password":"correct horse"}
200 POST /v1/auth/login {"username":"reg","password":"correct horse"}
201 POST /v1/users {"username":"life","password":"correct horse"} > user_id
200 GET /v1/users
200 GET /v1/users/{user_id}
200 PUT /v1/users/{user_id} {"is_active":true}
200 PUT /v1/users/{user_id}/password {"old_password":"correct horse","new_password":"wrong horse"}
200 PUT /v1/admin/users/{user_id}/reset-password {"new_password":"third horse"}
200 POST /v1/admin/users/{user_id}/reset-password {"new_password":"third horse"}
201 POST /v1/api-keys {"user_id":"life"} > key_id
200 GET /v1/api-keys
200 DELETE /v1/api-keys/{key_id}
200 DELETE /v1/users/{user_id}
200 GET /v1/auth/me
200 GET /v1/auth/validate
200 POST /v1/auth/logout
200 GET /v1/security/audit-log
200 GET /v1/security/sessions
200 GET /v1/security/audit-stats
201 POST /v1/databases {"name":"d","vectorDimension":2} > databaseId
200 GET /v1/databases
200 GET {db}
200 PUT {db} {"description":"x"}
200 GET {db}/status
200 GET {db}/stats
200 POST {db}/compact
200 PUT {db}/lifecycle {"maxAgeDays":5}
200 GET {db}/lifecycle/status
201 POST {db}/vectors {"id":"a","values":[1,0],"metadata":{"text":"one two"}}
201 POST {db}/vectors/batch {"vectors":[{"id":"b","values":[0,1]}]}
200 GET {db}/vectors
200 POST {db}/vectors/batch-get {"ids":["a"]}
200 GET {db}/vectors/a
200 PUT {db}/vectors/a {"values":[1,1]}
200 POST {db}/search {"queryVector":[1,0]}
200 POST {db}/search/advanced {"queryVector":[1,0]}
200 POST {db}/bm25-index/build {}
200 POST {db}/bm25-index/rebuild
200 GET {db}/bm25-index/status
200 POST {db}/bm25-index/documents {"documents":[{"id":1,"text":"x"}]}
200 POST {db}/search/hybrid {"queryText":"one"}
200 POST {db}/search/rerank {"queryText":"one"}
200 POST /v1/rerank {"query":"x","documents":[{"id":"1","text":"x"}]}
200 GET {db}/reranking/config
200 PUT {db}/reranking/config {"batchSize":8}
201 POST {db}/indexes {"type":"flat"} > indexId
200 GET {db}/indexes
200 GET {db}/indexes/{indexId}
200 PUT {db}/indexes/{indexId} {"name":"n"}
200 DELETE {db}/indexes/{indexId}
200 GET {db}/analytics/stats
200 GET {db}/analytics/queries
200 GET {db}/analytics/patterns
200 GET {db}/analytics/insights
200 GET {db}/analytics/trending
200 GET {db}/analytics/export
200 POST {db}/analytics/feedback {"query_id":"q","rating":5}
201 POST /v1/alerts {"type":"info","message":"m"} > alert_id
200 GET /v1/alerts
200 PUT /v1/alerts/{alert_id}/acknowledge
200 GET /v1/metrics/performance
200 GET /v1/cluster/status
200 GET /v1/cluster/nodes
200 GET /v1/cluster/nodes/local/health
200 GET /v1/cluster/nodes/local/status
200 GET /v1/cluster/shards
200 GET /v1/cluster/diagnostics
200 GET /v1/cluster/metrics
200 DELETE {db}/vectors/a
200 DELETE {db}
200 GET /health
200 GET /health/db
200 GET /status
"""


def test_every_success_is_compact_json_without_an_error_and_has_its_one_status(server: ServerProcess) -> None:
    """One life of everything there is. Clients send a content type with every request, with or without a body."""
    known = {"databaseId": "", "db": ""}
    for line in LIFE.strip().splitlines():
        asked, _, remembered = line.partition(" > ")
        expected, method, path, *body = asked.split(" ", 3)
        for name, value in known.items():
            path = path.replace(f"{{{name}}}", value)
        status, text, headers = raw(server, method, path, body[0].encode() if body else None)
        assert status == int(expected), (line, text)
        assert headers["Content-Type"] == "application/json"
        answer = msgspec.json.decode(text)
        assert isinstance(answer, dict) and "error" not in answer
        assert msgspec.json.encode(answer) == text, "compact: what is read and written again is the same"
        if remembered:
            known[remembered] = answer[remembered]
            known["db"] = f"/v1/databases/{known['databaseId']}"


def test_ids_have_the_forms_that_are_promised(server: ServerProcess, database: str) -> None:
    key = ok(server.call("POST", "/v1/api-keys", {"user_id": new_user(server, "forms")}), 201)
    assert key["key_id"].startswith("key_") and key["user_id"].startswith("user_")
    assert re.fullmatch(r"jadevdb_[A-Za-z0-9._-]{43,}", key["api_key"]) and key["key_prefix"] == key["api_key"][:12]
    index = ok(server.call("POST", database + "/indexes", {"type": "FLAT"}), 201)
    found = ok(server.call("POST", database + "/search", {"queryVector": [1, 0]}))
    alert = ok(server.call("POST", "/v1/alerts", {"type": "info", "message": "m"}), 201)
    event = ok(server.call("GET", "/v1/security/audit-log?limit=1"))["events"][0]
    prefixes = (("idx_", index["indexId"]), ("q_", found["queryId"]), ("alert_", alert["id"]), ("evt_", event["id"]))
    assert all(text.startswith(prefix) for prefix, text in prefixes)
    assert database.startswith("/v1/databases/db_")


# Errors


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_has_a_status_a_sentence_and_no_loose_digits_where_a_retry_helps(code: ErrorCode) -> None:
    """Old clients take 404 anywhere in the text of an error for a reason not to try again."""
    answer = error_response(JadeError(code, "File 404 of 500 in db_401 failed.", details={"file": "/data/db_403"}))
    body = json.loads(answer.body)
    status = status_of(code)
    assert answer.status == body["status"] == status
    assert body["error"] == (
        "PASSWORD_CHANGE_REQUIRED" if code is ErrorCode.PASSWORD_CHANGE_REQUIRED else NAMES[status]
    )
    assert isinstance(body["message"], str) and isinstance(body["details"], dict) and body["code"] == code
    assert body["retryable"] is (status in (429, 503))
    headers = dict(answer.headers)
    if status in (429, 503):
        assert 1 <= body["retry_after"] <= 300 and headers["retry-after"] == str(body["retry_after"])
    if status == 429 or status >= 500:
        assert not re.search(r"\d", body["message"] + json.dumps(body["details"]))
        assert not {"400", "401", "403", "404", "409", "422"} & set(re.findall(r"\d+", answer.body.decode()))
    if status == 404:
        assert "not found" in body["message"].lower()
    if status == 401:
        assert "unauthorized" in body["message"].lower() and "www-authenticate" in headers


def test_a_defect_shows_nothing_of_itself() -> None:
    try:
        raise RuntimeError("secret 4711")
    except RuntimeError:
        body = internal_error("r").body
    assert b"4711" not in body and json.loads(body)["error"] == "INTERNAL_ERROR"


REFUSED: list[tuple[str, str, Any, dict[str, str], int, str]] = [
    ("POST", "/v1/databases", b"{", {}, 400, "INVALID_ARGUMENT"),
    ("GET", "/status", None, {"Authorization": "Bearer wrong"}, 401, "UNAUTHORIZED"),
    ("GET", "/v1/users/nobody", None, {}, 404, "NOT_FOUND"),
    ("GET", "/v1/nothing", None, {}, 404, "NOT_FOUND"),
    ("PATCH", "/v1/databases", {}, {}, 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/v1/databases", b"x=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("POST", "/v1/databases", b"\0", {"Content-Type": "application/octet-stream"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("DELETE", "/v1/cluster/nodes/local", None, {}, 409, "CONFLICT"),
]  # fmt: skip


@pytest.mark.parametrize("method, path, body, headers, status, name", REFUSED)
def test_refusals_over_the_wire(
    server: ServerProcess, method: str, path: str, body: Any, headers: dict[str, str], status: int, name: str
) -> None:
    got, text, sent = raw(server, method, path, body, **headers)
    told = json.loads(text)
    assert (got, told["status"], told["error"], told["retryable"]) == (status, status, name, False)
    assert sent["X-Request-Id"] and sent["X-Request-Id"].encode() not in text and b'": ' not in text
    assert (sent["Allow"] == "GET, POST") if status == 405 else sent["Allow"] is None


def test_too_many_wrong_passwords_are_told_to_wait(guarded: ServerProcess) -> None:
    for _ in range(12):
        status, text, headers = raw(guarded, "POST", "/v1/auth/login", {"username": "guess", "password": "wrong"})
        if status == 429:
            break
        assert status == 401
    told = json.loads(text)
    assert (status, told["error"], told["retryable"]) == (429, "RATE_LIMITED", True)
    assert headers["Retry-After"] == str(told["retry_after"]) and not re.search(r"\d", told["message"])


# Names and spellings

SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/search", {"queryVector": [1, 0], "topK": 1}, {"query_vector": [1, 0], "top_k": 1}),
    ("/search", {"queryVector": [1, 0], "includeMetadata": False}, {"queryVector": [1, 0], "include_metadata": False}),
    ("/search", {"queryVector": [1, 0], "includeValues": True}, {"queryVector": [1, 0], "includeVectorData": True}),
    ("/search", {"queryVector": [1, 0], "filters": {"n": 1}}, {"queryVector": [1, 0], "metadataFilter": {"n": 1}}),
    ("/search", {"queryVector": [1, 0], "topK": 1, "threshold": 0.5}, {"queryVector": [1, 0], "topK": "1", "threshold": "0.5"}),
    ("/search", {"queryVector": [1, 0], "topK": 10}, {"queryVector": [1, 0], "topK": "1e1"}),
    ("/search", {"queryVector": [1, 0], "topK": 10}, {"queryVector": [1, 0], "topK": " 10.0 "}),
    ("/search", {"queryVector": [1, 0]}, {"queryVector": [1, 0], "topK": None, "threshold": None, "filters": None}),
    ("/search/hybrid", {"queryVector": [1, 0], "fusionMethod": "linear"}, {"queryVector": [1, 0], "fusion_method": "linear"}),
    ("/vectors/batch-get", {"ids": ["a"]}, {"vectorIds": ["a"]}),
    ("/vectors/batch-get", {"ids": ["a"]}, {"vector_ids": ["a"]}),
    ("/vectors/batch-get", {"ids": ["7"]}, {"ids": [7]}),
]  # fmt: skip


def without_moment(answer: Any) -> Any:
    return {name: value for name, value in answer.items() if name not in ("queryId", "queryTimeMs")}


@pytest.mark.parametrize("path, one, other", SPELLINGS)
def test_spellings_mean_the_same(
    server: ServerProcess, database: str, path: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    rows = [{"id": "a", "values": [1, 0], "metadata": {"n": 1}}, {"id": 7, "values": [1, 1], "metadata": {"n": 2}}]
    ok(server.call("POST", database + "/vectors/batch", {"vectors": rows}), 201)
    first, second = (without_moment(ok(server.call("POST", database + path, body))) for body in (one, other))
    assert first == second and (first.get("results") or first["vectors"])


@pytest.mark.parametrize("body", [
    {"queryVector": [1, 0], "topK": 1, "top_k": 2}, {"queryVector": [1, 0], "filters": {"a": 1}, "metadataFilter": {"a": 2}},
])  # fmt: skip
def test_spellings_that_disagree_are_refused(server: ServerProcess, database: str, body: dict[str, Any]) -> None:
    assert server.call("POST", database + "/search", body)[0] == 400
    both = {"vectors": [{"id": "a", "vectorId": "b", "values": [1, 0]}]}
    assert server.call("POST", database + "/vectors/batch", both)[0] == 400


def test_unknown_fields_are_named_and_do_no_harm(server: ServerProcess, database: str) -> None:
    body = {"id": "a", "values": [1, 0], "colour": "red", "meta-data": {}}
    status, _, headers = raw(server, "POST", database + "/vectors", body)
    assert (status, headers["X-Ignored-Fields"]) == (201, "colour,meta-data")
    rows = {"vectors": [{"id": "a", "values": [1, 0], "colour": "red"}] * 1, "fast": True}
    assert raw(server, "POST", database + "/vectors/batch", rows)[2]["X-Ignored-Fields"] == "fast,vectors[].colour"
    refused = {"queryVector": [1, 0], "filters": {"n": {"$near": 1}}}
    assert server.call("POST", database + "/search", refused)[0] == 400


def test_parameters_in_either_spelling_and_times_in_either_form(server: ServerProcess, database: str) -> None:
    ok(server.call("POST", database + "/search", {"queryVector": [1, 0]}))
    queries = database + "/analytics/queries?"
    for window in (
        "start_time=1577836800000&end_time=4102444800000", "startTime=2020-01-01T00:00:00Z&endTime=2100-01-01",
        "start_time=2020-01-01T00:00:00%2B00:00&end_time=2100-01-01T00:00:00", "start_time=2020-01-01T00:00:00+00:00",
    ):  # fmt: skip
        assert ok(server.call("GET", queries + window))["total_count"] == 1
    assert ok(server.call("GET", queries + "start_time=2020-01-01&end_time=2020-01-02"))["total_count"] == 0
    for wrong in ("start_time=yesterday", "endTime=2020-13-01", "start_time=2&end_time=1"):
        assert server.call("GET", queries + wrong)[0] == 400


def test_times_are_iso_in_resources_and_milliseconds_in_analytics(server: ServerProcess, database: str) -> None:
    shown = ok(server.call("GET", database))
    assert ISO.fullmatch(shown["created_at"]) and shown["createdAt"] == shown["created_at"]
    assert ISO.fullmatch(ok(server.call("GET", "/status"))["timestamp"])
    assert ISO.fullmatch(ok(server.call("GET", "/v1/security/audit-log?limit=1"))["events"][0]["timestamp"])
    ok(server.call("POST", database + "/search", {"queryVector": [1, 0]}))
    assert isinstance(ok(server.call("GET", database + "/analytics/queries"))["queries"][0]["timestamp"], int)


def test_a_database_is_found_by_its_id_or_by_a_name_that_is_its_alone(server: ServerProcess) -> None:
    make = {"name": "by name", "vectorDimension": 2}
    one = ok(server.call("POST", "/v1/databases", make), 201)["databaseId"]
    assert ok(server.call("GET", "/v1/databases/by%20name"))["id"] == one
    two = ok(server.call("POST", "/v1/databases", make), 201)["databaseId"]
    assert server.call("GET", "/v1/databases/by%20name")[0] == 404
    ok(server.call("PUT", f"/v1/databases/{two}", {"name": one}))
    assert ok(server.call("GET", f"/v1/databases/{one}"))["id"] == one, "the id wins over a name"


def test_vector_ids(server: ServerProcess, database: str) -> None:
    for given, stored, path in (
        (12, "12", "12"), ("a+b@c.d:e", "a+b@c.d:e", "a+b@c.d:e"), ("ü/ 1", "ü/ 1", "%C3%BC%2F%201"), ("x" * 512, "x" * 512, "x" * 512),
    ):  # fmt: skip
        made = ok(server.call("POST", database + "/vectors", {"id": given, "values": [1, 0]}), 201)
        assert made["id"] == made["vectorId"] == stored
        assert ok(server.call("GET", f"{database}/vectors/{path}"))["id"] == stored
    generated = ok(server.call("POST", database + "/vectors", {"values": [1, 0], "metadata": None}), 201)["id"]
    assert ok(server.call("GET", f"{database}/vectors/{generated}"))["metadata"] == {}
    for wrong in ("x" * 513, "a\n", 1.5, True, ["a"]):
        assert server.call("POST", database + "/vectors", {"id": wrong, "values": [1, 0]})[0] == 400
    assert server.call("POST", database + "/vectors/batch-get", {"ids": [None]})[0] == 400


def test_values_come_back_in_their_shortest_form(server: ServerProcess, database: str) -> None:
    ok(server.call("POST", database + "/vectors", {"id": "v", "values": [0.1, 16777217]}), 201)
    assert b'"values":[0.1,16777216.0]' in raw(server, "GET", database + "/vectors/v")[1]


@pytest.mark.parametrize("values", [[1], [1, 2, 3], [1, True], [1, "2"], [1, None], "x", None, [1, 1e39], {"0": 1}])
def test_values_that_are_no_vector_are_refused(server: ServerProcess, database: str, values: Any) -> None:
    status, told = server.call("POST", database + "/vectors", {"id": "v", "values": values})
    assert status == 400 and told["message"]
    if isinstance(values, list) and len(values) != 2:
        assert told["details"] == {"expected": 2, "actual": len(values)} and "2" in told["message"]
    assert server.call("GET", database + "/vectors/v")[0] == 404


# Paths

PREFIXES = [
    ("/health", "/api/health /v1/health /api/v1/health /health/ /v1/v1/health"),
    ("/status", "/api/status /v1/status"),
    ("/health/db", "/api/health/db /v1/health/db"),
    ("/v1/databases", "/api/databases /api/v1/databases /v1/v1/databases /api/v1/v1/databases /v1/databases/"),
    ("/v1/metrics/performance", "/api/metrics/performance /v1/performance/metrics /api/performance/metrics"),
    ("/v1/cluster/nodes", "/api/v1/cluster/nodes /api/cluster/nodes"),
    ("/v1/users", "/api/v1/users /api/users"),
]


@pytest.mark.parametrize("path, others", PREFIXES)
def test_every_prefix_seen_in_the_wild(server: ServerProcess, path: str, others: str) -> None:
    expected = ok(server.call("GET", path))
    for other in others.split():
        status, answer = server.call("GET", other)
        assert status == 200 and answer.keys() == expected.keys(), other


def test_a_bad_credential_is_refused_everywhere_but_at_health(server: ServerProcess) -> None:
    """Open mode included, and calls that need none."""
    for path, status in (
        ("/health", 200),
        ("/health/db", 401),
        ("/status", 401),
        ("/metrics", 401),
        ("/v1/databases", 401),
    ):
        assert raw(server, "GET", path, Authorization="Bearer jadevdb_wrong")[0] == status
        assert raw(server, "GET", path, **{"X-API-Key": "jadevdb_wrong"})[0] == status
    login = {"username": "a", "password": "b"}
    assert raw(server, "POST", "/v1/auth/login", login, Authorization="bearer wrong")[0] == 401
    key = ok(server.call("POST", "/v1/api-keys", {"user_id": new_user(server, "schemes")}), 201)["api_key"]
    basic = base64.b64encode(f"schemes:{key}".encode()).decode()
    for value in (f"Bearer {key}", f"apikey {key}", f"ApiKey {key}", f"BASIC {basic}"):
        assert raw(server, "GET", "/v1/auth/me", Authorization=value)[0] == 200, value
    assert raw(server, "GET", "/v1/auth/me", **{"X-API-Key": key})[0] == 200
    assert raw(server, "GET", "/v1/auth/me", **{"X-API-Key": key, "Authorization": "Bearer wrong"})[0] == 401
