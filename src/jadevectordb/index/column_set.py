"""The columns of one block of rows, and how a filter runs over them.

A filter becomes a tree of parts (`column_parts`), one for each condition, made by the column of its path (`column_conditions`). What a
column does not hold completely is decided by the reference evaluator from the records of just those rows, so the answer is always exact.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from jadevectordb.index.column_cache import SelectionCache
from jadevectordb.index.column_conditions import Leaf, said_by
from jadevectordb.index.column_file import ArrayReader, Directory, open_files
from jadevectordb.index.column_parts import Checked, Either, Every, Inverse, KeyRange, Known, Part
from jadevectordb.index.column_read import Column, read_rows
from jadevectordb.index.selection import Selection
from jadevectordb.model import limits
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filters import (
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    In,
    Not,
    NotIn,
    Or,
    Regex,
)
from jadevectordb.model.schema import FieldType, Schema

Record = Callable[[int], bytes]  # a row's metadata as it is stored

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def open_columns(directory: Path, row_count: int, schema: Schema | None = None) -> ColumnSet:
    """Map the columns in a folder. schema: the one that filters follow now; None: the one they were built with.

    Raises CORRUPT when they are damaged or of another number of rows, FORMAT_TOO_NEW, IO_ERROR.
    """
    return ColumnSet(*open_files(directory, row_count), schema)


class ColumnSet:
    """The columns of one block of rows, which never change. Safe for threads.

    The arrays of an answer may lie in the mapped file: it stays mapped as long as any of them is in use.
    """

    def __init__(self, directory: Directory, reader: ArrayReader, schema: Schema | None = None) -> None:
        self.row_count = directory.row_count
        self._directory = directory
        self._reader = reader
        # Columns hold what values are; the schema only says how filters compare them, so another one needs no new columns.
        dates = directory.dates if schema is None else schema.dates
        self._schema = Schema(dict.fromkeys(dates, FieldType.DATE))
        self._columns: dict[str, Column] = {}  # those used so far
        self._cache = SelectionCache(limits.COLUMN_CACHE_BYTES_MAX, limits.COLUMN_CACHE_ENTRIES_MAX)

    def evaluate(self, node: Filter, record: Record) -> Selection:
        """The rows that satisfy the filter, exactly.

        record: gives a row's metadata; called for nothing but rows that the columns do not hold completely. Raises CORRUPT.
        """
        known = self._cache.get(node)
        if known is None:
            known = self._part(node, record).solve()
            self._cache.put(node, known)
        return known

    @property
    def memory_bytes(self) -> int:
        """Memory beyond the page cache: remembered answers, samples of strings, the directory, and columns not in a file."""
        used = [column.strings for column in list(self._columns.values()) if "strings" in column.__dict__]
        samples = sum(strings.memory_bytes for strings in used if strings is not None)
        held = len(self._reader.buffer) if isinstance(self._reader.buffer, bytes) else 0
        return self._cache.bytes_used + samples + held + 2000 * len(self._directory.columns)

    def _part(self, node: Filter, record: Record) -> Part:
        match node:
            case And():
                return Every(_merged([self._part(part, record) for part in node.parts]), self.row_count)
            case Or():
                return Either([self._part(part, record) for part in node.parts], self.row_count)
            case Not():
                return Inverse(self._part(node.part, record), self.row_count)
            case Compare(op="ne"):
                return Inverse(self._leaf(Compare("eq", node.path, node.kind, node.value), record), self.row_count)
            case NotIn():
                members = In(node.path, node.strings, node.numbers, node.instants, node.true, node.false, node.null)
                return Inverse(self._leaf(members, record), self.row_count)
            case Exists(present=False):
                return Inverse(self._leaf(Exists(node.path), record), self.row_count)
            case _:
                return self._leaf(node, record)

    def _leaf(self, node: Leaf, record: Record) -> Part:
        """A condition on one path that is not a negation, with rows that only their records can decide."""
        if isinstance(node, Contains | Regex) and (known := self._cache.get(node)) is not None:
            return Known(known)
        column = self._column(node.path)
        if column is None:
            holds = matches(node, {}, self._schema)
            said: Part = Known(Selection.everything(self.row_count) if holds else Selection.nothing(self.row_count))
            unsure = read_rows(self._directory.overflow, self.row_count, self._reader)
        else:
            said, open_rows = said_by(column, node, self._schema)
            unsure = Selection.union(open_rows, self.row_count)
        if not unsure.count:
            # A search through all distinct strings is worth remembering, whatever it is combined with.
            return Known(self._remembered(node, said)) if isinstance(node, Contains | Regex) else said
        schema = self._schema
        return Checked(said, unsure, lambda row: matches(node, _decode(record(row)), schema))

    def _remembered(self, node: Leaf, part: Part) -> Selection:
        answer = part.solve()
        self._cache.put(node, answer)
        return answer

    def _column(self, path: str) -> Column | None:
        column = self._columns.get(path)
        if column is None and (ref := self._directory.columns.get(path)) is not None:
            # Two threads may both make one: they are the same, and the later one stays.
            column = self._columns[path] = Column(ref, self.row_count, self._reader)
        return column


def _merged(parts: list[Part]) -> list[Part]:
    """Parts of a conjunction with the ranges over one dictionary made into one: `year >= 2000 and year < 2010` is a single range.

    Only where a row has one key at most: of several, one could satisfy the first range and another the second.
    """
    ranges: dict[int, KeyRange] = {}
    merged: list[Part] = []
    for part in parts:
        if not isinstance(part, KeyRange) or not part.postings.has_codes:
            merged.append(part)
        elif (other := ranges.get(id(part.postings))) is None:
            ranges[id(part.postings)] = part
        else:
            both = KeyRange(part.postings, max(part.low, other.low), min(part.high, other.high))
            ranges[id(part.postings)] = both
    return [*ranges.values(), *merged]
