"""Columns, sealed and growing, answer every filter as the reference evaluator does, on metadata made to be difficult."""

# ruff: noqa: DTZ001, DTZ901 - dates without a time zone are part of what is tested

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jadevectordb.index import bitmap, column_build, column_gather
from jadevectordb.index.column_file import ArrayReader, ArrayWriter
from jadevectordb.index.columns import GrowingColumns, Selection, build_columns, open_columns
from jadevectordb.index.postings import Postings, write_postings
from jadevectordb.model import limits
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filter_nodes import Order
from jadevectordb.model.filters import And, F, Filter, LooseIn, LooseOrder, Or, from_json, to_json
from jadevectordb.model.instants import parse_instant
from jadevectordb.model.schema import FieldType, Schema
from jadevectordb.model.schema_encode import encode_metadata

LONG = "long " * 60
CUT = LONG[: limits.COLUMN_LONG_TERM_BYTES]
DATES = [
    "2024-05-17", "2024-05-17T00:00:00Z", "2024-05-17T02:00:00+02:00", "2024-05-17 12:30", "2024-02-30", "1969-12-31T23:59:59.5Z",
    "0001-01-01T00:00:00+14:00", "2024-05-17T12:30:00.123456789z", "2024-05", "2024-05-17T14:30+0200", "2023-01-01",
]  # fmt: skip
TEXTS = [
    "", "a", "b", "ab", "aba", "ba", "Ä", "ä", "日本", "\U0001f600", "\x00", "a\nb", "1", "true", "None",
    " 1.0", "fAlse", "9007199254740993", "0" * 300 + "2",
    LONG, LONG + "x", LONG[:-1], LONG[:256], LONG[:255], CUT, CUT[:-1], CUT + "é" * 200, CUT[:-1] + "é" * 200, "é" * 200, "日" * 100,
    *DATES,
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 0.0, -0.0, 0.5, 1.0, 2.5, -1e300, 1e-300, 1e300, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, 2**63, -(2**63),
    -(2**63) - 1, float(2**63), 2**64, 10**400, 3,
]  # fmt: skip
TIMES = [
    date(2024, 5, 17), datetime(2024, 5, 17), datetime(2024, 5, 17, 12, 30, tzinfo=UTC), datetime(1, 1, 1), datetime.max,
    datetime(2024, 5, 17, 2, tzinfo=timezone(timedelta(hours=2))), datetime(1969, 12, 31, 23, 59, 59, 500_000),
]  # fmt: skip
KEYS = ["a", "b", "c", "a.b", "b.c", ".", "a.", "ü"]
PATHS = ["a", "b", "c", "a.b", "b.c", "a.b.c", "a.a", "b.b", "c.a", "c.b.a", "a.", "ü", "nowhere", "a..a", ".b"]
PATTERNS = ["a", "^a", "b$", "^$", ".", "[äÄ]", "(?i)Ä", "日", "^long.*x$", "\\d{4}-\\d\\d-\\d\\d$", "a\\nb", "é{100}"]


@dataclass
class Theme:
    """A narrow choice of fields and values, so that rows and filters often meet."""

    keys: list[str]
    paths: list[str]
    stored: list[Any]
    asked: list[Any]
    bounds: list[Any]


THEMES = [
    Theme(KEYS, PATHS, [None, True, False, *TEXTS, *NUMBERS], [None, True, False, *TEXTS, *NUMBERS, *TIMES], NUMBERS),
    Theme(["a", "b"], ["a", "a.b"], NUMBERS, NUMBERS, NUMBERS),
    Theme(["a"], ["a"], [0, 1, 2, 3, None], [0, 1, 2, 3, None], [0, 1, 2, 3]),
    Theme(["a", "b"], ["a", "a.b"], DATES, TIMES + DATES, TIMES),
    Theme(["a", "b"], ["a", "a.b"], TEXTS, TEXTS, TEXTS),
    Theme(["a", "b", "a.b", "b.c", "c"], ["a", "a.b", "a.b.c", "b.c"], [0, 1], [0, 1, None], [0, 1]),
]


