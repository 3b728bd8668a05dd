"""The query log in one SQLite file: batches of rows in, sums out. Sums are SQL's, so no report reads rows into Python.

Write-ahead journal with `synchronous=NORMAL`: a batch costs no sync of the disk, a crash of the machine may lose the last
ones, and the file stays sound. Feedback is synced, because a person was told that it was kept.
One connection for the writer and one for readers, each behind its lock: a long report does not hold up the writing of batches.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import TypeVar

from jadevectordb.adapters.os_disk import disk_error, make_directory
from jadevectordb.adapters.sqlite_file import (
    FAILED_STATEMENT,
    connect,
    error_code,
    file_error,
    has_tables,
    identity,
    make_tables,
    transaction,
)
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.query_log import (
    BucketStats,
    Feedback,
    Granularity,
    LoggedQuery,
    Pattern,
    QueryKind,
    QueryRecord,
    Trend,
)

FORMAT_VERSION = 1
_APPLICATION_ID = 0x4A616451  # "JadQ" in the file's header
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_MONDAY_MS = 4 * _DAY_MS  # 1970 began on a Thursday: its first Monday
_PRUNE_ROWS = 50_000  # rows deleted in one transaction, so that a batch waits for little

_SCHEMA = """
CREATE TABLE query (
    number INTEGER PRIMARY KEY, query_id TEXT NOT NULL, database TEXT NOT NULL, time_ms INTEGER NOT NULL,
    user TEXT NOT NULL, session TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, normalized TEXT NOT NULL,
    k INTEGER NOT NULL, latency_ms REAL NOT NULL, results INTEGER NOT NULL, error TEXT NOT NULL,
    fusion TEXT NOT NULL, alpha REAL
);
CREATE INDEX query_by_time ON query (database, time_ms);
CREATE INDEX query_by_id ON query (query_id);
CREATE TABLE feedback (
    feedback_id TEXT PRIMARY KEY, database TEXT NOT NULL, query_id TEXT NOT NULL, query_known INTEGER NOT NULL,
    user TEXT NOT NULL, label TEXT NOT NULL, rating INTEGER, text TEXT NOT NULL, clicked_id TEXT NOT NULL,
    clicked_rank INTEGER, time_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX feedback_by_time ON feedback (database, time_ms);
"""
_QUERY = "query_id, database, user, session, kind, text, k, latency_ms, results, error, fusion, alpha, time_ms"
_FEEDBACK = "feedback_id, database, query_id, query_known, user, label, rating, text, clicked_id, clicked_rank, time_ms"
_IN_WINDOW = "database = ? AND time_ms >= ? AND time_ms < ?"
_BUCKETS = {
    Granularity.HOURLY: f"time_ms / {_HOUR_MS} * {_HOUR_MS}",
    Granularity.DAILY: f"time_ms / {_DAY_MS} * {_DAY_MS}",
    # SQLite divides towards zero: shifted by whole weeks so that it stays positive for every time since 1970
    Granularity.WEEKLY: f"(time_ms - {_MONDAY_MS} + {7 * _DAY_MS}) / {7 * _DAY_MS} * {7 * _DAY_MS} + {_MONDAY_MS - 7 * _DAY_MS}",
    Granularity.MONTHLY: "CAST(strftime('%s', time_ms / 1000, 'unixepoch', 'start of month') AS INTEGER) * 1000",
}
# Percentiles by nearest rank: the smallest latency whose place in the bucket is at least that share of its size.
_STATS = """
WITH ranked AS (
    SELECT {bucket} AS bucket, user, session, kind, results, error, latency_ms,
           row_number() OVER (PARTITION BY {bucket} ORDER BY latency_ms) AS place,
           count(*) OVER (PARTITION BY {bucket}) AS size
    FROM query WHERE {window}
)
SELECT bucket, count(*), sum(error != ''), sum(error = '' AND results = 0), avg(latency_ms),
       min(latency_ms) FILTER (WHERE place * 100 >= size * 50),
       min(latency_ms) FILTER (WHERE place * 100 >= size * 95),
       min(latency_ms) FILTER (WHERE place * 100 >= size * 99),
       count(DISTINCT nullif(user, '')), count(DISTINCT nullif(session, '')),
       sum(kind = 'vector'), sum(kind = 'hybrid'), sum(kind = 'bm25'), sum(kind = 'rerank')
FROM ranked GROUP BY bucket ORDER BY bucket
"""
# The bare column `text` is that of one row of the group: any of the texts that were normalised to the same
_PATTERNS = """
SELECT normalized, text, count(*) AS n, avg(latency_ms), avg(results), min(time_ms), max(time_ms)
FROM query WHERE {window} AND normalized != '' {condition}
GROUP BY normalized HAVING n >= ? ORDER BY n DESC, normalized LIMIT ?
"""
_TRENDS = """
SELECT normalized, text, current, previous FROM (
    SELECT normalized, text, max(time_ms), sum(time_ms >= :middle) AS current, sum(time_ms < :middle) AS previous
    FROM query WHERE database = :database AND time_ms >= :start AND time_ms < :end AND normalized != '' GROUP BY normalized
)
WHERE current >= 1 AND (previous > 0 OR current > 1) AND current - previous >= :growth * max(previous, 1)
ORDER BY (current - previous) * 1.0 / max(previous, 1) DESC, current DESC, normalized LIMIT :limit
"""
_TEXTS = {
    ErrorCode.DISK_FULL: "The disk of {file} is full: free some space.",
    ErrorCode.READ_ONLY: "{file} can't be written ({error}): make its folder writable for this user.",
    ErrorCode.LOCKED: "{file} is being written by another process: retry.",
    ErrorCode.IO_ERROR: "{file} could not be used ({error}): check the disk.",
}

_Result = TypeVar("_Result")


class SqliteQueries:
    """The query log port over one SQLite file. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """path: the file, created if missing. Raises CORRUPT, FORMAT_TOO_NEW, READ_ONLY, DISK_FULL, LOCKED, IO_ERROR."""
        self.path = path
        try:
            make_directory(path.parent)
        except OSError as error:
            raise disk_error(error, "open the query log", path) from error
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._closed = False
        self._writer = self._guard(lambda: connect(path))
        try:
            self._guard(self._prepare)
            self._reader = self._guard(lambda: connect(path))
        except BaseException:
            self._writer.close()
            raise

    def _prepare(self) -> None:
        run = self._writer.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        application, version = identity(self._writer)
        if application == 0 and version == 0 and not has_tables(self._writer):
            with transaction(self._writer):
                make_tables(self._writer, _SCHEMA, _APPLICATION_ID, FORMAT_VERSION)
        elif application != _APPLICATION_ID:
            raise self._corrupt("it is not a query log")
        elif version > FORMAT_VERSION:
            raise JadeError(
                ErrorCode.FORMAT_TOO_NEW,
                f"{self.path} has format {version}, this version reads up to {FORMAT_VERSION}: use a newer JadeVectorDB.",
                details={"file": str(self.path), "format": version, "supported": FORMAT_VERSION},
            )

    # Writing

    def append(self, queries: Seq[LoggedQuery]) -> None:
        rows = [_row(logged) for logged in queries]
        sql = f"INSERT INTO query ({_QUERY}, normalized) VALUES ({', '.join('?' * 14)})"
        self._write(lambda run: run.executemany(sql, rows))

    def add_feedback(self, feedback: Feedback) -> None:
        row = [getattr(feedback, name) for name in _FEEDBACK.split(", ")]
        sql = f"INSERT INTO feedback ({_FEEDBACK}) VALUES ({', '.join('?' * len(row))})"

        def durable(connection: sqlite3.Connection) -> None:
            connection.execute(sql, [_storable(value) if isinstance(value, str) else value for value in row])

        self._write(durable, synchronous="FULL")

    def prune(self, before_ms: int, rows_max: int) -> int:
        pruned = 0
        while True:

            def step(connection: sqlite3.Connection) -> int:
                run = connection.execute
                gone = run(
                    "DELETE FROM query WHERE number IN (SELECT number FROM query WHERE time_ms < ? LIMIT ?)",
                    (before_ms, _PRUNE_ROWS),
                ).rowcount
                surplus = min(run("SELECT count(*) FROM query").fetchone()[0] - rows_max, _PRUNE_ROWS)
                if surplus > 0:
                    oldest = "SELECT number FROM query ORDER BY number LIMIT ?"
                    gone += run(f"DELETE FROM query WHERE number IN ({oldest})", (surplus,)).rowcount
                run("DELETE FROM feedback WHERE time_ms < ?", (before_ms,))
                run(
                    "DELETE FROM feedback WHERE feedback_id IN (SELECT feedback_id FROM feedback ORDER BY time_ms DESC LIMIT -1 OFFSET ?)",
                    (rows_max,),
                )
                return gone

            gone = self._write(step)
            pruned += gone
            if gone < _PRUNE_ROWS:
                return pruned

    def forget(self, database: str) -> None:
        def remove(connection: sqlite3.Connection) -> None:
            for table in ("query", "feedback"):
                connection.execute(f"DELETE FROM {table} WHERE database = ?", (database,))

        self._write(remove)

    # Reading

    def page(self, database: str, start_ms: int, end_ms: int, limit: int, offset: int) -> list[QueryRecord]:
        order = "ORDER BY time_ms DESC, number DESC LIMIT ? OFFSET ?"
        return self._records(f"{_IN_WINDOW} {order}", (database, start_ms, end_ms, limit, offset))

    def slowest(self, database: str, start_ms: int, end_ms: int, limit: int) -> list[QueryRecord]:
        order = "ORDER BY latency_ms DESC, number LIMIT ?"
        return self._records(f"{_IN_WINDOW} {order}", (database, start_ms, end_ms, limit))

    def _records(self, condition: str, values: tuple[object, ...]) -> list[QueryRecord]:
        rows = self._read(f"SELECT {_QUERY} FROM query WHERE {condition}", values)
        names = _QUERY.split(", ")
        return [QueryRecord(**{**dict(zip(names, row, strict=True)), "kind": QueryKind(row[4])}) for row in rows]

    def count(self, database: str, start_ms: int, end_ms: int) -> int:
        return int(self._read(f"SELECT count(*) FROM query WHERE {_IN_WINDOW}", (database, start_ms, end_ms))[0][0])

    def buckets(self, database: str, start_ms: int, end_ms: int, granularity: Granularity) -> list[BucketStats]:
        return self._stats(_BUCKETS[granularity], database, start_ms, end_ms)

    def total(self, database: str, start_ms: int, end_ms: int) -> BucketStats:
        found = self._stats(str(int(start_ms)), database, start_ms, end_ms)
        return found[0] if found else BucketStats(start_ms, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0)

    def _stats(self, bucket: str, database: str, start_ms: int, end_ms: int) -> list[BucketStats]:
        sql = _STATS.format(bucket=bucket, window=_IN_WINDOW)
        return [BucketStats(*row) for row in self._read(sql, (database, start_ms, end_ms))]

    def patterns(
        self, database: str, start_ms: int, end_ms: int, count_min: int, limit: int, *, found_nothing: bool = False
    ) -> list[Pattern]:
        condition = "AND error = '' AND results = 0" if found_nothing else ""
        sql = _PATTERNS.format(window=_IN_WINDOW, condition=condition)
        return [Pattern(*row) for row in self._read(sql, (database, start_ms, end_ms, count_min, limit))]

    def errors(self, database: str, start_ms: int, end_ms: int) -> list[tuple[str, int]]:
        sql = f"SELECT error, count(*) FROM query WHERE {_IN_WINDOW} AND error != '' GROUP BY error ORDER BY 2 DESC, 1"
        return [(row[0], row[1]) for row in self._read(sql, (database, start_ms, end_ms))]

    def trends(
        self, database: str, start_ms: int, middle_ms: int, end_ms: int, growth_min: float, limit: int
    ) -> list[Trend]:
        named = {"database": database, "start": start_ms, "middle": middle_ms, "end": end_ms}
        return [Trend(*row) for row in self._read(_TRENDS, {**named, "growth": growth_min, "limit": limit})]

    def knows(self, database: str, query_id: str) -> bool:
        return bool(self._read("SELECT 1 FROM query WHERE query_id = ? AND database = ? LIMIT 1", (query_id, database)))

    def feedback(self, database: str, start_ms: int, end_ms: int, limit: int) -> list[Feedback]:
        sql = f"SELECT {_FEEDBACK} FROM feedback WHERE {_IN_WINDOW} ORDER BY time_ms DESC, feedback_id LIMIT ?"
        names = _FEEDBACK.split(", ")
        rows = self._read(sql, (database, start_ms, end_ms, limit))
        return [Feedback(**{**dict(zip(names, row, strict=True)), "query_known": bool(row[3])}) for row in rows]

    def close(self) -> None:
        """Again is fine; later calls raise CLOSED."""
        with self._writing, self._reading:
            self._closed = True
            self._reader.close()
            self._writer.close()

    # Connections

    def _write(self, action: Callable[[sqlite3.Connection], _Result], synchronous: str = "NORMAL") -> _Result:
        def transact() -> _Result:
            self._writer.execute(f"PRAGMA synchronous={synchronous}")
            with transaction(self._writer):
                return action(self._writer)

        with self._writing:
            self._check_open()
            return self._guard(transact)

    def _read(self, sql: str, values: tuple[object, ...] | dict[str, object]) -> list[tuple]:  # type: ignore[type-arg]
        with self._reading:
            self._check_open()
            return self._guard(lambda: self._reader.execute(sql, values).fetchall())

    def _check_open(self) -> None:
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "The query log is closed: the server is stopping.")

    def _guard(self, action: Callable[[], _Result]) -> _Result:
        """Run it; SQLite's errors become ours."""
        try:
            return action()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> JadeError:
        code = error_code(error, FAILED_STATEMENT)
        return self._corrupt(str(error)) if code is ErrorCode.CORRUPT else file_error(error, code, self.path, _TEXTS)

    def _corrupt(self, finding: str) -> JadeError:
        return JadeError(
            ErrorCode.CORRUPT,
            f"The query log {self.path} is damaged: {finding}. It holds statistics only: move it away and start again.",
            details={"file": str(self.path)},
        )


def _row(logged: LoggedQuery) -> tuple[object, ...]:
    q = logged.record
    measured = (q.k, q.latency_ms, q.results, q.error, q.fusion, q.alpha, q.time_ms)
    return (
        q.query_id,
        q.database,
        q.user,
        q.session,
        str(q.kind),
        _storable(q.text),
        *measured,
        _storable(logged.normalized),
    )


def _storable(text: str) -> str:
    """SQLite takes no lone surrogates, which JSON can bring in."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
