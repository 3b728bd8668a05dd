"""Exports: files appear whole or not at all, and say what they leave out. The way back is in the round trip property."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from rich.console import Console

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.transfer import Columns, ExportReport, export_file
from jadevectordb.transfer.progress import progress_bar

NAMES = ["x.jsonl", "x.jsonl.gz", "x.csv", "x.csv.gz", "x.parquet", "x.npy", "x.fvecs"]


class Rows:
    """A source of `count` vectors that fails after some pages when told to."""

    dimension = 2

    def __init__(self, count: int, pages: int = 1 << 30) -> None:
        self.items = [
            SimpleNamespace(id=f"v{n}", vector=np.array([n, 0.1], np.float32), metadata={"n": n} if n % 2 else {})
            for n in range(count)
        ]
        self.pages = pages

    def scroll(self, limit: int, cursor: str | None, filter: Any) -> Any:
        if self.pages == 0:
            raise JadeError(ErrorCode.CLOSED, "The database was closed.")
        self.pages -= 1
        start = int(cursor or 0)
        items = [item for item in self.items if filter is None or item.metadata == filter]
        return SimpleNamespace(
            items=items[start : start + limit], cursor=str(start + limit) if start + limit < len(items) else None
        )


def exported(path: Path, count: int = 5, **options: Any) -> ExportReport:
    return export_file(Rows(count), path, page_rows=2, **options)


def test_what_the_files_look_like(tmp_path: Path) -> None:
    exported(tmp_path / "x.jsonl", 2)
    assert (tmp_path / "x.jsonl").read_text() == (
        '{"id":"v0","vector":[0.0,0.10000000149011612],"metadata":{}}\n'
        '{"id":"v1","vector":[1.0,0.10000000149011612],"metadata":{"n":1}}\n'
    )
    exported(tmp_path / "x.csv", 2, include_vectors=False, columns=Columns(id="key", delimiter=";"))
    assert (tmp_path / "x.csv").read_text() == 'key;metadata\nv0;{}\nv1;"{""n"":1}"\n'
    exported(tmp_path / "x.jsonl.gz", 1, include_vectors=False)
    assert gzip.decompress((tmp_path / "x.jsonl.gz").read_bytes()) == b'{"id":"v0","metadata":{}}\n'
    exported(tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[2]"
    assert [json.loads(text) for text in table["metadata"].to_pylist()] == [{}, {"n": 1}, {}, {"n": 3}, {}]
    report = exported(tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").tolist() == np.array([[n, 0.1] for n in range(5)], np.float32).tolist()
    assert (tmp_path / "x.npy.ids").read_text() == "v0\nv1\nv2\nv3\nv4\n"
    assert report.metadata_left_out == 2 and report.files == [tmp_path / "x.npy.ids", tmp_path / "x.npy"]
    exported(tmp_path / "x.fvecs", 3)
    assert np.fromfile(tmp_path / "x.fvecs", "<i4").reshape(3, 3)[:, 0].tolist() == [2, 2, 2]
    assert sum(file.stat().st_size for file in report.files) == report.bytes


def test_a_filter_is_handed_on(tmp_path: Path) -> None:
    assert exported(tmp_path / "x.jsonl", filter={"n": 3}).rows == 1
    assert exported(tmp_path / "y.npy", filter={"n": 99}).rows == 0
    assert np.load(tmp_path / "y.npy").shape == (0, 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_replaced_only_when_told_to_and_only_by_a_whole_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    exported(path, 3)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(JadeError, match="overwrite=True") as error:
        exported(path)
    assert error.value.code is ErrorCode.ALREADY_EXISTS
    with pytest.raises(JadeError, match="was closed"):
        export_file(Rows(9, pages=2), path, page_rows=2, overwrite=True)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert exported(path, 4, overwrite=True).rows == 4
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in before}


def test_a_folder_that_is_not_there_and_formats_that_do_not_do(tmp_path: Path) -> None:
    with pytest.raises(JadeError, match="could not be written") as error:
        exported(tmp_path / "none" / "x.jsonl")
    assert error.value.code is ErrorCode.IO_ERROR
    for name, options, match in (
        ("x.npy", {"include_vectors": False}, "leaves nothing"),
        ("x.ivecs", {}, "export to .fvecs"),
        ("x.txt", {}, "format="),
        ("x.npy.gz", {}, "cannot be compressed"),
    ):
        with pytest.raises(JadeError, match=match):
            exported(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_progress_bar_shows_on_a_terminal_and_is_silent_elsewhere(tmp_path: Path) -> None:
    for terminal in (True, False):
        shown = io.StringIO()
        with progress_bar("words", Console(file=shown, force_terminal=terminal, width=120)) as on_progress:
            exported(tmp_path / f"{terminal}.jsonl", 1234, on_progress=on_progress)
        assert ("words" in shown.getvalue() and "1,234 rows" in shown.getvalue()) is terminal
        assert terminal or shown.getvalue() == ""
