"""One client's HTTP connection to one node: every request is sent once, and nothing about its outcome is guessed.

What the server says of a failed write is taken at its word, so that the checker finds out whether it is true: an answer of 4xx or
503 that does not say `undecided` means that nothing was done. No answer means that nobody knows.
"""

from __future__ import annotations

import http.client
from typing import Any

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError

_CODES = {str(code): code for code in ErrorCode}


class Caller:
    """Not thread-safe. session: the token that came with the newest answer, "" = none did."""

    def __init__(self, rest: str, token: str, timeout_s: float) -> None:
        """rest: http://HOST:PORT."""
        host, _, port = rest.removeprefix("http://").rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        self._token = token
        self.session = ""

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The decoded answer. Raises JadeError; details["status"] is there when the server answered."""
        sent = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        sent |= headers or {}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            sent["Content-Type"] = "application/json"
        try:
            self._connection.request(method, path, data, sent)
            answer = self._connection.getresponse()
            content = answer.read()
        except TimeoutError as error:
            self.close()
            raise JadeError(ErrorCode.TIMEOUT, "no answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            refused = isinstance(error, ConnectionRefusedError)  # nothing was sent
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"no answer: {type(error).__name__}",
                details={"undecided": False} if refused else {},
            ) from error
        if answer.status >= 400:
            raise error_of(answer.status, content)
        self.session = answer.headers.get("X-Jade-Session", "")
        return msgspec.json.decode(content)

    def close(self) -> None:
        self._connection.close()


def error_of(status: int, content: bytes) -> JadeError:
    try:
        body = msgspec.json.decode(content)
        code, message, details = _CODES[body["code"]], body["message"], dict(body["details"])
    except (msgspec.DecodeError, KeyError, TypeError):
        code, message, details = (
            ErrorCode.INTERNAL_ERROR,
            f"not an error as the server writes them: {content!r:.200}",
            {},
        )
    details["status"] = status
    if status < 500 or status == 503:
        details.setdefault("undecided", False)
    return JadeError(code, message, details=details)
