"""The fifteen runnable examples and their runner, step by step, every step asserted.

The originals print a line for a refused step inside a `try` and go on, so that their exit code proves little. Here a step
succeeds, or is refused with the status that is expected of it: `Run.admin` marks the steps that only an admin may do.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.known_clients import PythonClient, PythonError, texts_of
from tests.serving import ServerProcess

PASSWORD = "Runner!Pass-14"
assert len(PASSWORD) == 14


class Run:
    """One pass over the examples. user_id: whose key the client has. is_admin: whether its account may administer users.

    after_crash: an earlier run was killed; what it left behind may stand in the way of fixed user names.
    """

    def __init__(self, client: PythonClient, user_id: str, *, is_admin: bool, after_crash: bool = False) -> None:
        self.client = client
        self.user_id = user_id
        self.is_admin = is_admin
        self.after_crash = after_crash
        self.done: list[str] = []

    def admin(self, step: Callable[[], Any]) -> Any:
        """A step of an admin: others must be told 403, in words. None then."""
        if self.is_admin:
            return step()
        assert "forbidden" in refused(step, 403).lower()
        return None

    def all(self) -> None:
        for example in EXAMPLES:
            example(self)
            self.done.append(example.__name__)


def refused(step: Callable[[], Any], status: int) -> str:
    """The text of the exception with which a step fails; it must be for this status."""
    try:
        step()
    except PythonError as error:
        assert f'"status":{status}' in str(error), error
        return str(error)
    raise AssertionError(f"nothing refused it; {status} was expected")


def sign_in(server: ServerProcess) -> tuple[str, str]:
    """What the runner does without a key: (session token, user id) of an account it registers for itself."""
    assert server.call("GET", "/health")[0] == 200
    name = f"runner_{secrets.token_hex(4)}"
    body = {"username": name, "password": PASSWORD, "email": f"{name}@example.org"}
    assert server.call("POST", "/v1/auth/register", body)[0] == 201
    status, answer = server.call("POST", "/v1/auth/login", {"username": name, "password": PASSWORD})
    assert status == 200 and answer["must_change_password"] is False
    return answer["token"], answer["user_id"]


def texts(items: list[dict[str, Any]], *names: str) -> None:
    """Fields that the originals format with a width, which fails on null."""
    assert items
    for item in items:
        for name in names:
            assert isinstance(item[name], str) and item[name], (name, item)


def example_01_health(run: Run) -> None:
    assert run.client.health()["status"] == "healthy"
    status = run.client.status()
    assert status["status"] == "operational" and status["uptime"] and "system" in status and "performance" in status


def example_02_databases(run: Run) -> None:
    c = run.client
    database = c.create_database("example_db", 128, description="first")
    assert database in [one["databaseId"] for one in c.list_databases()]
    one = c.call("GET", f"/v1/databases/{database}")
    assert (one["name"], one["vectorDimension"], one["indexType"]) == ("example_db", 128, "HNSW")
    changed = c.call("PUT", f"/v1/databases/{database}", {"description": "second"})
    assert changed["description"] == "second"
    c.delete_database(database)
    assert "not found" in refused(lambda: c.call("GET", f"/v1/databases/{database}"), 404).lower()


def example_03_vectors(run: Run) -> None:
    c = run.client
    database = c.create_database("vectors_db", 8)
    base = f"/v1/databases/{database}/vectors"
    c.store(database, "product-001", [i / 8 for i in range(1, 9)], {"name": "Laptop", "price": 79.99, "in_stock": True})
    batch = [(f"product-{i:03}", [i / 10] * 8, {"name": f"n{i}"}) for i in range(2, 5)]
    assert c.store_batch(database, batch) == 3
    first = c.get(database, "product-001")
    assert first is not None and first["values"] == [i / 8 for i in range(1, 9)]
    assert first["metadata"] == {"name": "Laptop", "price": "79.99", "in_stock": "True"}
    listed = c.call("GET", base, limit=10, offset=0)
    assert [v["id"] for v in listed["vectors"]] == [f"product-{i:03}" for i in range(1, 5)] and listed["total"] == 4
    update = {"metadata": texts_of({"name": "Laptop Pro", "price": 129.0})}
    c.call("PUT", f"{base}/product-001", update)
    again = c.get(database, "product-001")
    assert again is not None and again["metadata"]["name"] == "Laptop Pro" and again["values"][0] == first["values"][0]
    many = c.call("POST", f"{base}/batch-get", {"ids": ["product-003", "product-002"]})["vectors"]
    assert [v["id"] for v in many] == ["product-003", "product-002"] and many[0]["metadata"].get("name") == "n3"
    c.call("DELETE", f"{base}/product-004")
    assert c.get(database, "product-004") is None
    c.delete_database(database)


PRODUCTS = [
    ("p1", "Laptop", "electronics", 999.99), ("p2", "Phone", "electronics", 599.0), ("p3", "Novel", "books", 12.5),
    ("p4", "Atlas", "books", 40.0), ("p5", "Shirt", "clothing", 25.0), ("p6", "Boots", "clothing", 89.9),
    ("p7", "Lamp", "home", 35.0), ("p8", "Chair", "home", 120.0),
]  # fmt: skip


def fill(c: PythonClient, database: str, count: int, dimension: int = 4) -> None:
    for i, (vector_id, name, category, price) in enumerate(PRODUCTS[:count]):
        values = [1.0, i / 8, 0.5, 1 - i / 8][:dimension]
        text = f"{name} in {category}, machine learning number {i}"
        c.store(database, vector_id, values, {"name": name, "category": category, "price": price, "text": text})


def example_04_search(run: Run) -> None:
    c = run.client
    database = c.create_database("search_db", 4)
    fill(c, database, 8)
    query = [1.0, 0.25, 0.5, 0.75]
    found = c.search(database, query, 3)
    assert found[0]["id"] == "p3" and len(found) == 3
    texts([hit["metadata"] for hit in found], "name")
    for hit in found:
        assert float(f"{hit.get('score', hit.get('similarity')):.4f}") <= 1
    near = c.search(database, query, 8, threshold=0.97)
    assert 0 < len(near) < 8 and all(hit["score"] >= 0.97 for hit in near)
    body = {"queryVector": query, "topK": 5, "filters": {"category": "books"}, "includeValues": True}
    advanced = c.call("POST", f"/v1/databases/{database}/search/advanced", {**body, "includeMetadata": True})
    assert (
        sorted(hit["id"] for hit in advanced["results"]) == ["p3", "p4"] and len(advanced["results"][0]["values"]) == 4
    )
    priced = c.search(database, query, 5, filters={"price": 129, "category": "home"})
    assert priced == [] and [h["id"] for h in c.search(database, query, 5, filters={"price": 120})] == ["p8"]
    c.delete_database(database)


def example_05_hybrid(run: Run) -> None:
    c = run.client
    database = c.create_database("hybrid_db", 4)
    base = f"/v1/databases/{database}"
    fill(c, database, 5)
    assert c.call("POST", f"{base}/bm25-index/build", {"textField": "text", "incremental": False})["documentCount"] == 5
    assert c.call("GET", f"{base}/bm25-index/status")["status"] == "completed"
    documents = [{"doc_id": "extra-1", "text": "machine tools"}, {"doc_id": "extra-2", "text": "deep learning"}]
    assert c.call("POST", f"{base}/bm25-index/documents", {"documents": documents})["addedCount"] == 2
    query = {"queryText": "machine learning", "queryVector": [1.0, 0.2, 0.5, 0.8], "topK": 3}
    for more in ({"fusionMethod": "rrf"}, {"fusionMethod": "linear", "alpha": 0.5}, {"filters": {"category": "books"}}):
        found = c.call("POST", f"{base}/search/hybrid", {**query, **more})["results"]
        assert found and all(f"{hit['score']:.4f}" and hit["id"] and hit["metadata"] is not None for hit in found)
    assert {hit["metadata"]["category"] for hit in found} == {"books"}
    assert c.call("POST", f"{base}/bm25-index/rebuild", {"textField": "text"})["documentCount"] == 7
    c.delete_database(database)


def example_06_rerank(run: Run) -> None:
    c = run.client
    database = c.create_database("rerank_db", 4)
    base = f"/v1/databases/{database}"
    fill(c, database, 5)
    body = {"queryText": "novel in books", "queryVector": [1.0, 0.2, 0.5, 0.8], "topK": 3, "enableReranking": True}
    found = c.call("POST", f"{base}/search/rerank", {**body, "rerankTopN": 100})["results"]
    assert found[0]["id"] == found[0]["docId"] == "p3"
    documents = [{"id": "d1", "text": "cooking pasta"}, {"id": "d2", "text": "machine learning"}]
    ranked = c.call("POST", "/v1/rerank", {"query": "machine learning", "documents": documents, "topK": 2})["results"]
    assert [one["id"] for one in ranked] == ["d2", "d1"] and 0 <= ranked[1]["score"] <= ranked[0]["score"] <= 1
    assert c.call("GET", f"{base}/reranking/config")["batchSize"] == 32
    changed = c.call("PUT", f"{base}/reranking/config", {"batchSize": 16, "rerankWeight": 0.5})
    assert changed["batchSize"] == c.call("GET", f"{base}/reranking/config")["batchSize"] == 16
    c.delete_database(database)


def example_07_indexes(run: Run) -> None:
    c = run.client
    database = c.create_database("index_db", 16, "FLAT")
    base = f"/v1/databases/{database}/indexes"
    body = {"type": "HNSW", "name": "main", "parameters": {"M": 16, "efConstruction": 200}}
    made = c.call("POST", base, body, ok=(200, 201))["indexId"]
    listed = c.call("GET", base)
    listed = listed if isinstance(listed, list) else listed["indexes"]
    texts(listed, "indexId", "type", "name", "status")
    changed = c.call("PUT", f"{base}/{made}", {"parameters": {"efSearch": 100}})
    assert changed["parameters"] == {"M": 16, "efConstruction": 200, "efSearch": 100}
    c.call("DELETE", f"{base}/{made}")
    assert c.call("GET", base)["indexes"] == []
    c.delete_database(database)


def example_08_embeddings(run: Run) -> None:
    c = run.client
    one = c.call("POST", "/v1/embeddings/generate", {"input": "machine learning", "input_type": "text"})
    assert one["model"] and len(one["embedding"]) == one["dimension"]
    many = c.call("POST", "/v1/embeddings/generate", {"input": ["a cat", "a kitten", "a lorry"], "provider": "default"})
    assert len(many.get("embedding") or many["embeddings"]) == 3
    assert c.call("POST", "/v1/embeddings/generate", {"input": "query", "input_type": "query"})["embedding"]


def new_user(run: Run, name: str) -> str:
    """Its id. A run that was killed may have left the account: then it is the one that is there."""
    c = run.client
    body = {"username": name, "password": PASSWORD, "roles": ["user"], "email": f"{name}@example.org"}
    try:
        made: str = c.call("POST", "/v1/users", body, ok=(201,), what="create user")["user_id"]
    except PythonError as error:
        if not run.after_crash or '"status":409' not in str(error):
            raise
        made = next(u["user_id"] for u in c.call("GET", "/v1/users")["users"] if u["username"] == name)
    return made


def example_09_users(run: Run) -> None:
    c = run.client
    user = run.admin(lambda: new_user(run, "example_user"))
    one = f"/v1/users/{user or 'user_none'}"
    listed = run.admin(lambda: c.call("GET", "/v1/users"))
    by_role = run.admin(lambda: c.call("GET", "/v1/users", role="user"))
    if run.is_admin:
        texts(listed["users"], "user_id", "username")
        assert all("user" in u["roles"] for u in by_role["users"]) and user in [u["user_id"] for u in by_role["users"]]
    for change, told in (({"roles": ["developer"]}, True), ({"is_active": False}, False), ({"is_active": True}, True)):
        changed = run.admin(partial(c.call, "PUT", one, change))
        assert changed is None or changed["is_active"] is told
    found = run.admin(lambda: c.call("GET", one))
    assert found is None or (found["roles"] == ["developer"] and found["is_active"])
    run.admin(lambda: c.call("DELETE", one))


def example_10_keys(run: Run) -> None:
    c = run.client
    body = {"user_id": run.user_id, "description": "example", "permissions": ["read"], "validity_days": 30}
    made = c.call("POST", "/v1/api-keys", body, ok=(200, 201), what="create API key")
    assert made["api_key"].startswith("jadevdb_") and made["key_id"]
    mine = c.call("GET", "/v1/api-keys", user_id=run.user_id)["api_keys"]
    texts(mine, "key_id", "status", "created_at")
    texts(c.call("GET", "/v1/api-keys")["api_keys"], "key_id", "status")
    limited = PythonClient(c.url, made["api_key"])
    assert limited.status()["status"] == "operational"
    c.call("DELETE", f"/v1/api-keys/{made['key_id']}")
    assert "unauthorized" in refused(limited.status, 401).lower()
    limited.close()
    refused(lambda: c.call("DELETE", f"/v1/users/{run.user_id}"), 409 if run.is_admin else 403)
    assert c.call("GET", "/v1/auth/me")["user_id"] == run.user_id, "the account the later examples use is still there"


def example_11_audit(run: Run) -> None:
    c = run.client
    texts(c.call("GET", "/v1/security/audit-log", limit=10)["events"], "event_type", "user_id", "timestamp")
    logins = c.call("GET", "/v1/security/audit-log", event_type="login", limit=5)["events"]
    assert all(event["event_type"] == "login" for event in logins)
    mine = c.call("GET", "/v1/security/audit-log", user_id=run.user_id)["events"]
    assert mine and {event["user_id"] for event in mine} == {run.user_id}
    sessions = c.call("GET", "/v1/security/sessions", user_id=run.user_id)["sessions"]
    texts(sessions, "session_id", "created_at")
    assert c.call("GET", "/v1/security/audit-stats")["total_events"] > 0


def example_12_analytics(run: Run) -> None:
    c = run.client
    database = c.create_database("analytics_db", 4)
    fill(c, database, 5)
    for k in range(1, 5):
        c.search(database, [1.0, k / 4, 0.5, 0.5], k)
    base = f"/v1/databases/{database}/analytics"
    assert sum(one["total_queries"] for one in c.call("GET", f"{base}/stats", granularity="hourly")["stats"]) == 4
    queries = c.call("GET", f"{base}/queries", limit=10)["queries"]
    texts(queries, "query_id")
    assert sorted(q["result_count"] for q in queries) == [1, 2, 3, 4] and all(q["latency_ms"] > 0 for q in queries)
    for path in ("patterns", "insights", "trending"):
        assert isinstance(c.call("GET", f"{base}/{path}"), dict)
    feedback = {
        "queryId": "query-001",
        "userId": "user-1",
        "rating": 5,
        "feedbackText": "good",
        "clickedResultId": "p1",
    }
    told = c.call("POST", f"{base}/feedback", feedback, ok=(200, 201))
    assert told["success"] is True
    assert c.call("GET", f"{base}/export", format="json")["data"]["summary"]["total_queries"] == 4
    c.delete_database(database)


def example_13_passwords(run: Run) -> None:
    c = run.client
    user = run.admin(lambda: new_user(run, "password_user")) or "user_none"
    change = {"old_password": PASSWORD, "new_password": "Changed!Pass-15"}
    told = run.admin(lambda: c.call("PUT", f"/v1/users/{user}/password", change))
    assert told is None or told["success"] is True
    reset = {"new_password": "Another!Pass-16"}
    told = run.admin(lambda: c.call("PUT", f"/v1/admin/users/{user}/reset-password", reset))
    assert told is None or told["must_change_password"] is True
    run.admin(lambda: c.call("DELETE", f"/v1/users/{user}"))


def example_14_import_export(run: Run) -> None:
    c = run.client
    source, copy, third = (c.create_database(f"transfer_{name}", 4) for name in ("source", "copy", "csv"))
    for i in range(20):
        c.store(source, f"v{i:02}", [i / 20, 0.1, 0.2, 1.0], {"n": i})
    exported = [c.get(source, f"v{i:02}") for i in range(3)]
    assert [v["metadata"] for v in exported if v] == [{"n": "0"}, {"n": "1"}, {"n": "2"}]
    for vector in json.loads(json.dumps(exported)):
        c.store(copy, vector["id"], vector["values"], vector["metadata"])
    assert c.get(copy, "v01") == {**(exported[1] or {}), "databaseId": copy, "version": 2}
    for database in (source, copy, third):
        c.delete_database(database)


def example_15_errors(run: Run) -> None:
    c = run.client
    missing = refused(lambda: c.call("GET", "/v1/databases/nonexistent_db"), 404).lower()
    assert "not found" in missing and "404" in missing and PythonError(missing).is_permanent
    refused(lambda: c.call("GET", "/v1/databases/nonexistent_db/vectors/v1"), 404)
    database = c.create_database("errors_db", 4)
    assert c.get(database, "nonexistent") is None
    bad = PythonClient(c.url, "invalid-token")
    assert bad.health()["status"] == "healthy"
    told = refused(bad.list_databases, 401).lower()
    assert "unauthorized" in told and PythonError(told).is_permanent
    bad.close()
    refused(lambda: c.search("nonexistent_db", [1.0, 2.0]), 404)
    for call in (lambda: c.store(database, "bad", [1.0, 2.0]), lambda: c.search(database, [1.0, 2.0])):
        told = refused(call, 400)
        assert "4" in told and "2" in told and "dimension" in told.lower()
    c.delete_database(database)


EXAMPLES: tuple[Callable[[Run], None], ...] = (
    example_01_health, example_02_databases, example_03_vectors, example_04_search, example_05_hybrid, example_06_rerank,
    example_07_indexes, example_08_embeddings, example_09_users, example_10_keys, example_11_audit, example_12_analytics,
    example_13_passwords, example_14_import_export, example_15_errors,
)  # fmt: skip
