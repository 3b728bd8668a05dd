"""Filter conditions from what callers write, checked on the way. Both the Python form and the dict form end here.

Errors are INVALID_FILTER, name the field, and say what to write instead. Sizes are bounded (`limits`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final

import numpy as np
import re2

from jadevectordb.model import limits
from jadevectordb.model.filter_nodes import (
    Compare,
    Contains,
    Filter,
    In,
    Kind,
    NotIn,
    Op,
    Prefix,
    Range,
    Regex,
    Scalar,
    refusal,
    walk,
)
from jadevectordb.model.instants import instant_of, parse_instant

_KINDS: Final[dict[type, Kind]] = {str: "string", int: "number", float: "number", bool: "bool", type(None): "null"}
_MEASURED: Final = frozenset({"string", "number"})  # kinds whose values can be too large
_SHORT_STRING: Final = 1024
_ORDERED: Final = frozenset({"string", "number", "instant"})
_PLAIN_INTEGER: Final = 1 << 63


def field_path(path: object) -> str:
    if type(path) is not str:
        raise refusal(f"a field is named by a string, not by {type(path).__name__}")
    if not path:
        raise refusal("a field name is empty; write the name of a metadata field, or a path such as 'author.name'")
    if len(path) > limits.FIELD_PATH_LENGTH_MAX:
        raise refusal(
            f"a field path has {len(path)} characters, at most {limits.FIELD_PATH_LENGTH_MAX} are possible", path[:40]
        )
    if path.count(".") >= limits.FIELD_PATH_DEPTH_MAX:
        raise refusal(f"a field path has at most {limits.FIELD_PATH_DEPTH_MAX} parts", path)
    if not path.isascii():
        _check_unicode(path, path)
    return path


def compare(op: Op, path: str, value: object) -> Compare:
    kind = _KINDS.get(type(value))
    if kind == "string" and len(value) < _SHORT_STRING and value.isascii():  # type: ignore[arg-type, attr-defined]
        return Compare(op, path, kind, value)  # type: ignore[arg-type]
    if kind is None or kind in _MEASURED:
        kind, value = scalar(path, value)
    if op not in ("eq", "ne") and kind not in _ORDERED:
        raise refusal(f"{op} needs a number, a string or a date, not {value!r}; use eq, ne or exists", path)
    return Compare(op, path, kind, value)  # type: ignore[arg-type]


def between(path: str, low: object, high: object, low_included: bool = True, high_included: bool = True) -> Range:
    if low is None and high is None:
        raise refusal("a range needs at least one bound; use exists to ask for the field alone", path)
    low_kind, low = scalar(path, low)
    high_kind, high = scalar(path, high)
    kind = high_kind if low is None else low_kind
    if kind not in _ORDERED or high_kind not in (kind, "null"):
        raise refusal(f"a range needs two numbers, two strings or two dates, not {low!r} and {high!r}", path)
    return Range(path, kind, low, high, bool(low_included), bool(high_included))


def is_in(path: str, values: Iterable[object]) -> In:
    return In(path, **_members(path, values))


def not_in(path: str, values: Iterable[object]) -> NotIn:
    return NotIn(path, **_members(path, values))


def contains(path: str, value: object) -> Contains:
    kind, plain = scalar(path, value)
    return Contains(path, kind, plain)


def prefix(path: str, start: object) -> Prefix:
    kind, plain = scalar(path, start)
    if kind != "string":
        raise refusal(f"prefix needs a string, not {start!r}", path)
    return Prefix(path, str(plain))


def regex(path: str, pattern: object) -> Regex:
    if not isinstance(pattern, str):
        raise refusal(f"a regular expression is written as a string, not as {type(pattern).__name__}", path)
    if len(pattern) > limits.REGEX_LENGTH_MAX:
        raise refusal(
            f"the regular expression has {len(pattern)} characters, at most {limits.REGEX_LENGTH_MAX} are possible",
            path,
        )
    _check_unicode(pattern, path)
    try:
        compiled(pattern)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise refusal(
            f"the regular expression {pattern!r} is not valid RE2 ({reason}); look-around and back-references do not exist in it",
            path,
        ) from None
    return Regex(path, str(pattern))


def compiled(pattern: str) -> Any:
    """The RE2 program of a pattern; the library keeps the last 128."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def scalar(path: str, value: object) -> tuple[Kind, Scalar]:
    """A filter value in plain form with its kind. Raises INVALID_FILTER for what cannot be compared with metadata."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is int and -_PLAIN_INTEGER < value < _PLAIN_INTEGER:
        return "number", value
    if isinstance(value, str):
        if len(value) > limits.FILTER_STRING_LENGTH_MAX:
            raise refusal(
                f"a string in a filter has {len(value)} characters, at most {limits.FILTER_STRING_LENGTH_MAX} are possible",
                path,
            )
        if not value.isascii():
            _check_unicode(value, path)
        return "string", str.__str__(value)
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        if value.bit_length() > limits.INTEGER_BITS_MAX:
            raise refusal(
                f"an integer of {value.bit_length()} bits is too large, at most {limits.INTEGER_BITS_MAX} are possible",
                path,
            )
        return "number", int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise refusal(
                f"{value} compares with nothing that metadata can hold; for an open range leave the bound out", path
            )
        return "number", float(value)
    if value is None:
        return "null", None
    if isinstance(value, date):
        return "instant", instant_of(value)
    if isinstance(value, Mapping) and "$date" in value:
        return "instant", _written_instant(path, value)
    raise refusal(
        f"{type(value).__name__} cannot be compared with metadata; use a string, number, boolean, None, date or datetime",
        path,
    )


def _written_instant(path: str, value: Mapping[Any, Any]) -> int:
    """A point in time as JSON can say it: {"$date": "2024-05-17T12:00:00Z"}."""
    text = value["$date"]
    instant = parse_instant(text) if isinstance(text, str) and len(value) == 1 else None
    if instant is None:
        raise refusal(f"$date takes a date such as '2024-05-17' or '2024-05-17T12:00:00Z', not {text!r:.60}", path)
    return instant


def _members(path: str, values: Iterable[object]) -> dict[str, Any]:
    """The values of an `in`, sorted by kind."""
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise refusal(f"in and not_in need a list of values, not {type(values).__name__}", path)
    members = list(values)
    if len(members) > limits.FILTER_LIST_MAX:
        raise refusal(
            f"a list of {len(members)} values is too long, at most {limits.FILTER_LIST_MAX} are possible", path
        )
    by_kind: dict[str, set[Any]] = {"string": set(), "number": set(), "bool": set(), "null": set(), "instant": set()}
    for member in members:
        kind, plain = scalar(path, member)
        by_kind[kind].add(plain)
    return {
        "strings": frozenset(by_kind["string"]),
        "numbers": frozenset(by_kind["number"]),
        "instants": frozenset(by_kind["instant"]),
        "true": True in by_kind["bool"],
        "false": False in by_kind["bool"],
        "null": bool(by_kind["null"]),
    }


def _check_unicode(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="backslashreplace").decode()
        raise refusal("a string holds half of a surrogate pair, which is no character", shown) from None


def check_size(node: Filter) -> None:
    """Raises INVALID_FILTER when the tree is deeper or larger than the limits allow."""
    for count, (_, depth) in enumerate(walk(node), start=1):
        if depth > limits.FILTER_DEPTH_MAX:
            raise refusal(f"the filter is nested more than {limits.FILTER_DEPTH_MAX} deep; write it flatter")
        if count > limits.FILTER_NODES_MAX:
            raise refusal(
                f"the filter has more than {limits.FILTER_NODES_MAX} conditions; for many values of one field use in"
            )
