"""The small file that says what a shard consists of at one place of its log: opening is this plus the entries after it.

It is replaced atomically. Everything it names is on disk before it is written, and what it no longer names is removed after.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.model.ids import Sequence
from jadevectordb.segment import manifest as manifests
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard.causality import CausalState
from jadevectordb.shard.layout import Span
from jadevectordb.shard.view import Part

CHECKPOINT_NAME = "checkpoint"


class SegmentEntry(msgspec.Struct, frozen=True):
    """name: the segment's folder. alive: bitmap of live rows as of the checkpoint, None = all."""

    name: str
    alive: bytes | None


class Checkpoint(msgspec.Struct, frozen=True):
    """applied: the entry it is the state after. generation: grows with every segment folder, so that names are never reused."""

    format: int
    applied: int
    next_unit: int
    generation: int
    segments: list[SegmentEntry]
    spans: list[Span]
    requests: list[tuple[tuple[str, int], tuple[int, int]]]
    newest_time: int = 0  # the greatest hybrid time among the entries up to `applied`
    causal: CausalState | None = None  # absent where no write at EVENTUAL has arrived


EMPTY = Checkpoint(manifests.FORMAT_VERSION, 0, 0, 0, [], [], [])


def read_checkpoint(directory: Path) -> Checkpoint:
    """The checkpoint in this folder; EMPTY when none was ever written. Raises CORRUPT or FORMAT_TOO_NEW."""
    path = directory / CHECKPOINT_NAME
    if not path.exists():
        return EMPTY
    return manifests.read_sealed_bytes(path, Checkpoint)


def entry_of(part: Part) -> SegmentEntry:
    return SegmentEntry(part.reader.name, None if part.alive is None else part.alive.tobytes())


def part_of(segment: SealedSegment, entry: SegmentEntry) -> Part:
    """The part as it was at the checkpoint."""
    if entry.alive is None:
        return Part(segment, None, segment.row_count)
    alive = np.frombuffer(entry.alive, np.uint8)
    if len(alive) != bitmap.size_bytes(segment.row_count):
        raise manifests.corrupt(segment.directory, "does not fit its tombstones")
    return Part(segment, alive, bitmap.count(alive))


def sequence_of(checkpoint: Checkpoint) -> Sequence:
    return Sequence(checkpoint.applied)
