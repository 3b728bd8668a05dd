"""An index opens only over what it was made for: damaged, missing, foreign and newer files are refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash

from jadevectordb.index.factory import build_index, open_index
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric

SPACE = VectorSpace(Metric.COSINE, 16)
ROWS = SPACE.search_rows(np.random.default_rng(0).standard_normal((600, 16)).astype(np.float32))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip, cut, grow, empty, remove])
@pytest.mark.parametrize("kind", [IndexKind.IVF, IndexKind.HNSW, IndexKind.LSH, IndexKind.FLAT])
def test_damage_is_refused_naming_the_file(tmp_path: Path, kind: IndexKind, damage: Callable[[Path], None]) -> None:
    names = build_index(kind, SPACE, ROWS, tmp_path, threads=1, seed=3)
    for name in names:
        path = tmp_path / name
        content = path.read_bytes()
        damage(path)
        with pytest.raises(JadeError) as caught:
            open_index(tmp_path, SPACE, ROWS)
        assert caught.value.code is ErrorCode.CORRUPT
        assert caught.value.details["file"] == str(path) and str(path) in caught.value.message
        path.write_bytes(content)
    assert open_index(tmp_path, SPACE, ROWS).row_count == 600


@pytest.mark.parametrize("kind", [IndexKind.IVF, IndexKind.HNSW, IndexKind.LSH, IndexKind.FLAT])
def test_an_index_of_other_rows_is_refused(tmp_path: Path, kind: IndexKind) -> None:
    build_index(kind, SPACE, ROWS, tmp_path, threads=1, seed=3)
    for space, rows in (
        (SPACE, ROWS[:-1]),
        (VectorSpace(Metric.DOT, 16), ROWS),
        (VectorSpace(Metric.COSINE, 15), np.ascontiguousarray(ROWS[:, 1:])),
    ):
        with pytest.raises(JadeError) as caught:
            open_index(tmp_path, space, rows)
        assert caught.value.code is ErrorCode.CORRUPT


def test_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    build_index(IndexKind.FLAT, SPACE, ROWS, tmp_path, threads=1, seed=3)
    path = tmp_path / "index.json"
    line = path.read_bytes().split(b"\n")[1].replace(b'"format":1', b'"format":999')
    path.write_bytes(xxhash.xxh3_64_hexdigest(line).encode() + b"\n" + line + b"\n")
    with pytest.raises(JadeError) as caught:
        open_index(tmp_path, SPACE, ROWS)
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    for kind in (IndexKind.IVF, IndexKind.FLAT):
        with pytest.raises(JadeError) as caught:
            build_index(kind, SPACE, ROWS, tmp_path / "missing", threads=1, seed=3)
        assert caught.value.code is ErrorCode.IO_ERROR
