"""Full and read-only disks, for real: small file systems mounted by the test (as root), a file size limit, folder modes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.os_disk import FolderLock
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.log.entry import encode
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Entry, Write

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED without root: a small file system must be mounted"
)


def write(tag: str, rows: int) -> Entry:
    return Entry(Write([f"{tag}.{n}" for n in range(rows)], np.ones((rows, 64), np.float32), [b"{}"] * rows), 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """2 MB of space."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED: mounting is not allowed here ({done.stderr.strip()})")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("file_bytes", [64 << 20, 300_000])
def test_a_full_disk_costs_only_the_call(small_disk: Path, file_bytes: int) -> None:
    log = LocalLog(small_disk / "log", file_bytes=file_bytes)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    frames = []
    log.subscribe(lambda frame: frames.append([encode(one.entry) for one in frame]))
    failures = 0
    count = 0
    while failures < 3:
        count += 1
        try:
            log.append([(0, write(f"w{count}", 100)), (1, write(f"v{count}", 100))])
            assert failures == 0
        except JadeError as error:
            assert error.code is ErrorCode.DISK_FULL and error.retryable
            assert "Free some space and retry; nothing was written" in error.message
            failures += 1
    written = len(frames)
    assert written > 10 and (log.last(0), log.last(1)) == (written, written)
    assert [[encode(one.entry) for one in frame] for frame in log.read({})] == frames
    assert log.append([(0, write("small", 1))]) == [written + 1]  # what still fits is taken
    copy = small_disk / "copy"
    with pytest.raises(JadeError) as caught:
        log.copy_to(copy)
    assert caught.value.code is ErrorCode.DISK_FULL
    subprocess.run(["rm", "-r", str(copy)], check=True)
    ballast.unlink()
    assert log.append([(0, write("later", 100)), (1, write("later", 100))]) == [written + 2, written + 1]
    log.close()
    log = LocalLog(small_disk / "log", file_bytes=file_bytes)
    assert [[encode(one.entry) for one in frame] for frame in log.read({})] == frames
    assert log.recovered_bytes == 0
    log.close()


@pytest.mark.root
@needs_root
def test_a_full_disk_can_still_be_opened_read_and_truncated(small_disk: Path) -> None:
    log = LocalLog(small_disk / "log", file_bytes=200_000)
    for n in range(20):
        log.append([(0, write(f"w{n}", 100))])
    log.close()
    store = SqliteStore(small_disk / "meta.db")
    revision = store.compare_and_set("a", b"1", 0)
    assert revision is not None
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free))
    FolderLock(small_disk / "LOCK").close()
    with pytest.raises(JadeError) as caught:
        store.compare_and_set("a", bytes(100_000), revision)
    assert caught.value.code is ErrorCode.DISK_FULL
    record = store.get("a")
    assert record is not None and record.value == b"1"
    store.close()
    log = LocalLog(small_disk / "log", file_bytes=200_000)
    assert sum(len(frame) for frame in log.read({})) == 20
    log.truncate({0: 15})
    assert log.first(0) > 1
    assert log.append([(0, write("again", 100))]) == [21]
    log.close()


@pytest.mark.root
@needs_root
def test_a_disk_that_becomes_read_only(small_disk: Path) -> None:
    log = LocalLog(small_disk / "log")
    log.append([(0, write("a", 3))])
    log.close()
    SqliteStore(small_disk / "meta.db").close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for attempt in (
        lambda: LocalLog(small_disk / "log"),
        lambda: LocalLog(small_disk / "new"),
        lambda: SqliteStore(small_disk / "meta.db"),
        lambda: SqliteStore(small_disk / "new.db"),
        lambda: FolderLock(small_disk / "LOCK"),
    ):
        with pytest.raises(JadeError, match="Make the folder writable") as caught:
            attempt()
        assert caught.value.code is ErrorCode.READ_ONLY
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    log = LocalLog(small_disk / "log")
    assert log.last(0) == 1
    log.close()


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.model.errors import JadeError
from jadevectordb.model.operations import Entry, Write

def write(rows):
    return Entry(Write([str(n) for n in range(rows)], np.ones((rows, 64), np.float32), [b"{}"] * rows), 1)

log = LocalLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 400_000))
while True:
    try:
        log.append([(0, write(100)), (1, write(100))])
    except JadeError as error:
        print(error.code, error.retryable, log.last(0), log.last(1))
        break
size = next(Path(sys.argv[1]).glob("*.log")).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
print(size <= 200_000, log.append([(0, write(100)), (1, write(100))]))
"""


def test_a_file_that_may_not_grow_costs_only_the_call(tmp_path: Path) -> None:
    """Needs no root: a limit on file sizes refuses the write half-way, as a full disk would."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["DISK_FULL True 3 3", "True [4, 4]"]
    log = LocalLog(tmp_path)  # the process ended without closing
    assert [len(frame) for frame in log.read({})] == [2, 2, 2, 2]
    log.close()


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.os_disk import FolderLock
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.model.errors import JadeError
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
folder = Path(sys.argv[1])
for attempt in (
    lambda: LocalLog(folder / "log"),
    lambda: LocalLog(folder / "new"),
    lambda: SqliteStore(folder / "meta.db"),
    lambda: SqliteStore(folder / "new.db"),
    lambda: FolderLock(folder / "LOCK"),
):
    try:
        attempt()
        print("worked")
    except JadeError as error:
        print(error.code)
"""


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    log = LocalLog(folder / "log")
    log.append([(0, write("a", 3))])
    log.close()
    SqliteStore(folder / "meta.db").close()
    FolderLock(folder / "LOCK").close()
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    opened = [path for path in tmp_path.parents if path.stat().st_mode & 0o005 != 0o005 and path.owner() == "root"]
    if os.geteuid() == 0:  # let the unprivileged child reach the folder
        for path in [tmp_path, *opened]:
            path.chmod(path.stat().st_mode | 0o011)
    try:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(folder)], capture_output=True, text=True, check=True, cwd="/"
        )
        assert done.stdout.split() == ["READ_ONLY"] * 5
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    log = LocalLog(folder / "log")
    assert log.last(0) == 1
    log.close()
