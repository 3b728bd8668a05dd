"""Programs written for this API long ago work unchanged: the fifteen examples, the command line tools, the web forms."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving

pytest.importorskip("requests", reason="the Python library's HTTP client is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'embeddings' is not installed")
from tests.fifteen_examples import EXAMPLES, Run, sign_in
from tests.known_clients import (
    ClusterTool,
    CutOff,
    PythonClient,
    PythonError,
    is_missing,
    run_javascript_tool,
    run_shell_tool,
    write_netrc,
)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("clients") / "open") as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}
    with serving(tmp_path_factory.mktemp("clients") / "required", auth="required", env=environment) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: ServerProcess) -> tuple[str, str]:
    """(API key, user id) of an admin."""
    told = {"username": "admin", "password": ADMIN_PASSWORD}
    token = server.call("POST", "/v1/auth/login", told)[1]["token"]
    status, made = server.call("POST", "/v1/api-keys", {"description": "examples"}, token=token)
    assert status == 201
    return made["api_key"], made["user_id"]


def run_examples(url: str, key: str, user_id: str, *, is_admin: bool, after_crash: bool = False) -> None:
    client = PythonClient(url, key)
    run = Run(client, user_id, is_admin=is_admin, after_crash=after_crash)
    run.all()
    client.close()
    assert len(run.done) == 15


# The fifteen examples and their runner


def test_the_examples_succeed_in_open_mode(open_server: ServerProcess) -> None:
    token, user_id = sign_in(open_server)
    run_examples(open_server.url, token, user_id, is_admin=True)


def test_the_examples_of_a_registered_account_twice_in_a_row(server: ServerProcess) -> None:
    for _ in range(2):
        token, user_id = sign_in(server)
        run_examples(server.url, token, user_id, is_admin=False)


def test_the_examples_of_an_admin_after_runs_that_were_killed(server: ServerProcess, admin: tuple[str, str]) -> None:
    key, user_id = admin
    session = server.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD})[1]["token"]
    # One leaves a database and its vectors behind, the other a user
    for done, method, path in ((2, "DELETE", "/vectors/product-004"), (8, "GET", "/v1/users")):
        client = PythonClient(server.url, key)
        client.killed_before = (method, path)
        half = Run(client, user_id, is_admin=True, after_crash=True)
        with pytest.raises(CutOff):
            half.all()
        client.close()
        assert half.done == [example.__name__ for example in EXAMPLES[:done]]
    assert server.call("GET", "/v1/users/example_user", token=key)[0] == 200
    run_examples(server.url, key, user_id, is_admin=True, after_crash=True)
    assert server.call("POST", "/v1/auth/logout", token=session)[0] == 200


# Command line tools


@pytest.mark.skipif(is_missing("bash", "curl", "grep", "cut"), reason="needs bash and curl")
def test_scripts_cut_answers_out_of_compact_json(server: ServerProcess) -> None:
    body = {"username": "shell", "password": ADMIN_PASSWORD}
    made = server.call("POST", "/v1/auth/register", body)[1]
    user_id, count, code, events, state, key = run_shell_tool(server.url, "shell", ADMIN_PASSWORD)
    assert (user_id, count, code, events, state) == (made["user_id"], "1", "401", "2", "healthy")
    assert key.startswith("jadevdb_") and server.call("GET", "/status", token=key)[0] == 200


@pytest.mark.skipif(is_missing("node"), reason="needs node")
def test_the_javascript_tool_knows_users_by_address(server: ServerProcess, admin: tuple[str, str]) -> None:
    for _ in range(2):
        told = run_javascript_tool(server.url, admin[0])
        assert told == {
            "health": "healthy", "temporary": "string", "roles": ["developer"], "inactive": "inactive",
            "listed": ["js@example.org"], "gone": None, "vector": {"price": 79.99, "ok": True, "none": None}, "none": None,
            "results": ["a@b.c+d"], "refusal": "queryVector has 1 values, the database has dimension 2.",
        }  # fmt: skip


@pytest.mark.parametrize("secret", ["password", "API key"])
def test_credentials_from_netrc(
    server: ServerProcess, admin: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """The HTTP library adds them where a tool sends none, and puts them in place of a Bearer header."""
    netrc = write_netrc(tmp_path, "admin", ADMIN_PASSWORD if secret == "password" else admin[0])
    monkeypatch.setenv("NETRC", str(netrc))
    client = PythonClient(server.url, "jadevdb_" + "x" * 43, trust_netrc=True)
    assert client.call("GET", "/v1/auth/me")["username"] == "admin"
    database = client.create_database("by_netrc", 2)
    client.delete_database(database)
    client.close()
    use_cluster_tool(server)
    monkeypatch.setenv("NETRC", str(write_netrc(tmp_path, "admin", "wrong password")))
    with pytest.raises(PythonError, match="401"):
        ClusterTool(server.url).run("GET", "status")


def test_the_cluster_tool_sends_nothing_in_open_mode(
    open_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", "/dev/null")
    use_cluster_tool(open_server)


def use_cluster_tool(server: ServerProcess) -> None:
    tool = ClusterTool(server.url)
    assert tool.run("GET", "status")["status"] == "HEALTHY"
    for listing, names in (("nodes", ["node_id", "role", "address", "status", "health"]), ("shards", ["shard_id"])):
        listed = tool.run("GET", listing)[listing]
        assert len({tuple(item) for item in listed}) <= 1, "every item has the same keys in the same order"
        for item in listed:
            assert list(item)[: len(names)] == names
            assert not any(isinstance(value, dict | list) for value in item.values())
    node = tool.run("GET", "nodes")["nodes"][0]["node_id"]
    assert tool.run("GET", f"nodes/{node}/health")["status"] == "HEALTHY"
    assert tool.run("GET", "diagnostics")["errors"] == []
    assert isinstance(tool.run("GET", "metrics")["cpu_usage"], float)
    for method, path, body in (
        ("POST", "nodes", {"node_id": "b", "address": "127.0.0.1:9"}),
        ("DELETE", f"nodes/{node}", None),
    ):
        with pytest.raises(PythonError, match="409"):
            tool.run(method, path, body)


# The web frontend


class WebForms:
    """What the frontend sends: base `/api`, the version now and then repeated, numbers as text, null for what was left empty."""

    def __init__(self, server: ServerProcess, token: str = "") -> None:
        self.server = server
        self.token = token

    def send(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        got, answer = self.server.call(method, "/api" + path, body, token=self.token)
        assert got == status, (method, path, answer)
        assert isinstance(answer, dict) and "error" not in answer
        return answer


def test_the_web_frontend(server: ServerProcess) -> None:
    web = WebForms(server)
    signed_up = web.send("POST", "/auth/register", {"username": "web", "password": ADMIN_PASSWORD, "email": ""}, 201)
    signed_in = web.send("POST", "/auth/login", {"username": "web", "password": ADMIN_PASSWORD})
    assert signed_in["user_id"] == signed_up["user_id"] and signed_in["must_change_password"] is False
    web.token = signed_in["token"]
    assert "admin" not in web.send("GET", "/auth/me")["roles"]
    form: dict[str, Any] = {
        "name": "web_db",
        "description": None,
        "vectorDimension": "3",
        "indexType": "HNSW",
        "metric": None,
    }
    made = web.send("POST", "/databases", form, 201)
    base = f"/databases/{made['databaseId']}"
    shown = web.send("GET", base)
    assert shown["status"] == "active" and shown["created_at"] and shown["stats"]["storageSize"].split()[1]
    for i, price in enumerate(("5", "15", "25")):
        vector = {"id": f"w{i}", "values": [1, i / 2, 0.25], "metadata": {"price": price, "tags": ["a", f"t{i}"]}}
        web.send("POST", f"{base}/vectors", vector, 201)
    assert web.send("GET", f"{base}/vectors?limit=2&offset=1")["total"] == 3
    form = {"queryVector": [1, 0.5, 0.25], "topK": None, "threshold": None, "filters": {"price[$gt]": "10"}}
    found = web.send("POST", f"{base}/search", {**form, "includeVectorData": True, "includeValues": False})["results"]
    assert [item["vector"]["id"] for item in found] == ["w1", "w2"]
    assert found[0]["vector"]["values"] == [1, 0.5, 0.25] and found[0]["vector"]["metadata"]["price"] == "15"
    for operator, value, ids in (("$contains", "t2", ["w2"]), ("$in", "t0, t1", ["w0", "w1"])):
        hits = web.send("POST", f"{base}/search", {**form, "filters": {f"tags[{operator}]": value}})["results"]
        assert sorted(hit["vectorId"] for hit in hits) == ids
    form = {"maxAgeDays": "30", "archiveOnExpire": True, "deleteOnExpire": False, "autoScale": False}
    assert web.send("PUT", f"{base}/lifecycle", form)["retentionPolicy"]["maxAgeDays"] == 30
    assert web.send("GET", f"{base}/lifecycle/status")["archivedCount"] == 0
    index = web.send("POST", f"{base}/indexes", {"type": "HNSW", "parameters": {"M": "16"}}, 201)
    assert web.send("GET", f"{base}/indexes")["indexes"][0]["status"] == "ready"
    web.send("DELETE", f"{base}/indexes/{index['indexId']}", b"")
    key = web.send("POST", "/apikeys", {"description": "form", "permissions": ["read"], "validity_days": None}, 201)
    assert web.send("GET", "/apikeys")["apiKeys"][0]["key_id"] == key["key_id"] and key["apiKey"] == key["api_key"]
    web.send("DELETE", f"/apikeys/{key['key_id']}")
    for path in ("stats?granularity=hourly", "queries?limit=10", "patterns?min_count=1", "insights", "trending"):
        web.send("GET", f"/v1/v1{base}/analytics/{path}")
    assert web.send("GET", f"/v1{base}/analytics/stats?start_time=1&end_time=9999999999999")["statistics"]
    assert web.send("GET", "/metrics/performance")["metrics"] and "alerts" in web.send("GET", "/alerts")
    assert web.send("GET", "/cluster/nodes")["nodes"][0]["status"] == "active"
    told = web.send("POST", "/auth/forgot-password", {"username": "", "email": "web@example.org"})
    assert "reset_token" not in told
    change = {"old_password": ADMIN_PASSWORD, "new_password": "An0ther password"}
    web.send("PUT", f"/v1/users/{signed_in['user_id']}/password", change)
    web.send("DELETE", base)  # the session that changed the password goes on
    assert web.send("POST", "/auth/logout", b"")["user_id"] == signed_in["user_id"]
    assert server.call("GET", "/api/auth/me", token=web.token)[0] == 401


# Applications and scripts


def test_the_document_application(server: ServerProcess, admin: tuple[str, str]) -> None:
    """It looks for its database by name in the whole list, stores metadata as it is, filters by a list of conditions."""
    client = PythonClient(server.url, admin[0])
    for _ in range(2):
        found = [one["databaseId"] for one in client.list_databases() if one["name"] == "documents"]
        database = found[0] if found else client.create_database("documents", 3)
        base = f"/v1/databases/{database}"
        for page in range(4):
            metadata = {"source": f"file{page % 2}.pdf", "page": page, "tags": ["manual"], "reviewed": page > 1}
            body = {"id": f"chunk-{page}", "values": [1.0, page / 4, 0.5], "metadata": metadata}
            client.call("POST", f"{base}/vectors", body, ok=(201,))
        conditions = [
            {"field": "source", "op": "EQUALS", "value": "file1.pdf"},
            {"field": "page", "op": "gte", "value": 2},
        ]
        asked = {"queryVector": [1, 0, 0.5], "topK": 5, "filters": {"combination": "AND", "conditions": conditions}}
        hit = client.call("POST", f"{base}/search", asked)["results"][0]
        assert (hit["vectorId"], hit["metadata"]["page"], hit["metadata"]["reviewed"]) == ("chunk-3", 3, True)
        asked["filters"] = {"combination": "OR", "conditions": conditions}
        assert client.call("POST", f"{base}/search", asked)["count"] == 3
        assert client.call("GET", f"{base}/stats")["total_vectors"] >= 4
        assert client.call("POST", f"{base}/compact")["status"] in ("success", "running")
    assert len([one for one in client.list_databases() if one["name"] == "documents"]) == 1
    # The tutorials name the database by its name and write conditions as objects
    told = {"filters": {"$and": [{"page": {"$gte": 1}}, {"$not": {"source": "file1.pdf"}}]}, "queryVector": [1, 0, 0.5]}
    assert client.call("POST", "/v1/databases/documents/search", told)["results"][0]["id"] == "chunk-2"
    client.delete_database(database)
    client.close()


def test_a_body_without_a_media_type_is_json(open_server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(open_server.url.removeprefix("http://"), timeout=60)
    for headers in ({}, {"Content-Type": "application/json; charset=utf-8"}):
        connection.request("POST", "/v1/databases", b'{"name":"typeless","dimension":2}', headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    connection.close()


def test_the_frontend_stops_the_server(tmp_path: Path) -> None:
    environment = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}
    with serving(tmp_path / "data", auth="required", env=environment) as running:
        token, _ = sign_in(running)
        assert running.call("POST", "/api/admin/shutdown", b"", token=token)[0] == 403
        told = {"username": "admin", "password": ADMIN_PASSWORD}
        admin_token = running.call("POST", "/v1/auth/login", told)[1]["token"]
        status, answer = running.call("POST", "/api/admin/shutdown", b"", token=admin_token)
        assert (status, answer["status"]) == (200, "shutting_down") and answer["message"]
        running.process.wait(60)
        assert running.stop() == 0
