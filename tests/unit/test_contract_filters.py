"""Filters of version 1 of the REST interface: what each form means, one example a line, and every way to write one wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.gateway.service.contract_filters import translate
from jadevectordb.index.columns import GrowingColumns, build_columns, open_columns
from jadevectordb.model import limits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filters import Or
from jadevectordb.model.schema import NO_SCHEMA, parse_schema
from jadevectordb.model.schema_encode import encode_metadata

EXAMPLES: list[tuple[dict[str, Any], Any, bool]] = [
    # the four forms
    ({"category": "books"}, {"category": "books"}, True),
    ({"category": "books", "year": 1}, {"category": "books", "year": 2}, False),
    ({"price": "79.99"}, {"price[$gt]": "9"}, True),
    ({"price": 79.99}, {"price[$GT]": "9", "price[$lte]": "79.99"}, True),
    ({"tags": ["a", "b"]}, {"tags[$contains]": "b"}, True),
    ({"color": "red"}, {"color[$in]": "blue, red"}, True),
    ({"year": 2022}, {"year": {"$gte": 2022, "$lt": 2023}}, True),
    ({"year": 2022}, {"year": {"gte": 2022}}, True),
    ({"year": 2022}, {"year": {"$not": {"$gte": 2022}}}, False),
    ({"year": 2022}, {"$or": [{"year": 1}, {"$and": [{"year": 2022}, {"$not": {"x": 1}}]}]}, True),
    ({"a": 1, "b": 2}, {"combination": "AND", "conditions": [{"field": "a", "op": "EQUALS", "value": 1}]}, True),
    (
        {"a": 1, "b": 2},
        {
            "combination": "or",
            "conditions": [
                {"field": "a", "op": "gt", "value": 5},
                {
                    "conditions": [
                        {"field": "b", "op": "LESS_THAN_OR_EQUAL", "value": "2"},
                        {"field": "a", "op": "exists"},
                    ]
                },
            ],
        },
        True,
    ),
    ({"a": 1}, {"$and": [{"field": "a", "op": "ne", "value": 1}]}, False),
    ({"a": None}, {"field": "a", "op": "EXISTS", "value": None}, True),
    ({"a": 1}, {"$or": [{"conditions": [{"field": "a", "op": "greaterThan", "value": 0}]}]}, True),
    # fields that have the names of a form's members
    ({"conditions": ["new"]}, {"conditions": ["new", "used"]}, True),
    ({"conditions": "new"}, {"conditions": "new"}, True),
    ({"combination": "salt"}, {"combination": "salt"}, True),
    ({"field": "physics", "op": 1}, {"field": "physics", "op": 1}, True),
    ({"field": "physics"}, {"field": "physics"}, True),
    # strings
    ({"a": "7"}, {"a": "007"}, False),
    ({"a": "129"}, {"a": "129.0"}, False),
    ({"a": "True"}, {"a": "true"}, False),
    ({"a": "x"}, {"a": ["y", "x"]}, True),
    ({"a": "x,y"}, {"a[$in]": "x,y"}, False),
    ({"a": "x,y"}, {"a[$in]": ["x,y"]}, True),
    # numbers and strings
    ({"a": 79.99}, {"a": "79.99"}, True),
    ({"a": "79.99"}, {"a": 79.99}, True),
    ({"a": 129}, {"a": "129.0"}, True),
    ({"a": "129.0"}, {"a": 129}, True),
    ({"a": " 7\n"}, {"a": 7}, True),
    ({"a": "1e+22"}, {"a": 1e22}, True),
    ({"a": "NaN"}, {"a": {"$ne": 7}}, True),
    ({"a": "0x10"}, {"a": 16}, False),
    ({"a": "1_000"}, {"a": 1000}, False),
    ({"a": "٣"}, {"a": 3}, False),
    ({"a": "9007199254740993"}, {"a": 2**53}, False),
    ({"a": "9007199254740993"}, {"a": 2**53 + 1}, True),
    ({"a": "7" + " " * 300}, {"a": 7}, True),
    # booleans
    ({"a": "True"}, {"a": True}, True),
    ({"a": True}, {"a": "tRUE"}, True),
    ({"a": "False"}, {"a": [True, False]}, True),
    ({"a": True}, {"a": 1}, False),
    ({"a": 1}, {"a": True}, False),
    ({"a": "1"}, {"a": True}, False),
    ({"a": " true"}, {"a": True}, False),
    # null and missing
    ({}, {"a": None}, True),
    ({"a": None}, {"a": None}, True),
    ({"a": "None"}, {"a": None}, True),
    ({"a": None}, {"a": "None"}, True),
    ({}, {"a": "None"}, False),
    ({"a": "none"}, {"a": None}, False),
    ({"a": []}, {"a": None}, False),
    ({}, {"a[$ne]": "x"}, True),
    ({}, {"a": {"NOT_IN": ["x"]}}, True),
    ({}, {"a": {"NOT_IN": ["x", None]}}, False),
    ({}, {"a": {"$exists": False}}, True),
    ({}, {"a": {"$exists": "true"}}, False),
    ({}, {"a": {"$lt": 5}}, False),
    ({}, {"a": {"$contains": "x"}}, False),
    ({}, {"a": {"$prefix": ""}}, False),
    # order
    ({"a": "90"}, {"a": {"$gt": "100"}}, False),
    ({"a": "2024-05-17"}, {"a": {"$gte": "2024-05-01"}}, True),
    ({"a": "2024"}, {"a": {"$lt": "2024-05-01"}}, False),  # a number and a string that is none
    ({"a": "abc"}, {"a": {"$gt": 5}}, False),
    ({"a": 5}, {"a": {"$gt": "abc"}}, False),
    ({"a": True}, {"a": {"$gte": True}}, False),
    ({"a": None}, {"a": {"$lte": None}}, False),
    ({"a": ["1", "30"]}, {"a": {"$gt": 20}}, True),
    ({"a": "\U0001f600"}, {"a": {"$gt": "\uffee"}}, True),
    # arrays
    ({"a": ["x", "7"]}, {"a": 7}, True),
    ({"a": ["x", "y"]}, {"a": ["y", "z"]}, True),
    ({"a": [["x"]]}, {"a": "x"}, False),
    ({"a": ["x"]}, {"a": {"$ne": "x"}}, False),
    ({"a": ["None"]}, {"a": None}, True),
    ({"a": {"b": 1}}, {"a": None}, False),
    # contains, prefix
    ({"a": "hay needle"}, {"a": {"$contains": "needle"}}, True),
    ({"a": ["hay needle"]}, {"a": {"$contains": "needle"}}, False),
    ({"a": [1, "x"]}, {"a": {"$contains": "1.0"}}, True),
    ({"a": ["True"]}, {"a": {"$contains": True}}, True),
    ({"a": True}, {"a": {"$contains": True}}, False),
    ({"a": "12"}, {"a": {"$contains": 1}}, False),
    ({"a": 12}, {"a": {"$contains": "1"}}, False),
    ({"a": [{"b": 5}, {"b": [6]}]}, {"a.b": {"$contains": 5}}, False),
    ({"a": [{"b": 5}, {"b": ["6"]}]}, {"a.b": {"$contains": 6}}, True),
    ({"a": "abc"}, {"a": {"$prefix": "ab"}}, True),
    ({"a": 12}, {"a": {"$prefix": "1"}}, False),
    # paths
    ({"author": "x"}, {"metadata.author": "x"}, True),
    ({"metadata.author": "x"}, {"metadata.author": "x"}, True),
    ({"metadata": {"author": "x"}}, {"metadata.author": "x"}, True),
    ({"metadata.author": "y", "author": "x"}, {"metadata.author": "x"}, False),
    ({"metadata.author": "y", "author": "x"}, {"metadata.author": {"$ne": "x"}}, True),
    ({}, {"metadata.author": {"$ne": "x"}}, True),
    ({"a": {"b": 1}}, {"a.b": 1}, True),
    ({"a.b": 1, "a": {"b": 2}}, {"a.b": "1"}, True),
    ({"a.b": 1, "a": {"b": 2}}, {"a.b": 2}, False),
    ({"metadata": "x"}, {"metadata": "x"}, True),
    ({"metadata.": "x"}, {"metadata.": "x"}, True),
]


@pytest.mark.parametrize(("stored", "sent", "holds"), EXAMPLES)
def test_contract_example(stored: dict[str, Any], sent: Any, holds: bool, tmp_path: Path) -> None:
    node = translate(sent)
    assert node is not None
    raw = [b"{}", *encode_metadata([stored, stored])]
    assert matches(node, stored) is holds
    build_columns(raw, NO_SCHEMA, tmp_path)
    rows = open_columns(tmp_path, 3).evaluate(node, raw.__getitem__).rows().tolist()
    assert (1 in rows, 2 in rows) == (holds, holds)
    assert GrowingColumns(NO_SCHEMA).evaluate(node, raw, 3).rows().tolist() == rows


@pytest.mark.parametrize("sent", [None, {}, {"combination": "and", "conditions": []}])
def test_nothing_to_filter_by(sent: Any) -> None:
    assert translate(sent) is None


def nested(levels: int, wrap: Any) -> Any:
    sent: Any = {"a": 1}
    for _ in range(levels):
        sent = wrap(sent)
    return sent


CONDITION = {"field": "a", "op": "eq", "value": 1}
WRONG: list[tuple[Any, str | None, str]] = [
    ("books", None, "filters is an object"),
    ([{"a": 1}], None, "not an array"),
    ({"": 1}, None, "empty"),
    ({"a" * 513: 1}, "a" * 513, "512"),
    ({"metadata." + "a." * 16 + "a": 1}, "metadata." + "a." * 16 + "a", "16 parts"),
    ({"a": {}}, "a", "empty object"),
    ({"a": {"b": 1}}, "a.b", "write the path a.b"),
    ({"a": {"$gtt": 1}}, "a.$gtt", "did you mean"),
    ({"a": {"$regex": "x"}}, "a.$regex", "no operator $regex"),
    ({"a": {"$eq": [1]}}, "a.$eq", "write IN"),
    ({"a": {"$ne": {"b": 1}}}, "a.$ne", "not an object"),
    ({"a": {"$gt": [1]}}, "a.$gt", "one value"),
    ({"a": {"$in": 5}}, "a.$in", "not a number"),
    ({"a": {"$in": " ,, "}}, "a.$in", "this one has none"),
    ({"a": [[1]]}, "a[0]", "one value"),
    ({"a": [1, {"b": 1}]}, "a[1]", "not an object"),
    ({"a": {"$exists": 1}}, "a.$exists", "true or false"),
    ({"a": {"$exists": None}}, "a.$exists", "true or false"),
    ({"a": {"$prefix": 1}}, "a.$prefix", "a string, not a number"),
    ({"a": {"$not": 1}}, "a.$not", "takes operators"),
    ({"a": "x" * 70_000}, "a", "65536"),
    ({"a": 10**2000}, "a", "4096"),
    ({"a": float("nan")}, "a", "nan"),
    ({"a": ["x"] * (limits.FILTER_LIST_MAX + 1)}, "a", "too long"),
    ({"a[$near]": 1}, "a[$near]", "no operator $near"),
    ({"a[$gt": 1}, "a[$gt", "field[$gt]"),
    ({"[$gt]": 1}, "[$gt]", "empty"),
    ({"a[$gt][$lt]": 1}, "a[$gt][$lt]", "field[$gt]"),
    ({"$or": {}}, "$or", "takes a list"),
    ({"$and": []}, "$and", "at least one"),
    ({"$or": [{"a": 1}, {}]}, "$or[1]", "empty condition"),
    ({"$or": ["a"]}, "$or[0]", "not a string"),
    ({"$nor": [{"a": 1}]}, "$nor", "there are $and, $or and $not"),
    ({"$gt": 5}, "$gt", "stands inside a field"),
    ({"$not": [{"a": 1}]}, "$not", "not an array"),
    ({"combination": "XOR", "conditions": [CONDITION]}, "combination", "AND or OR"),
    ({"combination": "AND"}, "conditions", "at least one"),
    ({"combination": "AND", "conditions": {}}, "conditions", "is a list"),
    ({"combination": "OR", "conditions": []}, "conditions", "at least one"),
    ({"conditions": []}, "conditions", "at least one"),
    ({"conditions": [CONDITION], "combine": "OR"}, "combine", "not understood here"),
    ({"conditions": [CONDITION, {"a": 1}]}, "conditions[1]", "field, op and value"),
    ({"conditions": [CONDITION, 5]}, "conditions[1]", "field, op and value"),
    ({"conditions": [{"field": "a", "operator": "eq", "value": 1}]}, "conditions[0].operator", "not understood here"),
    ({"conditions": [{"field": 1, "op": "eq", "value": 1}]}, "conditions[0].field", "as a string"),
    ({"conditions": [{"field": "a", "value": 1}]}, "conditions[0].op", "op is one of EQUALS"),
    ({"conditions": [{"field": "a", "op": "LIKE", "value": 1}]}, "conditions[0].op", "no operator LIKE"),
    ({"conditions": [{"field": "a", "op": "eq"}]}, "conditions[0]", "needs a value"),
    (
        {"conditions": [{"conditions": [{"field": "a", "op": "in", "value": 1}]}]},
        "conditions[0].conditions[0].value",
        "IN",
    ),
    ({"field": "a", "op": "GREATERTHEN", "value": 1}, "op", "did you mean GREATER_THAN?"),
    (nested(40, lambda inner: {"$not": inner}), None, "nested more than"),
    (nested(40, lambda inner: {"$or": [inner]}), None, "nested more than"),
    ({"conditions": [nested(40, lambda inner: {"conditions": [inner]})]}, None, "nested more than"),
    ({"a": nested(40, lambda inner: {"$not": inner})}, None, "nested more than"),
    ({"$or": [{"a": 1}] * 2000}, None, "1024 conditions"),
    ({1: 2}, None, "by a string"),
]


@pytest.mark.parametrize(("sent", "at", "said"), WRONG)
def test_what_is_not_understood_is_refused_with_its_place(sent: Any, at: str | None, said: str) -> None:
    with pytest.raises(JadeError) as caught:
        translate(sent)
    assert caught.value.code == ErrorCode.INVALID_FILTER
    assert said in caught.value.message
    assert caught.value.details["at"] == at


def test_a_field_that_a_strict_schema_rules_out_needs_no_second_path() -> None:
    strict = parse_schema({"author.name": "string", "metadata.year": "integer"}, strict=True)
    assert translate({"metadata.author.name": "x"}, strict) == translate({"author.name": "x"}, strict)
    assert translate({"metadata.year": 1}, strict) == translate(
        {"field": "metadata.year", "op": "eq", "value": 1}, strict
    )
    assert not isinstance(translate({"metadata.year": 1}, strict), Or)
    assert isinstance(translate({"metadata.year": 1}), Or)


def test_filters_restrict_searches_and_deletes_and_survive_a_restart(tmp_path: Path) -> None:
    rows = [{"price": str(i)} if i % 2 else {"price": i} for i in range(40)]
    with jade.open(tmp_path) as store:
        db = store.create_database("shop", dimension=4)
        db.upsert([f"p{i}" for i in range(40)], np.eye(40, 4, dtype=np.float32) + 1, rows)
        found = db.search(np.ones(4), k=40, filter=translate({"price[$gte]": "30"}))
        assert {hit.id for hit in found} == {f"p{i}" for i in range(30, 40)}
        receipt = db.delete(filter=translate({"metadata.price": {"$lt": " 20 "}}))
        assert receipt.count == 20
    with jade.open(tmp_path) as store:  # the deletion is in the log as a filter, and is applied again
        db = store.database("shop")
        assert db.count() == 20
        assert db.count(translate({"price": ["20", 21.0, "21.0", 5]})) == 2
