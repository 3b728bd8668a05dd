"""Retention: vectors whose last write is older than a policy allows are archived or deleted, by a sweep in the background.

A vector's age is counted from its last write, of its values or of its metadata. Versions are log sequences, so ages come from
a small table of moments for each database (`write_times`), kept from the first time the server sees it. A vector may go a
little late, never early; one written again while the sweep looks at it stays, because it is deleted only as the version that
was seen. What is archived is durable before it is deleted: a crash between the two archives it once more, and loses nothing.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import msgspec
import numpy as np

from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.service.handles import AnyDatabase, on_one_node
from jadevectordb.gateway.service.numbers import shortest
from jadevectordb.gateway.service.write_times import WriteTimes
from jadevectordb.model import hybrid_time
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import EXPIRE_BATCH_ROWS
from jadevectordb.ports.archive import Archive
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.query.aged import written_up_to
from jadevectordb.segment.reader import SegmentReader

logger = logging.getLogger("jadevectordb.lifecycle")
DAY_MS = 86_400_000
AGE_DAYS_MAX = 36_500
_POLICY, _TIMES = "lifecycle/", "write-times/"
_NOTE_EVERY_MS = 10 * 60_000  # how often a database that is written to gets a new point
_TRIES = 5  # of a batch whose vectors are written again meanwhile


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


@dataclass(frozen=True, slots=True)
class _Old:
    """A vector to take out, as it was seen."""

    id: str
    version: int
    reader: SegmentReader
    row: int


class Lifecycle:
    """Thread-safe. databases: those there are now. deleted: told (database id, ids) of what went, for what belongs to vectors."""

    def __init__(
        self,
        databases: Callable[[], Iterable[LivingDatabase]],
        metadata: MetadataStore,
        clock: Clock,
        archive: Archive,
        *,
        sweep_s: float = 60.0,
        deleted: Callable[[str, Seq[str]], None] = lambda database, ids: None,
        background: bool = True,
    ) -> None:
        """background: False when the caller sweeps itself."""
        self._databases = databases
        self._metadata = metadata
        self._clock = clock
        self._archive = archive
        self._sweep_s = sweep_s
        self._deleted = deleted
        self._changing = threading.Lock()
        self._sweeping = threading.Lock()
        self._closing = threading.Event()
        self._kept = {
            key.removeprefix(_POLICY): msgspec.json.decode(record.value, type=Retention)
            for key, record in metadata.list(_POLICY).items()
        }
        self._times = {
            key.removeprefix(_TIMES): msgspec.json.decode(record.value, type=WriteTimes)
            for key, record in metadata.list(_TIMES).items()
        }
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
        found = self._kept.get(database)
        if found is None:
            raise JadeError(
                ErrorCode.NOT_FOUND,
                "Lifecycle policy not found: this database has none. Set one with PUT /v1/databases/{databaseId}/lifecycle.",
            )
        return found

    @property
    def next_run_ms(self) -> int:
        return self._next_run_ms

    def set_policy(self, database: str, changes: Mapping[str, Any]) -> Retention:
        """changes: fields of Policy; those not given stay. Kept, and in force from the next sweep. Raises INVALID_ARGUMENT."""
        with self._changing:
            known = self._kept.get(database)
            if known is None and "max_age_days" not in changes:
                raise _invalid("maxAgeDays is needed: how many days a vector is kept after its last write.")
            policy = Policy(**changes) if known is None else msgspec.structs.replace(known.policy, **changes)
            if not 1 <= policy.max_age_days <= AGE_DAYS_MAX:
                raise _invalid(f"maxAgeDays must be 1 to {AGE_DAYS_MAX}, got {policy.max_age_days}.")
            if policy.archive and policy.delete:
                raise _invalid(
                    "archiveOnExpire and deleteOnExpire can't both be true: choose what becomes of old vectors."
                )
            retention = Retention(policy=policy) if known is None else msgspec.structs.replace(known, policy=policy)
            self._keep(database, retention)
            return retention

    def forget(self, database: str) -> None:
        """A database was dropped; its archive stays."""
        with self._changing:
            for prefix in (_POLICY, _TIMES):
                stored = self._metadata.get(prefix + database)
                if stored is not None:
                    self._metadata.compare_and_set(prefix + database, None, stored.revision)
            self._kept.pop(database, None)
            self._times.pop(database, None)
            self._noted_ms.pop(database, None)
            self._clean.pop(database, None)

    # Sweeping

    def _here(self) -> Iterator[LivingDatabase]:
        """Databases of this node. A cluster's have no ages yet: nobody can set a policy for one."""
        return (database for database in self._databases() if isinstance(database.handle, Database))

    def sweep(self) -> int:
        """Note how far every database has come, and take out what is too old; how many vectors went. Never raises JadeError."""
        gone = 0
        with self._sweeping:
            for database in self._here():
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
            for database in self._here():
                try:
                    self._note(database, now=True)
                except JadeError as error:
                    logger.warning("the age of what was written last to %s is not kept: %s", database.id, error)

    def _note(self, database: LivingDatabase, now: bool = False) -> None:
        """A new point, if one is due; `now`: in any case."""
        now_ms = self._clock.now_ms()
        if not now and abs(now_ms - self._noted_ms.get(database.id, -_NOTE_EVERY_MS)) < _NOTE_EVERY_MS:
            return
        opened = _on_this_node(database)._use()
        marks = tuple(int(shard.watermark) for shard in opened.view.shards)
        newest_ms = hybrid_time.to_ms(opened.newest_time)  # read after the marks: none of them was written later
        with self._changing:
            known = self._times.get(database.id, WriteTimes())
            times = known.noted(newest_ms, marks)
            if times is not known:
                self._store(_TIMES + database.id, msgspec.json.encode(times))
                self._times[database.id] = times
            self._noted_ms[database.id] = now_ms

    def _enforce(self, database: LivingDatabase) -> int:
        retention, times = self._kept.get(database.id), self._times.get(database.id)
        if retention is None or times is None or not (retention.policy.archive or retention.policy.delete):
            return 0
        now = self._clock.now_ms()
        marks = times.written_by(now - retention.policy.max_age_days * DAY_MS)
        gone = 0
        if marks is not None and marks != self._clean.get(database.id):
            for batch in _batches(_on_this_node(database), marks):
                if self._closing.is_set():
                    return gone
                gone += self._take_out(database, batch, archive=retention.policy.archive)
            self._clean[database.id] = marks
        self._update(database.id, last_run_ms=now, trouble="")
        return gone

    def _take_out(self, database: LivingDatabase, batch: list[_Old], *, archive: bool) -> int:
        if archive:
            moment = datetime.datetime.fromtimestamp(self._clock.now_ms() / 1000, datetime.UTC)
            where = self._archive.write(database.id, f"{moment:%Y%m%dT%H%M%SZ}", _lines(_on_this_node(database), batch))
            logger.info("%d vectors of database %s were archived to %s", len(batch), database.id, where)
        gone = _delete_as_seen(_on_this_node(database), batch)
        self._deleted(database.id, gone)
        retention = self._kept.get(database.id)
        if retention is not None:
            counted = (
                {"archived": retention.archived + len(gone)} if archive else {"deleted": retention.deleted + len(gone)}
            )
            self._update(database.id, **counted)
        return len(gone)

    def _work(self) -> None:
        wait_s = 0.0
        while not self._closing.wait(wait_s):
            self.sweep()
            wait_s = self._sweep_s
            self._next_run_ms = self._clock.now_ms() + int(self._sweep_s * 1000)

    def close(self) -> None:
        """Ends after the batch at hand, and notes how far every database has come. Idempotent. To be called before the store's."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._note_all()

    # Keeping

    def _update(self, database: str, **changes: Any) -> None:
        with self._changing:
            known = self._kept.get(database)
            if known is None:
                return
            changed = msgspec.structs.replace(known, **changes)
            only_time = msgspec.structs.replace(changed, last_run_ms=known.last_run_ms) == known
            if only_time:
                self._kept[database] = changed  # the time of a sweep that changed nothing is not worth a write
            else:
                self._keep(database, changed)

    def _keep(self, database: str, retention: Retention) -> None:
        self._store(_POLICY + database, msgspec.json.encode(retention))
        self._kept[database] = retention

    def _store(self, key: str, value: bytes) -> None:
        stored = self._metadata.get(key)
        written = self._metadata.compare_and_set(key, value, 0 if stored is None else stored.revision)
        assert written is not None, "policies are kept under the lock of this process alone"


def _on_this_node(database: LivingDatabase) -> Database:
    return on_one_node(database.handle, "retention of vectors by their age")


def _batches(handle: Database, marks: tuple[int, ...]) -> Iterator[list[_Old]]:
    """Vectors of one moment that were written up to the marks."""
    found = written_up_to(handle._use().view, marks)
    while batch := list(islice(found, EXPIRE_BATCH_ROWS)):
        yield [_Old(reader.id_of(row), reader.version_of(row), reader, row) for reader, row in batch]


def _lines(handle: Database, batch: list[_Old]) -> Iterator[bytes]:
    unpack = handle._now().unpacker.unpack
    for old in batch:
        vector = unpack(old.reader.vector_of(old.row))
        plain = shortest(vector).tolist() if vector.dtype == np.float32 else vector.tolist()
        metadata = msgspec.Raw(old.reader.metadata_of(old.row))
        yield msgspec.json.encode({"id": old.id, "vector": plain, "metadata": metadata})


def _delete_as_seen(handle: Database, batch: list[_Old]) -> list[str]:
    """Delete those that still have the version that was seen; their ids."""
    for _ in range(_TRIES):
        items = handle.get([old.id for old in batch])
        batch = [
            old for old, item in zip(batch, items, strict=True) if item is not None and item.version == old.version
        ]
        if not batch:
            return []
        try:
            handle.delete([old.id for old in batch], if_version=[old.version for old in batch])
            return [old.id for old in batch]
        except JadeError as error:
            if error.code is not ErrorCode.VERSION_CONFLICT:
                raise
    return []  # written again and again: the next sweep looks once more


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