class Maker(Random):
    """Rows and filters from a seed: much of it in little time, which matters more here than small counterexamples."""

    theme: Theme

    def value(self, depth: int = 0) -> Any:
        shape = self.random()
        if shape < 0.6 or depth == 3:
            return self.choice(self.theme.stored)
        if shape < 0.8:
            return [self.value(depth + 1) for _ in range(self.randrange(4))]
        return self.document(depth + 1)

    def document(self, depth: int = 0) -> dict[str, Any]:
        return {self.choice(self.theme.keys): self.value(depth) for _ in range(self.randrange(4))}

    def table(self) -> list[dict[str, Any]]:
        """Few rows, many times, make keys that are dense; those in front make keys that are rare."""
        rows = [self.document() for _ in range(self.randrange(5))]
        return rows + [self.document() for _ in range(self.randint(1, 8))] * self.choice([1, 2, 30, 150])

    def asked(self) -> list[Any]:
        return self.choices(self.theme.asked, k=self.randrange(6))

    def loose(self, path: str) -> Filter:
        """The conditions that only old clients' filters are made of."""
        texts, numbers = (self.choices(pool, k=self.randrange(3)) for pool in (TEXTS, NUMBERS))
        op: Order = self.choice(["lt", "le", "gt", "ge"])
        if self.random() < 0.4:
            return LooseOrder(op, path, "number", self.choice(NUMBERS))
        if self.random() < 0.4:
            return LooseOrder(op, path, "string", self.choice(TEXTS))
        flags = [self.random() < 0.15 for _ in range(7)]
        in_arrays = flags[6]
        flags[5] &= not in_arrays
        numeric = frozenset(self.choices(NUMBERS, k=self.randrange(3)))
        return LooseIn(path, frozenset(texts), frozenset(numbers), numeric, *flags[:6], in_arrays)

    def condition(self) -> Filter:
        path = self.choice(self.theme.paths)
        if self.random() < 0.15:
            return self.loose(path)
        field = F(path)
        low, high = self.choice(self.theme.bounds), self.choice(self.theme.bounds)
        asked, text = self.choice(self.theme.asked), self.choice(TEXTS)
        made: list[Filter] = [
            field == asked, field != asked, field < low, field <= low, field > low, field >= low,
            field.is_in(self.asked()), field.not_in(self.asked()), field.contains(asked), field.contains(text[:3]),
            field.exists(), field.not_exists(), field.prefix(text), field.matches(self.choice(PATTERNS)),
            field.between(low, high, low_included=self.random() < 0.5), field.between(None, high, high_included=False),
            (field >= low) & (field < high),
        ]  # fmt: skip
        return self.choice(made)

    def filter(self, depth: int = 0) -> Filter:
        shape = self.random()
        if shape < 0.5 or depth == 3:
            return self.condition()
        if shape < 0.65:
            return ~self.filter(depth + 1)
        parts = tuple(self.filter(depth + 1) for _ in range(self.randrange(4)))
        return And(parts) if shape < 0.85 else Or(parts)


def maker(seed: int) -> Maker:
    made = Maker(seed)
    made.theme = made.choice(THEMES)
    return made


seeds = st.integers(0, 2**64 - 1)
schemas = st.sampled_from(
    [
        Schema(),
        Schema({"a": FieldType.DATE, "a.b": FieldType.DATE, "b.c": FieldType.DATES}),
        Schema({"a": FieldType.TEXT, "b": FieldType.TEXTS, "c": FieldType.STRING}),
    ]
)


def expected(node: Filter, rows: list[dict[str, Any]], schema: Schema) -> list[int]:
    return [row for row, document in enumerate(rows) if matches(node, document, schema)]


def check(found: Selection, wanted: list[int], row_count: int) -> None:
    assert found.rows().tolist() == wanted
    assert found.count == len(wanted)
    assert bitmap.to_rows(found.bits()).tolist() == wanted
    assert len(found.bits()) == bitmap.size_bytes(row_count)
    probes = np.arange(row_count)
    assert np.flatnonzero(found.keep(probes)).tolist() == wanted


