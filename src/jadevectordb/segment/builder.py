"""Writes segment folders: from rows in memory (`write_rows`), or from other segments with dead rows left out (`build`).

Pure file work over immutable inputs, so it can run anywhere: in a thread, in a child process at low priority, on another
machine. A folder is complete when its manifest is there; everything is on disk (fsync) before that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.columns import build_columns
from jadevectordb.index.factory import build_index
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.text import TextConfig, build_text
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.index_parameters import IndexParameters
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows
from jadevectordb.model.schema import Schema
from jadevectordb.segment import manifest as manifests
from jadevectordb.segment.growing import GrowingView
from jadevectordb.segment.manifest import Manifest
from jadevectordb.segment.records import FILES as RECORD_FILES
from jadevectordb.segment.records import RecordWriter, map_array, write_array
from jadevectordb.segment.sealed import ORIGINALS, VECTORS, SealedSegment

_COPY_ROWS = 65_536
COPIED = frozenset({*RECORD_FILES, VECTORS, ORIGINALS})  # what a merge takes over from its sources


class BuildJob(msgspec.Struct, frozen=True):
    """Everything a build needs, as plain values, so that it can travel to another process.

    sources: folders in unit order, all of one shard and adjacent. alive: a bitmap of rows to keep for each, None = all.
    """

    target: str
    sources: list[str]
    alive: list[bytes | None]
    metric: Metric
    dimension: int
    index_kind: IndexKind
    index_parameters: IndexParameters
    schema: Schema
    text: TextConfig | None
    threads: int
    seed: int


def write_rows(directory: Path, view: GrowingView, unit: int) -> Manifest:
    """Write a frozen growing segment as a sealed one without index: rows and records only. Fast: it bounds how far the log reaches back."""
    directory.mkdir()
    segment, count = view.segment, view.row_count
    with RecordWriter(directory) as writer:
        writer.add(segment.ids[:count], segment.hashes[:count], segment.metadata[:count], segment.versions[:count])
        writer.finish()
    write_array(directory / VECTORS, segment.rows[:count])
    has_originals = segment.originals is not None
    if segment.originals is not None:
        write_array(directory / ORIGINALS, segment.originals[:count])
    return _finish(
        directory, Manifest(manifests.FORMAT_VERSION, unit, unit, count, has_originals, "", False, False, {})
    )


def build(job: BuildJob) -> Manifest:
    """Merge the sources' live rows into a new folder and build index, columns and text index over them.

    Raises CORRUPT when a source is damaged, DISK_FULL, OSError; what was written until then is the caller's to remove.
    """
    space = VectorSpace(job.metric, job.dimension)
    directory = Path(job.target)
    directory.mkdir()
    sources = [SealedSegment(Path(path), space, job.schema, job.text) for path in job.sources]
    for source in sources:
        for name in COPIED.intersection(source.manifest.files):
            source.verify_file(name)  # or the new checksums would vouch for bits that were flipped in the old files
    keep = [
        np.arange(s.row_count) if alive is None else bitmap.to_rows(np.frombuffer(alive, np.uint8))
        for s, alive in zip(sources, job.alive, strict=True)
    ]
    with RecordWriter(directory) as writer:
        for source, rows in zip(sources, keep, strict=True):
            writer.copy(source.records, rows)
        row_count = writer.finish()
    has_originals = any(s.manifest.has_originals for s in sources)
    _copy_rows(directory / VECTORS, [s.rows for s in sources], keep)
    if has_originals:
        _copy_rows(directory / ORIGINALS, [s.originals for s in sources], keep)
    block: Rows = map_array(directory / VECTORS, space.row_dtype, (row_count, space.row_width))
    build_index(
        job.index_kind,
        space,
        block,
        directory,
        threads=job.threads,
        seed=job.seed,
        parameters=job.index_parameters,
    )
    build_columns(_metadata(sources, keep), job.schema, directory)
    if job.text is not None:
        build_text(_metadata(sources, keep), job.text, directory)
    return _finish(
        directory,
        Manifest(
            manifests.FORMAT_VERSION,
            sources[0].manifest.first_unit,
            sources[-1].manifest.last_unit,
            row_count,
            has_originals,
            str(job.index_kind),
            True,
            job.text is not None,
            {},
            job.index_parameters,
        ),
    )


def _metadata(sources: list[SealedSegment], keep: list[bitmap.RowArray]) -> Iterator[bytes]:
    for source, rows in zip(sources, keep, strict=True):
        yield from map(source.metadata_of, rows.tolist())


def _copy_rows(path: Path, blocks: list[Rows], keep: list[bitmap.RowArray]) -> None:
    with path.open("wb") as file:
        for block, rows in zip(blocks, keep, strict=True):
            for start in range(0, len(rows), _COPY_ROWS):
                file.write(np.ascontiguousarray(block[rows[start : start + _COPY_ROWS]]).data)


def _finish(directory: Path, draft: Manifest) -> Manifest:
    """Force every file to disk, then write the manifest that names them."""
    files = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.name] = manifests.checksum_of(path)
    complete = msgspec.structs.replace(draft, files=files)
    with (directory / manifests.MANIFEST_NAME).open("wb") as file:
        _write_durably(file, manifests.seal_bytes(complete))
    sync_folder(directory)
    return complete


def _write_durably(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Return when the names in the folder are on the medium."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def build_encoded(payload: bytes) -> bytes:
    """`build` for the compute port: a BuildJob as msgpack in, the manifest as msgpack out."""
    return msgspec.msgpack.encode(build(msgspec.msgpack.decode(payload, type=BuildJob)))
