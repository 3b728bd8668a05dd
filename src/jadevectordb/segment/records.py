"""Ids, versions and metadata of one immutable block of rows, read through mmap: nothing is loaded at open.

Files (little-endian, row order unless said otherwise):
    ids, ids.offsets             UTF-8 bytes back to back, uint64 (n + 1)
    metadata, metadata.offsets   raw JSON objects back to back, uint64 (n + 1)
    versions                     int64 (n)
    hashes, hashes.rows          xxh3-64 of each id ascending, uint64 (n), and the row each belongs to, uint32 (n)

The sorted hashes are the id index (binary search, vectorised over a batch) and the order of `scroll`.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

HashArray = npt.NDArray[np.uint64]
RowArray = npt.NDArray[np.int64]
FILES = ("ids", "ids.offsets", "metadata", "metadata.offsets", "versions", "hashes", "hashes.rows")
_GATHER_ROWS = 65_536


def hash_ids(ids: Seq[str]) -> HashArray:
    """xxh3-64 of each id's UTF-8 bytes; uint64, as long as ids. Places an id in its shard, in the id index and in `scroll`."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter([digest(i.encode()) for i in ids], np.uint64, len(ids))


def map_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A read-only array over a mapped file; an empty array for an empty file (which can't be mapped)."""
    if 0 in shape:
        return np.empty(shape, dtype)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # frombuffer instead of memmap: plain ndarrays slice several times faster
    return np.frombuffer(mapped, dtype).reshape(shape)


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write the bare values, C-order. Not `tofile`: on a full disk that loses the reason, or what it buffered without a word."""
    path.write_bytes(np.ascontiguousarray(array).data)


def _view(array: npt.NDArray[Any]) -> memoryview[Any]:
    """Gives Python ints and bytes without numpy's scalar objects, which would cost more than the lookup."""
    view: memoryview[Any] = array.data
    return view


class Blobs:
    """Variable-length byte strings, one a row."""

    def __init__(self, directory: Path, name: str, row_count: int) -> None:
        self.offsets = map_array(directory / f"{name}.offsets", np.uint64, (row_count + 1,))
        size = (directory / name).stat().st_size
        self.bytes = map_array(directory / name, np.uint8, (size,))
        self._offset = _view(self.offsets)
        self._data = _view(self.bytes)

    def get(self, row: int) -> bytes:
        return self._data[self._offset[row] : self._offset[row + 1]].tobytes()

    def text(self, row: int) -> str:
        return str(self._data[self._offset[row] : self._offset[row + 1]], "utf-8")

    def texts(self, rows: Seq[int]) -> list[str]:
        data, offset = self._data, self._offset
        return [str(data[offset[row] : offset[row + 1]], "utf-8") for row in rows]

    def gather(self, rows: RowArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
        """The strings of these rows back to back, and their lengths."""
        start = self.offsets[rows].astype(np.int64)
        length = self.offsets[rows + 1].astype(np.int64) - start
        ends = np.cumsum(length)
        total = int(ends[-1]) if len(ends) else 0
        take = np.arange(total) + np.repeat(start - (ends - length), length)
        return self.bytes[take].astype(np.uint8, copy=False), length.astype(np.uint64)


class Records:
    """The records of one sealed segment. Methods are thread-safe; arrays returned are fresh."""

    def __init__(self, directory: Path, row_count: int) -> None:
        self.row_count = row_count
        self._ids = Blobs(directory, "ids", row_count)
        self._metadata = Blobs(directory, "metadata", row_count)
        self.versions = map_array(directory / "versions", np.int64, (row_count,))
        self.hashes = map_array(directory / "hashes", np.uint64, (row_count,))
        self.hash_rows = map_array(directory / "hashes.rows", np.uint32, (row_count,))
        self._version = _view(self.versions)

    def id_of(self, row: int) -> str:
        return self._ids.text(row)

    def ids_of(self, rows: Seq[int]) -> list[str]:
        return self._ids.texts(rows)

    def version_of(self, row: int) -> int:
        version: int = self._version[row]
        return version

    def metadata_of(self, row: int) -> bytes:
        return self._metadata.get(row)

    def find(self, ids: Seq[str], hashes: HashArray) -> dict[int, list[int]]:
        """Rows that carry each id: position in `ids` -> rows (more than one when dead rows of the id are still here)."""
        if not self.row_count:
            return {}
        first = np.searchsorted(self.hashes, hashes, "left")
        hit = np.flatnonzero(self.hashes[np.minimum(first, self.row_count - 1)] == hashes)
        found: dict[int, list[int]] = {}
        for position in hit.tolist():
            at, wanted = int(first[position]), hashes[position]
            rows = []
            while at < self.row_count and self.hashes[at] == wanted:
                row = int(self.hash_rows[at])
                if self._ids.text(row) == ids[position]:  # two ids may share a hash
                    rows.append(row)
                at += 1
            if rows:
                found[position] = rows
        return found


class RecordWriter:
    """Writes the record files of one segment, block by block, in row order. A context manager: leaving it closes them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with contextlib.ExitStack() as opened:
            self._files = {
                name: opened.enter_context((directory / name).open("wb")) for name in ("ids", "metadata", "versions")
            }
            opened.pop_all()  # all are open: they are closed by `finish` or on leaving
        self._lengths: dict[str, list[npt.NDArray[np.uint64]]] = {"ids": [], "metadata": []}
        self._hashes: list[HashArray] = []

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # after `finish` nothing is left to write; before it the error is known
                file.close()

    def add(self, ids: Seq[str], hashes: HashArray, metadata: Seq[bytes], versions: npt.NDArray[np.int64]) -> None:
        encoded = [i.encode() for i in ids]
        for name, blobs in (("ids", encoded), ("metadata", metadata)):
            self._files[name].write(b"".join(blobs))
            self._lengths[name].append(np.fromiter(map(len, blobs), np.uint64, len(blobs)))
        self._files["versions"].write(versions.tobytes())
        self._hashes.append(hashes)

    def copy(self, source: Records, rows: RowArray) -> None:
        """Append rows of another segment, ascending."""
        by_row = np.empty(source.row_count, np.uint64)
        by_row[source.hash_rows] = source.hashes
        self._hashes.append(by_row[rows])
        for start in range(0, len(rows), _GATHER_ROWS):
            block = rows[start : start + _GATHER_ROWS]
            for name, blobs in (("ids", source._ids), ("metadata", source._metadata)):
                data, lengths = blobs.gather(block)
                self._files[name].write(data.data)
                self._lengths[name].append(lengths)
            self._files["versions"].write(np.ascontiguousarray(source.versions[block]).data)

    def finish(self) -> int:
        """Write the offsets and the id index; the number of rows."""
        for file in self._files.values():
            file.close()
        for name, parts in self._lengths.items():
            lengths = np.concatenate([np.zeros(1, np.uint64), *parts])
            write_array(self._directory / f"{name}.offsets", np.cumsum(lengths).astype(np.uint64))
        hashes = np.concatenate(self._hashes) if self._hashes else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        write_array(self._directory / "hashes", hashes[order])
        write_array(self._directory / "hashes.rows", order.astype(np.uint32))
        return len(hashes)
