"""Writes at EVENTUAL: durable on this node when they are answered, published to the replicated log in the background.

A frame lies in a log of this node alone (synced) until the replicated log has it; then it is forgotten here. Every entry has a
request id, so that what a crash makes this node publish again is applied once. Frames keep their order.

Small frames that wait are published together: one after the other, each would take the log's disks and network its own time. The
replicated log knows a batch by its parts, and would refuse half of one beside something else. So a group that was not published, as far as
is known, is tried again as it is, and what another process may have tried, or a group was refused for, goes frame by frame.

Lag is counted for each entry: from the moment when it was durable here, which is when its writer gets the answer, until the
replicated log has it on the disks of a majority. Replicas apply it after that. Of entries that a stop or crash left here it is
counted from the time that they carry, by this machine's clock.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.hybrid_time import to_ms
from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.limits import (
    LOG_REQUEST_ENTRIES_MAX,
    OUTBOX_BYTES_MAX,
    OUTBOX_PAUSE_S_MAX,
    OUTBOX_PAUSE_S_MIN,
)
from jadevectordb.model.operations import Delete, DeleteWhere, Entry, Operation, Update, Write
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.log import Frame, Log

logger = logging.getLogger("jadevectordb.outbox")
_ENTRY_BYTES = 200  # of an entry beside its vectors and metadata, about
_FORGET_AFTER_S, _FORGET_EVERY = (
    0.5,
    64,
)  # the log of this node is cut when nothing came for so long, or after so many frames
_GROUP_BYTES_MAX = 1 << 20  # of frames that are published together
LAG_BOUNDS_S = (
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
)  # fmt: skip
_REFUSALS = frozenset({ErrorCode.NOT_FOUND, ErrorCode.REQUEST_TOO_LARGE, ErrorCode.INVALID_ID})

Publish = Callable[[Seq[tuple[ShardId, Entry]]], object]  # to the replicated log; durable on return


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """entries, bytes: that wait. lag_s: since the oldest of them was taken. trouble: why the newest try failed, "" = it did not.

    lag_counts: entries published, by how long that took: up to each of LAG_BOUNDS_S, and longer than all. lag_sum_s: of all of them.
    """

    entries: int
    bytes: int
    lag_s: float
    published: int  # entries, since this outbox was opened
    refused: int  # entries that the replicated log will never take, such as of a database that was dropped
    trouble: str
    lag_counts: tuple[int, ...]
    lag_sum_s: float


@dataclass(slots=True)
class _Waiting:
    """alone: not to be published together with others."""

    frame: Frame
    bytes: int
    taken_s: float
    alone: bool


class Outbox:
    """Of one database on one node. log: its own, owned by this object. Thread-safe.

    What is in the log when it is opened was taken before, and is published first.
    """

    def __init__(
        self, log: Log, shards: int, publish: Publish, clock: Clock, *, bytes_max: int = OUTBOX_BYTES_MAX
    ) -> None:
        self._log = log
        self._publish = publish
        self._clock = clock
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._entries = 0
        self._coming_bytes = 0  # of writers that are between the check for room and their frame
        self._published = self._refused = 0
        self._trouble = ""
        self._lag_counts = [0] * (len(LAG_BOUNDS_S) + 1)
        self._lag_sum_s = 0.0
        self._gone: dict[ShardId, Sequence] = {}  # published, by the outbox's own thread alone
        self._closing = False
        log_shards = [ShardId(number) for number in range(shards)]
        self.newest_time = 0  # the greatest hybrid time among the entries that were here when it was opened
        for frame in log.read({shard: log.first(shard) for shard in log_shards}):
            times = [one.entry.time for one in frame]
            self.newest_time = max(self.newest_time, *times)
            age_s = max(0.0, (clock.now_ms() - to_ms(HybridTime(max(times)))) / 1000)
            self._take(frame, age_s, alone=True)
        log.subscribe(self._take)
        self._thread = threading.Thread(target=self._run, name="jade-outbox", daemon=True)
        self._thread.start()

    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> None:
        """Durable on this node on return. Raises UNAVAILABLE when too much waits, and what the disk makes it raise."""
        assert all(entry.request_id for _, entry in entries), "what may be published twice must be known by its request"
        size = sum(_bytes_of(entry.operation) for _, entry in entries)
        with self._changed:
            if self._closing:
                raise JadeError(ErrorCode.CLOSED, "This node stops: send the write to another one.")
            if self._bytes + self._coming_bytes + size > self._bytes_max and (self._waiting or self._coming_bytes):
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"{self._entries} entries wait on this node to be published, as many as it takes"
                    f"{f' ({self._trouble})' if self._trouble else ''}: retry in a moment, or write at QUORUM.",
                    details={"undecided": False, "waiting": self._entries},
                )
            self._coming_bytes += size
        try:
            self._log.append(entries)
        finally:
            with self._changed:
                self._coming_bytes -= size

    def _take(self, frame: Frame, age_s: float = 0.0, *, alone: bool = False) -> None:
        taken_s = self._clock.monotonic_s() - age_s
        waiting = _Waiting(frame, sum(_bytes_of(one.entry.operation) for one in frame), taken_s, alone)
        with self._changed:
            self._waiting.append(waiting)
            self._bytes += waiting.bytes
            self._entries += len(frame)
            self._changed.notify_all()

    def figures(self) -> OutboxFigures:
        with self._changed:
            lag_s = self._clock.monotonic_s() - self._waiting[0].taken_s if self._waiting else 0.0
            return OutboxFigures(
                self._entries, self._bytes, lag_s, self._published, self._refused, self._trouble,
                tuple(self._lag_counts), self._lag_sum_s,
            )  # fmt: skip

    def wait_published(self, wait_s: float) -> bool:
        """Until nothing waits; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, wait_s)

    # In the background

    def _run(self) -> None:
        pause_s, unforgotten = OUTBOX_PAUSE_S_MIN, 0
        group: list[_Waiting] = []
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: bool(self._waiting) or self._closing, _FORGET_AFTER_S if unforgotten else None
                )
                if self._closing:
                    return
                if not group:
                    group = self._group()
            if not group:
                self._forget()
                unforgotten = 0
                continue
            if not self._try(group):
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, pause_s)
                pause_s = min(OUTBOX_PAUSE_S_MAX, pause_s * 2)
                continue
            pause_s = OUTBOX_PAUSE_S_MIN
            unforgotten += len(group)
            group = []
            if unforgotten >= _FORGET_EVERY:
                self._forget()
                unforgotten = 0

    def _group(self) -> list[_Waiting]:
        """The frames to publish next, as many as may go together."""
        group: list[_Waiting] = []
        entries, size = 0, 0
        for one in self._waiting:
            entries += len(one.frame)
            size += one.bytes
            if group and (one.alone or entries > LOG_REQUEST_ENTRIES_MAX or size > _GROUP_BYTES_MAX):
                break
            group.append(one)
            if one.alone:
                break
        return group

    def _try(self, group: list[_Waiting]) -> bool:
        """Whether to go on with those that wait now; else it is to be tried again with these."""
        try:
            self._publish([(one.shard, one.entry) for waiting in group for one in waiting.frame])
        except JadeError as error:
            if error.code not in _REFUSALS:
                with self._changed:
                    if not self._trouble:
                        logger.warning("writes at EVENTUAL wait on this node: %s", error)
                    self._trouble = error.message
                return False
            if len(group) > 1:  # it may be the fault of one of them
                for waiting in group:
                    waiting.alone = True
            else:
                logger.error("a write that was answered at EVENTUAL can't be published and is dropped: %s", error)
                self._done(group[0], refused=True)
        else:
            for waiting in group:
                self._done(waiting, refused=False)
        return True

    def _forget(self) -> None:
        """Cut this node's log. A crash before it publishes what was published once more, which request ids make harmless."""
        try:
            self._log.truncate(dict(self._gone))
        except JadeError as error:
            logger.warning("published writes stay on this node's disk for now: %s", error)

    def _done(self, first: _Waiting, *, refused: bool) -> None:
        for one in first.frame:
            self._gone[one.shard] = one.sequence
        with self._changed:
            assert self._waiting[0] is first
            self._waiting.popleft()
            self._bytes -= first.bytes
            self._entries -= len(first.frame)
            if refused:
                self._refused += len(first.frame)
            else:
                self._published += len(first.frame)
                lag_s = self._clock.monotonic_s() - first.taken_s
                self._lag_counts[bisect_left(LAG_BOUNDS_S, lag_s)] += len(first.frame)
                self._lag_sum_s += lag_s * len(first.frame)
                self._trouble = ""
            self._changed.notify_all()

    def close(self) -> None:
        """What is not published yet stays in this node's log, for the next start. Again is fine."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._log.close()


def _bytes_of(operation: Operation) -> int:
    match operation:
        case Write():
            return _ENTRY_BYTES + operation.vectors.nbytes + sum(map(len, operation.metadata)) + _ids(operation.ids)
        case Update():
            return _ENTRY_BYTES + sum(map(len, operation.patches)) + _ids(operation.ids)
        case Delete():
            return _ENTRY_BYTES + _ids(operation.ids)
        case DeleteWhere():
            return _ENTRY_BYTES + len(operation.filter)
        case _:
            return _ENTRY_BYTES


def _ids(ids: Seq[str]) -> int:
    return sum(map(len, ids))
