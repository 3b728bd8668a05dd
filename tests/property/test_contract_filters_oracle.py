"""Filters of version 1 of the REST interface against a second reading of its rules, on metadata and values made to be difficult.

`holds` below is the contract's table in the plainest code: it walks the filter as it was sent, knows nothing of the engine's conditions,
and decides one vector at a time. Translated filters must agree with it in the evaluator, in sealed columns and in growing ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jadevectordb.gateway.service.contract_filters import translate
from jadevectordb.index.columns import GrowingColumns, build_columns, open_columns
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filter_parse import parse
from jadevectordb.model.filters import from_json, to_json
from jadevectordb.model.numeric_text import numeric_value
from jadevectordb.model.schema import Schema, parse_schema
from jadevectordb.model.schema_encode import encode_metadata

# The oracle

Json = Any


def as_number(value: Json) -> int | float | None:
    """A number, or a string that is a decimal number once trimmed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip()
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    mantissa, e, exponent = unsigned.replace("E", "e").partition("e")
    whole, point, fraction = mantissa.partition(".")
    power = exponent[1:] if exponent[:1] in ("+", "-") else exponent
    if not _digits(whole + fraction) or (e and not _digits(power)) or len(text) > 1300:
        return None
    if not e and not point:
        integer = int(text)
        return integer if abs(integer) < 2**4096 else None
    number = float(text)
    return number if abs(number) != float("inf") else None


def _digits(text: str) -> bool:
    return text != "" and all(character in "0123456789" for character in text)


def equal(s: Json, f: Json) -> bool:
    """The table of the contract for two values that are neither arrays nor objects."""
    if isinstance(s, bool) and isinstance(f, bool):
        return s is f
    if isinstance(s, str) and isinstance(f, str):
        return s == f
    if s is None or f is None:
        return (s is None or s == "None") and (f is None or f == "None")
    if isinstance(s, bool) or isinstance(f, bool):
        truth, other = (s, f) if isinstance(s, bool) else (f, s)
        return isinstance(other, str) and other.lower() == str(truth).lower()
    a, b = as_number(s), as_number(f)
    return a is not None and b is not None and a == b


def elements(leaf: Json) -> list[Json]:
    found = leaf if isinstance(leaf, list) else [leaf]
    return [one for one in found if not isinstance(one, list | dict)]


def any_equal(leaves: list[Json], f: Json) -> bool:
    if not leaves:
        return f is None
    return any(equal(s, f) for leaf in leaves for s in elements(leaf))


def ordered(op: str, s: Json, f: Json) -> bool:
    a, b = as_number(s), as_number(f)
    if a is None or b is None:
        if not (isinstance(s, str) and isinstance(f, str) and a is None and b is None):
            return False
        pair: tuple[Any, Any] = ([ord(c) for c in s], [ord(c) for c in f])
    else:
        pair = (a, b)
    return {"gt": pair[0] > pair[1], "ge": pair[0] >= pair[1], "lt": pair[0] < pair[1], "le": pair[0] <= pair[1]}[op]


def leaves_at(document: dict[str, Json], path: str) -> list[Json]:
    """A key with the literal dots first, then the nested path."""
    parts = path.split(".")
    for taken in range(len(parts), 0, -1):
        key, rest = ".".join(parts[:taken]), ".".join(parts[taken:])
        if key in document:
            if taken == len(parts):
                return [document[key]]
            inner = document[key] if isinstance(document[key], list) else [document[key]]
            return [leaf for below in inner if isinstance(below, dict) for leaf in leaves_at(below, rest)]
    return []


def operation(field: str, op: str, f: Json, document: dict[str, Json]) -> bool:
    leaves = leaves_at(document, field)
    if not leaves and field.startswith("metadata."):
        leaves = leaves_at(document, field.removeprefix("metadata."))
    match NAMES[op.lower().removeprefix("$")]:
        case "eq":
            return any(any_equal(leaves, one) for one in f) if isinstance(f, list) else any_equal(leaves, f)
        case "ne":
            return not any_equal(leaves, f)
        case "in" | "nin" as name:
            values = f if isinstance(f, list) else [piece.strip() for piece in f.split(",") if piece.strip()]
            return any(any_equal(leaves, one) for one in values) == (name == "in")
        case "contains":
            return any(
                any(equal(s, f) for s in elements(leaf))
                if isinstance(leaf, list)
                else isinstance(leaf, str) and isinstance(f, str) and f in leaf
                for leaf in leaves
            )
        case "prefix":
            return any(isinstance(s, str) and s.startswith(f) for leaf in leaves for s in elements(leaf))
        case "exists":
            return bool(leaves) == (f is True or (isinstance(f, str) and f.lower() == "true"))
        case order:
            return any(ordered(order, s, f) for leaf in leaves for s in elements(leaf))


