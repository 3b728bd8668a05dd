"""Reads that walk over rows instead of ranking them: counting, and pages of a scroll."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice, pairwise, repeat

import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.model.filters import Filter
from jadevectordb.query.allowed import allowed_rows
from jadevectordb.segment.reader import UNREADABLE
from jadevectordb.shard.view import DatabaseView, Part

Place = tuple[int, str]  # (hash of the id, id): where a vector stands in the order of a scroll
Found = tuple[int, str, int, int]  # a place, the index of the part, the row
_BLOCK_ROWS = 1024


def count(view: DatabaseView, node: Filter | None) -> int:
    """Live vectors that match."""
    if node is None:
        return view.live
    total = 0
    for part in view.parts:
        allowed = allowed_rows(part, node)
        total += part.live if allowed is None else allowed.count
    return total


def page(view: DatabaseView, node: Filter | None, after: Place | None, limit: int) -> list[tuple[str, Part, int]]:
    """The next `limit` live matching vectors in (hash of id, id) order, strictly after the given place.

    The order is that of hashes, fixed for an id whatever is written meanwhile: scrolling never shows a vector twice and
    never misses one that was there throughout.
    """
    walks = [_walk_safely(part, index, node, after) for index, part in enumerate(view.parts)]
    return [(name, view.parts[index], row) for _, name, index, row in islice(heapq.merge(*walks), limit)]


def by_id(view: DatabaseView, offset: int, limit: int) -> list[tuple[str, Part, int]]:
    """Live vectors in order of their ids, from the offset-th on. Reads every id: for paging by number, not for large scans."""
    places: list[tuple[str, int, int]] = []
    for index, part in enumerate(view.parts):
        reader = part.reader
        rows = list(range(reader.row_count)) if part.alive is None else bitmap.to_rows(part.alive).tolist()
        try:
            places += zip(reader.ids_of(rows), repeat(index), rows)
        except UNREADABLE as error:
            raise reader.blame(error) from error
    return [(name, view.parts[index], row) for name, index, row in heapq.nsmallest(offset + limit, places)[offset:]]


def _walk_safely(part: Part, index: int, node: Filter | None, after: Place | None) -> Iterator[Found]:
    try:
        yield from _walk(part, index, node, after)
    except UNREADABLE as error:
        raise part.reader.blame(error) from error


def _walk(part: Part, index: int, node: Filter | None, after: Place | None) -> Iterator[Found]:
    """The part's live matching vectors after the place, in order, read as far as they are asked for."""
    allowed = allowed_rows(part, node)
    if allowed is not None and allowed.count == 0:
        return
    reader = part.reader
    bits = None if allowed is None else allowed.as_bits(reader.row_count)
    hashes, rows = reader.hash_order()
    start = 0 if after is None else int(np.searchsorted(hashes, np.uint64(after[0]), "left"))
    while start < len(hashes):
        end = min(start + _BLOCK_ROWS, len(hashes))
        if end < len(hashes):  # ids that share a hash stay in one block, to be put in order of id
            end = int(np.searchsorted(hashes, hashes[end - 1], "right"))
        some_hashes, some_rows = hashes[start:end], rows[start:end].astype(np.int64)
        if bits is not None:
            keep = bitmap.contains(bits, some_rows)
            some_hashes, some_rows = some_hashes[keep], some_rows[keep]
        places = list(zip(some_hashes.tolist(), some_rows.tolist(), strict=True))
        if any(one[0] == next_one[0] for one, next_one in pairwise(places)):
            places.sort(key=lambda place: (place[0], reader.id_of(place[1])))
        for value, row in places:
            name = reader.id_of(row)
            if after is None or (value, name) > after:
                yield value, name, index, row
        start = end
