"""One error type for everything the world can do to us: a code, a sentence that says what to do, and whether a retry can help.

Bugs are asserted, not raised: a `JadeError` always tells a user something they, or an operator, can act on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """What went wrong, for programs. The sentence in the error is for people."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DIMENSION_MISMATCH = "DIMENSION_MISMATCH"
    INVALID_VECTOR = (
        "INVALID_VECTOR"  # NaN, Inf, wrong dtype, a zero vector under cosine, values other than 0 and 1 under hamming
    )
    INVALID_ID = "INVALID_ID"
    DUPLICATE_ID = "DUPLICATE_ID"
    INVALID_METADATA = "INVALID_METADATA"
    SCHEMA_VIOLATION = "SCHEMA_VIOLATION"
    INVALID_FILTER = "INVALID_FILTER"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    UNKNOWN_DATABASE = "UNKNOWN_DATABASE"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    DISK_FULL = "DISK_FULL"
    READ_ONLY = "READ_ONLY"
    LOCKED = "LOCKED"
    FORMAT_TOO_NEW = "FORMAT_TOO_NEW"
    CORRUPT = "CORRUPT"
    LOG_TRUNCATED = "LOG_TRUNCATED"  # the entry asked for is no longer kept: load a snapshot
    IO_ERROR = "IO_ERROR"
    TIMEOUT = "TIMEOUT"
    CLOSED = "CLOSED"
    NOT_INSTALLED = "NOT_INSTALLED"  # an optional extra is missing
    UNAUTHORIZED = "UNAUTHORIZED"  # no credential, or one that is wrong, expired or revoked
    FORBIDDEN = "FORBIDDEN"
    PASSWORD_CHANGE_REQUIRED = "PASSWORD_CHANGE_REQUIRED"
    RATE_LIMITED = "RATE_LIMITED"
    CONFLICT = "CONFLICT"  # the state of something other than a vector's version stands against it
    UNAVAILABLE = "UNAVAILABLE"  # not now: starting, stopping, too busy, or behind what the caller has seen
    STALE_MAP = "STALE_MAP"  # the node asked does not hold the shard (any more): read the cluster map again
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    CANCELLED = "CANCELLED"
    INTERNAL_ERROR = "INTERNAL_ERROR"  # a defect of a server, as its clients see it: the server's log says more


_RETRYABLE = frozenset(
    {
        ErrorCode.DISK_FULL,
        ErrorCode.TIMEOUT,
        ErrorCode.LOCKED,
        ErrorCode.RATE_LIMITED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.STALE_MAP,
    }
)


class JadeError(Exception):
    """An error a caller can act on.

    code: for programs. message: one or two sentences: what was wrong, where, what to do.
    details: machine-readable facts (expected and actual dimension, failing ids, file and offset).
    retryable: the same call may succeed later without being changed.
    """

    def __init__(self, code: ErrorCode, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    @property
    def retryable(self) -> bool:
        return self.code in _RETRYABLE

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.code, self.message, self.details))


def _rebuild(code: ErrorCode, message: str, details: dict[str, Any]) -> JadeError:
    return JadeError(code, message, details=details)