NAMES = {
    "equals": "eq", "eq": "eq", "not_equals": "ne", "ne": "ne", "greater_than": "gt", "gt": "gt", "greater_than_or_equal": "ge",
    "gte": "ge", "ge": "ge", "less_than": "lt", "lt": "lt", "less_than_or_equal": "le", "lte": "le", "le": "le", "in": "in",
    "not_in": "nin", "nin": "nin", "contains": "contains", "prefix": "prefix", "exists": "exists",
}  # fmt: skip


def holds(sent: dict[str, Json], document: dict[str, Json]) -> bool:
    """Whether the vector with this metadata is found under the filter; any of the four forms."""
    if "conditions" in sent:
        parts = [
            holds(part, document)
            if "conditions" in part
            else operation(part["field"], part["op"], part["value"], document)
            for part in sent["conditions"]
        ]
        return any(parts) if sent.get("combination", "AND").upper() == "OR" else all(parts)
    return all(_entry(key, value, document) for key, value in sent.items())


def _entry(key: str, value: Json, document: dict[str, Json]) -> bool:
    if key.lower() in ("$and", "$or"):
        return (all if key.lower() == "$and" else any)(holds(part, document) for part in value)
    if key == "$not":
        return not holds(value, document)
    if key.endswith("]") and "[$" in key:
        field, op = key[:-1].split("[$")
        return operation(field, op, value, document)
    if isinstance(value, dict):
        return all(
            not _entry(key, inner, document) if op == "$not" else operation(key, op, inner, document)
            for op, inner in value.items()
        )
    return operation(key, "eq", value, document)


# What is stored and asked

DIGITS = "1" * 300
NUMBERS: list[Json] = [
    0, 1, -1, 2, 7, 100, 129, 1.0, 0.5, 79.99, -0.0, 1e-7, 1e22, 1e300, 2**53, 2**53 + 1, float(2**53), 2**63,
    2**64 + 1, 10**400, int(DIGITS), int(DIGITS) + 1, float(DIGITS),
]  # fmt: skip
NUMERIC: list[Json] = [
    "0", "1", "-1", "+1", "01", "007", "7", " 7 ", "7\n", "\u00a07", "\u20037\u3000", "1.0", "1.", ".5",
    "0.50", "1e0", "1E+00", "100", "1e2", "-0", "129", "129.0", "79.99", "79.990", "1e-07", "1e+22",
    "9007199254740993", "9007199254740992.0", "9007199254740993.0", "18446744073709551617", "1" + "0" * 400,
    DIGITS, DIGITS[:-1] + "2", DIGITS + ".0", DIGITS + ".5", " " * 300 + "7", "7" + " " * 300, "0" * 290 + "7",
    "0." + "0" * 300, "9" * 1290, "9" * 1233, "0" * 1400,
]  # fmt: skip
TEXTS: list[Json] = [
    "", " ", "a", "b", "ab", "A", "Z", "None", "none", "null", "true", "True", "TRUE", "tRuE", "true ",
    "false", "False", "fALSE", "NaN", "nan", "inf", "-Infinity", "0x10", "1_000", "1,5", "1e", "e1", ".", "+",
    "-", "+-1", "1 2", "1.2.3", "1e999", "-1e999", "1e-999", "٣", "１", "²", "1٣", "2024-05-17", "2024",
    "2024-06", "日本", "\U0001f600", "\uffee", "12a", "a12", DIGITS + "x", DIGITS + " 1", "+" * 300, " " * 300,
    "1" + " " * 300 + "x", "é" * 200, "x" * 300, "\x1c1", "1\x85", "1\x00",
]  # fmt: skip
OTHERS: list[Json] = [None, True, False]
KEYS = ["a", "b", "a.b", "metadata", "metadata.a"]
FIELDS = ["a", "b", "a.b", "metadata.a", "metadata.b", "metadata.a.b", "b.a", "nowhere", "metadata", "metadata.nowhere"]


