"""What is exported and imported again is the same: ids, metadata, and vectors to the last bit, where the format carries them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jadevectordb.transfer import export_file, import_file


@dataclass
class Kept:
    id: str
    vector: Any
    metadata: dict[str, Any]


@dataclass
class KeptPage:
    items: Sequence[Kept]
    cursor: str | None


class Memory:
    """A sink and a source: rows in order of arrival, pages by position."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.rows: dict[str, Kept] = {}

    def upsert(self, ids: list[str], vectors: Any, metadata: list[bytes], *, request_id: str = "") -> None:
        assert len(set(ids)) == len(ids) == len(vectors) == len(metadata) and request_id
        assert (
            vectors.dtype == np.float32 and vectors.shape == (len(ids), self.dimension) and vectors.flags.c_contiguous
        )
        for name, vector, raw in zip(ids, vectors, metadata, strict=True):
            self.rows[name] = Kept(name, vector, msgspec.json.decode(raw, type=dict))

    def scroll(self, limit: int, cursor: str | None, filter: Any) -> KeptPage:
        start = int(cursor or 0)
        rows = [row for row in self.rows.values() if filter is None or row.metadata.get("keep") == filter]
        return KeptPage(rows[start : start + limit], str(start + limit) if start + limit < len(rows) else None)


# Categories Cc (control) and Cs (lone surrogates) are no ids; neither has a place in metadata text here.
names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | st.text(st.characters(exclude_categories=("Cs",)), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def databases(draw: st.DrawFn) -> Memory:
    memory = Memory(draw(st.sampled_from([1, 2, 7])))
    for name in draw(st.lists(names, max_size=12, unique=True)):
        vector = np.array(draw(st.lists(float32, min_size=memory.dimension, max_size=memory.dimension)), np.float32)
        memory.rows[name] = Kept(name, vector, draw(st.dictionaries(names, values, max_size=4)))
    return memory


def there_and_back(memory: Memory, name: str, page_rows: int, batch_rows: int) -> Memory:
    other = Memory(memory.dimension)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        report = export_file(memory, path, page_rows=page_rows)
        assert report.rows == len(memory.rows)
        assert report.bytes == sum(file.stat().st_size for file in Path(folder).iterdir())
        imported = import_file(other, path, batch_rows=batch_rows, checkpoint=Path(folder, "checkpoint"))
        assert (imported.rows, imported.skipped, imported.ignored) == (len(memory.rows), 0, [])
        assert not Path(folder, "checkpoint").exists()
    return other


def bits(memory: Memory) -> list[tuple[str, bytes]]:
    return [(row.id, row.vector.tobytes()) for row in memory.rows.values()]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.csv", "x.tsv", "x.csv.gz", "x.parquet"])
@settings(max_examples=25, deadline=None)
@given(memory=databases(), page_rows=st.integers(1, 5), batch_rows=st.integers(1, 5))
def test_everything_returns(name: str, memory: Memory, page_rows: int, batch_rows: int) -> None:
    other = there_and_back(memory, name, page_rows, batch_rows)
    assert bits(other) == bits(memory)
    assert [row.metadata for row in other.rows.values()] == [row.metadata for row in memory.rows.values()]


@pytest.mark.parametrize("name", ["x.npy", "x.fvecs"])
@settings(max_examples=25, deadline=None)
@given(memory=databases(), page_rows=st.integers(1, 5), batch_rows=st.integers(1, 5))
def test_ids_and_vectors_return(name: str, memory: Memory, page_rows: int, batch_rows: int) -> None:
    other = there_and_back(memory, name, page_rows, batch_rows)
    assert bits(other) == bits(memory)
    assert all(row.metadata == {} for row in other.rows.values())


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["<f2", "<f4", "<f8", ">f4", "<i4", "|u1", "|b1"]),
    st.booleans(),
    st.integers(1, 30),
    st.integers(1, 9),
)
def test_any_array_of_numbers_can_be_read(dtype: str, fortran: bool, count: int, batch_rows: int) -> None:
    array = np.random.default_rng(count).integers(0, 2 if dtype == "|b1" else 200, (count, 3)).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        np.save(path, np.asfortranarray(array) if fortran else array)
        memory = Memory(3)
        assert import_file(memory, path, batch_rows=batch_rows).rows == count
    assert list(memory.rows) == [str(row) for row in range(count)]
    assert np.array_equal(np.stack([row.vector for row in memory.rows.values()]), array.astype(np.float32))
