"""The event log on one machine: a SQLite file that a background thread fills in batches.

Recording an event costs a caller one append to a list. A thread writes what waits once a second or as soon as a batch is full;
an event that must not be lost (a sign-in, a change of accounts) is written before its `append` returns, together with all that
wait. Write-ahead journal with `synchronous=FULL`: a committed batch survives a power cut.

When the disk is full, events stay in memory, in order and bounded, and go out when there is space again: recording never fails
a request, and nothing is skipped silently (`dropped` counts what the bound cost).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from jadevectordb.adapters.os_disk import disk_error, make_directory
from jadevectordb.adapters.sqlite_file import (
    connect,
    error_code,
    file_error,
    has_tables,
    identity,
    make_tables,
    newer_format,
    transaction,
)
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import EVENT_BATCH_MAX, EVENT_FLUSH_S, EVENTS_WAITING_MAX
from jadevectordb.ports.event_log import EVERY_EVENT, Event, EventFilter, EventSums

FORMAT_VERSION = 1
_APPLICATION_ID = 0x4A616576  # "Jaev", in the file's header
_SCAN_ROWS = 1000
_PRUNE_ROWS = 10_000  # deleted in one transaction, so that appends get in between
_JOURNAL_BYTES_MAX = 8 << 20
_COLUMNS = "id, time_ms, kind, user_id, user, success, address, session_id, resource, operation, details"
_SCHEMA = """
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, time_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    user_id TEXT NOT NULL, user TEXT NOT NULL, success INTEGER NOT NULL, address TEXT NOT NULL, session_id TEXT NOT NULL,
    resource TEXT NOT NULL, operation TEXT NOT NULL, details TEXT NOT NULL);
