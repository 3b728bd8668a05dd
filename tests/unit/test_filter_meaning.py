"""What filters mean, one example a line: (stored, filter, whether it holds). The evaluator and the columns answer alike."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jadevectordb.index.columns import GrowingColumns, build_columns, open_columns
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filter_parse import parse
from jadevectordb.model.filters import F
from jadevectordb.model.schema import Schema, parse_schema
from jadevectordb.model.schema_encode import encode_metadata

NOON = datetime(2024, 5, 17, 12, tzinfo=UTC)

EXAMPLES: list[tuple[dict[str, Any], Any, bool]] = [
    # numbers
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1.0}, {"a": 1}, True),
    ({"a": 2**53 + 1}, {"a": float(2**53)}, False),
    ({"a": 2**53 + 1}, {"a": {"$gt": float(2**53)}}, True),
    ({"a": 0.0}, {"a": -0.0}, True),
    ({"a": 10**30}, {"a": 10**30}, True),
    ({"a": 10**30}, {"a": {"$gt": 10**30 - 1}}, True),
    ({"a": 5}, {"a": {"$gte": 5, "$lt": 6}}, True),
    # types never mix
    ({"a": True}, {"a": 1}, False),
    ({"a": 1}, {"a": True}, False),
    ({"a": "1"}, {"a": 1}, False),
    ({"a": "1"}, {"a": {"$lt": 2}}, False),
    ({"a": 1}, {"a": {"$ne": "1"}}, True),
    ({"a": "true"}, {"a": True}, False),
    # strings by code point
    ({"a": "Z"}, {"a": {"$lt": "a"}}, True),
    ({"a": "\U0001f600"}, {"a": {"$gt": "\uffee"}}, True),
    ({"a": ""}, {"a": ""}, True),
    ({"a": "abc"}, {"a": {"$prefix": "ab"}}, True),
    ({"a": "abc"}, {"a": {"$prefix": ""}}, True),
    ({"a": 1}, {"a": {"$prefix": ""}}, False),
    ({"a": "xabcx"}, {"a": {"$regex": "abc"}}, True),
    ({"a": "xabcx"}, {"a": {"$regex": "^abc"}}, False),
    # null and missing
    ({"a": None}, {"a": None}, True),
    ({}, {"a": None}, True),
    ({}, {"a": {"$ne": None}}, False),
    ({"a": 0}, {"a": None}, False),
    ({"a": None}, {"a": {"$exists": True}}, True),
    ({}, {"a": {"$exists": True}}, False),
    ({}, {"a": {"$not_exists": True}}, True),
    ({}, {"a": {"$exists": False}}, True),
    ({}, {"a": {"$ne": 1}}, True),
    ({}, {"a": {"$nin": [1, "x"]}}, True),
    ({}, {"a": {"$nin": [1, None]}}, False),
    ({}, {"a": {"$in": [1, None]}}, True),
    ({}, {"a": {"$lt": 5}}, False),
    ({}, {"a": {"$not": {"$lt": 5}}}, True),
    ({}, {"a": {"$contains": "x"}}, False),
    ({"a": {}}, {"a": None}, False),
    # arrays: any element
    ({"a": [1, 2]}, {"a": 2}, True),
    ({"a": [1, 2]}, {"a": {"$ne": 2}}, False),
    ({"a": [1, 2]}, {"a": {"$nin": [3]}}, True),
    ({"a": []}, {"a": None}, False),
    ({"a": []}, {"a": {"$exists": True}}, True),
    ({"a": [None]}, {"a": None}, True),
    ({"a": [[1]]}, {"a": 1}, False),
    ({"a": [0, 9]}, {"a": {"$gt": 3, "$lt": 5}}, True),  # each bound by another element
    ({"a": [0, 9]}, F("a").between(3, 5), False),  # one element within both
    ({"a": ["xa", "b"]}, {"a": {"$prefix": "x"}}, True),
    # contains
    ({"a": "hay needle hay"}, {"a": {"$contains": "needle"}}, True),
    ({"a": ["needle"]}, {"a": {"$contains": "needle"}}, True),
    ({"a": ["hay needle"]}, {"a": {"$contains": "needle"}}, False),
    ({"a": [1, "1"]}, {"a": {"$contains": 1}}, True),
    ({"a": 1}, {"a": {"$contains": 1}}, False),
    ({"a": [True]}, {"a": {"$contains": 1}}, False),
    ({"a": [None]}, {"a": {"$contains": None}}, True),
    ({"a": None}, {"a": {"$contains": None}}, False),
    ({"a": [{"b": "x"}, {"b": ["y"]}]}, {"a.b": {"$contains": "y"}}, True),
    ({"a": [{"b": 5}, {"b": [6]}]}, {"a.b": {"$contains": 5}}, False),
    ({"a": [{"b": None}, {"b": [6]}]}, {"a.b": {"$contains": None}}, False),
    # paths
    ({"a": {"b": 1}}, {"a.b": 1}, True),
    ({"a.b": 1, "a": {"b": 2}}, {"a.b": 1}, True),
    ({"a.b": 1, "a": {"b": 2}}, {"a.b": 2}, False),
    ({"a.b": {"c": 1}}, {"a.b.c": 1}, True),
    ({"a.b": 1, "a": {"b": {"c": 2}}}, {"a.b.c": 2}, False),  # the longest key that fits is taken
    ({"a": [{"b": 1}, {"b": 2}, 3, {}]}, {"a.b": 2}, True),
    ({"a": [{"b": 1}, {}]}, {"a.b": None}, False),
    ({"a": [{"b": [1, 2]}]}, {"a.b": 2}, True),
    ({"a": {"b": 1}}, {"a": {"$exists": True}}, True),
    ({"a": {"b": 1}}, {"a": 1}, False),
    ({"a": ["x"]}, {"a.0": "x"}, False),
    # instants
    ({"a": NOON}, {"a": NOON}, True),
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": NOON}, True),
    ({"a": "2024-05-17 12:00"}, {"a": NOON}, True),
    ({"a": "2024-05-17"}, {"a": date(2024, 5, 17)}, True),
    ({"a": "2024-05-17"}, {"a": {"$lt": NOON}}, True),
    ({"a": "2024-02-30"}, {"a": {"$lt": NOON}}, False),
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": "2024-05-17T12:00:00Z"}, False),  # strings, not instants
    ({"a": ["2024-05-17"]}, {"a": {"$contains": date(2024, 5, 17)}}, True),
    ({"a": 1715904000}, {"a": date(2024, 5, 17)}, False),
    # combinations
    ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    ({"a": 1, "b": 2}, {"$or": [{"a": 2}, {"b": 2}]}, True),
    ({"a": 1, "b": 2}, {"$nor": [{"a": 2}, {"b": 3}]}, True),
    ({"a": 1}, {"$not": {"a": 1}}, False),
    ({"a": 1}, {"a": [3, 1]}, True),
    ({"a": 1}, {"$and": [{"a": {"$gt": 0}}, F("a") < 2]}, True),
]

DATED = parse_schema({"a": "date", "b": "date[]"})
DATED_EXAMPLES: list[tuple[dict[str, Any], Any, bool]] = [
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": "2024-05-17T12:00:00Z"}, True),
    ({"a": "2024-05-17T00:00:00Z"}, {"a": "2024-05-17"}, True),
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": {"$lt": "2024-05-17T13:00:00Z"}}, True),
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": ["2024-05-17T12:00Z"]}, True),
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": {"$range": ["2024-05-17", None]}}, True),
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": {"$prefix": "2024-05-17T14"}}, True),
    ({"a": "2024-05-17T14:00:00+02:00"}, {"a": {"$contains": "14:00"}}, True),
    ({"b": ["2024-05-17T14:00:00+02:00"]}, {"b": {"$contains": "2024-05-17T12:00:00Z"}}, True),
    ({"a": None}, {"a": {"$gt": "2024-05-17"}}, False),
]


@pytest.mark.parametrize(
    ("stored", "written", "holds", "schema"),
    [(*example, Schema()) for example in EXAMPLES] + [(*example, DATED) for example in DATED_EXAMPLES],
)
def test_example(stored: dict[str, Any], written: Any, holds: bool, schema: Schema, tmp_path: Path) -> None:
    node = parse(written, schema)
    assert node is not None
    (row,) = encode_metadata([stored], schema)
    assert matches(node, msgspec.json.decode(row), schema) is holds
    raw = [b"{}", row, row]
    build_columns(raw, schema, tmp_path)
    rows = open_columns(tmp_path, 3).evaluate(node, raw.__getitem__).rows().tolist()
    assert (1 in rows, 2 in rows) == (holds, holds)
    assert GrowingColumns(schema).evaluate(node, raw, 3).rows().tolist() == rows
