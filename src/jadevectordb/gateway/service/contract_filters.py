"""Filters of version 1 of the REST interface: four ways to write one, values compared by what they say.

    {"category": "books", "metadata.author": "x"}                                    flat: all of them; a list means one of
    {"price[$gt]": "100", "tags[$in]": "a,b"}                                        the operator in the key
    {"combination": "OR", "conditions": [{"field": "year", "op": "GREATER_THAN", "value": 2000}]}    a list of conditions, may nest
    {"year": {"$gte": 2000}, "$or": [{"a": 1}, {"$not": {"b": 2}}]}                  operator objects

The forms may be mixed; the result is one tree of the engine's conditions (`model.filters`). The engine compares strictly by type, these
clients do not: some store 79.99 as it is, others as `"79.99"`, and some send every value as text. So a value becomes a `LooseIn` or a
`LooseOrder` that names everything it is equal to.

What equals what
- Strings are equal when they are the same. A number equals a string that is a decimal number (`model.numeric_text`) of the same value,
  true and false equal the strings `true` and `false` in any case, and null equals the string `None`; either side may be the string.
- Null equals a missing field too. The string `None` equals null that is there, but not a missing field.
- An array stands for its elements: a condition holds when one of them meets it. Arrays in arrays and objects equal nothing.
- In order are two numbers, either of which may be a string that is one, and two strings of which neither is; nothing else.
- `CONTAINS` looks for a substring in a string that is outside any array, and for an equal element in an array.
- `NOT_EQUALS`, `NOT_IN` and `EXISTS` false are the opposites of `EQUALS`, `IN` and `EXISTS`.
- What a schema declares changes none of this; where it leaves a condition no value to hold for, the condition is left out of the search.

`metadata.x` is a field of just that name, or by that path, where a vector has one, and `x` where it has none.
Nothing is ignored: what is not understood is INVALID_FILTER with its place in the filter and what to write instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from jadevectordb.model import filter_make as make
from jadevectordb.model import limits
from jadevectordb.model.errors import JadeError
from jadevectordb.model.filter_nodes import Order
from jadevectordb.model.filters import (
    And,
    Contains,
    Exists,
    Filter,
    LooseIn,
    LooseOrder,
    Not,
    Or,
    Prefix,
    check_size,
    refusal,
)
from jadevectordb.model.numeric_text import numeric_value
from jadevectordb.model.schema import NO_SCHEMA, Schema

_PREFIX: Final = "metadata."
_NEVER: Final = Or(())
_KEY_WITH_OPERATOR: Final = re.compile(r"(.*)\[(\$[^\[\]]*)\]", re.DOTALL)
_TEXTUAL: Final = frozenset({"string", "text", "date"})
_ORDERS: Final[dict[str, Order]] = {
    "GREATER_THAN": "gt",
    "GREATER_THAN_OR_EQUAL": "ge",
    "LESS_THAN": "lt",
    "LESS_THAN_OR_EQUAL": "le",
}
_SPELLINGS: Final = {
    "EQUALS": ("equals", "eq"),
    "NOT_EQUALS": ("notequals", "ne"),
    "GREATER_THAN": ("greaterthan", "gt"),
    "GREATER_THAN_OR_EQUAL": ("greaterthanorequal", "gte", "ge"),
    "LESS_THAN": ("lessthan", "lt"),
    "LESS_THAN_OR_EQUAL": ("lessthanorequal", "lte", "le"),
    "IN": ("in",),
    "NOT_IN": ("notin", "nin"),
    "CONTAINS": ("contains",),
    "PREFIX": ("prefix",),
    "EXISTS": ("exists",),
}
_OPERATORS: Final = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def translate(value: object, schema: Schema | None = None) -> Filter | None:
    """The engine's filter for one as clients of version 1 send it, decoded from JSON; None when there is nothing to filter by.

    schema: the database's. Raises INVALID_FILTER; `details["at"]` is the place.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _refused(f"filters is an object such as {{'category': 'books'}}, not {_kind_of(value)}")
    if not value or _is_empty_conjunction(value):
        return None
    node = _Translation(schema or NO_SCHEMA).document(value, "", 1)
    check_size(node)
    return node


