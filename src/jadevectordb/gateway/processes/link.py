"""A reader's end of the connection to the writer: requests passed on, answers, reports, and the end of the one means that of the other."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable

import msgspec

from jadevectordb.gateway.access.principals import Principal
from jadevectordb.gateway.processes.messages import (
    STREAM_BYTES,
    Answer,
    Kind,
    Welcome,
    ask_of,
    frame,
    read_frame,
    response_of,
)
from jadevectordb.gateway.processes.reports import Reports
from jadevectordb.gateway.rest.http import Request, Response
from jadevectordb.model.limits import REPORT_EVERY_S

logger = logging.getLogger("jadevectordb.processes")
_UNSENT_BYTES_MAX = 8 << 20  # of reports: beyond it they wait in memory, where they are bounded
Learned = tuple[Principal, int]  # who asked, until when that may be believed
_answer = msgspec.msgpack.Decoder(Answer).decode


class Link:
    """Made by `connect`, used on one event loop. `waiting`: requests passed on and not answered."""

    def __init__(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stream = stream
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[Response, Learned | None]]] = {}
        self.reports: Reports | None = None

    @classmethod
    async def connect(cls, connection: socket.socket) -> tuple[Link, Welcome]:
        """Raises ConnectionError when the writer is gone already."""
        link = cls(*await asyncio.open_unix_connection(sock=connection, limit=STREAM_BYTES))
        first = await read_frame(link._stream)
        if first is None or first.kind != Kind.WELCOME:
            raise ConnectionError("the writing process is gone")
        return link, msgspec.msgpack.decode(first.head, type=Welcome)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def listening(self) -> None:
        """Tell the writer that this process takes connections."""
        self._send(*frame(Kind.LISTENING))

    async def ask(self, request: Request) -> tuple[Response, Learned | None]:
        """The writer's answer, and whom it found to be asking. What happened here before is told first."""
        self.report()
        number = next(self._numbers) & 0xFFFFFFFF
        future: asyncio.Future[tuple[Response, Learned | None]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send(*frame(Kind.ASK, ask_of(request), number=number, body=request.body))
            return await future
        finally:
            self._waiting.pop(number, None)

    def report(self) -> None:
        """Tell what happened here since the last time."""
        if self.reports is None or self._writer.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
            return
        report = self.reports.take()
        if report is not None:
            self._send(*frame(Kind.REPORT, report))

    def _send(self, *pieces: bytes) -> None:
        for piece in pieces:
            if piece:
                self._writer.write(piece)

    async def run(self, gone: Callable[[], None]) -> None:
        """Take answers until the writer is gone; then call `gone`. To be cancelled when this process stops by itself."""
        reporting = asyncio.create_task(self._keep_reporting())
        try:
            while (found := await read_frame(self._stream)) is not None:
                waiting = self._waiting.get(found.number)
                if waiting is not None and not waiting.done():
                    answer = _answer(found.head)
                    learned = None if answer.principal is None else (answer.principal, answer.expires_ms)
                    waiting.set_result((response_of(answer, found.body), learned))
        except Exception:
            logger.exception("what the writing process says can't be understood")
        finally:
            reporting.cancel()
        gone()

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self.report()

    async def close(self) -> None:
        """Tell the rest and end the connection."""
        self.report()
        await self._writer.drain()
        self._writer.close()
        await self._writer.wait_closed()
