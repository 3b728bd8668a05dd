"""The tree a filter is made of. What each node means is said in `filters` and defined in `filter_eval`.

A node is immutable and hashable, its hash computed once: it is the key under which answers are remembered. Two nodes are equal exactly
when they ask the same; as Python takes 1 and True for equal and a filter must not, a value stands beside its kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError

Kind: TypeAlias = Literal["string", "number", "bool", "null", "instant"]
Scalar: TypeAlias = str | int | float | bool | None  # an instant is an int: microseconds since 1970-01-01 UTC
Op: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge"]
Order: TypeAlias = Literal["lt", "le", "gt", "ge"]


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


class LooseIn(_Node, frozen=True, cache_hash=True, tag="loose_in"):
    """Equal to at least one of the values, where strings may stand for what they say.

    Only version 1 of the REST interface makes it (`gateway.service.contract_filters`): its clients store `7` as `"7"` and `True` as
    `"True"`. What a declared type says about comparing does not matter to it.
    """

    path: str
    strings: frozenset[str] = frozenset()
    numbers: frozenset[int | float] = frozenset()
    numeric_texts: frozenset[int | float] = frozenset()  # strings that are one of these numbers (`numeric_text`)
    true: bool = False
    false: bool = False
    true_text: bool = False  # the string `true` in any case
    false_text: bool = False
    null: bool = False  # null that is there
    missing: bool = False
    in_arrays: bool = False  # only elements of arrays count; then `missing` is False


class LooseOrder(_Node, frozen=True, cache_hash=True, tag="loose_order"):
    """Numbers and strings that are decimal numbers, in order with a number; or strings that are none, in order with a string.

    Made, like `LooseIn`, for version 1 of the REST interface alone.
    """

    op: Order
    path: str
    kind: Literal["number", "string"]
    value: str | int | float


Filter: TypeAlias = (
    And | Or | Not | Compare | Range | In | NotIn | Contains | Exists | Prefix | Regex | LooseIn | LooseOrder
)

NODE_TYPES: Final = get_args(Filter)


def _node(value: object) -> Filter:
    if not isinstance(value, NODE_TYPES):
        raise TypeError(f"& and | combine filter conditions; {type(value).__name__} is none: write F('field') == value")
    node: Filter = value
    return node


def _parts(value: object, joined: type[And] | type[Or]) -> tuple[Filter, ...]:
    node = _node(value)
    return node.parts if isinstance(node, joined) else (node,)


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


def refusal(message: str, path: str | None = None) -> JadeError:
    """An INVALID_FILTER error; `details["at"]` is the place inside the filter, innermost part last."""
    text = message if path is None else f"at {path}: {message}"
    return JadeError(ErrorCode.INVALID_FILTER, text, details={"at": path, "reason": message})
