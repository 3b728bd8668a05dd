"""Filters as JSON documents for the wire: the dict form of `filter_parse`, written from the trees that it makes.

`parse(document(node)) == node` for every tree that can be written, so a condition means the same on both sides of a connection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, assert_never

from jadevectordb.model import filter_parse
from jadevectordb.model.filters import (
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    In,
    Kind,
    LooseIn,
    LooseOrder,
    Not,
    NotIn,
    Or,
    Prefix,
    Range,
    Regex,
    Scalar,
    refusal,
)
from jadevectordb.model.instants import instant_text

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COMPARE: Final = {"eq": "$eq", "ne": "$ne", "lt": "$lt", "le": "$lte", "gt": "$gt", "ge": "$gte"}
_DEPTH_PLAIN_MAX: Final = 40  # deeper than any filter that is accepted; what is deeper is left to the parser to refuse


def wire_form(value: Filter | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What to send for a filter in either form; None when there is nothing to filter by. Raises INVALID_FILTER.

    A dict of nothing but JSON values goes as it is, for the server to judge. Conditions in the Python form, dates and numpy values
    are checked and rewritten here.
    """
    if value is None:
        return None
    if type(value) is dict and _is_plain(value, 0):
        return value or None
    node = filter_parse.parse(value)
    return None if node is None else document(node)


def document(node: Filter) -> dict[str, Any]:
    """The tree in the dict form, with values that JSON has."""
    match node:
        case And():
            return {"$and": [document(part) for part in node.parts]}
        case Or():
            return {"$or": [document(part) for part in node.parts]}
        case Not():
            return {"$not": document(node.part)}
        case Compare():
            return _on(node.path, _COMPARE[node.op], _value(node.kind, node.value))
        case Range():
            return _on(node.path, "$range", _bounds(node))
        case In():
            return _on(node.path, "$in", _members(node))
        case NotIn():
            return _on(node.path, "$nin", _members(node))
        case Contains():
            return _on(node.path, "$contains", _value(node.kind, node.value))
        case Exists():
            return _on(node.path, "$exists", node.present)
        case Prefix():
            return _on(node.path, "$prefix", node.prefix)
        case Regex():
            return _on(node.path, "$regex", node.pattern)
        case LooseIn() | LooseOrder():
            raise refusal("loose comparisons are made by a server for old clients; there is no other way to write them")
        case _:
            assert_never(node)


def _on(path: str, operator: str, value: Any) -> dict[str, Any]:
    if path.startswith("$"):
        raise refusal("a field whose name begins with $ cannot be named in a filter that is sent to a server", path)
    return {path: {operator: value}}


def _bounds(node: Range) -> dict[str, Any]:
    bounds = {}
    if node.low is not None:
        bounds["$gte" if node.low_included else "$gt"] = _value(node.kind, node.low)
    if node.high is not None:
        bounds["$lte" if node.high_included else "$lt"] = _value(node.kind, node.high)
    return bounds


def _members(node: In | NotIn) -> list[Any]:
    members: list[Any] = [*node.strings, *node.numbers, *(_value("instant", instant) for instant in node.instants)]
    members += [flag for flag, present in ((True, node.true), (False, node.false), (None, node.null)) if present]
    return members


def _value(kind: Kind, value: Scalar) -> Any:
    if kind != "instant":
        return value
    assert isinstance(value, int)
    try:
        moment = _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        raise refusal(
            "a date at the very edge of the calendar cannot be sent to a server; leave the bound out"
        ) from None
    return {"$date": instant_text(moment)}


def _is_plain(value: object, depth: int) -> bool:
    """Nothing but what JSON has."""
    if isinstance(value, str):
        return type(value) is str and (value.isascii() or _is_unicode(value))
    if isinstance(value, float):
        return type(value) is float and math.isfinite(value)
    kind = type(value)
    if kind is int or kind is bool or value is None:
        return True
    if depth > _DEPTH_PLAIN_MAX:
        return False
    if isinstance(value, dict):
        return kind is dict and all(
            type(key) is str and _is_plain(key, depth) and _is_plain(inner, depth + 1) for key, inner in value.items()
        )
    return isinstance(value, list) and kind is list and all(_is_plain(inner, depth + 1) for inner in value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False  # half a surrogate pair: the parser refuses it with its place
    return True
