"""Columns from a stream of metadata: the second half, from gathered values to sorted arrays in files.

Runs where a segment is built, beside searching. What it gathers stays in memory at 8 to 12 bytes a value, distinct strings up to a bound
(`column_runs`); what is made of that is made one path at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.bitmap import Bitmap
from jadevectordb.index.column_file import (
    DATA_NAME,
    DIRECTORY_NAME,
    FORMAT_VERSION,
    ArrayReader,
    ArrayWriter,
    ColumnRef,
    Directory,
    NumbersRef,
    RowSetRef,
    StringsRef,
    write_directory,
)
from jadevectordb.index.column_gather import Gathered, Gatherer, RowSet, is_cut
from jadevectordb.index.postings import write_postings
from jadevectordb.index.selection import SPARSE_SHARE
from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.instants import parse_instant
from jadevectordb.model.schema import Schema

_BLOCK_ROWS: Final = 4096
_BLOCK_BYTES: Final = 4 << 20
_DATE_BYTES_MAX: Final = 40  # no date is longer


def build_columns(metadata: Iterable[bytes], schema: Schema, directory: Path) -> list[str]:
    """Write the columns of a block of rows into a folder; the names of the files.

    metadata: one JSON object a row, in row order, read once. Does not sync: the segment's builder does, for all of its files.
    Raises DISK_FULL, READ_ONLY or IO_ERROR, and then what it left in the folder is not a set of columns.
    """
    try:
        gatherer = _gather(metadata, schema, directory)
        with (directory / DATA_NAME).open("wb") as stream:
            written = _write(gatherer, schema, ArrayWriter(stream))
        write_directory(written, directory / DIRECTORY_NAME)
    except OSError as error:
        raise disk_error(error, "write filter columns", directory) from error
    return [DATA_NAME, DIRECTORY_NAME]


def columns_in_memory(metadata: Iterable[bytes], schema: Schema) -> tuple[Directory, ArrayReader]:
    """The same columns without files, for rows that are not sealed yet."""
    stream = io.BytesIO()
    written = _write(_gather(metadata, schema, None), schema, ArrayWriter(stream))
    return written, ArrayReader(stream.getvalue(), "the columns in memory")


def _gather(metadata: Iterable[bytes], schema: Schema, folder: Path | None) -> Gatherer:
    gatherer = Gatherer(schema, folder)
    block: list[bytes] = []
    size = 0
    for row in metadata:
        block.append(row)
        size += len(row)
        if len(block) == _BLOCK_ROWS or size > _BLOCK_BYTES:
            gatherer.add_block(block)
            block, size = [], 0
    if block:
        gatherer.add_block(block)
    return gatherer


def _write(gatherer: Gatherer, schema: Schema, to: ArrayWriter) -> Directory:
    n = gatherer.row_count
    columns = {}
    while gatherer.paths:  # what is written is given back at once
        path = next(iter(gatherer.paths))
        columns[path] = _write_column(gatherer.paths.pop(path), n, to)
    overflow = _write_set(gatherer.overflow.bits(n), n, to)
    return Directory(FORMAT_VERSION, n, to.position, sorted(schema.dates), columns, overflow)


def _write_column(column: Gathered, n: int, to: ArrayWriter) -> ColumnRef:
    numbers = _write_numbers(column, n, to)
    strings = _write_strings(column, n, to)
    mixed = bitmap.both(column.arrays.bits(n), column.loose.bits(n)) if column.arrays else None

    def write(rows: RowSet) -> RowSetRef:
        return _write_set(rows.bits(n), n, to) if rows else RowSetRef()

    return ColumnRef(
        present=write(column.present),
        null=write(column.null),
        true=write(column.true),
        false=write(column.false),
        arrays=write(column.arrays),
        mixed=RowSetRef() if mixed is None else _write_set(mixed, n, to),
        long_strings=write(column.long_strings),
        unsure_numbers=write(column.unsure_numbers),
        unsure_strings=write(column.unsure_strings),
        numbers=numbers,
        strings=strings,
    )


def _write_set(bits: Bitmap, n: int, to: ArrayWriter) -> RowSetRef:
    count = bitmap.count(bits)
    if count in (0, n):
        return RowSetRef(count)
    if count * SPARSE_SHARE <= n:
        return RowSetRef(count, rows=to.add(bitmap.to_rows(bits).astype(np.uint32)))
    return RowSetRef(count, bits=to.add(bits))


def _write_numbers(column: Gathered, n: int, to: ArrayWriter) -> NumbersRef | None:
    values, rows = column.all_numbers()
    if len(values) == 0:
        return None
    distinct, keys = np.unique(values, return_inverse=True)
    return NumbersRef(to.add(distinct), write_postings(keys, rows, len(distinct), n, to))


def _write_strings(column: Gathered, n: int, to: ArrayWriter) -> StringsRef | None:
    if not column.strings:
        return None
    chunks, keys, rows = column.strings.finish()
    blob = bytearray()
    lengths = [np.zeros(1, np.int64)]
    dated: list[tuple[int, int]] = []
    count = 0
    for terms in chunks:
        blob += b"".join(terms)
        lengths.append(np.fromiter(map(len, terms), np.int64, len(terms)))
        dated += _dated(terms, count)
        count += len(terms)
    dated.sort()
    return StringsRef(
        blob=to.add(np.frombuffer(blob, np.uint8)),
        offsets=to.add(np.cumsum(np.concatenate(lengths))),
        postings=write_postings(keys, rows, count, n, to),
        instants=to.add(np.array([instant for instant, _ in dated], np.int64)) if dated else None,
        instant_terms=to.add(np.array([term for _, term in dated], np.uint32)) if dated else None,
    )


def _dated(terms: list[bytes], first: int) -> list[tuple[int, int]]:
    """The instants of those terms that are dates, with the number of the term; that of the first is given."""
    return [
        (instant, number)
        for number, term in enumerate(terms, start=first)
        if term[4:5] == b"-" and len(term) <= _DATE_BYTES_MAX and not is_cut(term)
        if (instant := parse_instant(term.decode())) is not None
    ]
