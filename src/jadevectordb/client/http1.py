"""Just enough HTTP/1.1 for a client: a request's head as bytes, and a strict, bounded reader of answers. No sockets here.

A general client library spends several times longer on a request than a search takes; what this protocol needs of HTTP fits a
page. Whatever is not exactly well-formed is refused instead of guessed at: a reader that guesses can be made to take the end of
one answer for the beginning of the next.
"""

from __future__ import annotations

import re
from enum import IntEnum

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX, ANSWER_HEADERS_MAX

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_CHUNK_LINE_BYTES_MAX = 1024  # the size of a chunk with its extensions
_INTERIM_ANSWERS_MAX = 8  # 1xx answers before the real one


class _Phase(IntEnum):
    HEAD = 0
    FIXED = 1  # a body of known length
    CHUNK_LINE = 2
    CHUNK = 3
    CHUNK_END = 4
    TRAILER = 5
    UNTIL_CLOSED = 6
    DONE = 7


class AnswerReader:
    """Reads one answer from the bytes a connection delivers, however they are cut. Raises IO_ERROR, UNAVAILABLE.

    feed: True when the answer is complete: then status, headers (lower-case names) and body hold it. keep_alive: the connection
    can carry the next request. started: at least one byte came.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_interim",
        "_phase",
        "_wanted",
        "body",
        "headers",
        "keep_alive",
        "started",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: bytes | bytearray = b""
        self.keep_alive = False
        self.started = False
        self._phase = _Phase.HEAD
        self._buffer = bytearray()  # what is not understood yet
        self._body = bytearray()
        self._wanted = 0  # bytes still to come, of the body or of a chunk
        self._interim = 0

    def feed(self, data: bytes) -> bool:
        """Take the next bytes from the connection."""
        self.started = True
        if self._phase is _Phase.FIXED:
            return self._take_fixed(data)
        if self._phase is _Phase.UNTIL_CLOSED:
            self._grow(data)
            return False
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
            self._buffer.clear()
        if self._phase is _Phase.HEAD:
            return self._take_head(data)
        return self._take_chunks(data)

    def end(self) -> bool:
        """The server closed the connection. True when that ends the answer as it should; raises UNAVAILABLE when it cuts it off."""
        if self._phase is _Phase.UNTIL_CLOSED:
            return self._finish(self._body, b"")
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            "The server closed the connection in the middle of an answer: it was stopped, or something between cut it off."
            if self.started
            else "The server closed the connection without an answer.",
            details={"phase": "receive" if self.started else "send"},
        )

    def _take_head(self, data: bytes) -> bool:
        end = data.find(b"\r\n\r\n", 0, ANSWER_HEAD_BYTES_MAX)
        if end < 0:
            if len(data) >= ANSWER_HEAD_BYTES_MAX:
                raise malformed(f"its head is longer than {ANSWER_HEAD_BYTES_MAX} bytes")
            if not data.startswith(b"HTTP/1."[: len(data)]):
                raise malformed("it does not begin as HTTP/1.1 does")
            self._buffer += data
            return False
        status_line = _STATUS_LINE.match(data)
        if status_line is None:
            raise malformed("its first line is not that of HTTP/1.1")
        self.status = int(status_line[2])
        headers = self._headers(data, status_line.end(), end + 2)
        rest = data[end + 4 :]
        if self.status < 200:
            self._interim += 1
            if self.status == 101 or self._interim > _INTERIM_ANSWERS_MAX:
                raise malformed(f"it begins with status {self.status}, which nobody asked for")
            return self._take_head(rest) if rest else False
        self.headers = headers
        self.keep_alive = _keeps_alive(status_line[1] == b"1", headers)
        return self._begin_body(headers, rest)

    def _headers(self, data: bytes, position: int, end: int) -> dict[str, str]:
        headers: dict[str, str] = {}
        for count, line in enumerate(_HEADER.finditer(data, position, end)):
            if line.start() != position or count >= ANSWER_HEADERS_MAX:
                break
            position = line.end()
            name, value = line[1].decode("ascii").lower(), line[2].decode("latin-1").rstrip(" \t")
            if name in headers:
                if name in ("content-length", "transfer-encoding"):
                    raise malformed(f"it says its {name} twice")
                value = f"{headers[name]}, {value}"
            headers[name] = value
        if position != end:
            raise malformed(
                f"line {len(headers) + 2} of its head is no header, or there are more than {ANSWER_HEADERS_MAX}"
            )
        return headers

    def _begin_body(self, headers: dict[str, str], rest: bytes) -> bool:
        if headers.get("content-encoding", "identity") != "identity":
            raise malformed(f"its body is encoded as {headers['content-encoding']!r:.40}, which was not asked for")
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if self.status in (204, 304):
            return self._finish(b"", rest)
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise malformed("its body is framed in a way that HTTP/1.1 does not allow")
            self._phase = _Phase.CHUNK_LINE
            return self._take_chunks(rest)
        if length is None:
            self.keep_alive = False
            self._phase = _Phase.UNTIL_CLOSED
            self._grow(rest)
            return False
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            raise malformed(f"its length is {length!r:.40}, which is no number")
        self._wanted = int(length)
        if self._wanted > ANSWER_BYTES_MAX:
            raise _too_long()
        if len(rest) == self._wanted:
            return self._finish(rest, b"")  # the usual case: an answer in one piece is not copied again
        self._phase = _Phase.FIXED
        return self._take_fixed(rest)

    def _take_fixed(self, data: bytes) -> bool:
        wanted = self._wanted
        if len(data) < wanted:
            self._body += data
            self._wanted = wanted - len(data)
            return False
        self._body += data[:wanted]
        return self._finish(self._body, data[wanted:])

    def _take_chunks(self, data: bytes) -> bool:
        position = 0
        while True:
            match self._phase:
                case _Phase.CHUNK_LINE:
                    line = self._line(data, position, _CHUNK_LINE_BYTES_MAX)
                    if line is None:
                        return False
                    size = _CHUNK_LINE.fullmatch(line)
                    if size is None:
                        raise malformed("a chunk of its body does not begin with its size")
                    position += len(line)
                    self._wanted = int(size[1], 16)
                    self._phase = _Phase.CHUNK if self._wanted else _Phase.TRAILER
                case _Phase.CHUNK:
                    part = data[position : position + self._wanted]
                    self._grow(part)
                    position += len(part)
                    self._wanted -= len(part)
                    if self._wanted:
                        return False
                    self._phase = _Phase.CHUNK_END
                case _Phase.CHUNK_END:
                    if len(data) - position < 2:
                        self._buffer += data[position:]
                        return False
                    if data[position : position + 2] != b"\r\n":
                        raise malformed("a chunk of its body is longer than it said")
                    position += 2
                    self._phase = _Phase.CHUNK_LINE
                case _:  # the trailer: header lines that nobody needs, then an empty one
                    line = self._line(data, position, ANSWER_HEAD_BYTES_MAX)
                    if line is None:
                        return False
                    position += len(line)
                    if line == b"\r\n":
                        return self._finish(self._body, data[position:])
                    self._interim += 1
                    if _HEADER.fullmatch(line) is None or self._interim > ANSWER_HEADERS_MAX:
                        raise malformed("its body does not end as a chunked one does")

    def _line(self, data: bytes, position: int, bytes_max: int) -> bytes | None:
        """The line at this position with its end; None when it is not whole yet, and kept."""
        end = data.find(b"\n", position, position + bytes_max)
        if end >= 0:
            return data[position : end + 1]
        if len(data) - position >= bytes_max:
            raise malformed("a line between the chunks of its body is too long")
        self._buffer += data[position:]
        return None

    def _grow(self, data: bytes) -> None:
        if len(self._body) + len(data) > ANSWER_BYTES_MAX:
            raise _too_long()
        self._body += data

    def _finish(self, body: bytes | bytearray, rest: bytes) -> bool:
        if rest:
            self.keep_alive = False  # nobody asked for more: what follows can't be trusted to be the next answer
        self.body = body
        self._phase = _Phase.DONE
        return True


def request_head(method: str, target: str, fields: str, length: int) -> bytes:
    """fields: header lines, each with its end; their values were checked by `field_value`."""
    return f"{method} {target} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n".encode("ascii")


def field_value(value: str, what: str) -> str:
    """A value that may stand in a header. Raises INVALID_ARGUMENT; the value itself is not repeated, it may be a secret."""
    if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"The {what} holds characters that can't be sent (a line end, a space around it, or a letter outside ASCII), "
            "or is empty: check where it was copied from.",
        )
    return value


def malformed(why: str) -> JadeError:
    return JadeError(
        ErrorCode.IO_ERROR,
        f"What the server answered can't be read ({why}): is the URL that of a JadeVectorDB server?",
        details={"phase": "receive"},
    )


def _too_long() -> JadeError:
    return JadeError(
        ErrorCode.REQUEST_TOO_LARGE,
        f"The answer is longer than {ANSWER_BYTES_MAX} bytes: ask for less at once.",
        details={"phase": "receive"},
    )


def _keeps_alive(is_1_1: bool, headers: dict[str, str]) -> bool:
    connection = headers.get("connection")
    if connection is None:
        return is_1_1
    options = {option.strip() for option in connection.lower().split(",")}
    return "close" not in options and (is_1_1 or "keep-alive" in options)
