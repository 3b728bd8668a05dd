"""Durable file primitives and the folder lock, on real files and processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jadevectordb.adapters import os_disk
from jadevectordb.adapters.os_disk import FolderLock, disk_error, write_all, write_file_atomically
from jadevectordb.model.errors import ErrorCode, JadeError


def test_write_file_atomically_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_file_atomically(path, b"two" * 100_000)
    assert path.read_bytes() == b"two" * 100_000
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_file_atomically_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk."""
    path = tmp_path / "file"
    write_file_atomically(path, b"old")
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from jadevectordb.adapters.os_disk import write_file_atomically\n"
        "from jadevectordb.model.errors import JadeError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_file_atomically(Path(sys.argv[1]), b'x' * 5000)\n"
        "except JadeError as error: print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "DISK_FULL\n"
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_all_writes_any_number_of_pieces_anywhere(tmp_path: Path) -> None:
    pieces: list[bytes | bytearray | memoryview] = [b"%d," % n for n in range(5000)]
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        end = write_all(fd, [*pieces, b"", memoryview(b"end")], 10)
    finally:
        os.close(fd)
    data = (tmp_path / "file").read_bytes()
    assert data == bytes(10) + b"".join(pieces) + b"end"
    assert end == len(data)


def test_write_all_goes_on_after_a_short_write(tmp_path: Path) -> None:
    """Linux writes at most 2 GiB less a page a call; a file size limit also makes a write short, then refuses."""
    script = (
        "import os, resource, sys\n"
        "from jadevectordb.adapters.os_disk import write_all\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_all(fd, [b'a' * 300, b'b' * 300, b'c' * 300, b'd' * 300], 50)\n"
        "except OSError as error: print(error.errno, os.fstat(fd).st_size)\n"
    )
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), "1000"]
    assert path.read_bytes() == bytes(50) + b"a" * 300 + b"b" * 300 + b"c" * 300 + b"d" * 50


def test_a_short_write_is_completed_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, pieces, offset: real(fd, [b"".join(pieces)[:7]], offset))
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert write_all(fd, [b"abc", b"", b"defgh", b"ijk", b"lmn"], 0) == 14
    finally:
        os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"abcdefghijklmn"


@pytest.mark.parametrize(
    "number, code, advice",
    [
        (errno.ENOSPC, ErrorCode.DISK_FULL, "Free some space and retry; nothing was written"),
        (errno.EDQUOT, ErrorCode.DISK_FULL, "Free some space"),
        (errno.EFBIG, ErrorCode.DISK_FULL, "Free some space"),
        (errno.EROFS, ErrorCode.READ_ONLY, "Make the folder writable"),
        (errno.EACCES, ErrorCode.READ_ONLY, "Make the folder writable"),
        (errno.EIO, ErrorCode.IO_ERROR, "Check the disk"),
    ],
)
def test_errors_say_what_to_do(number: int, code: ErrorCode, advice: str) -> None:
    error = disk_error(OSError(number, os.strerror(number)), "do it", Path("/there"))
    assert error.code is code and advice in error.message and "could not do it at /there" in error.message
    assert error.details == {"path": "/there", "errno": number}
    assert error.retryable == (code is ErrorCode.DISK_FULL)


def test_make_directory_and_free_bytes(tmp_path: Path) -> None:
    os_disk.make_directory(tmp_path / "a" / "b" / "c")
    os_disk.make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert os_disk.free_bytes(tmp_path) > 0


def test_a_second_lock_names_the_holder(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "LOCK"):
        with pytest.raises(JadeError, match=rf"in use by this process \({os.getpid()}\)") as caught:
            FolderLock(tmp_path / "LOCK")
        assert caught.value.code is ErrorCode.LOCKED and caught.value.details["pid"] == os.getpid()
    lock = FolderLock(tmp_path / "LOCK")
    lock.close()
    lock.close()
    FolderLock(tmp_path / "LOCK").close()


HOLDER = """
import sys
from pathlib import Path
from jadevectordb.adapters.os_disk import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_process_however_it_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "LOCK")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(JadeError, match=f"in use by process {holder.pid};"):
            FolderLock(tmp_path / "LOCK")
        holder.kill()
        holder.wait()
        FolderLock(tmp_path / "LOCK").close()


FORKER = """
import os, sys
from pathlib import Path
from jadevectordb.adapters.os_disk import FolderLock
lock = FolderLock(Path(sys.argv[1]))
parent = os.getpid()
if os.fork() == 0:
    print("forked", flush=True)
    os.kill(parent, 9)
    sys.stdin.read()  # the child outlives its parent
    os._exit(0)
sys.stdin.read()
"""


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKER, str(tmp_path / "LOCK")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None and parent.stdout.readline() == "forked\n"
        assert parent.wait() == -9
        FolderLock(tmp_path / "LOCK").close()


def test_a_lock_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(JadeError, match="could not open the lock file") as caught:
        FolderLock(tmp_path / "missing" / "LOCK")
    assert caught.value.code is ErrorCode.IO_ERROR