CREATE INDEX event_by_user ON event (user_id);
CREATE INDEX event_by_kind ON event (kind);
"""
_INSERT = f"INSERT INTO event ({_COLUMNS}) VALUES ({', '.join('?' * 11)})"
_TEXTS = {
    ErrorCode.DISK_FULL: "could not write {file}: the disk is full",
    ErrorCode.READ_ONLY: "could not open {file} for writing ({error}). Make the folder writable for this user and retry",
    ErrorCode.LOCKED: "{file} is in use by another process; retry",
    ErrorCode.IO_ERROR: "could not use {file}: {error}. Check the disk",
}

logger = logging.getLogger("jadevectordb.events")
_Result = TypeVar("_Result")
_Row = tuple[str, int, str, str, str, int, str, str, str, str, str]


class SqliteEvents:
    """The event log port over one SQLite file. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """path: the file, created if missing. Raises CORRUPT, FORMAT_TOO_NEW, READ_ONLY, DISK_FULL, LOCKED, IO_ERROR."""
        self.path = path
        self._waiting: deque[_Row] = deque()
        self._dropped = 0
        self._closed = False
        self._trouble = False  # the last write failed; said once in the log, not every second
        self._wake = threading.Condition()  # guards what waits
        self._lock = threading.Lock()  # guards the connection; taken before `_wake`, never inside it
        try:
            make_directory(path.parent)
        except OSError as error:
            raise disk_error(error, "open the event log", path) from error
        self._connection = self._guard(lambda: connect(path))
        try:
            self._guard(self._prepare)
        except BaseException:
            self._connection.close()
            raise
        self._thread = threading.Thread(target=self._write_forever, name="jade-events", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA fullfsync=ON")  # macOS: through the drive's cache
        run(f"PRAGMA journal_size_limit={_JOURNAL_BYTES_MAX}")
        with transaction(self._connection):
            if not has_tables(self._connection):
                make_tables(self._connection, _SCHEMA, _APPLICATION_ID, FORMAT_VERSION)
            self._check_format()

    def _check_format(self) -> None:
        application_id, version = identity(self._connection)
        if application_id != _APPLICATION_ID:
            raise self._corrupt("it is not an event log of JadeVectorDB")
        if version > FORMAT_VERSION:
            raise newer_format(self.path, version, FORMAT_VERSION)

    # Appending

    def append(self, event: Event, *, at_once: bool = False) -> None:
        row = _row_of(event)
        with self._wake:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "the event log is closed")
            if len(self._waiting) >= EVENTS_WAITING_MAX:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(row)
            if len(self._waiting) in (1, EVENT_BATCH_MAX):
                self._wake.notify()
        if at_once:
            self._try_to_write()

    def flush(self) -> None:
        while self._locked(self._write_batch):
            pass

    def _try_to_write(self) -> None:
        """Write what waits; trouble is logged once and what waits goes on waiting."""
        try:
            self.flush()
        except JadeError as error:
            if error.code is not ErrorCode.CLOSED and not self._trouble:
                logger.error("events can't be written and wait in memory: %s", error)
                self._trouble = True
        else:
            self._trouble = False

    def _write_batch(self) -> bool:
        """Whether there was anything to write. The caller holds the connection."""
        with self._wake:
            batch = [self._waiting[i] for i in range(min(EVENT_BATCH_MAX, len(self._waiting)))]
            dropped = self._dropped
        if not batch:
            return False
        with transaction(self._connection):
            self._connection.executemany(_INSERT, batch)
        with self._wake:
            # Events that were dropped meanwhile stood at the front, within the batch: they are written after all
            rescued = min(self._dropped - dropped, len(batch))
            self._dropped -= rescued
            for _ in range(len(batch) - rescued):
                self._waiting.popleft()
        return True

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if not self._closed and (self._trouble or len(self._waiting) < EVENT_BATCH_MAX):
                    self._wake.wait(EVENT_FLUSH_S)  # let a batch gather
                if self._closed:
                    return
            self._try_to_write()

    # Asking

    def query(self, which: EventFilter = EVERY_EVENT, *, limit: int, offset: int = 0) -> list[Event]:
        where, values = _where(which)
        text = f"SELECT {_COLUMNS} FROM event {where} ORDER BY sequence DESC LIMIT ? OFFSET ?"
        return self._read(lambda: [_event_of(row) for row in self._connection.execute(text, (*values, limit, offset))])

    def scan(self, which: EventFilter = EVERY_EVENT) -> Iterator[Event]:
        where, values = _where(which, "sequence > ?")
        text = f"SELECT {_COLUMNS}, sequence FROM event {where} ORDER BY sequence LIMIT {_SCAN_ROWS}"
        after = 0
        while True:
            page = (*values, after)
            rows = self._read(lambda page=page: self._connection.execute(text, page).fetchall())  # type: ignore[misc]
            if not rows:
                return
            for row in rows:
                yield _event_of(row[:-1])
            after = rows[-1][-1]

    def count(self, which: EventFilter = EVERY_EVENT) -> int:
        where, values = _where(which)
        return int(
            self._read(lambda: self._connection.execute(f"SELECT count(*) FROM event {where}", values).fetchone()[0])
        )

    def sums(self, which: EventFilter = EVERY_EVENT) -> EventSums:
        where, values = _where(which)
        text = f"""SELECT kind, count(*), count(*) - sum(success), min(time_ms), max(time_ms)
                   FROM event {where} GROUP BY kind ORDER BY kind"""
        rows = self._read(lambda: self._connection.execute(text, values).fetchall())
        return EventSums(
            by_kind={row[0]: row[1] for row in rows},
            failed=sum(row[2] for row in rows),
            first_ms=min((row[3] for row in rows), default=None),
            last_ms=max((row[4] for row in rows), default=None),
        )

    def prune(self, *, before_ms: int, rows_max: int) -> int:
        end = self._read(lambda: self._first_kept(before_ms, rows_max))
        text = "DELETE FROM event WHERE sequence IN (SELECT sequence FROM event WHERE sequence < ? ORDER BY sequence LIMIT ?)"

        def remove_some() -> int:
            with transaction(self._connection):
                return self._connection.execute(text, (end, _PRUNE_ROWS)).rowcount

        removed = 0
        while gone := self._locked(remove_some):
            removed += gone
        return removed

    def _first_kept(self, before_ms: int, rows_max: int) -> int:
        """The sequence of the oldest event that stays. Clocks jump: what follows the first young event counts as young."""
        run = self._connection.execute
        newest = run("SELECT max(sequence) FROM event").fetchone()[0] or 0
        young = run("SELECT sequence FROM event WHERE time_ms >= ? ORDER BY sequence LIMIT 1", (before_ms,)).fetchone()
        by_age = newest + 1 if young is None else young[0]
        last = run("SELECT sequence FROM event ORDER BY sequence DESC LIMIT 1 OFFSET ?", (rows_max,)).fetchone()
        by_rows = 0 if last is None else last[0] + 1  # `last` is the newest of those that are too many
        return int(max(by_age, by_rows))

    @property
    def dropped(self) -> int:
        return self._dropped

    def close(self) -> None:
        with self._wake:
            if self._closed:
                return
        self._try_to_write()
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join()
        with self._lock:
            try:
                while self._guard(self._write_batch):  # appended between the two steps above
                    pass
            except JadeError as error:
                logger.error("%d events could not be written before closing: %s", len(self._waiting), error)
            self._connection.close()

    def _read(self, action: Callable[[], _Result]) -> _Result:
        """What waits is written first, so that it is seen; on a full disk the question is answered without it."""
        self._try_to_write()
        return self._locked(action)

    def _locked(self, action: Callable[[], _Result]) -> _Result:
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "the event log is closed")
            return self._guard(action)

    def _guard(self, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except sqlite3.Error as error:
            raise self._log_error(error) from error

    def _log_error(self, error: sqlite3.Error) -> JadeError:
        code = error_code(error)
        return self._corrupt(str(error)) if code is ErrorCode.CORRUPT else file_error(error, code, self.path, _TEXTS)

    def _corrupt(self, finding: str) -> JadeError:
        return JadeError(
            ErrorCode.CORRUPT,
            f"the event log {self.path} is damaged: {finding}. Move the file away to begin a new one",
            details={"file": str(self.path), "finding": finding},
        )


def _row_of(event: Event) -> _Row:
    return (
        event.id, event.time_ms, event.kind, event.user_id, event.user, int(event.success), event.address, event.session_id,
        event.resource, event.operation, event.details,
    )  # fmt: skip


def _event_of(row: _Row) -> Event:
    id_, time_ms, kind, user_id, user, success, address, session_id, resource, operation, details = row
    return Event(
        id=id_, time_ms=time_ms, kind=kind, user_id=user_id, user=user, success=bool(success), address=address,
        session_id=session_id, resource=resource, operation=operation, details=details,
    )  # fmt: skip


def _where(which: EventFilter, *also: str) -> tuple[str, list[object]]:
    terms: list[str] = []
    values: list[object] = []
    if which.kinds is not None:
        terms.append(f"kind IN ({', '.join('?' * len(which.kinds))})")
        values += sorted(which.kinds)
    for term, value in (
        ("user_id = ?", which.user_id),
        ("time_ms >= ?", which.since_ms),
        ("time_ms < ?", which.until_ms),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    if which.success is not None:
        terms.append("success = ?")
        values.append(int(which.success))
    terms += also
    return ("WHERE " + " AND ".join(terms) if terms else ""), values
