"""What a node's port meets beside its peers: strangers, damaged streams, misconfigured nodes, slow readers. Others notice nothing."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import msgspec
import pytest

from jadevectordb.adapters import framed_wire as wire
from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NONCE_BYTES, Greeting, NodeIdentity, Side
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.adapters.loop_thread import LoopThread
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NODE_CALLS_MAX, NODE_FRAME_BYTES_MAX, NODE_PEER_IDLE_S_MAX, NODE_UNSENT_BYTES_HIGH
from jadevectordb.ports.node_calls import (
    NUMBERS,
    Asked,
    Count,
    Counted,
    Failure,
    Get,
    Ping,
    Pong,
    SnapshotRead,
)
from tests.transport_world import IDENTITY, WAIT_S, Answers, Scripted, answering, ask, asking, begin, in_loop

T = TypeVar("T")
COUNT = Count(asked=Asked(database="d", shards=(0,)))


class RawNode:
    """The asking end by hand, on a plain socket."""

    def __init__(self, address: str, identity: NodeIdentity = IDENTITY) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self._splitter = wire.Splitter(NODE_FRAME_BYTES_MAX)
        self._frames: list[tuple[int, int, int, bytes]] = []
        self.greeting = Greeting(Side.ASKER, identity, os.urandom(NONCE_BYTES))

    def greet(self) -> RawNode:
        frames = self.greeting.begin()
        while not self.greeting.is_done:
            for kind, payload in frames:
                self.send(0, kind, 0, payload)
            _, kind, _, received = self.receive()
            frames = self.greeting.receive(kind, memoryview(received))
        return self

    def send(self, number: int, kind: int, code: int, payload: bytes = b"") -> None:
        self.socket.sendall(b"".join(wire.pack(number, kind, code, payload)))

    def call(self, number: int, call: msgspec.Struct) -> None:
        self.send(number, wire.CALL, NUMBERS[type(call)], wire.encode(call))

    def receive(self) -> tuple[int, int, int, bytes]:
        while not self._frames:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._frames = [(*frame[:3], bytes(frame[3])) for frame in self._splitter.feed(data)]
        return self._frames.pop(0)

    def receive_answer(self) -> tuple[int, int, int, bytes]:
        """The next frame that is no ping."""
        while (frame := self.receive())[1] == wire.PING:
            pass
        return frame

    def receive_end(self) -> str:
        """The sentence of a refusal, if there is one, and then the end of the connection."""
        sentence = ""
        try:
            while True:
                _, kind, _, payload = self.receive()
                if kind == wire.REFUSAL:
                    sentence = msgspec.msgpack.decode(payload, type=Failure).message
                else:
                    assert kind == wire.PING
        except (EOFError, ConnectionError):
            return sentence

    def close(self) -> None:
        self.socket.close()


def with_greeted(server: FramedServer, exchange: Callable[[RawNode], T]) -> T:
    """What it comes to over a connection that is greeted; begun anew when the machine was so slow that the server gave it up."""
    for _ in range(8):
        with suppress(EOFError, ConnectionError), closing(RawNode(server.address)) as node:
            return exchange(node.greet())
    raise AssertionError("the connection was given up every time")


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def server(scripted: Scripted) -> Iterator[FramedServer]:
    with answering(scripted) as server:
        yield server


def is_well(server: FramedServer, scripted: Scripted) -> bool:
    scripted.at_once = scripted.pong
    with asking() as transport:
        answer: Pong = ask(transport, server.address, Ping())
    return answer == scripted.pong(Ping())


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),  # TLS to a node without
        b"\x00\x00\x00\x00" * 4,
        b"\xff" * 64,
        struct.pack(">IIBB", 6, 0, wire.HELLO, 0),
        struct.pack(">IIBB", 6, 1, wire.CALL, 1),
        struct.pack(">IIBB", 6 + 32, 1, wire.PROOF, 0) + bytes(32),
        struct.pack(">IIBB", 6, 1, wire.PING, 0),
        b"".join(wire.pack(0, wire.HELLO, 0, wire.encode(["jade nodes", 1, 1, "c1", "n", b"short"]))),
        b"".join(wire.pack(0, wire.HELLO, 0, wire.encode(["redis", 1, 1, "c1", "n", bytes(32)]))),
    ],
)
def test_strangers_are_told_and_thrown_out(server: FramedServer, scripted: Scripted, garbage: bytes) -> None:
    with closing(RawNode(server.address)) as stranger:
        stranger.socket.sendall(garbage)
        assert stranger.receive_end()
    assert is_well(server, scripted)


def test_who_says_nothing_or_half_a_greeting_is_thrown_out(server: FramedServer, scripted: Scripted) -> None:
    with closing(RawNode(server.address)) as silent, closing(RawNode(server.address)) as half:
        ((kind, hello),) = half.greeting.begin()
        half.socket.sendall(b"".join(wire.pack(0, kind, 0, hello))[:20])
        assert is_well(server, scripted)
        assert silent.receive_end() == "" and half.receive_end() == ""
    assert not scripted._calls


@pytest.mark.parametrize(
    ("identity", "cause", "words"),
    [
        (NodeIdentity("n9", "c1", "another"), "UNAUTHORIZED", "different cluster secrets"),
        (NodeIdentity("n9", "c2", "secret"), "CONFLICT", "belongs to cluster c2"),
    ],
)
def test_a_misconfigured_node_is_told_and_the_log_says_so(
    server: FramedServer,
    scripted: Scripted,
    caplog: pytest.LogCaptureFixture,
    identity: NodeIdentity,
    cause: str,
    words: str,
) -> None:
    with caplog.at_level(logging.WARNING, "jadevectordb.nodes"), asking(identity) as transport:
        for _ in range(2):
            error = refused(transport, server.address, words)
            assert error.details["cause"] == cause and error.details["sent"] is False
        (state,) = transport.peers()
        assert not state.connected and words in state.refusal
    assert any(words in record.message and "was refused" in record.message for record in caplog.records)
    assert any(words in record.message and "no connection" in record.message for record in caplog.records)
    assert not scripted._calls and is_well(server, scripted)


def refused(transport: FramedTransport, address: str, words: str) -> JadeError:
    """How a call was refused, as soon as those words are heard; on a busy machine greeting may have taken too long before."""
    until_s = time.monotonic() + WAIT_S
    while True:
        with pytest.raises(JadeError) as raised:
            transport.call(address, Ping(), WAIT_S)
        assert raised.value.code is ErrorCode.UNAVAILABLE
        if words in raised.value.message:
            return raised.value
        assert time.monotonic() < until_s, raised.value


def test_a_node_that_can_not_prove_itself_is_not_asked() -> None:
    """It greets like a node of this cluster, and sends a made-up proof."""

    def pretend(connection: socket.socket) -> None:
        false = Greeting(Side.ANSWERER, IDENTITY, os.urandom(NONCE_BYTES))
        splitter, frames = wire.Splitter(4096), []
        while not frames:
            frames = splitter.feed(connection.recv(4096))
        ((kind, hello),) = false.receive(frames[0][1], frames[0][3])
        connection.sendall(b"".join(wire.pack(0, kind, 0, hello)) + b"".join(wire.pack(0, wire.PROOF, 0, bytes(32))))
        while connection.recv(4096):
            pass

    with pretending(pretend) as address, asking() as transport:
        error = refused(transport, address, "different cluster secrets")
        assert error.details == {"sent": False, "address": address, "cause": "UNAUTHORIZED"}


@contextmanager
def pretending(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listener that treats each connection with `act`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(WAIT_S)
                        with suppress(ConnectionError):
                            act(connection)
            except OSError:  # the listener is closed
                pass

        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_port_that_accepts_and_never_greets(server: FramedServer, scripted: Scripted) -> None:
    scripted.at_once = scripted.pong
    with socket.create_server(("127.0.0.1", 0)) as mute, asking() as transport:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        answers = Answers()
        begin(transport, address, Ping(), answers)
        assert ask(transport, server.address, Ping())  # meanwhile others are asked
        error = answers.error()
    assert error.code is ErrorCode.UNAVAILABLE and error.details["sent"] is False and "greeting" in error.message


def test_a_call_that_waits_for_a_connection_times_out_unsent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, asking() as transport:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(JadeError) as raised:
            transport.call(address, Ping(), 0.05)
    assert raised.value.code is ErrorCode.TIMEOUT and raised.value.details["sent"] is False


class JumpingClock(SystemClock):
    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


def test_a_node_that_is_gone_and_not_asked_any_more_is_forgotten(scripted: Scripted) -> None:
    scripted.at_once = scripted.pong
    clock = JumpingClock()
    transport = FramedTransport(IDENTITY, clock)
    with answering(scripted) as server:
        ask(transport, server.address, Ping())
    with pytest.raises(JadeError):
        transport.call(server.address, Ping(), WAIT_S)
    assert transport.peers()
    clock.ahead_s = NODE_PEER_IDLE_S_MAX + 1
    wait_until(lambda: not transport.peers())
    with answering(scripted, port=server.port):
        assert ask(transport, server.address, Ping())  # known anew, and waited for
    transport.close()


def test_a_call_byte_by_byte(server: FramedServer, scripted: Scripted) -> None:
    scripted.at_once = scripted.pong

    def exchange(node: RawNode) -> list[tuple[int, int]]:
        node.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"".join(wire.pack(5, wire.CALL, 1, wire.encode(Ping()))) * 2:
            node.socket.sendall(bytes([byte]))
        return [node.receive_answer()[:2] for _ in range(2)]

    assert with_greeted(server, exchange) == [(5, wire.ANSWER)] * 2


def test_half_a_call_and_gone(server: FramedServer, scripted: Scripted) -> None:
    def exchange(node: RawNode) -> None:
        node.call(1, COUNT)
        node.socket.sendall(b"".join(wire.pack(2, wire.CALL, 5, wire.encode(COUNT)))[:-3])
        scripted.next()

    with_greeted(server, exchange)
    assert scripted.wait_given_up(1) == [COUNT]
    assert is_well(server, scripted) and not scripted._calls


@pytest.mark.parametrize(
    "violation",
    [
        b"".join(wire.pack(1, wire.ANSWER, 0, b"")),
        b"".join(wire.pack(1, 99, 0, b"")),
        b"".join(wire.pack(7, wire.CALL, 5, wire.encode(COUNT))),  # begun already
        struct.pack(">IIBB", NODE_FRAME_BYTES_MAX + 7, 1, wire.CALL, 1),
        struct.pack(">IIBB", 5, 1, wire.CALL, 1),
    ],
)
def test_a_node_that_breaks_the_protocol_is_told_and_thrown_out(
    server: FramedServer, scripted: Scripted, violation: bytes
) -> None:
    def exchange(node: RawNode) -> str:
        node.call(7, COUNT)
        scripted.next()
        node.socket.sendall(violation)
        sentence = node.receive_end()
        if not sentence:
            raise EOFError
        return sentence

    assert with_greeted(server, exchange)
    assert COUNT in scripted.wait_given_up(1)
    assert is_well(server, scripted)


def test_calls_that_can_not_be_read_are_refused_one_by_one(server: FramedServer, scripted: Scripted) -> None:
    scripted.at_once = scripted.pong

    def exchange(node: RawNode) -> list[tuple[int, int, int, bytes]]:
        node.send(1, wire.CALL, 200, b"")
        node.send(2, wire.CALL, 5, b"\xc1 no msgpack")
        node.send(3, wire.CALL, 5, wire.encode(["wrong", "types"]))
        node.send(4, wire.CANCEL, 0)  # of nothing
        node.call(5, Ping())
        return [node.receive_answer() for _ in range(4)]

    answers = with_greeted(server, exchange)
    assert [(number, kind) for number, kind, _, _ in answers] == [
        (1, wire.ERROR),
        (2, wire.ERROR),
        (3, wire.ERROR),
        (5, wire.ANSWER),
    ]
    codes = [msgspec.msgpack.decode(payload, type=Failure).code for _, _, _, payload in answers[:3]]
    assert codes == ["NOT_IMPLEMENTED", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]


def test_a_reader_that_takes_nothing_is_given_up(server: FramedServer, scripted: Scripted) -> None:
    """What waits for it stays bounded: it is not read from either, and its further calls are not begun."""
    begun = []

    def zeros(call: Any) -> bytes:
        begun.append(call)
        return bytes(call.length)

    scripted.at_once = zeros
    with closing(RawNode(server.address).greet()) as node:
        node.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        node.socket.settimeout(0.5)
        read = SnapshotRead(snapshot="s", path="p", offset=0, length=4 << 20)
        number = 0
        with pytest.raises(OSError):
            while True:
                number += 1
                node.call(number, read)
        assert number * read.length > 2 * NODE_UNSENT_BYTES_HIGH  # far more was asked for
        wait_until(lambda: server.connections == 0)
        kernel_bytes = 16 << 20  # what sockets may hold beside
        assert len(begun) * read.length <= NODE_UNSENT_BYTES_HIGH + read.length + kernel_bytes
    assert is_well(server, scripted)


def test_a_slow_reader_gets_everything(server: FramedServer, scripted: Scripted) -> None:
    """Slower than the time after which a silent node is given up, and its ends say nothing else meanwhile."""
    scripted.at_once = lambda call: bytes([call.offset]) * call.length
    calls, length = 6, 8 << 20

    def exchange(node: RawNode) -> bytearray:
        for number in range(calls):
            node.call(number, SnapshotRead(snapshot="s", path="p", offset=number, length=length))
        received = bytearray()
        until_s = time.monotonic() + 4.5
        while len(received) < calls * (length + wire.HEADER_BYTES):
            data = node.socket.recv(1 << 19)
            if not data:
                raise EOFError
            received += data
            if time.monotonic() < until_s:
                time.sleep(0.08)
        return received

    frames = wire.Splitter(length).feed(bytes(with_greeted(server, exchange)))
    answers = {number: bytes(payload) for number, kind, _, payload in frames if kind == wire.BYTES_ANSWER}
    assert answers == {number: bytes([number]) * length for number in range(calls)}


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_too_many_calls_under_way_are_refused_before_they_are_sent(server: FramedServer, scripted: Scripted) -> None:
    answers = Answers()
    with asking() as transport:

        def begin_all() -> None:
            for number in range(NODE_CALLS_MAX + 5):
                transport.begin(server.address, COUNT, WAIT_S, answers.into(number))

        scripted.at_once = scripted.pong
        ask(transport, server.address, Ping())
        scripted.at_once = None
        in_loop(transport, begin_all)
        for _, _, error in answers.wait(5):
            assert isinstance(error, JadeError)
            assert error.code is ErrorCode.UNAVAILABLE and error.details["sent"] is False
        for _ in range(NODE_CALLS_MAX):
            scripted.next()[1](Counted(count=1), None)
        answers.wait(NODE_CALLS_MAX + 5)
        begin(transport, server.address, COUNT, answers)
        scripted.next()[1](Counted(count=2), None)
        assert answers.wait(NODE_CALLS_MAX + 6)[-1][1] == Counted(count=2)


def test_no_more_connections_than_are_allowed(scripted: Scripted) -> None:
    scripted.at_once = scripted.pong
    server = FramedServer("127.0.0.1", 0, scripted, IDENTITY, connections_max=1)
    with asking() as first, asking() as second:
        assert ask(first, server.address, Ping())
        refused(second, server.address, "1 connections already")
        assert ask(first, server.address, Ping())
    server.close()


def test_what_fits_no_frame_is_an_error_of_that_call_alone(server: FramedServer, scripted: Scripted) -> None:
    scripted.at_once = lambda call: bytes(call.length) if isinstance(call, SnapshotRead) else scripted.pong(call)
    with asking() as transport:
        read = SnapshotRead(snapshot="s", path="p", offset=0, length=NODE_FRAME_BYTES_MAX + 1)
        ask(transport, server.address, Ping())
        connections = transport.peers()[0].connections
        with pytest.raises(JadeError) as raised:
            ask(transport, server.address, read)
        assert raised.value.code is ErrorCode.REQUEST_TOO_LARGE
        large = Get(asked=COUNT.asked, ids=("x" * (NODE_FRAME_BYTES_MAX + 1),))
        with pytest.raises(JadeError) as raised:
            ask(transport, server.address, large)
        assert raised.value.code is ErrorCode.REQUEST_TOO_LARGE
        assert transport.peers()[0].connections == connections
        read = SnapshotRead(snapshot="s", path="p", offset=0, length=NODE_FRAME_BYTES_MAX)
        assert ask(transport, server.address, read) == bytes(NODE_FRAME_BYTES_MAX)


@pytest.mark.parametrize("address", ["", "nowhere", "host:", ":1", "h:0", "h:70000", "h:-1", "h:1x"])
def test_what_is_no_address(address: str) -> None:
    with asking() as transport, pytest.raises(JadeError) as raised:
        transport.call(address, Ping(), WAIT_S)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_port_that_is_taken(server: FramedServer, scripted: Scripted) -> None:
    with pytest.raises(JadeError, match=str(server.port)) as raised:
        FramedServer("127.0.0.1", server.port, scripted, IDENTITY)
    assert raised.value.code is ErrorCode.UNAVAILABLE


def test_closing_lets_calls_end_first(scripted: Scripted) -> None:
    answers = Answers()
    with answering(scripted) as server, asking() as transport:
        scripted.at_once = scripted.pong
        ask(transport, server.address, Ping())
        scripted.at_once = None
        begin(transport, server.address, COUNT, answers, 1)
        _, reply = scripted.next()
        closing = threading.Thread(target=server.close, args=(WAIT_S,))
        closing.start()
        wait_until(lambda: server.is_stopping)
        with pytest.raises(JadeError, match="stopping") as raised:
            transport.call(server.address, Ping(), WAIT_S)
        assert raised.value.code is ErrorCode.UNAVAILABLE and raised.value.details["sent"] is False
        assert closing.is_alive()
        reply(Counted(count=3), None)
        closing.join()
        assert answers.wait(1)[0][1] == Counted(count=3)
        server.close()


def test_one_loop_for_both_ends(scripted: Scripted) -> None:
    scripted.at_once = scripted.pong
    loop = LoopThread("jade-both")
    server = FramedServer("127.0.0.1", 0, scripted, IDENTITY, loop=loop)
    transport = FramedTransport(IDENTITY, SystemClock(), loop=loop)
    assert ask(transport, server.address, Ping()) == scripted.pong(Ping())
    transport.close()
    server.close()
    loop.close()
    loop.close()
