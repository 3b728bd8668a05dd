"""Distinct strings of one path while columns are built: in memory as long as they are few, in sorted runs on disk when they are many.

A table with a million titles has a million distinct strings, which as Python objects take several times their size. When all paths
together hold more than `COLUMN_BUILD_TERM_BYTES_MAX`, the largest is sorted into a run on disk and starts again; at the end its runs are
merged (external merge sort: Knuth, The Art of Computer Programming 3, section 5.4). Runs lie in unnamed files, which vanish by themselves.
"""

from __future__ import annotations

import heapq
import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint32]

_TERM_OVERHEAD_BYTES: Final = 130  # of one string in memory beside its characters: two objects and a place in a table
_CHUNK_TERMS: Final = 4096


class TermIds(dict[str | bytes, int]):
    """Numbers strings in the order in which they come."""

    def __missing__(self, term: str | bytes) -> int:
        number = self[term] = len(self)
        return number


class Terms:
    """The strings of one path with their rows. A cut string is bytes, a whole one str."""

    def __init__(self) -> None:
        self._ids = TermIds()
        self._pairs: list[tuple[Ids, Ids]] = []  # ids and rows of those in memory
        self._runs: list[_Run] = []
        self.memory_bytes = 0  # about

    def __bool__(self) -> bool:
        return bool(self._pairs or self._runs)

    def add(self, values: list[str] | list[str | bytes], rows: Ids) -> None:
        before = len(self._ids)
        self._pairs.append((np.array(list(map(self._ids.__getitem__, values)), np.uint32), rows))
        fresh = len(self._ids) - before
        if fresh:
            self.memory_bytes += fresh * (_TERM_OVERHEAD_BYTES + sum(map(len, values)) // len(values))

    def spill(self, folder: Path) -> None:
        """Move what is in memory to disk."""
        terms, ids, rows = self._sorted()
        self._runs.append(_Run(folder, terms, ids, rows))

    def finish(self) -> tuple[Iterator[list[bytes]], Ids, Ids]:
        """The distinct strings in UTF-8, ascending, in lists; and the pairs: number of the string in that order, row.

        The iterator must be read to its end before the pairs are used. Empties this object.
        """
        terms, ids, rows = self._sorted()
        if not self._runs:
            return iter([terms]), ids, rows
        runs: list[_Run | _Memory] = [*self._runs, _Memory(terms, ids, rows)]
        self._runs = []
        # The merge fills in, run by run, which number each of its strings gets.
        numbers = [np.zeros(run.term_count, np.uint32) for run in runs]
        all_ids = np.empty(sum(len(run.ids) for run in runs), np.uint32)
        all_rows = np.concatenate([run.rows for run in runs])

        def merge() -> Iterator[list[bytes]]:
            yield from _merge(runs, numbers)
            np.concatenate([number[run.ids] for number, run in zip(numbers, runs, strict=True)], out=all_ids)

        return merge(), all_ids, all_rows

    def _sorted(self) -> tuple[list[bytes], Ids, Ids]:
        encoded = [term if isinstance(term, bytes) else term.encode() for term in self._ids]
        order = sorted(range(len(encoded)), key=encoded.__getitem__)  # bytes of UTF-8 stand in the order of code points
        rank = np.empty(len(encoded), np.uint32)
        rank[order] = np.arange(len(encoded), dtype=np.uint32)
        none = [np.empty(0, np.uint32)]
        ids = rank[np.concatenate([ids for ids, _ in self._pairs] or none)]
        rows = np.concatenate([rows for _, rows in self._pairs] or none)
        self._ids, self._pairs, self.memory_bytes = TermIds(), [], 0
        return [encoded[i] for i in order], ids, rows


class _Memory:
    """The last run, which never left memory."""

    def __init__(self, terms: list[bytes], ids: Ids, rows: Ids) -> None:
        self.term_count = len(terms)
        self.ids = ids
        self.rows = rows
        self._terms = terms

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._terms)


class _Run:
    """Sorted distinct strings, and the pairs that refer to them, in an unnamed file."""

    def __init__(self, folder: Path, terms: list[bytes], ids: Ids, rows: Ids) -> None:
        self.term_count = len(terms)
        lengths = np.fromiter(map(len, terms), np.uint32, len(terms))
        with tempfile.TemporaryFile(dir=folder) as file:
            for array in (ids, rows, lengths):
                file.write(array.data)
            file.write(b"".join(terms))
            file.flush()
            self._buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = np.frombuffer(self._buffer, np.uint32, len(ids) * 2 + len(terms))
        self.ids, self.rows, self._lengths = np.split(arrays, [len(ids), len(ids) * 2])

    def __iter__(self) -> Iterator[bytes]:
        at = (len(self.ids) * 2 + self.term_count) * 4
        for start in range(0, self.term_count, _CHUNK_TERMS):
            for length in self._lengths[start : start + _CHUNK_TERMS].tolist():
                yield self._buffer[at : at + length]
                at += length


def _merge(runs: list[_Run | _Memory], numbers: list[Ids]) -> Iterator[list[bytes]]:
    """The distinct strings of all runs in order; numbers[run][i] becomes the number of the run's i-th string."""

    def numbered(run: int) -> Iterator[tuple[bytes, int, int]]:
        return ((term, run, i) for i, term in enumerate(runs[run]))

    chunk: list[bytes] = []
    count = 0
    previous: bytes | None = None
    for term, run, i in heapq.merge(*map(numbered, range(len(runs)))):
        if term != previous:
            if len(chunk) == _CHUNK_TERMS:
                yield chunk
                chunk = []
            chunk.append(term)
            previous = term
            count += 1
        numbers[run][i] = count - 1
    yield chunk
