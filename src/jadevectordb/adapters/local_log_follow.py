"""Reading a log while another process writes it: nothing is locked, nothing is changed, nothing unfinished is seen.

How far the log goes is what its committed record says. The writer rewrites that record after each sync and before anyone is told
of the write, so whoever has heard of a write finds it below that end. The record is a block of a few bytes with a checksum: one
that is caught half written is read again. A file that was closed ends where its successor's header says.

A file that is read stays open, so removing it takes nothing away; a successor that was removed too is LOG_TRUNCATED.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from jadevectordb.adapters.local_log_active import COMMITTED_NAME
from jadevectordb.adapters.local_log_file import (
    FrameCursor,
    Part,
    file_name,
    frames_from,
    list_log_files,
    read_header,
)
from jadevectordb.adapters.os_disk import disk_error
from jadevectordb.log.frame import Committed, parse_committed
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.ports.log import Delivered, Frame

_READS_MAX = 1000  # of a record that is being rewritten; each takes microseconds


class LogFollower:
    """The followed-log port over a folder of files. `read` hands out every entry from `wanted` on, once, in log order."""

    def __init__(self, directory: Path, wanted: Mapping[ShardId, Sequence]) -> None:
        """wanted: of every shard, the first entry to hand out. Raises LOG_TRUNCATED when it is no longer there."""
        self._directory = directory
        self._wanted = dict(wanted)
        self._fd = -1  # of the file that is being read
        try:
            self._record_fd = os.open(directory / COMMITTED_NAME, os.O_RDONLY)
        except FileNotFoundError:
            raise _truncated(directory) from None
        except OSError as error:
            raise disk_error(error, "open the log", directory) from error
        try:
            self._enter(self._first_part(self._record()))
        except BaseException:
            self.close()
            raise

    def _record(self) -> Committed:
        for _ in range(_READS_MAX):
            try:
                record = parse_committed(os.pread(self._record_fd, 4096, 0))
            except OSError as error:
                raise disk_error(error, "read the log", self._directory) from error
            if record is not None:
                return record
        raise JadeError(ErrorCode.IO_ERROR, f"The committed record of the log in {self._directory} can't be read.")

    def _first_part(self, record: Committed) -> Part:
        """The newest file that begins at or before every entry wanted."""
        for first_frame in reversed(list_log_files(self._directory)):
            if record.first_file <= first_frame <= record.last_file:
                part = self._part(first_frame)
                if all(part.header.next_sequences.get(s, 1) <= wanted for s, wanted in self._wanted.items()):
                    return part
        raise _truncated(self._directory)

    def _part(self, first_frame: int) -> Part:
        """A file of which nothing is known to count yet."""
        path = self._directory / file_name(first_frame)
        header, header_bytes, _ = read_header(path)
        return Part(path, header, header_bytes, header_bytes)

    def _enter(self, part: Part) -> None:
        try:
            fd = os.open(part.path, os.O_RDONLY)
        except FileNotFoundError:
            raise _truncated(self._directory) from None
        except OSError as error:
            raise disk_error(error, "open a log file", part.path) from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._current, self._cursor = fd, part, FrameCursor(fd, part)

    @property
    def unread_bytes(self) -> int:
        record = self._record()
        if record.last_file == self._current.header.first_frame:
            return record.end - self._cursor.offset
        return record.end + os.fstat(self._fd).st_size - self._cursor.offset

    def read(self) -> Iterator[Frame]:
        """As `FollowedLog.read`."""
        record = self._record()
        while self._current.header.first_frame < record.last_file:
            following = self._successor()
            self._cursor.extend(following.header.previous_end)
            yield from self._frames()
            self._enter(following)
        if self._current.header.first_frame == record.last_file:
            self._cursor.extend(record.end)
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        for found in frames_from(self._cursor, self._wanted):
            yield [Delivered(*one) for one in found]

    def _successor(self) -> Part:
        mine = self._current.header.first_frame
        later = [first_frame for first_frame in list_log_files(self._directory) if first_frame > mine]
        if later:
            part = self._part(later[0])
            if part.header.previous_first == mine:
                return part
        raise _truncated(self._directory)

    def close(self) -> None:
        """Idempotent."""
        for fd in (self._fd, self._record_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._record_fd = -1


def _truncated(directory: Path) -> JadeError:
    return JadeError(
        ErrorCode.LOG_TRUNCATED,
        f"the log in {directory} no longer holds what was to be read next; start from a newer checkpoint",
        details={"file": str(directory)},
    )
