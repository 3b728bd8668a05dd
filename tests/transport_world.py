"""Nodes that answer each other's calls on this machine: a transport, servers, and an answerer that does what a test tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_connection import PATIENCE, Patience
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Ping, Pong
from jadevectordb.ports.transport import Pending, Transport

WAIT_S = 60.0  # for what must come: a machine may be slow
PATIENT = Patience(WAIT_S, WAIT_S, int(WAIT_S))  # where silence is not what is tested
Reply = Callable[[Any, Exception | None], None]


class Scripted:
    """An answerer that keeps calls until the test answers them, or answers at once by `at_once`."""

    def __init__(self, node: str = "answerer") -> None:
        self.node = node
        self.at_once: Callable[[Any], Any] | None = None  # what it raises is the error
        self._changed = threading.Condition()
        self._calls: list[tuple[Any, Reply]] = []
        self.given_up: list[Any] = []

    def answer(self, call: msgspec.Struct, reply: Reply) -> Callable[[], None] | None:
        if self.at_once is not None:
            reply(self.at_once(call), None)
            return None
        with self._changed:
            self._calls.append((call, reply))
            self._changed.notify_all()

        def give_up() -> None:
            with self._changed:
                self.given_up.append(call)
                self._changed.notify_all()

        return give_up

    def next(self) -> tuple[Any, Reply]:
        with self._changed:
            assert self._changed.wait_for(lambda: self._calls, WAIT_S), "no call came"
            return self._calls.pop(0)

    def wait_given_up(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.given_up) >= count, WAIT_S), "nothing was given up"
            return list(self.given_up)

    def pong(self, call: Any) -> Pong:
        assert isinstance(call, Ping)
        return Pong(node=self.node, incarnation="1", map_version=7)


class Answers:
    """Collects what comes to callbacks: (name, answer, error), in order, and the thread each came in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.all: list[tuple[object, Any, Exception | None]] = []
        self.threads: set[int] = set()

    def into(self, name: object) -> Callable[[Any, Exception | None], None]:
        def on_answer(answer: Any, error: Exception | None) -> None:
            with self._changed:
                self.all.append((name, answer, error))
                self.threads.add(threading.get_ident())
                self._changed.notify_all()

        return on_answer

    def wait(self, count: int) -> list[tuple[object, Any, Exception | None]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, WAIT_S), f"{len(self.all)} of {count} came"
            return list(self.all)

    def error(self, count: int = 1) -> JadeError:
        error = self.wait(count)[count - 1][2]
        assert isinstance(error, JadeError), error
        return error


def in_loop(transport: Transport, action: Callable[[], Any]) -> Any:
    """What `action` returns or raises, called in the transport's loop."""
    done = threading.Event()
    result: list[Any] = []

    def act() -> None:
        try:
            result.append(action())
        except BaseException as error:
            result.append(error)
        done.set()

    transport.run(act)
    assert done.wait(WAIT_S)
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def begin(
    transport: Transport,
    address: str,
    call: msgspec.Struct,
    answers: Answers,
    name: object = "",
    timeout_s: float = WAIT_S,
) -> Pending:
    pending: Pending = in_loop(transport, lambda: transport.begin(address, call, timeout_s, answers.into(name)))
    return pending


def ask(transport: Transport, address: str, call: msgspec.Struct) -> Any:
    """The answer. On a busy machine either side may be silent for so long that the connection is given up: then it is asked again."""
    until_s = transport.now_s() + WAIT_S
    while True:
        try:
            return transport.call(address, call, WAIT_S)
        except JadeError as error:
            if error.code is not ErrorCode.UNAVAILABLE or transport.now_s() >= until_s:
                raise
        threading.Event().wait(0.01)


IDENTITY = NodeIdentity("answerer", "c1", "secret")
ASKER = NodeIdentity("asker", "c1", "secret")


@contextmanager
def answering(
    answerer: Any,
    identity: NodeIdentity = IDENTITY,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: TlsFiles | None = None,
    patience: Patience = PATIENCE,
) -> Iterator[FramedServer]:
    server = FramedServer(host, port, answerer, identity, tls=tls, patience=patience)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def asking(
    identity: NodeIdentity = ASKER, *, tls: TlsFiles | None = None, patience: Patience = PATIENCE
) -> Iterator[FramedTransport]:
    transport = FramedTransport(identity, SystemClock(), tls=tls, patience=patience)
    try:
        yield transport
    finally:
        transport.close()
