"""Filters over rows that are still being written: nothing is done when a row is written, everything when a filter first asks.

The rows are an append-only list of JSON objects. Closed blocks of them become columns in memory the first time a filter runs over them:
blocks of 128 rows first, replaced by one of 1024 when it is full; the last few rows are looked at one by one. So a filter over 16,000
rows costs some twenty small column look-ups, and a writer never waits for any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, Final

import msgspec
import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.column_build import columns_in_memory
from jadevectordb.index.column_set import ColumnSet
from jadevectordb.index.selection import Selection
from jadevectordb.model import limits
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filters import Filter
from jadevectordb.model.schema import Schema

_BLOCK: Final = limits.GROWING_BLOCK_ROWS
_SMALL_BLOCK: Final = 128  # divides _BLOCK, and is a multiple of 64 so that blocks meet at whole words
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class GrowingColumns:
    """Columns over the closed blocks of one append-only list of metadata. Safe for threads."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._lock = Lock()  # held while a block is built; evaluation goes on without it
        self._blocks: list[ColumnSet] = []  # of _BLOCK rows each, from row 0
        self._small: list[ColumnSet] = []  # of _SMALL_BLOCK rows each, after them
        self._tail: list[dict[str, Any]] = []  # the decoded rows after those, as far as a filter asked for

    def evaluate(self, node: Filter, metadata: Sequence[bytes], count: int) -> Selection:
        """The rows below `count` that satisfy the filter, exactly.

        metadata: always the same list, whose first `count` rows are there and never change, while a writer appends to it.
        """
        blocks, tail = self._covering(metadata, count)
        pieces: list[tuple[int, Selection]] = []
        start = 0
        for block in blocks:
            found = block.evaluate(node, lambda row, start=start: metadata[start + row])  # type: ignore[misc]
            if found.count:
                pieces.append((start, found))
            start += block.row_count
        last = [start + i for i, document in enumerate(tail) if matches(node, document, self._schema)]
        return _joined(pieces, last, count)

    @property
    def memory_bytes(self) -> int:
        with self._lock:
            return sum(block.memory_bytes for block in [*self._blocks, *self._small])

    def _covering(self, metadata: Sequence[bytes], count: int) -> tuple[list[ColumnSet], list[dict[str, Any]]]:
        """Blocks that lie below `count` whole, and the rows after them."""
        with self._lock:
            self._extend(metadata, count)
            blocks = self._blocks[: count // _BLOCK]
            covered = len(blocks) * _BLOCK
            if len(blocks) == len(self._blocks):
                small = self._small[: (count - covered) // _SMALL_BLOCK]
                covered += len(small) * _SMALL_BLOCK
                start = len(self._blocks) * _BLOCK + len(self._small) * _SMALL_BLOCK
                if covered == start:
                    return [*blocks, *small], self._tail[: count - start]
                blocks = [*blocks, *small]
        # A view of fewer rows than others have already asked for: its last rows lie in blocks that are closed by now.
        return blocks, [_decode(metadata[row]) for row in range(covered, count)]

    def _extend(self, metadata: Sequence[bytes], count: int) -> None:
        while (len(self._blocks) + 1) * _BLOCK <= count:
            self._blocks.append(self._build(metadata, len(self._blocks) * _BLOCK, _BLOCK))
            self._small, self._tail = [], []
        start = len(self._blocks) * _BLOCK + len(self._small) * _SMALL_BLOCK
        while start + _SMALL_BLOCK <= count:
            self._small.append(self._build(metadata, start, _SMALL_BLOCK))
            start += _SMALL_BLOCK
            self._tail = []
        self._tail += [_decode(metadata[row]) for row in range(start + len(self._tail), count)]

    def _build(self, metadata: Sequence[bytes], start: int, length: int) -> ColumnSet:
        return ColumnSet(*columns_in_memory([metadata[row] for row in range(start, start + length)], self._schema))


def _joined(pieces: list[tuple[int, Selection]], last: list[int], row_count: int) -> Selection:
    """One selection from those of blocks, each with its first row, and rows after them."""
    total = sum(found.count for _, found in pieces) + len(last)
    if total * 8 <= row_count or row_count < _SMALL_BLOCK:
        rows = [found.rows() + start for start, found in pieces]
        return Selection.of_rows(np.concatenate([*rows, np.array(last, np.int64)]), row_count)
    bits = bitmap.empty(row_count)
    for start, found in pieces:
        part = found.bits()
        bits[start // 8 : start // 8 + len(part)] = part
    for row in last:
        bits[row >> 3] |= 1 << (row & 7)
    return Selection.of_bits(bits, row_count, total)
