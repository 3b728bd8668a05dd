"""Every file of a database is flipped, cut short, emptied and removed: an error that names it, or everything is still right."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import xxhash

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node import open_database
from tests.faults import damage

FLIPS = 6  # a file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "store"
    damage.make(folder)
    damage.look(folder)  # settles what opening writes
    return folder


@pytest.fixture(scope="module")
def truth(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    return damage.look(damage.copy_of(whole, tmp_path_factory.mktemp("truth") / "store"))


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))] if data else b"")


def empty(path: Path, chance: random.Random) -> None:
    del chance
    path.write_bytes(b"")


def lengthen(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 100)))


def remove(path: Path, chance: random.Random) -> None:
    del chance
    path.unlink()


@pytest.mark.parametrize("harm", [flip, cut, empty, lengthen, remove])
def test_harm_to_any_file_is_named_or_harmless(
    whole: Path, truth: object, tmp_path: Path, harm: Callable[[Path, random.Random], None]
) -> None:
    chance = random.Random(harm.__name__)
    times = 1 if harm in (empty, remove) else FLIPS
    kinds = set()
    for name in damage.files_of(whole):
        for _ in range(times):
            folder = damage.copy_of(whole, tmp_path / "store")
            harm(folder / name, chance)
            before = {p: (folder / p).read_bytes() for p in damage.files_of(folder)}
            try:
                told = damage.look(folder)
            except JadeError as error:
                assert error.code in (ErrorCode.CORRUPT, ErrorCode.FORMAT_TOO_NEW), f"{harm.__name__} {name}: {error}"
                assert _names(error, name), f"{harm.__name__} {name}: the error does not name it: {error}"
                gone = [p for p, data in before.items() if "shard" in str(p) and not (folder / p).exists()]
                assert not gone, f"{harm.__name__} {name}: {gone} were removed"
                kinds.add(name.name)
            else:
                assert told == truth, f"{harm.__name__} {name}: wrong data, and nobody said so"
    assert len(kinds) > 15


def _names(error: JadeError, name: Path) -> bool:
    """The sentence names the file, or the folder of what is missing or contradicted by others."""
    said = f"{error} {error.details}"
    return name.name in said or name.parent.name in said or (name.parts[0] in said and len(name.parts) > 1)


def test_folders_that_vanish_are_missed(whole: Path, truth: object, tmp_path: Path) -> None:
    folders = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_dir())
    assert len(folders) >= 4
    for name in folders:
        folder = damage.copy_of(whole, tmp_path / "store")
        shutil.rmtree(folder / name)
        try:
            told = damage.look(folder)
        except JadeError as error:
            assert error.code is ErrorCode.CORRUPT, f"{name}: {error}"
            assert not (folder / name).exists() or not any((folder / name).iterdir())
        else:
            assert told == truth, f"without {name}: wrong data, and nobody said so"


def test_without_its_checkpoint_a_shard_keeps_its_segments(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    damage.make(folder, log_is_truncated=True)
    (checkpoint,) = folder.glob("db-*/shard-*/checkpoint")
    kept = checkpoint.read_bytes()
    expected = damage.look(damage.copy_of(folder, tmp_path / "copy"))
    checkpoint.unlink()
    with pytest.raises(JadeError) as caught:
        damage.look(folder)
    assert caught.value.code is ErrorCode.CORRUPT and "checkpoint" in caught.value.message
    checkpoint.write_bytes(kept)
    assert damage.look(folder) == expected


def _resealed(path: Path, version: int) -> None:
    value = msgspec.msgpack.decode(path.read_bytes()[8:])
    value["format"] = version
    body = msgspec.msgpack.encode(value)
    path.write_bytes(xxhash.xxh3_64_digest(body)[:8] + body)


@pytest.mark.parametrize("kind", ["checkpoint", "manifest"])
def test_a_newer_format_is_refused_untouched(whole: Path, tmp_path: Path, kind: str) -> None:
    folder = damage.copy_of(whole, tmp_path / "store")
    path = next(p for p in sorted(folder.rglob(kind)))
    _resealed(path, 99)
    before = {p: (folder / p).read_bytes() for p in damage.files_of(folder)}
    with pytest.raises(JadeError) as caught:
        damage.look(folder)
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW
    assert "newer JadeVectorDB" in caught.value.message and str(path) in caught.value.message
    after = {p: (folder / p).read_bytes() for p in damage.files_of(folder)}
    assert {p for p in before if before[p] != after.get(p)} <= {p for p in before if "log" in p.parts}


def test_a_newer_format_of_a_database_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    damage.make(folder)
    catalog = SqliteStore(folder / "catalog.sqlite")
    record = catalog.get("database/d")
    assert record is not None
    config = {**msgspec.json.decode(record.value), "format": 2, "surprise": 1}
    catalog.compare_and_set("database/d", msgspec.json.encode(config), record.revision)
    catalog.close()
    with damage.open_store(folder) as store, pytest.raises(JadeError) as caught:
        store.database("d")
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW and "newer JadeVectorDB" in caught.value.message


@pytest.mark.parametrize("name", ["vectors", "metadata", "versions", "hashes.rows"])
def test_a_merge_does_not_vouch_for_flipped_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Too much to verify at open: a damaged segment is open, and is to be merged."""
    folder = tmp_path / "store"
    damage.make(folder)
    monkeypatch.setattr(open_database, "VERIFY_AT_OPEN_BYTES", -1)
    with damage.open_store(folder) as store:
        database = store.database("d")
        database._use()._scrubber.join()
        segments = [s for s in database.stats().segments if s.disk_bytes]
        (path,) = folder.glob(f"db-*/shard-*/{segments[0].name}/{name}")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        database.upsert(["more"], [[1.0] * damage.DIMENSION])
        with pytest.raises(JadeError) as caught:
            database.compact(timeout=180)
        assert caught.value.code is ErrorCode.CORRUPT and str(path) in caught.value.message
        assert path.exists() and "CORRUPT" in database.stats().trouble
    with damage.open_store(folder) as store:
        database = store.database("d")
        # The check in the background finds it too, and says so at every call
        database._openings.current.database._scrubber.join()
        for call in (database.count, lambda: database.get("v1"), lambda: database.upsert(["a"], [[1.0] * 8])):
            with pytest.raises(JadeError) as caught:
                call()
            assert caught.value.code is ErrorCode.CORRUPT and str(path) in caught.value.message