class Maker(Random):
    """Rows and filters from a seed, of a narrow choice of values so that they often meet."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        every = [*NUMBERS, *NUMERIC, *TEXTS, *OTHERS * 8]
        self.values = self.choice(
            [every, NUMBERS + NUMERIC, TEXTS + OTHERS * 5, self.sample(every, 8), self.sample(every, 8)]
        )
        self.keys = self.choice([KEYS, ["a"], ["a", "metadata.a"], ["a", "b"]])
        self.fields = self.choice([FIELDS, ["a", "metadata.a"], ["a", "a.b"], ["a"]])

    def value(self, depth: int = 0) -> Json:
        shape = self.random()
        if shape < 0.65 or depth == 2:
            return self.choice(self.values)
        if shape < 0.85:
            return [self.value(depth + 1) for _ in range(self.randrange(4))]
        return self.document(depth + 1)

    def document(self, depth: int = 0) -> dict[str, Json]:
        return {self.choice(self.keys): self.value(depth) for _ in range(self.randrange(1, 4))}

    def rows(self) -> list[dict[str, Json]]:
        return [self.document() for _ in range(self.randrange(1, 25))] * self.choice([1, 1, 8])

    def operation(self) -> tuple[str, Json]:
        op = self.choice(list(NAMES))
        match NAMES[op]:
            case "in" | "nin":
                if self.random() < 0.3:
                    return op, self.choice([" 1, 7,a ", "true,None", "79.99", "1,,2"])
                return op, [self.choice(self.values) for _ in range(self.randrange(4))]
            case "prefix":
                return op, str(self.choice(self.values))[: self.randrange(4)]
            case "exists":
                return op, self.choice([True, False, "true", "False"])
            case "contains":
                asked = self.choice(self.values)
                return op, asked[: self.randrange(1, 4)] if isinstance(asked, str) and self.random() < 0.5 else asked
        return op, self.choice(self.values)

    def spelled(self, op: str) -> str:
        return self.choice([op, op.upper(), op.title(), "$" + op])

    def filter(self, depth: int = 0) -> dict[str, Json]:
        form = self.randrange(4 if depth == 2 else 6)
        field = self.choice(self.fields)
        op, value = self.operation()
        match form:
            case 0:
                flat = self.choice([self.choice(self.values), [self.choice(self.values), self.choice(self.values)]])
                return {
                    field: flat,
                    **({self.choice(self.fields): self.choice(self.values)} if self.random() < 0.3 else {}),
                }
            case 1:
                return {f"{field}[${self.choice([op, op.upper()])}]": value}
            case 2:
                inner: Json = {self.spelled(op): value}
                return {field: inner if self.random() < 0.8 else {"$not": inner}}
            case 3:
                return self.condition_list(depth)
            case 4:
                return {
                    self.choice(["$and", "$or", "$OR"]): [self.filter(depth + 1) for _ in range(self.randrange(1, 4))]
                }
            case _:
                return {"$not": self.filter(depth + 1)}

    def condition_list(self, depth: int) -> dict[str, Json]:
        conditions: list[Json] = []
        for _ in range(self.randrange(1, 4)):
            op, value = self.operation()
            conditions.append({"field": self.choice(self.fields), "op": self.spelled(op), "value": value})
            if depth < 2 and self.random() < 0.2:
                conditions.append(self.condition_list(depth + 1))
        return {"combination": self.choice(["AND", "OR", "and"]), "conditions": conditions}


SCHEMAS = [Schema(), Schema(), parse_schema({"a": "text", "b": "string[]"}), parse_schema({"a.b": "text[]"})]


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=400, deadline=None)
def test_filters_find_what_the_contract_says(seed: int) -> None:
    make = Maker(seed)
    raw = encode_metadata(make.rows())  # as stored, whatever the schema would say to it: the columns take anything
    rows = [msgspec.json.decode(data) for data in raw]
    schema = make.choice(SCHEMAS)
    with tempfile.TemporaryDirectory() as folder:
        build_columns(raw, schema, Path(folder))
        sealed = open_columns(Path(folder), len(rows))
        growing = GrowingColumns(schema)
        for _ in range(8):
            sent = make.filter()
            node = translate(msgspec.json.decode(msgspec.json.encode(sent)))
            assert node is not None
            wanted = [row for row, document in enumerate(rows) if holds(sent, document)]
            assert [row for row, document in enumerate(rows) if matches(node, document, schema)] == wanted, sent
            assert sealed.evaluate(node, raw.__getitem__).rows().tolist() == wanted, sent
            assert growing.evaluate(node, raw, len(raw)).rows().tolist() == wanted, sent
            assert from_json(to_json(node)) == node


DECLARED: dict[str, tuple[str, list[Json]]] = {
    "s": ("string", TEXTS + NUMERIC),
    "t": ("text", TEXTS + NUMERIC),
    "i": ("integer", [1, 7, 129, 2**53 + 1, 2**64 + 1]),
    "n": ("number", [1, 1.0, 79.99, 129.0, 1e22]),
    "b": ("boolean", [True, False]),
    "d": ("date", ["2024-05-17", "2024-05-17T00:00:00Z", "2024-05-17T02:00:00+02:00", "2023-01-01"]),
    "ss": ("string[]", [["a", "7"], ["True", "None"], []]),
    "ns": ("number[]", [[1, 7.5], [129], []]),
    "ds": ("date[]", [["2024-05-17", "2024-05-17T00:00:00Z"], ["2023-01-01"]]),
    "o.p": ("integer", [1, 7]),
}


@given(st.integers(0, 2**64 - 1), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_declared_changes_nothing(seed: int, strict: bool) -> None:
    """No condition is refused for a declared type, dates stay strings, and the answer is the contract's."""
    make = Maker(seed)
    schema = parse_schema({path: declared for path, (declared, _) in DECLARED.items()}, strict=strict)
    rows = [
        {path: make.choice([*values, None]) for path, (_, values) in DECLARED.items() if make.random() < 0.8}
        for _ in range(12)
    ]
    raw = encode_metadata(rows, schema)
    make.fields = [*DECLARED, *("metadata." + path for path in DECLARED)] + ([] if strict else ["x", "metadata.x"])
    make.values = [*make.sample(TEXTS + NUMERIC + NUMBERS, 6), *OTHERS, 1, 7, "7", "2024-05-17", "2024-05-17T00:00:00Z"]
    with tempfile.TemporaryDirectory() as folder:
        build_columns(raw, schema, Path(folder))
        sealed = open_columns(Path(folder), len(rows))
        growing = GrowingColumns(schema)
        for _ in range(8):
            sent = make.filter()
            node = parse(
                translate(sent, schema), schema
            )  # as the engine takes it, with its own check of declared types
            assert node is not None
            wanted = [row for row, document in enumerate(rows) if holds(sent, document)]
            assert [row for row, document in enumerate(rows) if matches(node, document, schema)] == wanted, sent
            assert sealed.evaluate(node, raw.__getitem__).rows().tolist() == wanted, sent
            assert growing.evaluate(node, raw, len(raw)).rows().tolist() == wanted, sent


