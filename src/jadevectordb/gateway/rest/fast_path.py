"""The short way for ordinary requests: from the parser's callback to one write on the socket, without a task or an ASGI call.

An ordinary request has a body of known, modest size. It is collected here and answered by the same `Application` as every
other one; large or chunked bodies, upgrades and `Expect` take uvicorn's own way through ASGI. Saves about half of the
server's CPU per search (bench/serving.py). Also here: the time a client may take to send a request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from jadevectordb.gateway.rest.app import Application
from jadevectordb.gateway.rest.errors import problem
from jadevectordb.gateway.rest.http import Request, Response
from jadevectordb.model.limits import FAST_BODY_BYTES_MAX, HEADER_BYTES_MAX

_SLOW = frozenset({b"transfer-encoding", b"upgrade", b"expect"})


class _Turn:
    """The request being answered, in the shape uvicorn's protocol knows a cycle by."""

    __slots__ = (
        "body",
        "disconnected",
        "give_up",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
    )

    def __init__(self, keep_alive: bool) -> None:
        self.body = bytearray()
        self.give_up: Callable[[], None] | None = None  # while other nodes are asked for its answer
        self.disconnected = False
        self.keep_alive = keep_alive
        self.message_event = self
        self.response_complete = False
        self.more_body = True

    def set(self) -> None:
        """Called when the connection is lost: other nodes need not go on."""
        if self.give_up is not None:
            self.give_up()


class FastProtocol(HttpToolsProtocol):
    """One connection. `config.app` is the `Application`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.application: Application = config.app  # type: ignore[assignment]
        self._turn: _Turn | None = None  # the fast request being read or answered
        self._under_way: list[Any] = []  # requests behind which others came before they were answered, and those others
        self._reading = False  # a message has begun and is not complete
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._fast_url = b""
        self._timeout_s: float = self.application.services.settings.server.request_timeout_s

    # The client's time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self._timeout_s, self._out_of_time)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._give_up()  # uvicorn thinks of the newest request only
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._turn is not None and self._turn.give_up is not None:  # more comes before that was answered
            self.flow.pause_reading()
        super().data_received(data)
        if self._reading:
            if self._deadline is None:
                self._deadline = self.loop.call_later(self._timeout_s, self._out_of_time)
        elif self._deadline is not None:
            self._disarm()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _out_of_time(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._give_up()

    def send_400_response(self, msg: str) -> None:
        """What the parser refused: an error like every other one, instead of uvicorn's text."""
        self._refuse(400, "The request is not valid HTTP.")

    def _refuse(self, status: int, message: str) -> None:
        """The last answer of this connection, to a request that is none."""
        if not self.transport.is_closing():
            named = (("x-request-id", secrets.token_hex(8)),)
            self._write(problem(status, message, headers=named), keep_alive=False)
            self._give_up()

    def _give_up(self) -> None:
        """The connection is gone: nothing that is being worked on for it, or waits behind that, is to be written any more."""
        for cycle in (*self._under_way, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._reading = True
        self._header_bytes = 0
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        self.headers.append((name.lower(), value))

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES_MAX:
            self._refuse(431, f"The headers are larger than {HEADER_BYTES_MAX} bytes.")
            raise ValueError("headers too large")  # ends the parsing

    def on_headers_complete(self) -> None:
        if self._is_ordinary():
            self._turn = _Turn(self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive())
            self.cycle = self._turn  # type: ignore[assignment]
            return
        headers, url, before = self.headers, self.url, self.cycle
        super().on_message_begin()
        self.headers.extend(headers)
        self.url = url
        self.expect_100_continue = any(n == b"expect" and v.lower() == b"100-continue" for n, v in headers)
        super().on_headers_complete()
        unanswered = (*self._under_way, before, self.cycle)
        self._under_way = [cycle for cycle in unanswered if cycle is not None and not cycle.response_complete]

    def _is_ordinary(self) -> bool:
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        for name, value in self.headers:
            if name in _SLOW or (
                name == b"content-length" and not (len(value) < 9 and int(value) <= FAST_BODY_BYTES_MAX)
            ):
                return False
        return not self.pipeline

    def _is_fast(self, turn: _Turn) -> bool:
        current: object = self.cycle
        return turn is current

    def on_body(self, body: bytes) -> None:
        turn = self._turn
        if turn is not None and self._is_fast(turn) and turn.more_body:
            turn.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = False
        turn = self._turn
        if turn is None or not self._is_fast(turn) or not turn.more_body:
            super().on_message_complete()
            return
        turn.more_body = False
        path, _, query = self.url.partition(b"?")
        request = Request(
            self.parser.get_method().decode("ascii"),
            path.decode("latin-1"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers},
            bytes(turn.body),
            query_string=query.decode("latin-1"),
            client=self.client[0] if self.client else "",
        )
        matched = self.application.match(request)
        if isinstance(matched, Response):
            self._end(turn, matched, request.method)
        elif matched.inline:
            self._end(turn, self.application.run(matched), request.method)
        elif matched.awaited:
            method = request.method
            give_up = self.application.ask_nodes(matched, lambda answer: self._answered(turn, answer, method))
            if not turn.response_complete:
                turn.give_up = give_up
        else:
            self.flow.pause_reading()
            task = self.application.submit(matched)
            self.tasks.add(task)  # type: ignore[arg-type]  # the server waits for these when it stops
            task.add_done_callback(lambda done: self._late(turn, done, request.method))

    def _answered(self, turn: _Turn, answer: Response, method: str) -> None:
        turn.give_up = None
        if not turn.disconnected:
            self._end(turn, answer, method)

    def _late(self, turn: _Turn, done: asyncio.Future[Response], method: str) -> None:
        self.tasks.discard(done)
        if turn.disconnected or done.cancelled():
            return
        self._end(turn, done.result(), method)

    # Answering

    def _end(self, turn: _Turn, answer: Response, method: str) -> None:
        turn.response_complete = True
        keep_alive = turn.keep_alive and ("connection", "close") not in answer.headers
        self._write(answer, keep_alive, bodyless=method == "HEAD")
        self.on_response_complete()

    def _write(self, answer: Response, keep_alive: bool, bodyless: bool = False) -> None:
        head = f"content-type: {answer.content_type}\r\ncontent-length: {len(answer.body)}\r\n"
        for name, value in answer.headers:
            head += f"{name}: {value}\r\n"
        if not keep_alive and ("connection", "close") not in answer.headers:
            head += "connection: close\r\n"
        body = b"" if bodyless else answer.body
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[answer.status], head.encode("latin-1"), body))
        if not keep_alive:
            self.transport.close()
