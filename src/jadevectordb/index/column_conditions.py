"""What one column says about one condition: the part of the answer it is sure of, and the rows it is not.

The definition is `filter_eval`; this is the same, in sets of rows. Only conditions that are not negated come here: a negation is the
inverse of the whole answer, so that it is the exact opposite by construction.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

from jadevectordb.index.column_parts import Either, Every, Inverse, Known, Part
from jadevectordb.index.column_read import Column, Interval
from jadevectordb.index.selection import Selection
from jadevectordb.model.filter_eval import as_declared, member_strings, range_bounds
from jadevectordb.model.filters import (
    Compare,
    Contains,
    Exists,
    In,
    Kind,
    NotIn,
    Prefix,
    Range,
    Regex,
    Scalar,
    compiled,
)
from jadevectordb.model.schema import Schema

Leaf: TypeAlias = Compare | Range | In | NotIn | Contains | Exists | Prefix | Regex
Said: TypeAlias = tuple[
    Part, list[Selection]
]  # rows in the selections are decided by their records, whatever the part says


def said_by(column: Column, node: Leaf, schema: Schema) -> Said:
    match node:
        case Exists(present=True):
            return Known(column.present), []
        case Compare():
            return _compared(column, node, schema)
        case Range():
            kind, low, high = range_bounds(node, schema)
            return _between(column, kind, Interval(low, high, node.low_included, node.high_included))
        case In():
            return _one_of(column, node, schema)
        case Contains():
            return _containing(column, node, schema)
        case Prefix():
            if column.strings is None:
                return _none(column), [column.unsure_strings]
            part, unsure = column.strings.starting_with(node.prefix)
            return part, [*unsure, column.unsure_strings]
        case Regex():
            if column.strings is None:
                return _none(column), [column.unsure_strings]
            return column.strings.passing(compiled(node.pattern)), [column.unsure_strings, column.long_strings]
        case NotIn() | Exists():
            raise AssertionError("a negation is the inverse of its opposite")
        case _:
            assert_never(node)


def _compared(column: Column, node: Compare, schema: Schema) -> Said:
    kind, value = as_declared(node.kind, node.value, node.path, schema)
    match node.op:
        case "eq":
            return _equal(column, kind, value)
        case "lt":
            return _between(column, kind, Interval(high=value))
        case "le":
            return _between(column, kind, Interval(high=value, high_included=True))
        case "gt":
            return _between(column, kind, Interval(low=value))
        case "ge":
            return _between(column, kind, Interval(low=value, low_included=True))
        case "ne":
            raise AssertionError("a negation is the inverse of its opposite")
        case _:
            assert_never(node.op)


def _equal(column: Column, kind: Kind, value: Scalar) -> Said:
    match kind:
        case "null":
            missing = Inverse(Known(column.present), column.row_count)
            return Either([missing, Known(column.null)], column.row_count), []
        case "bool":
            return Known(column.true if value else column.false), []
        case "string" if column.strings is not None:
            part, unsure = column.strings.equal_to([str(value)])
            return part, [*unsure, column.unsure_strings]
        case "string" | "number" | "instant":
            return _between(column, kind, Interval(value, value, True, True))
        case _:
            assert_never(kind)


def _between(column: Column, kind: Kind, interval: Interval) -> Said:
    """Rows with a value of the kind in the interval."""
    match kind:
        case "number":
            if column.numbers is None:
                return _none(column), [column.unsure_numbers]
            return column.numbers.between(interval), [column.unsure_numbers]
        case "string":
            if column.strings is None:
                return _none(column), [column.unsure_strings]
            part, unsure = column.strings.between(interval)
            return part, [*unsure, column.unsure_strings]
        case "instant":
            if column.strings is None:
                return _none(column), [column.unsure_strings]
            return column.strings.instants_between(interval), [column.unsure_strings]
        case "bool" | "null":
            raise AssertionError(f"{kind} has no order")
        case _:
            assert_never(kind)


def _one_of(column: Column, node: In, schema: Schema) -> Said:
    parts: list[Part] = []
    unsure: list[Selection] = []
    strings, instants = member_strings(node, schema)
    if node.null:
        parts.append(_equal(column, "null", None)[0])
    if node.true:
        parts.append(Known(column.true))
    if node.false:
        parts.append(Known(column.false))
    if node.numbers:
        unsure.append(column.unsure_numbers)
        if column.numbers is not None:
            parts.append(column.numbers.equal_to(node.numbers))
    if strings or instants:
        unsure.append(column.unsure_strings)
    if strings and column.strings is not None:
        part, more = column.strings.equal_to(strings)
        parts.append(part)
        unsure += more
    if instants and column.strings is not None:
        parts.append(column.strings.instants_equal_to(instants))
    return (parts[0] if len(parts) == 1 else Either(parts, column.row_count)), unsure


def _containing(column: Column, node: Contains, schema: Schema) -> Said:
    """An element of an array, or a substring of a string outside arrays."""
    n = column.row_count
    parts: list[Part] = []
    unsure: list[Selection] = [column.mixed]
    if column.arrays.count:
        kind, value = as_declared(node.kind, node.value, node.path, schema)
        element, more = (Known(column.null), []) if kind == "null" else _equal(column, kind, value)
        parts.append(Every([Known(column.arrays), element], n))
        unsure += more
    if node.kind == "string":
        unsure += [column.unsure_strings, column.long_strings]
        if column.strings is not None and column.arrays.count < column.present.count:
            substring = column.strings.containing(str(node.value))
            outside = Inverse(Known(column.arrays), n)
            parts.append(Every([substring, outside], n) if column.arrays.count else substring)
    return (parts[0] if len(parts) == 1 else Either(parts, n)), unsure


def _none(column: Column) -> Part:
    return Known(Selection.nothing(column.row_count))
