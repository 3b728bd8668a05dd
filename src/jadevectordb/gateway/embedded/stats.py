"""What a database is made of right now, in figures that can be checked against the operating system's."""

from __future__ import annotations

import msgspec

from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.segment.growing import GrowingView
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard.checkpoint import CHECKPOINT_NAME


class SegmentStats(msgspec.Struct, frozen=True):
    """index: "growing", "not built yet", or the kind. memory_bytes: beyond the page cache. disk_bytes: its folder."""

    shard: int
    name: str
    index: str
    rows: int  # dead rows included
    live: int
    memory_bytes: int
    disk_bytes: int


class Stats(msgspec.Struct, frozen=True):
    """rows: live vectors; indexed + not yet indexed = rows. watermarks: newest applied log entry of each shard.

    memory_bytes: what the database keeps in this process beyond the page cache: growing rows, coarse centroids and other
    index state, tombstones, filter caches. Mapped files are page cache and not counted: the system takes them back at need.
    trouble: why background work can't go on, "" when it can.
    """

    name: str
    dimension: int
    metric: str
    shards: int
    rows: int
    indexed_rows: int
    dead_rows: int
    segments: list[SegmentStats]
    memory_bytes: int
    disk_bytes: int
    log_bytes: int
    watermarks: list[int]
    trouble: str
    rows_to_build: int = 0  # in segments on disk that the background is to build an index for, or another one
    settled: bool = True  # every row that was sealed is in an indexed segment as planned

    def as_dict(self) -> dict[str, object]:
        plain: dict[str, object] = msgspec.to_builtins(self)
        return plain


def stats_of(database: OpenDatabase) -> Stats:
    """A consistent picture of the current view; the figures of the log and of folders are those of the same moment."""
    view = database.view
    segments = []
    for shard, shard_view in enumerate(view.shards):
        for part in shard_view.parts:
            reader, memory, disk = part.reader, 0 if part.alive is None else len(part.alive), 0
            if isinstance(reader, GrowingView):
                memory += reader.segment.bytes_in_memory
            elif isinstance(reader, SealedSegment):
                memory += reader.memory_bytes
                disk = reader.disk_bytes
            index = reader.index_kind or "not built yet"
            segments.append(SegmentStats(shard, reader.name, index, reader.row_count, part.live, memory, disk))
    log_bytes = database.log.bytes_on_disk()
    checkpoints = sum(_size(database, replica.shard) for replica in database.replicas)
    trouble = database.maintenance.trouble
    return Stats(
        name=database.config.name,
        dimension=database.config.dimension,
        metric=str(database.config.metric),
        shards=database.config.shards,
        rows=view.live,
        indexed_rows=sum(s.live for s in segments if s.index not in ("growing", "not built yet")),
        dead_rows=sum(s.rows - s.live for s in segments),
        segments=segments,
        memory_bytes=sum(s.memory_bytes for s in segments),
        disk_bytes=sum(s.disk_bytes for s in segments) + checkpoints + log_bytes,
        log_bytes=log_bytes,
        watermarks=[int(shard.watermark) for shard in view.shards],
        trouble="" if trouble is None else str(trouble),
        rows_to_build=sum(build.rows for replica in database.replicas for build in replica.planned_builds()),
        settled=database.maintenance.is_settled,
    )


def _size(database: OpenDatabase, shard: int) -> int:
    path = database.replicas[shard].directory / CHECKPOINT_NAME
    return path.stat().st_size if path.exists() else 0