class _Translation:
    """One filter on its way. `at`: the place of what is being read, for errors."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def document(self, document: object, at: str, depth: int) -> Filter:
        """An object in any of the forms."""
        if not isinstance(document, dict):
            raise _refused(f"a condition is an object such as {{'category': 'books'}}, not {_kind_of(document)}", at)
        _check_depth(depth)
        if not document:
            raise _refused("an empty condition says nothing; leave it out", at)
        if not all(isinstance(key, str) for key in document):
            raise _refused("a field is named by a string", at)
        if _is_condition_list(document):
            return self._condition_list(document, at, depth)
        if _is_condition(document):
            return self._condition(document, at)
        return _all_of([self._entry(key, value, at, depth) for key, value in document.items()])

    def _entry(self, key: str, value: Any, at: str, depth: int) -> Filter:
        here = _inside(at, key)
        if key.startswith("$"):
            return self._logical(key, value, here, depth)
        if "[$" in key:
            parts = _KEY_WITH_OPERATOR.fullmatch(key)
            if parts is None or "[$" in parts[1]:
                raise _refused("an operator in a key is written field[$gt]", here)
            return self._operation(parts[1], parts[2], value, here)
        if isinstance(value, dict):
            return self._operator_object(key, value, here, depth)
        return self._operation(key, "IN" if isinstance(value, list) else "EQUALS", value, here)

    def _logical(self, key: str, value: Any, at: str, depth: int) -> Filter:
        match key.lower():
            case "$and" | "$or" as name:
                if not isinstance(value, list) or not value:
                    raise _refused(
                        f"{name} takes a list of at least one condition, such as [{{'category': 'books'}}]", at
                    )
                parts = tuple(self.document(part, f"{at}[{i}]", depth + 1) for i, part in enumerate(value))
                return And(parts) if name == "$and" else Or(parts)
            case "$not":
                return Not(self.document(value, at, depth + 1))
        if _folded(key) in _OPERATORS:
            raise _refused(f"{key} stands inside a field: write {{'field': {{'{key}': ...}}}}", at)
        raise _refused(f"there is no operator {key[:40]}; there are $and, $or and $not", at)

    def _condition_list(self, document: dict[str, Any], at: str, depth: int) -> Filter:
        _refuse_others(document, ("combination", "conditions"), at)
        combination = document.get("combination", "AND")
        if not isinstance(combination, str) or combination.upper() not in ("AND", "OR"):
            raise _refused(f"combination is AND or OR, not {combination!r:.60}", _inside(at, "combination"))
        here = _inside(at, "conditions")
        conditions = document.get("conditions")
        if not isinstance(conditions, list) or not conditions:
            raise _refused("conditions is a list of at least one condition with field, op and value", here)
        parts = []
        for i, condition in enumerate(conditions):
            place = f"{here}[{i}]"
            if not isinstance(condition, dict) or not condition.keys() & {"field", "conditions"}:
                raise _refused("a condition has field, op and value; or combination and conditions", place)
            if "conditions" in condition:
                parts.append(self._nested_list(condition, place, depth + 1))
            else:
                parts.append(self._condition(condition, place))
        return _all_of(parts) if combination.upper() == "AND" else Or(tuple(parts))

    def _nested_list(self, document: dict[str, Any], at: str, depth: int) -> Filter:
        _check_depth(depth)
        return self._condition_list(document, at, depth)

    def _condition(self, condition: dict[str, Any], at: str) -> Filter:
        _refuse_others(condition, ("field", "op", "value"), at)
        field, op = condition.get("field"), condition.get("op")
        if not isinstance(field, str):
            raise _refused("field names a metadata field, as a string", _inside(at, "field"))
        if not isinstance(op, str):
            raise _refused(f"op is one of {', '.join(_SPELLINGS)}", _inside(at, "op"))
        name = _operator(op, _inside(at, "op"))
        value = condition.get("value")
        if name == "EXISTS" and value is None:  # a client that sends every member sends null here
            value = True
        elif "value" not in condition:
            raise _refused(f"{name} needs a value; write null to ask for null", at)
        return self._operation(field, name, value, _inside(at, "value"))

    def _operator_object(self, field: str, operators: dict[str, Any], at: str, depth: int) -> Filter:
        if not operators:
            raise _refused("an empty object says nothing; write {'$exists': true} to ask for the field alone", at)
        parts: list[Filter] = []
        for name, value in operators.items():
            here = _inside(at, name)
            if name.lower() == "$not":
                _check_depth(depth + 1)
                if not isinstance(value, dict):
                    raise _refused("$not takes operators, such as {'$gt': 5}; to exclude one value write $ne", here)
                parts.append(Not(self._operator_object(field, value, here, depth + 1)))
            elif not name.startswith("$") and _folded(name) not in _OPERATORS:
                raise _refused(f"objects are compared member by member: write the path {field}.{name}"[:200], here)
            else:
                parts.append(self._operation(field, name, value, here))
        return _all_of(parts)

    def _operation(self, field: str, op: str, value: Any, at: str) -> Filter:
        """One operator on one field."""
        name = _operator(op, at)
        bare = field.removeprefix(_PREFIX) or field
        try:
            for path in (field, bare):
                make.field_path(path)
        except JadeError as error:
            raise _refused(error.details["reason"], at) from None
        build = self._builder(name, value, at)
        paths = [path for path in (field, bare) if self._may_exist(path)]
        if bare == field or len(paths) < 2:
            return build(paths[0] if paths else bare)
        return Or((And((Exists(field), build(field))), And((Exists(field, False), build(bare)))))

    def _builder(self, name: str, value: Any, at: str) -> Callable[[str], Filter]:
        """From the path of a field to the condition on it. The value is checked here."""
        match name:
            case "EQUALS" | "NOT_EQUALS":
                members = [_scalar(value, name, at)]
            case "IN" | "NOT_IN":
                members = _listed(value, name, at)
            case "CONTAINS":
                return self._contains(_scalar(value, name, at))
            case "PREFIX":
                start = _scalar(value, name, at)
                if not isinstance(start, str):
                    raise _refused(f"PREFIX takes a string, not {_kind_of(start)}", at)
                return lambda path: Prefix(path, start) if self._may_be_text(path) else _NEVER
            case "EXISTS":
                present = _truth(value, at)
                return lambda path: Exists(path, present)
            case _:
                return _in_order(_ORDERS[name], _scalar(value, name, at))
        equal = _equal(members)
        return (lambda path: Not(equal(path))) if name in ("NOT_EQUALS", "NOT_IN") else equal

    def _contains(self, value: Any) -> Callable[[str], Filter]:
        element = _equal([value], in_arrays=True)

        def build(path: str) -> Filter:
            declared = self._schema.fields.get(path)
            if not isinstance(value, str) or (declared is not None and declared.is_array):
                return element(path)
            if not self._may_be_text(path):
                return _NEVER
            return Or((Contains(path, "string", value), element(path)))

        return build

    def _may_exist(self, path: str) -> bool:
        """Whether a vector can have the field: under a strict schema, only what is declared and what leads there."""
        fields = self._schema.fields
        return not self._schema.strict or path in fields or any(known.startswith(path + ".") for known in fields)

    def _may_be_text(self, path: str) -> bool:
        declared = self._schema.fields.get(path)
        return declared is None or declared.element in _TEXTUAL


def _equal(values: list[Any], in_arrays: bool = False) -> Callable[[str], Filter]:
    """Equal to one of the values: everything that each of them is equal to, by the type of what is stored."""
    strings = {value for value in values if isinstance(value, str)}
    numbers = {value for value in values if isinstance(value, int | float) and not isinstance(value, bool)}
    truths = {value for value in values if isinstance(value, bool)}
    said = {text.lower() for text in strings}
    as_numbers = {number for text in strings if (number := numeric_value(text)) is not None}
    has_null = None in values
    node = LooseIn(
        "",
        strings=frozenset(strings | {"None"} if has_null else strings),
        numbers=frozenset(numbers | as_numbers),
        numeric_texts=frozenset(numbers),
        true=True in truths or "true" in said,
        false=False in truths or "false" in said,
        true_text=True in truths,
        false_text=False in truths,
        null=has_null or "None" in strings,
        missing=has_null and not in_arrays,
        in_arrays=in_arrays,
    )
    return lambda path: msgspec.structs.replace(node, path=path)


def _in_order(op: Order, value: Any) -> Callable[[str], Filter]:
    if value is None or isinstance(value, bool):
        return lambda path: _NEVER
    number = numeric_value(value) if isinstance(value, str) else value
    if number is None:
        return lambda path: LooseOrder(op, path, "string", value)
    return lambda path: LooseOrder(op, path, "number", number)


def _scalar(value: Any, name: str, at: str) -> Any:
    """A value of JSON that is neither array nor object, within the limits."""
    if isinstance(value, list):
        raise _refused(f"{name} takes one value; for any of several write IN", at)
    if isinstance(value, dict):
        raise _refused(f"{name} takes a string, number, boolean or null, not an object", at)
    return make.scalar(at, value)[1]


def _listed(value: Any, name: str, at: str) -> list[Any]:
    """The values of a list, or of a text with commas between them."""
    if isinstance(value, str):
        _scalar(value, name, at)
        values: list[Any] = [part for piece in value.split(",") if (part := piece.strip())]
        if not values:
            raise _refused(f"{name} takes a list of values, or a text with commas between them; this one has none", at)
        return values
    if not isinstance(value, list):
        raise _refused(f"{name} takes a list of values, or a text with commas between them, not {_kind_of(value)}", at)
    if len(value) > limits.FILTER_LIST_MAX:
        raise _refused(f"a list of {len(value)} values is too long, at most {limits.FILTER_LIST_MAX} are possible", at)
    return [_scalar(member, "an element of a list", f"{at}[{i}]") for i, member in enumerate(value)]


def _truth(value: Any, at: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _refused(f"EXISTS takes true or false, not {value!r:.60}", at)


def _is_condition_list(document: dict[str, Any]) -> bool:
    """Whether it is not merely metadata fields of these names: {"conditions": ["new", "used"]} is one of the values."""
    conditions = document.get("conditions")
    if "combination" in document:
        combination = document["combination"]
        is_named = isinstance(combination, str) and combination.upper() in ("AND", "OR")
        return (
            isinstance(conditions, list) or (is_named and len(document) == 1) or (is_named and "conditions" in document)
        )
    return isinstance(conditions, list) and (not conditions or any(isinstance(one, dict) for one in conditions))


def _is_empty_conjunction(document: dict[str, Any]) -> bool:
    """The form with a list, without a condition in it: sent by clients that have nothing to filter by."""
    combination = document.get("combination")
    return (
        document.keys() == {"combination", "conditions"}
        and document["conditions"] == []
        and isinstance(combination, str)
        and combination.upper() == "AND"
    )


def _is_condition(document: dict[str, Any]) -> bool:
    """A single condition in the form of a list's."""
    op = document.get("op")
    if not isinstance(document.get("field"), str) or not isinstance(op, str):
        return False
    return document.keys() == {"field", "op", "value"} or (len(document) == 2 and _folded(op) == "exists")


