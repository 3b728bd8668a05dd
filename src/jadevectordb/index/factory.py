"""Choosing, building and opening the index of a block."""

from __future__ import annotations

from pathlib import Path

from jadevectordb.index.api import VectorIndex
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.flat import FlatIndex
from jadevectordb.index.hnsw import DEFAULT_BUILD_BREADTH, DEFAULT_LINKS, build_hnsw, open_hnsw
from jadevectordb.index.index_files import read_meta, write_meta
from jadevectordb.index.ivf import open_ivf
from jadevectordb.index.ivf_build import ROWS_MIN, build_ivf
from jadevectordb.index.lsh import build_lsh, code_bits, open_lsh
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.index_parameters import IndexParameters
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

_AUTO_ROWS_MIN = 2000  # a scan of fewer rows is as fast as any index
_AUTO_VALUES_MIN = 1_100_000  # rows times dimension from which an index wins clearly: about 10,000 rows of 100 values


def resolve_kind(kind: IndexKind, space: VectorSpace, row_count: int) -> IndexKind:
    """What a block of so many rows really gets. Never AUTO."""
    if kind is IndexKind.FLAT or space.metric is Metric.HAMMING or row_count < ROWS_MIN:
        # Packed bits are compared so fast (tens of millions a second) that no structure pays below many millions of rows.
        return IndexKind.FLAT
    if kind is IndexKind.AUTO:
        large = row_count >= _AUTO_ROWS_MIN and row_count * space.dimension >= _AUTO_VALUES_MIN
        return IndexKind.IVF if large else IndexKind.FLAT
    return kind


def build_index(
    kind: IndexKind,
    space: VectorSpace,
    rows: Rows,
    directory: Path,
    *,
    threads: int,
    seed: int,
    parameters: IndexParameters | None = None,
) -> list[str]:
    """Build and calibrate the index of a block; the names of the files written, `index.json` last. They are not yet synced.

    rows: search rows (n, row_width), C-order, not changed. directory: exists. seed, threads: same rows, seed and threads
    give the same index. parameters: those of `index_parameters` for this kind, checked. Raises DISK_FULL or IO_ERROR.
    """
    given = parameters or {}
    match resolve_kind(kind, space, len(rows)):
        case IndexKind.IVF:
            return build_ivf(space, rows, directory, threads=threads, seed=seed, lists=given.get("nlist"))
        case IndexKind.HNSW:
            links, breadth = given.get("M", DEFAULT_LINKS), given.get("efConstruction", DEFAULT_BUILD_BREADTH)
            return build_hnsw(space, rows, directory, threads=threads, seed=seed, links=links, breadth=breadth)
        case IndexKind.LSH:
            bits = code_bits(space.dimension, given.get("numTables"), given.get("numBits"))
            return build_lsh(space, rows, directory, threads=threads, seed=seed, bits=bits)
        case IndexKind.FLAT | IndexKind.AUTO:
            return write_meta(directory, IndexKind.FLAT, space, row_count=len(rows), names=[], body={})


def open_index(directory: Path, space: VectorSpace, rows: Rows) -> VectorIndex:
    """Open what `build_index` wrote, over the same search rows (n, row_width), kept and not copied; a memory map is fine.

    Raises CORRUPT naming the file that is missing, damaged or made for other rows; FORMAT_TOO_NEW.
    """
    meta = read_meta(directory, space, len(rows))
    block = RowBlock(space, rows)
    match meta.kind:
        case IndexKind.IVF:
            return open_ivf(directory, block, meta)
        case IndexKind.HNSW:
            return open_hnsw(directory, block, meta)
        case IndexKind.LSH:
            return open_lsh(directory, block, meta)
        case IndexKind.FLAT | IndexKind.AUTO:
            return FlatIndex(block)
