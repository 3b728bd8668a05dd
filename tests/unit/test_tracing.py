"""Traces: spans as OpenTelemetry's own SDK sees them, and as a real collector receives them; nothing when none is wanted."""

from __future__ import annotations

import gzip
import io
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from opentelemetry import trace as global_trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import jadevectordb as jade
from jadevectordb.adapters.otlp import open_tracer
from jadevectordb.gateway.service.logs import start_log
from jadevectordb.gateway.service.tracing import UNTRACED, Tracing, traced_search
from jadevectordb.model.errors import ErrorCode, JadeError

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    tracing = Tracing(*open_tracer("", "1.2.3", exporter))
    yield tracing
    tracing.close()


def finished(tracing: Tracing, exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    tracing.close()  # sends what waits
    return {span.name: span for span in exporter.get_finished_spans()}


def test_request_with_steps(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    with tracing.request("POST", "/v2/databases/{db}/vectors", attributes={"jade.request_id": "r1"}) as request:
        with tracing.span("write", {"jade.rows": 3}) as write:
            write.set("jade.database", "products")
        request.finish(200)
    spans = finished(tracing, exporter)
    request_span, write_span = spans["POST /v2/databases/{db}/vectors"], spans["write"]
    assert request_span.kind is SpanKind.SERVER
    assert request_span.parent is None
    assert request_span.attributes == {
        "http.request.method": "POST",
        "http.route": "/v2/databases/{db}/vectors",
        "http.response.status_code": 200,
        "jade.request_id": "r1",
    }
    assert request_span.resource.attributes["service.name"] == "jadevectordb"
    assert request_span.resource.attributes["service.version"] == "1.2.3"
    assert write_span.attributes == {"jade.rows": 3, "jade.database": "products"}
    assert write_span.parent is not None
    assert write_span.parent.span_id == request_span.context.span_id
    assert request.trace_id == f"{request_span.context.trace_id:032x}"


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        ("rubbish", False),
        ("", False),
    ],
)
def test_traceparent(tracing: Tracing, exporter: InMemorySpanExporter, header: str, taken: bool) -> None:
    with tracing.request("GET", "/health", header, "vendor=1"):
        pass
    span = finished(tracing, exporter)["GET /health"]
    if taken:
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT
        assert span.parent.is_remote
        assert span.context.trace_state.get("vendor") == "1"
    else:
        assert span.parent is None
        assert f"{span.context.trace_id:032x}" != TRACE