def _operator(written: str, at: str) -> str:
    name = _OPERATORS.get(_folded(written))
    if name is None:
        close = difflib.get_close_matches(_folded(written)[:40], _OPERATORS, n=1)
        near = f"did you mean {_OPERATORS[close[0]]}?" if close else f"there are {', '.join(_SPELLINGS)}"
        raise _refused(f"there is no operator {written[:40]}; {near}", at)
    return name


def _folded(operator: str) -> str:
    """How an operator is looked up: `$gte`, `GREATER_THAN` and `greaterThan` are all known."""
    return operator.removeprefix("$").replace("_", "").lower()


def _check_depth(depth: int) -> None:
    if depth > limits.FILTER_DEPTH_MAX:
        raise _refused(f"the filter is nested more than {limits.FILTER_DEPTH_MAX} deep; write it flatter")


def _refuse_others(document: dict[str, Any], known: tuple[str, ...], at: str) -> None:
    others = [key for key in document if key not in known]
    if others:
        raise _refused(f"{others[0][:40]} is not understood here; there are {', '.join(known)}", _inside(at, others[0]))


def _all_of(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _refused(message: str, at: str = "") -> JadeError:
    return refusal(message, at or None)


def _inside(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _kind_of(value: object) -> str:
    names = {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null" if value is None else type(value).__name__)
