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

from collections.abc import Iterable
from typing import Final

import msgspec

from jadevectordb.model import filter_make as make
from jadevectordb.model.filter_make import check_size, compiled
from jadevectordb.model.filter_nodes import (
    NODE_TYPES,
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
    Op,
    Or,
    Prefix,
    Range,
    Regex,
    Scalar,
    refusal,
    walk,
)

__all__ = [
    "NODE_TYPES",
    "And",
    "Compare",
    "Contains",
    "Exists",
    "F",
    "Field",
    "Filter",
    "In",
    "Kind",
    "LooseIn",
    "LooseOrder",
    "Not",
    "NotIn",
    "Op",
    "Or",
    "Prefix",
    "Range",
    "Regex",
    "Scalar",
    "check_size",
    "compiled",
    "from_json",
    "refusal",
    "to_json",
    "walk",
]


class Field:
    """A metadata field by its path, to build conditions from: `F("author.name") == "Ada"`. Raises INVALID_FILTER."""

    __slots__ = ("_path",)
    __hash__ = None  # type: ignore[assignment]  # == makes a condition, so a Field cannot be a key

    def __init__(self, path: str) -> None:
        self._path = make.field_path(path)

    def __eq__(self, value: object) -> Compare:  # type: ignore[override]
        return make.compare("eq", self._path, value)

    def __ne__(self, value: object) -> Compare:  # type: ignore[override]
        return make.compare("ne", self._path, value)

    def __lt__(self, value: object) -> Compare:
        return make.compare("lt", self._path, value)

    def __le__(self, value: object) -> Compare:
        return make.compare("le", self._path, value)

    def __gt__(self, value: object) -> Compare:
        return make.compare("gt", self._path, value)

    def __ge__(self, value: object) -> Compare:
        return make.compare("ge", self._path, value)

    def is_in(self, values: Iterable[object]) -> In:
        return make.is_in(self._path, values)

    def not_in(self, values: Iterable[object]) -> NotIn:
        return make.not_in(self._path, values)

    def contains(self, value: object) -> Contains:
        """A substring of a string, or an element of an array."""
        return make.contains(self._path, value)

    def exists(self) -> Exists:
        """The field is there, be it null."""
        return Exists(self._path, True)

    def not_exists(self) -> Exists:
        return Exists(self._path, False)

    def prefix(self, start: str) -> Prefix:
        return make.prefix(self._path, start)

    def between(self, low: object, high: object, *, low_included: bool = True, high_included: bool = True) -> Range:
        """One value lies between low and high; None leaves an end open."""
        return make.between(self._path, low, high, low_included, high_included)

    def matches(self, pattern: str) -> Regex:
        """The RE2 pattern matches somewhere in the string; `^` and `$` tie it to the ends."""
        return make.regex(self._path, pattern)

    def __repr__(self) -> str:
        return f"F({self._path!r})"

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is a field, not a condition: write {self!r} == True or {self!r}.exists()")


F = Field


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
            make.regex(part.path, part.pattern)
    return node
