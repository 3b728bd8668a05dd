"""What a filter is: a small tree of conditions on metadata, and the typed Python way to write one.

    from jadevectordb import F
    F("pos") == "noun"
    (F("year") >= 2000) & ~F("tags").contains("draft") | F("author.name").is_in(["Ada", "Grace"])

The dict form (`filter_parse`) makes the same trees. A tree is immutable, hashable, and equal to another exactly when it has the
same shape: it is a cache key on the search path, so its hash is computed once. `to_json` writes it for the log, and `from_json`
reads it back; that form never changes its meaning, whatever the dict form learns later.

Meaning of a condition (`filter_eval` is the definition, in code)
- Types are strict. Numbers compare as numbers (1 = 1.0; integers of any size exactly), strings by code point, booleans are not
  numbers, and values of different types are never equal and never in order.
- A path `a.b` reaches into objects. At each object the longest key that fits is taken, so a key that itself contains dots comes
  before nesting. Through an array of objects it reaches every element.
- A path that leads to an array stands for its elements: a condition holds when it holds for any of them.
- `ne`, `not_in` and `not_exists` are the exact opposites of `eq`, `in` and `exists`.
- A path that leads nowhere is missing. `exists` asks for the key, null included; `eq None` holds for null and for missing. So a
  missing field matches only `ne`, `not_in`, `not_exists` and `eq None`, and what `~` turns round.
- `contains` looks for a substring in a string and for an element in an array.
- A `datetime` or `date` in a filter is an instant: it compares with strings that are dates (`instants`) as points in time. A string
  in a filter compares as a string, except on a field declared as `date`, where a string that is a date is an instant too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec
import numpy as np
import re2

from jadevectordb.model import limits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.instants import instant_of

Kind: TypeAlias = Literal["string", "number", "bool", "null", "instant"]
Scalar: TypeAlias = str | int | float | bool | None  # an instant is an int: microseconds since 1970-01-01 UTC
Op: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge"]

_KINDS: Final[dict[type, Kind]] = {str: "string", int: "number", float: "number", bool: "bool", type(None): "null"}
_MEASURED: Final = frozenset({"string", "number"})  # kinds whose values can be too large
_SHORT_STRING: Final = 1024
_ORDERED: Final = frozenset({"string", "number", "instant"})
_PLAIN_INTEGER: Final = 1 << 63


class _Node(msgspec.Struct, frozen=True, cache_hash=True, tag_field="node"):
    """What all conditions share: `&`, `|`, `~`, and a refusal to be taken for true or false."""

    def __and__(self, other: Filter) -> And:
        return And((*_parts(self, And), *_parts(other, And)))

    def __or__(self, other: Filter) -> Or:
        return Or((*_parts(self, Or), *_parts(other, Or)))

    def __invert__(self) -> Not:
        return Not(_node(self))

    def __bool__(self) -> bool:
        raise TypeError(
            "a filter condition is neither true nor false: combine conditions with & | ~ and put each in parentheses, "
            "as in (F('year') >= 2000) & (F('pos') == 'noun'); for a range write F('year').between(2000, 2010)"
        )


class And(_Node, frozen=True, cache_hash=True, tag="and"):
    """Every part holds; with no part, always."""

    parts: tuple[Filter, ...]


class Or(_Node, frozen=True, cache_hash=True, tag="or"):
    """At least one part holds; with no part, never."""

    parts: tuple[Filter, ...]


class Not(_Node, frozen=True, cache_hash=True, tag="not"):
    part: Filter


# In the nodes below the kind stands before the value: Python takes 1 and True for equal, and a filter must not.


class Compare(_Node, frozen=True, cache_hash=True, tag="compare"):
    op: Op
    path: str
    kind: Kind
    value: Scalar


class Range(_Node, frozen=True, cache_hash=True, tag="range"):
    """One value lies between the two bounds; None is an open end, and not both are open."""

    path: str
    kind: Kind
    low: Scalar
    high: Scalar
    low_included: bool = True
    high_included: bool = True


class _Membership(_Node, frozen=True, cache_hash=True):
    path: str
    strings: frozenset[str] = frozenset()
    numbers: frozenset[int | float] = frozenset()
    instants: frozenset[int] = frozenset()
    true: bool = False
    false: bool = False
    null: bool = False


class In(_Membership, frozen=True, cache_hash=True, tag="in"):
    """Equal to at least one of the values."""


class NotIn(_Membership, frozen=True, cache_hash=True, tag="not_in"):
    """Equal to none of the values."""


class Contains(_Node, frozen=True, cache_hash=True, tag="contains"):
    path: str
    kind: Kind
    value: Scalar


class Exists(_Node, frozen=True, cache_hash=True, tag="exists"):
    path: str
    present: bool = True


class Prefix(_Node, frozen=True, cache_hash=True, tag="prefix"):
    path: str
    prefix: str


class Regex(_Node, frozen=True, cache_hash=True, tag="regex"):
    """The pattern matches somewhere in the string. RE2 syntax: time is linear in the text, whatever the pattern."""

    path: str
    pattern: str


Filter: TypeAlias = And | Or | Not | Compare | Range | In | NotIn | Contains | Exists | Prefix | Regex

NODE_TYPES: Final = get_args(Filter)


def _node(value: object) -> Filter:
    if not isinstance(value, NODE_TYPES):
        raise TypeError(f"& and | combine filter conditions; {type(value).__name__} is none: write F('field') == value")
    node: Filter = value
    return node


def _parts(value: object, joined: type[And] | type[Or]) -> tuple[Filter, ...]:
    node = _node(value)
    return node.parts if isinstance(node, joined) else (node,)


class Field:
    """A metadata field by its path, to build conditions from: `F("author.name") == "Ada"`. Raises INVALID_FILTER."""

    __slots__ = ("_path",)
    __hash__ = None  # type: ignore[assignment]  # == makes a condition, so a Field cannot be a key

    def __init__(self, path: str) -> None:
        self._path = field_path(path)

    def __eq__(self, value: object) -> Compare:  # type: ignore[override]
        return compare("eq", self._path, value)

    def __ne__(self, value: object) -> Compare:  # type: ignore[override]
        return compare("ne", self._path, value)

    def __lt__(self, value: object) -> Compare:
        return compare("lt", self._path, value)

    def __le__(self, value: object) -> Compare:
        return compare("le", self._path, value)

    def __gt__(self, value: object) -> Compare:
        return compare("gt", self._path, value)

    def __ge__(self, value: object) -> Compare:
        return compare("ge", self._path, value)

    def is_in(self, values: Iterable[object]) -> In:
        return In(self._path, **_members(self._path, values))

    def not_in(self, values: Iterable[object]) -> NotIn:
        return NotIn(self._path, **_members(self._path, values))

    def contains(self, value: object) -> Contains:
        """A substring of a string, or an element of an array."""
        return contains(self._path, value)

    def exists(self) -> Exists:
        """The field is there, be it null."""
        return Exists(self._path, True)

    def not_exists(self) -> Exists:
        return Exists(self._path, False)

    def prefix(self, start: str) -> Prefix:
        return prefix(self._path, start)

    def between(self, low: object, high: object, *, low_included: bool = True, high_included: bool = True) -> Range:
        """One value lies between low and high; None leaves an end open."""
        return between(self._path, low, high, low_included, high_included)

    def matches(self, pattern: str) -> Regex:
        """The RE2 pattern matches somewhere in the string; `^` and `$` tie it to the ends."""
        return regex(self._path, pattern)

    def __repr__(self) -> str:
        return f"F({self._path!r})"

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is a field, not a condition: write {self!r} == True or {self!r}.exists()")


F = Field


# The constructors below check what they are given. Errors are INVALID_FILTER and name the field.


def refusal(message: str, path: str | None = None) -> JadeError:
    """An INVALID_FILTER error; `details["at"]` is the place inside the filter, innermost part last."""
    text = message if path is None else f"at {path}: {message}"
    return JadeError(ErrorCode.INVALID_FILTER, text, details={"at": path, "reason": message})


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
    raise refusal(
        f"{type(value).__name__} cannot be compared with metadata; use a string, number, boolean, None, date or datetime",
        path,
    )


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


def walk(node: Filter) -> Iterator[tuple[Filter, int]]:
    """Every node with its depth, the root at 1."""
    pending = [(node, 1)]
    while pending:
        current, depth = pending.pop()
        yield current, depth
        if isinstance(current, And | Or):
            pending.extend((part, depth + 1) for part in current.parts)
        elif isinstance(current, Not):
            pending.append((current.part, depth + 1))


def check_size(node: Filter) -> None:
    """Raises INVALID_FILTER when the tree is deeper or larger than the limits allow."""
    for count, (_, depth) in enumerate(walk(node), start=1):
        if depth > limits.FILTER_DEPTH_MAX:
            raise refusal(f"the filter is nested more than {limits.FILTER_DEPTH_MAX} deep; write it flatter")
        if count > limits.FILTER_NODES_MAX:
            raise refusal(
                f"the filter has more than {limits.FILTER_NODES_MAX} conditions; for many values of one field use in"
            )


_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODER: Final = msgspec.json.Decoder(Filter)


def to_json(node: Filter) -> bytes:
    """The tree as JSON for the log: the same bytes for equal trees of equal value types."""
    return _ENCODER.encode(node)


def from_json(data: bytes) -> Filter:
    """The tree that `to_json` wrote. Raises INVALID_FILTER for anything else."""
    try:
        node: Filter = _DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refusal(f"this is no filter in its stored form: {error}") from None
    check_size(node)
    for part, _ in walk(node):
        if isinstance(part, Regex):
            regex(part.path, part.pattern)
    return node
