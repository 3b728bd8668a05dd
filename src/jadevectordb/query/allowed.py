"""Which rows of a segment a read may return: those that live and match its filter.

The answer for a filter is kept with the part it was worked out for, which never changes: the same few filters come back, and an
index remembers what it learned of a set of rows by the very object.
"""

from __future__ import annotations

from jadevectordb.index import bitmap
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import FILTERS_REMEMBERED_MAX
from jadevectordb.segment.reader import Allowed
from jadevectordb.shard.view import Part

_ROWS_RATHER_THAN_BITS = 512  # matches up to which row numbers are handed down: so few are compared at once


def allowed_rows(part: Part, node: Filter | None) -> Allowed | None:
    """Rows of the part that live and match; None when all do."""
    if node is None:
        return None if part.alive is None else Allowed(part.live, part.alive, None)
    allowed = part.remembered.get(node)
    if allowed is None:
        allowed = _allowed(part, node)
        if len(part.remembered) >= FILTERS_REMEMBERED_MAX:
            part.remembered.clear()
        part.remembered[node] = allowed
    return allowed


def _allowed(part: Part, node: Filter) -> Allowed:
    selection = part.reader.select(node)
    if selection.count <= _ROWS_RATHER_THAN_BITS:
        rows = selection.rows()
        if part.alive is not None:
            rows = rows[bitmap.contains(part.alive, rows)]
        return Allowed(len(rows), None, rows)
    if part.alive is None:
        return Allowed(selection.count, selection.bits(), None)
    bits = bitmap.both(selection.bits(), part.alive)
    return Allowed(bitmap.count(bits), bits, None)
