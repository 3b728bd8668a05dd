"""One replica of one shard on this node, from an empty folder to serving reads, and back to there whatever happens to it.

A replica is an `OpenDatabase` with one shard whose log is a shard of the replicated log. A thread of its own moves it:

    LOADING      a sound folder is opened. Without one: copied from a peer, or empty where the log begins at its first entry
    CATCHING_UP  the log is followed; up to the end that the log's servers name, then near the end of that moment
    ACTIVE       reads are answered; the thread only watches
    FAILED       `reason` says why; it is tried again, more and more slowly

What can go wrong, and what is done:

    the database is configured      opened again with the new configuration; until then others are asked
    otherwise
    damaged files                   closed; another folder is loaded, from a peer or the whole log. Acknowledged entries the old
                                    one had must be in the log: with less, the new one does not become active
    the log begins later, or one    open and serving what it has, while a snapshot beyond that place is looked for among the peers;
    of its entries is damaged       one that has the place in memory only is asked, through the log, to write it to its files
    an entry can't be applied       opened again from its checkpoint
    the log is away                 open and serving; following goes on when it is back

The older folder stays until the newer one is active.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from jadevectordb.model.database import DatabaseConfig, same_config
from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.limits import REPLICA_LAG_ENTRIES_MAX, REPLICA_RETRY_S_MAX, REPLICA_RETRY_S_MIN
from jadevectordb.model.operations import Outcome
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.readable import shard_folder
from jadevectordb.node.replica_folders import ReplicaFolders
from jadevectordb.node.replica_loading import fill_folder
from jadevectordb.node.replica_opening import HostingWorld, Opened, open_replica
from jadevectordb.node.watermark import OnApplied
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard.checkpoint import read_checkpoint
from jadevectordb.shard.conflicts import ConflictReport
from jadevectordb.topology.cluster_map import ReplicaReport, ReplicaState

__all__ = ["HostedShard", "HostingWorld"]

logger = logging.getLogger("jadevectordb.replica")
_WATCH_S = 1.0
_ENGINE_SHARD = ShardId(0)
_LOG_ENDS = (ErrorCode.LOG_TRUNCATED, ErrorCode.CORRUPT)  # the log does not continue what the replica has


class HostedShard:
    """Every method may be called from any thread, and none but `close` and `remove` waits."""

    def __init__(
        self,
        world: HostingWorld,
        database: str,
        shard: int,
        config: DatabaseConfig,
        base: Path,
        log_shard: int | None = None,
    ) -> None:
        """database: its id. config: of the whole database. base: where the database's replicas lie. log_shard: whose log it follows,
        where that is not its own.
        """
        self.database_id = database
        self.shard = shard
        self._log_shard = shard if log_shard is None else log_shard
        self._world = world
        self._config = msgspec.structs.replace(config, shards=1)
        self._folders = ReplicaFolders(base, shard)
        self._wake = threading.Condition()  # guards the fields below; the thread waits on it
        self._opened: Opened | None = None
        self._state = ReplicaState.ASSIGNED
        self._reason = ""
        self._has_caught_up = False  # once since it was opened
        self._broken: JadeError | None = None  # the current folder is damaged
        self._cut_off: JadeError | None = None  # the current folder is sound, but the log does not continue it
        self._log_error: JadeError | None = None  # following ended with it
        self._must_reach = 0  # entries that a folder here had applied: one in its place must have them too
        self._checkpoints_asked_at = (
            -1
        )  # where the replica stood when peers were asked to write theirs: once for each place
        self._repaired = ""  # what was damaged in the last folder that was replaced
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"jade-shard-{shard:04}", daemon=True)
        self._thread.start()

    # --- for those who read ---------------------------------------------------------------------------------------------

    @property
    def readable(self) -> OpenDatabase | None:
        """The replica, when it was near the log's end once and its files are sound."""
        opened = self._opened
        if opened is None or not self._has_caught_up or opened.database.damage is not None:
            return None
        return opened.database

    @property
    def watermark(self) -> int:
        opened = self._opened
        return 0 if opened is None else opened.watermark.position

    @property
    def known(self) -> tuple[int, int]:
        """How far the log is applied here, and the newest hybrid time of the entries up to there; (0, 0) when it is not open."""
        opened = self._opened
        return (0, 0) if opened is None else (opened.watermark.position, opened.database.newest_time)

    def when_applied(self, sequence: int, callback: OnApplied) -> Callable[[], None] | None:
        """As `Watermark.when_reached`. The callback gets UNAVAILABLE when the replica is closed meanwhile, or is not open."""
        opened = self._opened
        if opened is None:
            callback(self._not_open())
            return None
        return opened.watermark.when_reached(sequence, callback)

    def outcome_of(self, sequence: int) -> Outcome | None:
        """What this entry, applied before, did; None when that is forgotten."""
        opened = self._opened
        return None if opened is None else opened.outcomes.get((_ENGINE_SHARD, Sequence(sequence)))

    def conflicts(self) -> ConflictReport | None:
        """As `Replica.conflicts`; None when it is not open."""
        opened = self._opened
        return None if opened is None else opened.database.replicas[0].conflicts()

    def found_damage(self, error: JadeError) -> None:
        """Reading it raised CORRUPT: the replica is replaced."""
        opened = self._opened
        if opened is not None and opened.database.damage is None:
            opened.database.damage = error
            with self._wake:
                self._wake.notify_all()

    def _not_open(self) -> JadeError:
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"The replica of shard {self.shard} on this node is {self._state.value}: ask another one. {self._reason}",
        )

    def reconfigure(self, config: DatabaseConfig) -> None:
        """Have it opened with this configuration, of the whole database; nothing happens when it is that already."""
        wanted = msgspec.structs.replace(config, shards=1)
        if same_config(wanted, self._config):
            return
        with self._wake:
            self._config = wanted
            self._wake.notify_all()

    # --- for the node's agent -------------------------------------------------------------------------------------------

    @property
    def state(self) -> ReplicaState:
        return self._state

    def report(self) -> ReplicaReport:
        opened = self._opened
        reason = self._reason
        if opened is None:
            return ReplicaReport(self.database_id, self.shard, self._state, reason=reason, repaired=self._repaired)
        database = opened.database
        parts = database.view.parts
        return ReplicaReport(
            self.database_id,
            self.shard,
            self._state,
            watermark=opened.watermark.position,
            checkpointed=opened.log.checkpointed,
            rows=sum(part.live for part in parts),
            bytes=sum(part.reader.disk_bytes for part in parts if isinstance(part.reader, SealedSegment)),
            reason=reason or opened.gate.stalled or opened.log.trouble,
            repaired=self._repaired,
            newest_time=database.newest_time,
        )

    def stop(self) -> None:
        """Begin to close."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()

    def close(self) -> None:
        """Stop; what is in the folder stays. Again is fine."""
        self.stop()
        self._thread.join()
        self._close_opened()

    def remove(self) -> None:
        """Close, and remove the replica's folders."""
        self.close()
        self._folders.remove()

    # --- the thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = REPLICA_RETRY_S_MIN
        while not self._closing:
            try:
                self._step()
                pause_s = 0.0 if self._opened is None else REPLICA_RETRY_S_MIN  # closed to be opened otherwise
            except JadeError as error:
                self._note(error)
            except OSError as error:
                self._note(disk_error(error, "load a replica", self._folders.current or Path()))
            except Exception as error:  # a defect must not end the thread in silence
                defect = JadeError(
                    ErrorCode.INTERNAL_ERROR, f"loading the replica failed ({error!r}); please report this"
                )
                defect.__cause__ = error
                self._note(defect)
            with self._wake:
                self._wake.wait_for(lambda: self._closing, pause_s)
            pause_s = min(max(REPLICA_RETRY_S_MIN, 2 * pause_s), REPLICA_RETRY_S_MAX)

    def _step(self) -> None:
        """From where it is to ACTIVE, and then until something happens. Raises what stands in the way."""
        if self._cut_off is not None:
            self._load_or_follow_on(self._cut_off)
        elif self._broken is not None or self._folders.current is None:
            self._load()
        opened = self._opened or self._open()
        if self._log_error is not None:  # it was one that passes
            self._log_error = None
            opened.log.follow_on()
        if not self._catch_up(opened):
            return
        self._folders.drop_older()
        with self._wake:
            self._state, self._reason, self._has_caught_up, self._must_reach = ReplicaState.ACTIVE, "", True, 0
        while not self._closing:
            self._check(opened)
            if opened.database.config is not self._config:
                self._close_opened()
                return
            with self._wake:
                self._wake.wait_for(
                    lambda: self._closing or self._is_in_trouble(opened) or opened.database.config is not self._config,
                    _WATCH_S,
                )

    def _note(self, error: JadeError) -> None:
        passing = error.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.CLOSED)
        with self._wake:
            if self._broken is not None or not passing:
                self._state = ReplicaState.FAILED
            known = self._broken
            self._reason = error.message if known is None or known is error else f"{known.message} {error.message}"

    def _set_state(self, state: ReplicaState) -> None:
        with self._wake:
            self._state = state

    # Opening

    def _open(self) -> Opened:
        folder = self._folders.current
        assert folder is not None and self._opened is None
        self._set_state(ReplicaState.LOADING)
        try:
            applied = Sequence(read_checkpoint(shard_folder(folder, _ENGINE_SHARD)).applied)
            self._log_error = None
            opened = open_replica(
                self._world,
                self.database_id,
                self.shard,
                self._config,
                folder,
                applied,
                self._end_following,
                self._log_shard,
            )
        except JadeError as error:
            if error.code is ErrorCode.CORRUPT:
                self._broken = error
            raise
        with self._wake:
            self._opened, self._state = opened, ReplicaState.CATCHING_UP
        return opened

    def _close_opened(self) -> None:
        with self._wake:
            opened, self._opened, self._has_caught_up = self._opened, None, False
            if opened is not None:
                self._must_reach = max(self._must_reach, opened.watermark.position)
            self._wake.notify_all()
        if opened is not None:
            opened.close()

    # Following

    def _end_following(self, error: JadeError) -> None:
        with self._wake:
            self._log_error = error
            self._wake.notify_all()

    def _catch_up(self, opened: Opened) -> bool:
        """Return when the replica is near the log's end; False when it is being closed."""
        end = opened.log.end()
        if end < self._floor():
            raise JadeError(
                ErrorCode.CORRUPT,
                f"The log of shard {self.shard} ends at entry {end}, but a replica on this node had applied {self._floor()}: acknowledged "
                "writes are missing in the log. The older folder is kept; restore the log's servers, or the database from a backup.",
                details={"last": end, "applied": self._floor()},
            )
        while not self._closing:
            self._await(opened, end)
            newer = opened.log.end()
            if newer < opened.watermark.position:
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"The log's servers say that the log of shard {self.shard} ends at entry {newer}, but {opened.watermark.position} are "
                    "applied here: they have not recovered yet, or have lost entries.",
                )
            if newer - opened.watermark.position <= REPLICA_LAG_ENTRIES_MAX:
                return not self._closing
            end = newer
        return False

    def _await(self, opened: Opened, sequence: int) -> None:
        def reached(_error: JadeError | None) -> None:
            with self._wake:
                self._wake.notify_all()

        cancel = opened.watermark.when_reached(sequence, reached)
        try:
            while opened.watermark.position < sequence and not self._closing:
                self._check(opened)
                with self._wake:
                    self._wake.wait_for(
                        lambda: self._closing or opened.watermark.position >= sequence or self._is_in_trouble(opened),
                        _WATCH_S,
                    )
        finally:
            if cancel is not None:
                cancel()

    # When something happens to it

    def _is_in_trouble(self, opened: Opened) -> bool:
        return self._log_error is not None or opened.database.damage is not None

    def _check(self, opened: Opened) -> None:
        """Raises what ends following, or reading; and leaves the replica as the next step needs it."""
        trouble = opened.database.maintenance.trouble
        damage = opened.database.damage or (trouble if trouble and trouble.code is ErrorCode.CORRUPT else None)
        error = self._log_error
        if damage is not None:
            self._close_opened()
            if damage.code is ErrorCode.CORRUPT:
                self._broken = damage
            raise damage
        if error is None:
            return
        if error.code in _LOG_ENDS:
            self._cut_off = error
        elif error.code is ErrorCode.INTERNAL_ERROR:  # an entry may be half applied
            self._close_opened()
        raise error

    # Loading

    def _floor(self) -> int:
        """What a folder in place of those here must have applied before it counts."""
        floor = self._must_reach
        for folder in self._folders.older:
            with contextlib.suppress(JadeError):
                floor = max(floor, read_checkpoint(shard_folder(folder, _ENGINE_SHARD)).applied)
        return floor

    def _load_or_follow_on(self, cut_off: JadeError) -> None:
        """Without a snapshot from beyond the place where the log ended, look whether it goes on: servers may have come back."""
        try:
            self._load()
        except JadeError as error:
            self._hurry_peers(error)
            self._cut_off = self._log_error = None
            if self._opened is not None:
                self._opened.log.follow_on()
            raise JadeError(cut_off.code, f"{cut_off.message}. {error.message}", details=cut_off.details) from error

    def _hurry_peers(self, error: JadeError) -> None:
        """A peer has what is missing here, in memory: it need not be waited for until it has written that by itself."""
        if not error.details.get("in_memory") or self.watermark == self._checkpoints_asked_at:
            return
        with contextlib.suppress(JadeError):  # tried again with the next attempt
            self._world.ask_for_checkpoints(self.database_id, self.shard)
            self._checkpoints_asked_at = self.watermark

    def _load(self) -> None:
        """Put a new folder in place of the current one, if any. Raises why none could be had."""
        if self._opened is None:
            self._set_state(ReplicaState.LOADING)
        while not self._world.copies.acquire(timeout=_WATCH_S):
            self._check_wanted()
        try:
            self._check_wanted()
            part = self._folders.part()
            opened = self._opened
            fill_folder(
                self._world,
                self.database_id,
                self.shard,
                part,
                log_shard=self._log_shard,
                beyond=None if opened is None else opened.watermark.position,
                is_replacement=self._broken is not None or self._cut_off is not None,
                check_wanted=self._check_wanted,
            )
        finally:
            self._world.copies.release()
        self._close_opened()
        self._folders.install(part)
        if self._broken is not None:
            self._repaired = self._broken.message
            logger.warning(
                "shard %d of %s was damaged and was loaded anew: %s", self.shard, self.database_id, self._repaired
            )
        elif self._cut_off is not None and self._cut_off.code is ErrorCode.CORRUPT:
            self._repaired = (
                f"Entry {self._cut_off.details.get('sequence', '?')} of its log is damaged on the log's servers; another node's snapshot "
                "of a later place was taken."
            )
            logger.warning("shard %d of %s: %s", self.shard, self.database_id, self._repaired)
        self._broken = self._cut_off = None

    def _check_wanted(self) -> None:
        if self._closing:
            raise JadeError(ErrorCode.CLOSED, "The replica is wanted no more on this node.")
