"""Retention: vectors whose last write is older than a policy allows are archived or deleted, by a sweep in the background.

A vector's age is counted from its last write, of its values or of its metadata. Versions are log sequences, so ages come from
a small table of moments for each database (`write_times`), kept from the first time the server sees it. A vector may go a
little late, never early; one written again while the sweep looks at it stays, because it is deleted only as the version that
was seen. What is archived is durable before it is deleted: a crash between the two archives it once more, and loses nothing.

In a cluster the master's node sweeps, and another goes on when it is another. What is known is in the metadata store, changed by
compare-and-set, so it does not matter who asks or who sweeps; two that sweep at once would delete nothing that one would not.
Archives lie in the data folder of the node that wrote them.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import Any, Protocol

import msgspec

from jadevectordb.gateway.access.records import Records
from jadevectordb.gateway.service.aging import Aging, Clocks, Old, OneClock, aging_of
from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.gateway.service.write_times import WriteTimes
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import STORE_ATTEMPTS_MAX
from jadevectordb.ports.archive import Archive
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

logger = logging.getLogger("jadevectordb.lifecycle")
DAY_MS = 86_400_000
AGE_DAYS_MAX = 36_500
_NOTE_EVERY_MS = 10 * 60_000  # how often a database that is written to gets a new point


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """With neither archive nor delete nothing is taken out. auto_scale: kept for clusters; one node has nothing to scale to."""

    max_age_days: int
    archive: bool = False
    delete: bool = False
    auto_scale: bool = False


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """archived, deleted: vectors taken out so far. last_run_ms: 0 before the first sweep. trouble: what the last one failed with."""

    policy: Policy
    archived: int = 0
    deleted: int = 0
    last_run_ms: int = 0
    trouble: str = ""


class LivingDatabase(Protocol):
    """`service.catalog.Entry` is one."""

    @property
    def id(self) -> str: ...
    @property
    def handle(self) -> AnyDatabase: ...


class Lifecycle:
    """Thread-safe. databases: those there are now. deleted: told (database id, ids) of what went, for what belongs to vectors.

    is_enforcer: whether this process is the one that sweeps; asked again before every batch. clocks: of all nodes of a cluster, where
    the next enforcer goes on.
    """

    def __init__(
        self,
        databases: Callable[[], Iterable[LivingDatabase]],
        metadata: MetadataStore,
        clock: Clock,
        archive: Archive,
        *,
        sweep_s: float = 60.0,
        deleted: Callable[[str, Seq[str]], None] = lambda database, ids: None,
        is_enforcer: Callable[[], bool] = lambda: True,
        clocks: Clocks | None = None,
        background: bool = True,
    ) -> None:
        """background: False when the caller sweeps itself."""
        self._databases = databases
        self._clock = clock
        self._clocks = clocks or OneClock(clock)
        self._is_alone = clocks is None
        self._archive = archive
        self._sweep_s = sweep_s
        self._deleted = deleted
        self._is_enforcer = is_enforcer
        self._sweeping = threading.Lock()
        self._closing = threading.Event()
        self._policies = Records(metadata, "lifecycle", Retention)
        self._times = Records(metadata, "write-times", WriteTimes)
        self._ran_ms: dict[str, int] = {}  # of sweeps that changed nothing, which is not worth a write
        self._noted_ms: dict[str, int] = {}
        self._clean: dict[str, tuple[int, ...]] = {}  # marks up to which a sweep left nothing
        self._next_run_ms = clock.now_ms()
        self._note_all()  # before the first write: whether a log went back is seen only while it is behind
        self._thread = threading.Thread(target=self._work, name="jade-lifecycle", daemon=True)
        if background:
            self._thread.start()

    # Policies

    def retention(self, database: str) -> Retention:
        """Raises NOT_FOUND when the database has no policy."""
        found = self._policies.get(database)
        if found is None:
            raise JadeError(
                ErrorCode.NOT_FOUND,
                "Lifecycle policy not found: this database has none. Set one with PUT /v1/databases/{databaseId}/lifecycle.",
            )
        return msgspec.structs.replace(found, last_run_ms=max(found.last_run_ms, self._ran_ms.get(database, 0)))

    @property
    def next_run_ms(self) -> int:
        return self._next_run_ms

    def set_policy(self, database: str, changes: Mapping[str, Any]) -> Retention:
        """changes: fields of Policy; those not given stay. Kept, and in force from the next sweep. Raises INVALID_ARGUMENT."""
        for _ in range(STORE_ATTEMPTS_MAX):
            kept = self._policies.change(database, lambda known: _with_policy(known, changes))
            if kept is not None:
                return kept
            made = _with_policy(None, changes)
            if self._policies.add(database, made):
                return made
        raise JadeError(ErrorCode.CONFLICT, "The policy is being changed by others at this moment: try again.")

    def forget(self, database: str) -> None:
        """A database was dropped; its archive stays."""
        self._policies.remove(database)
        self._times.remove(database)
        for known in (self._ran_ms, self._noted_ms, self._clean):
            known.pop(database, None)

    # Sweeping

    def sweep(self) -> int:
        """Note how far every database has come, and take out what is too old; how many vectors went. Never raises JadeError."""
        gone = 0
        with self._sweeping:
            for database in self._databases():
                if not self._is_enforcer():
                    break
                try:
                    self._note(database)
                    gone += self._enforce(database)
                except JadeError as error:
                    if error.code is not ErrorCode.CLOSED:  # dropped meanwhile
                        logger.warning("the lifecycle of database %s can't be enforced: %s", database.id, error)
                        self._update(database.id, trouble=error.message)
        return gone

    def _note_all(self) -> None:
        with self._sweeping:
            for database in self._databases() if self._is_enforcer() else ():
                try:
                    self._note(database, now=True)
                except JadeError as error:
                    logger.warning("the age of what was written last to %s is not kept: %s", database.id, error)

    def _note(self, database: LivingDatabase, now: bool = False) -> None:
        """A new point, if one is due; `now`: in any case."""
        now_ms = self._clock.now_ms()
        if not now and abs(now_ms - self._noted_ms.get(database.id, -_NOTE_EVERY_MS)) < _NOTE_EVERY_MS:
            return
        aging = self._aging(database)
        time_ms, marks = aging.come_to()

        def noted(known: WriteTimes) -> WriteTimes:
            newest = known.points[-1].marks if aging.only_grows and known.points else marks
            return known.noted(time_ms, tuple(map(max, marks, newest)))

        if self._times.change(database.id, noted) is None:
            self._times.add(database.id, noted(WriteTimes()))
        self._noted_ms[database.id] = now_ms

    def _aging(self, database: LivingDatabase) -> Aging:
        return aging_of(database.handle, self._clocks)

    def _enforce(self, database: LivingDatabase) -> int:
        retention = self._policies.get(database.id)
        if retention is None or not (retention.policy.archive or retention.policy.delete):
            return 0
        times = self._times.get(database.id)
        now = self._clocks.earliest_ms()
        marks = None if times is None else times.written_by(now - retention.policy.max_age_days * DAY_MS)
        gone = 0
        if marks is not None and marks != self._clean.get(database.id):
            aging = self._aging(database)
            for batch in aging.batches(marks):
                if self._closing.is_set() or not self._is_enforcer():
                    return gone
                gone += self._take_out(database, aging, batch, archive=retention.policy.archive)
            self._clean[database.id] = marks
        self._ran_ms[database.id] = now
        if gone or retention.trouble or now - retention.last_run_ms >= _NOTE_EVERY_MS:
            self._update(database.id, last_run_ms=now, trouble="")
        return gone

    def _take_out(self, database: LivingDatabase, aging: Aging, batch: list[Old], *, archive: bool) -> int:
        if archive:
            moment = datetime.datetime.fromtimestamp(self._clock.now_ms() / 1000, datetime.UTC)
            where = self._archive.write(database.id, f"{moment:%Y%m%dT%H%M%SZ}", (old.line() for old in batch))
            logger.info("%d vectors of database %s were archived to %s", len(batch), database.id, where)
        gone = aging.delete_as_seen(batch)
        self._deleted(database.id, gone)

        def counted(known: Retention) -> Retention:
            if archive:
                return msgspec.structs.replace(known, archived=known.archived + len(gone))
            return msgspec.structs.replace(known, deleted=known.deleted + len(gone))

        self._policies.change(database.id, counted)
        return len(gone)

    def _work(self) -> None:
        wait_s = 0.0
        while not self._closing.wait(wait_s):
            self.sweep()
            wait_s = self._sweep_s
            self._next_run_ms = self._clock.now_ms() + int(self._sweep_s * 1000)

    def close(self) -> None:
        """Ends after the batch at hand, and on a single node notes how far every database has come: in a cluster another node does,
        and the store may have left already. Idempotent. To be called before the store's.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._is_alone:
            self._note_all()

    # Keeping

    def _update(self, database: str, **changes: Any) -> None:
        with contextlib.suppress(JadeError):  # said again by the next sweep
            self._policies.change(database, lambda known: msgspec.structs.replace(known, **changes))


def _with_policy(known: Retention | None, changes: Mapping[str, Any]) -> Retention:
    """Raises INVALID_ARGUMENT."""
    if known is None and "max_age_days" not in changes:
        raise _invalid("maxAgeDays is needed: how many days a vector is kept after its last write.")
    policy = Policy(**changes) if known is None else msgspec.structs.replace(known.policy, **changes)
    if not 1 <= policy.max_age_days <= AGE_DAYS_MAX:
        raise _invalid(f"maxAgeDays must be 1 to {AGE_DAYS_MAX}, got {policy.max_age_days}.")
    if policy.archive and policy.delete:
        raise _invalid("archiveOnExpire and deleteOnExpire can't both be true: choose what becomes of old vectors.")
    return Retention(policy=policy) if known is None else msgspec.structs.replace(known, policy=policy)


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
