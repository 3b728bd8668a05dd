"""The metadata store on one machine: small records in SQLite, changed by compare-and-set.

Everything that is rare and must never be half-done (which databases exist, with which settings) lives here. SQLite with
a rollback journal and `synchronous=FULL` syncs before each answer; a write takes about a millisecond, which is nothing for
records that change when a person wants it. The write lock is taken at the transaction's start, so compare-and-set is
atomic between threads and processes alike.

SQLite keeps no checksums of its pages, so a flipped bit in a value would be read as a value. Each record carries its hash
(xxh3-64 of key, revision and value), checked on every read, and the counter beside them the exclusive or of all hashes,
checked on opening, which also notices a record that has vanished.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import xxhash

from jadevectordb.adapters.os_disk import disk_error, fsync_directory, make_directory
from jadevectordb.adapters.sqlite_file import (
    FAILED_STATEMENT,
    connect,
    error_code,
    file_error,
    has_tables,
    identity,
    make_tables,
    newer_format,
    transaction,
)
from jadevectordb.adapters.store_keys import check_key
from jadevectordb.adapters.store_watches import KeyWatch, StoreWatches
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import OnChange, Record

FORMAT_VERSION = 1
_APPLICATION_ID = 0x4A616465  # "Jade", in the file's header: tells our file from any other SQLite file

_SCHEMA = """
CREATE TABLE record (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE counter (revision INTEGER NOT NULL, digest BLOB NOT NULL);
INSERT INTO counter VALUES (0, zeroblob(8));
"""

_TEXTS = {
    ErrorCode.DISK_FULL: "could not write {file}: the disk is full. Free some space and retry; nothing was written",
    ErrorCode.READ_ONLY: "could not open {file} for writing ({error}). Make the folder writable for this user and retry",
    ErrorCode.LOCKED: "{file} is being written by another process; retry",
    ErrorCode.IO_ERROR: "could not use {file}: {error}. Check the disk before going on",
}

_Result = TypeVar("_Result")


def _hash(key: str, value: bytes, revision: int) -> bytes:
    return xxhash.xxh3_64_digest(b"%d\0%b\0%b" % (revision, key.encode(), value))


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _after(prefix: str) -> str | None:
    """The first key, in the order of UTF-8 bytes, after all that start with the prefix; None when there can be none."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at])
        if code < 0x10FFFF:
            following = 0xE000 if code == 0xD7FF else code + 1  # between the two lie surrogates, which are no text
            return prefix[:at] + chr(following)
    return None


class SqliteStore:
    """The metadata store port over one SQLite file. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """path: the file, created if missing. Raises CORRUPT, FORMAT_TOO_NEW, READ_ONLY, DISK_FULL, LOCKED, IO_ERROR."""
        self.path = path
        self._lock = threading.Lock()
        self._closed = False
        self._watches = StoreWatches()
        try:
            make_directory(path.parent)
            is_new = not path.exists()
            for needed in (path.parent, path):  # SQLite would open it for reading and fail at the first change
                if needed.exists() and not os.access(needed, os.W_OK):
                    raise PermissionError(errno.EACCES, "no permission to write")
        except OSError as error:
            raise disk_error(error, "open the metadata store", path) from error
        self._connection = self._guard(lambda: connect(path))
        try:
            self._guard(self._prepare)
            if is_new:
                fsync_directory(path.parent)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode=DELETE")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA fullfsync=ON")  # macOS: through the drive's cache
        run("PRAGMA cell_size_check=ON")
        with transaction(self._connection):
            if not has_tables(self._connection):
                make_tables(self._connection, _SCHEMA, _APPLICATION_ID, FORMAT_VERSION)
            self._check_format()

    def _check_format(self) -> None:
        application_id, version = identity(self._connection)
        if application_id != _APPLICATION_ID:
            raise JadeError(
                ErrorCode.CORRUPT,
                f"{self.path} is not a metadata store of JadeVectorDB; restore it from a snapshot or open another folder",
                details={"file": str(self.path)},
            )
        if version > FORMAT_VERSION:
            raise newer_format(self.path, version, FORMAT_VERSION)
        findings = [row[0] for row in self._connection.execute("PRAGMA quick_check(1)")]
        if findings != ["ok"]:
            raise self._corrupt("; ".join(findings))
        self._check_digest()

    def _check_digest(self) -> None:
        counters = self._connection.execute("SELECT revision, digest FROM counter").fetchall()
        if len(counters) != 1:
            raise self._corrupt("its counter is missing")
        digest, newest = bytes(8), 0
        for row in self._connection.execute("SELECT key, value, revision, hash FROM record"):
            newest = max(newest, self._checked(*row)[1].revision)
            digest = _xor(digest, row[3])
        if counters[0][1] != digest or counters[0][0] < newest:
            raise self._corrupt("its records are not those that were written")

    def _checked(self, key: str, value: bytes, revision: int, hash_: bytes) -> tuple[str, Record]:
        if _hash(key, value, revision) != hash_:
            raise self._corrupt(f"the record {key!r} does not match its checksum")
        return key, Record(value, revision)

    def get(self, key: str) -> Record | None:
        """As `MetadataStore.get`. Raises CORRUPT, IO_ERROR, CLOSED."""
        check_key(key)

        def read() -> Record | None:
            row = self._connection.execute(
                "SELECT key, value, revision, hash FROM record WHERE key = ?", (key,)
            ).fetchone()
            return None if row is None else self._checked(*row)[1]

        return self._locked(read)

    def list(self, prefix: str) -> dict[str, Record]:
        """As `MetadataStore.list`; keys in the order of their UTF-8 bytes. Raises CORRUPT, IO_ERROR, CLOSED."""
        check_key(prefix)

        def read() -> dict[str, Record]:
            end = _after(prefix)
            text = "SELECT key, value, revision, hash FROM record WHERE key >= ?"
            if end is None:
                rows = self._connection.execute(f"{text} ORDER BY key", (prefix,))
            else:
                rows = self._connection.execute(f"{text} AND key < ? ORDER BY key", (prefix, end))
            return dict(self._checked(*row) for row in rows)

        return self._locked(read)

    def compare_and_set(self, key: str, value: bytes | None, expected: int) -> int | None:
        """As `MetadataStore.compare_and_set`. Raises DISK_FULL, READ_ONLY, LOCKED, CORRUPT, IO_ERROR, CLOSED.

        After any error but IO_ERROR nothing was changed.
        """
        check_key(key)

        def change() -> int | None:
            revision, existed = self._change(key, value, expected)
            if revision is not None and (existed or value is not None):
                self._watches.tell(key, None if value is None else Record(value, revision))
            return revision

        return self._locked(change)

    def watch(self, prefix: str, handler: OnChange) -> KeyWatch:
        """As `MetadataStore.watch`, of what is changed through this object. Raises CLOSED."""
        check_key(prefix)
        return self._locked(lambda: self._watches.add(prefix, handler))

    def _change(self, key: str, value: bytes | None, expected: int) -> tuple[int | None, bool]:
        """The new revision, if the record was as expected, and whether it existed."""
        run = self._connection.execute
        with transaction(self._connection):
            row = run("SELECT revision, hash FROM record WHERE key = ?", (key,)).fetchone()
            if (0 if row is None else row[0]) != expected:
                return None, row is not None
            revision, digest = run("SELECT revision + 1, digest FROM counter").fetchone()
            if row is not None:
                digest = _xor(digest, row[1])
            if value is None:
                run("DELETE FROM record WHERE key = ?", (key,))
            else:
                hash_ = _hash(key, value, revision)
                digest = _xor(digest, hash_)
                run("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", (key, value, revision, hash_))
            run("UPDATE counter SET revision = ?, digest = ?", (revision, digest))
        return int(revision), row is not None

    def copy_to(self, path: Path) -> None:
        """A consistent copy of the store as a new file, durable on return. Raises ALREADY_EXISTS and what writing raises."""
        if path.exists():
            raise JadeError(ErrorCode.ALREADY_EXISTS, f"{path} exists; name a new file for the copy")

        def copy() -> None:
            target = sqlite3.connect(path)
            try:
                target.execute("PRAGMA synchronous=FULL")
                self._connection.backup(target)
            finally:
                target.close()

        self._locked(copy)
        try:
            fsync_directory(path.parent)
        except OSError as error:
            raise disk_error(error, "copy the metadata store", path) from error

    def close(self) -> None:
        """Watches end. Again is fine; later calls raise CLOSED."""
        with self._lock:
            self._closed = True
            self._connection.close()
        self._watches.close()

    def _locked(self, action: Callable[[], _Result]) -> _Result:
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "the metadata store is closed; open the folder again")
            return self._guard(action)

    def _guard(self, action: Callable[[], _Result]) -> _Result:
        """Run it; SQLite's errors become ours."""
        try:
            return action()
        except sqlite3.Error as error:
            raise self._store_error(error) from error
        except (TypeError, ValueError) as error:  # a damaged row holds values of other types than were written
            raise self._corrupt(f"a record cannot be read ({error})") from error

    def _store_error(self, error: sqlite3.Error) -> JadeError:
        code = error_code(error, FAILED_STATEMENT)
        return self._corrupt(str(error)) if code is ErrorCode.CORRUPT else file_error(error, code, self.path, _TEXTS)

    def _corrupt(self, finding: str) -> JadeError:
        return JadeError(
            ErrorCode.CORRUPT,
            f"the metadata store {self.path} is damaged: {finding}. Restore it from a snapshot",
            details={"file": str(self.path), "finding": finding},
        )
