"""Filters over rows: metadata turned into columns, so that a filter over a million rows is answered in a fraction of a millisecond.

Every path of the metadata gets a column without being declared; declaring it makes it typed. The answer is always exact: what a column
cannot hold (text fields, the end of strings beyond 256 bytes, integers that a float column would round, fields beyond the first 512)
is marked row by row, and those rows are decided by the reference evaluator from their records.

In reading order: `column_gather` takes JSON apart, `column_build` and `postings` write sorted arrays, `column_file` is their form on disk,
`column_read` finds keys in them, `column_conditions` and `column_parts` make answers, `column_set` is one sealed block, `column_growing`
the rows that are still being written. This module is what the rest of the engine uses.
"""

from __future__ import annotations

from jadevectordb.index.column_build import build_columns
from jadevectordb.index.column_growing import GrowingColumns
from jadevectordb.index.column_set import ColumnSet, Record, open_columns
from jadevectordb.index.selection import Selection

__all__ = ["ColumnSet", "GrowingColumns", "Record", "Selection", "build_columns", "open_columns"]
