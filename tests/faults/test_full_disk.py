"""The disk fills up while rows are written, sealed and merged: reads go on, writes say DISK_FULL, and freed space mends all."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.faults.damage import open_store
from tests.faults.disks import mounted, needs_root

DIMENSION = 64


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "tmpfs", "size=14m,mode=700") as path:
        yield path


def batch(number: int, rows: int = 50) -> tuple[list[str], np.ndarray, list[dict[str, int]]]:
    """Distinct ids; the same every time for a number."""
    vectors = np.random.default_rng(number).standard_normal((rows, DIMENSION)).astype(np.float32)
    return [f"{number}.{n}" for n in range(rows)], vectors, [{"batch": number}] * rows


def check(database: jade.Database, numbers: list[int]) -> None:
    """Exactly these batches are there, found by id, by filter and by search."""
    assert database.count() == 50 * len(numbers)
    for number in numbers:
        ids, vectors, _ = batch(number)
        items = database.get(ids)
        assert all(i is not None and i.vector.tobytes() == v.tobytes() for i, v in zip(items, vectors, strict=True))
        assert database.search(vectors[7], k=1, recall=1.0)[0].id == ids[7]
    if numbers:
        assert database.count({"batch": numbers[-1]}) == 50


def fill(database: jade.Database, numbers: list[int], refusals: int) -> None:
    """Write until the disk has refused so often; what was acknowledged goes into `numbers`."""
    number = numbers[-1] + 1 if numbers else 0
    while refusals:
        number += 1
        try:
            database.upsert(*batch(number))
            numbers.append(number)
        except JadeError as error:
            assert error.code is ErrorCode.DISK_FULL and "Free some space" in error.message, error
            assert error.retryable
            refusals -= 1
    assert numbers


def settled(database: jade.Database) -> bool:
    try:
        database.wait_indexed(timeout=180)
        return True
    except JadeError as error:
        assert error.code is ErrorCode.DISK_FULL, error
        assert "space" in error.message or "room" in error.message, error
        return False


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("index", ["FLAT", "IVF"])
def test_a_full_disk_loses_nothing_and_mends_itself(small_disk: Path, index: str) -> None:
    ballast = small_disk / "ballast"
    folder = small_disk / "store"
    folder.mkdir()
    numbers: list[int] = []
    with open_store(folder) as store:
        database = store.create_database("d", DIMENSION, metric="euclidean", index=index, seal_rows=300)
        ballast.write_bytes(bytes(11 << 20))
        for _ in range(2):
            fill(database, numbers, 20)
            check(database, numbers)
            assert not settled(database), "there is room for nothing, least of all a merged copy"
            assert database.stats().trouble.startswith("DISK_FULL")
            check(database, numbers)
        ballast.unlink()
        assert settled(database)
        assert database.stats().trouble == ""
        check(database, numbers)
        database.upsert(*batch(10_000))
        numbers.append(10_000)
        check(database, numbers)
        database.verify()
        digest = database.digest()
    _check_reopened(folder, numbers, digest)


def _check_reopened(folder: Path, numbers: list[int], digest: list[str]) -> None:
    with open_store(folder) as store:
        database = store.database("d")
        check(database, numbers)
        assert database.digest() == digest
        database.verify()


@pytest.mark.root
@needs_root
def test_a_store_on_a_full_disk_opens_and_is_read(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.touch()
    folder = small_disk / "store"
    folder.mkdir()
    numbers: list[int] = []
    with open_store(folder) as store:
        database = store.create_database("d", DIMENSION, metric="euclidean", seal_rows=300)
        fill(database, numbers, 5)
    _fill_up(ballast)
    with open_store(folder) as store:
        database = store.database("d")
        check(database, numbers)
        with pytest.raises(JadeError) as caught:
            for number in range(20_000, 20_200):
                database.upsert(*batch(number))
        assert caught.value.code is ErrorCode.DISK_FULL
        with pytest.raises(JadeError) as caught:
            store.create_database("another", 4)
        assert caught.value.code is ErrorCode.DISK_FULL
        with pytest.raises(JadeError) as caught:
            store.snapshot(small_disk / "snapshot")
        assert caught.value.code is ErrorCode.DISK_FULL
        assert not list(small_disk.glob("snapshot*"))
        assert store.databases() == ["d"]


def _fill_up(path: Path) -> None:
    """To the last block."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.root
@needs_root
def test_a_builder_that_finds_the_disk_full_says_so(small_disk: Path) -> None:
    """With a real builder process."""
    with jade.open(small_disk / "store") as store:
        numbers: list[int] = []
        database = store.create_database("d", DIMENSION, metric="euclidean", index="IVF", seal_rows=300)
        (small_disk / "ballast").write_bytes(bytes(11 << 20))
        fill(database, numbers, 5)
        assert not settled(database)
        (small_disk / "ballast").unlink()
        assert settled(database)
        check(database, numbers)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.faults.test_full_disk import check, fill
from tests.faults.damage import open_store
from jadevectordb.model.errors import ErrorCode, JadeError
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
numbers = []
with open_store(folder) as store:
    database = store.create_database("d", 64, metric="euclidean", seal_rows=1000)
    fill(database, numbers, 3)
    check(database, numbers)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    database.upsert(["after"], [[0.5] * 64])
    database.delete("after")
    database.wait_indexed()
    check(database, numbers)
    database.verify()
print(numbers)
"""


def test_files_that_may_not_grow_are_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_seals_that_the_disk_refuses_are_made_up_for(tmp_path: Path) -> None:
    """Without root: files may grow to what a fresh segment needs, not to what a merged one or the log does."""
    limited = LIMITED.replace("(100_000,", "(60_000,").replace("seal_rows=1000", "seal_rows=100")
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
