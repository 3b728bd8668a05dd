"""A checkpoint that the disk refuses, or of which it does not say whether it took it: nothing changes, and later all is made up for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.adapters.os_disk import write_file_atomically
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.shard.checkpoint import read_checkpoint
from tests.faults.damage import copy_of, open_store


class Disk:
    """Writes files atomically, until told to refuse (before writing) or to fail (after it)."""

    def __init__(self) -> None:
        self.refuses = False
        self.fails = False
        self.attempts = 0

    def write(self, path: Path, data: bytes) -> None:
        self.attempts += 1
        if self.refuses:
            raise JadeError(ErrorCode.DISK_FULL, "The disk is full. Free some space and retry.")
        write_file_atomically(path, data)
        if self.fails:
            raise JadeError(ErrorCode.IO_ERROR, "The disk failed after the name was changed.")


def rows_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((60, 4)).astype(np.float32)


def write(database: jade.Database, batches: range) -> None:
    for number in batches:
        database.upsert([f"{number}.{n}" for n in range(60)], rows_of(number))


def check(database: jade.Database, batches: range) -> None:
    assert database.count() == 60 * len(batches)
    for number in batches:
        found = database.get([f"{number}.{n}" for n in range(60)])
        assert [i is not None and i.vector.tobytes() for i in found] == [row.tobytes() for row in rows_of(number)]
    database.verify()


def folders(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("db-*/shard-*/*") if path.is_dir()}


@pytest.mark.parametrize("way", ["refuses", "fails"])
def test_nothing_changes_and_all_is_made_up_for(tmp_path: Path, way: str) -> None:
    (tmp_path / "store").mkdir()
    disk = Disk()
    with open_store(tmp_path / "store") as store:
        database = store.create_database("d", 4, metric="euclidean", seal_rows=100)
        write(database, range(6))
        database.wait_indexed()
        (replica,) = database._use().replicas
        replica._write_atomically = disk.write
        setattr(disk, way, True)
        write(database, range(6, 12))
        for _ in range(3):
            with pytest.raises(JadeError) as caught:
                database.wait_indexed(timeout=180)
            assert caught.value.code is (ErrorCode.DISK_FULL if way == "refuses" else ErrorCode.IO_ERROR)
        assert disk.attempts >= 3
        check(database, range(12))
        assert len(folders(tmp_path / "store")) <= 4, "every attempt leaves another folder"
        if way == "refuses":
            store.snapshot(tmp_path / "snapshot")
            with open_store(tmp_path / "snapshot") as snapshot:
                check(snapshot.database("d"), range(12))
        # The folder as a crash at this moment would leave it
        with open_store(copy_of(tmp_path / "store", tmp_path / "crashed")) as crashed:
            check(crashed.database("d"), range(12))
        setattr(disk, way, False)
        database.wait_indexed(timeout=180)
        check(database, range(12))
        assert database.stats().trouble == ""
        digest = database.digest()
    with open_store(tmp_path / "store") as store:
        check(store.database("d"), range(12))
        assert store.database("d").digest() == digest
    named = {e.name for s in (tmp_path / "store").glob("db-*/shard-*") for e in read_checkpoint(s).segments}
    assert folders(tmp_path / "store") == named


def test_a_merge_that_the_checkpoint_refuses_is_not_seen(tmp_path: Path) -> None:
    """The frozen rows are in the checkpoint; only the merge that follows is refused."""
    (tmp_path / "store").mkdir()
    disk = Disk()
    with open_store(tmp_path / "store") as store:
        database = store.create_database("d", 4, metric="euclidean", seal_rows=100)
        write(database, range(6))
        database.wait_indexed()
        (replica,) = database._use().replicas
        before = folders(tmp_path / "store")

        def refuse_merges(path: Path, data: bytes) -> None:
            disk.refuses = replica.checkpoint.applied == replica.state.applied  # nothing but a merge is left to record
            disk.write(path, data)

        replica._write_atomically = refuse_merges
        database.delete([f"0.{n}" for n in range(50)])
        with pytest.raises(JadeError) as caught:
            database.compact(timeout=180)
        assert caught.value.code is ErrorCode.DISK_FULL
        assert folders(tmp_path / "store") >= before, "a source of a merge that did not take place is gone"
        store.snapshot(tmp_path / "snapshot")
        with open_store(tmp_path / "snapshot") as snapshot:
            assert snapshot.database("d").count() == 310
            snapshot.database("d").verify()
        replica._write_atomically = write_file_atomically
        database.compact(timeout=180)
        assert database.count() == 310
        assert len(folders(tmp_path / "store")) == 1
