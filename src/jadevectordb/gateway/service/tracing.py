"""Traces: which request did what and how long each step took, for an OpenTelemetry collector, when one is configured.

    with tracing.request("POST", "/v2/databases/{db}/search", traceparent=header) as span:
        with tracing.span("search.plan", {"jade.database": "products"}):
            ...

A client's `traceparent` (W3C Trace Context) is taken over, so its trace goes on through the server. Without a collector
`UNTRACED` takes the place of a `Tracing`: the same calls, one shared object that does nothing. OpenTelemetry itself is only
imported where a tracer is built (`adapters/otlp.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.gateway.service.redaction import redacted
from jadevectordb.model.errors import JadeError

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Attributes = Mapping[str, "str | int | float | bool"]
_SERVER_ERROR = 500


class Span(Protocol):
    """What code may do with a span, traced or not."""

    def set(self, name: str, value: str | int | float | bool) -> None: ...
    def finish(self, status: int) -> None:
        """The HTTP status of the request."""
        ...

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, for log lines; "" when nothing is traced."""
        ...


class _NoSpan:
    __slots__ = ()
    trace_id = ""

    def set(self, name: str, value: str | int | float | bool) -> None:
        pass

    def finish(self, status: int) -> None:
        pass

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_NO_SPAN = _NoSpan()


class Untraced:
    """No collector: every call returns the same idle span."""

    __slots__ = ()
    is_on = False

    def request(
        self, method: str, route: str, traceparent: str = "", tracestate: str = "", attributes: Attributes | None = None
    ) -> AbstractContextManager[Span]:
        return _NO_SPAN

    def span(self, name: str, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
        return _NO_SPAN

    def close(self) -> None:
        pass


UNTRACED = Untraced()


class _Traced:
    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._span.set_attribute(name, redacted(value) if isinstance(value, str) else value)

    def finish(self, status: int) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)


class Tracing:
    """tracer: of a provider that `close` shuts down. Thread-safe; a span is the current one of its thread or task."""

    is_on = True

    def __init__(self, tracer: Tracer, close: Callable[[], None]) -> None:
        self._tracer = tracer
        self._close = close

    @contextmanager
    def request(
        self, method: str, route: str, traceparent: str = "", tracestate: str = "", attributes: Attributes | None = None
    ) -> Iterator[Span]:
        """The span of one request, a child of the caller's when its traceparent is valid, else the root of a new trace."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": traceparent, "tracestate": tracestate} if traceparent else {}
        parent = TraceContextTextMapPropagator().extract(carrier, context=Context())
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route, **_clean(attributes)},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield from _until_done(span)

    @contextmanager
    def span(self, name: str, attributes: Attributes | None = None) -> Iterator[Span]:
        """A step of the current request."""
        with self._tracer.start_as_current_span(
            name, attributes=_clean(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            yield from _until_done(span)

    def close(self) -> None:
        """Send what waits, within a bounded time, and stop."""
        self._close()


AnyTracing = Tracing | Untraced


def _until_done(span: OtelSpan) -> Iterator[Span]:
    from opentelemetry.trace import Status, StatusCode

    try:
        yield _Traced(span)
    except BaseException as error:
        # By its code, not its text or stack: those may quote what a user sent
        code = str(error.code) if isinstance(error, JadeError) else type(error).__name__
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR, code))
        raise


def _clean(attributes: Attributes | None) -> dict[str, Any]:
    return {name: redacted(v) if isinstance(v, str) else v for name, v in (attributes or {}).items()}


def traced_search(
    tracing: AnyTracing, database: AnyDatabase, vector: npt.ArrayLike | None, arguments: Mapping[str, Any]
) -> Hits:
    """`database.search` with a span that tells its plan. The hits carry the plan too."""
    with tracing.span("search.plan", {"jade.database": database.name}) as span:
        hits = database.search(vector, **{**arguments, "explain": True})
        assert hits.explanation is not None
        for name, value in plan_attributes(hits.explanation.as_dict()).items():
            span.set(name, value)
        span.set("jade.search.hits", len(hits))
        return hits


def plan_attributes(plan: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """A search's plan (`Explanation.as_dict`) as attributes of its span."""
    segments = plan["segments"]
    return {
        "jade.search.recall_target": plan["recall"],
        "jade.search.segments": len(segments),
        "jade.search.matches": sum(segment["matches"] for segment in segments),
        "jade.search.compared": sum(segment["compared"] for segment in segments),
        "jade.search.nprobe": sum(segment["nprobe"] for segment in segments),
        "jade.search.strategies": ",".join(sorted({f"{s['index']}:{s['strategy']}" for s in segments})),
        "jade.search.filter_us": sum(segment["filter_us"] for segment in segments),
        "jade.search.search_us": sum(segment["search_us"] for segment in segments),
        "jade.search.merge_us": plan["merge_us"],
    }
