"""gRPC clients that stop reading, give up, run out of time, break off or vanish: the server serves the others, and nothing is half-done."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from jadevectordb.model.limits import RPC_LONG_CALLS_MAX, RPC_REQUEST_BYTES_MAX
from tests.fuzz.rpcs import frame
from tests.hosting_world import WAIT_S, wait_until
from tests.rpc_world import Caller, packed
from tests.serving import ServerProcess, serving

STREAM_S = 300.0
DIMENSION = 256
ROWS = 6000  # some 6 MB of vectors: far more than a stream takes that nobody reads


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("gone") / "data") as running, grpc.insecure_channel(running.grpc) as channel:
        call = Caller(channel)
        call("DatabaseService/CreateDatabase", name="d", dimension=DIMENSION)
        call("DatabaseService/CreateDatabase", name="w", dimension=2)
        vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSION))
        columns = {"ids": [f"v{n:05}" for n in range(ROWS)], "vectors": {"packed": packed(vectors)}}
        call("VectorService/UpsertVectors", database="d", columns=columns)
        yield running
        assert "Traceback" not in running.log()
        assert running.stop() == 0


@pytest.fixture
def call(server: ServerProcess) -> Iterator[Caller]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield Caller(channel)


def scroll(call: Caller) -> Any:
    method, request = call.method(
        "VectorService/ScrollVectors", "unary_stream", database="d", include={"vector": True}, page_size=500
    )
    return method(request, timeout=STREAM_S)


def is_healthy(server: ServerProcess) -> None:
    """A new client is served, over both doors."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = Caller(channel)
        assert call("VectorService/CountVectors", database="d").count == ROWS
        assert sum(len(page.vectors) for page in scroll(call)) == ROWS
    assert server.call("GET", "/health")[0] == 200


def test_clients_that_stop_reading_hold_up_nobody(server: ServerProcess, call: Caller) -> None:
    with ExitStack() as open_channels:
        stalled = []
        for _ in range(RPC_LONG_CALLS_MAX):
            # A client that grows its window with the connection's speed might take in a whole stream without anybody reading it
            options = [("grpc.http2.bdp_probe", 0)]
            channel = open_channels.enter_context(grpc.insecure_channel(server.grpc, options=options))
            stream = scroll(Caller(channel))
            assert next(stream).vectors
            stalled.append(stream)
        # As many streams as there may be stand still; calls that end soon have threads of their own
        for _ in range(20):
            assert call("VectorService/CountVectors", database="d").count == ROWS
        with pytest.raises(grpc.RpcError) as caught:
            next(scroll(call))
        assert caught.value.code().name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
        for stream in stalled[::2]:
            stream.cancel()
    is_healthy_soon(server)


def is_healthy_soon(server: ServerProcess) -> None:
    """Streams that were given up free their places within moments, not at once."""

    def is_well() -> bool:
        try:
            is_healthy(server)
        except grpc.RpcError as error:
            assert error.code().name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"), error
            return False
        return True

    wait_until(is_well)


def test_calls_given_up_or_out_of_time_are_whole_or_nothing(server: ServerProcess, call: Caller) -> None:
    method, _ = call.method("VectorService/UpsertVectors")
    under_way = []
    for number in range(200):
        ids = [f"{number}-{n}" for n in range(50)]
        columns = {"ids": ids, "vectors": {"packed": packed(np.full((50, 2), number + 1))}}
        request = call.method("VectorService/UpsertVectors", database="w", columns=columns)[1]
        under_way.append(method.future(request, timeout=0.02 if number % 2 else 20))
        if number % 4 == 0:
            under_way[-1].cancel()
    done = sum(one.code() is grpc.StatusCode.OK for one in under_way)
    found = settled(call, "w")
    batches = {name.partition("-")[0] for name in found}
    assert len(found) == 50 * len(batches), "part of a batch is there"
    assert len(batches) >= done
    for number, one in enumerate(under_way):
        if one.code() is grpc.StatusCode.OK:
            assert str(number) in batches
        elif number % 2:
            assert one.code().name in ("DEADLINE_EXCEEDED", "CANCELLED")
    is_healthy_soon(server)


def all_of(call: Caller, database: str) -> Any:
    method, request = call.method("VectorService/ScrollVectors", "unary_stream", database=database)
    return method(request, timeout=STREAM_S)


