"""HTTP on the wire, byte by byte: pipelining, chunks, odd and hostile clients. The server answers or closes, and goes on."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from tests.serving import ServerProcess, serving

LIMIT = 65_536


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = {"JADEVECTORDB_BODY_BYTES_MAX": str(4 << 20)}
    with serving(tmp_path_factory.mktemp("wire") / "data", env=environment) as running:
        status, _ = running.call("POST", "/v2/databases", {"name": "w", "dimension": 2})
        assert status == 201
        running.call("POST", "/v2/databases/w/vectors", {"ids": ["a", "b"], "values": [[1, 0], [0, 1]]})
        yield running


def connect(server: ServerProcess) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), 60)
    connection.settimeout(60)
    return connection


def read_answer(stream: socket.SocketIO | object) -> tuple[int, dict[str, str], bytes]:
    line = stream.readline()  # type: ignore[attr-defined]
    assert line, "the connection was closed"
    status, headers = int(line.split()[1]), {}
    while (line := stream.readline().strip()) != b"":  # type: ignore[attr-defined]
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, stream.read(int(headers.get("content-length", "0")))  # type: ignore[attr-defined]


def exchange(server: ServerProcess, *parts: bytes, answers: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    with closing(connect(server)) as connection, connection.makefile("rb") as stream:
        for part in parts:
            connection.sendall(part)
        return [read_answer(stream) for _ in range(answers)]


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


SEARCH = post("/v2/databases/w/search", b'{"vector": [1, 0.2], "k": 1}')
STORE = post("/v2/databases/w/vectors", b'{"ids": ["a"], "values": [[1, 0]]}')
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def hit(body: bytes) -> str:
    found: str = json.loads(body)["hits"][0]["id"]
    return found


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    answers = exchange(server, (SEARCH + STORE + HEALTH) * 5 + SEARCH, answers=16)
    assert [status for status, _, _ in answers] == [200] * 16
    for i, (_, _, body) in enumerate(answers):
        kind = ("hits", "count", "status")[i % 3]
        assert kind in json.loads(body), i


def test_a_request_in_single_bytes(server: ServerProcess) -> None:
    (answer,) = exchange(server, *(SEARCH[i : i + 1] for i in range(len(SEARCH))))
    assert answer[0] == 200 and hit(answer[2]) == "a"


def test_chunked_bodies_and_expect_continue(server: ServerProcess) -> None:
    head = b"POST /v2/databases/w/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunked = head + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"vector": [1, 0\r\n3\r\n]} \r\n0\r\n\r\n'
    answers = exchange(server, chunked + SEARCH, answers=2)
    assert [hit(body) for _, _, body in answers] == ["a", "a"]
    with closing(connect(server)) as connection, connection.makefile("rb") as stream:
        body = b'{"vector": [0, 1]}'
        connection.sendall(head + f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert b"100" in stream.readline() and stream.readline() == b"\r\n"
        connection.sendall(body)
        assert hit(read_answer(stream)[2]) == "b"


def test_old_clients_and_those_that_close(server: ServerProcess) -> None:
    for request in (
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ):
        with closing(connect(server)) as connection, connection.makefile("rb") as stream:
            connection.sendall(request)
            assert read_answer(stream)[0] == 200 and stream.read() == b""


def test_head_has_headers_and_no_body(server: ServerProcess) -> None:
    with closing(connect(server)) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH)
        assert b"200" in stream.readline()
        while stream.readline() != b"\r\n":
            pass
        assert read_answer(stream)[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2/databases/w/search HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v2/databases/w/search HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v2/databases/w/search HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nBad Header\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS spoken to a plain port
        b"GET /health HTTP/1.1\r\nX: " + b"a" * (2 * LIMIT) + b"\r\n\r\n",
        b"GET /" + b"a" * (2 * LIMIT) + b" HTTP/1.1\r\n\r\n",
    ],
    ids=range(11),
)  # fmt: skip
def test_nonsense_is_refused_and_the_connection_closed(server: ServerProcess, request_bytes: bytes) -> None:
    with closing(connect(server)) as connection:
        try:
            connection.sendall(request_bytes)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            answer = b""
        assert answer == b"" or b" 4" in answer[:13], answer[:200]
        assert b"Traceback" not in answer
    assert exchange(server, HEALTH)[0][0] == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: ServerProcess) -> None:
    head = b"POST /v2/databases/w/vectors HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    (answer,) = exchange(server, head % (1 << 40))
    assert answer[0] == 413
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with closing(connect(server)) as connection, connection.makefile("rb") as stream:
        with suppress(OSError):
            connection.sendall(head.split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 200)
        with suppress(OSError):  # closed while we were still sending
            assert read_answer(stream)[0] == 413
    assert exchange(server, HEALTH)[0][0] == 200


def test_a_client_that_never_finishes_its_request_is_dropped(tmp_path: Path) -> None:
    starts = [
        b"",
        b"POST /v2/da",
        SEARCH[:-5],
        b"POST /v2/databases/w/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ]
    impatient = {"JADEVECTORDB_REQUEST_TIMEOUT_S": "1"}
    with serving(tmp_path / "data", env=impatient) as server:
        for start in starts:
            with closing(connect(server)) as connection:
                connection.sendall(start)
                rest = b"".join(iter(lambda: connection.recv(65536), b""))
                assert rest == b"" or b" 408 " in rest[:20], rest[:100]


def test_half_closed_and_vanished_clients(server: ServerProcess) -> None:
    with closing(connect(server)) as connection, connection.makefile("rb") as stream:
        connection.sendall(SEARCH)
        connection.shutdown(socket.SHUT_WR)
        assert hit(read_answer(stream)[2]) == "a"
    for _ in range(20):
        connection = connect(server)
        connection.sendall(STORE + SEARCH)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()  # a reset while the server is at work
    assert exchange(server, HEALTH)[0][0] == 200


def test_a_thousand_idle_connections_do_no_harm(server: ServerProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    idle: list[socket.socket] = []
    try:
        for _ in range(1000):
            connection = connect(server)
            connection.sendall(HEALTH)
            idle.append(connection)
        for connection in idle:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert exchange(server, SEARCH)[0][0] == 200
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_answer_names_its_request(server: ServerProcess) -> None:
    given = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc-123\r\n\r\n"
    hostile = b'GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: a b"<\r\n\r\n'
    answers = exchange(server, given + hostile, answers=2)
    assert answers[0][1]["x-request-id"] == "abc-123"
    assert answers[1][1]["x-request-id"].isalnum()


def test_other_origins_are_refused_in_open_mode(server: ServerProcess) -> None:
    for header in (b"Origin: http://evil.example", b"Host: evil.example"):
        host = b"" if header.startswith(b"Host") else b"Host: localhost\r\n"
        request = b"GET /v2/databases HTTP/1.1\r\n" + host + header + b"\r\n\r\n"
        assert exchange(server, request)[0][0] == 403, header


def test_a_stop_finishes_what_is_running_and_ends_in_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    patient = {"JADEVECTORDB_DRAIN_S": "60"}  # with nobody: an idle connection is nothing to wait for
    with serving(tmp_path_factory.mktemp("stop") / "data", env=patient) as server:
        server.call("POST", "/v2/databases", {"name": "w", "dimension": 2})
        with closing(connect(server)) as idle, closing(connect(server)) as busy:
            idle.sendall(HEALTH)
            assert idle.recv(4096).startswith(b"HTTP/1.1 200")
            busy.sendall(STORE)
            assert b"200" in busy.recv(64)
            assert server.stop(within_s=40.0) == 0
    assert "Traceback" not in server.log()


CHUNKED = (
    b"POST /v2/databases/w/vectors HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'24\r\n{"ids": ["a"], "values": [[1.0, 0]]}\r\n0\r\n\r\n'
)


@pytest.mark.parametrize("behind", [b"", b"zz\x00 rubbish\r\n\r\n", SEARCH, STORE, CHUNKED, CHUNKED[:-9]], ids=range(6))
@pytest.mark.parametrize("begun", [STORE, CHUNKED, SEARCH, STORE + STORE, CHUNKED + CHUNKED], ids=range(5))
def test_answers_to_connections_that_are_gone_leave_no_trace(
    server: ServerProcess, begun: bytes, behind: bytes
) -> None:
    for _ in range(5):
        connection = connect(server)
        connection.sendall(begun + behind)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()  # a reset while the server is at work
        with closing(connect(server)) as connection, suppress(OSError):
            connection.sendall(begun + behind)
            connection.shutdown(socket.SHUT_WR)
            assert b" 500 " not in b"".join(iter(partial(connection.recv, 65536), b""))
    assert exchange(server, STORE)[0][0] == 200
    assert "Traceback" not in server.log()
