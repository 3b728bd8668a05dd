"""How fast filters are: building the columns of a million rows, and answering over them. No data needed.

    .venv/bin/python bench/filter_columns.py [rows]

Times are CPU time of one thread, each the median of several runs with the answer cache emptied, so that what is measured is the evaluation.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from jadevectordb.index.columns import ColumnSet, GrowingColumns, build_columns, open_columns
from jadevectordb.model.filter_parse import parse
from jadevectordb.model.filters import F, Filter
from jadevectordb.model.schema import NO_SCHEMA, Schema, parse_schema
from jadevectordb.model.schema_encode import encode_metadata

SEED = 7
SCHEMA = parse_schema({"pos": "string", "year": "integer", "score": "number", "title": "string", "published": "date"})


def rows(count: int) -> Iterator[bytes]:
    random = Random(SEED)
    kinds = ["noun"] * 60 + ["verb"] * 25 + ["adj"] * 14 + ["adv"]
    for i in range(count):
        yield msgspec.json.encode(
            {
                "pos": random.choice(kinds),
                "year": 1900 + random.randrange(125),
                "score": random.random(),
                "title": f"title {i * 7919 % count}",
                "published": f"20{i % 24:02}-0{i % 9 + 1}-{i % 28 + 1:02}",
            }
        )


QUESTIONS: list[tuple[str, Filter]] = [
    ("eq, 60 % of the rows", F("pos") == "noun"),
    ("eq, 1 %", F("pos") == "adv"),
    ("eq, one row of unique strings", F("title") == "title 4711"),
    ("ne, 99 %", F("pos") != "adv"),
    ("eq and eq, 0.5 %", (F("pos") == "noun") & (F("year") == 1984)),
    ("in, 3 of 4", F("pos").is_in(["verb", "adj", "adv"])),
    ("in, 1000 of a million titles", F("title").is_in([f"title {i}" for i in range(0, 5000, 5)])),
    ("integer range, 8 %", (F("year") >= 2000) & (F("year") < 2010)),
    ("float range, 1 %", F("score").between(0.5, 0.51)),
    ("float range, 50 %", F("score") < 0.5),
    ("date range, 4 %", F("published").between("2003-01-01", "2003-12-31")),
    ("prefix, 1 %", F("title").prefix("title 12")),
    ("or of three", (F("pos") == "adv") | (F("year") == 1984) | (F("score") > 0.99)),
    ("contains, through all titles", F("title").contains("4711")),
    ("regex, through all titles", F("title").matches("47.1$")),
]


def clock(action: object, repeat: int) -> float:
    """Median CPU seconds of calling it."""
    assert callable(action)
    times = []
    for _ in range(repeat):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return statistics.median(times)


def fresh(columns: ColumnSet) -> ColumnSet:
    """The same mapped columns with nothing remembered but what they read."""
    copy = ColumnSet(columns._directory, columns._reader)
    copy._columns = columns._columns
    return copy


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    raw = list(rows(count))
    print(f"{count:,} rows of 5 fields, {sum(map(len, raw)) / count:.0f} bytes of JSON each")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for name, schema in (("without a schema", NO_SCHEMA), ("declared", SCHEMA)):
            seconds = clock(lambda schema=schema: build_columns(iter(raw), schema, directory), 1)  # type: ignore[misc]
            print(f"build {name}: {count / seconds:,.0f} rows/s")
        size = sum(file.stat().st_size for file in directory.iterdir())
        print(
            f"on disk: {size / count:.1f} bytes a row; open: {clock(lambda: open_columns(directory, count), 5) * 1e3:.2f} ms"
        )
        report(open_columns(directory, count), raw)
    growing(raw[:16_000])
    small(raw[:1000])


def report(columns: ColumnSet, raw: list[bytes]) -> None:
    print(
        f"\n{'condition':34} {'rows':>9} {'first ms':>9} {'ms':>8}   (first: also compares the arrays with their checksums)"
    )
    for name, node in QUESTIONS:
        first = clock(lambda node=node: columns.evaluate(node, raw.__getitem__), 1)  # type: ignore[misc]
        found = columns.evaluate(node, raw.__getitem__)
        again = clock(lambda node=node: fresh(columns).evaluate(node, raw.__getitem__), 9)  # type: ignore[misc]
        print(f"{name:34} {found.count:9,} {first * 1e3:9.3f} {again * 1e3:8.3f}")
    node = QUESTIONS[4][1]
    hits = clock(lambda: [columns.evaluate(node, raw.__getitem__) for _ in range(1000)], 9) / 1000
    print(f"remembered answer: {hits * 1e6:.2f} us; memory: {columns.memory_bytes / 1e6:.2f} MB")


def growing(raw: list[bytes]) -> None:
    columns = GrowingColumns(Schema())
    pos = [F("pos") == kind for kind in ("noun", "verb", "adj", "adv")]
    years = [F("year") == 1900 + i for i in range(60)]
    first = clock(lambda: columns.evaluate(pos[0], raw, len(raw)), 1)
    again = clock(lambda: columns.evaluate(pos[0], raw, len(raw)), 50)
    other = statistics.median(clock(lambda n=n: columns.evaluate(n, raw, len(raw)), 1) for n in years[1:])  # type: ignore[misc]
    print(
        f"\ngrowing, {len(raw):,} rows: first {first * 1e3:.1f} ms, same filter {again * 1e3:.3f} ms, new eq {other * 1e3:.3f} ms"
    )


def small(raw: list[bytes]) -> None:
    documents = [msgspec.json.decode(row) for row in raw]
    plain = clock(lambda: encode_metadata(documents), 20) / len(raw)
    typed = clock(lambda: encode_metadata(documents, SCHEMA), 20) / len(raw)
    written = {"pos": "noun", "year": {"$gte": 2000, "$lt": 2010}}
    parsed = clock(lambda: [parse(written) for _ in range(1000)], 20) / 1000
    print(
        f"encode: {plain * 1e6:.2f} us a row, {typed * 1e6:.2f} with a schema; parse of 3 conditions: {parsed * 1e6:.2f} us"
    )


if __name__ == "__main__":
    main()
