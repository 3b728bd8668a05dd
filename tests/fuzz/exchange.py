"""One keep-alive connection that sends hostile bytes and judges what comes back."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from typing import Any

from tests.fuzz.requests import FuzzRequest

ANSWER_S_MAX = 60.0
_TRACE = (b"Traceback", b'File "/', b"jadevectordb/gateway", b"site-packages", b"sqlite3.", b"Error: <")
_BODYLESS = (204, 304)


class Wrong(AssertionError):
    """The server did what it must never do."""


class Gone(Exception):
    """The connection was closed before a whole answer had come."""


class Connection:
    """host, port: of the server. A request that breaks off is followed by a new connection."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._rest = b""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, request: FuzzRequest) -> int:
        """The status of the answer, 0 for a connection that was closed instead. Raises Wrong."""
        try:
            status = self._whole(request) if request.is_whole else self._malformed(request)
        except TimeoutError:
            self.close()
            raise Wrong(f"no answer within {ANSWER_S_MAX:.0f} s") from None
        return status

    def _whole(self, request: FuzzRequest) -> int:
        """A client that keeps to the rules gets an answer; on a connection that had been idle it may have to ask twice."""
        for attempt in (1, 2):
            fresh = self._socket is None
            try:
                status, headers, body = self._exchange(request)
            except (Gone, ConnectionError):
                self.close()
                if fresh or attempt == 2:
                    raise Wrong("the connection was closed without an answer") from None
                continue
            judge(request, status, headers, body)
            if headers.get("connection") == "close" or "expect" in request.tags or "close" in request.tags:
                self.close()
            return status
        raise AssertionError("either attempt returns or raises")

    def _exchange(self, request: FuzzRequest) -> tuple[int, dict[str, str], bytes]:
        connection = self._connected()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused half-way: the answer says why
            connection.sendall(request.bytes())
        while True:
            status, headers = self._read_head()
            if status != 100:
                break
        if request.method == "HEAD" or status in _BODYLESS:
            return status, headers, b""
        if "content-length" not in headers:
            raise Wrong(f"an answer with status {status} without a length")
        return status, headers, self._read(int(headers["content-length"]))

    def _malformed(self, request: FuzzRequest) -> int:
        """On a connection of its own, ended by us: the server answers or not, and closes."""
        self.close()
        connection = self._connected()
        answer = b""
        try:
            connection.sendall(request.bytes())
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        except TimeoutError:
            raise
        except OSError:
            pass
        self.close()
        found = re.findall(rb"(?:^|\r\n\r\n|[}\n>])HTTP/1\.1 (\d{3})", answer)
        for status in map(int, found):
            if status >= 500 and status not in (501, 505) and not (status == 503 and b'"TIMEOUT"' in answer):
                raise Wrong(f"{status}: {answer[:2000]!r}")
        _check_no_trace(answer)
        return int(found[0]) if found else 0

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, ANSWER_S_MAX)
            self._socket.settimeout(ANSWER_S_MAX)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._rest = b""
        return self._socket

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        if not lines[0].startswith("HTTP/1.1 "):
            raise Wrong(f"not an answer: {head[:200]!r}")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), {name.lower(): text for name, text in headers.items()}

    def _read(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        body, self._rest = self._rest[:size], self._rest[size:]
        return body

    def _more(self) -> None:
        assert self._socket is not None
        part = self._socket.recv(1 << 16)
        if not part:
            raise Gone
        self._rest += part


def judge(request: FuzzRequest, status: int, headers: dict[str, str], body: bytes) -> None:
    """Raises Wrong for a status, a body or a header that no request may get."""
    _check_no_trace(body)
    kind = headers.get("content-type", "")
    if not kind and body:
        raise Wrong(f"{status} with a body of no type")
    if status >= 400 and request.method != "HEAD":
        error = _error_in(status, body)
        if "not valid HTTP" in error["message"]:
            raise Wrong(f"a whole request was taken for none: {body!r}")
        if status >= 500 and not is_intended(request, status, str(error.get("code"))):
            raise Wrong(f"{status}: {body[:2000]!r}")
    elif kind.startswith("application/json") and body:
        try:
            json.loads(body)
        except ValueError as problem:
            raise Wrong(f"{status} with a body that is no JSON ({problem}): {body[:300]!r}") from None
    if "x-request-id" not in headers:
        raise Wrong(f"{status} without a request id")


def is_intended(request: FuzzRequest, status: int, code: str) -> bool:
    """501: an extra that is not installed. 503: waiting that ended without what was waited for."""
    if status == 501:
        return code in ("NOT_IMPLEMENTED", "NOT_INSTALLED")
    return status == 503 and request.wait and code == "TIMEOUT"


def _error_in(status: int, body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)
        assert error["status"] == status and error["message"] and "error" in error and "code" in error
    except (ValueError, KeyError, AssertionError, TypeError):
        raise Wrong(f"{status} without an error that says why: {body[:500]!r}") from None
    found: dict[str, Any] = error
    return found


def _check_no_trace(body: bytes) -> None:
    if body.partition(b"\r\n\r\n")[2 if body.startswith(b"HTTP/") else 0].startswith(b'{"entries":'):
        return  # the log may show its traces, to those who may read it
    for sign in _TRACE:
        if sign in body:
            raise Wrong(f"the answer shows the server's insides: {body[:2000]!r}")
