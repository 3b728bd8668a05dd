"""The reference evaluator: what each filter means, in the plainest code that says it.

It looks at one vector's metadata at a time. The columns of a segment answer the same questions a million rows at a time, and property
tests hold them to this file; rows that no column can hold are sent here. Prose is at the top of `filters` and in `docs/filters.md`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

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
    compiled,
)
from jadevectordb.model.instants import parse_instant
from jadevectordb.model.numeric_text import numeric_value
from jadevectordb.model.schema import Schema

_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def matches(node: Filter, metadata: Mapping[str, Any], schema: Schema | None = None) -> bool:
    """Whether metadata, as decoded from its JSON, satisfies the filter.

    schema: tells which fields are declared as dates; None and an empty schema mean the same.
    """
    match node:
        case And():
            return all(matches(part, metadata, schema) for part in node.parts)
        case Or():
            return any(matches(part, metadata, schema) for part in node.parts)
        case Not():
            return not matches(node.part, metadata, schema)
        case Compare(op="ne"):
            return not _compares(Compare("eq", node.path, node.kind, node.value), metadata, schema)
        case Compare():
            return _compares(node, metadata, schema)
        case Range():
            return _lies_within(node, metadata, schema)
        case In():
            return _is_member(node, metadata, schema)
        case NotIn():
            return not _is_member(node, metadata, schema)
        case Contains():
            return _contains(node, metadata, schema)
        case Exists():
            return bool(resolve(metadata, node.path)) == node.present
        case Prefix():
            return any(type(v) is str and v.startswith(node.prefix) for v in scalars(resolve(metadata, node.path)))
        case Regex():
            program = compiled(node.pattern)
            return any(type(v) is str and program.search(v) is not None for v in scalars(resolve(metadata, node.path)))
        case LooseIn():
            return _is_loosely_member(node, metadata)
        case LooseOrder():
            return _is_loosely_in_order(node, metadata)
        case _:
            assert_never(node)


def resolve(document: Mapping[str, Any], path: str) -> list[Any]:
    """The values a path leads to: none when it is missing, several through arrays of objects.

    At each object the longest key that fits is taken, without a second try below a shorter one.
    """
    if path in document:
        return [document[path]]
    cut = path.rfind(".")
    while cut >= 0:
        key = path[:cut]
        if key in document:
            return _resolve_below(document[key], path[cut + 1 :])
        cut = path.rfind(".", 0, cut)
    return []


def _resolve_below(value: Any, rest: str) -> list[Any]:
    if isinstance(value, dict):
        return resolve(value, rest)
    if isinstance(value, list):
        return [found for element in value if isinstance(element, dict) for found in resolve(element, rest)]
    return []


def scalars(found: list[Any]) -> list[Scalar]:
    """The values a condition looks at: an array stands for its elements; objects, and arrays in arrays, compare with nothing."""
    values: list[Scalar] = []
    for value in found:
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict | list):
                values.append(one)
    return values


def in_kind(kind: Kind, stored: Any) -> Any:
    """A stored value as a filter value of this kind sees it, or None when it is of another kind. Not for kind `null`."""
    match kind:
        case "string":
            return stored if type(stored) is str else None
        case "number":
            return stored if type(stored) in (int, float) else None
        case "bool":
            return stored if type(stored) is bool else None
        case "instant":
            return parse_instant(stored) if type(stored) is str else None
        case "null":
            raise AssertionError("null is compared by its type")
        case _:
            assert_never(kind)


def as_declared(kind: Kind, value: Scalar, path: str, schema: Schema | None) -> tuple[Kind, Scalar]:
    """On a field declared as a date, a string in the filter that is a date means the instant."""
    if kind == "string" and schema is not None and path in schema.dates:
        instant = parse_instant(str(value))
        if instant is not None:
            return "instant", instant
    return kind, value


def _compares(node: Compare, metadata: Mapping[str, Any], schema: Schema | None) -> bool:
    found = resolve(metadata, node.path)
    if node.kind == "null":
        return not found or None in scalars(found)
    kind, value = as_declared(node.kind, node.value, node.path, schema)
    compare = _COMPARISONS[node.op]
    seen = (in_kind(kind, stored) for stored in scalars(found))
    return any(one is not None and compare(one, value) for one in seen)


def _lies_within(node: Range, metadata: Mapping[str, Any], schema: Schema | None) -> bool:
    kind, low, high = range_bounds(node, schema)
    above = operator.ge if node.low_included else operator.gt
    below = operator.le if node.high_included else operator.lt
    for stored in scalars(resolve(metadata, node.path)):
        one = in_kind(kind, stored)
        if one is not None and (low is None or above(one, low)) and (high is None or below(one, high)):
            return True
    return False


def range_bounds(node: Range, schema: Schema | None) -> tuple[Kind, Any, Any]:
    """The bounds as they compare: instants on a date field when every bound given is a date."""
    bounds = [bound for bound in (node.low, node.high) if bound is not None]
    declared = [as_declared(node.kind, bound, node.path, schema) for bound in bounds]
    if any(kind == node.kind for kind, _ in declared):
        return node.kind, node.low, node.high
    low = None if node.low is None else declared[0][1]
    high = None if node.high is None else declared[-1][1]
    return declared[0][0], low, high


def _is_member(node: In | NotIn, metadata: Mapping[str, Any], schema: Schema | None) -> bool:
    found = resolve(metadata, node.path)
    if not found:
        return node.null
    strings, instants = member_strings(node, schema)
    for stored in scalars(found):
        if type(stored) is str:
            if stored in strings or (instants and parse_instant(stored) in instants):
                return True
        elif type(stored) is bool:
            if node.true if stored else node.false:
                return True
        elif stored is None:
            if node.null:
                return True
        elif stored in node.numbers:
            return True
    return False


def member_strings(node: In | NotIn, schema: Schema | None) -> tuple[frozenset[str], frozenset[int]]:
    """The strings and the instants of the list: on a date field, strings that are dates count as instants."""
    if schema is None or node.path not in schema.dates:
        return node.strings, node.instants
    dated = {text: parse_instant(text) for text in node.strings}
    return (
        frozenset(text for text, instant in dated.items() if instant is None),
        node.instants | {instant for instant in dated.values() if instant is not None},
    )


def _contains(node: Contains, metadata: Mapping[str, Any], schema: Schema | None) -> bool:
    kind, value = as_declared(node.kind, node.value, node.path, schema)
    for leaf in resolve(metadata, node.path):
        if isinstance(leaf, list):
            elements = scalars([leaf])
            if node.kind == "null":
                if None in elements:
                    return True
            elif any(in_kind(kind, element) == value for element in elements if element is not None):
                return True
        elif node.kind == "string" and type(leaf) is str and str(node.value) in leaf:
            return True
    return False


def _is_loosely_member(node: LooseIn, metadata: Mapping[str, Any]) -> bool:
    found = resolve(metadata, node.path)
    if not found:
        return node.missing
    if node.in_arrays:
        found = [leaf for leaf in found if isinstance(leaf, list)]
    for stored in scalars(found):
        if type(stored) is str:
            said = stored.lower()
            if (
                stored in node.strings
                or (node.true_text and said == "true")
                or (node.false_text and said == "false")
                or (node.numeric_texts and numeric_value(stored) in node.numeric_texts)
            ):
                return True
        elif type(stored) is bool:
            if node.true if stored else node.false:
                return True
        elif stored is None:
            if node.null:
                return True
        elif stored in node.numbers:
            return True
    return False


def _is_loosely_in_order(node: LooseOrder, metadata: Mapping[str, Any]) -> bool:
    compare = _COMPARISONS[node.op]
    for stored in scalars(resolve(metadata, node.path)):
        one: Any = stored if type(stored) in (int, float) else None
        if type(stored) is str:
            number = numeric_value(stored)
            one = number if node.kind == "number" else stored if number is None else None
        elif node.kind == "string":
            one = None
        if one is not None and compare(one, node.value):
            return True
    return False
