"""Errors on the wire: every `ErrorCode` has one gRPC status; the precise code and details travel in the trailing metadata.

`jade-code`, `jade-retryable` and `jade-details-bin` (JSON) are read back by `error_of`, so that an error crosses from node to
node whole. `x-jade-session`, where there is one, is what its client has seen all the same. Sentences are for people and bounded:
metadata beyond what peers accept would turn an error into a broken call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import RPC_DETAILS_BYTES_MAX, RPC_MESSAGE_BYTES_MAX

Metadata = tuple[tuple[str, str | bytes], ...]

CODE_KEY = "jade-code"
RETRYABLE_KEY = "jade-retryable"
DETAILS_KEY = "jade-details-bin"
RETRY_AFTER_KEY = "jade-retry-after-s"
SESSION_KEY = "x-jade-session"

_S = grpc.StatusCode
STATUS: dict[ErrorCode, grpc.StatusCode] = {
    ErrorCode.INVALID_ARGUMENT: _S.INVALID_ARGUMENT,
    ErrorCode.DIMENSION_MISMATCH: _S.INVALID_ARGUMENT,
    ErrorCode.INVALID_VECTOR: _S.INVALID_ARGUMENT,
    ErrorCode.INVALID_ID: _S.INVALID_ARGUMENT,
    ErrorCode.DUPLICATE_ID: _S.INVALID_ARGUMENT,
    ErrorCode.INVALID_METADATA: _S.INVALID_ARGUMENT,
    ErrorCode.SCHEMA_VIOLATION: _S.INVALID_ARGUMENT,
    ErrorCode.INVALID_FILTER: _S.INVALID_ARGUMENT,
    ErrorCode.UNKNOWN_FIELD: _S.INVALID_ARGUMENT,
    ErrorCode.UNKNOWN_DATABASE: _S.NOT_FOUND,
    ErrorCode.NOT_FOUND: _S.NOT_FOUND,
    ErrorCode.ALREADY_EXISTS: _S.ALREADY_EXISTS,
    ErrorCode.VERSION_CONFLICT: _S.ABORTED,
    ErrorCode.REQUEST_TOO_LARGE: _S.RESOURCE_EXHAUSTED,
    ErrorCode.DISK_FULL: _S.RESOURCE_EXHAUSTED,
    ErrorCode.READ_ONLY: _S.FAILED_PRECONDITION,
    ErrorCode.LOCKED: _S.UNAVAILABLE,
    ErrorCode.FORMAT_TOO_NEW: _S.FAILED_PRECONDITION,
    ErrorCode.CORRUPT: _S.DATA_LOSS,
    ErrorCode.LOG_TRUNCATED: _S.DATA_LOSS,
    ErrorCode.IO_ERROR: _S.INTERNAL,
    ErrorCode.TIMEOUT: _S.DEADLINE_EXCEEDED,
    ErrorCode.CLOSED: _S.UNAVAILABLE,
    ErrorCode.NOT_INSTALLED: _S.UNIMPLEMENTED,
    ErrorCode.UNAUTHORIZED: _S.UNAUTHENTICATED,
    ErrorCode.FORBIDDEN: _S.PERMISSION_DENIED,
    ErrorCode.PASSWORD_CHANGE_REQUIRED: _S.PERMISSION_DENIED,
    ErrorCode.RATE_LIMITED: _S.RESOURCE_EXHAUSTED,
    ErrorCode.CONFLICT: _S.FAILED_PRECONDITION,
    ErrorCode.UNAVAILABLE: _S.UNAVAILABLE,
    ErrorCode.NOT_IMPLEMENTED: _S.UNIMPLEMENTED,
    ErrorCode.CANCELLED: _S.CANCELLED,
    ErrorCode.STALE_MAP: _S.UNAVAILABLE,
    ErrorCode.INTERNAL_ERROR: _S.INTERNAL,
}

# What a status means that came from below the other side's own code
_FROM_BELOW = {
    _S.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    _S.DEADLINE_EXCEEDED: ErrorCode.TIMEOUT,
    _S.RESOURCE_EXHAUSTED: ErrorCode.UNAVAILABLE,
    _S.CANCELLED: ErrorCode.CANCELLED,
    _S.UNIMPLEMENTED: ErrorCode.NOT_IMPLEMENTED,
    _S.UNAUTHENTICATED: ErrorCode.UNAUTHORIZED,
    _S.PERMISSION_DENIED: ErrorCode.FORBIDDEN,
    _S.INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
}

# Where a sentence would name files and folders of the server
_GENERAL = {
    ErrorCode.DISK_FULL: "The disk is full: nothing was written. Reads go on; retry when there is space again.",
    ErrorCode.IO_ERROR: "The disk failed to read or write; see the server's log.",
    ErrorCode.READ_ONLY: "The data folder can't be written to: reads go on, writes are refused.",
    ErrorCode.CLOSED: "The server is stopping: retry in a moment.",
    ErrorCode.CORRUPT: "A file of this database is damaged; see the server's log and restore it from a snapshot.",
    ErrorCode.LOG_TRUNCATED: "The log no longer reaches back to what was asked for.",
    ErrorCode.FORMAT_TOO_NEW: "A file was written by a newer version; see the server's log.",
}


def is_internal(code: ErrorCode) -> bool:
    """Whether the sentence and details are for the server's log, not for the client."""
    return code in _GENERAL


def sentence_of(error: JadeError) -> str:
    return _clipped(_GENERAL.get(error.code, error.message))


def trailing_metadata(error: JadeError, session: str = "") -> Metadata:
    found: list[tuple[str, str | bytes]] = [(CODE_KEY, str(error.code)), (RETRYABLE_KEY, str(error.retryable).lower())]
    if error.details and not is_internal(error.code):
        packed = msgspec.json.encode(error.details, enc_hook=str)
        if len(packed) <= RPC_DETAILS_BYTES_MAX:
            found.append((DETAILS_KEY, packed))
    if session and len(session) <= RPC_DETAILS_BYTES_MAX:
        found.append((SESSION_KEY, session))
    retry_after_s = error.details.get("retry_after_s")
    if retry_after_s is not None:
        found.append((RETRY_AFTER_KEY, str(retry_after_s)))
    return tuple(found)


def jade_code_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The precise code in trailing metadata; "" when the other side's own code did not answer."""
    return next((str(value) for key, value in metadata or () if key == CODE_KEY), "")


def error_of(call: grpc.Call, peer: str) -> JadeError:
    """The error as the other side raised it, or what its status means when it came from below."""
    status, sentence = call.code(), call.details() or ""
    metadata = dict(call.trailing_metadata() or ())
    details: dict[str, Any] = {}
    try:
        code = ErrorCode(str(metadata.get(CODE_KEY, "")))
    except ValueError:  # none, or one of a newer version
        code = _FROM_BELOW.get(status, ErrorCode.IO_ERROR)
        sentence = f"{peer} did not answer ({status.name}: {sentence})."
    packed = metadata.get(DETAILS_KEY)
    if isinstance(packed, bytes):
        try:
            details = msgspec.json.decode(packed, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            details = {}
    return JadeError(code, sentence, details={**details, "peer": peer})


def _clipped(sentence: str) -> str:
    packed = sentence.encode(errors="replace")
    if len(packed) <= RPC_MESSAGE_BYTES_MAX:
        return packed.decode()
    return packed[:RPC_MESSAGE_BYTES_MAX].decode(errors="ignore") + "…"
