"""Parquet: an id column, a column of lists, metadata. Needs pyarrow, an optional extra.

The id is a string or an integer; the vector a list, or a list of fixed size, of numbers. A column named `metadata` holds
objects, as JSON text or as structs. Without one every other column is a metadata field, nested ones included, and null means
that the row has no such field. Dates become RFC 3339 text, decimals numbers, NaN is no value; anything else that JSON does not
have makes the row a bad one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import TRANSFER_BATCH_BYTES_MAX
from jadevectordb.transfer.formats import Columns
from jadevectordb.transfer.rows import (
    Assembler,
    Position,
    RowBatch,
    UnfitError,
    open_failed,
    unreadable,
    wrong_dimension,
)

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


def pyarrow() -> tuple[Any, Any, Any]:
    """The modules pyarrow, pyarrow.parquet and pyarrow.compute. Raises NOT_INSTALLED."""
    try:
        import pyarrow
        from pyarrow import compute, parquet
    except ImportError as error:
        raise JadeError(
            ErrorCode.NOT_INSTALLED, 'Parquet files need pyarrow: pip install "jadevectordb[parquet]".'
        ) from error
    return pyarrow, parquet, compute


class ParquetReader:
    def __init__(self, path: Path, columns: Columns, dimension: int, batch_rows: int) -> None:
        self._arrow, self._parquet, self._compute = pyarrow()
        self._path = path
        self._columns = columns
        self._dimension = dimension
        self._batch_rows = max(1, min(batch_rows, TRANSFER_BATCH_BYTES_MAX // (8 * dimension)))
        try:
            self.bytes_total = path.stat().st_size
            with self._parquet.ParquetFile(path) as file:
                metadata, schema = file.metadata, file.schema_arrow
        except OSError as error:
            raise open_failed(path, error) from error
        except self._arrow.ArrowException as error:
            raise self._damaged(error) from error
        self._group_rows = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        names = schema.names
        for wanted in (columns.id, columns.vector):
            if names.count(wanted) != 1:
                raise unreadable(
                    path,
                    f"there {'is no column' if wanted not in names else 'are several columns'} '{wanted}': it has "
                    f"{', '.join(names[:20])}. Name the right one in columns.",
                    ErrorCode.INVALID_ARGUMENT,
                )
        others = [name for name in names if name not in (columns.id, columns.vector, columns.metadata)]
        has_metadata = columns.metadata in names
        self._fields = [] if has_metadata else others
        self.ignored = others if has_metadata else []
        self._read_columns = [columns.id, columns.vector, *([columns.metadata] if has_metadata else others)]
        self._check_types(schema)

    def batches(self, start: Position) -> Iterator[RowBatch]:
        # Each row group by itself, so that cuts do not depend on where reading began; without pre-buffering, which would hold
        # a whole one.
        passed = 0
        try:
            with self._parquet.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20) as file:
                for group, group_rows in enumerate(self._group_rows):
                    if passed + group_rows <= start.row:
                        passed += group_rows
                        continue
                    for block in file.iter_batches(
                        self._batch_rows, row_groups=[group], columns=self._read_columns, use_threads=False
                    ):
                        passed += block.num_rows
                        if passed > start.row:
                            end = Position(passed)
                            yield self._batch(block.slice(max(0, block.num_rows - (passed - start.row))), start, end)
                            start = end
        except OSError as error:
            raise open_failed(self._path, error) from error
        except self._arrow.ArrowException as error:
            raise self._damaged(error) from error

    def _batch(self, block: Any, start: Position, end: Position) -> RowBatch:
        gathered = Assembler(self._dimension, block.num_rows, start)
        names = block.column(block.schema.get_field_index(self._columns.id)).to_pylist()
        vectors, lengths = self._vectors(block.column(block.schema.get_field_index(self._columns.vector)))
        found = iter(vectors)
        for at, (name, length, metadata) in enumerate(zip(names, lengths.tolist(), self._metadata(block), strict=True)):
            row = start.row + at + 1
            try:
                vector = next(found) if length == self._dimension else None
                if name is None:
                    raise UnfitError(self._columns.id, "it is null: every row needs an id", ErrorCode.INVALID_ID)
                if vector is None:
                    raise wrong_dimension(length, self._dimension)
                gathered.add(row, 0, str(name), vector, _encoded(metadata, self._columns.metadata))
            except UnfitError as error:
                gathered.reject(row, 0, error)
        done = sum(self._group_rows)
        return gathered.batch(end, self.bytes_total * end.row // max(1, done))

    def _vectors(self, column: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The lists of the right length as (m, dimension), and the length of every list, null as 0. A null value is NaN."""
        column = getattr(column, "storage", column)  # of a tensor
        lengths: npt.NDArray[np.int64] = (
            self._compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        )
        fit = lengths == self._dimension
        if not fit.all():
            column = column.filter(self._arrow.array(fit))
        with np.errstate(over="ignore"):
            values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        return values.reshape(-1, self._dimension), lengths

    def _metadata(self, block: Any) -> list[Any]:
        """A row's metadata: JSON text or an object."""
        if self._columns.metadata in self._read_columns:
            values: list[Any] = block.column(block.schema.get_field_index(self._columns.metadata)).to_pylist()
            return [dict(value) if isinstance(value, list) else value for value in values]  # a map comes as pairs
        if not self._fields:
            return [None] * block.num_rows
        rows: list[dict[str, Any]] = block.select(self._fields).to_pylist()
        return rows

    def _check_types(self, schema: Any) -> None:
        types = self._arrow.types
        id_type = schema.field(self._columns.id).type
        if types.is_dictionary(id_type):
            id_type = id_type.value_type
        if not (types.is_string(id_type) or types.is_large_string(id_type) or types.is_integer(id_type)):
            raise unreadable(
                self._path,
                f"column '{self._columns.id}' is {id_type}: ids are strings or integers.",
                ErrorCode.INVALID_ARGUMENT,
            )
        vector_type = schema.field(self._columns.vector).type
        vector_type = getattr(vector_type, "storage_type", vector_type)  # of a tensor
        lists = types.is_list(vector_type) or types.is_large_list(vector_type) or types.is_fixed_size_list(vector_type)
        if not lists or not (types.is_floating(vector_type.value_type) or types.is_integer(vector_type.value_type)):
            raise unreadable(
                self._path,
                f"column '{self._columns.vector}' is {vector_type}: vectors are lists of numbers.",
                ErrorCode.INVALID_ARGUMENT,
            )

    def _damaged(self, error: Exception) -> JadeError:
        return unreadable(
            self._path, f"it is not a whole Parquet file ({str(error).splitlines()[0]}): get the file anew."
        )


def _encoded(metadata: Any, field: str) -> bytes:
    try:
        if metadata is None:
            return b"{}"
        if isinstance(metadata, str):
            _object(metadata)
            return metadata.encode()
        return _encode({key: value for key, value in metadata.items() if _is_present(value)})
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise UnfitError(field, f"it is not a JSON object ({error})", ErrorCode.INVALID_METADATA) from error


def _is_present(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))
