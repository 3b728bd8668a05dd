"""Errors as clients see them: a status, a code, a sentence, whether a retry can help. Internals never leak into a body."""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus
from typing import Any

from jadevectordb.gateway.rest.http import Response, encode
from jadevectordb.model.errors import ErrorCode, JadeError

logger = logging.getLogger("jadevectordb.http")

RETRY_AFTER_S_MAX = 300
_STATUS = {
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.PASSWORD_CHANGE_REQUIRED: 403,
    ErrorCode.UNKNOWN_DATABASE: 404,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.ALREADY_EXISTS: 409,
    ErrorCode.VERSION_CONFLICT: 409,
    ErrorCode.CONFLICT: 409,
    ErrorCode.REQUEST_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.FORMAT_TOO_NEW: 500,
    ErrorCode.CORRUPT: 500,
    ErrorCode.LOG_TRUNCATED: 500,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.NOT_INSTALLED: 501,
    ErrorCode.NOT_IMPLEMENTED: 501,
    ErrorCode.DISK_FULL: 503,
    ErrorCode.IO_ERROR: 503,
    ErrorCode.READ_ONLY: 503,
    ErrorCode.LOCKED: 503,
    ErrorCode.TIMEOUT: 503,
    ErrorCode.CLOSED: 503,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.CANCELLED: 503,
    ErrorCode.STALE_MAP: 503,
}
_NAMES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE", 429: "RATE_LIMITED", 431: "HEADERS_TOO_LARGE",
    500: "INTERNAL_ERROR", 501: "NOT_IMPLEMENTED", 503: "UNAVAILABLE",
}  # fmt: skip
# Bodies of answers that clients of /v1 retry must hold no free digits: an old client takes "404" anywhere in the text for permanent.
_GENERAL = {
    ErrorCode.DISK_FULL: "The disk is full: nothing was written. Reads go on; retry when there is space again.",
    ErrorCode.IO_ERROR: "The disk failed to read or write; see the server's log.",
    ErrorCode.READ_ONLY: "The data folder can't be written to: reads go on, writes are refused.",
    ErrorCode.TIMEOUT: "It was not done in time; retry, or allow more time.",
    ErrorCode.CLOSED: "The server is stopping: retry in a moment.",
    ErrorCode.CORRUPT: "A file of this database is damaged; see the server's log and restore it from a snapshot.",
}


def status_of(code: ErrorCode) -> int:
    return _STATUS.get(code, 400)


_WHAT_WAS_DONE = ("undecided", "written", "failed", "failed_ids")  # that a client has to know whatever went wrong


def error_response(error: JadeError, request_id: str = "", *, hides_digits: bool = True) -> Response:
    """hides_digits: for who must not find any in the text of an answer that may be retried."""
    readable = without_digits if hides_digits else str
    status = status_of(error.code)
    details: dict[str, Any] = {}
    if status >= 500:
        logger.warning("%s (request %s)", error, request_id)
        message = _GENERAL.get(error.code, readable(error.message))
        # It may have been done, or in part: only what can be done twice may be tried again
        details = {name: value for name in _WHAT_WAS_DONE if (value := error.details.get(name))}
    elif status == 429:
        message = readable(error.message)
    else:
        message, details = error.message, error.details
    name = "PASSWORD_CHANGE_REQUIRED" if error.code is ErrorCode.PASSWORD_CHANGE_REQUIRED else _NAMES[status]
    retry_after = error.details.get("retry_after_s") if status in (429, 503) else None
    return problem(status, message, name=name, code=error.code, details=details, retry_after_s=retry_after)


def without_digits(message: str) -> str:
    return re.sub(r"\d+", "#", message)


def problem(
    status: int,
    message: str,
    *,
    name: str | None = None,
    code: str | None = None,
    details: dict[str, Any] | None = None,
    retry_after_s: float | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Response:
    body: dict[str, Any] = {
        "error": name or _NAMES.get(status) or HTTPStatus(status).name,
        "message": _sentence(message, status),
        "status": status,
        "retryable": status in (429, 503),
        "code": code or name or _NAMES.get(status) or HTTPStatus(status).name,
        "details": details or {},
    }
    if status in (429, 503):
        wait = min(RETRY_AFTER_S_MAX, max(1, math.ceil(retry_after_s or 1)))
        body["retry_after"] = wait
        headers = (*headers, ("retry-after", str(wait)))
    if status == 401:
        headers = (*headers, ("www-authenticate", 'Bearer realm="jadevectordb"'))
    return Response(status, encode_details(body), headers=headers)


def _sentence(message: str, status: int) -> str:
    """What old clients look for in the text: "not found" in a 404, "unauthorized" in a 401."""
    if status == 404 and "not found" not in message.lower():
        return f"Not found: {message}"
    if status == 401 and "unauthorized" not in message.lower():
        return f"Unauthorized: {message}"
    return message


def encode_details(body: dict[str, Any]) -> bytes:
    """Details may hold anything an error was told; what JSON can't hold becomes its text."""
    try:
        return encode(body)
    except TypeError:
        return encode({**body, "details": {key: str(value) for key, value in body["details"].items()}})


def internal_error(request_id: str) -> Response:
    """For a defect of ours: the log has the trace, the client a sentence."""
    logger.exception("a request failed for a reason nobody foresaw (request %s)", request_id)
    return problem(500, "Something went wrong inside the server; its log says what. Nothing is known to be half done.")
