"""The answer to a filter over one block of rows: how many rows match, and which, as a list or as bits.

An exact search wants the rows, a selector of an index wants the bits, a planner wants the count. A selection holds whichever form
the evaluation produced and makes the other when asked. It is a value: nobody changes its arrays, some of which are mapped files.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.index.bitmap import Bitmap, Mask, RowArray

SPARSE_SHARE: Final = 32  # up to one row in this many, a list of uint32 rows is smaller than bits


class Selection:
    """Rows of 0..row_count-1. count: exact."""

    __slots__ = ("_bits", "_rows", "count", "row_count")

    def __init__(self, row_count: int, count: int, rows: RowArray | None, bits: Bitmap | None) -> None:
        self.row_count = row_count
        self.count = count
        self._rows = rows  # int64 ascending; at least one of the two forms is there
        self._bits = bits

    @staticmethod
    def of_rows(rows: npt.NDArray[np.integer], row_count: int) -> Selection:
        """rows: ascending, each once."""
        return Selection(row_count, len(rows), rows.astype(np.int64, copy=False), None)

    @staticmethod
    def of_bits(bits: Bitmap, row_count: int, count: int | None = None) -> Selection:
        return Selection(row_count, bitmap.count(bits) if count is None else count, None, bits)

    @staticmethod
    def of_mask(mask: Mask) -> Selection:
        return Selection.of_bits(bitmap.from_mask(mask), len(mask))

    @staticmethod
    def nothing(row_count: int) -> Selection:
        return Selection(row_count, 0, np.empty(0, np.int64), None)

    @staticmethod
    def everything(row_count: int) -> Selection:
        return Selection.of_bits(bitmap.full(row_count), row_count, row_count)

    @property
    def is_sparse(self) -> bool:
        return self.count * SPARSE_SHARE <= self.row_count

    def rows(self) -> RowArray:
        """The matching rows, int64, ascending. Not to be changed."""
        if self._rows is not None:
            return self._rows
        assert self._bits is not None
        rows = bitmap.to_rows(self._bits)
        if self.is_sparse:  # a long list is not worth keeping beside its bits
            self._rows = rows
        return rows

    def bits(self) -> Bitmap:
        """The matching rows as packed bits (`bitmap`). Not to be changed."""
        if self._bits is None:
            assert self._rows is not None
            self._bits = bitmap.from_rows(self._rows, self.row_count)
        return self._bits

    def keep(self, rows: npt.NDArray[np.integer]) -> Mask:
        """For each row, whether it is selected; bool, as long as rows."""
        if self._bits is None and len(rows) < self.count and len(rows) * 1024 < self.row_count:
            assert self._rows is not None
            at = np.searchsorted(self._rows, rows)
            found: Mask = self._rows[np.minimum(at, self.count - 1)] == rows
            return found
        return bitmap.contains(self.bits(), rows)

    def inverse(self) -> Selection:
        left = self.row_count - self.count
        return Selection.of_bits(bitmap.inverse(self.bits(), self.row_count), self.row_count, left)

    def without(self, other: Selection) -> Selection:
        if self.is_sparse:
            return Selection.of_rows(self.rows()[~other.keep(self.rows())], self.row_count)
        return Selection.of_bits(bitmap.without(self.bits(), other.bits()), self.row_count)

    @staticmethod
    def union(parts: list[Selection], row_count: int) -> Selection:
        parts = [part for part in parts if part.count]
        if len(parts) <= 1:
            return parts[0] if parts else Selection.nothing(row_count)
        if sum(part.count for part in parts) * SPARSE_SHARE * 8 <= row_count:
            return Selection.of_rows(np.unique(np.concatenate([part.rows() for part in parts])), row_count)
        bits = bitmap.either(parts[0].bits(), parts[1].bits())
        for part in parts[2:]:
            np.bitwise_or(bits, part.bits(), out=bits)  # bits is ours: `either` made it
        return Selection.of_bits(bits, row_count)

    @property
    def bytes_max(self) -> int:
        """The most memory this selection comes to hold, whichever forms are asked of it."""
        rows = self.count * 8 if self.is_sparse or self._rows is not None else 0
        return 200 + bitmap.size_bytes(self.row_count) + rows
