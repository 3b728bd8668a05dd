"""A copy of a log for a snapshot: hard links for what never changes again, bytes for the file that still grows."""

from __future__ import annotations

import os
from pathlib import Path

from jadevectordb.adapters.local_log_active import COMMITTED_NAME
from jadevectordb.adapters.local_log_file import Part
from jadevectordb.adapters.os_disk import disk_error, fsync_directory, make_directory, sync_all, write_all
from jadevectordb.log.frame import Committed
from jadevectordb.model.errors import ErrorCode, JadeError

_COPY_BYTES = 4 << 20


def copy_log(parts: list[Part], directory: Path) -> None:
    """Copy the files as far as `parts` say, and the committed record that belongs to them; durable on return.

    Raises ALREADY_EXISTS, DISK_FULL, READ_ONLY, IO_ERROR; what was copied until then stays and is the caller's to remove.
    """
    try:
        make_directory(directory)
        if any(directory.iterdir()):
            raise JadeError(ErrorCode.ALREADY_EXISTS, f"{directory} is not empty; name a new folder for the copy")
        for part in parts[:-1]:
            _link_or_copy(part, directory / part.path.name)
        last = parts[-1]
        _copy_bytes(last, directory / last.path.name)
        record = Committed(parts[0].header.first_frame, last.header.first_frame, last.end)
        _write(directory / COMMITTED_NAME, record.encode())
        fsync_directory(directory)
    except OSError as error:
        raise disk_error(error, "copy the log", directory) from error


def _link_or_copy(part: Part, target: Path) -> None:
    try:
        target.hardlink_to(part.path)
    except OSError:  # another file system, or one without hard links
        _copy_bytes(part, target)


def _copy_bytes(part: Part, target: Path) -> None:
    source_fd = os.open(part.path, os.O_RDONLY)
    try:
        target_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            for offset in range(0, part.end, _COPY_BYTES):
                size = min(_COPY_BYTES, part.end - offset)
                data = os.pread(source_fd, size, offset)
                assert len(data) == size
                write_all(target_fd, [data], offset)
            sync_all(target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_all(fd, [data], 0)
        sync_all(fd)
    finally:
        os.close(fd)
