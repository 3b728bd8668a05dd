"""The SQLite store against damage, foreign files and newer programs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record


def make(path: Path) -> dict[str, Record]:
    store = SqliteStore(path)
    for n in range(60):
        store.compare_and_set(f"database/{n:03d}", f"settings of database {n} ".encode() * 5, 0)
    store.compare_and_set("database/007", None, store.list("database/007")["database/007"].revision)
    records = store.list("")
    store.close()
    return records


def test_a_flipped_bit_anywhere_is_corruption_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    expected = make(path)
    data = path.read_bytes()
    noticed = 0
    for offset in range(0, len(data), 61):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        try:
            store = SqliteStore(path)
            try:
                assert store.list("") == expected
                assert store.get("database/003") == expected["database/003"]
            finally:
                store.close()
        except JadeError as error:
            noticed += 1
            allowed = (ErrorCode.CORRUPT, ErrorCode.FORMAT_TOO_NEW) if offset < 100 else (ErrorCode.CORRUPT,)
            assert error.code in allowed or "file is encrypted" in error.message, (offset, error)
            assert str(path) in error.message and error.details["file"] == str(path)
    assert noticed > len(data) / 61 / 3


def test_a_record_that_vanished_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    make(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM record WHERE key = 'database/009'")
    connection.close()
    with pytest.raises(JadeError, match="not those that were written") as caught:
        SqliteStore(path)
    assert caught.value.code is ErrorCode.CORRUPT


def test_a_value_changed_while_the_store_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    make(path)
    store = SqliteStore(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE record SET value = 'other' WHERE key = 'database/009'")
    connection.close()
    for call in (lambda: store.get("database/009"), lambda: store.list("database/")):
        with pytest.raises(JadeError) as caught:
            call()
        assert caught.value.code is ErrorCode.CORRUPT
    assert store.get("database/008") is not None
    store.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 20, bytes(5000)])
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "meta.db"
    path.write_bytes(content)
    with pytest.raises(JadeError) as caught:
        SqliteStore(path)
    assert caught.value.code is ErrorCode.CORRUPT
    assert path.read_bytes() == content


def test_a_foreign_sqlite_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JadeError, match="not a metadata store of JadeVectorDB") as caught:
        SqliteStore(path)
    assert caught.value.code is ErrorCode.CORRUPT
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    make(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(JadeError, match="format version 2") as caught:
        SqliteStore(path)
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW


def test_a_truncated_file_is_corruption(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    make(path)
    data = path.read_bytes()
    for size in (100, 4096, len(data) - 4096, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(JadeError) as caught:
            SqliteStore(path)
        assert caught.value.code is ErrorCode.CORRUPT


def test_a_writer_elsewhere_that_does_not_finish_is_locked_not_corruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "meta.db"
    monkeypatch.setattr("jadevectordb.adapters.sqlite_file.BUSY_S", 0.01)
    store = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JadeError, match="written by another process; retry") as caught:
        store.compare_and_set("a", b"", 0)
    assert caught.value.code is ErrorCode.LOCKED and caught.value.retryable
    other.execute("ROLLBACK")
    other.close()
    assert store.compare_and_set("a", b"", 0) == 1
    store.close()


def test_a_copy_is_whole_and_independent(tmp_path: Path) -> None:
    expected = make(tmp_path / "meta.db")
    store = SqliteStore(tmp_path / "meta.db")
    store.copy_to(tmp_path / "copy.db")
    store.compare_and_set("new", b"", 0)
    copy = SqliteStore(tmp_path / "copy.db")
    assert copy.list("") == expected
    copy.close()
    with pytest.raises(JadeError) as caught:
        store.copy_to(tmp_path / "copy.db")
    assert caught.value.code is ErrorCode.ALREADY_EXISTS
    store.close()
