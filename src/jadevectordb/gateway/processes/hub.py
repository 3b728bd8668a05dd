"""The writer's end of the connections to its readers: it answers what they pass on, as if the request had come to its own port."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec

from jadevectordb.gateway.processes.messages import (
    STREAM_BYTES,
    Answer,
    Ask,
    Frame,
    Kind,
    Welcome,
    frame,
    read_frame,
    request_of,
)
from jadevectordb.gateway.processes.reports import Report, take
from jadevectordb.gateway.rest.app import Application
from jadevectordb.gateway.rest.http import Request, Response
from jadevectordb.gateway.service.logs import LogEntry

logger = logging.getLogger("jadevectordb.processes")
_ask = msgspec.msgpack.Decoder(Ask).decode
_report = msgspec.msgpack.Decoder(Report).decode


class Hub:
    """add_entry: where log lines of readers go. `listening`: how many readers take connections now. `passed`: requests that came."""

    def __init__(self, application: Application, welcome: Welcome, add_entry: Callable[[LogEntry], None]) -> None:
        self._application = application
        self._welcome = welcome
        self._add_entry = add_entry
        self.listening = 0
        self.passed = 0

    async def serve(self, connection: socket.socket, on_listening: Callable[[], None]) -> None:
        """Serve one reader until its connection ends. on_listening: called once it takes connections."""
        stream, writer = await asyncio.open_unix_connection(sock=connection, limit=STREAM_BYTES)
        listens = False
        try:
            writer.writelines(frame(Kind.WELCOME, self._welcome))
            while (found := await read_frame(stream)) is not None:
                match found.kind:
                    case Kind.ASK:
                        self._answer(found, writer)
                    case Kind.REPORT:
                        take(_report(found.head), self._application.services, self._add_entry)
                    case Kind.LISTENING:
                        listens = True
                        self.listening += 1
                        on_listening()
        finally:
            self.listening -= listens
            writer.close()

    def _answer(self, found: Frame, writer: asyncio.StreamWriter) -> None:
        self.passed += 1
        request = request_of(_ask(found.head), found.body)
        matched = self._application.match(request)
        if isinstance(matched, Response):
            self._send(found.number, request, matched, writer)
        elif matched.inline:
            self._send(found.number, request, self._application.run(matched), writer)
        else:
            future = self._application.submit(matched)
            future.add_done_callback(lambda done: self._late(found.number, request, done, writer))

    def _late(
        self, number: int, request: Request, done: asyncio.Future[Response], writer: asyncio.StreamWriter
    ) -> None:
        if not done.cancelled() and not writer.is_closing():
            self._send(number, request, done.result(), writer)

    def _send(self, number: int, request: Request, answer: Response, writer: asyncio.StreamWriter) -> None:
        headers = request.headers
        gatekeeper = self._application.services.access.gatekeeper
        known = gatekeeper.remembered(headers.get("authorization"), headers.get("x-api-key"))
        head = Answer(answer.status, answer.content_type, answer.headers, *(known or ()))
        writer.writelines(piece for piece in frame(Kind.ANSWER, head, number=number, body=answer.body) if piece)
