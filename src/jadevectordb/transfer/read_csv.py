"""CSV with a header: an id column, the vector in one column or in one column a value, metadata.

    id,vector,topic,year             the vector as "[0.1, 0.2]" or "0.1 0.2"
    id,v0,v1,topic,year              one column a value, numbered from 0, all of them

A column named `metadata` holds JSON objects. Without one, every other column is a metadata field, and its cells mean:
empty = the row has no such field; true, false (any case) = boolean; a number as JSON writes it = number (so 007, 1_000 and
integers beyond 64 bits stay strings); anything else = string. A cell in quotes is not different from one without.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jadevectordb.model.errors import ErrorCode
from jadevectordb.model.limits import TRANSFER_LINE_BYTES_MAX
from jadevectordb.transfer.formats import Columns, FileKind
from jadevectordb.transfer.lines import Line, LineFile, too_long
from jadevectordb.transfer.rows import Assembler, Position, RowBatch, UnfitError, unreadable

_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_SEPARATORS = re.compile(r"[\s,;]+")
_floats = msgspec.json.Decoder(list[float]).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class CsvReader:
    def __init__(self, path: Path, kind: FileKind, columns: Columns, dimension: int, batch_rows: int) -> None:
        # A limit of the csv module for the whole process, and by default below one large vector: raised, never lowered.
        if csv.field_size_limit() < TRANSFER_LINE_BYTES_MAX:
            csv.field_size_limit(TRANSFER_LINE_BYTES_MAX)
        self._path = path
        self._file = LineFile(path, kind.compressed)
        self._delimiter = kind.delimiter
        self._dimension = dimension
        self._batch_rows = batch_rows
        self.bytes_total = self._file.bytes_total
        header, self._first = self._read_header()
        self._header = header
        self._columns = columns
        self._id_at = self._find(columns.id)
        self._metadata_at = header.index(columns.metadata) if columns.metadata in header else None
        self._vector_at = header.index(columns.vector) if columns.vector in header else None
        self._values_at = [] if self._vector_at is not None else self._find_values(columns)
        used = {self._id_at, self._metadata_at, self._vector_at, *self._values_at}
        others = [(at, name) for at, name in enumerate(header) if at not in used]
        self._others = others if self._metadata_at is None else []
        self.ignored = [name for _, name in others] if self._metadata_at is not None else []

    def batches(self, start: Position) -> Iterator[RowBatch]:
        if start.offset == 0:
            start = self._first
        lines = _Decoded(self._file.lines(start), start)
        cells_of = csv.reader(lines, delimiter=self._delimiter, strict=True)
        gathered = Assembler(self._dimension, self._batch_rows, start)
        row, end = start.row, start
        while True:
            first_line = end.line + 1
            try:
                cells = next(cells_of, None)
                if cells is None:
                    break
                if cells:
                    row += 1
                    gathered.add(row, first_line, *self._read(cells))
            except UnfitError as error:
                if lines.failed:
                    row += 1
                    cells_of = csv.reader(lines, delimiter=self._delimiter, strict=True)
                    lines.failed = False
                gathered.reject(row, first_line, error)
            except csv.Error as error:
                row += 1
                gathered.reject(row, first_line, _not_csv(error, first_line, lines.number))
                cells_of = csv.reader(lines, delimiter=self._delimiter, strict=True)
            gathered.size_bytes += lines.offset - end.offset
            end = Position(row, lines.offset, lines.number)
            if gathered.full:
                yield gathered.batch(end, self._file.bytes_done)
                gathered = Assembler(self._dimension, self._batch_rows, end)
        if gathered.used:
            yield gathered.batch(end, self.bytes_total)

    def _read_header(self) -> tuple[list[str], Position]:
        lines = _Decoded(self._file.lines(Position()), Position())
        try:
            header = next(csv.reader(lines, delimiter=self._delimiter, strict=True), None)
        except (UnfitError, csv.Error) as error:
            raise unreadable(self._path, f"the header in line 1 cannot be read: {error}.") from error
        if not header:
            raise unreadable(self._path, "line 1 is empty: a CSV file begins with the names of its columns.")
        if len(set(header)) != len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise unreadable(
                self._path, f"the header names column '{twice}' more than once: rename one.", ErrorCode.INVALID_ARGUMENT
            )
        return header, Position(0, lines.offset, lines.number)

    def _find(self, name: str) -> int:
        if name not in self._header:
            raise unreadable(
                self._path,
                f"there is no column '{name}': the header has {', '.join(self._header[:20])}. Name the right one in columns.",
                ErrorCode.INVALID_ARGUMENT,
            )
        return self._header.index(name)

    def _find_values(self, columns: Columns) -> list[int]:
        prefix = columns.vector_prefix
        places = {name: at for at, name in enumerate(self._header)}
        found = [at for name, at in places.items() if re.fullmatch(re.escape(prefix) + r"\d+", name, re.ASCII)]
        wanted = [places.get(f"{prefix}{n}") for n in range(len(found))]
        if not found or None in wanted:
            raise unreadable(
                self._path,
                f"there is neither a column '{columns.vector}' nor columns {prefix}0, {prefix}1, ... without a gap: "
                "name the column of vectors in columns.",
                ErrorCode.INVALID_ARGUMENT,
            )
        if len(found) != self._dimension:
            raise unreadable(
                self._path,
                f"there are {len(found)} columns {prefix}0, {prefix}1, ..., the database has dimension {self._dimension}.",
                ErrorCode.DIMENSION_MISMATCH,
            )
        return [at for at in wanted if at is not None]

    def _read(self, cells: list[str]) -> tuple[str, list[float], bytes]:
        if len(cells) != len(self._header):
            raise UnfitError("", f"it has {len(cells)} cells, the header names {len(self._header)} columns")
        if self._vector_at is not None:
            vector = _vector(cells[self._vector_at], self._columns.vector)
        else:
            vector = [_value(cells[at], self._header[at]) for at in self._values_at]
        if self._metadata_at is not None:
            metadata = _metadata(cells[self._metadata_at], self._columns.metadata)
        else:
            metadata = msgspec.json.encode({name: infer(cells[at]) for at, name in self._others if cells[at]})
        return cells[self._id_at], vector, metadata


class _Decoded:
    """Lines as text for the csv module, one at a time; goes on after a line that was not fit."""

    def __init__(self, lines: Iterator[Line], start: Position) -> None:
        self._lines = lines
        self.number = start.line
        self.offset = start.offset
        self.failed = False

    def __iter__(self) -> _Decoded:
        return self

    def __next__(self) -> str:
        data, self.number, self.offset = next(self._lines)
        try:
            if data is None:
                raise too_long()
            return data.decode()
        except UnicodeDecodeError as error:
            self.failed = True
            raise UnfitError(
                "", f"it is not UTF-8 text ({error.reason} at byte {error.start}): save the file as UTF-8"
            ) from error
        except UnfitError:
            self.failed = True
            raise


def infer(cell: str) -> str | int | float | bool:
    """What a metadata cell means, which is not empty. See the top of the file."""
    if cell[0] in "-0123456789" and _NUMBER.fullmatch(cell):
        if _INTEGER.fullmatch(cell):
            number = int(cell) if len(cell) <= 20 else 1 << 63
            return number if -(1 << 63) <= number < 1 << 63 else cell
        return value if math.isfinite(value := float(cell)) else cell
    lower = cell.lower() if len(cell) <= 5 else ""
    return lower == "true" if lower in ("true", "false") else cell


def _vector(cell: str, name: str) -> list[float]:
    if cell.startswith("["):
        try:
            return _floats(cell)
        except msgspec.MsgspecError:
            cell = cell.strip("[] \t\r\n")  # numpy prints [0.1 0.2]
    return [_value(text, name) for text in _SEPARATORS.split(cell.strip()) if text]


def _value(text: str, name: str) -> float:
    try:
        if "_" in text:  # Python reads 1_000
            raise ValueError(text)
        return float(text)
    except ValueError:
        raise UnfitError(name, f"{text[:40]!r} is not a number", ErrorCode.INVALID_VECTOR) from None


def _metadata(cell: str, name: str) -> bytes:
    raw = cell.strip().encode()
    if raw in (b"", b"null"):
        return b"{}"
    try:
        _object(raw)
    except msgspec.MsgspecError as error:
        raise UnfitError(name, f"it is not a JSON object ({error})", ErrorCode.INVALID_METADATA) from error
    return raw


def _not_csv(error: csv.Error, first: int, last: int) -> UnfitError:
    lines = f"lines {first} to {last} belong to it and" if last > first else "it"
    return UnfitError("", f"{lines} cannot be read as CSV ({error}): look for a quote that is not closed")
