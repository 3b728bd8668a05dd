"""One database as this node holds it: a log, a replica of each shard, and the background work, kept in step.

Frames come from the log in order; every entry is applied to its shard, then one new view of all shards is published: a
search sees a whole frame or nothing of it. What an entry did is kept for the writer that waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TypeAlias

from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.operations import Outcome
from jadevectordb.node.readable import ReadableDatabase, shard_folder
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.compute import Compute
from jadevectordb.ports.log import Frame, Log
from jadevectordb.ports.progress import UNWATCHED, Progress
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard.maintenance import Lane, Maintenance
from jadevectordb.shard.replica import Replica, WriteAtomically
from jadevectordb.shard.view import DatabaseView

Outcomes: TypeAlias = MutableMapping[tuple[ShardId, Sequence], Outcome]
VERIFY_AT_OPEN_BYTES = 256 << 20  # segments are verified while opening up to this much, the rest in the background


class OpenDatabase(ReadableDatabase):
    """directory: the database's folder. log: of this database, owned and closed by this object, as the compute lanes are.

    progress: told of every change that a process which follows the folder has to notice. outcomes: where what entries did is kept
    (None: until `take_outcome` asks for it, which whoever appended must then do).
    """

    def __init__(
        self,
        config: DatabaseConfig,
        directory: Path,
        *,
        log: Log,
        compute: Mapping[Lane, Compute],
        clock: Clock,
        write_atomically: WriteAtomically,
        threads: int,
        progress: Progress = UNWATCHED,
        outcomes: Outcomes | None = None,
    ) -> None:
        super().__init__(config)
        self.directory = directory
        self.log = log
        self.clock = clock
        self.replicas = [
            Replica(
                ShardId(i),
                shard_folder(directory, ShardId(i)),
                self.shard_config,
                config.index,
                write_atomically,
                config.index_parameters,
            )
            for i in range(config.shards)
        ]
        self._publishing = threading.Lock()
        self._outcomes: Outcomes = {} if outcomes is None else outcomes
        self.progress = progress
        self.maintenance = Maintenance(self.replicas, log, dict(compute), clock, self._republish, threads)
        self._unverified = self._verify_some()
        self._replay()
        for replica in self.replicas:
            replica.remove_orphans()
        progress.opened(sum(replica.state.applied for replica in self.replicas))
        log.subscribe(self._deliver)
        self.maintenance.start()
        self._scrubber = threading.Thread(target=self._scrub, name="jade-verify", daemon=True)
        self._closing = threading.Event()
        if self._unverified:
            self._scrubber.start()

    # From the log to the view

    def _replay(self) -> None:
        """Bring every replica to the log's end. Raises CORRUPT when the log does not reach back to a checkpoint."""
        wanted = {}
        for replica in self.replicas:
            applied, last = replica.state.applied, self.log.last(replica.shard)
            if last < applied:
                raise JadeError(
                    ErrorCode.CORRUPT,
                    f"The log of shard {replica.shard} in {self.directory} ends at entry {last}, its checkpoint is at {applied}: "
                    "log files were removed. Restore the database from a snapshot.",
                    details={"file": str(self.directory), "last": last, "applied": applied},
                )
            wanted[replica.shard] = Sequence(applied + 1)
        try:
            for frame in self.log.read(wanted):
                for delivered in frame:
                    self.replicas[delivered.shard].apply(delivered.sequence, delivered.entry)
        except JadeError as error:
            if error.code is not ErrorCode.LOG_TRUNCATED:
                raise
            raise JadeError(
                ErrorCode.CORRUPT,
                f"A checkpoint in {self.directory} is missing or old: its log begins later ({error.message}). "
                "Nothing was changed; restore the database from a snapshot.",
                details={"file": str(self.directory), **error.details},
            ) from error
        self._publish()

    def _deliver(self, frame: Frame) -> None:
        froze = False
        # Held over the whole frame: background work publishes too, and must not publish a frame that is half applied.
        with self._publishing:
            try:
                for delivered in frame:
                    replica = self.replicas[delivered.shard]
                    outcome = replica.apply(delivered.sequence, delivered.entry)
                    self._outcomes[delivered.shard, delivered.sequence] = outcome
                    froze = froze or bool(replica.state.frozen)
            except JadeError as error:
                # The frame is durable and can't be applied: only a sound copy of the files can go on
                self._set_damage(error)
                raise
            self.progress.applying(len(frame))
            self._publish_now()
        self.progress.applied(len(frame))
        if froze:
            self.maintenance.notify()

    def _publish(self) -> None:
        with self._publishing:
            self._publish_now()

    def _republish(self) -> None:
        """Folders took the place of rows in memory, or of other folders."""
        self._publish()
        self.progress.installed()

    def _set_damage(self, error: JadeError) -> None:
        self.damage = error
        self.progress.ended()

    def _publish_now(self) -> None:
        self.view = DatabaseView.of(tuple(replica.view for replica in self.replicas))

    def check_usable(self) -> None:
        """Raises the damage found in the files; before a write, also waits while too many rows are on their way to the disk."""
        if self.damage is not None:
            raise self.damage
        self.maintenance.wait_for_room()

    def take_outcome(self, shard: ShardId, sequence: Sequence) -> Outcome:
        """What the entry did; to be asked once, by the writer that appended it."""
        return self._outcomes.pop((shard, sequence))

    @property
    def newest_time(self) -> HybridTime:
        """The greatest time of any entry so far, kept or not."""
        return HybridTime(max((replica.state.newest_time for replica in self.replicas), default=0))

    def was_applied(self, shard: ShardId, request_id: str, part: int) -> bool:
        return (request_id, part) in self.replicas[shard].state.requests

    # Checking files

    def _verify_some(self) -> list[tuple[SealedSegment, str]]:
        """Verify files within the budget, smallest first (they say where everything is); those left for the background."""
        files: list[tuple[int, SealedSegment, str]] = []
        for replica in self.replicas:
            for part in replica.checkpoint_parts:
                segment = part.reader
                assert isinstance(segment, SealedSegment)
                files += [(entry.size, segment, name) for name, entry in segment.manifest.files.items()]
        files.sort(key=lambda file: file[0])
        budget, left = VERIFY_AT_OPEN_BYTES, []
        for size, segment, name in files:
            budget -= size
            if budget >= 0:
                segment.verify_file(name)
            else:
                left.append((segment, name))
        return left

    def _scrub(self) -> None:
        for segment, name in self._unverified:
            if self._closing.is_set():
                return
            try:
                segment.verify_file(name)
            except JadeError as error:
                if segment.directory.exists():  # else it was merged away while it was read
                    self._set_damage(error)
                    return

    def verify(self) -> None:
        """Read every file of every shard and compare checksums. Raises CORRUPT naming the first damaged file."""
        for replica in self.replicas:
            with replica.maintenance:
                replica.verify()

    def close(self) -> None:
        self.progress.ended()
        self._closing.set()
        if self._scrubber.is_alive():
            self._scrubber.join()
        self.maintenance.close()
        self.log.close()
