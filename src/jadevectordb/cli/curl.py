"""`--curl`: the request a command would send, as a curl command to read, change and paste, without sending it.

Secrets stay out: the credential is $JADEVECTORDB_API_KEY, a password $JADEVECTORDB_PASSWORD. Vectors are shown as JSON, which the
server takes as well as the raw floats that the client sends.
"""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

import click
import numpy as np

from jadevectordb.client.call import Call
from jadevectordb.client.raw import RAW
from jadevectordb.client.sync import Client, Database
from jadevectordb.client.values import DatabaseInfo

T = TypeVar("T")
_PASSWORD = "@@password@@"
_PASSWORD_FIELDS = ("password", "new_password", "old_password")


class CurlClient(Client):
    """A client that prints its first request and ends the command. dimension: of vectors that will be sent."""

    def __init__(self, *, dimension: int = 1, has_credential: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._dimension = dimension
        self._has_credential = has_credential

    def database(self, name: str) -> Database:
        """Without asking the server: a path may say a name as well as an id."""
        return Database(self, DatabaseInfo(name, name, self._dimension, "cosine"))

    def run(self, call: Call[T]) -> NoReturn:
        click.echo(curl_of(call, self.url, self._has_credential and not call.public))
        raise click.exceptions.Exit(0)


def curl_of(call: Call[Any], url: str, has_credential: bool) -> str:
    """One request as a command for a POSIX shell."""
    target, body = _as_json(call)
    parts = [f"curl -sS -X {call.method} {shlex.quote(url + target)}"]
    if has_credential:
        parts.append('-H "Authorization: Bearer $JADEVECTORDB_API_KEY"')
    if body is not None:
        text = json.dumps(_without_password(body), ensure_ascii=False, separators=(",", ":"))
        quoted = shlex.quote(text).replace(_PASSWORD, "'\"$JADEVECTORDB_PASSWORD\"'")
        parts += ["-H 'Content-Type: application/json'", f"--data {quoted}"]
    return " \\\n  ".join(parts)


def _as_json(call: Call[Any]) -> tuple[str, Any]:
    """(target, body as a JSON value or None) of a call, whichever form it has on the wire."""
    body = b"".join(map(bytes, call.body))
    if not body:
        return call.target, None
    if call.content_type != RAW:
        return call.target, _without_request_id(json.loads(body))
    path, _, query = call.target.partition("?")
    if path.endswith("/search"):
        options = {name: _value(name, text) for name, text in parse_qsl(query)}
        return path, {"vector": np.frombuffer(body, "<f4").astype(object).tolist(), **options}
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    rows = np.frombuffer(body, "<f4", offset=4 + length).reshape(len(header["ids"]), -1)
    return path, _without_request_id({"ids": header.pop("ids"), "values": rows.tolist(), **header})


def _value(name: str, text: str) -> Any:
    if name == "include":
        return [part for part in text.split(",") if part]
    return json.loads(text)


def _without_request_id(body: Any) -> Any:
    """The client makes one up for its own retries; whoever sends by hand may choose one."""
    return {name: value for name, value in body.items() if name != "request_id"} if isinstance(body, Mapping) else body


def _without_password(body: Any) -> Any:
    if not isinstance(body, Mapping):
        return body
    return {name: _PASSWORD if name in _PASSWORD_FIELDS else value for name, value in body.items()}