def test_caller_that_does_not_sample_is_obeyed(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    with tracing.request("GET", "/health", f"00-{TRACE}-{PARENT}-00"):
        pass
    assert finished(tracing, exporter) == {}


def test_requests_of_several_threads_do_not_mix(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        with tracing.request("GET", f"/{number}"):
            barrier.wait()
            with tracing.span(f"step {number}"):
                barrier.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = finished(tracing, exporter)
    for number in range(4):
        parent = spans[f"step {number}"].parent
        assert parent is not None
        assert parent.span_id == spans[f"GET /{number}"].context.span_id


def test_errors_are_told_by_code_without_their_text(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    for route, error in (("/a", JadeError(ErrorCode.NOT_FOUND, "private words")), ("/b", ValueError("private words"))):
        with pytest.raises(type(error)), tracing.request("GET", route):
            raise error
    with tracing.request("GET", "/c") as request:
        request.finish(503)
    spans = finished(tracing, exporter)
    for route, code in (("/a", "NOT_FOUND"), ("/b", "ValueError")):
        span = spans[f"GET {route}"]
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == code
        assert "private" not in span.to_json()
    assert spans["GET /c"].status.status_code is StatusCode.ERROR


def test_secrets_stay_out(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    with tracing.request("GET", "/x", attributes={"url.query": "api_key=hunter2"}) as span:
        span.set("header", "Bearer hunter2")
    (found,) = finished(tracing, exporter).values()
    assert "hunter2" not in found.to_json()


def test_search_tells_its_plan(tracing: Tracing, exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        database = store.create_database("a", 4)
        database.upsert(
            [f"v{i}" for i in range(30)], np.random.default_rng(1).random((30, 4)), [{"n": i} for i in range(30)]
        )
        with tracing.request("POST", "/search"):
            hits = traced_search(tracing, database, np.ones(4), {"k": 5, "filter": {"n": {"$lt": 10}}})
        assert hits.ids == database.search(np.ones(4), k=5, filter={"n": {"$lt": 10}}).ids
        assert traced_search(UNTRACED, database, np.ones(4), {"k": 5}).explanation is not None
    attributes = finished(tracing, exporter)["search.plan"].attributes
    assert attributes is not None
    assert attributes["jade.search.matches"] == 10
    assert attributes["jade.search.hits"] == 5
    assert attributes["jade.search.strategies"] == "growing:exact"


def test_nothing_is_global(tracing: Tracing) -> None:
    with tracing.request("GET", "/x"):
        assert isinstance(global_trace.get_tracer_provider(), global_trace.ProxyTracerProvider)


def test_untraced_does_nothing_and_imports_nothing() -> None:
    with UNTRACED.request("GET", "/x") as span, UNTRACED.span("y") as inner:
        span.set("a", 1)
        inner.finish(500)
        assert span.trace_id == ""
    UNTRACED.close()
    code = "import sys, jadevectordb.server; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_endpoint_that_is_no_address() -> None:
    with pytest.raises(JadeError, match="otlp_endpoint must be") as raised:
        open_tracer("localhost:4318", "1")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


class _Collector(BaseHTTPRequestHandler):
    """An OTLP/HTTP receiver."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        type(self).received.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_real_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_the_collector(monkeypatch)
    _Collector.received = []
    with HTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            tracing = Tracing(*open_tracer(f"http://127.0.0.1:{server.server_port}/", "1.2.3"))
            with tracing.request("POST", "/v2/x", f"00-{TRACE}-{PARENT}-01"), tracing.span("search"):
                pass
            tracing.close()
        finally:
            server.shutdown()
            thread.join()
    ((path, body),) = _Collector.received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    names = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert names["service.name"] == "jadevectordb"
    spans = {span.name: span for span in resource.scope_spans[0].spans}
    assert spans["POST /v2/x"].trace_id.hex() == TRACE
    assert spans["POST /v2/x"].parent_span_id.hex() == PARENT
    assert spans["search"].parent_span_id == spans["POST /v2/x"].span_id


def wait_for_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a busy machine takes."""
    for name in ("_SEND_S_MAX", "_CLOSE_S_MAX"):
        monkeypatch.setattr(f"jadevectordb.adapters.otlp.{name}", 60.0)


class _Watched(InMemorySpanExporter):
    threads: set[str]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.threads.add(threading.current_thread().name)
        return super().export(spans)


def test_sending_is_not_the_work_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_the_collector(monkeypatch)
    exporter = _Watched()
    exporter.threads = set()
    tracing = Tracing(*open_tracer("", "1", exporter))
    for _ in range(2000):
        with tracing.request("GET", "/x"):
            pass
    tracing.close()
    assert len(exporter.get_finished_spans()) == 2000
    assert threading.current_thread().name not in exporter.threads


def test_collector_that_is_away_does_not_hold_up_the_end() -> None:
    """It listens and never answers. Sending alone would try for far longer than a server may take to stop."""
    with start_log("info", "json", stream=io.StringIO()), socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tracing = Tracing(*open_tracer(f"http://127.0.0.1:{silent.getsockname()[1]}", "1"))
        for _ in range(3000):  # more than may wait: the rest is dropped, no request waits
            with tracing.request("GET", "/x"):
                pass
        ended = threading.Thread(target=tracing.close)
        ended.start()
        ended.join(60.0)
        assert not ended.is_alive()
        silent.close()
        for thread in threading.enumerate():  # what it left behind would talk into the next test's log
            if thread.name == "jade-spans":
                thread.join()
