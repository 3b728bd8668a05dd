"""What one column says about one condition: the part of the answer it is sure of, and the rows it is not.

The definition is `filter_eval`; this is the same, in sets of rows. Only conditions that are not negated come here: a negation is the
inverse of the whole answer, so that it is the exact opposite by construction.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

from jadevectordb.index.column_parts import Either, Every, Inverse, Known, Part
from jadevectordb.index.column_read import Column, Interval, Strings
from jadevectordb.index.selection import Selection
from jadevectordb.model.filter_eval import as_declared, member_strings, range_bounds
from jadevectordb.model.filters import (
    Compare,
    Contains,
    Exists,
    In,
    Kind,
    LooseIn,
    LooseOrder,
    NotIn,
    Prefix,
    Range,
    Regex,
    Scalar,
    compiled,
)
from jadevectordb.model.schema import Schema

Leaf: TypeAlias = Compare | Range | In | NotIn | Contains | Exists | Prefix | Regex | LooseIn | LooseOrder
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
        case LooseIn():
            return _loosely_one_of(column, node)
        case LooseOrder():
            return _loosely_in_order(column, node)
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


def _loosely_one_of(column: Column, node: LooseIn) -> Said:
    n = column.row_count
    parts: list[Part] = []
    unsure: list[Selection] = []
    if node.true:
        parts.append(Known(column.true))
    if node.false:
        parts.append(Known(column.false))
    if node.null:
        parts.append(Known(column.null))
    if node.missing:
        parts.append(Inverse(Known(column.present), n))
    if node.numbers:
        unsure.append(column.unsure_numbers)
        if column.numbers is not None:
            parts.append(column.numbers.equal_to(node.numbers))
    if node.strings or node.numeric_texts or node.true_text or node.false_text:
        unsure.append(column.unsure_strings)
        if column.strings is not None:
            more, open_rows = _strings_loosely_one_of(column.strings, node)
            parts += more
            unsure += open_rows
    part = parts[0] if len(parts) == 1 else Either(parts, n)
    if node.in_arrays:
        return Every([Known(column.arrays), part], n), [*unsure, column.mixed]
    return part, unsure


def _strings_loosely_one_of(strings: Strings, node: LooseIn) -> tuple[list[Part], list[Selection]]:
    parts: list[Part] = []
    unsure: list[Selection] = []
    if node.strings:
        part, unsure = strings.equal_to(node.strings)
        parts.append(part)
    if node.numeric_texts:
        numeric, more = strings.numerically_equal_to(node.numeric_texts)
        parts.append(numeric)
        unsure += more
    parts += [strings.saying(truth) for truth, asked in ((True, node.true_text), (False, node.false_text)) if asked]
    return parts, unsure


def _loosely_in_order(column: Column, node: LooseOrder) -> Said:
    included = node.op in ("le", "ge")
    is_low = node.op in ("gt", "ge")
    interval = (
        Interval(low=node.value, low_included=included) if is_low else Interval(None, node.value, False, included)
    )
    strings = column.strings
    if node.kind == "string":
        if strings is None:
            return _none(column), [column.unsure_strings]
        part, unsure = strings.plainly_between(interval)
        return part, [*unsure, column.unsure_strings]
    assert not isinstance(node.value, str)
    said, unsure = _between(column, "number", interval)
    unsure.append(column.unsure_strings)
    if strings is None:
        return said, unsure
    numeric, more = strings.numerically_in_order(node.op, node.value)
    return (numeric if column.numbers is None else Either([said, numeric], column.row_count)), [*unsure, *more]


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
