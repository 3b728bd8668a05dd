"""A call and its answer as plain values: what to send, and how to read what comes back. Built and read without a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
JSON = "application/json"
encode = msgspec.json.Encoder().encode
_SNIPPET_CHARACTERS = 200


class Call(Generic[T_co]):
    """One request and the reader of its answer.

    target: path and query string, percent-encoded, below the server's path. body: in pieces; large ones are sent from where they
    lie. repeatable: sending it twice does what sending it once does, so it may be tried again when nobody knows what became of
    it. database: whose session it belongs to. public: it needs no credential. wait_s: how long the server may take on purpose.
    consistency: how sure a write to a cluster must be before it is answered, "" = as the server does by itself.
    """

    __slots__ = (
        "accept", "body", "consistency", "content_type", "database", "method", "public", "read", "repeatable", "target", "wait_s"
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: str,
        read: Callable[[bytes | bytearray], T_co],
        *,
        body: tuple[bytes | memoryview, ...] = (),
        content_type: str = JSON,
        accept: str = "",
        repeatable: bool = True,
        database: str = "",
        public: bool = False,
        wait_s: float = 0.0,
        consistency: str = "",
    ) -> None:
        self.method = method
        self.target = target
        self.read = read
        self.body = body
        self.content_type = content_type
        self.accept = accept
        self.repeatable = repeatable
        self.database = database
        self.public = public
        self.wait_s = wait_s
        self.consistency = consistency


class Answer:
    """status, headers (lower-case names), body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes | bytearray) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class _Error(msgspec.Struct):
    """The body of an answer that is an error. code: precise; error: the older, coarser name."""

    error: str = ""
    message: str = ""
    code: str = ""
    details: dict[str, Any] = msgspec.field(default_factory=dict)


_CODES = {  # names of the HTTP API that are not those of the library
    "PAYLOAD_TOO_LARGE": ErrorCode.REQUEST_TOO_LARGE,
    "METHOD_NOT_ALLOWED": ErrorCode.INVALID_ARGUMENT,
    "UNSUPPORTED_MEDIA_TYPE": ErrorCode.INVALID_ARGUMENT,
}
_STATUS_CODES = {  # for answers that do not come from the server itself, but from something before it
    400: ErrorCode.INVALID_ARGUMENT,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    409: ErrorCode.CONFLICT,
    413: ErrorCode.REQUEST_TOO_LARGE,
    429: ErrorCode.RATE_LIMITED,
    501: ErrorCode.NOT_IMPLEMENTED,
    502: ErrorCode.UNAVAILABLE,
    503: ErrorCode.UNAVAILABLE,
    504: ErrorCode.TIMEOUT,
}
_error_of = msgspec.json.Decoder(_Error).decode


def read_as(type: type[T]) -> Callable[[bytes | bytearray], T]:
    """A reader of JSON answers of this type."""
    return msgspec.json.Decoder(type).decode


def result(call: Call[T], answer: Answer) -> T:
    """What the call returns. Raises the server's error, or IO_ERROR for an answer that makes no sense."""
    if not 200 <= answer.status < 300:
        raise server_error(answer)
    try:
        return call.read(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JadeError(
            ErrorCode.IO_ERROR,
            f"The answer to {call.method} {call.target.partition('?')[0]} is not what it should be ({error}): is the URL that of a "
            "JadeVectorDB server, of this version or newer?",
        ) from None


def server_error(answer: Answer) -> JadeError:
    """The error that an answer holds. details: the server's own, and `status`; `retry_after_s` and `request_id` where it says so."""
    try:
        said = _error_of(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = _Error()
    details: dict[str, Any] = {**said.details, "status": answer.status}
    wait_s = _seconds(answer.headers.get("retry-after"))
    if wait_s is not None:
        details["retry_after_s"] = wait_s
    if "x-request-id" in answer.headers:
        details["request_id"] = answer.headers["x-request-id"]
    return JadeError(_code(said, answer.status), said.message or _unsaid(answer), details=details)


def _code(said: _Error, status: int) -> ErrorCode:
    for name in (said.code, said.error):
        if name in ErrorCode.__members__:
            return ErrorCode(name)
        if name in _CODES:
            return _CODES[name]
    return _STATUS_CODES.get(status, ErrorCode.INVALID_ARGUMENT if status < 500 else ErrorCode.INTERNAL_ERROR)


def _unsaid(answer: Answer) -> str:
    """A sentence for an error that brings none."""
    if 300 <= answer.status < 400:
        where = answer.headers.get("location", "another place")
        return f"The server sends this call on to {where:.200}: use that server's URL."
    text = bytes(answer.body[: 4 * _SNIPPET_CHARACTERS]).decode(errors="replace").strip()
    shown = "".join(c if c.isprintable() else " " for c in text)[:_SNIPPET_CHARACTERS]
    return f"The server answered with status {answer.status}" + (f": {shown}" if shown else ".")


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, is not used by this API."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 6:
        return None
    return float(value)
