"""The segment that takes writes: rows in memory, searched exactly, visible as soon as they are applied.

Its arrays only ever grow at the end, so a view is simply the first `count` rows: readers hold a `GrowingView` and need no
lock, the one writer appends behind them. When it is full it is frozen, written to a folder, and replaced by a new one;
until then the log is what makes its rows durable.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.index.api import Found, Plan, SearchOverrides
from jadevectordb.index.bitmap import RowArray
from jadevectordb.index.calibration import exact_cost_us
from jadevectordb.index.columns import GrowingColumns, Selection
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.text import GrowingText, TextConfig, TextReader
from jadevectordb.model.filters import Filter
from jadevectordb.model.operations import Rows
from jadevectordb.model.schema import Schema
from jadevectordb.segment.reader import Allowed, range_in
from jadevectordb.segment.records import HashArray

_OBJECTS_BYTES = 200  # Python's own for a row: the id, its place in the dict, the bytes object of the metadata


class GrowingSegment:
    """One writer, any number of readers through `view`.

    unit: number of this segment in its shard's order, from 0; it becomes the sealed segment's name.
    capacity: rows allocated; memory is touched only as rows arrive.
    """

    def __init__(
        self, space: VectorSpace, schema: Schema, text: TextConfig | None, *, unit: int, capacity: int
    ) -> None:
        self.unit = unit
        self.space = space
        self.capacity = capacity
        self.count = 0  # 0 <= count <= capacity; rows below it never change
        self.ids: list[str] = []
        self.metadata: list[bytes] = []
        self._metadata_bytes = 0
        self.row_of: dict[str, int] = {}  # newest row of each id
        self.rows: Rows = np.empty((capacity, space.row_width), space.row_dtype)  # what search runs on
        self.block = RowBlock(space, self.rows)
        self.originals: Rows | None = None  # as the callers sent them, once one of them differs from `rows`
        self.versions = np.empty(capacity, np.int64)
        self.hashes = np.empty(capacity, np.uint64)
        self.columns = GrowingColumns(schema)
        self.text = None if text is None else GrowingText(text)

    @property
    def bytes_in_memory(self) -> int:
        copies = 1 if self.originals is None else 2
        return self.count * (copies * self.space.row_bytes + 16 + _OBJECTS_BYTES) + self._metadata_bytes

    def append(self, ids: Seq[str], hashes: HashArray, vectors: Rows, metadata: Seq[bytes], version: int) -> None:
        """vectors: (n, width) as sent, copied. The caller has checked everything: this can't fail."""
        start, end = self.count, self.count + len(ids)
        assert end <= self.capacity
        search_rows = self.space.search_rows(vectors)
        if self.originals is None and search_rows is not vectors:
            self.originals = np.empty_like(self.rows)
            self.originals[:start] = self.rows[:start]
        if self.originals is not None:
            self.originals[start:end] = vectors
        self.rows[start:end] = search_rows
        self.versions[start:end] = version
        self.hashes[start:end] = hashes
        self.ids.extend(ids)
        self.metadata.extend(metadata)
        self._metadata_bytes += sum(map(len, metadata))
        self.row_of.update(zip(ids, range(start, end), strict=True))
        self.count = end  # last: a view taken now sees whole rows only

    def view(self) -> GrowingView:
        return GrowingView(self, self.count)


class GrowingView:
    """The first `row_count` rows of a growing segment: a SegmentReader that never changes."""

    index_kind = "growing"

    def __init__(self, segment: GrowingSegment, count: int) -> None:
        self.segment = segment
        self.row_count = count
        self._originals = segment.rows if segment.originals is None else segment.originals

    @property
    def name(self) -> str:
        return f"growing-{self.segment.unit:08}"

    @property
    def units(self) -> tuple[int, int]:
        return self.segment.unit, self.segment.unit

    def search(
        self, query: Rows, k: int, recall: float, allowed: Allowed | None, overrides: SearchOverrides | None
    ) -> Found:
        del recall, overrides  # exact whatever was asked
        bits, rows, count = None, None, self.row_count
        if allowed is not None:
            bits, rows, count = allowed.bits, allowed.rows, allowed.count
        similarities, found = self.segment.block.top(query, k, row_count=self.row_count, allow=bits, allowed_rows=rows)
        return Found(similarities, found, Plan("exact", "rows not sealed yet", count))

    def search_range(
        self, query: Rows, similarity_min: float, allowed: Allowed | None
    ) -> tuple[npt.NDArray[np.float32], RowArray]:
        return range_in(self.segment.block, self.row_count, query, similarity_min, allowed)

    def select(self, node: Filter) -> Selection:
        return self.segment.columns.evaluate(node, self.segment.metadata, self.row_count)

    @property
    def text(self) -> TextReader | None:
        growing = self.segment.text
        return None if growing is None else growing.reader(self.segment.metadata, self.row_count)

    def id_of(self, row: int) -> str:
        return self.segment.ids[row]

    def ids_of(self, rows: Seq[int]) -> list[str]:
        ids = self.segment.ids
        return [ids[row] for row in rows]

    def version_of(self, row: int) -> int:
        return int(self.segment.versions[row])

    def metadata_of(self, row: int) -> bytes:
        return self.segment.metadata[row]

    def vector_of(self, row: int) -> Rows:
        vector: Rows = self._originals[row]
        vector.flags.writeable = False
        return vector

    def hash_order(self) -> tuple[HashArray, npt.NDArray[Any]]:
        hashes = self.segment.hashes[: self.row_count]
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        del overrides  # exact whatever is asked
        return exact_cost_us(self.segment.block, has_dead=has_dead, row_count=self.row_count)

    def blame(self, error: Exception) -> Exception:
        return error  # rows in memory: no file is to blame

    def find(self, ids: Seq[str], hashes: HashArray) -> dict[int, list[int]]:
        # Only the newest row of an id can be alive, and an older view than the newest row is asked only about live rows.
        found: dict[int, list[int]] = {}
        for position, wanted in enumerate(ids):
            row = self.segment.row_of.get(wanted)
            if row is None:
                continue
            if row < self.row_count:
                found[position] = [row]
            else:  # written again after this view was taken
                older = np.flatnonzero(self.segment.hashes[: self.row_count] == hashes[position]).tolist()
                found[position] = [r for r in older if self.segment.ids[r] == wanted]
        return found
