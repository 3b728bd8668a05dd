"""What every SQLite file of ours begins with: the connection, transactions, the tables of a new file, whose file it is.

Which pragmas a file is used with, when it may be made new, and what an error means to a user stay with each adapter: they keep
different promises.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jadevectordb.model.errors import ErrorCode, JadeError

BUSY_S = 10.0  # how long a write waits for another process's

# Our statements are right: where one fails, the tables are not those we made.
FAILED_STATEMENT = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH})


def connect(path: Path) -> sqlite3.Connection:
    """A connection for any thread, one at a time, that begins no transaction by itself. Raises sqlite3.Error."""
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing. The write lock is taken at the start, so what the block reads is still so when it writes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors, such as a full disk, have rolled it back already
            connection.execute("ROLLBACK")
        raise


def has_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def identity(connection: sqlite3.Connection) -> tuple[int, int]:
    """(application id, format version) in the file's header; (0, 0) in a new file."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    return application_id, connection.execute("PRAGMA user_version").fetchone()[0]


def make_tables(connection: sqlite3.Connection, schema: str, application_id: int, version: int) -> None:
    """Make an empty file ours. To be called in a transaction. schema: statements that hold no semicolon themselves."""
    connection.execute(f"PRAGMA application_id={application_id}")
    connection.execute(f"PRAGMA user_version={version}")
    for statement in filter(str.strip, schema.split(";")):
        connection.execute(statement)


def newer_format(path: Path, version: int, supported: int) -> JadeError:
    return JadeError(
        ErrorCode.FORMAT_TOO_NEW,
        f"{path} has format version {version}, this program reads up to {supported}; "
        "open it with the newer JadeVectorDB that wrote it",
        details={"file": str(path), "version": version, "supported": supported},
    )


def error_code(error: sqlite3.Error, also_damage: Collection[int] = ()) -> ErrorCode:
    """DISK_FULL, READ_ONLY, LOCKED, CORRUPT or IO_ERROR. also_damage: further primary codes of SQLite that mean CORRUPT."""
    primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    match primary:
        case sqlite3.SQLITE_FULL:
            return ErrorCode.DISK_FULL
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return ErrorCode.READ_ONLY
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return ErrorCode.LOCKED
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return ErrorCode.CORRUPT
        case _:
            return ErrorCode.CORRUPT if primary in also_damage else ErrorCode.IO_ERROR


def file_error(error: sqlite3.Error, code: ErrorCode, path: Path, texts: Mapping[ErrorCode, str]) -> JadeError:
    """The error of that code as a user sees it. texts: one a code, with {file} and {error} for what is known only now."""
    details = {"file": str(path), "sqlite": str(error)}
    return JadeError(code, texts[code].format(file=path, error=error), details=details)
