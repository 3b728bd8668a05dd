"""Builds the text index of a block while streaming over its rows once: memory does not grow with their number.

Rows are analysed into pairs (term number, row). Every RUN_TOKENS of them are sorted and counted into postings of that stretch
of rows, a run, and written to a temporary file. At the end it is known how long each term's posting is, so the runs are read
again and every piece is put where it belongs: runs are in order of rows, so nothing has to be merged. Postings that exceed
POSTINGS_IN_MEMORY are put in place in several passes over the runs, one a range of terms. What does grow is the dictionary of
different terms, which is that of the language and the names in it, and 4 bytes a row and field for lengths.
"""

from __future__ import annotations

import errno
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jadevectordb.index.text_analysis import Analyzer, FieldReader, TextConfig
from jadevectordb.index.text_file import FILE_NAME, TextFileWriter, hash_of, key_of
from jadevectordb.model.errors import ErrorCode, JadeError

RUN_TOKENS = 1 << 20  # 8 bytes each while a run is sorted
POSTINGS_IN_MEMORY = 1 << 24  # 8 bytes each while they are put in place
_RUN_DTYPE = np.dtype([("term", "<u4"), ("row", "<u4"), ("frequency", "<u4")])
_SMALL_DTYPES = (("|u1", 0xFF), ("<u2", 0xFFFF), ("<u4", 0xFFFF_FFFF))

_Numbers: TypeAlias = npt.NDArray[np.int64]


def build_text(documents: Iterable[bytes], config: TextConfig, directory: Path) -> list[str]:
    """Write the text index of a block into an existing directory; the names of the files written, durable.

    documents: each row's metadata in order of rows, one JSON object as UTF-8, or b"". Read once, a row at a time.
    Raises INVALID_METADATA naming the row, DISK_FULL or IO_ERROR naming the file; the index is then not there.
    """
    path = directory / FILE_NAME
    try:
        with tempfile.TemporaryFile(dir=directory) as spill:
            collected = _Collector(config, spill)
            collected.collect(documents)
            try:
                with path.open("wb") as file:
                    collected.write(TextFileWriter(file))
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise JadeError(
            ErrorCode.DISK_FULL if full else ErrorCode.IO_ERROR,
            f"The text index {path} could not be written: {error}." + (" Free some space." if full else ""),
            details={"file": str(path)},
        ) from error
    return [FILE_NAME]


class _TermNumbers(dict[str, int]):
    """Terms of one field to numbers, which all fields share; a new term gets the next."""

    def __init__(self, field: int, keys: list[bytes]) -> None:
        super().__init__()
        self._field = field
        self._keys = keys

    def __missing__(self, term: str) -> int:
        number = self[term] = len(self._keys)
        self._keys.append(key_of(self._field, term))
        return number


