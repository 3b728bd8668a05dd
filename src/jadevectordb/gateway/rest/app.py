"""From a request to its answer: route, authenticate, check rights and limits, call the handler, translate errors.

The same steps whichever way the bytes came: over the fast path (`fast_path.py`) or as an ASGI application (`__call__`),
which any ASGI server or test tool can run too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jadevectordb.gateway.access.operations import OPERATIONS, Operation, Scope, check
from jadevectordb.gateway.access.principals import ANONYMOUS
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.rest.errors import error_response, internal_error, problem
from jadevectordb.gateway.rest.http import Request, Response, Route
from jadevectordb.gateway.rest.perimeter import Perimeter
from jadevectordb.gateway.rest.router import Found, OtherMethods, Router
from jadevectordb.gateway.rest.session import session_header, session_header_of_error
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import REQUESTS_AWAITED_MAX, REQUESTS_WAITING_MAX
from jadevectordb.query.awaiting import Then, Underway, waited

logger = logging.getLogger("jadevectordb.http")
Scope_ = dict[str, Any]
# In requests of version 1: a text may have to be read by a model; its filters' first use of a field may read all its strings.
TEXT_NAMES = (b'"query"', b'"queryText"', b'"query_text"')
_SLOW_NAMES = (*TEXT_NAMES, b'"filters"', b'"metadataFilter"', b'"metadata_filter"')
_STOPPING = JadeError(ErrorCode.CLOSED, "This node stops.")
_FILTERED_COST = 4  # how much dearer than a plain search one with a filter or words may be


class Matched:
    """A request whose route is known. inline: it may run on the event loop. awaited: the same, but it waits for other nodes there."""

    __slots__ = ("awaited", "inline", "operation", "request", "route", "started")

    def __init__(
        self, request: Request, route: Route, operation: Operation, inline: bool, awaited: bool = False
    ) -> None:
        self.request = request
        self.route = route
        self.operation = operation
        self.inline = inline
        self.awaited = awaited
        self.started = time.perf_counter()


class Application:
    """threads: how many requests that may wait run at once; more wait in line up to a bound, beyond it they are refused."""

    def __init__(self, services: Services, routes: Iterable[Route]) -> None:
        self.services = services
        self.routes = tuple(routes)
        self._router = Router(self.routes)
        self._settings = services.settings
        self._threads = ThreadPoolExecutor(services.settings.server.threads, thread_name_prefix="jade-request")
        self._waiting = 0
        self._awaited = 0  # requests that wait for other nodes, at most REQUESTS_AWAITED_MAX
        self._line: deque[Underway] = deque()  # those behind them
        self._cluster = getattr(services, "cluster_view", None)  # a reading process has none
        self._perimeter = Perimeter(services.settings)
        self._tracing = services.telemetry.tracing
        services.telemetry.watch_in_flight("rest", lambda: self._waiting)
        for route in self.routes:
            assert route.operation in OPERATIONS, f"{route.method} {route.template}: no operation {route.operation!r}"

    # Steps

    def match(self, request: Request) -> Matched | Response:
        """Find the route and refuse early what can be refused without the handler. Never raises."""
        try:
            self._name(request)
            found = self._router.find(request.method, request.path)
            if isinstance(found, Found):
                route = found.route
                request.params = found.params
                refusal = self._perimeter.refuse(request)
                if refusal is not None:
                    return self._finished(refusal, request, None)
                request.client = self._perimeter.client_of(request)
                inline = route.inline and not request.headers.get("authorization", "")[:5].lower().startswith("basic")
                awaited = False
                if inline and route.operation == "search":
                    awaited = self._may_be_awaited(request)
                    inline = not awaited and self._is_cheap(request)
                return Matched(request, route, OPERATIONS[route.operation], inline, awaited)
            if request.method == "OPTIONS" and found is not None:
                return self._finished(self._perimeter.preflight(request), request, None)
            if isinstance(found, OtherMethods):
                allow = ", ".join(found.allowed)
                answer = problem(
                    405, f"{request.method} is not possible here; possible: {allow}.", headers=(("allow", allow),)
                )
            else:
                answer = problem(404, f"There is nothing at {request.path!r:.200}; the routes are listed at /docs.")
            return self._finished(answer, request, None)
        except JadeError as error:
            return self._finished(error_response(error, request.request_id), request, None)

    def _name(self, request: Request) -> None:
        if not request.request_id:
            request.request_id = _request_id(request)

    def _is_cheap(self, request: Request) -> bool:
        """Whether a search is predicted to be over so soon that handing it to a thread would cost more than it blocks."""
        if any(name in request.body for name in _SLOW_NAMES):
            return False
        entry = self.services.catalog.peek(database_in(request))
        if entry is None:  # the answer is that there is none, which a node of a cluster asks the metadata store about
            return self._cluster is None or not self._cluster.is_cluster
        cost_us = entry.handle.search_cost_us()
        if b'"filter' in request.body or "filter=" in request.query_string or b'"text"' in request.body:
            cost_us *= _FILTERED_COST
        return cost_us < self._settings.server.inline_search_us

    def _may_be_awaited(self, request: Request) -> bool:
        """Whether a search waits for nothing but other nodes: no model, no password, no record of a credential, no collector of traces."""
        entry = self.services.catalog.peek(database_in(request))
        if entry is None or not isinstance(entry.handle, ClusterDatabase) or not entry.handle.is_in_gateway:
            return False
        if self._tracing.is_on or (not request.is_raw and _may_have_text(request.body)):
            return False
        headers = request.headers
        return self.services.access.gatekeeper.knows(headers.get("authorization"), headers.get("x-api-key"))

    def run(self, matched: Matched) -> Response:
        """Authenticate, check, handle. Never raises. May wait, unless the route is inline."""
        if not self._tracing.is_on:
            return waited(self._handled(matched))
        headers = matched.request.headers
        with self._tracing.request(
            matched.request.method,
            matched.route.template,
            headers.get("traceparent", ""),
            headers.get("tracestate", ""),
            {"jade.request_id": matched.request.request_id},
        ) as span:
            with self._tracing.span(matched.operation.name):
                answer = waited(self._handled(matched))
            span.finish(answer.status)
        return answer

    async def _handled(self, matched: Matched) -> Response:
        request = matched.request
        try:
            self._admit(matched)
            handled = matched.route.handler(self.services, request)
            answer = handled if isinstance(handled, Response) else await handled
            if request.seen:
                answer.headers = (*answer.headers, *session_header(request))
            if matched.operation.audit_event is not None and request.method != "GET":
                self._audit(matched, matched.operation.audit_event, success=True)
        except JadeError as raised:
            session = session_header_of_error(request, raised)
            error = self.services.catalog.explain(raised, request.database)
            for_old = not matched.route.template.startswith("/v2/")
            answer = error_response(error, request.request_id, hides_digits=for_old)
            answer.headers = (*answer.headers, *session)
            self._refused(matched, error)
        except Exception:
            answer = internal_error(request.request_id)
        return self._finished(answer, request, matched)

    def _refused(self, matched: Matched, error: JadeError) -> None:
        self.services.telemetry.count_error(error.code)
        if error.code in (ErrorCode.FORBIDDEN, ErrorCode.PASSWORD_CHANGE_REQUIRED):
            self._audit(matched, "permission_denied", success=False)
        elif matched.operation.audit_event is not None and matched.request.principal is not ANONYMOUS:
            self._audit(matched, matched.operation.audit_event, success=False)

    def _audit(self, matched: Matched, event: str, *, success: bool) -> None:
        request = matched.request
        self.services.access.audit.record(
            event,
            request.principal,
            request.client,
            success=success,
            details=request.audit_note,
            resource="" if request.database is None else request.database.id,
            operation=matched.operation.name,
        )

    def _admit(self, matched: Matched) -> None:
        request, operation, access = matched.request, matched.operation, self.services.access
        if operation.name != "health":
            headers = request.headers
            authorization, api_key = headers.get("authorization"), headers.get("x-api-key")
            request.principal = access.gatekeeper.authenticate(authorization, api_key, request.client)
            access.limits.admit(request.principal, request.client, operation.name)
            if (
                operation.name == "metrics"
                and request.principal is ANONYMOUS
                and self._perimeter.may_scrape(request.client)
            ):
                return
        if operation.scope is Scope.DATABASE:
            request.database = self.services.catalog.resolve(database_in(request), request.principal, operation)
        else:
            check(operation, request.principal, None)

    def _finished(self, answer: Response, request: Request, matched: Matched | None) -> Response:
        extra = [("x-request-id", request.request_id)]
        if self._cluster is not None and self._cluster.is_cluster:
            extra.append(("x-jade-map", str(self._cluster.map_version())))  # clients that know an older one ask for it
        if request.ignored_fields:
            extra.append(("x-ignored-fields", _header_text(",".join(request.ignored_fields))))
        extra += self._perimeter.cors_headers(request)
        answer.headers = (*answer.headers, *extra)
        template = "(none)" if matched is None else matched.route.template
        seconds = 0.0 if matched is None else time.perf_counter() - matched.started
        self.services.telemetry.observe_request(
            template, request.method, answer.status, seconds, len(request.body), len(answer.body)
        )
        return answer

    # What is not over at once

    def submit(self, matched: Matched) -> asyncio.Future[Response]:
        """Run it in the pool, or wait for other nodes here. Refused at once (429) when too many wait already."""
        loop = asyncio.get_running_loop()
        if matched.awaited:
            answer: asyncio.Future[Response] = loop.create_future()
            give_up = self.ask_nodes(matched, lambda found: None if answer.done() else answer.set_result(found))
            answer.add_done_callback(lambda done: give_up() if done.cancelled() else None)
            return answer
        if self._waiting >= REQUESTS_WAITING_MAX:
            refused: asyncio.Future[Response] = loop.create_future()
            refused.set_result(self._busy(matched))
            return refused
        self._waiting += 1
        future = loop.run_in_executor(self._threads, self.run, matched)
        future.add_done_callback(self._left)
        return future

    def _busy(self, matched: Matched) -> Response:
        busy = problem(429, "Too many requests are waiting: retry in a moment.", retry_after_s=1)
        return self._finished(busy, matched.request, matched)

    def _left(self, _: object) -> None:
        self._waiting -= 1

    def ask_nodes(self, matched: Matched, then: Callable[[Response], None]) -> Callable[[], None]:
        """Carry it out in the loop; `then` is called there, perhaps before this returns, unless what this returns is called first.

        So many requests ask other nodes at once, the others wait in line; too many (429) are refused.
        """
        if self._waiting >= REQUESTS_WAITING_MAX:
            then(self._busy(matched))
            return _nothing
        self._waiting += 1

        def on_done(answer: Response | None, error: BaseException | None) -> None:
            self._waiting -= 1
            self._awaited -= 1
            if answer is not None:
                then(answer)
            while self._line and self._awaited < REQUESTS_AWAITED_MAX:
                self._begin(self._line.popleft())
            if error is not None:
                raise error  # a defect: handling never raises

        underway = Underway(self._handled(matched), on_done, self._in_pool)

        def give_up() -> None:
            if underway in self._line:
                self._line.remove(underway)
                self._waiting -= 1
            underway.cancel()

        if self._awaited < REQUESTS_AWAITED_MAX:
            self._begin(underway)
        else:
            self._line.append(underway)
        return give_up

    def _begin(self, underway: Underway) -> None:
        self._awaited += 1
        underway.begin()

    def _in_pool(self, work: Callable[[], Any], then: Then) -> None:
        def told(done: asyncio.Future[Any]) -> None:
            error = _STOPPING if done.cancelled() else done.exception()
            then(None if error else done.result(), error)

        asyncio.get_running_loop().run_in_executor(self._threads, work).add_done_callback(told)

    async def answer(self, request: Request) -> Response:
        matched = self.match(request)
        if isinstance(matched, Response):
            return matched
        return self.run(matched) if matched.inline else await self.submit(matched)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    # As an ASGI application

    async def __call__(
        self,
        scope: Scope_,
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this application speaks HTTP, not {scope['type']}")
        request = Request(
            scope["method"],
            (scope.get("raw_path") or scope["path"].encode()).decode("latin-1"),
            {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            query_string=scope["query_string"].decode("latin-1"),
            client=(scope.get("client") or ("",))[0],
        )
        body = await self._body(request, receive)
        if isinstance(body, Response):
            request.request_id = _request_id(request)
            answer = self._finished(body, request, None)
        else:
            request.body = body
            answer = await self.answer(request)
        headers = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(answer.body))]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else answer.body})

    async def _body(self, request: Request, receive: Callable[[], Awaitable[dict[str, Any]]]) -> bytes | Response:
        """The whole body, within its bounds of size and time; else the refusal."""
        limit = self._settings.server.body_bytes_max
        declared = request.headers.get("content-length", "0")
        too_large = problem(
            413, f"The body is larger than {limit} bytes: send less at once.", headers=(("connection", "close"),)
        )
        if declared.isdigit() and int(declared) > limit:
            return too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._settings.server.request_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return problem(400, "The connection was closed before the whole body had come.")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limit:
                        return too_large
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return problem(408, "The body did not come in time.", headers=(("connection", "close"),))


def _nothing() -> None:
    pass


def _may_have_text(body: bytes) -> bool:
    """Whether a search may be by words; an escape may hide it."""
    return b"\\" in body or b'"text"' in body or any(name in body for name in TEXT_NAMES)


def database_in(request: Request) -> str:
    params = request.params
    return params["db"] if "db" in params else params["databaseId"]


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    if given and len(given) <= 100 and given.isascii() and given.replace("-", "").replace("_", "").isalnum():
        return given
    return secrets.token_hex(8)


def _header_text(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:1000]
