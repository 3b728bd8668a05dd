"""The pieces that an answer is put together from, each of which knows how many rows it can have before any row is touched.

A filter becomes a tree of parts. `solve` gives a part's rows; `keep` tests given rows and is what makes a conjunction cheap: its smallest
part is solved, the others only judge the rows that are left. Records are read for nothing but rows that every column left standing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.bitmap import Mask, RowArray
from jadevectordb.index.postings import KeyArray, Postings
from jadevectordb.index.selection import Selection


class Part(Protocol):
    """bound: at most this many rows. reads_records: `solve` and `keep` may have to look at records."""

    @property
    def bound(self) -> int: ...
    @property
    def reads_records(self) -> bool: ...
    def solve(self) -> Selection: ...
    def keep(self, rows: RowArray) -> Mask:
        """For each row, whether it is in; bool, as long as rows."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """Rows that are known already."""

    selection: Selection
    reads_records: bool = False

    @property
    def bound(self) -> int:
        return self.selection.count

    def solve(self) -> Selection:
        return self.selection

    def keep(self, rows: RowArray) -> Mask:
        return self.selection.keep(rows)


@dataclass(slots=True)
class KeyRange:
    """Rows with a key in low..high-1 of a dictionary."""

    postings: Postings
    low: int
    high: int
    reads_records: bool = False
    _solved: Selection | None = None

    @property
    def bound(self) -> int:
        return self.postings.total(self.low, self.high) if self.low < self.high else 0

    def solve(self) -> Selection:
        if self._solved is None:
            self._solved = self.postings.select(self.low, self.high)
        return self._solved

    def keep(self, rows: RowArray) -> Mask:
        if self.low >= self.high:
            return np.zeros(len(rows), np.bool_)
        kept = self.postings.keep(rows, self.low, self.high)
        return self.solve().keep(rows) if kept is None else kept


@dataclass(slots=True)
class KeySet:
    """Rows with one of the keys; ascending, each once."""

    postings: Postings
    keys: KeyArray
    reads_records: bool = False
    _solved: Selection | None = None

    @property
    def bound(self) -> int:
        return self.postings.totals(self.keys)

    def solve(self) -> Selection:
        if self._solved is None:
            self._solved = self.postings.select_keys(self.keys)
        return self._solved

    def keep(self, rows: RowArray) -> Mask:
        return self.solve().keep(rows)


@dataclass(frozen=True, slots=True)
class Inverse:
    part: Part
    row_count: int

    @property
    def reads_records(self) -> bool:
        return self.part.reads_records

    @property
    def bound(self) -> int:
        # An upper bound of the part says nothing about what is left, unless the part is exactly known.
        return self.row_count - self.part.bound if isinstance(self.part, Known) else self.row_count

    def solve(self) -> Selection:
        return self.part.solve().inverse()

    def keep(self, rows: RowArray) -> Mask:
        return ~self.part.keep(rows)


@dataclass(frozen=True, slots=True)
class Every:
    """Rows that are in all parts; every row when there is none."""

    parts: list[Part]
    row_count: int

    @property
    def reads_records(self) -> bool:
        return any(part.reads_records for part in self.parts)

    @property
    def bound(self) -> int:
        return min((part.bound for part in self.parts), default=self.row_count)

    def solve(self) -> Selection:
        if not self.parts:
            return Selection.everything(self.row_count)
        first, *others = self._cheapest_first()
        left = first.solve()
        for part in others:
            if left.count == 0:
                break
            if left.is_sparse or part.reads_records:
                rows = left.rows()
                left = Selection.of_rows(rows[part.keep(rows)], self.row_count)
            else:
                left = Selection.of_bits(bitmap.both(left.bits(), part.solve().bits()), self.row_count)
        return left

    def keep(self, rows: RowArray) -> Mask:
        kept = np.ones(len(rows), np.bool_)
        at = np.arange(len(rows))
        for part in self._cheapest_first():
            passed = part.keep(rows)
            kept[at[~passed]] = False
            rows, at = rows[passed], at[passed]
        return kept

    def _cheapest_first(self) -> list[Part]:
        return sorted(self.parts, key=lambda part: (part.reads_records, part.bound))


@dataclass(frozen=True, slots=True)
class Either:
    """Rows that are in at least one part."""

    parts: list[Part]
    row_count: int

    @property
    def reads_records(self) -> bool:
        return any(part.reads_records for part in self.parts)

    @property
    def bound(self) -> int:
        return min(self.row_count, sum(part.bound for part in self.parts))

    def solve(self) -> Selection:
        known = Selection.union([part.solve() for part in self.parts if not part.reads_records], self.row_count)
        for part in self.parts:
            if part.reads_records and known.count < self.row_count:
                open_rows = known.inverse()  # a row that is in already needs no record
                rows = open_rows.rows()
                more = Selection.of_rows(rows[part.keep(rows)], self.row_count)
                known = Selection.union([known, more], self.row_count)
        return known

    def keep(self, rows: RowArray) -> Mask:
        kept = np.zeros(len(rows), np.bool_)
        for part in sorted(self.parts, key=lambda part: part.reads_records):
            at = np.flatnonzero(~kept)
            kept[at] = part.keep(rows[at])
        return kept


@dataclass(frozen=True, slots=True)
class Checked:
    """What a column says, except for rows it does not hold completely: those are decided by their records."""

    said: Part
    unsure: Selection
    test: Callable[[int], bool]
    reads_records: bool = field(default=True, init=False)

    @property
    def bound(self) -> int:
        return self.said.bound + self.unsure.count

    def solve(self) -> Selection:
        row_count = self.unsure.row_count
        sure = self.said.solve().without(self.unsure)
        rows = self.unsure.rows()
        return Selection.union([sure, Selection.of_rows(rows[self._tested(rows)], row_count)], row_count)

    def keep(self, rows: RowArray) -> Mask:
        unsure = self.unsure.keep(rows)
        kept = self.said.keep(rows) & ~unsure
        kept[unsure] = self._tested(rows[unsure])
        return kept

    def _tested(self, rows: RowArray) -> Mask:
        return np.fromiter(map(self.test, rows.tolist()), np.bool_, len(rows))
