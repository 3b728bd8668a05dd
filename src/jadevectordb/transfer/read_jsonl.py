"""JSON Lines: an object a line with id, vector and metadata.

    {"id": "a", "vector": [0.1, 0.2], "metadata": {"topic": "x"}}

The id is a string, or an integer, which becomes one. A line without the metadata key has all its other keys as metadata.
Blank lines are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jadevectordb.model.errors import ErrorCode
from jadevectordb.transfer.formats import Columns, FileKind
from jadevectordb.transfer.lines import LineFile, too_long
from jadevectordb.transfer.rows import Assembler, Position, RowBatch, UnfitError


class JsonLinesReader:
    def __init__(self, path: Path, kind: FileKind, columns: Columns, dimension: int, batch_rows: int) -> None:
        self._file = LineFile(path, kind.compressed)
        self._columns = columns
        self._dimension = dimension
        self._batch_rows = batch_rows
        row_type = msgspec.defstruct(
            "JsonLine",
            [("id", str | int), ("vector", list[float]), ("metadata", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)],
            rename={"id": columns.id, "vector": columns.vector, "metadata": columns.metadata},
            gc=False,
        )
        self._decode = msgspec.json.Decoder(row_type).decode
        self.bytes_total = self._file.bytes_total
        self.ignored: list[str] = []

    def batches(self, start: Position) -> Iterator[RowBatch]:
        row = start.row
        gathered = Assembler(self._dimension, self._batch_rows, start)
        end = start
        for data, number, offset in self._file.lines(start):
            if data is None or data.strip():
                row += 1
                try:
                    if data is None:
                        raise too_long()
                    gathered.add(row, number, *self._read(data, row))
                except UnfitError as error:
                    gathered.reject(row, number, error)
                gathered.size_bytes += offset - end.offset
            end = Position(row, offset, number)
            if gathered.full:
                yield gathered.batch(end, self._file.bytes_done)
                gathered = Assembler(self._dimension, self._batch_rows, end)
        if gathered.used:
            yield gathered.batch(end, self.bytes_total)

    def _read(self, data: bytes, row: int) -> tuple[str, list[float], bytes]:
        try:
            record: Any = self._decode(data)
        except msgspec.ValidationError as error:
            raise UnfitError("", f"{error}: expected {self._shape()}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnfitError("", f"it is not JSON ({error}): expected {self._shape()}") from error
        metadata = record.metadata
        if metadata is msgspec.UNSET:
            return str(record.id), record.vector, self._others(data)
        raw = bytes(metadata)
        if row == 1:
            self._note_ignored(data)
        if raw == b"null":
            return str(record.id), record.vector, b"{}"
        if not raw.startswith(b"{"):
            raise UnfitError(
                self._columns.metadata, "it is not an object: use {...} or null", ErrorCode.INVALID_METADATA
            )
        return str(record.id), record.vector, raw

    def _others(self, data: bytes) -> bytes:
        record = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        del record[self._columns.id], record[self._columns.vector]
        return msgspec.json.encode(record)

    def _note_ignored(self, data: bytes) -> None:
        """The first line stands for all: looking at the keys of every line would double the work."""
        used = (self._columns.id, self._columns.vector, self._columns.metadata)
        self.ignored = [key for key in msgspec.json.decode(data, type=dict[str, msgspec.Raw]) if key not in used]

    def _shape(self) -> str:
        return (
            f'{{"{self._columns.id}": "...", "{self._columns.vector}": [numbers], "{self._columns.metadata}": {{...}}}}'
        )
