"""Folders opened twice, of the wrong kind or read-only; stores closed under running calls, or never; builders killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.faults import damage
from tests.faults.disks import mounted, needs_root, remount

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=240, cwd=ROOT
    )


def refused(folder: Path) -> JadeError:
    with pytest.raises(JadeError) as caught:
        jade.open(folder)
    return caught.value


# Opened twice, of the wrong kind, read-only


def test_a_folder_opened_twice_here_names_this_process(tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        store.create_database("d", 4).upsert(["a"], [[1, 2, 3, 4]])
        error = refused(tmp_path)
        assert error.code is ErrorCode.LOCKED and error.retryable
        assert f"this process ({os.getpid()})" in error.message and error.details["pid"] == os.getpid()
        assert store.database("d").count() == 1
    with jade.open(tmp_path) as store:
        assert store.database("d").count() == 1


def test_a_folder_that_another_process_has_open_names_that_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, jadevectordb as jade; s = jade.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "open\n"
        error = refused(tmp_path)
        assert error.code is ErrorCode.LOCKED and error.details["pid"] == holder.pid
        assert f"process {holder.pid}" in error.message and "close it there" in error.message
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    jade.open(tmp_path).close()  # a killed holder holds nothing


def test_a_file_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("hello")
    for wrong in (path, path / "below"):
        error = refused(wrong)
        assert error.code is ErrorCode.INVALID_ARGUMENT and "name a folder" in error.message
    assert path.read_text() == "hello"


def test_the_inside_of_a_database_is_no_store(tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        store.create_database("d", 4)
    (inside,) = tmp_path.glob("db-*")
    before = sorted(inside.rglob("*"))
    error = refused(inside)
    assert error.code is ErrorCode.INVALID_ARGUMENT and str(tmp_path) in error.message
    assert sorted(inside.rglob("*")) == before


def test_a_folder_with_another_catalog_is_refused_and_left_alone(tmp_path: Path) -> None:
    for content in (b"not a database at all" * 100, b"SQLite format 3\0" + bytes(84)):
        (tmp_path / "catalog.sqlite").write_bytes(content)
        error = refused(tmp_path)
        assert error.code is ErrorCode.CORRUPT and "catalog.sqlite" in error.message
        assert (tmp_path / "catalog.sqlite").read_bytes() == content


def test_without_its_catalog_nothing_is_touched(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    damage.make(folder)
    catalog = (folder / "catalog.sqlite").read_bytes()
    for harm in (lambda p: p.unlink(), lambda p: p.write_bytes(b"")):
        harm(folder / "catalog.sqlite")
        error = refused(folder)
        assert error.code is ErrorCode.CORRUPT and "catalog.sqlite" in error.message and "snapshot" in error.message
        (folder / "catalog.sqlite").write_bytes(catalog)
    damage.look(folder)


@pytest.mark.root
@needs_root
def test_a_read_only_disk_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "tmpfs", "size=16m") as disk:
        damage.make(disk / "store")
        remount(disk, "ro")
        error = refused(disk / "store")
        assert error.code is ErrorCode.READ_ONLY and "writable" in error.message
        error = refused(disk / "new")
        assert error.code is ErrorCode.READ_ONLY and "writable" in error.message
        remount(disk, "rw")
        damage.look(disk / "store")


def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere: the read-only disk is tested instead")
    tmp_path.chmod(0o555)
    try:
        error = refused(tmp_path / "store")
        assert error.code is ErrorCode.READ_ONLY and "writable" in error.message
    finally:
        tmp_path.chmod(0o755)


# A builder that is killed


def _children() -> set[int]:
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (thread / "children").read_text().split()}
        except FileNotFoundError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the builder through /proc")
def test_a_killed_builder_is_started_again_and_searches_go_on(tmp_path: Path) -> None:
    numbers = np.random.default_rng(5)
    rows = numbers.standard_normal((9000, 48)).astype(np.float32)
    before = _children()
    with jade.open(tmp_path) as store:
        database = store.create_database("d", 48, metric="euclidean", index="IVF", seal_rows=3000)
        database.upsert([f"v{n}" for n in range(9000)], rows)
        killed = 0
        told = []
        waiter = threading.Thread(target=lambda: told.append(_settle(database)))
        waiter.start()
        while killed < 3:
            if told:
                waiter.join()
                if told.pop():  # all was built before three could be killed: there is more to build
                    database.upsert([f"v{n}" for n in range(9000)], rows)
                waiter = threading.Thread(target=lambda: told.append(_settle(database)))
                waiter.start()
            for builder in _children() - before:
                try:
                    os.kill(builder, signal.SIGKILL)
                except ProcessLookupError:  # it ended after it was listed
                    continue
                killed += 1
                row = int(numbers.integers(9000))
                assert database.search(rows[row], k=1, recall=1.0)[0].id == f"v{row}"
        waiter.join()
        while not _settle(database):
            pass
        assert database.stats().indexed_rows == 9000
        assert database.stats().trouble == ""
        database.verify()
        folders = [p for p in tmp_path.glob("db-*/shard-*/*") if p.is_dir()]
        assert len(folders) == len({s.name for s in database.stats().segments if s.index != "growing"})
    assert _children() - before == set(), "no builder outlives its store"


def _settle(database: jade.Database) -> bool:
    try:
        database.wait_indexed(timeout=180)
        return True
    except JadeError as error:
        assert error.code is ErrorCode.IO_ERROR and "tried again" in error.message, error
        return False


# Closed under running calls, or never


@pytest.mark.parametrize("seed", range(4))
def test_closing_under_running_calls_ends_them_with_closed(tmp_path: Path, seed: int) -> None:
    store = jade.open(tmp_path)
    database = store.create_database("d", 16, shards=2, seal_rows=200, schema={"body": "text"})
    rows = np.random.default_rng(seed).standard_normal((500, 16)).astype(np.float32)
    acknowledged: list[int] = []
    ended: list[BaseException] = []
    started = threading.Barrier(6)

    def forever(call: Callable[[int], object]) -> None:
        started.wait()
        try:
            for number in range(1_000_000):
                call(number)
        except BaseException as error:
            ended.append(error)

    def write(number: int) -> None:
        ids = [f"{number}.{n}" for n in range(20)]
        database.upsert(ids, rows[:20] + number, [{"body": "some words"}] * 20)
        acknowledged.append(number)

    calls: list[Callable[[int], object]] = [
        write,
        lambda n: database.search(rows[n % 500], k=10),
        lambda n: database.search(text="words", k=5),
        lambda n: database.wait_indexed(timeout=180),
        lambda n: [item.metadata for item in database.scroll(50).items],
    ]
    threads = [threading.Thread(target=forever, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    started.wait()
    while len(acknowledged) < 5 * (seed + 1):
        threads[0].join(0.005)
    store.close()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a call hangs after the store was closed"
    assert [error for error in ended if not (isinstance(error, JadeError) and error.code is ErrorCode.CLOSED)] == []
    assert len(ended) == len(calls)
    with jade.open(tmp_path) as again:
        found = again.database("d").count()
        assert found in (20 * len(acknowledged), 20 * (len(acknowledged) + 1))


FORGETFUL = """
import sys, numpy as np, jadevectordb as jade
store = jade.open(sys.argv[1])
database = store.create_database("d", 32, index="IVF", seal_rows=500, exist_ok=True)
rows = np.random.default_rng(1).standard_normal((3000, 32)).astype(np.float32)
database.upsert([f"v{n}" for n in range(3000)], rows)
print(database.count())
"""


@pytest.mark.parametrize("end", ["", "del store, database", "raise SystemExit(0)", "import threading; "
                                 "threading.Thread(target=database.wait_indexed).start()"])  # fmt: skip
def test_a_program_that_forgets_to_close_ends_promptly(tmp_path: Path, end: str) -> None:
    done = run(FORGETFUL + end, str(tmp_path))
    assert done.returncode == 0
    if "threading" not in end:
        assert done.stderr == ""
    with jade.open(tmp_path) as store:
        assert store.database("d").count() == 3000


def test_an_interrupted_program_leaves_the_folder_whole(tmp_path: Path) -> None:
    script = FORGETFUL + "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = run(script, str(tmp_path))
    assert "KeyboardInterrupt" in done.stderr and "Exception ignored" not in done.stderr
    with jade.open(tmp_path) as store:
        assert store.database("d").count() == 3000
