"""What operators read over REST, from a real server: performance, logs, slow searches, and who may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Every search is slow to it, and every one is repeated to measure recall."""
    flags = {"JADEVECTORDB_LOG_SLOW_QUERY_MS": "0.0001", "JADEVECTORDB_TELEMETRY_RECALL_SAMPLE": "1"}
    with serving(tmp_path_factory.mktemp("observe") / "data", "--log-level", "debug", env=flags) as started:
        rows = np.random.default_rng(1).random((50, 4)).round(3).tolist()
        made = started.call("POST", "/v2/databases", {"name": "products", "dimension": 4})
        assert made[0] == 201
        vectors = [{"id": f"v{i}", "values": row, "metadata": {"n": i}} for i, row in enumerate(rows)]
        assert started.call("POST", "/v2/databases/products/vectors", {"vectors": vectors})[0] == 200
        for row in rows[:5]:
            body = {"vector": row, "k": 3, "filter": {"n": {"$lt": 40}}}
            assert started.call("POST", "/v2/databases/products/search", body, {"X-Request-Id": "slow-one"})[0] == 200
        yield started


def answer(server: ServerProcess, path: str) -> Any:
    status, body = server.call("GET", path)
    assert status == 200, body
    return body


def test_performance(server: ServerProcess) -> None:
    measured = answer(server, "/v1/metrics/performance")
    assert measured["queries_total"] == 5
    assert measured["queries_per_second"] > 0
    assert 0 < measured["query_latency_p50"] <= measured["query_latency_p95"] <= measured["query_latency_p99"]
    for name in ("memory_usage", "disk_usage"):
        assert 0 <= measured[name] <= 100
    assert measured["cpu_usage"] is None or 0 <= measured["cpu_usage"] <= 100
    shown = {figure["name"]: figure for figure in measured["metrics"]}
    assert shown["queries_per_second"]["value"] == measured["queries_per_second"]
    assert shown["query_latency_p95"].keys() == {"label", "name", "value", "unit", "timestamp"}
    assert all(isinstance(figure["value"], int | float) for figure in measured["metrics"])
    for alias in ("/v1/performance/metrics", "/api/metrics/performance"):
        assert answer(server, alias).keys() == measured.keys()


def test_slow_queries(server: ServerProcess) -> None:
    while any(slow["plan_note"] == "about to be taken" for slow in answer(server, "/v2/queries/slow")["queries"]):
        pass
    told = answer(server, "/v2/queries/slow")
    assert told["threshold_ms"] == 0.0001
    assert len(told["queries"]) == 5
    slow = told["queries"][0]
    assert (slow["database"], slow["k"], slow["hits"]) == ("products", 3, 3)
    assert "$lt" in slow["filter"]
    assert slow["plan"]["segments"][0]["matches"] == 40
    assert len(answer(server, "/v2/queries/slow?limit=2")["queries"]) == 2
    assert server.call("GET", "/v2/queries/slow?limit=0")[0] == 400


def test_logs(server: ServerProcess) -> None:
    test_slow_queries(server)
    entries = answer(server, "/v2/logs?level=warning&contains=SLOW%20search")["entries"]
    assert entries
    assert entries[0]["message"].startswith("slow search in products")
    assert entries[0]["time"] >= entries[-1]["time"]
    assert "plan" in entries[0]
    assert len(answer(server, "/v2/logs?limit=1")["entries"]) == 1
    assert answer(server, "/v2/logs?level=error")["entries"] == []
    status, body = server.call("GET", "/v2/logs?level=loud")
    assert (status, body["error"]) == (400, "INVALID_ARGUMENT")
    assert '"slow search in products' in server.log()


def test_metrics(server: ServerProcess) -> None:
    while "jadevectordb_recall{" not in answer(server, "/metrics"):
        pass
    samples = {
        (sample.name, sample.labels.get("route", ""), sample.labels.get("status", "")): sample.value
        for family in text_string_to_metric_families(answer(server, "/metrics"))
        for sample in family.samples
    }
    assert samples["jadevectordb_requests_total", "/v2/databases/{db}/search", "200"] == 5
    assert samples["jadevectordb_database_rows", "", ""] == 50
    assert samples["jadevectordb_recall", "", ""] == 1.0
    assert samples["process_resident_memory_bytes", "", ""] > 1 << 20
    assert ("jadevectordb_db_operations_total", "", "success") in samples


def test_only_admins_read_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("rights") / "data"
    with serving(folder, auth="required", env={"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}) as server:
        _, admin = server.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD})
        secret = "secret-Of-ann-1"
        person = {"username": "ann", "email": "ann@example.org", "password": secret}
        assert server.call("POST", "/v1/auth/register", person)[0] == 201
        _, ann = server.call("POST", "/v1/auth/login", {"username": "ann", "password": secret})
        for path in ("/v2/logs", "/v2/queries/slow"):
            assert server.call("GET", path)[0] == 401
            assert server.call("GET", path, token=ann["token"])[0] == 403
            assert server.call("GET", path, token=admin["token"])[0] == 200
        assert server.call("GET", "/v1/metrics/performance")[0] == 401
        assert server.call("GET", "/v1/metrics/performance", token=ann["token"])[0] == 200
        metrics = server.call("GET", "/metrics", token=admin["token"])[1]
        assert "jadevectordb_auth_errors_total 3.0" in metrics
        server.stop()
        for hidden in (secret, ADMIN_PASSWORD, ann["token"], admin["token"]):
            assert hidden not in server.log()
