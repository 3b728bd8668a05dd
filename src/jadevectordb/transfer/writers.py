"""What each file format makes of a page of vectors. Writers get pages in order, then `finish`; the files are opened for them."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import msgspec
import numpy as np

from jadevectordb.transfer.ends import Vectors
from jadevectordb.transfer.formats import Columns
from jadevectordb.transfer.read_parquet import pyarrow

_GZIP_LEVEL = 4
_ROW_GROUP_BYTES = 16 << 20  # of vectors and metadata, gathered in memory
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Rows:
    """One page. vectors: None when they were not asked for; metadata: one JSON object a row."""

    ids: list[str]
    vectors: Vectors | None
    metadata: list[bytes]


class Writer(Protocol):
    def write(self, rows: Rows) -> None: ...

    def finish(self) -> None:
        """Complete the content and let go of the file, which its owner closes. Also called, for the latter, after a failure."""
        ...


class JsonLinesWriter:
    """{"id": ..., "vector": [...], "metadata": {...}} a line. Values are written so that float32 returns to the bit."""

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        self._file = file
        self._columns = columns

    def write(self, rows: Rows) -> None:
        vectors = None if rows.vectors is None else rows.vectors.tolist()
        lines = []
        for at, (name, metadata) in enumerate(zip(rows.ids, rows.metadata, strict=True)):
            record: dict[str, Any] = {self._columns.id: name}
            if vectors is not None:
                record[self._columns.vector] = vectors[at]
            record[self._columns.metadata] = msgspec.Raw(metadata)
            lines.append(_encode(record))
        self._file.write(b"\n".join(lines) + b"\n" if lines else b"")

    def finish(self) -> None:
        pass


class CsvWriter:
    """id, vector as a JSON array, metadata as a JSON object: cells of their own could not tell "7" from 7, nor hold a list."""

    def __init__(self, file: BinaryIO, columns: Columns, delimiter: str, with_vectors: bool) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._csv.writerow([columns.id, *([columns.vector] if with_vectors else []), columns.metadata])

    def write(self, rows: Rows) -> None:
        metadata = (raw.decode() for raw in rows.metadata)
        if rows.vectors is None:
            self._csv.writerows(zip(rows.ids, metadata, strict=True))
        else:
            vectors = (_encode(vector).decode() for vector in rows.vectors.tolist())
            self._csv.writerows(zip(rows.ids, vectors, metadata, strict=True))

    def finish(self) -> None:
        self._text.flush()
        self._text.detach()


class GzipWriter:
    """Another writer's file, compressed."""

    def __init__(self, file: BinaryIO, inner: Callable[[BinaryIO], Writer]) -> None:
        self._gzip = gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)
        self._inner = inner(cast(BinaryIO, self._gzip))

    def write(self, rows: Rows) -> None:
        self._inner.write(rows)

    def finish(self) -> None:
        self._inner.finish()
        self._gzip.close()


class ParquetWriter:
    """id: string, vector: fixed_size_list<float>[dimension], metadata: string, a JSON object."""

    def __init__(self, file: BinaryIO, columns: Columns, dimension: int, with_vectors: bool) -> None:
        self._arrow, parquet, _ = pyarrow()
        fields = [(columns.id, self._arrow.string()), (columns.metadata, self._arrow.string())]
        if with_vectors:
            fields.insert(1, (columns.vector, self._arrow.list_(self._arrow.float32(), dimension)))
        self._dimension = dimension
        self._schema = self._arrow.schema(fields)
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd", use_dictionary=False)
        self._gathered: list[Any] = []
        self._gathered_bytes = 0

    def write(self, rows: Rows) -> None:
        arrow = self._arrow
        arrays = [
            arrow.array(rows.ids, arrow.string()),
            arrow.array([raw.decode() for raw in rows.metadata], arrow.string()),
        ]
        if rows.vectors is not None:
            values = arrow.array(rows.vectors.reshape(-1), arrow.float32())
            arrays.insert(1, arrow.FixedSizeListArray.from_arrays(values, self._dimension))
        self._gathered.append(arrow.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._gathered_bytes += sum(array.nbytes for array in arrays)
        if self._gathered_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._gathered:
            self._writer.write_table(self._arrow.Table.from_batches(self._gathered, self._schema))
        self._gathered, self._gathered_bytes = [], 0


class NpyWriter:
    """float32 (n, dimension), and the ids in a file beside."""

    def __init__(self, ids: BinaryIO, file: BinaryIO, dimension: int) -> None:
        self._ids = ids
        self._file = file
        self._dimension = dimension
        self._count = 0
        self._write_header()

    def write(self, rows: Rows) -> None:
        assert rows.vectors is not None
        self._file.write(np.ascontiguousarray(rows.vectors, "<f4").data)
        self._ids.write("".join(name + "\n" for name in rows.ids).encode())
        self._count += len(rows.ids)

    def finish(self) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._write_header()  # numpy leaves room for the number of rows to grow
        self._file.seek(end)

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._count, self._dimension)}
        np.lib.format.write_array_header_1_0(self._file, header)


class FvecsWriter:
    """int32 dimension and float32 values a row, and the ids in a file beside."""

    def __init__(self, ids: BinaryIO, file: BinaryIO, dimension: int) -> None:
        self._ids = ids
        self._file = file
        self._row = np.dtype([("dimension", "<i4"), ("values", "<f4", (dimension,))])
        self._dimension = dimension

    def write(self, rows: Rows) -> None:
        assert rows.vectors is not None
        packed = np.empty(len(rows.ids), self._row)
        packed["dimension"] = self._dimension
        packed["values"] = rows.vectors
        self._file.write(packed.data)
        self._ids.write("".join(name + "\n" for name in rows.ids).encode())

    def finish(self) -> None:
        pass
