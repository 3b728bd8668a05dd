"""Sorted keys and the rows that have each: the one structure behind equality, ranges, prefixes and searches in text.

A key with few rows keeps them as a sorted list of uint32, a key with more than one row in 32 as a bitmap, which is smaller then and is
handed to a search without being copied. Where a row has one key at most, `codes` says which, in row order: wide ranges become one
comparison over it, and a few candidate rows are tested without touching the rest. (Inverted lists beside a dictionary-encoded
column: Lemire et al., "Consistently faster and smaller compressed bitmaps with Roaring", 2016, for the threshold of list against bits.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.index.bitmap import Mask, RowArray
from jadevectordb.index.column_file import ArrayReader, ArrayWriter, PostingsRef
from jadevectordb.index.selection import SPARSE_SHARE, Selection

KeyArray = npt.NDArray[np.int64]

_CODES_SHARE: Final = 16  # codes are kept when at least one row in this many has a key
_SORT_SHARE: Final = 512  # up to one row in this many, sorting a list beats scattering into a mask


def write_postings(
    keys: npt.NDArray[Any], rows: npt.NDArray[Any], key_count: int, row_count: int, to: ArrayWriter
) -> PostingsRef:
    """keys, rows: (m,) pairs in any order, repetitions allowed; each key in 0..key_count-1 occurs."""
    pairs = (keys.astype(np.uint64) << np.uint64(32)) | rows.astype(np.uint64)
    pairs.sort()
    if len(pairs) > 1:
        pairs = pairs[np.concatenate(([True], pairs[1:] != pairs[:-1]))]
    keys = (pairs >> np.uint64(32)).astype(np.int64)
    rows = pairs.astype(np.uint32)
    counts = np.bincount(keys, minlength=key_count)
    ends = np.zeros(key_count + 1, np.uint32)
    np.cumsum(counts, out=ends[1:])
    dense = np.flatnonzero(counts * SPARSE_SHARE > row_count)
    bits = [bitmap.from_rows(rows[ends[key] : ends[key + 1]], row_count) for key in dense]
    codes = None
    if len(rows) * _CODES_SHARE >= row_count and not _has_repetition(rows, row_count):
        codes = np.full(row_count, key_count, np.min_scalar_type(key_count))
        codes[rows] = keys
    if len(dense):
        rows = rows[np.repeat(counts * SPARSE_SHARE <= row_count, counts)]
    return PostingsRef(
        key_count,
        to.add(ends),
        to.add(rows),
        dense.tolist(),
        to.add(np.concatenate(bits) if bits else np.empty(0, np.uint8)),
        None if codes is None else to.add(codes),
    )


def _has_repetition(rows: npt.NDArray[np.uint32], row_count: int) -> bool:
    return bitmap.count(bitmap.from_rows(rows, row_count)) != len(rows)


class Postings:
    """The rows of keys 0..key_count-1, read where they are mapped."""

    def __init__(self, ref: PostingsRef, row_count: int, reader: ArrayReader) -> None:
        self.key_count = ref.key_count
        self.row_count = row_count
        self._ends = reader.get(ref.ends)
        self._sparse_rows = reader.get(ref.rows)
        self._dense = ref.dense
        self._dense_bits = reader.get(ref.dense_bits).reshape(len(ref.dense), -1) if ref.dense else None
        self._dense_counts = [self.total(key, key + 1) for key in ref.dense]
        self._codes_ref = ref.codes
        self._reader = reader

    def total(self, low: int, high: int) -> int:
        """Rows of the keys low..high-1, a row with several keys counted several times."""
        return int(self._ends[high]) - int(self._ends[low])

    def totals(self, keys: KeyArray) -> int:
        return int(self._ends[keys + 1].sum(dtype=np.int64) - self._ends[keys].sum(dtype=np.int64))

    @property
    def has_codes(self) -> bool:
        return self._codes_ref is not None

    def select(self, low: int, high: int) -> Selection:
        """Rows that have a key in low..high-1."""
        total = self.total(low, high) if low < high else 0
        if total == 0:
            return Selection.nothing(self.row_count)
        if high - low == 1:
            return self._of_key(low, total)
        if total * SPARSE_SHARE <= self.row_count:
            start = self._sparse_start(low)
            return self._of_unordered([self._sparse_rows[start : start + total]], total)
        if self._codes_ref is not None:
            return Selection.of_mask(_between(self._reader.get(self._codes_ref), low, high))
        return self._of_unordered(self._lists(range(low, high)), total, range(low, high))

    def select_keys(self, keys: KeyArray) -> Selection:
        """Rows that have one of the keys; ascending, each once."""
        if len(keys) == 0:
            return Selection.nothing(self.row_count)
        if int(keys[-1]) - int(keys[0]) + 1 == len(keys):
            return self.select(int(keys[0]), int(keys[-1]) + 1)
        total = self.totals(keys)
        listed_rows = total - sum(
            count for key, count in zip(self._dense, self._dense_counts, strict=True) if _holds(keys, key)
        )
        if self._codes_ref is not None and (listed_rows * 4 > self.row_count or len(keys) * 1024 > self.row_count):
            wanted = np.zeros(self.key_count + 1, np.bool_)
            wanted[keys] = True
            return Selection.of_mask(wanted[self._reader.get(self._codes_ref)])
        listed = keys.tolist()
        return self._of_unordered(self._lists(listed), total, listed)

    def keep(self, rows: RowArray, low: int, high: int) -> Mask | None:
        """For each row, whether its key is in low..high-1; None when there are no codes to tell."""
        if self._codes_ref is None:
            return None
        return _between(self._reader.get(self._codes_ref)[rows], low, high)

    def _of_key(self, key: int, count: int) -> Selection:
        dense = bisect_left(self._dense, key)
        if dense < len(self._dense) and self._dense[dense] == key:
            assert self._dense_bits is not None
            return Selection.of_bits(self._dense_bits[dense], self.row_count, count)
        start = self._sparse_start(key)
        return Selection.of_rows(self._sparse_rows[start : start + count], self.row_count)

    def _sparse_start(self, key: int) -> int:
        """Where the list of a key begins: rows of keys before it, less those kept as bits."""
        return int(self._ends[key]) - sum(self._dense_counts[: bisect_left(self._dense, key)])

    def _lists(self, keys: range | list[int]) -> Iterator[npt.NDArray[np.uint32]]:
        """The row lists of those keys that have one, neighbours in one piece where keys are a range."""
        dense = set(self._dense)
        if isinstance(keys, range):
            cuts = [key for key in self._dense if keys.start <= key < keys.stop]
            for low, high in zip([keys.start, *(key + 1 for key in cuts)], [*cuts, keys.stop], strict=True):
                if low < high:
                    start = self._sparse_start(low)
                    yield self._sparse_rows[start : start + self.total(low, high)]
            return
        for key in keys:
            if key not in dense:
                start = self._sparse_start(key)
                yield self._sparse_rows[start : start + self.total(key, key + 1)]

    def _of_unordered(
        self,
        lists: Iterator[npt.NDArray[np.uint32]] | list[npt.NDArray[np.uint32]],
        total: int,
        keys: range | list[int] = range(0),
    ) -> Selection:
        """The union of row lists, and of the bitmaps of those keys that have one."""
        if total * _SORT_SHARE <= self.row_count:  # then no key is dense
            rows = np.sort(np.concatenate(list(lists)))
            if len(rows) > 1 and not self.has_codes:
                rows = rows[np.concatenate(([True], rows[1:] != rows[:-1]))]
            return Selection.of_rows(rows, self.row_count)
        lists = list(lists)
        bits = bitmap.empty(self.row_count)
        if lists:
            mask = np.zeros(self.row_count, np.bool_)
            for rows in lists:
                mask[rows] = True
            bits = bitmap.from_mask(mask)
        wanted = keys if isinstance(keys, range) else set(keys)
        for position, key in enumerate(self._dense):
            if key in wanted:
                assert self._dense_bits is not None
                bits |= self._dense_bits[position]
        return Selection.of_bits(bits, self.row_count)


def _holds(keys: KeyArray, key: int) -> bool:
    at = int(np.searchsorted(keys, key))
    return at < len(keys) and int(keys[at]) == key


def _between(codes: npt.NDArray[Any], low: int, high: int) -> Mask:
    """low <= codes < high, in one comparison: below low the unsigned difference wraps round to a large number."""
    shifted = codes if low == 0 else codes - codes.dtype.type(low)
    inside: Mask = shifted < codes.dtype.type(high - low)
    return inside
