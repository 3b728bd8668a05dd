"""The clients against a server that behaves badly, on real sockets: cut answers, closed connections, slowness, refusals.

The server follows a script: for each connection a list of steps, each the answer to one request, or what to do instead.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from jadevectordb import AsyncClient, Client, JadeError, Retries, Timeouts
from jadevectordb.client.aio import AsyncDatabase
from jadevectordb.client.database_calls import DatabaseCalls
from jadevectordb.client.sync import Database
from jadevectordb.client.values import DatabaseInfo
from jadevectordb.model.errors import ErrorCode

INFO = b'{"version":"9"}'
QUICK = Retries(attempts_max=3, backoff_s=0.001, backoff_s_max=0.002)


def answer(body: bytes = INFO, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


GOOD = answer()
CUT = GOOD[:-3]
CLOSE = b""  # close without a word
Step = bytes | Callable[[socket.socket], None]


class Script:
    """A server with one script a connection, in order; the last one serves all further connections."""

    def __init__(self, *connections: list[Step], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.accepted = 0
        self._connections = connections
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        with ThreadPoolExecutor(8) as threads:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                steps = self._connections[min(self.accepted, len(self._connections) - 1)]
                self.accepted += 1
                self._open.append(connection)
                threads.submit(self._follow, connection, steps)

    def _follow(self, connection: socket.socket, steps: list[Step]) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            for step in steps:
                request = _request(connection)
                if request is None:
                    return
                self.requests.append(request)
                if callable(step):
                    step(connection)
                    continue
                connection.sendall(step)
                if step in (CUT, CLOSE):
                    return
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join()


def _request(connection: socket.socket) -> bytes | None:
    """One request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            return None
        body += part
    return head + b"\r\n\r\n" + body


@contextmanager
def script(*connections: list[Step], tls: ssl.SSLContext | None = None) -> Iterator[Script]:
    made = Script(*connections, tls=tls)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["sync", "async"])
def info(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Ask a server for its version so many times over one client: the last answer's."""

    def with_threads(url: str, times: int = 1, **options: Any) -> str:
        with Client(url, **{"retries": QUICK, **options}) as client:
            return [client.info().version for _ in range(times)][-1]

    def with_tasks(url: str, times: int = 1, **options: Any) -> str:
        async def ask() -> str:
            async with AsyncClient(url, **{"retries": QUICK, **options}) as client:
                return [(await client.info()).version for _ in range(times)][-1]

        return asyncio.run(ask())

    return with_threads if request.param == "sync" else with_tasks


def failure(function: Callable[..., Any], *arguments: Any, **options: Any) -> JadeError:
    with pytest.raises(JadeError) as raised:
        function(*arguments, **options)
    return raised.value


def test_one_connection_carries_many_calls(info: Callable[..., Any]) -> None:
    with script([GOOD] * 5) as server:
        assert info(server.url, 5) == "9"
        assert server.accepted == 1


def test_answers_in_pieces(info: Callable[..., Any]) -> None:
    def byte_by_byte(connection: socket.socket) -> None:
        for i in range(len(GOOD)):
            connection.sendall(GOOD[i : i + 1])

    def in_chunks(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(INFO), 4):
            part = INFO[i : i + 4]
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n")

    with script([byte_by_byte, in_chunks, GOOD]) as server:
        assert info(server.url, 3) == "9"
        assert server.accepted == 1


def test_a_kept_connection_that_the_server_closed(info: Callable[..., Any]) -> None:
    """The second call finds the connection closed, at whatever moment it notices, and takes a new one."""
    with script([GOOD], [GOOD], [GOOD, CLOSE], [GOOD] * 9) as server:
        assert info(server.url, 6, retries=Retries(attempts_max=1)) == "9"


def test_an_answer_that_says_close(info: Callable[..., Any]) -> None:
    closing = answer(INFO, "200 OK", "Connection: close")
    with script([closing], [GOOD]) as server:
        assert info(server.url, 2, retries=Retries(attempts_max=1)) == "9"
        assert server.accepted == 2


def test_cut_answers_are_asked_for_again(info: Callable[..., Any]) -> None:
    with script([CUT], [CLOSE], [GOOD]) as server:
        assert info(server.url) == "9"
        assert len(server.requests) == 3
    with script([CUT]) as server:
        assert failure(info, server.url).code is ErrorCode.UNAVAILABLE
        assert len(server.requests) == QUICK.attempts_max


def test_busy_servers_are_given_the_time_they_ask_for(info: Callable[..., Any]) -> None:
    busy = answer(b'{"code":"RATE_LIMITED","message":"m"}', "429 Too Many Requests", "Retry-After: 0")
    with script([busy, busy, GOOD]) as server:
        assert info(server.url) == "9"
    long = answer(b'{"code":"UNAVAILABLE","message":"m"}', "503 Service Unavailable", "Retry-After: 120")
    with script([long, GOOD]) as server:
        error = failure(info, server.url, timeout=60.0)
        assert (error.code, error.details["retry_after_s"]) == (ErrorCode.UNAVAILABLE, 120.0)
        assert len(server.requests) == 1


def test_silence_runs_into_the_timeout(info: Callable[..., Any]) -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1)

    def drips(connection: socket.socket) -> None:
        connection.sendall(GOOD[:20])
        connection.recv(1)

    for step in (silent, drips):
        with script([step]) as server:
            error = failure(info, server.url, timeout=Timeouts(1.0, 0.1, 0.25))
            assert error.code is ErrorCode.TIMEOUT
            assert error.retryable
    with script([silent], [GOOD]) as server:
        often = Retries(10, 0.1, 30.0)  # the good server, too, may keep silent for a while
        assert info(server.url, timeout=Timeouts(5.0, 0.1, 60.0), retries=often) == "9"