def settled(call: Caller, database: str) -> set[str]:
    """Ids that are stored once nothing is written any more: calls that were given up may be under way in the server for a while,
    and one that is carried out while pages are read is seen on those that follow.
    """
    before: set[str] | None = None

    def is_settled() -> bool:
        nonlocal before
        found, before = before, {v.id for page in all_of(call, database) for v in page.vectors}
        return found == before

    wait_until(is_settled)
    assert before is not None
    return before


DIES = """
import os, sys
import grpc, numpy as np
from tests.hosting_world import WAIT_S, wait_until
from tests.rpc_world import Caller, packed
channel = grpc.insecure_channel(sys.argv[1])
call = Caller(channel)
def requests():
    number = 0
    while True:
        columns = {"ids": [f"dead{number}-{n}" for n in range(20)], "vectors": {"packed": packed(np.ones((20, 2)))}}
        yield call.method("VectorService/BulkUpsert", database="w", columns=columns)[1]
        number += 1
method, _ = call.method("VectorService/BulkUpsert", "stream_stream")
for answer in method(requests(), timeout=240):
    if answer.message >= 5:
        os._exit(9)
"""


def test_a_client_that_dies_in_a_stream_leaves_whole_batches(server: ServerProcess, call: Caller) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", DIES, server.grpc],
            cwd=Path(__file__).parents[2],
            timeout=240,
            check=False,
            capture_output=True,
        )
        assert done.returncode == 9, done.stderr
    found = [name for name in settled(call, "w") if name.startswith("dead")]
    batches = {name.partition("-")[0] for name in found}
    assert len(found) == 20 * len(batches) and len(batches) >= 6
    is_healthy_soon(server)


def test_unknown_methods_and_messages_that_are_too_large(server: ServerProcess, call: Caller) -> None:
    for path in ("/x/y", "/jadevectordb.v1.VectorService/Nothing", "/", "/jadevectordb.v1.VectorService/countvectors"):
        with pytest.raises(grpc.RpcError) as caught:
            call.channel.unary_unary(path)(b"", timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        call.channel.unary_unary("/jadevectordb.v1.VectorService/UpsertVectors")(
            bytes(RPC_REQUEST_BYTES_MAX + 1), timeout=120
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call("VectorService/CountVectors", database="d").count == ROWS
    is_healthy(server)


HEADERS = frame(1, 4, 1, b"\x83\x86\x45\x01/\x41\x01x")  # POST http / of authority x
SAID = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        SAID[:10],
        SAID + b"\xff\xff\xff" + bytes(6),  # a frame of 16 MB that never comes
        SAID + frame(4, 0, 0, b"\x00\x04\xff\xff\xff\xff"),  # a window beyond all bounds
        SAID + frame(1, 4, 1, b"\xff" * 200),  # headers that HPACK can't read
        SAID + HEADERS + frame(0, 0, 1, struct.pack(">BI", 0, 2**32 - 1) + b"x"),  # a message of 4 GB begins
        SAID + HEADERS + frame(0, 1, 1, struct.pack(">BI", 1, 3) + b"abc"),  # compressed, but not
        SAID + HEADERS + frame(3, 0, 1, bytes(4)) * 50,
        SAID
        + b"".join(
            frame(1, 4, 2 * n + 1, b"\x83\x86\x45\x01/\x41\x01x") + frame(3, 0, 2 * n + 1, bytes(4))
            for n in range(2000)
        ),
        SAID + frame(6, 0, 0, bytes(8)) * 5000,  # a flood of pings
        SAID + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3,
        SAID + frame(9, 0, 1, b"x" * 1000) * 200,  # headers without a beginning or an end
    ],
    ids=range(12),
)
def test_broken_frames_end_their_connection_only(server: ServerProcess, sent: bytes) -> None:
    host, _, port = server.grpc.rpartition(":")
    for _ in range(3):
        with closing(socket.create_connection((host, int(port)), WAIT_S)) as connection:
            connection.settimeout(WAIT_S)
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
            except TimeoutError:
                raise AssertionError("the connection stayed open") from None
            except OSError:
                pass
    with grpc.insecure_channel(server.grpc) as channel:
        assert Caller(channel)("VectorService/CountVectors", database="d").count == ROWS
