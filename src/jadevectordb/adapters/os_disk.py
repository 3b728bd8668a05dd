"""Durable files: the few primitives that every adapter on disk is built from.

A file is durable after its data are synced; a name (new, renamed, removed) after its folder is synced. Forgetting the
second is the usual way to lose a whole file to a power cut, so creating, renaming and syncing live in one place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError

__all__ = [
    "FolderLock",
    "disk_error",
    "free_bytes",
    "fsync_directory",
    "make_directory",
    "reserve",
    "sync_all",
    "sync_data",
    "write_all",
    "write_file_atomically",
]

_TEMPORARY_SUFFIX = ".new"


def sync_data(fd: int) -> None:
    """Return when the file's data, and its size, are on the medium."""
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync reaches the drive's cache only
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_all(fd: int) -> None:
    """As `sync_data`, and the file's other metadata: needed where the size shrank or blocks were reserved."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def fsync_directory(path: Path) -> None:
    """Return when the names in this folder are on the medium."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Create the folder and its missing parents durably; one that exists is fine."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    fsync_directory(path.parent)


def write_file_atomically(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write or replace a file: after a crash at any point it holds the old bytes or the new, whole and durable on return.

    Raises DISK_FULL, READ_ONLY or IO_ERROR, and then the file is as it was.
    """
    temporary = path.with_name(path.name + _TEMPORARY_SUFFIX)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(fd, [data], 0)
            sync_all(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, "write a file", path) from error


_PIECES_MAX = 1024  # of one writev; IOV_MAX everywhere we run
_WRITE_BYTES_MAX = 1 << 30  # the kernel writes at most about 2 GiB a call


def write_all(fd: int, pieces: list[bytes | bytearray | memoryview], offset: int) -> int:
    """Write the pieces one after the other from `offset` on, whatever their number and size; the offset after them.

    No piece is copied. Raises OSError; what was written until then stays in the file.
    """
    index = 0
    while index < len(pieces):
        count = size = 0
        while index + count < len(pieces) and count < _PIECES_MAX and size <= _WRITE_BYTES_MAX:
            size += len(pieces[index + count])
            count += 1
        offset = _write_some(fd, pieces[index : index + count], offset, size)
        index += count
    return offset


def _write_some(fd: int, pieces: list[bytes | bytearray | memoryview], offset: int, size: int) -> int:
    written = os.pwritev(fd, pieces, offset)
    if written == size:
        return offset + size
    end = offset + size
    for piece in pieces:  # a short write: go on byte-exactly, piece by piece
        if written >= len(piece):
            written -= len(piece)
            offset += len(piece)
            continue
        rest = memoryview(piece)[written:]
        offset += written
        written = 0
        while rest:
            step = os.pwrite(fd, rest, offset)
            offset += step
            rest = rest[step:]
    assert offset == end
    return offset


def reserve(fd: int, offset: int, size: int) -> bool:
    """Reserve disk blocks for the bytes from `offset` on; they read as zeros. False where that is not done.

    Writing into reserved blocks makes a sync cheaper. It is no error when the file system cannot, and not done when that
    would take a notable part of the space left: others need it more.
    """
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        state = os.fstatvfs(fd)
        if size > state.f_bavail * state.f_frsize // 16:
            return False
        os.posix_fallocate(fd, offset, size)
    except OSError:
        return False
    return True


def free_bytes(path: Path) -> int:
    """What an ordinary user can still write to the file system that holds `path`."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


class FolderLock:
    """Exclusive use of a folder, held by an `flock` on a file in it that names the holder's process.

    It ends with `close` or with the process, however that dies; the file itself stays, since removing it would let two
    processes hold locks on two files of one name. A forked child gives up its share at once: a build process that
    outlives its parent must not keep the folder locked.
    """

    def __init__(self, path: Path) -> None:
        """path: the lock file, in an existing folder. Raises LOCKED naming the holder's pid, READ_ONLY, DISK_FULL, IO_ERROR."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error, "open the lock file", path) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # a full disk must not keep anyone from opening; the pid is for people
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = self._holder()
            self._release()
            raise JadeError(
                ErrorCode.LOCKED,
                f"{path.parent} is in use by {_called(holder)}; close it there, or open another folder",
                details={"path": str(path), "pid": holder},
            ) from error
        except OSError as error:
            self._release()
            raise disk_error(error, "lock the folder", path) from error
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _release_in_child(this))

    def _holder(self) -> int | None:
        pid = os.pread(self._fd, 32, 0).strip()
        return int(pid) if pid.isdigit() else None

    def close(self) -> None:
        """Release; again is fine."""
        self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _called(pid: int | None) -> str:
    if pid is None:
        return "another process"
    return f"this process ({pid})" if pid == os.getpid() else f"process {pid}"


def _release_in_child(lock: weakref.ref[FolderLock]) -> None:
    held = lock()
    if held is not None:
        held.close()
