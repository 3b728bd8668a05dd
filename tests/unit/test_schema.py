"""Schemas, and metadata on its way into the database."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.model import limits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.schema import FieldType, Schema, parse_schema
from jadevectordb.model.schema_encode import encode_metadata


class Color(StrEnum):
    RED = "red"


@dataclass
class Record:
    a: int = 1


def test_a_schema_in_its_forms() -> None:
    schema = parse_schema(
        {
            "pos": "string",
            "tags": {"type": "string", "array": True},
            "at.time": FieldType.DATE,
            "gloss": {"type": "text"},
        }
    )
    assert schema.fields == {
        "pos": FieldType.STRING,
        "tags": FieldType.STRINGS,
        "at.time": FieldType.DATE,
        "gloss": FieldType.TEXT,
    }
    assert schema.dates == {"at.time"}
    assert schema.texts == ("gloss",)
    assert parse_schema(schema) is schema
    assert parse_schema(None) == Schema()
    assert msgspec.json.decode(msgspec.json.encode(schema), type=Schema) == schema
    assert parse_schema({"a": "string"}, strict=True).strict


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("string", "a schema is a dict"),
        ({"a": "str"}, "did you mean 'string'?"),
        ({"a": "int[]"}, "did you mean 'integer[]'?"),
        ({"a": "strng"}, "did you mean 'string'?"),
        ({"a": "blob"}, "types are string"),
        ({"a": 5}, "is no type"),
        ({"a": {"kind": "string"}}, "'type'"),
        ({"a": {"type": "string", "index": True}}, "'type'"),
        ({"a": {"type": "string", "array": 1}}, "'type'"),
        ({"": "string"}, "not empty"),
        ({5: "string"}, "not by 5"),
        ({"$a": "string"}, "begin with $"),
        ({"a" + ".a" * 16: "string"}, "too long a path"),
        ({f"f{i}": "string" for i in range(limits.SCHEMA_FIELDS_MAX + 1)}, "too large"),
    ],
)
def test_a_wrong_schema_says_what_to_do(written: Any, said: str) -> None:
    with pytest.raises(JadeError) as caught:
        parse_schema(written)
    assert caught.value.code == ErrorCode.INVALID_ARGUMENT
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, {}),
        ({}, {}),
        ({"a": [1, 2.5, "x", True, None, {"b": []}]}, {"a": [1, 2.5, "x", True, None, {"b": []}]}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": Color.RED, Color.RED: 1}, {"a": "red", "red": 1}),
        (
            {"a": np.float32(0.5), "b": np.int8(-3), "c": np.bool_(True), "d": np.str_("x")},
            {"a": 0.5, "b": -3, "c": True, "d": "x"},
        ),
        ({"a": np.array([[1, 2], [3, 4]])}, {"a": [[1, 2], [3, 4]]}),
        ({"a": np.datetime64("2024-05-17T12:00")}, {"a": "2024-05-17T12:00:00"}),
        ({"a": date(2024, 5, 17)}, {"a": "2024-05-17"}),
        ({"a": datetime(2024, 5, 17, 12)}, {"a": "2024-05-17T12:00:00"}),  # noqa: DTZ001
        ({"a": datetime(2024, 5, 17, 12, 0, 0, 5, tzinfo=UTC)}, {"a": "2024-05-17T12:00:00.000005Z"}),
        ({"a": datetime(2024, 5, 17, 12, tzinfo=timezone(timedelta(hours=2)))}, {"a": "2024-05-17T10:00:00Z"}),
        ({"a": 10**40, "b": -(2**63)}, {"a": 10**40, "b": -(2**63)}),
        ({"a": "x" * 5000}, {"a": "x" * 5000}),
        ({"é\U0001f600": "\x00"}, {"é\U0001f600": "\x00"}),
        (b'{"a" : 1.50}', {"a": 1.5}),
    ],
)
def test_what_is_stored(value: Any, stored: dict[str, Any]) -> None:
    rows = encode_metadata([value, {"plain": 1}])
    assert msgspec.json.decode(rows[0]) == stored
    assert rows[1] == b'{"plain":1}'


def test_bytes_are_kept_as_they_are() -> None:
    assert encode_metadata([b'{"a" : 1.50, "a": 2}']) == [b'{"a" : 1.50, "a": 2}']


cycle: dict[str, Any] = {}
cycle["self"] = cycle
deep: Any = 1
for _ in range(40):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        ([1], "", "metadata is a dict, not list"),
        ("{}", "", "metadata is a dict, not str"),
        (0, "", "metadata is a dict, not int"),
        (Record(), "", "metadata is a dict, not Record"),
        ({"a": {"b": [1, float("nan")]}}, "a.b[1]", "nan"),
        ({"a": float("inf")}, "a", "inf"),
        ({"a": np.array([1.0, np.nan])}, "a[1]", "nan"),
        ({"a": b"x"}, "a", "bytes cannot be stored"),
        ({"a": {1, 2}}, "a", "set cannot be stored"),
        ({"a": Decimal("1.5")}, "a", "Decimal cannot be stored"),
        ({"a": UUID(int=1)}, "a", "UUID cannot be stored"),
        ({"a": Record()}, "a", "Record cannot be stored"),
        ({"a": object()}, "a", "object cannot be stored"),
        ({"a": 1j}, "a", "complex cannot be stored"),
        ({"a": np.array([1j])}, "a", "numpy complex128"),
        ({"a": np.array([object()])}, "a", "numpy object"),
        ({"a": timedelta(1)}, "a", "timedelta cannot be stored"),
        ({"a": {1: 2}}, "a", "a key is a string, not 1"),
        ({None: 2}, "", "a key is a string, not None"),
        ({"a": "\ud800"}, "a", "surrogate"),
        ({"\ud800": 1}, "", "surrogate"),
        ({"a": 1 << 5000}, "a", "5001 bits"),
        ({"a": deep}, "a[0][0]", "nested more than 32 deep"),
        (cycle, "self.self", "nested more than 32 deep"),
        ({"a": "x" * (1 << 20)}, "", "bytes as JSON"),
        ({"a": np.zeros(600_000)}, "a", "too large for metadata"),
        (b"[1]", "", "not a JSON object"),
        (b"{", "", "not a JSON object"),
        (b'{"a": NaN}', "", "not a JSON object"),
        (b'{"a": "\xff"}', "", "not a JSON object"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "a[0]", "nested more than 32 deep"),
    ],
)
def test_what_cannot_be_stored_names_row_and_key(value: Any, key: str, said: str) -> None:
    with pytest.raises(JadeError) as caught:
        encode_metadata([{"fine": 1}, None, value, {"fine": 2}])
    error = caught.value
    assert error.code == ErrorCode.INVALID_METADATA
    assert error.message.startswith(f"metadata of row 2, key {key}" if key else "metadata of row 2:")
    assert said in error.message
    assert error.details["row"] == 2
    assert len(error.message) < 500
    error.message.encode()


SCHEMA = parse_schema(
    {
        "s": "string",
        "i": "integer",
        "n": "number",
        "b": "boolean",
        "d": "date",
        "tags": "string[]",
        "o.p": "integer",
        "t": "text",
    }
)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"s": None, "i": None, "tags": None, "d": None, "o": {"p": None}},
        {
            "s": "x",
            "i": 3,
            "n": 3,
            "b": False,
            "d": "2024-05-17T12:00:00+02:00",
            "tags": [],
            "o": {"p": 1, "q": 2},
            "t": "x",
            "other": [1],
        },
        {"n": 2.5, "d": date(2024, 5, 17), "tags": ("a",), "i": np.int32(4), "o": [{"p": 1}, {"p": 2}]},
        {"o.p": 3},
    ],
)
def test_what_fits_a_schema(value: Any) -> None:
    assert len(encode_metadata([value], SCHEMA)) == 1


@pytest.mark.parametrize(
    ("value", "field", "said"),
    [
        ({"s": 5}, "s", "declared string, got integer"),
        ({"s": ["x"]}, "s", "declared string, got array"),
        ({"i": 1.0}, "i", "declared integer, got number"),
        ({"i": True}, "i", "declared integer, got boolean"),
        ({"n": "1"}, "n", "declared number, got string"),
        ({"n": True}, "n", "declared number, got boolean"),
        ({"b": 1}, "b", "declared boolean, got integer"),
        ({"d": "yesterday"}, "d", "which is no date"),
        ({"d": "2024-02-30"}, "d", "which is no date"),
        ({"d": 5}, "d", "declared date, got integer"),
        ({"tags": "x"}, "tags", "declared string[], got string"),
        ({"tags": ["x", 5]}, "tags", "got an array with integer"),
        ({"tags": [None]}, "tags", "got an array with null"),
        ({"o": {"p": "x"}}, "o.p", "declared integer, got string"),
        ({"o": [{"p": 1}, {"p": "x"}]}, "o.p", "declared integer, got string"),
        ({"o.p": "x"}, "o.p", "declared integer, got string"),
        ({"t": {}}, "t", "declared text, got object"),
    ],
)
def test_what_violates_a_schema_names_row_field_and_types(value: Any, field: str, said: str) -> None:
    with pytest.raises(JadeError) as caught:
        encode_metadata([{}, value], SCHEMA)
    assert caught.value.code == ErrorCode.SCHEMA_VIOLATION
    assert f"row 1, field {field}: " in caught.value.message
    assert said in caught.value.message
    assert caught.value.details["field"] == field


@pytest.mark.parametrize(
    ("value", "field"),
    [({"x": 1}, "x"), ({"o": {"q": 1}}, "o.q"), ({"o": 5}, "o"), ({"o": [{"p": 1}, {"q": 1}]}, "o.q"), ({"o.q": 1}, "o.q"),
     ({"s": "x", "o": {"p": 1, "": 2}}, "o.")],
)  # fmt: skip
def test_a_strict_schema_refuses_what_is_not_declared(value: Any, field: str) -> None:
    strict = Schema({"s": FieldType.STRING, "o.p": FieldType.INTEGER}, strict=True)
    encode_metadata([{"s": "x", "o": {"p": 1}}, {"o": None}, {}, {"o": [{"p": 2}]}], strict)
    with pytest.raises(JadeError) as caught:
        encode_metadata([value], strict)
    assert caught.value.code == ErrorCode.SCHEMA_VIOLATION
    assert f"row 0, field {field}: not declared" in caught.value.message


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.none() | st.dictionaries(st.text(max_size=4), plain, max_size=4), max_size=5))
def test_plain_json_comes_back_unchanged(metadata: list[dict[str, Any] | None]) -> None:
    assert [msgspec.json.decode(row) for row in encode_metadata(metadata)] == [
        {} if row is None else row for row in metadata
    ]


def test_a_row_with_dates_changes_nothing_about_its_neighbours() -> None:
    rows: list[Any] = [{"i": i, "at": datetime(2024, 5, 17, tzinfo=UTC) if i % 100 == 7 else "x"} for i in range(3000)]
    encoded = encode_metadata(rows)
    assert [msgspec.json.decode(row)["i"] for row in encoded] == list(range(3000))
    assert msgspec.json.decode(encoded[2907])["at"] == "2024-05-17T00:00:00Z"
