"""What only a whole server shows: a scraper without a credential, traces from the request down to the plan."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.serving import serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_scraper_from_a_listed_address_needs_no_credential(tmp_path: Path) -> None:
    allowed, other = {"JADEVECTORDB_AUTH_METRICS_ALLOW": "127.0.0.0/8"}, {"JADEVECTORDB_AUTH_METRICS_ALLOW": "10.1.2.3"}
    with serving(tmp_path / "allowed", auth="required", env=allowed) as server:
        status, text = server.call("GET", "/metrics")
        assert status == 200
        assert "jadevectordb_info" in text
        assert server.call("GET", "/status")[0] == 401
        assert server.call("GET", "/metrics", token="wrong")[0] == 401
    with serving(tmp_path / "other", auth="required", env=other) as server:
        assert server.call("GET", "/metrics")[0] == 401


class Collector(HTTPServer):
    """An OTLP/HTTP receiver that keeps the spans it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Any] = []


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_traces_of_requests(tmp_path: Path, collector: Collector) -> None:
    endpoint = {"JADEVECTORDB_TELEMETRY_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
    with serving(tmp_path / "data", env=endpoint) as server:
        server.call("POST", "/v2/databases", {"name": "a", "dimension": 2})
        rows = {"ids": ["x", "y"], "values": [[1, 0], [0, 1]]}
        assert server.call("POST", "/v2/databases/a/vectors", rows)[0] == 200
        header = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "r1"}
        assert server.call("POST", "/v2/databases/a/search", {"vector": [1, 0], "k": 1}, header)[0] == 200
        assert server.call("GET", "/v2/databases/none/vectors/x")[0] == 404
        until_s = time.monotonic() + 60  # a server that stops waits for its collector for a moment only
        while len(collector.spans) < 8 and time.monotonic() < until_s:
            time.sleep(0.05)
        assert server.stop() == 0
    spans = {span.name: span for span in collector.spans}
    search, write = spans["POST /v2/databases/{db}/search"], spans["POST /v2/databases/{db}/vectors"]
    assert search.trace_id.hex() == TRACE
    assert search.parent_span_id.hex() == PARENT
    step, plan = spans["search"], spans["search.plan"]
    assert step.parent_span_id == search.span_id
    assert plan.parent_span_id == step.span_id
    assert {a.key: a.value for a in plan.attributes}["jade.search.matches"].int_value == 2
    assert spans["vector.write"].parent_span_id == write.span_id
    (missing,) = (span for name, span in spans.items() if name.startswith("GET /v2/databases/{db}/vectors/"))
    attributes = {a.key: a.value for a in missing.attributes}
    assert attributes["http.response.status_code"].int_value == 404
