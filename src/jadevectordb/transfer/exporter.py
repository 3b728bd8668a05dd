"""Export: a database, or what of it matches a filter, into a file, a page at a time.

JSON Lines, CSV and Parquet carry everything: importing them gives the same ids, metadata, and vectors to the last bit. .npy and
.fvecs carry vectors, and ids in a text file beside; metadata stays behind, and the report says how much of it there was.
What is written while the export runs may be in the file or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, assert_never

import msgspec
import numpy as np

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.transfer.ends import OnProgress, VectorSource
from jadevectordb.transfer.formats import Columns, FileKind, Format, ids_path, kind_of
from jadevectordb.transfer.output import complete_files
from jadevectordb.transfer.read_parquet import pyarrow
from jadevectordb.transfer.writers import (
    CsvWriter,
    FvecsWriter,
    GzipWriter,
    JsonLinesWriter,
    NpyWriter,
    ParquetWriter,
    Rows,
    Writer,
)


@dataclass(frozen=True, slots=True)
class ExportReport:
    rows: int
    bytes: int  # of all files written
    seconds: float
    files: list[Path]  # the file asked for last
    metadata_left_out: int  # rows whose metadata the format cannot carry


def export_file(
    source: VectorSource,
    path: str | Path,
    *,
    format: Format | str | None = None,
    columns: Columns | None = None,
    filter: Any = None,
    include_vectors: bool = True,
    page_rows: int = 1000,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write vectors to a file, which appears under its name, durable, when it is complete.

    format: None = by the name; `.gz` behind it compresses JSON Lines and CSV. columns: names to use in the file.
    filter: as for a search; None = everything. include_vectors=False: ids and metadata alone (not for arrays).
    Raises ALREADY_EXISTS unless overwrite, DISK_FULL, IO_ERROR, NOT_INSTALLED (Parquet without pyarrow), and what `source` raises.
    """
    started = time.perf_counter()
    path, columns = Path(path), columns or Columns()
    kind = kind_of(path, format, columns)
    has_metadata = kind.format in (Format.JSONL, Format.CSV, Format.PARQUET)
    if not has_metadata and not include_vectors:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"{kind.format} files hold vectors alone: include_vectors=False leaves nothing."
        )
    make = _writer(kind, columns, source.dimension, include_vectors)
    paths = [path] if has_metadata else [ids_path(path), path]
    rows = left_out = 0
    with complete_files(paths, overwrite) as files:
        writer = make(files)
        try:
            for page in _pages(source, filter, include_vectors, page_rows):
                writer.write(page)
                rows += len(page.ids)
                left_out += 0 if has_metadata else sum(metadata != b"{}" for metadata in page.metadata)
                if on_progress is not None:
                    on_progress(rows, sum(file.tell() for file in files), None)
            writer.finish()
        except BaseException:
            with suppress(Exception):
                writer.finish()
            raise
    size = sum(written.stat().st_size for written in paths)
    return ExportReport(rows, size, time.perf_counter() - started, paths, left_out)


def _pages(source: VectorSource, filter: Any, include_vectors: bool, page_rows: int) -> Iterator[Rows]:
    cursor: str | None = None
    while True:
        page = source.scroll(page_rows, cursor, filter)
        items = page.items
        vectors = None
        if include_vectors:
            vectors = np.array([item.vector for item in items], np.float32).reshape(len(items), source.dimension)
        if items:
            yield Rows(
                [item.id for item in items], vectors, [msgspec.json.encode(item.metadata or {}) for item in items]
            )
        cursor = page.cursor
        if cursor is None:
            return


def _writer(kind: FileKind, columns: Columns, dimension: int, with_vectors: bool) -> Callable[[list[BinaryIO]], Writer]:
    """A writer for files that are not open yet; what a format cannot do is raised here, before anything is touched."""
    match kind.format:
        case Format.JSONL:
            inner: Callable[[BinaryIO], Writer] = partial(JsonLinesWriter, columns=columns)
        case Format.CSV:
            inner = partial(CsvWriter, columns=columns, delimiter=kind.delimiter, with_vectors=with_vectors)
        case Format.PARQUET:
            pyarrow()
            inner = partial(ParquetWriter, columns=columns, dimension=dimension, with_vectors=with_vectors)
        case Format.NPY:
            return lambda files: NpyWriter(files[0], files[1], dimension)
        case Format.FVECS:
            return lambda files: FvecsWriter(files[0], files[1], dimension)
        case Format.BVECS | Format.IVECS:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT, f"{kind.format} files cannot hold float32 values: export to .fvecs."
            )
        case _:
            assert_never(kind.format)
    if kind.compressed:
        return lambda files: GzipWriter(files[0], inner)
    return lambda files: inner(files[0])
