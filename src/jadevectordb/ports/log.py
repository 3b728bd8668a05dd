"""The log port: ordered, durable entries, one sequence a shard. On one node a file, in a cluster a replicated stream.

Contract, the same for every adapter (`tests/contract/test_log_contract.py`):
- `append` returns when its entries are durable. The entries of one call form one frame: after a crash all of them are there or none.
- Sequences of a shard run 1, 2, 3, ... without gaps, in the order of the frames.
- Every subscriber sees each frame exactly once, in log order, never before it is durable, and before its `append` returns.
- An entry that was acknowledged is returned by `read` until it is truncated, or opening or `read` raises CORRUPT naming file
  and offset.
- An append that raised has left nothing, DISK_FULL and READ_ONLY for certain: it can be called again. After IO_ERROR or the
  death of the process its frame is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.operations import Entry


@dataclass(frozen=True, slots=True)
class Delivered:
    """One entry with its place in its shard's log."""

    shard: ShardId
    sequence: Sequence
    entry: Entry


Frame = list[Delivered]  # what one append wrote, in order


class Log(Protocol):
    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> list[Sequence]:
        """Make the entries durable as one frame; their sequences, in order.

        The arrays and lists in the entries must not be changed afterwards: subscribers are given the same objects.
        Raises DISK_FULL, READ_ONLY, IO_ERROR, CLOSED, INVALID_ID (an id that is no Unicode text).
        """
        ...

    def subscribe(self, handler: Callable[[Frame], None]) -> None:
        """Have every later frame delivered in log order, in the thread of some appender.

        A handler must not raise, append, subscribe or close. A replica that opens reads first and subscribes before the
        first append.
        """
        ...

    def read(self, from_frame_of: dict[ShardId, Sequence]) -> Iterator[Frame]:
        """Frames in log order, entries before the shard's given sequence left out (a shard not named: from its first entry kept).

        It ends with the frames that were durable when it was called. Raises LOG_TRUNCATED when a sequence asked for is no
        longer kept; CORRUPT when a frame is damaged, or when a sequence asked for lies beyond last + 1: then the caller has
        applied an acknowledged entry that the log does not have.
        """
        ...

    def first(self, shard: ShardId) -> Sequence:
        """The oldest sequence still kept; last + 1 when none is."""
        ...

    def last(self, shard: ShardId) -> Sequence:
        """The newest durable sequence; 0 when there never was one."""
        ...

    def truncate(self, up_to: dict[ShardId, Sequence]) -> None:
        """Entries up to these sequences (inclusive) are needed no more; what can be freed is freed. A shard not named keeps all."""
        ...

    def sequence_at(self, shard: ShardId, time: HybridTime) -> Sequence:
        """The newest sequence of the shard whose entry's time is <= time; first - 1 when none is."""
        ...

    def copy_to(self, directory: Path) -> None:
        """Write a durable copy of what is kept, up to the newest durable entry or later, to a new folder; appends go on."""
        ...

    def bytes_on_disk(self) -> int: ...

    def close(self) -> None: ...


class FollowedLog(Protocol):
    """A log that another process writes, read from one place on as it grows. Used by one thread at a time."""

    @property
    def unread_bytes(self) -> int:
        """About how much was written since the last `read`."""
        ...

    def read(self) -> Iterator[Frame]:
        """The frames that became durable since the last one handed out; read not to the end, the next call goes on there.

        Raises LOG_TRUNCATED when what comes next was removed: start again from a newer checkpoint. CORRUPT, IO_ERROR.
        """
        ...

    def close(self) -> None: ...
