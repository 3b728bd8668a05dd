"""Keyword indexes, hybrid and re-ranked searches, reports, retention, alerts and embeddings as existing clients call them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import ServerProcess, serving

pytest.importorskip("onnxruntime", reason="the extra 'embeddings' is not installed")
import numpy as np
from tests.tiny_models import WORDS, embedding_model, pair_model, write_model

TEXTS = {
    "doc1": "machine learning is a field of artificial intelligence",
    "doc2": "deep learning uses neural networks",
    "doc3": "cooking pasta with tomato sauce",
    "doc4": "the history of machine tools",
    "doc5": "gardens and their flowers",
}
VECTORS = {name: [1.0, n / 10, 0.0, 0.5 - n / 10] for n, name in enumerate(TEXTS)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("insight") / "data") as running:
        yield running


def make(server: ServerProcess, name: str, filled: bool = True) -> str:
    status, made = server.call("POST", "/v1/databases", {"name": name, "vectorDimension": 4})
    assert status == 201, made
    base = f"/v1/databases/{made['databaseId']}"
    if filled:
        for n, (vector_id, values) in enumerate(VECTORS.items()):
            body = {"id": vector_id, "values": values, "metadata": {"text": TEXTS[vector_id], "n": n}}
            assert server.call("POST", base + "/vectors", body)[0] == 201
    return base


def ok(answer: tuple[int, Any], status: int = 200) -> Any:
    assert answer[0] == status, answer
    assert "error" not in answer[1]
    return answer[1]


def refused(answer: tuple[int, Any], status: int, *words: str) -> Any:
    assert answer[0] == status, answer
    assert answer[1]["status"] == status
    for word in words:
        assert word in answer[1]["message"]
    return answer[1]


def test_build_search_and_add_documents(server: ServerProcess) -> None:
    base = make(server, "bm25")
    assert ok(server.call("GET", base + "/bm25-index/status"))["status"] == "none"
    refused(server.call("POST", base + "/search/hybrid", {"queryText": "machine"}), 409, "bm25-index/build")
    vector_only = ok(
        server.call("POST", base + "/search/hybrid", {"queryText": "machine", "queryVector": VECTORS["doc3"]})
    )
    assert vector_only["bm25Indexed"] is False
    assert vector_only["results"][0]["id"] == "doc3"
    built = ok(server.call("POST", base + "/bm25-index/build", {"textField": "text"}))
    assert (built["status"], built["documentCount"]) == ("completed", 5)
    status = ok(server.call("GET", base + "/bm25-index/status"))
    assert (status["totalDocuments"], status["textField"], status["progressPercentage"]) == (5, "text", 100.0)
    lengths = [len(text.split()) for text in TEXTS.values()]
    assert status["indexStats"]["averageDocumentLength"] == pytest.approx(sum(lengths) / 5)
    body = {"documents": [{"doc_id": "extra", "text": "machine made"}, {"id": 7, "text": "unrelated"}]}
    added = ok(server.call("POST", base + "/bm25-index/documents", body))
    assert (added["addedCount"], added["totalDocuments"]) == (2, 7)
    found = ok(server.call("POST", base + "/search/hybrid", {"queryText": "machine", "topK": 10}))
    assert [item["id"] for item in found["results"]] == ["extra", "doc4", "doc1"]
    assert found["results"][0]["metadata"] == {}
    assert found["results"][0]["vectorScore"] is None
    assert ok(server.call("POST", base + "/bm25-index/rebuild", {"textField": "text"}))["documentCount"] == 7
    assert ok(server.call("POST", base + "/bm25-index/rebuild"))["textField"] == "text"
    refused(server.call("POST", base + "/bm25-index/documents", {"documents": []}), 400, "documents")
    refused(server.call("POST", base + "/bm25-index/documents", {"documents": [{"text": "x"}]}), 400, "doc_id")
    twice = {"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}
    refused(server.call("POST", base + "/bm25-index/documents", twice), 400, "twice")


def test_hybrid_search_shows_the_parts_of_its_scores(server: ServerProcess) -> None:
    base = make(server, "hybrid")
    ok(server.call("POST", base + "/bm25-index/build", {}))
    query = {"queryVector": VECTORS["doc2"], "queryText": "machine learning", "topK": 4}
    for method, done in (("rrf", "rrf"), ("linear", "linear"), ("weighted_linear", "linear"), ("weighted", "linear")):
        found = ok(server.call("POST", base + "/search/hybrid", {**query, "fusionMethod": method}))
        assert (found["fusionMethod"], found["count"], found["bm25Indexed"]) == (done, 4, True)
        scores = [item["score"] for item in found["results"]]
        assert scores == sorted(scores, reverse=True)
        for item in found["results"]:
            assert item["hybridScore"] == item["score"] == item["similarity"]
            assert item["vector"]["metadata"] == item["metadata"]
            assert isinstance(item["vectorScore"], float)
            assert isinstance(item["bm25Score"], float)
    by_words = ok(server.call("POST", base + "/search/hybrid", {**query, "fusionMethod": "linear", "alpha": 0}))
    assert by_words["results"][0]["id"] == "doc1"
    by_vector = ok(server.call("POST", base + "/search/hybrid", {**query, "fusionMethod": "linear", "alpha": "1.0"}))
    assert by_vector["results"][0]["id"] == "doc2"
    filtered = ok(server.call("POST", base + "/search/hybrid", {**query, "filters": {"n": {"$gte": 3}}}))
    assert {item["id"] for item in filtered["results"]} == {"doc4", "doc5"}
    assert filtered["filtersApplied"] is True
    plain = ok(
        server.call("POST", base + "/search/hybrid", {**query, "includeScores": False, "includeMetadata": False})
    )
    assert not {"bm25Score", "metadata"} & plain["results"][0].keys()
    refused(server.call("POST", base + "/search/hybrid", {**query, "fusionMethod": "best"}), 400, "fusionMethod")
    refused(server.call("POST", base + "/search/hybrid", {**query, "alpha": 2}), 400, "alpha")
    refused(server.call("POST", base + "/search/hybrid", {}), 400, "queryVector")
    refused(server.call("POST", base + "/search/hybrid", {"queryVector": [1, 2]}), 400, "4")


def test_reranking_is_configured_used_and_counted(server: ServerProcess) -> None:
    base = make(server, "rerank")
    config = ok(server.call("GET", base + "/reranking/config"))
    assert (config["status"], config["modelName"], config["rerankWeight"]) == ("ready", "lexical-bm25-coverage", 0.7)
    query = {"queryText": "machine learning", "queryVector": VECTORS["doc5"], "topK": 3}
    found = ok(server.call("POST", base + "/search/rerank", query))  # no BM25 index: the vector finds the candidates
    assert found["results"][0]["id"] == "doc1"
    assert found["model"] == "lexical-bm25-coverage"
    assert set(found["timings"]) == {"retrievalMs", "rerankingMs", "totalMs"}
    for item in found["results"]:
        assert item["combinedScore"] == item["score"]
        assert item["score"] == pytest.approx(0.7 * item["rerankScore"] + 0.3 * item["hybridScore"])
        assert item["docId"] == item["id"]
    changed = ok(server.call("PUT", base + "/reranking/config", {"combineScores": False, "scoreThreshold": 0.01}))
    assert changed["success"] is True
    assert changed["config"]["combineScores"] is False
    found = ok(server.call("POST", base + "/search/rerank", query))
    assert {item["id"] for item in found["results"]} == {"doc1", "doc2", "doc4"}
    assert all(item["score"] == item["rerankScore"] for item in found["results"])
    plain = ok(server.call("POST", base + "/search/rerank", {**query, "enableReranking": False}))
    assert plain["results"][0]["id"] == "doc5"
    assert plain["results"][0]["rerankScore"] is None
    statistics = ok(server.call("GET", base + "/reranking/config"))["statistics"]
    assert (statistics["totalRequests"], statistics["failedRequests"]) == (2, 0)
    assert statistics["totalDocumentsReranked"] == 10
    refused(server.call("PUT", base + "/reranking/config", {"modelName": "gpt"}), 400, "lexical-bm25-coverage")
    refused(server.call("PUT", base + "/reranking/config", {}), 400, "modelName")
    refused(server.call("POST", base + "/search/rerank", {"queryVector": VECTORS["doc1"]}), 400, "queryText")
    refused(server.call("POST", base + "/search/rerank", {"queryText": "x"}), 409, "bm25-index")


def test_documents_are_reranked_without_a_database(server: ServerProcess) -> None:
    documents = [{"id": name, "text": text} for name, text in TEXTS.items()]
    answer = ok(server.call("POST", "/v1/rerank", {"query": "machine learning", "documents": documents}))
    assert [item["rank"] for item in answer["results"]] == [1, 2, 3, 4, 5]
    assert answer["results"][0]["id"] == "doc1"
    assert all(0 <= item["score"] <= 1 for item in answer["results"])
    assert answer["model"] == "lexical-bm25-coverage"
    top = ok(server.call("POST", "/v1/rerank", {"query": "machine learning", "documents": documents, "topK": 2}))
    assert len(top["results"]) == 2
    refused(server.call("POST", "/v1/rerank", {"query": "x", "documents": documents, "model": "gpt"}), 400, "available")
    refused(server.call("POST", "/v1/rerank", {"query": "x", "documents": [{"id": "a"}]}), 400, "documents[0]")
    refused(server.call("POST", "/v1/rerank", {"documents": documents}), 400, "query")


def test_reports_list_every_kind_of_search(server: ServerProcess) -> None:
    base = make(server, "reports")
    ok(server.call("POST", base + "/bm25-index/build", {}))
    vector = VECTORS["doc1"]
    first = ok(server.call("POST", base + "/search", {"queryVector": vector, "topK": 2}))
    for _ in range(3):
        ok(server.call("POST", base + "/search/hybrid", {"queryText": "Machine  learning?", "queryVector": vector}))
    ok(server.call("POST", base + "/search/hybrid", {"queryText": "xylophone"}))
    ok(server.call("POST", base + "/search/rerank", {"queryText": "tomato", "queryVector": vector}))
    queries = ok(server.call("GET", base + "/analytics/queries"))
    assert queries["total_count"] == 6
    kinds = [query["query_type"] for query in queries["queries"]]
    assert kinds == ["rerank", "bm25", "hybrid", "hybrid", "hybrid", "vector"]
    assert queries["queries"][-1]["query_id"] == first["queryId"]
    assert all(query["latency_ms"] > 0 for query in queries["queries"])
    assert [query["result_count"] for query in queries["queries"]] == [5, 0, 5, 5, 5, 2]
    page = ok(server.call("GET", base + "/analytics/queries?limit=2&offset=1"))
    assert page["queries"] == queries["queries"][1:3]
    stats = ok(server.call("GET", base + "/analytics/stats?granularity=daily"))
    assert stats["stats"] == stats["statistics"]
    total = {name: sum(bucket[name] for bucket in stats["stats"]) for name in ("total_queries", "zero_result_queries")}
    assert total == {"total_queries": 6, "zero_result_queries": 1}
    assert stats["stats"][0]["reranked_queries"] == 1
    patterns = ok(server.call("GET", base + "/analytics/patterns?min_count=2"))["patterns"]
    assert [(p["normalized_text"], p["count"]) for p in patterns] == [("machine learning", 3)]
    insights = ok(server.call("GET", base + "/analytics/insights"))
    assert insights["summary"]["success_rate"] == 1.0
    assert insights["summary"]["peak_hour_queries"] >= 1
    assert insights["zero_result_queries"][0]["query_text"] == "xylophone"
    trending = ok(server.call("GET", base + "/analytics/trending?min_growth=0.5&time_bucket=daily"))["trending"]
    assert [(t["normalized_text"], t["growth_rate"]) for t in trending] == [("machine learning", 300.0)]
    known = {"query_id": first["queryId"], "rating": 5, "clickedResultId": "doc1", "clicked_rank": 1}
    assert ok(server.call("POST", base + "/analytics/feedback", known))["query_known"] is True
    unknown = {"queryId": "query-001", "userId": "someone", "feedbackText": "good", "rating": "4"}
    answer = ok(server.call("POST", base + "/analytics/feedback", unknown))
    assert (answer["success"], answer["query_known"], answer["query_id"]) == (True, False, "query-001")
    exported = ok(server.call("GET", base + "/analytics/export?format=json"))
    assert exported["data"]["summary"]["total_queries"] == 6
    status, text = server.call("GET", base + "/analytics/export?format=csv")
    assert status == 200
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["Type", "Data", "Count", "Metric", "Value"]
    assert ["summary", "", "", "total_queries", "6"] in rows


def test_report_parameters(server: ServerProcess) -> None:
    base = make(server, "parameters", filled=False) + "/analytics"
    iso = "?start_time=2020-01-31T12:00:00.000Z&end_time=2020-02-01T12:00:00%2B01:00"
    answer = ok(server.call("GET", base + "/stats" + iso))
    assert (answer["start_time"], answer["end_time"], answer["stats"]) == (1580472000000, 1580554800000, [])
    assert ok(server.call("GET", base + "/queries?start_time=1&end_time=2"))["queries"] == []
    assert "No search" in ok(server.call("GET", base + "/insights"))["recommendations"][0]
    for path in (
        "/stats?granularity=yearly",
        "/stats?start_time=5&end_time=4",
        "/stats?start_time=yesterday",
        "/queries?limit=0",
        "/queries?offset=-1",
        "/trending?time_bucket=monthly",
        "/trending?min_growth=lots",
        "/export?format=xml",
    ):
        refused(server.call("GET", base + path), 400)
    for body in ({}, {"query_id": "q", "rating": 6}, {"query_id": "q", "rating": "many"}, {"query_id": 5}):
        refused(server.call("POST", base + "/feedback", body), 400)
    refused(server.call("GET", "/v1/databases/db_none/analytics/stats"), 404, "not found")


def test_failed_searches_are_recorded_with_their_code(server: ServerProcess) -> None:
    base = make(server, "failures")
    refused(server.call("POST", base + "/search/hybrid", {"queryText": "x"}), 409)
    queries = ok(server.call("GET", base + "/analytics/queries"))["queries"]
    assert [(q["has_error"], q["error_code"], q["query_type"]) for q in queries] == [(True, "CONFLICT", "bm25")]


def test_retention_policies(server: ServerProcess) -> None:
    base = make(server, "retention", filled=False)
    refused(server.call("GET", base + "/lifecycle/status"), 404, "not found")
    body = {"maxAgeDays": "30", "archiveOnExpire": True, "deleteOnExpire": False, "autoScale": None}
    answer = ok(server.call("PUT", base + "/lifecycle", body))
    policy = {"maxAgeDays": 30, "archiveOnExpire": True, "deleteOnExpire": False, "autoScale": False}
    assert (answer["retentionPolicy"], answer["archivedCount"]) == (policy, 0)
    assert ok(server.call("GET", base + "/lifecycle/status"))["retentionPolicy"] == policy
    refused(server.call("PUT", base + "/lifecycle", {"deleteOnExpire": True}), 400, "both")
    refused(server.call("PUT", base + "/lifecycle", {"maxAgeDays": 0}), 400, "maxAgeDays")
    refused(server.call("PUT", base + "/lifecycle", {"archiveOnExpire": "yes"}), 400, "archiveOnExpire")


def test_alerts(server: ServerProcess) -> None:
    raised = ok(server.call("POST", "/v1/alerts", {"type": "warning", "message": "look at this"}), 201)
    assert (raised["type"], raised["acknowledged"], raised["acknowledgedBy"]) == ("warning", False, None)
    listed = ok(server.call("GET", "/v1/alerts?type=warning&acknowledged=false"))
    assert raised["id"] in {alert["id"] for alert in listed["alerts"]}
    assert listed["total"] == len(listed["alerts"])
    done = ok(server.call("PUT", f"/v1/alerts/{raised['id']}/acknowledge"))
    assert done["acknowledged"] is True
    assert done["acknowledgedAt"]
    refused(server.call("PUT", "/v1/alerts/alert_none/acknowledge"), 404, "not found")
    refused(server.call("POST", "/v1/alerts", {"type": "loud", "message": "x"}), 400, "type")
    refused(server.call("POST", "/v1/alerts", {"message": "x"}), 400, "type")
    refused(server.call("GET", "/v1/alerts?acknowledged=perhaps"), 400, "acknowledged")


def test_everything_is_there_after_a_restart_and_models_come_from_folders(tmp_path: Path) -> None:
    table = np.random.default_rng(5).normal(size=(len(WORDS), 4)).astype(np.float32)
    sentences = write_model(tmp_path / "tiny-sentences", embedding_model(table))
    weights = np.zeros((len(WORDS), 1), np.float32)
    weights[WORDS.index("cat")] = 12.0
    judge = write_model(tmp_path / "tiny-judge", pair_model(weights))
    env = {"JADEVECTORDB_MODELS_EMBEDDINGS": str(sentences), "JADEVECTORDB_MODELS_RERANKER": str(judge)}
    with serving(tmp_path / "data", env=env) as server:
        base = make(server, "kept")
        ok(server.call("POST", base + "/bm25-index/build", {}))
        ok(server.call("POST", base + "/bm25-index/documents", {"documents": [{"id": "loose", "text": "xylophone"}]}))
        ok(server.call("PUT", base + "/reranking/config", {"modelName": "tiny-judge", "batchSize": 2}))
        ok(server.call("PUT", base + "/lifecycle", {"maxAgeDays": 9, "deleteOnExpire": True}))
        ok(server.call("POST", base + "/search/hybrid", {"queryText": "xylophone"}))
        alert = ok(server.call("POST", "/v1/alerts", {"type": "info", "message": "kept"}), 201)
        assert server.stop() == 0
    with serving(tmp_path / "data", env=env) as server:
        assert ok(server.call("GET", base + "/bm25-index/status"))["totalDocuments"] == 6
        found = ok(server.call("POST", base + "/search/hybrid", {"queryText": "xylophone"}))["results"]
        assert [item["id"] for item in found] == ["loose"]
        assert ok(server.call("GET", base + "/analytics/queries"))["total_count"] == 2
        assert ok(server.call("GET", base + "/reranking/config"))["modelName"] == "tiny-judge"
        assert ok(server.call("GET", base + "/lifecycle/status"))["retentionPolicy"]["maxAgeDays"] == 9
        assert alert["id"] in {one["id"] for one in ok(server.call("GET", "/v1/alerts"))["alerts"]}
        documents = [{"id": "a", "text": "the dog"}, {"id": "b", "text": "the cat"}]
        ranked = ok(server.call("POST", "/v1/rerank", {"query": "a", "documents": documents, "model": "tiny-judge"}))
        assert ranked["model"] == "tiny-judge"
        assert ranked["results"][0] == {"id": "b", "score": pytest.approx(1 / (1 + np.exp(-2.0))), "rank": 1}
        one = ok(server.call("POST", "/v1/embeddings/generate", {"input": "the cat", "model": "default"}))
        assert (one["model"], one["provider"], one["dimension"]) == ("tiny-sentences", "local-onnx", 4)
        assert one["embeddings"] == [one["embedding"]]
        two = ok(server.call("POST", "/v1/embeddings/generate", {"text": ["the cat", "a dog"], "inputType": "query"}))
        assert two["count"] == 2
        assert "embedding" not in two
        assert two["embeddings"][0] == one["embedding"]
        body = {"input": "x", "model": "all-mpnet"}
        refused(server.call("POST", "/v1/embeddings/generate", body), 400, "tiny-sentences")
        refused(
            server.call("POST", "/v1/embeddings/generate", {"input": "x", "input_type": "image"}), 400, "input_type"
        )
        refused(server.call("POST", "/v1/embeddings/generate", {"input": [1]}), 400, "input")
        by_text = ok(server.call("POST", base + "/search", {"query": "the cat", "topK": 1}))
        assert by_text["count"] == 1
