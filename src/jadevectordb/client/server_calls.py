"""The calls that are not about one database's vectors: which databases there are, what the server is, and any call by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import numpy.typing as npt

from jadevectordb.client.arguments import listed_rows
from jadevectordb.client.call import Call, encode, read_as
from jadevectordb.client.values import DatabaseInfo, ServerInfo
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.schema import Schema, parse_schema


class _DatabasesAnswer(msgspec.Struct):
    databases: list[DatabaseInfo]


_read_info = read_as(DatabaseInfo)
_read_databases = read_as(_DatabasesAnswer)
_read_server = read_as(ServerInfo)
_read_any = msgspec.json.Decoder().decode


def create_database(
    name: str,
    dimension: int,
    metric: str,
    shards: int | None,
    index: str,
    schema: Schema | Mapping[str, Any] | None,
    *,
    strict: bool,
    text_language: str,
    description: str,
    exist_ok: bool,
    replication: int | None = None,
    sharding: str | None = None,
    bounds: Sequence[str] | None = None,
    sample: npt.ArrayLike | None = None,
    cells: int | None = None,
) -> Call[DatabaseInfo]:
    if not isinstance(name, str) or type(dimension) is not int or type(shards) not in (int, type(None)):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            "create_database takes a name, an integer dimension, and an integer number of shards.",
        )
    declared = parse_schema(schema, strict=strict)
    body = {
        "name": name,
        "dimension": dimension,
        "metric": str(metric).lower(),
        "index": str(index).upper(),
        "schema": {path: str(kind) for path, kind in declared.fields.items()},
        "strict": declared.strict,
        "text_language": text_language,
        "description": description,
        "exist_ok": exist_ok,
    }
    spread: Any = sharding
    if sample is not None or cells is not None:
        given = {"kind": sharding or "auto", "sample": None if sample is None else listed_rows(sample), "cells": cells}
        spread = {name: value for name, value in given.items() if value is not None}
    placement = {"shards": shards, "replication": replication, "sharding": spread, "bounds": bounds}
    body |= {name: value for name, value in placement.items() if value is not None}
    return Call("POST", "/v2/databases", _read_info, body=(encode(body),), repeatable=exist_ok)


def describe(name: str) -> Call[DatabaseInfo]:
    if not isinstance(name, str) or not name:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"A database is named by a string, got {name!r:.80}.")
    return Call("GET", f"/v2/databases/{quote(name, safe='')}", _read_info)


def databases() -> Call[list[DatabaseInfo]]:
    return Call("GET", "/v2/databases", lambda answer: _read_databases(answer).databases)


def drop_database(name: str) -> Call[Any]:
    # Not repeatable: the second time there is none of this name, or another one.
    return Call("DELETE", describe(name).target, _read_any, repeatable=False)


def info() -> Call[ServerInfo]:
    return Call("GET", "/v2/info", _read_server)


def by_hand(
    method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None, public: bool = False
) -> Call[Any]:
    """Any route of the server, JSON in and out. path: from its root, as in "/v1/users". Only GET is tried again by itself."""
    if not path.startswith("/") or not path.isascii() or any(c.isspace() for c in path):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"A path begins with / and is percent-encoded, got {path!r:.80}.")
    given = {name: value for name, value in (query or {}).items() if value is not None}
    target = f"{path}?{urlencode(given)}" if given else path
    try:
        pieces = () if body is None else (encode(body),)
    except (TypeError, ValueError, OverflowError) as error:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"The body can't be sent as JSON: {error}.") from None
    return Call(method, target, _read_any, body=pieces, repeatable=method == "GET", public=public)