class _Collector:
    """Rows in, runs out; then the file."""

    def __init__(self, config: TextConfig, spill: IO[bytes]) -> None:
        self._fields = config.fields
        self._analyzer = Analyzer(config)
        self._reader = FieldReader(config)
        self._spill = spill
        self._keys: list[bytes] = []  # by term number
        self._numbers = [_TermNumbers(field, self._keys) for field in range(len(config.fields))]
        self._lengths = [array("I") for _ in config.fields]  # terms of each row, by field
        self._row_count = 0
        self._run_sizes: list[int] = []
        self._posting_sizes: _Numbers = np.zeros(0, np.int64)  # by term number
        self._frequency_max = 0

    def collect(self, documents: Iterable[bytes]) -> None:
        tokens = array("I")  # term numbers of the rows since the last run, row by row
        counts = array("I")  # tokens of each of these rows
        fields = list(zip(self._numbers, self._lengths, strict=True))
        read, analyze = self._reader.texts, self._analyzer.terms
        row = -1
        for row, metadata in enumerate(documents):
            row_start = len(tokens)
            for (numbers, lengths), text in zip(fields, read(metadata, row), strict=True):
                start = len(tokens)
                if text:
                    tokens.extend(map(numbers.__getitem__, analyze(text)))
                lengths.append(len(tokens) - start)
            counts.append(len(tokens) - row_start)
            if len(tokens) >= RUN_TOKENS:
                self._close_run(tokens, counts, row + 1)
                tokens, counts = array("I"), array("I")
        self._close_run(tokens, counts, row + 1)
        self._row_count = row + 1

    def _close_run(self, tokens: array[int], counts: array[int], next_row: int) -> None:
        """Sort one stretch of rows by term, count repeats within a row, and write it away."""
        assert next_row < 1 << 32
        rows = np.repeat(np.arange(next_row - len(counts), next_row, dtype=np.uint64), np.array(counts, np.int64))
        pairs = np.array(tokens, np.uint64) << np.uint64(32) | rows
        pairs.sort()
        first = np.flatnonzero(np.concatenate((np.ones(min(1, len(pairs)), np.bool_), pairs[1:] != pairs[:-1])))
        run = np.empty(len(first), _RUN_DTYPE)
        run["term"] = pairs[first] >> np.uint64(32)
        run["row"] = pairs[first] & np.uint64(0xFFFF_FFFF)
        run["frequency"] = np.diff(first, append=len(pairs))
        self._spill.write(run.data)
        self._run_sizes.append(len(run))
        sizes = np.bincount(run["term"], minlength=len(self._keys))
        sizes[: len(self._posting_sizes)] += self._posting_sizes
        self._posting_sizes = sizes
        self._frequency_max = max(self._frequency_max, int(run["frequency"].max(initial=0)))

    def write(self, writer: TextFileWriter) -> None:
        hashes = np.array([hash_of(key) for key in self._keys], np.uint64)
        order = np.argsort(hashes, kind="stable")  # term numbers in order of their hashes
        writer.section("hashes", "<u8", [hashes[order]])
        writer.section("key_starts", "<u8", [_starts(np.array([len(key) for key in self._keys], np.int64)[order])])
        writer.section("keys", "|u1", [np.frombuffer(b"".join([self._keys[at] for at in order.tolist()]), np.uint8)])
        starts = _starts(self._posting_sizes[order])
        writer.section("starts", "<u8", [starts])
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        dtype = next(name for name, most in _SMALL_DTYPES if self._frequency_max <= most)
        writer.section("rows", "<u4", self._in_place("row", rank, starts))
        writer.section("frequencies", dtype, self._in_place("frequency", rank, starts))
        writer.section("lengths", "<u4", [np.frombuffer(lengths, np.uint32) for lengths in self._lengths])
        writer.finish(self._fields, self._row_count)

    def _in_place(self, column: str, rank: _Numbers, starts: _Numbers) -> Iterator[npt.NDArray[Any]]:
        """The column of all runs in order of rank, then row, in pieces of about POSTINGS_IN_MEMORY at most."""
        low = 0
        while low < len(rank):
            # One posting at least, else as many as fit.
            fitting = int(np.searchsorted(starts, starts[low] + POSTINGS_IN_MEMORY, "right")) - 1
            high = min(max(fitting, low + 1), len(rank))
            piece = np.empty(int(starts[high] - starts[low]), np.uint32)
            free = starts[low:high] - starts[low]  # where each posting goes on
            for run in self._runs():
                ranks = rank[run["term"]]
                values = run[column]
                if high - low < len(rank):
                    inside = (ranks >= low) & (ranks < high)
                    ranks, values = ranks[inside], values[inside]
                _append_to_postings(piece, free, ranks - low, values)
            yield piece
            low = high

    def _runs(self) -> Iterator[npt.NDArray[Any]]:
        self._spill.seek(0)
        for size in self._run_sizes:
            yield np.frombuffer(self._spill.read(size * _RUN_DTYPE.itemsize), _RUN_DTYPE)


def _append_to_postings(
    piece: npt.NDArray[np.uint32], free: _Numbers, postings: _Numbers, values: npt.NDArray[np.uint32]
) -> None:
    """Put each value behind what its posting has already, and move `free` on. Equal postings are neighbours in a run."""
    if len(postings) == 0:
        return
    first = np.concatenate(([0], np.flatnonzero(np.diff(postings)) + 1))
    lengths = np.diff(first, append=len(postings))
    owners = postings[first]
    piece[np.arange(len(postings)) + np.repeat(free[owners] - first, lengths)] = values
    free[owners] += lengths


def _starts(sizes: _Numbers) -> _Numbers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
