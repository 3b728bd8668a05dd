"""The log of one replica: one shard's part of a database's replicated log, as the engine's log port.

The engine opens a replica as a database with one shard, so its shard 0 is shard N of the replicated log. Nothing is read while it opens:
its place in the log is remembered, and everything after that is delivered once it is subscribed. So a replica opens, and shows
what its files hold, while the log's servers are away; whether the log still has what it needs is found by following, and told
to `on_error`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.operations import Entry, PlacedWrite
from jadevectordb.ports.log import Delivered, Frame

_SHARD = ShardId(0)  # of the engine


class Following(Protocol):
    """One run through a shard's log; see `ReplicatedLog.follow`."""

    @property
    def trouble(self) -> str:
        """Why nothing is received at the moment; "" when all is well."""
        ...

    def close(self) -> None:
        """The handler is not called after this returns. Again is fine."""
        ...


class ReplicatedLog(Protocol):
    """What a replica needs of a database's replicated log; `adapters.jetstream_log` is one."""

    def follow(
        self,
        shard: ShardId,
        from_sequence: Sequence,
        handler: Callable[[Delivered], None],
        on_error: Callable[[JadeError], None],
    ) -> Following:
        """Have every entry from this one on delivered, in order, each once, from a thread of its own.

        on_error: called once with what ends it: LOG_TRUNCATED, CORRUPT, NOT_FOUND, CLOSED, INTERNAL_ERROR (the handler raised).
        """
        ...

    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> list[Sequence]: ...
    def first(self, shard: ShardId) -> Sequence: ...
    def last(self, shard: ShardId) -> Sequence: ...
    def close(self) -> None: ...


class ShardLog:
    """The log port over one shard of a replicated log, which it owns."""

    def __init__(
        self,
        log: ReplicatedLog,
        shard: ShardId,
        applied: Sequence,
        *,
        admit: Callable[[], bool],
        on_error: Callable[[JadeError], None],
        here: int | None = None,
    ) -> None:
        """shard: whose log it is. applied: where the replica's checkpoint stands. here: the replica's shard, when it is another one.

        admit: called before each entry is delivered, and may wait; False: nothing is to be delivered any more. on_error: as of
        `ReplicatedLog.follow`.
        """
        self._log = log
        self._shard = shard
        self._here = int(shard) if here is None else here
        self._admit = admit
        self._on_error = on_error
        self._handed_out = applied
        self._handler: Callable[[Frame], None] | None = None
        self._lock = threading.Lock()  # guards the following and the end
        self._following: Following | None = None
        self._closed = False
        self.checkpointed = applied  # the replica's files hold the log up to here

    # --- what the engine calls ----------------------------------------------------------------------------------------

    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> list[Sequence]:
        """Refused: a replica follows its log, and whoever writes appends to the log itself."""
        raise JadeError(
            ErrorCode.READ_ONLY,
            f"This is one replica of shard {self._shard}: it is written through the database's log.",
        )

    def subscribe(self, handler: Callable[[Frame], None]) -> None:
        assert self._handler is None, "a replica's log has one subscriber"
        self._handler = handler
        self.follow_on()

    def read(self, from_frame_of: dict[ShardId, Sequence]) -> Iterator[Frame]:
        """Nothing: what comes after the checkpoint is delivered, not read."""
        assert from_frame_of.get(_SHARD) == self._handed_out + 1, "a replica follows from where its checkpoint stands"
        return iter(())

    def first(self, shard: ShardId) -> Sequence:
        """Asks the log's servers, as `Log.first`. Raises UNAVAILABLE, NOT_FOUND."""
        return self._log.first(self._shard)

    def last(self, shard: ShardId) -> Sequence:
        """The newest entry that was handed to this replica; `end` asks how far the log goes."""
        return self._handed_out

    def truncate(self, up_to: dict[ShardId, Sequence]) -> None:
        """Notes what this replica needs no more; the log is truncated when no replica needs it."""
        self.checkpointed = max(self.checkpointed, up_to[_SHARD])

    def sequence_at(self, shard: ShardId, time: HybridTime) -> Sequence:
        raise JadeError(ErrorCode.NOT_IMPLEMENTED, "A replica does not look into the past of its log.")

    def copy_to(self, directory: Path) -> None:
        """Nothing is copied: the replicated log itself continues a copy of the replica."""

    def bytes_on_disk(self) -> int:
        """0: no part of the log is in the replica's folder."""
        return 0

    def close(self) -> None:
        """End following, and close the replicated log. Again is fine. Not to be called by the handler."""
        with self._lock:
            self._closed = True
            following, self._following = self._following, None
        if following is not None:
            following.close()
        self._log.close()

    # --- what hosts the replica calls ---------------------------------------------------------------------------------

    def follow_on(self) -> None:
        """Follow from the entry after the last one handed out: at first, and again after `on_error` was called. Raises CLOSED."""
        with self._lock:
            if self._closed:
                return
            before = self._following
        if before is not None:
            before.close()
        following = self._log.follow(self._shard, Sequence(self._handed_out + 1), self._deliver, self._on_error)
        with self._lock:
            if not self._closed:
                self._following = following
                return
        following.close()

    def end(self) -> Sequence:
        """The newest sequence of the log. Asks the log's servers; raises UNAVAILABLE, NOT_FOUND."""
        return self._log.last(self._shard)

    @property
    def trouble(self) -> str:
        """Why nothing is received from the log; "" when all is well."""
        following = self._following
        return "" if following is None else following.trouble

    def _deliver(self, delivered: Delivered) -> None:
        if self._admit():
            assert self._handler is not None and delivered.sequence == self._handed_out + 1
            self._handler([Delivered(_SHARD, delivered.sequence, _seen_by(self._here, delivered.entry))])
            self._handed_out = delivered.sequence


def _seen_by(shard: int, entry: Entry) -> Entry:
    """The entry as one of several shards that share a log has to apply it."""
    operation = entry.operation
    if isinstance(operation, PlacedWrite) and operation.here != shard:
        return replace(entry, operation=replace(operation, here=shard))
    return entry
