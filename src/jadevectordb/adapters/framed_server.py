"""The answering end of connections between nodes: takes calls of other nodes and hands them to this node's Answerer.

Replies may come from any thread. A call whose asker gave up, or is gone, is told to the answerer, and its reply goes nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from jadevectordb.adapters import framed_wire as wire
from jadevectordb.adapters.framed_connection import PATIENCE, FramedConnection, Patience
from jadevectordb.adapters.framed_greeting import NodeIdentity, Side
from jadevectordb.adapters.framed_tls import answering_context
from jadevectordb.adapters.loop_thread import LoopThread, report_defect
from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NODE_CALLS_MAX, NODE_CONNECTIONS_MAX, NODE_GREETING_S_MAX
from jadevectordb.ports.node_calls import ANSWERS, CALLS
from jadevectordb.ports.transport import Answerer

logger = logging.getLogger("jadevectordb.nodes")

_DECODERS: dict[int, Callable[[memoryview], msgspec.Struct]] = {
    number: msgspec.msgpack.Decoder(kind).decode for number, kind in CALLS.items() if kind in ANSWERS
}


class _Reply:
    """Where the answer to one call goes."""

    __slots__ = ("_call", "_connection", "_number", "give_up", "replied")

    def __init__(self, connection: _AnsweringConnection, number: int, call: msgspec.Struct) -> None:
        self._connection = connection
        self._number = number
        self._call = call
        self.replied = False
        self.give_up: Callable[[], None] | None = None

    def __call__(self, answer: Any, error: Exception | None) -> None:
        assert not self.replied, f"a {type(self._call).__name__} was answered twice"
        self.replied = True
        buffers = self._packed(answer, error)
        loop = self._connection.loop_thread
        if loop.is_here:
            self._connection.reply(self._number, self, buffers)
            return
        try:
            loop.run(self._connection.reply, self._number, self, buffers)
        except JadeError:  # the node is stopping; its connections are gone
            return

    def _packed(self, answer: Any, error: Exception | None) -> tuple[bytes, ...]:
        try:
            if error is None:
                expected = ANSWERS[type(self._call)]
                if expected is None:
                    return wire.pack(self._number, wire.BYTES_ANSWER, 0, answer)
                assert type(answer) is expected, f"a {type(self._call).__name__} was answered with {answer!r}"
                return wire.pack(self._number, wire.ANSWER, 0, wire.encode(answer))
        except Exception as refused:  # too large, or nothing that can be sent
            error = refused
        if not isinstance(error, JadeError):
            report_defect(error)
        return wire.pack(self._number, wire.ERROR, 0, wire.failure_payload(error))


class _AnsweringConnection(FramedConnection):
    def __init__(self, server: FramedServer) -> None:
        super().__init__(server.loop.loop, Side.ANSWERER, server.identity, server.patience)
        self.loop_thread = server.loop
        self._server = server
        self.running: dict[int, _Reply] = {}  # calls under way by number; at most NODE_CALLS_MAX

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.remember(self)
        super().connection_made(transport)
        if self._server.connections > (most := self._server.connections_max):
            node = self._server.identity.node
            self.refuse(JadeError(ErrorCode.UNAVAILABLE, f"node {node} has {most} connections already"))

    def opened(self) -> None:
        pass

    def gone(self) -> None:
        self._server.gone()

    def received(self, number: int, kind: int, code: int, payload: memoryview) -> None:
        if kind == wire.CALL:
            self._called(number, code, payload)
        elif kind == wire.CANCEL:
            reply = self.running.pop(number, None)
            if reply is not None:
                _give_up(reply)
        else:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"a frame of kind {kind} came to the side that answers")

    def _called(self, number: int, code: int, payload: memoryview) -> None:
        if number in self.running:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"call {number} was begun twice")
        try:
            call = self._decoded(code, payload)
        except JadeError as error:
            self.send(wire.pack(number, wire.ERROR, 0, wire.failure_payload(error)))
            return
        reply = _Reply(self, number, call)
        self.running[number] = reply
        try:
            reply.give_up = self._server.answerer.answer(call, reply)
        except Exception as error:
            if reply.replied:
                report_defect(error)
            else:
                reply(None, error)

    def _decoded(self, code: int, payload: memoryview) -> msgspec.Struct:
        node = self._server.identity.node
        if self._server.is_stopping:
            raise JadeError(ErrorCode.UNAVAILABLE, f"node {node} is stopping", details={"sent": False})
        if len(self.running) >= NODE_CALLS_MAX:
            raise JadeError(
                ErrorCode.UNAVAILABLE, f"node {node} answers {NODE_CALLS_MAX} calls of this connection already"
            )
        decoder = _DECODERS.get(code)
        if decoder is None:
            raise JadeError(
                ErrorCode.NOT_IMPLEMENTED,
                f"node {node} does not know calls of type {code}: it runs an older version, update it",
            )
        try:
            return decoder(payload)
        except msgspec.MsgspecError as error:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT, f"node {node} can't read this {CALLS[code].__name__}: {error}"
            ) from None

    def reply(self, number: int, reply: _Reply, buffers: tuple[bytes, ...]) -> None:
        if self.running.get(number) is reply:
            del self.running[number]
            self.send(buffers)
            self._server.replied()

    def ended(self, why: JadeError) -> None:
        running = list(self.running.values())
        self.running.clear()
        self._server.forget(self, why)
        for reply in running:
            _give_up(reply)


class FramedServer:
    """Listens from construction to `close`."""

    def __init__(
        self,
        host: str,
        port: int,
        answerer: Answerer,
        identity: NodeIdentity,
        *,
        tls: TlsFiles | None = None,
        loop: LoopThread | None = None,
        connections_max: int = NODE_CONNECTIONS_MAX,
        patience: Patience = PATIENCE,
    ) -> None:
        """port: 0 = one that is free. loop: to share with a FramedTransport; it is the caller's to close, after this.

        Raises UNAVAILABLE (the address can't be listened on), INVALID_ARGUMENT (TLS files).
        """
        context: ssl.SSLContext | None = answering_context(tls) if tls else None
        self.answerer = answerer
        self.identity = identity
        self.patience = patience
        self.is_stopping = False
        self._connections: set[_AnsweringConnection] = set()  # the loop's own
        self._sockets = 0  # of connections, ended ones that still send their last answers included
        self._drained = threading.Event()
        self._gone = threading.Event()
        self.connections_max = connections_max
        self._told = ""  # the last refusal in the log: who is refused knocks again and again
        self.loop = loop or LoopThread(f"jade-answers-{identity.node}")
        self._owns_loop = loop is None
        self._closed = False
        try:
            self._server = self._listen(host, port, context)
        except OSError as error:
            if self._owns_loop:
                self.loop.close()
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"Can't listen for other nodes on {host}:{port} ({error.strerror or error}): is another node running there?",
            ) from None
        self.host = host
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        """HOST:PORT, as other nodes on this machine reach it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._connections)

    def close(self, drain_s: float = 0.0) -> None:
        """Calls that come from now on are refused; those under way have so long to be answered, then connections end. Again is fine."""
        if self._closed:
            return
        self._closed = True
        self.loop.ask(self._stop_listening)
        if drain_s > 0:
            self._drained.wait(drain_s)
        self.loop.ask(self._end_connections)
        self._gone.wait(2 * NODE_GREETING_S_MAX)  # a socket whose other end takes nothing is given up before that
        if self._owns_loop:
            self.loop.close()

    # --- the loop's thread --------------------------------------------------------------------------------------------

    def _listen(self, host: str, port: int, context: ssl.SSLContext | None) -> asyncio.Server:
        listening: list[asyncio.Server | BaseException] = []
        done = threading.Event()

        async def listen() -> None:
            try:
                server = await self.loop.loop.create_server(
                    lambda: _AnsweringConnection(self),
                    host,
                    port,
                    ssl=context,
                    ssl_handshake_timeout=self.patience.greeting_s if context else None,
                    ssl_shutdown_timeout=NODE_GREETING_S_MAX if context else None,
                )
                listening.append(server)
            except BaseException as error:
                listening.append(error)
            done.set()

        def begin() -> None:
            self.loop.start(listen())

        self.loop.run(begin)
        done.wait()
        (result,) = listening
        if isinstance(result, BaseException):
            raise result
        return result

    def remember(self, connection: _AnsweringConnection) -> None:
        self._connections.add(connection)
        self._sockets += 1

    def gone(self) -> None:
        self._sockets -= 1
        if self.is_stopping and not self._sockets:
            self._gone.set()

    def forget(self, connection: _AnsweringConnection, why: JadeError) -> None:
        self._connections.discard(connection)
        self.replied()
        if why.code in (ErrorCode.UNAVAILABLE, ErrorCode.CLOSED):
            return  # nodes come and go
        host = connection.remote.rpartition(":")[0]
        if (told := f"{host}: {why.message}") != self._told:
            self._told = told
            logger.warning("a connection from %s was refused: %s", host, why.message)

    def replied(self) -> None:
        if self.is_stopping and not any(connection.running for connection in self._connections):
            self._drained.set()

    def _stop_listening(self) -> None:
        self.is_stopping = True
        self._server.close()
        self.replied()

    def _end_connections(self) -> None:
        for connection in list(self._connections):
            connection.close(
                JadeError(ErrorCode.CLOSED, "the connections between nodes are closed: this node is stopping")
            )
        if not self._sockets:
            self._gone.set()


def _give_up(reply: _Reply) -> None:
    if reply.give_up is None:
        return
    try:
        reply.give_up()
    except Exception as defect:
        report_defect(defect)
