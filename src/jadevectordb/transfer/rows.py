"""What readers hand on: batches of checked rows, and rows that are not fit, with the place and the reason."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ID_LENGTH_MAX, METADATA_BYTES_MAX, TRANSFER_BATCH_BYTES_MAX
from jadevectordb.transfer.ends import Vectors

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Position(msgspec.Struct, frozen=True):
    """A place in a file between two rows, from which reading can go on."""

    row: int = 0  # rows before it, bad ones included
    offset: int = 0  # bytes before it (of the unpacked text); 0 in formats that are addressed by row
    line: int = 0  # lines before it


class BadRow(msgspec.Struct, frozen=True):
    """A row that was not imported."""

    row: int  # from 1; blank lines and a header are not rows
    line: int  # from 1; 0 in formats without lines
    field: str  # column or key; "" = the row as a whole
    problem: str  # what is wrong with it, and what would be right
    code: str = ErrorCode.INVALID_ARGUMENT

    @property
    def place(self) -> str:
        where = f"line {self.line}" if self.line else f"row {self.row}"
        return f"{where}, {self.field!r}" if self.field else where

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class UnfitError(Exception):
    """Raised inside of a reader for one row; becomes a `BadRow`."""

    def __init__(self, field: str, problem: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem
        self.code = code


@dataclass(slots=True)
class RowBatch:
    """Some rows of a file, in its order. All lists are as long as vectors; owned by whoever receives the batch."""

    ids: list[str]
    vectors: Vectors
    metadata: list[bytes]  # JSON objects
    rows: list[int]  # each one's number in the file, from 1
    lines: list[int]  # 0 in formats without lines
    bad: list[BadRow]
    start: Position
    end: Position
    bytes_done: int


class Reader(Protocol):
    """Reads one file as batches, never more of it than one batch (Parquet: and a page of each column) at a time."""

    bytes_total: int
    ignored: list[str]  # columns that no vector gets anything of

    def batches(self, start: Position) -> Iterator[RowBatch]:
        """The rest of the file. Cuts are decided by the file and the options alone, so a second reading makes the same batches.

        Raises JadeError for what makes the rest unreadable.
        """
        ...


@dataclass(slots=True)
class Assembler:
    """Gathers rows of a known dimension into a batch, leaving out those that are not fit."""

    dimension: int
    rows_max: int
    start: Position
    ids: list[str] = field(default_factory=list)
    vectors: list[Any] = field(default_factory=list)  # lists of floats, or float arrays (dimension,)
    metadata: list[bytes] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, row: int, line: int, name: str, vector: Any, metadata: bytes) -> None:
        """Raises UnfitError."""
        check_id(name)
        if len(vector) != self.dimension:
            raise wrong_dimension(len(vector), self.dimension)
        check_metadata(metadata)
        self.ids.append(name)
        self.vectors.append(vector)
        self.metadata.append(metadata)
        self.rows.append(row)
        self.lines.append(line)
        self.size_bytes += len(metadata) + 4 * self.dimension

    def reject(self, row: int, line: int, error: UnfitError) -> None:
        self.bad.append(BadRow(row, line, error.field, error.problem, error.code))

    @property
    def full(self) -> bool:
        return len(self.ids) + len(self.bad) >= self.rows_max or self.size_bytes >= TRANSFER_BATCH_BYTES_MAX

    @property
    def used(self) -> bool:
        return bool(self.ids or self.bad)

    def batch(self, end: Position, bytes_done: int) -> RowBatch:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            vectors = np.array(self.vectors, np.float32).reshape(len(self.ids), self.dimension)
        made = RowBatch(self.ids, vectors, self.metadata, self.rows, self.lines, self.bad, self.start, end, bytes_done)
        reject_not_finite(made)
        return made


def reject_not_finite(batch: RowBatch) -> None:
    """Move rows with NaN, infinity, or a number that float32 cannot hold to the bad ones."""
    finite = np.isfinite(batch.vectors).all(axis=1)
    if finite.all():
        return
    for at in np.flatnonzero(~finite).tolist():
        place = int(np.flatnonzero(~np.isfinite(batch.vectors[at]))[0])
        problem = f"its value {place} is not a finite 32-bit number: correct or leave out this row"
        batch.bad.append(BadRow(batch.rows[at], batch.lines[at], "vector", problem, ErrorCode.INVALID_VECTOR))
    batch.bad.sort(key=lambda bad: bad.row)
    keep(batch, np.flatnonzero(finite).tolist())


def keep(batch: RowBatch, positions: list[int]) -> None:
    """Leave only these rows in the batch. positions: ascending."""
    batch.ids = [batch.ids[at] for at in positions]
    batch.metadata = [batch.metadata[at] for at in positions]
    batch.rows = [batch.rows[at] for at in positions]
    batch.lines = [batch.lines[at] for at in positions]
    batch.vectors = batch.vectors[positions]


def check_id(name: str) -> None:
    if not 1 <= len(name) <= ID_LENGTH_MAX or _CONTROL.search(name):
        raise UnfitError(
            "id",
            f"the id {name[:60]!r} is not allowed: use 1 to {ID_LENGTH_MAX} characters without control characters",
            ErrorCode.INVALID_ID,
        )


def check_metadata(metadata: bytes) -> None:
    if len(metadata) > METADATA_BYTES_MAX:
        raise UnfitError(
            "metadata",
            f"it has {len(metadata)} bytes as JSON, at most {METADATA_BYTES_MAX} are allowed",
            ErrorCode.INVALID_METADATA,
        )


def wrong_dimension(actual: int, expected: int) -> UnfitError:
    return UnfitError(
        "vector",
        f"it has {actual} values, the database has dimension {expected}: correct or leave out this row",
        ErrorCode.DIMENSION_MISMATCH,
    )


def unreadable(path: Path, problem: str, code: ErrorCode = ErrorCode.CORRUPT) -> JadeError:
    """The error for a file that cannot be read on, whatever on_error says."""
    return JadeError(code, f"{path}: {problem}", details={"file": str(path)})


def open_failed(path: Path, error: OSError) -> JadeError:
    code = ErrorCode.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorCode.IO_ERROR
    return JadeError(code, f"{path} could not be read: {error.strerror or error}.", details={"file": str(path)})


def write_failed(path: Path, error: OSError) -> JadeError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return JadeError(
        ErrorCode.DISK_FULL if full else ErrorCode.IO_ERROR,
        f"{path} could not be written: {error.strerror or error}."
        + (" Free some space, then try again." if full else ""),
        details={"file": str(path)},
    )
