"""Filters against a schema: a condition that can never hold for a declared field is a mistake, and says so.

Without this, `year == "2000"` on a field of integers would quietly find nothing. Undeclared fields are not judged, except under a
strict schema, where no vector can carry them.
"""

from __future__ import annotations

from typing import Final

from jadevectordb.model.errors import ErrorCode, JadeError
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
    refusal,
    walk,
)
from jadevectordb.model.instants import parse_instant
from jadevectordb.model.schema import FieldType, Schema

_COMPARABLE: Final[dict[str, frozenset[Kind]]] = {
    "string": frozenset({"string", "instant", "null"}),
    "text": frozenset({"string", "instant", "null"}),
    "integer": frozenset({"number", "null"}),
    "number": frozenset({"number", "null"}),
    "boolean": frozenset({"bool", "null"}),
    "date": frozenset({"string", "instant", "null"}),
}
_TEXTUAL: Final = frozenset({"string", "text", "date"})


def check_filter(node: Filter, schema: Schema) -> None:
    """Raises INVALID_FILTER for a comparison no declared value can satisfy, UNKNOWN_FIELD for an undeclared field under a strict schema."""
    for part, _ in walk(node):
        if isinstance(part, And | Or | Not):
            continue
        declared = schema.fields.get(part.path)
        if declared is None:
            if schema.strict and not any(path.startswith(part.path + ".") for path in schema.fields):
                known = ", ".join(sorted(schema.fields)[:20])
                raise JadeError(
                    ErrorCode.UNKNOWN_FIELD,
                    f"there is no field {part.path}, and the schema is strict; declared are {known or 'none'}",
                    details={"field": part.path},
                )
            continue
        _check_condition(part, declared)


def _check_condition(
    node: Compare | Range | In | NotIn | Contains | Exists | Prefix | Regex | LooseIn | LooseOrder, declared: FieldType
) -> None:
    match node:
        case Exists() | LooseIn() | LooseOrder():
            pass  # who compares loosely does not know what is declared
        case Prefix() | Regex():
            if declared.element not in _TEXTUAL:
                raise refusal(f"the field is declared {declared}, which has no text to search in", node.path)
        case In() | NotIn():
            kinds: list[tuple[Kind, bool]] = [
                ("string", bool(node.strings)),
                ("number", bool(node.numbers)),
                ("bool", node.true or node.false),
                ("instant", bool(node.instants)),
            ]
            for kind, used in kinds:
                if used:
                    _check_kind(node.path, kind, None, declared)
            if declared.element == "date":
                for text in node.strings:
                    _check_kind(node.path, "string", text, declared)
        case Contains():
            if not declared.is_array and (declared.element not in _TEXTUAL or node.kind != "string"):
                raise refusal(
                    f"contains looks for text in strings and for elements in arrays; the field is declared {declared}",
                    node.path,
                )
            _check_kind(node.path, node.kind, node.value if declared.is_array else None, declared)
        case Compare():
            _check_kind(node.path, node.kind, node.value, declared)
        case Range():
            for bound in (node.low, node.high):
                _check_kind(node.path, node.kind, bound, declared)


def _check_kind(path: str, kind: Kind, value: object, declared: FieldType) -> None:
    if kind not in _COMPARABLE[declared.element]:
        name = {"bool": "boolean", "instant": "date"}.get(kind, kind)
        raise refusal(
            f"the field is declared {declared} and never equals a {name}; compare it with a {declared.element}", path
        )
    if declared.element == "date" and isinstance(value, str) and parse_instant(value) is None:
        raise refusal(
            f"the field is declared {declared}, and {value[:40]!r} is no date; write 2024-05-17 or 2024-05-17T12:00:00Z",
            path,
        )
