"""The two files of a log that change: the active log file, which grows, and the committed record beside it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from jadevectordb.adapters.local_log_file import Part, file_name
from jadevectordb.adapters.os_disk import disk_error, reserve, sync_all, sync_data, write_all
from jadevectordb.log.entry import Buffer
from jadevectordb.log.frame import Committed, FileHeader, parse_committed
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.limits import LOG_RESERVE_BYTES_MAX, LOG_RESERVE_BYTES_MIN

NEW_SUFFIX = ".new"  # of a file that is not yet part of the log
COMMITTED_NAME = "committed"


class ActiveFile:
    """The last file of the log, open for writing.

    Invariant: `end` is the end of the last durable frame. Beyond it are only zeros (blocks reserved ahead) or, between
    `write` and `commit` or `undo`, frames that nobody has been told about.
    """

    def __init__(self, fd: int, part: Part, file_bytes: int) -> None:
        """fd: open for reading and writing; owned from now on."""
        self.fd = fd
        self.path = part.path
        self.header = part.header
        self.header_bytes = part.header_bytes
        self.end = part.end
        self._file_bytes = file_bytes
        self._reserved = part.end
        self._written = part.end

    @classmethod
    def open(cls, part: Part, file_bytes: int) -> ActiveFile:
        """An existing file; what lies beyond `part.end` is cut off. Raises READ_ONLY, DISK_FULL, IO_ERROR."""
        try:
            active = cls(os.open(part.path, os.O_RDWR), part, file_bytes)
        except OSError as error:
            raise disk_error(error, "open the log for writing", part.path) from error
        try:
            active.undo()
        except OSError as error:
            os.close(active.fd)
            raise disk_error(error, "recover the log", part.path) from error
        return active

    @classmethod
    def create(
        cls,
        directory: Path,
        first_frame: int,
        next_sequences: dict[ShardId, Sequence],
        previous: Part | None,
        file_bytes: int,
    ) -> ActiveFile:
        """A new, empty, durable file, under its final name only once its header is on the disk.

        Raises OSError, and the file does not exist, or exists whole when only its name could not be made durable.
        """
        header = FileHeader(
            salt=secrets.randbits(64),
            first_frame=first_frame,
            previous_first=previous.header.first_frame if previous else 0,
            previous_end=previous.end if previous else 0,
            next_sequences=dict(next_sequences),
        )
        data = header.encode()
        path = directory / file_name(first_frame)
        new = path.with_name(path.name + NEW_SUFFIX)
        directory_fd = os.open(directory, os.O_RDONLY)
        try:
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(fd, [data], 0)
                sync_all(fd)
                new.rename(path)
                os.fsync(directory_fd)
            except OSError:
                os.close(fd)
                new.unlink(missing_ok=True)
                raise
        finally:
            os.close(directory_fd)
        return cls(fd, Part(path, header, len(data), len(data)), file_bytes)

    @property
    def part(self) -> Part:
        return Part(self.path, self.header, self.header_bytes, self.end)

    @property
    def is_empty(self) -> bool:
        return self.end == self.header_bytes

    def write(self, pieces: list[Buffer], size: int) -> None:
        """Write `size` bytes of frames after `end`, not yet durable. Raises OSError; then `undo`."""
        self._reserve(self.end + size)
        self._written = write_all(self.fd, pieces, self.end)
        assert self._written == self.end + size

    def sync(self) -> None:
        """Make what was written durable. An OSError here says nothing about what is on the disk: never try again."""
        sync_data(self.fd)

    def commit(self) -> None:
        self.end = self._written

    def undo(self) -> None:
        """Take back durably whatever lies beyond `end`, so that no recovery can find it. Raises OSError."""
        os.ftruncate(self.fd, self.end)
        sync_all(self.fd)
        self._written = self._reserved = self.end

    def close(self) -> None:
        """Give back what was reserved, make all durable, close. Raises OSError."""
        try:
            self.undo()
        finally:
            os.close(self.fd)

    def _reserve(self, needed_end: int) -> None:
        """Have disk blocks reserved beyond `needed_end`: as much as the file already has, within limits."""
        if needed_end <= self._reserved or needed_end >= self._file_bytes:
            return
        ahead = min(max(needed_end, LOG_RESERVE_BYTES_MIN), LOG_RESERVE_BYTES_MAX)
        target = min(needed_end + ahead, self._file_bytes)
        done = reserve(self.fd, self.end, target - self.end)
        self._reserved = target if done else self._file_bytes  # not possible here: do not ask before each write


class CommittedFile:
    """The committed record on disk: one small block, rewritten in place."""

    def __init__(self, directory: Path) -> None:
        """Open, or create, the record's file. `found` is what it held; None when missing or damaged."""
        self.path = directory / COMMITTED_NAME
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error, "open the log's committed record", self.path) from error
        try:
            self.found: Committed | None = parse_committed(os.pread(self._fd, 4096, 0))
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, record: Committed) -> None:
        """Survives the process at once, a power cut only some time later. Raises OSError."""
        os.pwrite(self._fd, record.encode(), 0)

    def sync(self) -> None:
        """Raises OSError."""
        sync_all(self._fd)

    def close(self) -> None:
        os.close(self._fd)