@given(seeds, schemas, st.booleans())
@settings(max_examples=300, deadline=None)
def test_columns_agree_with_the_evaluator(seed: int, schema: Schema, spill: bool) -> None:
    make = maker(seed)
    rows = [msgspec.json.decode(data) for data in encode_metadata(make.table())]
    nodes = [make.condition() for _ in range(6)] + [make.filter() for _ in range(3)]
    raw = [msgspec.json.encode(row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            if spill:  # many small blocks, and no memory for strings: what they hold goes through runs on disk
                patch.setattr(column_build, "_BLOCK_ROWS", 37)
                patch.setattr(limits, "COLUMN_BUILD_TERM_BYTES_MAX", 300)
            assert build_columns(iter(raw), schema, Path(folder)) == ["columns.bin", "columns.json"]
        assert sorted(file.name for file in Path(folder).iterdir()) == ["columns.bin", "columns.json"]
        sealed = open_columns(Path(folder), len(rows))
        growing = GrowingColumns(schema)
        for node in nodes:
            wanted = expected(node, rows, schema)
            check(sealed.evaluate(node, raw.__getitem__), wanted, len(rows))
            assert sealed.evaluate(node, raw.__getitem__).count == len(wanted)  # remembered
            check(growing.evaluate(node, raw, len(rows)), wanted, len(rows))
            some = len(rows) * 2 // 3  # an older view, after a newer one was served
            check(growing.evaluate(node, raw, some), [row for row in wanted if row < some], some)


@given(seeds)
def test_the_stored_form_comes_back_equal(seed: int) -> None:
    node = maker(seed).filter()
    assert from_json(to_json(node)) == node
    assert hash(from_json(to_json(node))) == hash(node)
    assert to_json(from_json(to_json(node))) == to_json(node)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=12), max_size=30),
    st.text(min_size=1, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_fields_beyond_the_columns_there_is_room_for_are_still_exact(rows: list[dict[str, int]], key: str) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(limits, "COLUMNS_MAX", 3)
        patch.setattr(column_gather, "_DENSE_KEYS", 2)
        raw = [msgspec.json.encode(row) for row in rows]
        build_columns(iter(raw), Schema(), Path(folder))
        columns = open_columns(Path(folder), len(rows))
        for path in {key} | {key for row in rows for key in row if key}:
            for node in (F(path) == 1, F(path).exists(), F(path) == None, (F(path) != 1) & (F(path) <= 2)):  # noqa: E711
                check(columns.evaluate(node, raw.__getitem__), expected(node, rows, Schema()), len(rows))


@given(
    st.text(alphabet="aé日\U0001f600", min_size=10, max_size=90),
    st.lists(st.text(alphabet="aé日", max_size=70), max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_cut_strings_compare_like_whole_ones(start: str, ends: list[str]) -> None:
    rows = [{"t": start + end + "é" * 130 * (i % 2)} for i, end in enumerate(ends)] + [{"t": start}]
    raw = [msgspec.json.encode(row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        build_columns(iter(raw), Schema(), Path(folder))
        columns = open_columns(Path(folder), len(rows))
        field = F("t")
        for bound in (
            [row["t"] for row in rows] + [row["t"][:60] for row in rows] + [start, start + "a", start + "\U0001f600"]
        ):
            for node in (field == bound, field < bound, field >= bound, field.prefix(bound), field.contains(bound[5:])):
                check(columns.evaluate(node, raw.__getitem__), expected(node, rows, Schema()), len(rows))


@given(st.datetimes(timezones=st.none() | st.timezones()), st.sampled_from(["T", " ", "t"]))
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "T")
@settings(deadline=None)
def test_a_date_means_the_same_instant_however_it_is_written(moment: datetime, separator: str) -> None:
    utc = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    offset = utc.utcoffset()
    assert offset is not None
    if offset.seconds % 60:
        return  # offsets with seconds are not RFC 3339
    instant = parse_instant(moment.isoformat(separator))
    assert instant is not None
    wanted = (utc.replace(tzinfo=None) - offset.__class__(0) - datetime(1970, 1, 1)) - offset
    assert timedelta(microseconds=instant) == wanted


@given(st.data(), st.sampled_from([1, 63, 700, 5000, 40_000]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_postings_agree_with_sets(data: st.DataObject, row_count: int, one_key_a_row: bool) -> None:
    seed, key_count = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([1, 2, 5, 70, 300]))
    random = np.random.default_rng(seed)
    pairs = random.integers(1, max(2, data.draw(st.sampled_from([row_count // 40, row_count, row_count * 2]))))
    rows = (
        np.unique(random.integers(0, row_count, pairs))
        if one_key_a_row
        else random.integers(0, min(row_count, 60), pairs)
    )
    skewed = np.minimum(random.geometric(data.draw(st.sampled_from([0.02, 0.5])), len(rows)) - 1, key_count - 1)
    present, keys = np.unique(skewed, return_inverse=True)
    stream = io.BytesIO()
    ref = write_postings(keys, rows, len(present), row_count, ArrayWriter(stream))
    postings = Postings(ref, row_count, ArrayReader(stream.getvalue(), "memory"))
    for _ in range(6):
        low, high = sorted(random.integers(0, len(present) + 1, 2).tolist())
        wanted = sorted(set(rows[(keys >= low) & (keys < high)].tolist()))
        check(postings.select(low, high), wanted, row_count)
        probes = random.integers(0, row_count, 50)
        kept = postings.keep(probes, low, high)
        assert kept is None or kept.tolist() == np.isin(probes, wanted).tolist()
        chosen = np.unique(random.integers(0, len(present), random.integers(0, 9)))
        check(postings.select_keys(chosen), sorted(set(rows[np.isin(keys, chosen)].tolist())), row_count)