@given(st.text(alphabet="0123456789+-.eE _x\t\u00a0٣²", max_size=12))
@example("1" * 1234)
@example("9" * 1300)
@example("0" * 1301)
@example("0." + "0" * 1298)
@example("0." + "0" * 1299)
@example(" " * 2000 + "1")
@settings(max_examples=1000, deadline=None)
def test_a_string_is_a_number_by_both_readings_or_by_none(text: str) -> None:
    value, wanted = numeric_value(text), as_number(text)
    assert (value, type(value)) == (wanted, type(wanted))


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_written_by_json_and_python_are_read_back(number: int | float) -> None:
    assert numeric_value(str(number)) == number
    assert numeric_value(msgspec.json.encode(number).decode()) == number


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["a", "metadata.a", "", "$or", "$and", "$not", "$in", "gt", "$x", "a[$gt]", "a[$x]", "[$in]", "a[$", "field", "op", "value",
                 "combination", "conditions", "metadata."]
            ),
            inner | st.sampled_from(["AND", "OR", "EQUALS", "exists", "IN"]),
            max_size=4,
        )
    ),
    max_leaves=10,
)  # fmt: skip


@given(junk)
@settings(max_examples=500, deadline=None)
def test_anything_is_a_filter_or_refused_with_its_place(sent: Json) -> None:
    try:
        node = translate(sent)
    except JadeError as error:
        assert error.code == ErrorCode.INVALID_FILTER
        error.message.encode()
    else:
        assert node is None or from_json(to_json(node)) == node
        assert node is not None or sent in (None, {}) or sent["conditions"] == []
