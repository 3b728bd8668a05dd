"""faiss as this package uses it: the module untyped, one thread a query, and its exceptions turned into ours.

faiss ships type stubs that cover neither its pointer-level functions nor its overloads, and the pointer level is where a
query costs microseconds instead of tens of them. Callers check shapes, dtypes and contiguity before they hand pointers over.
"""

from __future__ import annotations

import errno
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jadevectordb.model.errors import ErrorCode, JadeError

faiss: Any = importlib.import_module("faiss")
pointer: Any = faiss.swig_ptr

_threads_now: Any = faiss.omp_get_max_threads


def use_one_thread() -> None:
    """Keep faiss from spreading one query over several threads, which costs more than it saves and changes the last bits.

    The setting belongs to the calling thread only. It is looked at every time (a tenth of a microsecond), because
    whoever else uses faiss in this thread may have changed it.
    """
    if _threads_now() != 1:
        faiss.omp_set_num_threads(1)


@contextmanager
def threads_for_building(count: int) -> Iterator[None]:
    """Let faiss use `count` threads for the calls this thread makes inside, then set back what was there."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, count))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def write_faiss(index: Any, path: Path) -> None:
    """Write a faiss index (binary or not). Raises DISK_FULL or IO_ERROR naming the file."""
    write = faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index
    try:
        write(index, str(path))
    except (RuntimeError, MemoryError) as error:
        full = "No space left" in str(error) or f"errno {errno.ENOSPC}" in str(error)
        raise JadeError(
            ErrorCode.DISK_FULL if full else ErrorCode.IO_ERROR,
            f"The index file {path} could not be written ({_first_line(error)}): make room or check the folder, then try again.",
            details={"file": str(path)},
        ) from error


def map_faiss(path: Path) -> Any:
    """Open a faiss index file by memory mapping, as far as faiss can (`bytes_of_codes`). Raises CORRUPT naming the file."""
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"The index file {path} cannot be read ({_first_line(error)}): rebuild the index of this segment.",
            details={"file": str(path)},
        ) from error


def index_failed(error: RuntimeError) -> JadeError:
    """What a search raises when faiss itself fails."""
    return JadeError(
        ErrorCode.CORRUPT,
        f"The index failed while searching ({_first_line(error)}): rebuild the index of this segment, or search with recall=1.0.",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[-1][:200]


def bytes_of_codes(index: Any, list_sizes: list[int]) -> int:
    """Memory that an opened IVF index takes for codes and row numbers: faiss maps plain lists, but loads those of 4-bit codes."""
    lists = faiss.downcast_InvertedLists(index.invlists)
    if not isinstance(lists, faiss.BlockInvertedLists):
        return 0
    blocks = sum(-(-size // lists.n_per_block) for size in list_sizes)
    return int(blocks * lists.block_size + 8 * sum(list_sizes))
