"""What an index remembers of an allow bitmap while it lives: its rows, its rows per list, how evenly it is spread.

Tombstones and cached filters come with search after search; what they allow is worked out once. Entries are found by the
identity of the bitmap, which never changes while it lives, and vanish with it.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.index.bitmap import Bitmap, RowArray

_REMEMBERED_MAX = 16  # bitmaps
_ROWS_KEPT_MAX = 32_768  # rows of a bitmap that are kept as a list
_PRIOR_ROWS = 4.0  # rows the overall share counts for, when the share of a small list is judged


class Allowed:
    """What is known of one bitmap. Filled in on demand; filling in twice from two threads gives the same."""

    # The bitmap itself is not kept, or it would never go.
    __slots__ = ("_counts", "_rows", "count")

    def __init__(self, count: int, rows: RowArray | None = None) -> None:
        self.count = count
        self._rows = rows
        self._counts: ListCounts | None = None

    def rows(self, bits: Bitmap) -> RowArray:
        """All allowed rows, ascending int64."""
        if self._rows is not None:
            return self._rows
        rows = bitmap.to_rows(bits)
        if len(rows) <= _ROWS_KEPT_MAX:
            self._rows = rows
        return rows

    def per_list(
        self, bits: Bitmap, list_of_row: npt.NDArray[np.integer[Any]], sizes: npt.NDArray[np.float32]
    ) -> ListCounts:
        if self._counts is None:
            self._counts = _count(bits, self.count, list_of_row, sizes)
        return self._counts


class ListCounts:
    """allowed: float32 (lists,), allowed rows of each list. share_min: the smallest allowed share of a list, smoothed."""

    __slots__ = ("allowed", "share_min")

    def __init__(self, allowed: npt.NDArray[np.float32], share_min: float) -> None:
        self.allowed = allowed
        self.share_min = share_min


def _count(
    bits: Bitmap, count: int, list_of_row: npt.NDArray[np.integer[Any]], sizes: npt.NDArray[np.float32]
) -> ListCounts:
    # Counted, not sampled: a handful of allowed rows in a list next to the query decides what to probe.
    row_count = len(list_of_row)
    if 2 * count <= row_count:
        allowed = np.bincount(list_of_row[bitmap.to_rows(bits)], minlength=len(sizes)).astype(np.float32)
    else:
        missing = bitmap.to_rows(bitmap.inverse(bits, row_count))
        allowed = sizes - np.bincount(list_of_row[missing], minlength=len(sizes)).astype(np.float32)
    shares = (allowed + _PRIOR_ROWS * (count / row_count)) / (sizes + _PRIOR_ROWS)
    return ListCounts(allowed, float(shares.min()))


class AllowedMemory:
    """A few bitmaps remembered at a time. Safe to use from several threads: each step is one dictionary operation."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Bitmap], Allowed]] = {}

    def of(self, bits: Bitmap, count: int | None) -> Allowed:
        """count: how many rows the bitmap holds, when the caller knows."""
        found = self._kept.get(id(bits))
        if found is not None and found[0]() is bits:
            return found[1]
        known = Allowed(bitmap.count(bits) if count is None else count)
        if len(self._kept) >= _REMEMBERED_MAX:
            self._kept.clear()
        self._kept[id(bits)] = weakref.ref(bits), known
        return known