def test_nobody_listens(info: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(info, f"http://127.0.0.1:{port}")
    assert (error.code, error.details["phase"]) == (ErrorCode.UNAVAILABLE, "connect")
    assert "is the server running" in error.message
    assert failure(info, "http://no.such.host.invalid").code is ErrorCode.UNAVAILABLE


def test_what_is_no_server(info: Callable[..., Any]) -> None:
    for said in (b"SSH-2.0-OpenSSH\r\n\r\n", answer(b"<html>hello</html>"), answer(b'{"versio":1}')):
        with script([said]) as server:
            error = failure(info, server.url)
            assert error.code is ErrorCode.IO_ERROR
            assert "URL" in error.message


def test_what_must_not_be_done_twice_is_sent_once() -> None:
    with script([CUT], [GOOD]) as server, Client(server.url, retries=QUICK) as client:
        assert failure(client.create_database, "a", 2).code is ErrorCode.UNAVAILABLE
        assert len(server.requests) == 1


def test_writes_are_tried_again_under_one_request_id() -> None:
    done = answer(
        b'{"count":1,"session":"db_1~0.5","version":5,"duplicate":true}', "200 OK", "X-Jade-Session: db_1~0.5"
    )
    with script([CUT], [done, done]) as server, Client(server.url, retries=QUICK) as client:
        db = Database(client, DatabaseInfo("db_1", "words", 2, "cosine"))
        result = db.upsert(["a"], [[1.0, 2.0]])
        assert (result.count, result.duplicate, db.session) == (1, True, "db_1~0.5")
        first, second = server.requests
        assert first == second
        assert b'"request_id":"' in first
        db.delete(["a"])
        assert b"\r\nX-Jade-Session: db_1~0.5\r\n" in server.requests[-1]
        assert server.requests[-1].partition(b"request_id")[2] != first.partition(b"request_id")[2]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_large_body_that_is_refused_before_it_is_read(kind: str) -> None:
    """The server answers after the head and closes: the refusal is what the caller sees, not the broken connection."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(
            answer(b'{"code":"REQUEST_TOO_LARGE","message":"too large"}', "413 Payload Too Large", "Connection: close")
        )
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):  # the rest of the body, as a server that lingers does
            pass

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            refuse(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ids, rows = [str(i) for i in range(5000)], np.ones((5000, 1000), np.float32)
    where = DatabaseInfo("db_1", "words", 1000, "cosine")

    async def with_tasks() -> None:
        async with AsyncClient(url, retries=Retries(attempts_max=1)) as client:
            await AsyncDatabase(client, where).upsert(ids, rows)

    with listener:
        if kind == "async":
            error = failure(asyncio.run, with_tasks())
        else:
            with Client(url, retries=Retries(attempts_max=1)) as client:
                error = failure(Database(client, where).upsert, ids, rows)
        assert error.code is ErrorCode.REQUEST_TOO_LARGE
        thread.join()


def test_threads_share_a_bounded_pool() -> None:
    with script([GOOD] * 1000) as server, Client(server.url, connections_max=3) as client:
        with ThreadPoolExecutor(12) as threads:
            assert set(threads.map(lambda _: client.info().version, range(120))) == {"9"}
        assert server.accepted <= 3


def test_tasks_share_a_bounded_pool_and_may_be_cancelled() -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1)

    async def ask(url: str) -> None:
        async with AsyncClient(url, connections_max=2, retries=Retries(attempts_max=1)) as client:
            waiting = asyncio.create_task(client.info())
            while not server.requests:
                await asyncio.sleep(0.001)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            answers = await asyncio.gather(*(client.info() for _ in range(40)))
            assert {one.version for one in answers} == {"9"}

    with script([silent], [GOOD] * 1000) as server:
        asyncio.run(ask(server.url))
        assert server.accepted <= 3


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_client_survives_its_event_loop() -> None:
    """Python warns of the connection that was left in the loop that is over; the client works on in the next one."""
    with script([GOOD] * 5) as server:
        client = AsyncClient(server.url)

        async def ask() -> str:
            return (await client.info()).version

        async def ask_and_close() -> str:
            version = await ask()
            await client.close()
            return version

        assert asyncio.run(ask()) == "9"
        assert asyncio.run(ask_and_close()) == "9"
        gc.collect()


def _ask_in_child(client: Client) -> None:
    os._exit(0 if client.info().version == "9" else 1)


def test_after_a_fork_each_process_has_its_own_connections() -> None:
    with script([GOOD] * 10) as server, Client(server.url) as client:
        assert client.info().version == "9"
        child = multiprocessing.get_context("fork").Process(target=_ask_in_child, args=(client,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert client.info().version == "9"
        assert server.accepted == 2


def test_a_closed_client_says_so(info: Callable[..., Any]) -> None:
    client = Client("http://127.0.0.1:1")
    client.close()
    client.close()
    assert failure(client.info).code is ErrorCode.CLOSED


# Signing in


SIGNED_IN = answer(b'{"token":"t1","user_id":"u"}')
EXPIRED = answer(b'{"code":"UNAUTHORIZED","message":"m"}', "401 Unauthorized")


def test_user_and_password_become_a_token_and_are_used_again_when_it_expires(info: Callable[..., Any]) -> None:
    renewed = answer(b'{"token":"t2","user_id":"u"}')
    with script([SIGNED_IN, GOOD, EXPIRED, renewed, GOOD, GOOD]) as server:
        assert info(server.url, 3, user="u", password="p4ss") == "9"
        sent = [
            b"login" if request.startswith(b"POST /v1/auth/login") else request.partition(b"Bearer ")[2][:2]
            for request in server.requests
        ]
        assert sent == [b"login", b"t1", b"t1", b"login", b"t2", b"t2"]
        assert [b"p4ss" in request for request in server.requests] == [True, False, False, True, False, False]


def test_a_wrong_password_is_tried_once(info: Callable[..., Any]) -> None:
    with script([EXPIRED] * 9) as server:
        assert failure(info, server.url, user="u", password="wrong").code is ErrorCode.UNAUTHORIZED
        assert len(server.requests) == 1


def test_many_calls_at_once_sign_in_once() -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url, user="u", password="p", connections_max=1) as client:
            await asyncio.gather(*(client.info() for _ in range(5)))

    with script([SIGNED_IN, *[GOOD] * 5]) as server:
        asyncio.run(ask(server.url))
    with (
        script([SIGNED_IN, *[GOOD] * 5]) as server,
        Client(server.url, user="u", password="p", connections_max=1) as client,
        ThreadPoolExecutor(5) as threads,
    ):
        assert {one.version for one in threads.map(lambda _: client.info(), range(5))} == {"9"}


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    made = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    return made, path


def test_tls(info: Callable[..., Any], authority: tuple[trustme.CA, Path], tmp_path: Path) -> None:
    made, path = authority
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1").configure_cert(context)
    with script([GOOD] * 5, tls=context) as server:
        assert info(server.url, 3, verify=str(path)) == "9"
        assert server.accepted == 1
        untrusted = failure(info, server.url)
        assert (untrusted.code, untrusted.details["phase"]) == (ErrorCode.UNAVAILABLE, "tls")
        assert "verify" in untrusted.message
        assert server.accepted == 2  # not tried again
        assert info(server.url, verify=False) == "9"
        with pytest.raises(JadeError):
            info(server.url, verify=str(tmp_path / "nothing"))
    context.verify_mode = ssl.CERT_REQUIRED
    made.configure_trust(context)
    mine = tmp_path / "mine.pem"
    made.issue_cert("me").private_key_and_cert_chain_pem.write_to_path(str(mine))
    with script([GOOD] * 5, tls=context) as server:
        assert info(server.url, verify=str(path), certificate=str(mine)) == "9"
        assert failure(info, server.url, verify=str(path)).code is ErrorCode.UNAVAILABLE


def test_a_wrong_name_in_the_certificate(info: Callable[..., Any], authority: tuple[trustme.CA, Path]) -> None:
    made, path = authority
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("elsewhere.example").configure_cert(context)
    with script([GOOD], tls=context) as server:
        assert "not trusted" in failure(info, server.url, verify=str(path)).message


def test_the_calls_need_no_connection() -> None:
    calls = DatabaseCalls(DatabaseInfo("db/1 ?", "words", 2, "dot"), lambda: "r")
    assert calls.stats().target == "/v2/databases/db%2F1%20%3F/stats"
