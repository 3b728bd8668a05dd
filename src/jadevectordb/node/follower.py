"""A database read in one process while another writes it: the same segments mapped, the same log applied, nothing written.

    open      the checkpoint of every shard, its segment folders, and the log after it: what recovery does, without the lock
    catch_up  apply what was committed since; applying is deterministic, so the same entries give the same state
    refresh   a newer checkpoint is opened beside, brought to the same place, and takes over: rows that were in memory are then in
              folders, many folders are one, with their index. What was read before stays readable

The writer removes folders and log files that its newest checkpoint doesn't need. A file that is open or mapped stays readable; one
that is gone before it was opened means that there is a newer checkpoint to start from.

A position is the number of entries applied over all shards (`ports/progress.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.limits import FOLLOW_INLINE_BYTES_MAX, FOLLOW_OPEN_ATTEMPTS_MAX, FOLLOW_SHOWN_LOOKS_MAX
from jadevectordb.node.readable import ReadableDatabase, shard_folder
from jadevectordb.ports.log import FollowedLog
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard import checkpoint as checkpoints
from jadevectordb.shard.apply import ShardState
from jadevectordb.shard.checkpoint import Checkpoint
from jadevectordb.shard.replica import digest_of, state_of
from jadevectordb.shard.view import DatabaseView, Part, ShardView

OpenLog: TypeAlias = Callable[[Path, Mapping[ShardId, Sequence]], FollowedLog]
_ALL = 1 << 62  # entries
_LOOK_S = 0.002  # between looks at how far the writer is
_Segments = dict[tuple[ShardId, str], SealedSegment]


class Follower(ReadableDatabase):
    """directory: the database's folder. open_log: of its folder and the first entries wanted, by shard.

    written: the position up to which the writer's own searches see; what lies beyond is on its way there and waits, so that no
    reader is ahead of the writer. Nothing is read until `refresh` is called. Every method may be called from any thread;
    `view` needs no lock.
    """

    def __init__(
        self, config: DatabaseConfig, directory: Path, open_log: OpenLog, written: Callable[[], int] = lambda: _ALL
    ) -> None:
        super().__init__(config)
        self._directory = directory
        self._open_log = open_log
        self._written = written
        self._refreshing = threading.Lock()
        self._lock = threading.Lock()  # guards what follows; held while entries are applied
        self._copy: _Copy | None = None
        self._closed = False
        self.position = -1  # of `view`; -1 until it was opened

    def refresh(self) -> bool:
        """Open the newest checkpoint, apply the log after it, and go over to that. False: the writer did not show as much in time.

        Raises CORRUPT or IO_ERROR when the folder can't be read. What was read before stays in both cases.
        """
        with self._refreshing:
            with self._lock:
                known = {} if self._copy is None else self._copy.segments
            copy = self._opened(known)
            shown = self._await_writer(copy.position)
            with self._lock:
                if self._closed or not shown:
                    copy.close()
                    return False
                try:
                    copy.catch_up(
                        self._written()
                    )  # at least as far as the one it replaces: both read the same log, it read last
                except BaseException:
                    copy.close()
                    raise
                before, self._copy = self._copy, copy
                self._publish(copy)
            if before is not None:
                before.close()
            return True

    def _await_writer(self, position: int) -> bool:
        """Whether the writer's own searches see as much: what was read to the log's end may be ahead of them, mostly for less than a
        millisecond. A request that found the old view in step may take up the new one at any moment.
        """
        pause = threading.Event()
        for _ in range(FOLLOW_SHOWN_LOOKS_MAX):
            if position <= self._written():
                return True
            if self._closed:
                break
            pause.wait(_LOOK_S)
        return False

    def _opened(self, known: _Segments) -> _Copy:
        """A new copy, at the end of the log. Tried again while the writer replaces files in front of it."""
        for attempt in range(FOLLOW_OPEN_ATTEMPTS_MAX):
            found = self._checkpoints()
            try:
                copy = _Copy(self, self._directory, found, known, self._open_log)
                try:
                    # To the end, whatever the writer shows: a checkpoint may be ahead of that in one shard and behind in another
                    copy.catch_up(_ALL)
                    return copy
                except BaseException:
                    copy.close()
                    raise
            except (JadeError, OSError) as error:
                if attempt + 1 < FOLLOW_OPEN_ATTEMPTS_MAX and self._is_outdated(found, error):
                    continue
                if isinstance(error, JadeError):
                    raise
                raise disk_error(error, "read the database", self._directory) from error
        raise AssertionError("unreachable")

    def _checkpoints(self) -> list[Checkpoint]:
        return [
            checkpoints.read_checkpoint(shard_folder(self._directory, ShardId(i))) for i in range(self.config.shards)
        ]

    def _is_outdated(self, found: list[Checkpoint], error: Exception) -> bool:
        """Whether what failed was started from a checkpoint that is not the newest any more."""
        truncated = isinstance(error, JadeError) and error.code is ErrorCode.LOG_TRUNCATED
        return truncated or self._checkpoints() != found

    def catch_up(self, *, now: bool = False) -> bool:
        """Apply what was committed since. False: not done, because it was never opened or is broken.

        now: also False, at once, when it would take long: somebody else is at it, or there is much. `refresh` helps where
        this raises LOG_TRUNCATED (nobody looked for long, and the log in between is gone).
        """
        if not self._lock.acquire(blocking=not now):
            return False
        try:
            copy = self._copy
            if copy is None:
                return False
            try:
                if now and copy.position < self._written() and copy.unread_bytes > FOLLOW_INLINE_BYTES_MAX:
                    return False
                if copy.catch_up(self._written()):
                    self._publish(copy)
            except BaseException:
                # Half a frame may be applied: nothing can be built on it. What was published stays what it was
                self._copy, self.position = None, -1
                copy.close()
                raise
            return True
        finally:
            self._lock.release()

    def _publish(self, copy: _Copy) -> None:
        self.view = copy.view()
        self.position = copy.position

    def digest(self) -> list[str]:
        """As `Database.digest`."""
        with self._lock:
            assert self._copy is not None
            return [digest_of(state) for state in self._copy.states]

    def close(self) -> None:
        """What was read stays readable. Idempotent."""
        with self._lock:
            self._closed = True
            copy, self._copy, self.position = self._copy, None, -1
            if copy is not None:
                copy.close()


class _Copy:
    """The state of every shard, from one set of checkpoints on. Not thread-safe."""

    def __init__(
        self, database: Follower, directory: Path, found: list[Checkpoint], known: _Segments, open_log: OpenLog
    ) -> None:
        """known: segments that are open already, used again where a checkpoint names them."""
        config, space, text = database.shard_config, database.space, database.text
        self.segments: _Segments = {}
        self.states: list[ShardState] = []
        wanted: dict[ShardId, Sequence] = {}
        for number, checkpoint in enumerate(found):
            shard = ShardId(number)
            parts: list[Part] = []
            for entry in checkpoint.segments:
                segment = known.get((shard, entry.name))
                if segment is None:
                    folder = shard_folder(directory, shard) / entry.name
                    segment = SealedSegment(folder, space, config.schema, text)
                self.segments[shard, entry.name] = segment
                parts.append(checkpoints.part_of(segment, entry))
            state = state_of(config, checkpoint, parts)
            self.states.append(state)
            wanted[shard] = Sequence(state.applied + 1)
        self._log = open_log(directory / "log", wanted)
        self._views: list[ShardView] = [state.view() for state in self.states]

    @property
    def position(self) -> int:
        return sum(state.applied for state in self.states)

    @property
    def unread_bytes(self) -> int:
        return self._log.unread_bytes

    def catch_up(self, end: int) -> bool:
        """Apply frames until the position is `end`. Whether any came; whole ones only, so that a batch is seen or not."""
        position = self.position
        if position >= end:
            return False
        changed: set[ShardId] = set()
        for frame in self._log.read():
            for delivered in frame:
                state = self.states[delivered.shard]
                state.apply(delivered.sequence, delivered.entry)
                state.frozen.clear()  # writing it is the other process's business
                changed.add(delivered.shard)
            position += len(frame)
            if position >= end:
                break
        for shard in changed:
            self._views[shard] = self.states[shard].view()
        return bool(changed)

    def view(self) -> DatabaseView:
        return DatabaseView.of(tuple(self._views))

    def close(self) -> None:
        self._log.close()
