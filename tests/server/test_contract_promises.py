"""What the server promises beyond the system its clients were written for: nothing lost, nothing invented, nothing given away."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.answers import new_database, new_user, ok, raw
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("promises") / "data") as running:
        yield running


@pytest.fixture()
def database(server: ServerProcess) -> str:
    return new_database(server)


def test_no_account_is_there_from_the_start(tmp_path: Path) -> None:
    with serving(tmp_path / "data", auth="required") as guarded:
        for name, password in (("admin", "admin"), ("admin", "admin123"), ("dev", "dev"), ("root", "")):
            assert guarded.call("POST", "/v1/auth/login", {"username": name, "password": password})[0] in (400, 401)
        body = {"username": "climber", "password": ADMIN_PASSWORD, "roles": ["admin", "developer"]}
        assert ok(guarded.call("POST", "/v1/auth/register", body), 201)["roles"] == ["developer"]


def test_a_forgotten_password_tells_nothing(server: ServerProcess) -> None:
    new_user(server, "forgetful")
    known, unknown = (
        raw(server, "POST", "/v1/auth/forgot-password", {"username": name, "email": ""})
        for name in ("forgetful", "nobody-at-all")
    )
    assert known[:2] == unknown[:2] and known[0] == 200 and b"reset_token" not in known[1]


FILTERED: list[tuple[str, dict[str, Any]]] = [
    ("/search", {}), ("/search/advanced", {}), ("/search/hybrid", {"queryText": "word"}), ("/search/rerank", {"queryText": "word"}),
]  # fmt: skip


@pytest.mark.parametrize("path, more", FILTERED)
def test_filters_restrict_before_the_best_are_taken(
    server: ServerProcess, database: str, path: str, more: dict[str, Any]
) -> None:
    rows = [
        {"id": f"v{i:02}", "values": [1, i], "metadata": {"text": "word", "tag": "x" if i >= 47 else "y"}}
        for i in range(50)
    ]
    ok(server.call("POST", database + "/vectors/batch", {"vectors": rows}), 201)
    ok(server.call("POST", database + "/bm25-index/build", {"textField": "text"}))
    body = {"queryVector": [1, 0], "topK": 3, "filters": {"metadata.tag": "x"}, **more}
    found = ok(server.call("POST", database + path, body))
    assert sorted(item["id"] for item in found["results"]) == ["v47", "v48", "v49"] and found["filtersApplied"] is True
    assert server.call("POST", database + path, {**body, "filters": {"tag": {"$unheard": 1}}})[0] == 400


def test_words_alone_find_documents_without_vectors(server: ServerProcess, database: str) -> None:
    assert server.call("POST", database + "/search", {"query": "machine", "topK": "5"})[0] == 400
    documents = [{"doc_id": "d1", "text": "machine learning machine"}, {"doc_id": "d2", "text": "machine and garden"}]
    ok(server.call("POST", database + "/bm25-index/documents", {"documents": documents}))
    found = ok(server.call("POST", database + "/search", {"query": "machine", "topK": "5", "queryVector": None}))
    assert [(item["id"], item["metadata"]) for item in found["results"]] == [("d1", {}), ("d2", {})]
    assert found["indexUsed"] == "BM25" and found["results"][0]["vector"] == {"id": "d1", "metadata": {}}
    floor = found["results"][0]["score"]
    assert ok(server.call("POST", database + "/search", {"query": "machine", "threshold": floor}))["count"] == 1


METADATA = {
    "text": "79.99", "number": 79.99, "whole": 129, "float": 129.0, "yes": True, "none": None, "tags": ["a", 1, None],
    "nested": {"a.b": {"c": []}}, "big": 123456789012345678901234567890, "ü😀": "\t\"", "": 0, "id": "mine", "score": -1,
}  # fmt: skip


def test_metadata_and_what_is_acknowledged_survive_a_kill(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as first:
        database = "/v1/databases/" + ok(first.call("POST", "/v1/databases", {"name": "d", "dimension": 2}), 201)["id"]
        ok(first.call("POST", database + "/vectors", {"id": "a", "values": [1, 0], "metadata": METADATA}), 201)
        everywhere(first, database)
        ok(first.call("PUT", database + "/lifecycle", {"maxAgeDays": 7, "archiveOnExpire": True}))
        ok(first.call("PUT", database + "/reranking/config", {"batchSize": 4}))
        first.kill()
    with serving(tmp_path / "data") as second:
        everywhere(second, database)
        assert ok(second.call("GET", database + "/lifecycle/status"))["retentionPolicy"]["maxAgeDays"] == 7
        assert ok(second.call("GET", database + "/reranking/config"))["batchSize"] == 4


def everywhere(server: ServerProcess, database: str) -> None:
    query = {"queryVector": [1, 0]}
    shown = [
        ok(server.call("GET", database + "/vectors/a")), ok(server.call("GET", database + "/vectors"))["vectors"][0],
        ok(server.call("POST", database + "/vectors/batch-get", {"ids": ["a"]}))["vectors"][0],
        *(ok(server.call("POST", database + path, query))["results"][0] for path in ("/search", "/search/advanced", "/search/hybrid")),
    ]  # fmt: skip
    for one in shown:
        assert one["metadata"] == METADATA and list(one["metadata"]) == list(METADATA)
        assert type(one["metadata"]["float"]) is float and type(one["metadata"]["whole"]) is int


def test_a_batch_is_stored_whole_or_not_at_all(server: ServerProcess, database: str) -> None:
    good = [{"id": f"v{i}", "values": [1, i]} for i in range(5)]
    for bad in (
        {"id": "x", "values": [1]},
        {"id": "v1", "values": [1, 1]},
        {"id": "y", "values": [1, 1], "metadata": 5},
    ):
        assert server.call("POST", database + "/vectors/batch", {"vectors": [*good, bad]})[0] == 400
        assert ok(server.call("GET", database + "/vectors"))["total"] == 0
    told = ok(server.call("POST", database + "/vectors/batch", {"vectors": good}), 201)
    assert (told["count"], told["inserted"], told["updated"], told["failed"], told["errors"]) == (5, 5, 0, 0, [])
    assert ok(server.call("GET", database + "/vectors"))["total"] == told["count"]
    more = {"vectors": [{"id": "v4", "values": [9, 9]}, {"id": "v9", "values": [9, 9]}], "upsert": False}
    status, refused = server.call("POST", database + "/vectors/batch", more)
    assert (status, refused["details"]) == (409, {"ids": ["v4"]})
    assert ok(server.call("GET", database + "/vectors"))["total"] == 5
    again = ok(server.call("POST", database + "/vectors/batch", {"vectors": good}), 201)
    assert (again["inserted"], again["updated"]) == (0, 5), "a retry after a lost answer changes nothing"
    assert ok(server.call("GET", database + "/vectors"))["total"] == 5


MISSING: list[tuple[str, str, Any]] = [
    ("PUT", "/vectors/none", {"values": [1, 0]}), ("DELETE", "/vectors/none", None), ("GET", "/indexes/none", None),
    ("PUT", "/indexes/none", {"parameters": {}}), ("DELETE", "/indexes/none", None), ("GET", "/lifecycle/status", None),
]  # fmt: skip


@pytest.mark.parametrize("method, path, body", MISSING)
def test_what_is_missing_is_not_found(
    server: ServerProcess, database: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    assert "not found" in ok(server.call(method, database + path, body), 404)["message"].lower()
    assert server.call(method, "/v1/databases/db_none" + path, body)[0] == 404
    assert server.call("DELETE", "/v1/databases/db_none")[0] == 404


def test_index_parameters_are_checked_kept_and_shown(server: ServerProcess) -> None:
    body = {"name": "tuned", "vectorDimension": 2, "indexType": "hnsw", "indexParameters": {"M": "16", "ef_search": 50}}
    made = ok(server.call("POST", "/v1/databases", body), 201)
    assert made["indexParameters"] == {"M": 16, "efSearch": 50} and made["indexType"] == "HNSW"
    assert server.call("POST", "/v1/databases", {**body, "indexParameters": {"nlist": 5}})[0] == 400
    base = f"/v1/databases/{made['databaseId']}"
    index = ok(server.call("POST", base + "/indexes", {"indexType": "IVF", "parameters": {"nlist": 8}}), 201)
    assert (index["status"], index["name"]) == ("ready", "ivf-1")
    told = ok(server.call("PUT", f"{base}/indexes/{index['indexId']}", {"parameters": {"nprobe": "2"}}))
    assert told["parameters"] == {"nlist": 8, "nprobe": 2}
    assert server.call("POST", base + "/indexes", {"type": "IVF", "parameters": {"M": 2}})[0] == 400
    assert server.call("PUT", base, {"metric": "dot"})[0] == 400


def test_numbers_are_those_that_happened(server: ServerProcess, database: str) -> None:
    rows = [{"id": f"v{i}", "values": [1, i]} for i in range(7)]
    ok(server.call("POST", database + "/vectors/batch", {"vectors": rows}), 201)
    ok(server.call("DELETE", database + "/vectors/v0"))
    for _ in range(3):
        found = ok(server.call("POST", database + "/search", {"queryVector": [1, 0], "topK": 2}))
    assert ok(server.call("GET", database + "/stats")) == {"total_vectors": 7, "deleted_vectors": 1, "live_vectors": 6}
    assert ok(server.call("GET", database + "/status"))["metrics"]["vector_count"] == 6
    listed = ok(server.call("GET", database + "/analytics/queries"))
    assert listed["total_count"] == 3 and listed["queries"][0]["query_id"] == found["queryId"]
    visible = ok(server.call("GET", "/v1/databases"))
    status = ok(server.call("GET", "/status"))["performance"]
    assert status["database_count"] == visible["total"] == len(visible["databases"])
    assert status["total_vectors"] == sum(one["stats"]["vectorCount"] for one in visible["databases"])
    cluster = ok(server.call("GET", "/v1/cluster/metrics"))
    assert cluster["total_vectors"] == status["total_vectors"] and cluster["writes_per_second"] is None


def test_models_are_named_and_never_replaced(server: ServerProcess) -> None:
    ask = {"query": "x", "documents": [{"id": "1", "text": "x"}]}
    assert ok(server.call("POST", "/v1/rerank", ask))["model"]
    assert server.call("POST", "/v1/rerank", {**ask, "model": "best-model"})[0] == 400
    status, told = server.call("POST", "/v1/embeddings/generate", {"input": "x"})
    assert status in (200, 501) and (told.get("model") or "embedding model" in told["message"])
    assert server.call("POST", "/v1/embeddings/generate", {"input": "x", "model": "best"})[0] == (
        400 if status == 200 else 501
    )


def test_a_change_of_the_cluster_is_refused_not_acknowledged(server: ServerProcess, database: str) -> None:
    shards = ok(server.call("GET", f"/v1/cluster/shards?databaseId={database.rpartition('/')[2]}"))["shards"]
    assert (
        len(shards) == 1 and ok(server.call("GET", f"/v1/cluster/shards/{shards[0]['shard_id']}"))["migration"] is None
    )
    move = f"/v1/cluster/shards/{shards[0]['shard_id']}/migrate"
    assert server.call("POST", move, {"target_node": "other", "strategy": "LIVE_COPY"})[0] == 409
    assert server.call("POST", "/v1/cluster/nodes", {"node_id": "n", "address": "127.0.0.1:1"})[0] == 409
    assert server.call("GET", "/v1/cluster/nodes/none/health")[0] == 404


def test_pages_are_stable_and_totals_exact(server: ServerProcess, database: str) -> None:
    rows = [{"id": f"v{i:04}", "values": [1, i]} for i in range(1200)]
    ok(server.call("POST", database + "/vectors/batch", {"vectors": rows}), 201)
    whole: list[str] = []
    for offset in range(0, 1300, 500):
        page = ok(server.call("GET", f"{database}/vectors?limit=500&offset={offset}"))
        assert page["total"] == 1200 and page["limit"] == 500
        whole += [one["id"] for one in page["vectors"]]
    assert whole == [row["id"] for row in rows]
    assert len(ok(server.call("GET", f"{database}/vectors?limit=5000"))["vectors"]) == 1000
    assert len(ok(server.call("GET", f"{database}/vectors"))["vectors"]) == 50
    for wrong in ("limit=0", "limit=-1", "limit=ten", "offset=-1"):
        assert server.call("GET", f"{database}/vectors?{wrong}")[0] == 400
    many = ok(
        server.call("POST", database + "/search", {"queryVector": [1, 5], "topK": 1100, "includeMetadata": False})
    )
    assert many["count"] == len(many["results"]) == 1100
    assert all((-a["score"], a["id"]) <= (-b["score"], b["id"]) for a, b in pairwise(many["results"]))
    for wrong_k in (0, 10_001, "ten", 1.5, True):
        assert server.call("POST", database + "/search", {"queryVector": [1, 5], "topK": wrong_k})[0] == 400
