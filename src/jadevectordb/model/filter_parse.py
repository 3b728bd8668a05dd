"""Filters in the dict form of MongoDB, made into the trees of `filters`.

    {"pos": "noun"}                                        equal
    {"pos": ["noun", "verb"]}                              one of
    {"year": {"$gte": 2000, "$lt": 2010}, "lang": "en"}    all of them
    {"$or": [{"a.b": 1}, {"tags": {"$contains": "x"}}]}    $and, $or, $nor, $not
    {"seen": {"$lt": {"$date": "2024-05-17T12:00:00Z"}}}   a point in time, where there is only JSON to say it

Nothing is ever ignored: an operator that does not exist, a value it cannot take and a shape that means nothing are INVALID_FILTER with
the place inside the filter ("at $or[1].year.$gte: ...") and what to write instead. Sizes are bounded (`limits`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jadevectordb.model import filter_make as make
from jadevectordb.model import limits
from jadevectordb.model.errors import JadeError
from jadevectordb.model.filter_check import check_filter
from jadevectordb.model.filters import NODE_TYPES, And, Exists, Filter, Not, Or, refusal
from jadevectordb.model.schema import Schema

_LISTS: Final = (list, tuple, set, frozenset)


def parse(value: Filter | Mapping[str, Any] | None, schema: Schema | None = None) -> Filter | None:
    """The tree of a filter in either form; None when there is nothing to filter by (None or an empty dict).

    schema: when given, conditions that can never hold for a declared field are refused too (`filter_check`).
    Raises INVALID_FILTER, and UNKNOWN_FIELD under a strict schema.
    """
    parser = _Parser()
    node = parser.read(value)
    if node is not None and parser.found_nodes:
        make.check_size(node)
    if node is not None and schema is not None and schema.fields:
        check_filter(node, schema)
    return node


class _Parser:
    """One pass over one filter; counts its conditions."""

    __slots__ = ("_nodes", "found_nodes")

    def __init__(self) -> None:
        self._nodes = 0
        self.found_nodes = False  # conditions in the Python form, whose size is checked at the end

    def read(self, value: object) -> Filter | None:
        if value is None:
            return None
        if isinstance(value, dict | Mapping):
            return self._document(value, 1) if value else None
        if isinstance(value, NODE_TYPES):
            self.found_nodes = True
            node: Filter = value
            return node
        raise refusal(
            f"a filter is a dict such as {{'pos': 'noun'}} or a condition such as F('pos') == 'noun', not {type(value).__name__}"
        )

    def _document(self, document: Mapping[Any, Any], depth: int) -> Filter:
        if depth > limits.FILTER_DEPTH_MAX:
            raise refusal(f"the filter is nested more than {limits.FILTER_DEPTH_MAX} deep; write it flatter")
        parts: list[Filter] = []
        for key, value in document.items():
            if type(key) is str and key[:1] == "$":
                part = self._logical(key, value, depth)
                if isinstance(part, And):
                    parts.extend(part.parts)
                else:
                    parts.append(part)
            else:
                self._field(key, value, depth, parts)
        if not parts:
            raise refusal("an empty condition says nothing; leave it out")
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _logical(self, key: str, value: object, depth: int) -> Filter:
        match key:
            case "$and":
                return And(self._documents(key, value, depth))
            case "$or":
                return Or(self._documents(key, value, depth))
            case "$nor":
                return Not(Or(self._documents(key, value, depth)))
            case "$not":
                return Not(self._nested(key, value, depth))
            case _ if key in _OPERATORS or key in ("$exists", "$not_exists", "$range"):
                raise refusal(f"{key} stands inside a field: write {{'field': {{'{key}': ...}}}}", key)
            case _:
                raise refusal(f"there is no operator {key}{_near(key, ('$and', '$or', '$nor', '$not'))}", key)

    def _documents(self, key: str, value: object, depth: int) -> tuple[Filter, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise refusal(f"{key} takes a list of at least one condition, such as [{{'pos': 'noun'}}]", key)
        return tuple(self._nested(f"{key}[{i}]", part, depth) for i, part in enumerate(value))

    def _nested(self, place: str, value: object, depth: int) -> Filter:
        try:
            self._count()
            if isinstance(value, Mapping):
                return self._document(value, depth + 1)
            if isinstance(value, NODE_TYPES):
                self.found_nodes = True
                node: Filter = value
                return node
            raise refusal(f"a condition is a dict such as {{'pos': 'noun'}}, not {type(value).__name__}")
        except JadeError as error:
            raise _moved(error, place) from None

    def _field(self, key: object, value: object, depth: int, parts: list[Filter]) -> None:
        """Append the conditions on one field."""
        path = make.field_path(key)
        self._count()
        if isinstance(value, str | int | float):  # the usual case first
            parts.append(make.compare("eq", path, value))
        elif isinstance(value, dict | Mapping):
            self._operators(path, value, depth, parts)
        elif isinstance(value, _LISTS):
            parts.append(make.is_in(path, value))
        else:
            parts.append(make.compare("eq", path, value))

    def _operators(self, path: str, operators: Mapping[Any, Any], depth: int, parts: list[Filter]) -> None:
        if not operators:
            raise refusal(
                "an empty operator object says nothing; write {'$exists': True} to ask for the field alone", path
            )
        for name, value in operators.items():
            self._count()
            try:
                parts.append(self._operator(path, name, value, depth))
            except JadeError as error:
                inner = error.details["at"]
                place = f"{path}.{name}" if inner in (None, path) else f"{path}.{name}{inner.removeprefix(path)}"
                raise refusal(error.details["reason"], place) from None

    def _operator(self, path: str, name: object, value: object, depth: int) -> Filter:
        build = _OPERATORS.get(name) if isinstance(name, str) else None
        if build is not None:
            return build(path, value)
        match name:
            case "$exists" | "$not_exists":
                if not isinstance(value, bool):
                    raise refusal(f"{name} takes True or False, not {value!r}")
                return Exists(path, value == (name == "$exists"))
            case "$range":
                return _range(path, value)
            case "$not":
                return self._negated(path, value, depth)
            case str() if name[:1] == "$":
                raise refusal(f"there is no operator {name}{_near(name, _NAMES)}")
            case _:
                raise refusal(
                    f"a field is compared by operators such as {{'$eq': ...}}; to reach into an object write the path '{path}.{name}'"
                )

    def _negated(self, path: str, value: object, depth: int) -> Filter:
        if not isinstance(value, Mapping) or depth >= limits.FILTER_DEPTH_MAX:
            raise refusal(
                "$not takes operators, such as {'$not': {'$gt': 5}}; to exclude one value write {'$ne': value}"
            )
        parts: list[Filter] = []
        self._operators(path, value, depth + 1, parts)
        return Not(parts[0] if len(parts) == 1 else And(tuple(parts)))

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > limits.FILTER_NODES_MAX:
            raise refusal(
                f"the filter has more than {limits.FILTER_NODES_MAX} conditions; for many values of one field use {{'$in': [...]}}"
            )


def _range(path: str, value: object) -> Filter:
    if isinstance(value, list | tuple) and len(value) == 2:
        return make.between(path, value[0], value[1])
    if isinstance(value, Mapping) and 1 <= len(value) <= 2:
        low = [name for name in ("$gt", "$gte") if name in value]
        high = [name for name in ("$lt", "$lte") if name in value]
        if len(low) <= 1 and len(high) <= 1 and len(low) + len(high) == len(value):
            lowest, highest = (None if not end else value[end[0]] for end in (low, high))
            return make.between(path, lowest, highest, low != ["$gt"], high != ["$lt"])
    raise refusal(
        "$range takes [low, high], both included, where None leaves an end open; or bounds such as {'$gt': 1, '$lte': 5}"
    )


def _listed(build: Callable[[str, Iterable[object]], Filter]) -> Callable[[str, Any], Filter]:
    def checked(path: str, value: Any) -> Filter:
        if not isinstance(value, _LISTS):
            raise refusal(f"$in and $nin take a list of values, not {type(value).__name__}")
        return build(path, value)

    return checked


_OPERATORS: Final[dict[str, Callable[[str, Any], Filter]]] = {
    "$eq": lambda path, value: make.compare("eq", path, value),
    "$ne": lambda path, value: make.compare("ne", path, value),
    "$gt": lambda path, value: make.compare("gt", path, value),
    "$gte": lambda path, value: make.compare("ge", path, value),
    "$ge": lambda path, value: make.compare("ge", path, value),
    "$lt": lambda path, value: make.compare("lt", path, value),
    "$lte": lambda path, value: make.compare("le", path, value),
    "$le": lambda path, value: make.compare("le", path, value),
    "$in": _listed(make.is_in),
    "$nin": _listed(make.not_in),
    "$not_in": _listed(make.not_in),
    "$contains": make.contains,
    "$prefix": make.prefix,
    "$regex": make.regex,
    "$date": lambda path, value: make.compare("eq", path, {"$date": value}),
}
_NAMES: Final = (*_OPERATORS, "$exists", "$not_exists", "$range", "$not")


def _near(name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name.lower()[:40], names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"


def _moved(error: JadeError, place: str) -> JadeError:
    """The same refusal seen from one level further out."""
    inner = error.details["at"]
    return refusal(error.details["reason"], place if inner is None else f"{place}.{inner}")
