"""Files of vectors and nothing else: .npy, and the .fvecs, .bvecs and .ivecs of the ANN benchmarks.

They carry no ids and no metadata. Ids come from a text file beside, an id a line (`formats.ids_path`), or are the row numbers
"0", "1", "2", ...; metadata is empty. Values of any number type become float32. Rows are read into a buffer instead of being
mapped: mapped pages would count as the process's memory until the system wants them back.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode
from jadevectordb.model.limits import DIMENSION_MAX, TRANSFER_BATCH_BYTES_MAX
from jadevectordb.transfer.ends import Vectors
from jadevectordb.transfer.formats import Format, ids_path
from jadevectordb.transfer.lines import LineFile
from jadevectordb.transfer.rows import (
    BadRow,
    Position,
    RowBatch,
    UnfitError,
    check_id,
    keep,
    open_failed,
    reject_not_finite,
    unreadable,
)

_VALUE_DTYPES = {Format.FVECS: "<f4", Format.BVECS: "|u1", Format.IVECS: "<i4"}


class Block(Protocol):
    """A file of rows of one length."""

    row_count: int
    dimension: int
    row_bytes: int
    bytes_total: int

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        """Rows start..start+count-1, all of them in the file: (count, dimension), any number type."""
        ...


class ArrayReader:
    """Batches out of a block of rows and its ids."""

    def __init__(self, path: Path, block: Block, ids: Path | None, dimension: int, batch_rows: int) -> None:
        if block.dimension != dimension:
            raise unreadable(
                path,
                f"its vectors have {block.dimension} values, the database has dimension {dimension}.",
                ErrorCode.DIMENSION_MISMATCH,
            )
        self._path = path
        self._block = block
        self._batch_rows = max(1, min(batch_rows, TRANSFER_BATCH_BYTES_MAX // (8 * dimension)))
        beside = ids_path(path)
        self._ids = ids if ids is not None else beside if beside.exists() else None
        if self._ids is not None:
            _check_count(self._ids, path, block.row_count)
        self.bytes_total = block.bytes_total
        self.ignored: list[str] = []

    def batches(self, start: Position) -> Iterator[RowBatch]:
        names = self._names(start)
        while start.row < self._block.row_count:
            first = start.row
            count = min(self._batch_rows, self._block.row_count - first)
            with np.errstate(over="ignore"):  # infinite then, and refused
                vectors: Vectors = np.ascontiguousarray(self._block.read(first, count), np.float32)
            named = list(islice(names, count))
            end = Position(first + count, named[-1][1], first + count)
            rows = list(range(first + 1, first + count + 1))
            bytes_done = self.bytes_total - (self._block.row_count - end.row) * self._block.row_bytes
            batch = RowBatch(
                [n for n, _ in named], vectors, [b"{}"] * count, rows, [0] * count, [], start, end, bytes_done
            )
            _reject_ids(batch)
            reject_not_finite(batch)
            yield batch
            start = end

    def _names(self, start: Position) -> Iterator[tuple[str, int]]:
        """Ids from the row at start, with the offset behind each in the file of ids."""
        if self._ids is None:
            yield from ((str(row), 0) for row in range(start.row, self._block.row_count))
            return
        for data, number, offset in LineFile(self._ids, False).lines(start):
            try:
                yield (data or b"").rstrip(b"\r\n").decode(), offset
            except UnicodeDecodeError as error:
                raise unreadable(self._ids, f"line {number} is not UTF-8 text: save the file as UTF-8.") from error


def _reject_ids(batch: RowBatch) -> None:
    fit = []
    for at, name in enumerate(batch.ids):
        try:
            check_id(name)
            fit.append(at)
        except UnfitError as error:
            batch.bad.append(BadRow(batch.rows[at], batch.rows[at], error.field, error.problem, error.code))
    if len(fit) < len(batch.ids):
        keep(batch, fit)


def _check_count(ids: Path, vectors: Path, rows: int) -> None:
    count, last = 0, b"\n"
    try:
        with ids.open("rb") as file:
            while chunk := file.read(1 << 20):
                count += chunk.count(b"\n")
                last = chunk[-1:]
    except OSError as error:
        raise open_failed(ids, error) from error
    count += last != b"\n"
    if count != rows:
        raise unreadable(
            ids, f"it has {count} lines, one an id, but {vectors.name} has {rows} vectors.", ErrorCode.INVALID_ARGUMENT
        )


class NpyBlock:
    """One two-dimensional numpy array of numbers, in C or Fortran order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            self.bytes_total = path.stat().st_size
        except OSError as error:
            raise open_failed(path, error) from error
        except (ValueError, EOFError) as error:
            raise unreadable(path, f"it is not a whole .npy file of numbers ({error}).") from error
        if not isinstance(mapped, np.memmap) or mapped.ndim != 2 or mapped.dtype.kind not in "fiub":
            what = (
                f"{mapped.dtype} {mapped.shape}" if isinstance(mapped, np.ndarray) else "an archive of several arrays"
            )
            raise unreadable(
                path, f"it holds {what}: a two-dimensional array of numbers is needed.", ErrorCode.INVALID_ARGUMENT
            )
        self.row_count, self.dimension = mapped.shape
        self.row_bytes = self.dimension * mapped.dtype.itemsize
        self._dtype = mapped.dtype
        self._offset = mapped.offset
        self._in_rows = mapped.flags.c_contiguous

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        if not self._in_rows:
            # A row's values lie far apart: mapped anew for each batch, so that pages are given back in between.
            shape = (self.row_count, self.dimension)
            return np.array(np.memmap(self._path, self._dtype, "r", self._offset, shape, "F")[start : start + count])
        values = _read_values(self._path, self._dtype, self._offset + start * self.row_bytes, count * self.dimension)
        return values.reshape(count, self.dimension)


