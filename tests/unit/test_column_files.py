"""Columns on disk: opened without being read, damage found and named; the cache of answers stays within its bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jadevectordb.index import column_file
from jadevectordb.index.column_cache import SelectionCache
from jadevectordb.index.columns import ColumnSet, GrowingColumns, Selection, build_columns, open_columns
from jadevectordb.model import limits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import F, Filter, In
from jadevectordb.model.schema import NO_SCHEMA, parse_schema

ROWS = 3000


def document(i: int) -> dict[str, object]:
    if i % 500 == 0:
        return {"rare": "r", "only": [1, "1"]}
    return {
        "kind": "abc"[i % 3],
        "n": i,
        "x": i / 7,
        "tags": [f"t{i % 5}"] * (i % 2),
        "when": f"2024-05-{i % 28 + 1:02}",
        "on": i % 2 == 0,
        "long": "z" * (i % 400),
        "none": None if i % 9 else 1,
        "rare": i,
    }


RAW = [msgspec.json.encode(document(i)) for i in range(ROWS)]
QUESTIONS: list[Filter] = [
    F("kind") == "a",
    F("n").between(5, 900),
    F("x") > 100.5,
    F("tags") == "t1",
    F("on") == True,  # noqa: E712
    F("none") == None,  # noqa: E711
    F("rare").exists(),
    F("when").prefix("2024-05-1"),
    F("when") < "2024-05-04",
    F("long") > "z" * 60,
    F("kind").matches("[ab]"),
    F("only").contains(1),
    F("tags").not_in(["t1", "t2"]),
]


def never(row: int) -> bytes:
    raise AssertionError(f"record {row} was read")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_columns(RAW, NO_SCHEMA, tmp_path)
    return tmp_path


def test_every_flipped_byte_is_found_or_harmless(folder: Path) -> None:
    """A byte of an array that a filter uses makes it CORRUPT; any other byte changes no answer."""
    right = [open_columns(folder, ROWS).evaluate(node, RAW.__getitem__).rows().tolist() for node in QUESTIONS]
    data = folder / "columns.bin"
    whole = data.read_bytes()
    found = 0
    for at in range(3, len(whole), len(whole) // 80):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        data.write_bytes(damaged)
        columns = open_columns(folder, ROWS)
        for node, answer in zip(QUESTIONS, right, strict=True):
            try:
                assert columns.evaluate(node, RAW.__getitem__).rows().tolist() == answer
            except JadeError as error:
                assert error.code == ErrorCode.CORRUPT
                assert error.details["file"] == str(data)
                assert str(data) in error.message
                found += 1
    assert found > 50


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (
            lambda folder: (folder / "columns.bin").write_bytes((folder / "columns.bin").read_bytes()[:-1]),
            "columns.bin",
        ),
        (lambda folder: (folder / "columns.bin").write_bytes(b""), "columns.bin"),
        (lambda folder: (folder / "columns.bin").unlink(), "columns.bin"),
        (lambda folder: flip(folder / "columns.json"), "columns.json"),
        (lambda folder: (folder / "columns.json").write_bytes(b""), "columns.json"),
        (
            lambda folder: (folder / "columns.json").write_bytes((folder / "columns.json").read_bytes()[:-2]),
            "columns.json",
        ),
        (lambda folder: (folder / "columns.json").unlink(), "columns.json"),
    ],
)
def test_damaged_files_are_named(folder: Path, harm: Callable[[Path], object], name: str) -> None:
    harm(folder)
    with pytest.raises(JadeError) as caught:
        open_columns(folder, ROWS)
    assert caught.value.code == ErrorCode.CORRUPT
    assert caught.value.details["file"] == str(folder / name)


def test_columns_of_other_rows_are_refused(folder: Path) -> None:
    with pytest.raises(JadeError, match="3000 rows, the segment has 2999") as caught:
        open_columns(folder, ROWS - 1)
    assert caught.value.code == ErrorCode.CORRUPT


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.index.column_build.FORMAT_VERSION", column_file.FORMAT_VERSION + 1)
    build_columns(RAW, NO_SCHEMA, tmp_path)
    with pytest.raises(JadeError, match="use a newer version") as caught:
        open_columns(tmp_path, ROWS)
    assert caught.value.code == ErrorCode.FORMAT_TOO_NEW


def test_a_folder_that_cannot_be_written_is_an_error_to_act_on(tmp_path: Path) -> None:
    with pytest.raises(JadeError) as caught:
        build_columns(RAW, NO_SCHEMA, tmp_path / "missing")
    assert caught.value.code == ErrorCode.IO_ERROR


def test_no_rows(tmp_path: Path) -> None:
    build_columns([], NO_SCHEMA, tmp_path)
    columns = open_columns(tmp_path, 0)
    assert columns.evaluate(F("a") == 1, never).rows().tolist() == []
    assert columns.evaluate(F("a") != 1, never).count == 0
    assert GrowingColumns(NO_SCHEMA).evaluate(F("a") != 1, [], 0).count == 0


def test_the_same_rows_make_the_same_bytes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    build_columns(iter(RAW), NO_SCHEMA, other)
    for name in ("columns.bin", "columns.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_indexed_fields_read_no_record(folder: Path) -> None:
    columns = open_columns(folder, ROWS)
    for node in QUESTIONS:
        if getattr(node, "path", None) != "long":
            columns.evaluate(node, never)
    columns.evaluate(F("long") == "z" * 200, never)
    columns.evaluate(F("long") > "zz", never)
    columns.evaluate(F("long").prefix("z" * 50), never)


def test_a_conjunction_reads_records_of_nothing_but_what_is_left(folder: Path) -> None:
    read: list[int] = []

    def record(row: int) -> bytes:
        read.append(row)
        return RAW[row]

    found = open_columns(folder, ROWS).evaluate(F("long").contains("z" * 260) & (F("n") < 350), record)
    assert found.rows().tolist() == list(range(260, 350))
    assert set(read) <= set(range(257, 350))


def test_declared_text_is_decided_by_records_alone(tmp_path: Path) -> None:
    raw = [msgspec.json.encode({"gloss": f"a thing {i}", "kind": "x"}) for i in range(100)]
    build_columns(raw, parse_schema({"gloss": "text"}), tmp_path)
    columns = open_columns(tmp_path, 100)
    assert columns.evaluate(F("gloss").contains("thing 7"), raw.__getitem__).count == 11
    assert columns.evaluate(F("gloss").exists(), never).count == 100
    assert b"thing" not in (tmp_path / "columns.bin").read_bytes()


# The cache


def test_the_cache_keeps_its_bounds_and_the_latest_used() -> None:
    cache = SelectionCache(bytes_max=4000, entries_max=8)
    nodes = [F("a") == i for i in range(30)]
    for node in nodes:
        cache.put(node, Selection.everything(640))
        assert cache.get(nodes[0]) is not None
        assert cache.bytes_used <= 4000
        assert len(cache) <= 8
    assert cache.get(nodes[-1]) is not None
    assert cache.get(nodes[1]) is None


def test_what_is_large_is_not_kept() -> None:
    cache = SelectionCache(bytes_max=1000, entries_max=8)
    cache.put(F("a") == 1, Selection.everything(100_000))
    cache.put(F("a").is_in(range(limits.COLUMN_CACHE_NODES_MAX + 1)), Selection.nothing(8))
    assert len(cache) == 0
    assert cache.bytes_used == 0


def test_an_answer_never_holds_more_than_it_was_counted_for() -> None:
    for count in (0, 1, 20, 31, 32, 500, 999):
        by_rows = Selection.of_rows(Selection.everything(1000).rows()[:count], 1000)
        by_bits = Selection.of_bits(by_rows.bits(), 1000)
        for one in (by_rows, by_bits):
            counted = one.bytes_max
            one.rows()
            one.bits()
            held = sum(array.nbytes for array in (one._rows, one._bits) if array is not None)
            assert held <= counted == one.bytes_max


def test_memory_is_reported_and_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COLUMN_CACHE_BYTES_MAX", 20_000)
    columns = open_columns(folder, ROWS)
    before = columns.memory_bytes
    for i in range(300):
        columns.evaluate(F("n") != i, never)
    assert before < columns.memory_bytes <= before + 20_000 + ROWS


def test_many_threads_and_a_writer(folder: Path) -> None:
    """Searches from many threads while rows are appended see exactly the rows of their view."""
    metadata: list[bytes] = []
    growing = GrowingColumns(NO_SCHEMA)
    sealed = open_columns(folder, ROWS)
    failures: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                count = len(metadata)
                found = growing.evaluate(F("kind") == "b", metadata, count)
                assert found.rows().tolist() == [i for i in range(count) if i % 3 == 1 and i % 500]
                assert sealed.evaluate(F("kind") == "b", never).count == len(
                    [i for i in range(ROWS) if i % 3 == 1 and i % 500]
                )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for row in RAW:
        metadata.append(row)
        if len(metadata) % 50 == 0:
            growing.evaluate(F("n") >= 0, metadata, len(metadata))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert growing.memory_bytes > 0


def test_an_in_of_a_hundred_thousand_values(folder: Path) -> None:
    columns: ColumnSet = open_columns(folder, ROWS)
    node = F("when").is_in([f"{i}" for i in range(99_999)] + ["2024-05-03"])
    assert isinstance(node, In)
    assert columns.evaluate(node, never).count == columns.evaluate(F("when") == "2024-05-03", never).count > 0
    numbers = F("n").is_in([i * 3 for i in range(100_000)])
    assert columns.evaluate(numbers, never).count == len([i for i in range(ROWS) if i % 500 and i % 3 == 0])
