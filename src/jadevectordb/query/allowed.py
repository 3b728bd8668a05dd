"""Which rows of a segment a read may return: those that live and match its filter."""

from __future__ import annotations

from jadevectordb.index import bitmap
from jadevectordb.index.columns import Selection
from jadevectordb.model.filters import Filter
from jadevectordb.segment.reader import Allowed
from jadevectordb.shard.view import Part

_ROWS_RATHER_THAN_BITS = (
    4096  # matches up to which row numbers are handed down: an index compares so few exactly anyway
)


def allowed_rows(part: Part, node: Filter | None) -> Allowed | None:
    """Rows of the part that live and match; None when all do."""
    if node is None:
        return None if part.alive is None else Allowed(part.live, part.alive, None)
    selection: Selection = part.reader.select(node)
    if selection.count <= _ROWS_RATHER_THAN_BITS:
        rows = selection.rows()
        if part.alive is not None:
            rows = rows[bitmap.contains(part.alive, rows)]
        return Allowed(len(rows), None, rows)
    bits = selection.bits()
    if part.alive is None:
        return Allowed(selection.count, bits, None)
    bits = bitmap.both(bits, part.alive)
    return Allowed(bitmap.count(bits), bits, None)
