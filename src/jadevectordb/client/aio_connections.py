"""Connections of the asynchronous client: asyncio streams, kept open between calls, each for one call at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections import deque

from jadevectordb.client.address import Address
from jadevectordb.client.call import Answer
from jadevectordb.client.connections import broken, connect_error, timed_out
from jadevectordb.client.core import Timeouts
from jadevectordb.client.http1 import AnswerReader
from jadevectordb.model.errors import ErrorCode, JadeError

_RECEIVE_BYTES = 1 << 16
_SEND_BYTES = 1 << 20


class AsyncConnection:
    __slots__ = ("_reader", "_writer", "is_used")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.is_used = False

    @classmethod
    async def open(cls, address: Address, tls: ssl.SSLContext | None, timeout_s: float) -> AsyncConnection:
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(
                    address.host, address.port, ssl=tls, server_hostname=address.host if tls is not None else None
                )
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise connect_error(address, error) from error
        plain = writer.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(reader, writer)

    async def exchange(
        self, head: bytes, body: tuple[bytes | memoryview, ...], read_s: float, deadline: float
    ) -> tuple[Answer, bool]:
        """As `connections.Connection.exchange`."""
        answer = AnswerReader()
        early: asyncio.Task[bytes] | None = None
        is_whole = True
        try:
            if sum(map(len, body)) <= _RECEIVE_BYTES:
                # Little enough for the transport's buffer: an error shows when the answer is read
                self._writer.write(b"".join((head, *body)))
            else:
                early = asyncio.create_task(self._reader.read(_RECEIVE_BYTES))
                is_whole = await self._send((head, *body), early, read_s, deadline)
            while True:
                async with asyncio.timeout(_left(read_s, deadline)):
                    data = await (early if early is not None else self._reader.read(_RECEIVE_BYTES))
                early = None
                if answer.feed(data) if data else answer.end():
                    break
        except TimeoutError:
            raise timed_out("waiting for the answer") from None
        except OSError as error:
            raise broken(error, answer.started) from error
        finally:
            if early is not None:
                early.cancel()
        self.is_used = True
        return Answer(answer.status, answer.headers, answer.body), answer.keep_alive and is_whole

    async def _send(
        self, pieces: tuple[bytes | memoryview, ...], early: asyncio.Task[bytes], read_s: float, deadline: float
    ) -> bool:
        """Whether all was sent. early: reads already, as a server may refuse a large body before it has come."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                if early.done():
                    return False
                self._writer.write(rest[:_SEND_BYTES])
                rest = rest[_SEND_BYTES:]
                try:
                    async with asyncio.timeout(_left(read_s, deadline)):
                        await self._writer.drain()
                except TimeoutError:
                    raise timed_out("sending the request") from None
                except OSError:
                    if early.done() and early.exception() is None:
                        return False
                    raise
        return True

    def seems_closed(self) -> bool:
        return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()


class AsyncPool:
    """Connections to one server, for any number of tasks of one event loop."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, timeouts: Timeouts, connections_max: int) -> None:
        self._address = address
        self._tls = tls
        self._timeouts = timeouts
        self._connections_max = connections_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: deque[AsyncConnection] = deque()
        self._free = asyncio.Semaphore(connections_max)
        self._closed = False

    async def exchange(
        self,
        head: bytes,
        body: tuple[bytes | memoryview, ...],
        *,
        careful: bool,
        wait_s: float,
        deadline: float,
        connect_s: float | None = None,
    ) -> Answer:
        """As `connections.Pool.exchange`."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the connections belong to a loop that is over
            self._loop, self._free = loop, asyncio.Semaphore(self._connections_max)
            self._idle.clear()
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "The client is closed: make a new one.")
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._free.acquire()
        except TimeoutError:
            raise timed_out(f"waiting for one of the client's {self._connections_max} connections", "connect") from None
        try:
            while True:
                connection = await self._take(deadline, connect_s or self._timeouts.connect_s)
                was_used = connection.is_used
                keep = False
                try:
                    answer, keep = await connection.exchange(head, body, self._timeouts.read_s + wait_s, deadline)
                    return answer
                except JadeError as error:
                    stale = was_used and error.code is ErrorCode.UNAVAILABLE and error.details.get("phase") == "send"
                    if not stale or careful:
                        raise
                finally:
                    if keep and not self._closed:
                        self._idle.append(connection)
                    else:
                        connection.close()
        finally:
            self._free.release()

    async def _take(self, deadline: float, connect_s: float) -> AsyncConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.seems_closed():
                return connection
            connection.close()
        left = deadline - time.monotonic()
        if left <= 0:
            raise timed_out("connecting", "connect")
        return await AsyncConnection.open(self._address, self._tls, min(connect_s, left))

    async def close(self) -> None:
        self._closed = True
        await self.end_idle()

    async def end_idle(self) -> None:
        """As `connections.Pool.end_idle`."""
        if self._loop is asyncio.get_running_loop():
            closing = list(self._idle)
            self._idle.clear()
            for connection in closing:
                connection.close()
            await asyncio.gather(*(connection.closed() for connection in closing))


def _left(read_s: float, deadline: float) -> float:
    return max(0.0, min(read_s, deadline - time.monotonic()))
