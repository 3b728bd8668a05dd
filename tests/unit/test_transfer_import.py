"""Imports: what each format may look like, what is wrong with a file and where, and what the report says."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.transfer import Columns, ImportReport, import_file
from jadevectordb.transfer.read_csv import infer


class Memory:
    """A sink that remembers requests. It refuses vectors that begin with -1, as a database may for its own reasons."""

    def __init__(self, dimension: int = 2) -> None:
        self.dimension = dimension
        self.rows: dict[str, tuple[list[float], dict[str, Any]]] = {}
        self.requests: list[tuple[str, int]] = []

    def upsert(self, ids: list[str], vectors: Any, metadata: list[bytes], *, request_id: str = "") -> None:
        assert len(set(ids)) == len(ids)
        self.requests.append((request_id, len(ids)))
        if (vectors[:, 0] == -1).any():
            raise JadeError(ErrorCode.INVALID_VECTOR, "A vector begins with -1.")
        for name, vector, raw in zip(ids, vectors.tolist(), metadata, strict=True):
            self.rows[name] = (vector, msgspec.json.decode(raw))


def imported(path: Path, **options: Any) -> tuple[dict[str, tuple[list[float], dict[str, Any]]], ImportReport]:
    memory = Memory()
    report = import_file(memory, path, **options)
    return memory.rows, report


def refused(path: Path, match: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT, **options: Any) -> JadeError:
    with pytest.raises(JadeError, match=match) as error:
        import_file(Memory(), path, **options)
    assert error.value.code is code
    assert error.value.details["file"] == str(path)
    return error.value


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def lines_of(count: int) -> list[str]:
    return [json.dumps({"id": f"v{n}", "vector": [n, 0.5], "metadata": {"n": n}}) for n in range(count)]


# JSON Lines


def test_json_lines_in_all_shapes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        '{"id": "a", "vector": [1, 2.5], "metadata": {"t": "ä", "l": [1, {"x": null}]}}',
        "",
        '{"vector": [3, 4], "id": 7, "topic": "x", "year": 1999}',
        '  {"id": "b", "vector": [5, 6], "metadata": null}  ',
        '{"id": "c", "vector": [7, 8]}',
    )
    expected = {
        "a": ([1.0, 2.5], {"t": "ä", "l": [1, {"x": None}]}),
        "7": ([3.0, 4.0], {"topic": "x", "year": 1999}),
        "b": ([5.0, 6.0], {}),
        "c": ([7.0, 8.0], {}),
    }
    rows, report = imported(path)
    assert rows == expected and (report.rows, report.batches, report.skipped) == (4, 1, 0)
    zipped = tmp_path / "x.ndjson.gz"
    zipped.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    assert imported(zipped, batch_rows=1)[0] == expected
    assert imported(path.rename(tmp_path / "noname"), format="jsonl")[0] == expected


def test_columns_can_be_named_and_keys_left_out_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"_id": "a", "emb": [1, 2], "meta": {"x": 1}, "score": 3, "id": 0}')
    rows, report = imported(path, columns=Columns(id="_id", vector="emb", metadata="meta"))
    assert rows == {"a": ([1.0, 2.0], {"x": 1})}
    assert report.ignored == ["score", "id"]
    for bad in ({"id": "x", "vector": "x"}, {"id": ""}):
        with pytest.raises(JadeError, match="three different names"):
            Columns(**bad)


@pytest.mark.parametrize(
    ("line", "match", "code"),
    [
        (
            '{"id": "x", "vector": [1, 2, 3]}',
            "has 3 values, the database has dimension 2",
            ErrorCode.DIMENSION_MISMATCH,
        ),
        ('{"vector": [1, 2]}', "required field `id`", ErrorCode.INVALID_ARGUMENT),
        ('{"id": "x"}', "required field `vector`", ErrorCode.INVALID_ARGUMENT),
        ('{"id": "x", "vector": [1, null]}', "got `null`", ErrorCode.INVALID_ARGUMENT),
        ('{"id": "x", "vector": [1, "2"]}', "got `str`", ErrorCode.INVALID_ARGUMENT),
        ('{"id": "x", "vector": [1, true]}', "got `bool`", ErrorCode.INVALID_ARGUMENT),
        ('{"id": "x", "vector": [1, 1e39]}', "value 1 is not a finite 32-bit number", ErrorCode.INVALID_VECTOR),
        ('{"id": "x", "vector": [1, NaN]}', "not JSON", ErrorCode.INVALID_ARGUMENT),
        ('{"id": "x", "vector": [1, 2]', "not JSON", ErrorCode.INVALID_ARGUMENT),
        ("[1, 2]", "Expected `object`", ErrorCode.INVALID_ARGUMENT),
        ('{"id": "", "vector": [1, 2]}', "1 to 512 characters", ErrorCode.INVALID_ID),
        ('{"id": "a\\nb", "vector": [1, 2]}', "control characters", ErrorCode.INVALID_ID),
        ('{"id": "x", "vector": [1, 2], "metadata": [1]}', "not an object", ErrorCode.INVALID_METADATA),
        (
            '{"id": "x", "vector": [1, 2], "metadata": {"a": "' + "x" * 2**20 + '"}}',
            "at most",
            ErrorCode.INVALID_METADATA,
        ),
        ('{"id": "' + "x" * (9 << 20) + '"}', "longer than", ErrorCode.INVALID_ARGUMENT),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, match: str, code: ErrorCode) -> None:
    lines = lines_of(40)
    path = write(tmp_path / "x.jsonl", *lines[:16], line, *lines[16:])
    error = refused(path, match, code, batch_rows=10)
    assert "line 17" in str(error) and "10 rows before were imported" in str(error) and "on_error='skip'" in str(error)
    assert (error.details["row"], error.details["line"]) == (17, 17)
    rows, report = imported(path, batch_rows=10, on_error="skip")
    assert list(rows) == [f"v{n}" for n in range(40)]
    assert (report.rows, report.skipped) == (40, 1)
    assert "line 17" in str(report.errors[0]) and report.errors[0].code == code


def test_many_bad_lines_are_counted_and_the_first_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *["nonsense", *lines_of(1)] * 300)
    rows, report = imported(path, batch_rows=7, on_error="skip")
    assert len(rows) == 1 and report.skipped == 300
    assert [bad.line for bad in report.errors] == list(range(1, 200, 2))


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"id": "ä", "vector": [1, 2]}'.encode("latin-1"))
    refused(path, "line 1: it is not JSON")
    path.write_bytes("\n".join(lines_of(3)).encode("utf-16"))
    refused(path, "save it as UTF-8")


def test_a_damaged_gzip_file_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(lines_of(5000)).encode())
    path = tmp_path / "x.jsonl.gz"
    for damaged in (whole[: len(whole) // 2], whole[:2000] + b"\xff" * 50 + whole[2050:], b"not gzip at all"):
        path.write_bytes(damaged)
        refused(path, "cut short or damaged", ErrorCode.CORRUPT, on_error="skip")


# CSV


def test_csv_with_a_vector_column_and_inferred_metadata(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.csv",
        "topic,id,vector,n,flag",
        'news,a,"[1, 2.5]",7,true',
        '"say ""hi"", ok",b,3 4,,FALSE',
        '"two\nlines",c,"5,6",-1.5e3,no',
        "",
        ",d,[7. 8.],007,",
    )
    rows, _ = imported(path, batch_rows=2)
    assert rows == {
        "a": ([1.0, 2.5], {"topic": "news", "n": 7, "flag": True}),
        "b": ([3.0, 4.0], {"topic": 'say "hi", ok', "flag": False}),
        "c": ([5.0, 6.0], {"topic": "two\nlines", "n": -1500.0, "flag": "no"}),
        "d": ([7.0, 8.0], {"n": "007"}),
    }


def test_csv_with_a_column_a_value_with_other_names_and_delimiters(tmp_path: Path) -> None:
    expected = {"a": ([1.0, 2.0], {"x": "y"})}
    assert imported(write(tmp_path / "x.csv", "v1,id,v0,x", "2,a,1,y"))[0] == expected
    assert imported(write(tmp_path / "x.tsv", "id\tv0\tv1\tx", "a\t1\t2\ty"))[0] == expected
    columns = Columns(id="key", vector_prefix="dim_", delimiter=";")
    assert imported(write(tmp_path / "y.csv", "key;dim_0;dim_1;x", "a;1;2;y"), columns=columns)[0] == expected
    path = tmp_path / "z.csv"
    path.write_bytes(b"\xef\xbb\xbfid,v0,v1,x\r\na,1,2,y\r\n")
    assert imported(path)[0] == expected
    path = write(tmp_path / "m.csv", "id,v0,v1,metadata,x", 'a,1,2,"{""x"": ""y""}",z', "b,1,2,,z")
    rows, report = imported(path)
    assert rows == {**expected, "b": ([1.0, 2.0], {})} and report.ignored == ["x"]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *(
            ("0", 0),
            ("-0", 0),
            ("12", 12),
            ("-7", -7),
            ("1.5", 1.5),
            ("1e3", 1000.0),
            ("9223372036854775807", 2**63 - 1),
        ),
        *(
            (text, text)
            for text in ("9223372036854775808", "007", "+1", "1_000", ".5", "1.", "1e999", "nan", "inf", "-", " 1")
        ),
        *(("True", True), ("FALSE", False), ("true ", "true "), ("yes", "yes"), ("null", "null"), ("٣", "٣")),
    ],
)
def test_what_a_cell_means(cell: str, value: Any) -> None:
    meant = infer(cell)
    assert meant == value and type(meant) is type(value)


@pytest.mark.parametrize(
    ("header", "match", "code"),
    [
        ("name,vector", "no column 'id'.*name, vector", ErrorCode.INVALID_ARGUMENT),
        ("id,x", "neither a column 'vector' nor", ErrorCode.INVALID_ARGUMENT),
        ("id,v0,v2", "without a gap", ErrorCode.INVALID_ARGUMENT),
        ("id,v0,v1,v2", "3 columns", ErrorCode.DIMENSION_MISMATCH),
        ("id,vector,id", "more than once", ErrorCode.INVALID_ARGUMENT),
        ("", "line 1 is empty", ErrorCode.CORRUPT),
    ],
)
def test_a_header_that_does_not_do(tmp_path: Path, header: str, match: str, code: ErrorCode) -> None:
    refused(write(tmp_path / "x.csv", header, "a,1,2"), match, code, on_error="skip")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("x,1 2", "2 cells, the header names 3"),
        ("x,1 2,3,4", "4 cells"),
        ("x,1 2 3,y", "has 3 values"),
        ("x,1 zwei,y", "'zwei' is not a number"),
        ("x,1 1_0,y", "'1_0' is not a number"),
        ("x,1 nan,y", "not a finite"),
        (",1 2,y", "1 to 512"),
        ('x,"1" 2,y', "as CSV"),
    ],
)
def test_a_bad_csv_row_is_named(tmp_path: Path, line: str, match: str) -> None:
    good = [f"v{n},{n} 0,\nt" if n == -1 else f"v{n},{n} 0,t" for n in range(30)]
    path = write(tmp_path / "x.csv", "id,vector,t", '"multi",1 1,"a\nb\nc"', *good[:13], line, *good[13:])
    with pytest.raises(JadeError, match=match) as error:
        import_file(Memory(), path)
    assert "line 18" in str(error.value) and error.value.details["row"] == 15
    rows, report = imported(path, on_error="skip", batch_rows=4)
    assert list(rows) == ["multi", *(f"v{n}" for n in range(30))] and report.skipped == 1


def test_a_quote_that_is_not_closed_takes_the_lines_behind_it_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "id,vector", "a,1 2", 'b,"1 2', "c,3 4", "d,5 6")
    with pytest.raises(JadeError, match=r"line 3: lines 3 to 5 .* quote that is not closed"):
        import_file(Memory(), path)
    rows, report = imported(path, on_error="skip")
    assert list(rows) == ["a"] and report.skipped == 1


def test_a_csv_line_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"id,vector\na,1 2\n\xff\xfe,1 2\nb,3 4\n")
    with pytest.raises(JadeError, match="line 3: it is not UTF-8"):
        import_file(Memory(), path)
    rows, report = imported(path, on_error="skip")
    assert list(rows) == ["a", "b"] and (report.skipped, report.errors[0].line) == (1, 3)


def test_cells_as_large_as_metadata_may_be(tmp_path: Path) -> None:
    text = "x" * 900_000
    path = write(tmp_path / "x.csv", "id,vector,t", f"a,1 2,{text}")
    assert imported(path)[0]["a"][1] == {"t": text}


# Parquet


def table(path: Path, **columns: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    "vector_type",
    [
        pyarrow.list_(pyarrow.float32()),
        pyarrow.list_(pyarrow.float64(), 2),
        pyarrow.large_list(pyarrow.float16()),
        pyarrow.list_(pyarrow.int32()),
    ],
)
def test_parquet_types(tmp_path: Path, vector_type: Any) -> None:
    raw = [np.array(v, np.float16) for v in ([1, 2], [3, 4])] if "half" in str(vector_type) else [[1, 2], [3, 4]]
    day = datetime.date(2020, 1, 2)
    path = table(
        tmp_path / "x.parquet",
        id=pyarrow.array([1, 2], pyarrow.int64()),
        vector=pyarrow.array(raw, vector_type),
        name=pyarrow.array(["x", None]).dictionary_encode(),
        nested=[{"a": [1, 2]}, None],
        day=[day, day],
        price=[decimal.Decimal("1.50"), None],
        weight=[float("nan"), 0.25],
    )
    assert imported(path)[0] == {
        "1": ([1.0, 2.0], {"name": "x", "nested": {"a": [1, 2]}, "day": "2020-01-02", "price": 1.5}),
        "2": ([3.0, 4.0], {"day": "2020-01-02", "weight": 0.25}),
    }


@pytest.mark.parametrize(
    "metadata",
    [['{"a": 1}', None], [{"a": 1}, None], pyarrow.array([[("a", 1)], None], pyarrow.map_("string", "int64"))],
)
def test_a_parquet_metadata_column(tmp_path: Path, metadata: Any) -> None:
    path = table(
        tmp_path / "x.parquet", id=["x", "y"], vector=[[1.0, 2.0], [3.0, 4.0]], metadata=metadata, other=[1, 2]
    )
    rows, report = imported(path)
    assert rows == {"x": ([1.0, 2.0], {"a": 1}), "y": ([3.0, 4.0], {})} and report.ignored == ["other"]


def test_bad_parquet_rows_are_named(tmp_path: Path) -> None:
    vectors = [[1.0, 2.0], None, [1.0], [1.0, None], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 0.0]]
    ids = ["a", "b", "c", "d", None, "", "e", "f"]
    metadata = ["{}"] * 6 + ["[1]", '{"ok": true}']
    path = table(tmp_path / "x.parquet", id=ids, vector=vectors, metadata=metadata)
    assert "row 2, 'vector': it has 0 values" in str(refused(path, "row 2", ErrorCode.DIMENSION_MISMATCH))
    for batch_rows in (1, 3, 100):
        rows, report = imported(path, on_error="skip", batch_rows=batch_rows)
        assert rows == {"a": ([1.0, 2.0], {}), "f": ([9.0, 0.0], {"ok": True})}
        assert [(bad.row, bad.field) for bad in report.errors] == [
            *((2, "vector"), (3, "vector"), (4, "vector"), (5, "id"), (6, "id"), (7, "metadata")),
        ]


def test_parquet_files_that_do_not_do(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    refused(table(path, name=["a"], vector=[[1.0, 2.0]]), "no column 'id'.*name, vector")
    refused(table(path, id=["a"], vector=["[1, 2]"]), "vectors are lists of numbers")
    refused(table(path, id=[1.5], vector=[[1.0, 2.0]]), "ids are strings or integers")
    whole = table(path, id=["a"] * 100, vector=[[1.0, 2.0]] * 100).read_bytes()
    for damaged in (b"", b"nonsense", whole[:-10]):
        path.write_bytes(damaged)
        refused(path, "not a whole Parquet file", ErrorCode.CORRUPT, on_error="skip")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "x.parquet", id=["a"], vector=[[1.0, 2.0]])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(JadeError, match=r'pip install "jadevectordb\[parquet\]"') as error:
        import_file(Memory(), path)
    assert error.value.code is ErrorCode.NOT_INSTALLED


# Arrays


def fvecs(rows: list[list[float]], dtype: str = "<f4") -> bytes:
    return b"".join(np.int32(len(row)).tobytes() + np.array(row, dtype).tobytes() for row in rows)


def test_arrays_with_row_numbers_or_a_file_of_ids(tmp_path: Path) -> None:
    for name, content in (
        ("x.fvecs", fvecs([[1, 2], [3, 4]])),
        ("x.bvecs", fvecs([[1, 2], [3, 4]], "|u1")),
        ("x.ivecs", fvecs([[1, 2], [3, 4]], "<i4")),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert imported(path)[0] == {"0": ([1.0, 2.0], {}), "1": ([3.0, 4.0], {})}
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1, 2], [3, 4]], np.float16))
    ids = write(tmp_path / "names.txt", "eins", "zwei")
    assert list(imported(path, ids=ids, batch_rows=1)[0]) == ["eins", "zwei"]
    ids.write_bytes(b"uno\r\ndos")  # no line end at the end
    assert list(imported(path, ids=ids)[0]) == ["uno", "dos"]
    ids.rename(tmp_path / "x.npy.ids")
    assert list(imported(path)[0]) == ["uno", "dos"]
    write(tmp_path / "x.npy.ids", "one")
    with pytest.raises(JadeError, match="1 lines, one an id, but"):
        import_file(Memory(), path)
    write(tmp_path / "x.npy.ids", "one", "")
    with pytest.raises(JadeError, match="line 2"):
        import_file(Memory(), path)
    assert list(imported(path, on_error="skip")[0]) == ["one"]
    with pytest.raises(JadeError, match="has its ids inside"):
        import_file(Memory(), write(tmp_path / "x.jsonl"), ids=ids)


def test_values_that_are_no_numbers_are_left_out_by_row(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1, 2], [np.nan, 0], [3, np.inf], [4, 1e300], [5, 6]]))
    assert "row 2, 'vector': its value 0" in str(refused(path, "not a finite", ErrorCode.INVALID_VECTOR))
    rows, report = imported(path, on_error="skip")
    assert list(rows) == ["0", "4"] and [bad.row for bad in report.errors] == [2, 3, 4]


def test_array_files_that_do_not_do(tmp_path: Path) -> None:
    path = tmp_path / "x.fvecs"
    whole = fvecs([[1, 2], [3, 4], [5, 6]])
    for content, match, code in (
        (whole[:-3], "cut short: 2 vectors of 2 values are whole", ErrorCode.CORRUPT),
        (whole[:3], "this is no .fvecs file|cut short", ErrorCode.CORRUPT),
        (b"\xff" * 40, "says to have -1 values", ErrorCode.CORRUPT),
        (fvecs([[1, 2, 3]]), "3 values, the database has dimension 2", ErrorCode.DIMENSION_MISMATCH),
        (fvecs([[1, 2], [3, 4], [5]]) + bytes(4), "row 3 says to have 1 values", ErrorCode.CORRUPT),
    ):
        path.write_bytes(content)
        refused(path, match, code, on_error="skip")
    path = tmp_path / "x.npy"
    for array, match, code in (
        (np.zeros(4), "two-dimensional", ErrorCode.INVALID_ARGUMENT),
        (np.zeros((2, 3)), "3 values", ErrorCode.DIMENSION_MISMATCH),
        (np.array([["a", "b"]]), "two-dimensional array of numbers", ErrorCode.INVALID_ARGUMENT),
        (np.array([[1, None]]), "not a whole .npy file", ErrorCode.CORRUPT),
    ):
        np.save(path, array)
        refused(path, match, code)
    np.save(path, np.zeros((100, 2)))
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "not a whole .npy file", ErrorCode.CORRUPT)


# The rest


def test_the_last_row_of_an_id_wins_and_what_was_not_sent_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *[json.dumps({"id": f"v{n % 3}", "vector": [n, 0]}) for n in range(8)])
    for batch_rows, replaced in ((100, 5), (4, 2), (1, 0)):
        rows, report = imported(path, batch_rows=batch_rows)
        assert {name: row[0][0] for name, row in rows.items()} == {"v0": 6, "v1": 7, "v2": 5}
        assert (report.replaced, report.rows) == (replaced, 8 - replaced)


def test_a_refusal_of_the_database_is_narrowed_down(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"v{n}", "vector": [-1 if n in (3, 17, 18) else n, 0]}) for n in range(40)]
    path = write(tmp_path / "x.jsonl", *lines)
    with pytest.raises(JadeError, match=r"rows 1 to 10 were refused: A vector begins with -1\. 0 rows before"):
        import_file(Memory(), path, batch_rows=10)
    memory = Memory()
    report = import_file(memory, path, batch_rows=10, on_error="skip")
    assert [bad.row for bad in report.errors] == [4, 18, 19] and len(memory.rows) == 37 == report.rows
    names = [name for name, _ in memory.requests]
    assert len(set(names)) == len(names), "no two different requests under one id"


def test_an_error_that_is_not_about_rows_is_raised_even_when_skipping(tmp_path: Path) -> None:
    class Full(Memory):
        def upsert(self, *args: Any, **options: Any) -> None:
            raise JadeError(ErrorCode.DISK_FULL, "No space.")

    with pytest.raises(JadeError, match="No space"):
        import_file(Full(), write(tmp_path / "x.jsonl", *lines_of(3)), on_error="skip")


def test_progress_goes_up_to_the_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *lines_of(5000))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    np.save(tmp_path / "x.npy", np.ones((5000, 2)))
    table(tmp_path / "x.parquet", id=[str(n) for n in range(5000)], vector=[[1.0, 2.0]] * 5000)
    for name in ("x.jsonl", "x.jsonl.gz", "x.npy", "x.parquet"):
        seen: list[tuple[int, int, int | None]] = []
        import_file(Memory(), tmp_path / name, batch_rows=700, on_progress=lambda *now, seen=seen: seen.append(now))
        size = (tmp_path / name).stat().st_size
        assert [rows for rows, _, _ in seen] == [*range(700, 5000, 700), 5000]
        done = [done for _, done, _ in seen]
        assert done == sorted(done) and done[-1] == size and {total for _, _, total in seen} == {size}


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *lines_of(1))
    for options in ({"batch_rows": 0}, {"on_error": "ignore"}, {"columns": Columns(delimiter="ab")}, {"format": "xml"}):
        with pytest.raises(JadeError) as error:
            import_file(Memory(), path, **options)
        assert error.value.code is ErrorCode.INVALID_ARGUMENT
    refused(path.rename(tmp_path / "x.txt"), "format= one of jsonl, csv")
    refused(tmp_path / "x.npy.gz", "Unpack it first")
    refused(tmp_path / "none.jsonl", "No such file", ErrorCode.NOT_FOUND)


def test_an_empty_file_imports_nothing(tmp_path: Path) -> None:
    assert imported(write(tmp_path / "x.jsonl"))[1].rows == 0
    assert imported(write(tmp_path / "x.csv", "id,vector"))[1].rows == 0
    np.save(tmp_path / "x.npy", np.zeros((0, 2)))
    assert imported(tmp_path / "x.npy")[1].rows == 0
    (tmp_path / "x.fvecs").touch()
    assert imported(tmp_path / "x.fvecs")[1].rows == 0
