"""Which live vectors were written up to a point of each shard's log: the old ones, for retention.

A vector's version is the sequence of the entry that wrote it last, so this is one comparison over the versions of a segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.segment.growing import GrowingView
from jadevectordb.segment.reader import SegmentReader
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard.view import DatabaseView, Part


def written_up_to(view: DatabaseView, sequences: Seq[int]) -> Iterator[tuple[SegmentReader, int]]:
    """Segment and row of each live vector whose version is at most its shard's of `sequences`. Reads only what is asked for."""
    assert len(sequences) == len(view.shards)
    for shard, last in zip(view.shards, sequences, strict=True):
        for part in shard.alive_parts():
            rows = np.flatnonzero(_versions(part) <= last)
            if part.alive is not None:
                rows = rows[bitmap.contains(part.alive, rows)]
            for row in rows.tolist():
                yield part.reader, row


def _versions(part: Part) -> npt.NDArray[np.int64]:
    reader = part.reader
    if isinstance(reader, SealedSegment):
        return reader.records.versions
    assert isinstance(reader, GrowingView)
    return reader.segment.versions[: reader.row_count]
