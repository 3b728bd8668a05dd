"""The log port: ordered, durable entries, one sequence a shard. On one node a file, in a cluster a replicated stream.

Contract, the same for every adapter (`tests/contract/test_log_contract.py`):
- `append` returns when its entries are durable: on the disk, in a cluster on the disks of a majority.
- The entries of one call for one shard are stored one after the other, all of them or none.
- Sequences of a shard run 1, 2, 3, ... without gaps, in the order in which the entries became durable.
- Every subscriber sees each frame exactly once, in the order of its shards' logs, never before it is durable, and before its
  `append` returns.
- An entry that was acknowledged is returned by `read` until it is truncated, or opening or `read` raises CORRUPT naming the
  place: file and offset, or stream and sequence.
- An append that raised has left nothing, DISK_FULL and READ_ONLY for certain: it can be called again. After IO_ERROR, after
  UNAVAILABLE with `details["undecided"]`, or after the death of the process, its entries for a shard are there whole or not at all.

Promised by the log of one node alone (`LocalLog`):
- The entries of one call form one frame over all its shards: all of them are there or none, and subscribers get them at once.
  A replicated log has one frame an entry, each shard's entries are stored for themselves, and an append that raised names in
  `details["durable"]` the shards whose entries are stored (shard: last sequence).
- All subscribers see all shards' frames in one order, in the thread of some appender.

Promised by the replicated log alone (`JetStreamLog`):
- A request that is sent again within `LOG_DUPLICATES_S` (the same request id, part and number of parts for the same shard) is
  not stored again: `append` returns the places of the first. Entries without a request id are never taken for one another.
- Other processes append to the same log: what `last` says may be behind by the time it is read.
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
        """Make the entries durable; their sequences, in order.

        The arrays and lists in the entries must not be changed afterwards: subscribers may be given the same objects.
        Raises DISK_FULL, READ_ONLY, IO_ERROR, CLOSED, INVALID_ID (an id that is no Unicode text); a replicated log also
        UNAVAILABLE (`details["undecided"]`), REQUEST_TOO_LARGE, and NOT_FOUND for a shard that was never created.
        """
        ...

    def subscribe(self, handler: Callable[[Frame], None]) -> None:
        """Have every later frame delivered in log order.

        A handler must not raise, append, subscribe or close. A replica that opens reads first and subscribes before the
        first append.
        """
        ...

    def read(self, from_frame_of: dict[ShardId, Sequence]) -> Iterator[Frame]:
        """Frames in log order, entries before the shard's given sequence left out (a shard not named: from its first entry kept).

        It ends with the frames that were durable when it was called. Raises LOG_TRUNCATED when a sequence asked for is no
        longer kept; CORRUPT when a frame is damaged, or when a sequence asked for lies beyond last + 1: then the caller has
        applied an acknowledged entry that the log does not have. A replicated log goes through shard after shard, and
        raises UNAVAILABLE when too few servers are up.
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
        """Write a durable copy of what is kept, up to the newest durable entry or later, to a new folder; appends go on.

        The copy is a folder that the log of one node opens, whichever log it was made from. From a replicated one the frames
        are not those of the appends, and each shard's entries end where that shard's log ended when it was called.
        """
        ...

    def bytes_on_disk(self) -> int:
        """In a cluster: on one of the servers that hold the log, as they count."""
        ...

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