class VecsBlock:
    """Rows of an int32 dimension followed by the values. dimension: what is expected, and what an empty file has."""

    def __init__(self, path: Path, format: Format, dimension: int) -> None:
        self._path = path
        self._dtype = np.dtype(_VALUE_DTYPES[format])
        try:
            self.bytes_total = path.stat().st_size
            with path.open("rb") as file:
                first = file.read(4)
        except OSError as error:
            raise open_failed(path, error) from error
        self.dimension = int.from_bytes(first, "little", signed=True) if first else dimension
        if not 1 <= self.dimension <= DIMENSION_MAX:
            raise unreadable(path, f"its first vector says to have {self.dimension} values: this is no .{format} file.")
        self.row_bytes = 4 + self.dimension * self._dtype.itemsize
        self.row_count, rest = divmod(self.bytes_total, self.row_bytes)
        if rest:
            raise unreadable(
                self._path,
                f"it is cut short: {self.row_count} vectors of {self.dimension} values are whole, then {rest} of "
                f"{self.row_bytes} bytes follow. Get the file anew.",
            )

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        raw = _read_values(self._path, np.dtype(np.uint8), start * self.row_bytes, count * self.row_bytes)
        rows = raw.reshape(count, self.row_bytes)
        dimensions = np.ascontiguousarray(rows[:, :4]).view("<i4")[:, 0]
        wrong = np.flatnonzero(dimensions != self.dimension)
        if len(wrong):
            raise unreadable(
                self._path,
                f"row {start + int(wrong[0]) + 1} says to have {int(dimensions[wrong[0]])} values, the first has "
                f"{self.dimension}: the file is damaged, or its vectors are of different lengths.",
            )
        return np.ascontiguousarray(rows[:, 4:]).view(self._dtype)


def _read_values(path: Path, dtype: np.dtype[Any], offset: int, count: int) -> npt.NDArray[Any]:
    try:
        values = np.fromfile(path, dtype, count, offset=offset)
    except OSError as error:
        raise open_failed(path, error) from error
    if len(values) != count:
        raise unreadable(path, "it became shorter while it was read.")
    return values
