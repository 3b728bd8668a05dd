"""Sends trace spans to an OpenTelemetry collector over OTLP/HTTP. Needs the extra `telemetry`, imported only here.

Spans wait in a bounded queue and go out in batches from a thread of their own: a slow or absent collector costs spans, never
requests. Nothing is registered globally, so an application that embeds the server keeps its own tracing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import SPANS_WAITING_MAX

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

_BATCH_SPANS = 512
_EVERY_MS = 2000
_SEND_S_MAX = 5.0
_CLOSE_S_MAX = 2.0
_TRACES_PATH = "/v1/traces"


def open_tracer(endpoint: str, version: str, exporter: SpanExporter | None = None) -> tuple[Tracer, Callable[[], None]]:
    """A tracer and the function that flushes and ends it. endpoint: of the collector, as http://host:4318.

    exporter: takes the place of OTLP/HTTP. Raises NOT_INSTALLED without the extra, INVALID_ARGUMENT for an endpoint that is
    no address.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise JadeError(
            ErrorCode.NOT_INSTALLED,
            "telemetry.otlp_endpoint is set but OpenTelemetry is not installed: pip install 'jadevectordb[telemetry]'.",
        ) from None
    if exporter is None:
        exporter = OTLPSpanExporter(endpoint=_traces_url(endpoint), timeout=_SEND_S_MAX)
    resource = Resource.create({"service.name": "jadevectordb", "service.version": version})
    provider = Provider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=SPANS_WAITING_MAX,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=_BATCH_SPANS,
            export_timeout_millis=_SEND_S_MAX * 1000,
        )
    )
    return provider.get_tracer("jadevectordb", version), partial(_close, provider, exporter)


def _close(provider: TracerProvider, exporter: SpanExporter) -> None:
    """Send what waits, but not for long: a collector that is away would be tried again and again while the server stops."""
    sender = threading.Thread(target=provider.shutdown, name="jade-spans", daemon=True)
    sender.start()
    sender.join(_CLOSE_S_MAX)
    if sender.is_alive():
        exporter.shutdown()  # ends its retries; the spans it holds are lost


def _traces_url(endpoint: str) -> str:
    if not endpoint.startswith(("http://", "https://")):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"telemetry.otlp_endpoint must be an http:// or https:// address of a collector, got {endpoint!r:.200}.",
        )
    base = endpoint.rstrip("/")
    return base if base.endswith(_TRACES_PATH) else base + _TRACES_PATH
