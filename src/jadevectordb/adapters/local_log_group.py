"""Group commit: callers that append at the same time share one write and one sync (DeWitt et al., SIGMOD 1984).

Whoever finds nobody leading leads. The leader takes every frame that waits, commits them, hands the lead to the next
caller in the queue, delivers its frames, and wakes their callers. While one leader delivers, the next already writes; the
second cannot overtake, since the lead is handed on only by who holds the turn to deliver. A lone caller meets no other
thread on its way. Frames keep the order of the queue on disk and in delivery.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from jadevectordb.log.frame import Encoded, frame_bytes
from jadevectordb.model.errors import JadeError
from jadevectordb.model.ids import Sequence


class PendingFrame:
    """One caller's frame on its way through the group commit."""

    __slots__ = ("done", "encoded", "error", "sequences", "size", "turn")

    def __init__(self, encoded: list[Encoded]) -> None:
        self.encoded = encoded
        self.size = frame_bytes(encoded)
        self.sequences: list[Sequence] = []  # of the entries, once placed
        self.error: BaseException | None = None
        self.done = False
        self.turn: threading.Lock | None = None  # a follower sleeps on it until it is done or has the lead


class GroupCommit:
    """Runs `commit` for groups of frames, one group at a time, then `deliver` for each frame of the group in order.

    commit: makes all frames of the group durable or raises, and then none of them is.
    deliver: tells the subscribers; an error there reaches the callers of every frame of the group not yet delivered.
    group_bytes_max: a group holds one frame, or several of at most this many bytes together.
    """

    def __init__(
        self,
        commit: Callable[[list[PendingFrame]], None],
        deliver: Callable[[PendingFrame], None],
        group_bytes_max: int,
    ) -> None:
        self._commit = commit
        self._deliver = deliver
        self._group_bytes_max = group_bytes_max
        self._lock = threading.Lock()  # of the two below
        self._queue: deque[PendingFrame] = deque()  # bounded by the number of calling threads: each waits for its own
        self._has_leader = False
        self.delivering = threading.Lock()  # held while frames are delivered

    def run(self, pending: PendingFrame) -> None:
        """Return when the frame is durable and delivered. Raises what `commit` or `deliver` raised."""
        with self._lock:
            self._queue.append(pending)
            leads = not self._has_leader
            self._has_leader = True
            if not leads:
                pending.turn = threading.Lock()
                pending.turn.acquire()
        if pending.turn is not None:
            pending.turn.acquire()
            leads = not pending.done
        if leads:
            self._lead()
        if pending.error is not None:
            raise pending.error

    def _lead(self) -> None:
        """Commit and deliver every frame that waits, up to the bound, the caller's own first among them."""
        group = self._take()
        try:
            self._commit(group)
        except BaseException as error:  # also the unforeseen: nobody may sleep for ever
            self._fail(group, error)
            self._hand_on()
            self._wake(group)
            return
        self.delivering.acquire()
        self._hand_on()
        undelivered = list(reversed(group))
        try:
            while undelivered:
                self._deliver(undelivered[-1])
                undelivered.pop()
        except BaseException as error:
            self._fail(undelivered, error)
        finally:
            self.delivering.release()
            self._wake(group)

    def _take(self) -> list[PendingFrame]:
        with self._lock:
            group = [self._queue.popleft()]
            size = group[0].size
            while self._queue and size + self._queue[0].size <= self._group_bytes_max:
                size += self._queue[0].size
                group.append(self._queue.popleft())
        return group

    def _hand_on(self) -> None:
        with self._lock:
            if self._queue:
                turn = self._queue[0].turn
                assert turn is not None
                turn.release()
            else:
                self._has_leader = False

    @staticmethod
    def _fail(frames: list[PendingFrame], error: BaseException) -> None:
        for pending in frames:  # an error object each: they are raised in different threads
            own = JadeError(error.code, error.message, details=error.details) if isinstance(error, JadeError) else error
            own.__cause__ = error.__cause__
            pending.error = own

    @staticmethod
    def _wake(group: list[PendingFrame]) -> None:
        for pending in group[1:]:  # the first is the leader itself
            assert pending.turn is not None
            pending.done = True
            pending.turn.release()
