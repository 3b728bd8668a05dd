"""The two ways to write a filter, and every way to write it wrong."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.model import limits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filter_document import document
from jadevectordb.model.filter_parse import parse
from jadevectordb.model.filters import And, F, Filter, LooseIn, LooseOrder, Not, Or, from_json, to_json
from jadevectordb.model.schema import parse_schema

SAME: list[tuple[Any, Filter]] = [
    ({"pos": "noun"}, F("pos") == "noun"),
    ({"pos": {"$eq": "noun"}}, F("pos") == "noun"),
    ({"pos": ["noun", "verb"]}, F("pos").is_in(["verb", "noun"])),
    ({"pos": {"$in": ("noun", "noun")}}, F("pos").is_in(["noun"])),
    ({"pos": {"$nin": ["x"]}}, F("pos").not_in(["x"])),
    ({"pos": {"$not_in": {"x"}}}, F("pos").not_in(["x"])),
    ({"year": {"$gte": 2000, "$lt": 2010}}, (F("year") >= 2000) & (F("year") < 2010)),
    ({"year": {"$ge": 2000, "$le": 2010}}, (F("year") >= 2000) & (F("year") <= 2010)),
    ({"year": {"$gt": 1, "$lte": 2}, "x": None}, (F("year") > 1) & (F("year") <= 2) & (F("x") == None)),  # noqa: E711
    ({"year": {"$ne": 3}}, F("year") != 3),
    ({"year": {"$range": [1, 2]}}, F("year").between(1, 2)),
    ({"year": {"$range": [None, 2.5]}}, F("year").between(None, 2.5)),
    ({"tags": {"$contains": "x"}}, F("tags").contains("x")),
    ({"a.b": {"$exists": True}}, F("a.b").exists()),
    ({"a.b": {"$exists": False}}, F("a.b").not_exists()),
    ({"a.b": {"$not_exists": True}}, F("a.b").not_exists()),
    ({"a": {"$prefix": "x"}}, F("a").prefix("x")),
    ({"a": {"$regex": "x+"}}, F("a").matches("x+")),
    ({"a": {"$not": {"$gt": 1}}}, ~(F("a") > 1)),
    ({"a": {"$not": {"$gt": 1, "$lt": 3}}}, ~((F("a") > 1) & (F("a") < 3))),
    ({"$or": [{"a": 1}, {"b": 2}]}, (F("a") == 1) | (F("b") == 2)),
    ({"$and": [{"a": 1}, {"b": 2}], "c": 3}, (F("a") == 1) & (F("b") == 2) & (F("c") == 3)),
    ({"$nor": [{"a": 1}, {"b": 2}]}, Not((F("a") == 1) | (F("b") == 2))),
    ({"$not": {"a": 1, "b": 2}}, ~((F("a") == 1) & (F("b") == 2))),
    ({"$or": [F("a") == 1, {"b": 2}]}, (F("a") == 1) | (F("b") == 2)),
    ({"d": date(2024, 5, 17)}, F("d") == datetime(2024, 5, 17, tzinfo=UTC)),
    ({"n": np.float32(0.5)}, F("n") == 0.5),
    ({"n": np.int64(3)}, F("n") == 3),
    ({"n": np.True_}, F("n") == True),  # noqa: E712
]


@pytest.mark.parametrize(("written", "node"), SAME)
def test_both_forms_make_the_same_tree(written: Any, node: Filter) -> None:
    assert parse(written) == node
    assert parse(node) is node
    assert from_json(to_json(node)) == node
    assert pickle.loads(pickle.dumps(node)) == node


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_filter(nothing: Any) -> None:
    assert parse(nothing) is None


def test_trees_differ_where_values_only_seem_equal() -> None:
    assert (F("a") == 1) != (F("a") == True)  # noqa: E712
    assert (F("a").is_in([1])) != (F("a").is_in([True]))
    assert (F("a").contains(0)) != (F("a").contains(False))
    assert (F("a") == 1) == (F("a") == 1.0)
    assert hash(F("a") == 1) == hash(F("a") == 1.0)
    assert len({F("a") == 1, F("a") == True, F("a") == "1", F("a") == 1.0}) == 3  # noqa: E712


def test_a_condition_is_not_a_truth_value() -> None:
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(F("a") == 1)
    with pytest.raises(TypeError, match="between"):
        assert 2000 <= F("a") < 2010  # type: ignore[operator]
    with pytest.raises(TypeError, match="not a condition"):
        F("a") and F("b")
    with pytest.raises(TypeError, match="combine filter conditions"):
        (F("a") == 1) & True  # type: ignore[operator]
    with pytest.raises(TypeError, match="unhashable"):
        hash(F("a"))


deep: dict[str, Any] = {"a": 1}
for _ in range(limits.FILTER_DEPTH_MAX):
    deep = {"$not": deep}
deep_field: dict[str, Any] = {"$gt": 1}
for _ in range(limits.FILTER_DEPTH_MAX + 1):
    deep_field = {"$not": deep_field}
deep_node: Filter = F("a") == 1
for _ in range(limits.FILTER_DEPTH_MAX):
    deep_node = Not(deep_node)

WRONG: list[tuple[Any, str, str]] = [
    ("noun", "", "a filter is a dict"),
    ([{"a": 1}], "", "a filter is a dict"),
    ({1: 2}, "", "named by a string"),
    ({"": 2}, "", "empty"),
    ({"a" * 513: 2}, "aaa", "512"),
    ({"a" + ".a" * 16: 2}, "a.a.a", "16 parts"),
    ({"a": b"x"}, "a", "bytes cannot be compared"),
    ({"a": object()}, "a", "object cannot be compared"),
    ({"a": float("nan")}, "a", "nan"),
    ({"a": {"$lt": float("inf")}}, "a.$lt", "leave the bound out"),
    ({"a": 10**5000}, "a", "4096"),
    ({"a": "x" * 70_000}, "a", "65536"),
    ({"a": "\ud800"}, "a", "surrogate"),
    ({"\ud800": 1}, "", "surrogate"),
    ({"a": {}}, "a", "empty operator object"),
    ({"a": {"b": 1}}, "a.b", "write the path 'a.b'"),
    ({"a": {"$gtt": 1}}, "a.$gtt", "did you mean $gt?"),
    ({"a": {"$elemMatch": {}}}, "a.$elemMatch", "no operator"),
    ({"a": {"$eq": 1, "b": 2}}, "a.b", "operators"),
    ({"a": {1: 2}}, "a.1", "operators"),
    ({"a": {"$gt": None}}, "a.$gt", "needs a number"),
    ({"a": {"$gt": True}}, "a.$gt", "needs a number"),
    ({"a": {"$gt": [1]}}, "a.$gt", "list cannot be compared"),
    ({"a": {"$in": "abc"}}, "a.$in", "list of values"),
    ({"a": {"$in": {"x": 1}}}, "a.$in", "list of values"),
    ({"a": {"$in": [[1]]}}, "a.$in", "list cannot be compared"),
    ({"a": {"$in": list(range(100_001))}}, "a.$in", "100000"),
    ({"a": {"$exists": 1}}, "a.$exists", "True or False"),
    ({"a": {"$not_exists": "no"}}, "a.$not_exists", "True or False"),
    ({"a": {"$prefix": 1}}, "a.$prefix", "needs a string"),
    ({"a": {"$range": 1}}, "a.$range", "[low, high]"),
    ({"a": {"$range": [1]}}, "a.$range", "[low, high]"),
    ({"a": {"$range": [None, None]}}, "a.$range", "at least one bound"),
    ({"a": {"$range": [1, "x"]}}, "a.$range", "two numbers"),
    ({"a": {"$range": [True, False]}}, "a.$range", "two numbers"),
    ({"a": {"$regex": "("}}, "a.$regex", "not valid RE2"),
    ({"a": {"$regex": "(?=x)"}}, "a.$regex", "look-around"),
    ({"a": {"$regex": "x" * 1001}}, "a.$regex", "1000"),
    ({"a": {"$regex": 5}}, "a.$regex", "written as a string"),
    ({"a": {"$not": 5}}, "a.$not", "$not takes operators"),
    ({"a": {"$not": {}}}, "a.$not", "empty operator object"),
    ({"a": {"$not": {"$x": 1}}}, "a.$not.$x", "no operator"),
    ({"$or": []}, "$or", "at least one"),
    ({"$or": {"a": 1}}, "$or", "list"),
    ({"$or": [{"a": 1}, 5]}, "$or[1]", "a condition is a dict"),
    ({"$or": [{"a": 1}, {}]}, "$or[1]", "empty condition"),
    ({"$or": [{"a": 1}, {"year": {"$gte": True}}]}, "$or[1].year.$gte", "needs a number"),
    ({"$and": [{"$nor": [{"b": {"$x": 1}}]}]}, "$and[0].$nor[0].b.$x", "no operator"),
    ({"$not": {"a": {"$x": 1}}}, "$not.a.$x", "no operator"),
    ({"$not": 3}, "$not", "a condition is a dict"),
    ({"$xor": []}, "$xor", "did you mean $or?"),
    ({"$gt": 3}, "$gt", "inside a field"),
    ({"$where": "1"}, "$where", "no operator"),
    (deep, "$not.$not", "flatter"),
    ({"a": deep_field}, "a.$not", ""),
    (deep_node, "", "flatter"),
    ({"$or": [{"a": i} for i in range(1024)]}, "$or", "1024 conditions"),
    (Or(tuple(F("a") == i for i in range(1024))), "", "1024 conditions"),
    ({"$and": [{"a": 1}, Or(tuple(F("a") == i for i in range(1024)))]}, "", "1024 conditions"),
]


@pytest.mark.parametrize(("written", "place", "said"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_filter_says_where_and_what_to_do(written: Any, place: str, said: str) -> None:
    with pytest.raises(JadeError) as caught:
        parse(written)
    assert caught.value.code == ErrorCode.INVALID_FILTER
    assert said in caught.value.message
    if place:
        assert caught.value.message.startswith(f"at {place}")
    assert len(caught.value.message) < 700
    caught.value.message.encode()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: F(3),  # type: ignore[arg-type]
        lambda: F(""),
        lambda: F("a") < None,
        lambda: F("a").is_in("abc"),
        lambda: F("a").is_in(5),  # type: ignore[arg-type]
        lambda: F("a").matches("["),
        lambda: F("a").prefix(5),  # type: ignore[arg-type]
        lambda: F("a").between(None, None),
        lambda: F("a") == [1],
    ],
)
def test_the_typed_form_refuses_the_same(wrong: Any) -> None:
    with pytest.raises(JadeError) as caught:
        wrong()
    assert caught.value.code == ErrorCode.INVALID_FILTER


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b'{"node":"xor"}', b'{"node":"regex","path":"a","pattern":"("}', b'{"node":"not","part":' * 3000 + b"1",
     b'{"node":"not","part":' * 40 + to_json(F("a") == 1) + b"}" * 40, b"\xff"],
)  # fmt: skip
def test_a_stored_filter_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(JadeError) as caught:
        from_json(data)
    assert caught.value.code == ErrorCode.INVALID_FILTER


def test_the_stored_form_is_pinned() -> None:
    """Entries in logs keep this form for ever: a change here is a change of the format."""
    node = (F("pos") == "noun") & ~F("year").between(1, None) | F("t").is_in([1, "a", None, True, date(1970, 1, 2)])
    assert to_json(node) == (
        b'{"node":"or","parts":[{"node":"and","parts":[{"node":"compare","op":"eq","path":"pos","kind":"string","value":"noun"},'
        b'{"node":"not","part":{"node":"range","path":"year","kind":"number","low":1,"high":null,"low_included":true,'
        b'"high_included":true}}]},{"node":"in","path":"t","strings":["a"],"numbers":[1],"instants":[86400000000],'
        b'"true":true,"false":false,"null":true}]}'
    )


def test_the_stored_form_of_loose_conditions_is_pinned() -> None:
    node = LooseIn(
        "p", frozenset({"7"}), frozenset({7}), frozenset({8.5}), true=True, false_text=True, null=True
    ) & LooseOrder("ge", "p", "number", 7)
    assert to_json(node) == (
        b'{"node":"and","parts":[{"node":"loose_in","path":"p","strings":["7"],"numbers":[7],"numeric_texts":[8.5],"true":true,'
        b'"false":false,"true_text":false,"false_text":true,"null":true,"missing":false,"in_arrays":false},'
        b'{"node":"loose_order","op":"ge","path":"p","kind":"number","value":7}]}'
    )
    assert from_json(to_json(node)) == node
    for part in node.parts:
        with pytest.raises(JadeError, match="no other way to write them"):
            document(part)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["a", "a.b", "", "$or", "$and", "$not", "$in", "$gt", "$range", "$regex", "$exists", "$x", 3]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(junk)
def test_anything_is_a_filter_or_refused(written: Any) -> None:
    try:
        node = parse(written)
    except JadeError as error:
        assert error.code == ErrorCode.INVALID_FILTER
        error.message.encode()
    else:
        assert node is None or from_json(to_json(node)) == node


SCHEMA = parse_schema(
    {"s": "string", "t": "text", "i": "integer", "n": "number[]", "b": "boolean", "d": "date", "o.p": "string[]"}
)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"s": 5}, "declared string and never equals a number"),
        ({"i": "5"}, "declared integer and never equals a string"),
        ({"i": {"$gt": "5"}}, "declared integer"),
        ({"i": ["5", 5]}, "declared integer"),
        ({"b": 1}, "declared boolean"),
        ({"n": True}, "never equals a boolean"),
        ({"d": "yesterday"}, "is no date"),
        ({"d": ["2024-05-17", "x"]}, "is no date"),
        ({"d": {"$range": ["2024", None]}}, "is no date"),
        ({"d": 5}, "declared date"),
        ({"i": {"$prefix": "5"}}, "no text"),
        ({"n": {"$regex": "5"}}, "no text"),
        ({"i": {"$contains": 5}}, "contains looks for text"),
        ({"o.p": {"$contains": 5}}, "declared string[]"),
        ({"$or": [{"s": "x"}, {"$not": {"i": date(2024, 5, 17)}}]}, "never equals a date"),
    ],
)
def test_a_condition_that_no_declared_value_can_meet_is_refused(written: Any, said: str) -> None:
    with pytest.raises(JadeError) as caught:
        parse(written, SCHEMA)
    assert said in caught.value.message
    assert caught.value.code == ErrorCode.INVALID_FILTER
    assert parse(written) is not None


@pytest.mark.parametrize(
    "written",
    [{"s": None}, {"s": "x"}, {"t": {"$contains": "x"}}, {"i": 5.0}, {"n": {"$contains": 1}}, {"d": "2024-05-17"}, {"d": date(2024, 5, 17)},
     {"d": {"$prefix": "2024"}}, {"d": {"$contains": "-05-"}}, {"undeclared": 5}, {"o.p": {"$exists": True}}, {"b": [True, None]}],
)  # fmt: skip
def test_what_declared_values_can_meet_passes(written: Any) -> None:
    assert parse(written, SCHEMA) is not None


def test_a_strict_schema_knows_its_fields() -> None:
    strict = parse_schema({"a.b": "integer", "c": "string"}, strict=True)
    with pytest.raises(JadeError, match=r"declared are a\.b, c") as caught:
        parse({"$not": {"d": 1}}, strict)
    assert caught.value.code == ErrorCode.UNKNOWN_FIELD
    assert parse({"a": {"$exists": True}, "a.b": 1}, strict) is not None


def test_joining_flattens() -> None:
    parts = [F("a") == i for i in range(4)]
    assert parts[0] & parts[1] & (parts[2] & parts[3]) == And(tuple(parts))
    assert parts[0] | (parts[1] | parts[2]) == Or(tuple(parts[:3]))
