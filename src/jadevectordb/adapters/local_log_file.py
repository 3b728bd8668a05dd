"""Reading log files: headers, frames one after the other, and what a crash left at the end of the last file.

Nothing here trusts a page: every frame handed out has had its header, its table and each entry's bytes checked against
their hashes. Damage is `JadeError` CORRUPT with file and offset in its sentence and its details.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from jadevectordb.adapters.os_disk import disk_error
from jadevectordb.log import frame
from jadevectordb.log.entry import decode
from jadevectordb.log.frame import DamageError, FileHeader, FrameHeader, Row
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.operations import Entry

SUFFIX = ".log"
_WINDOW_BYTES = 1 << 20  # read at once; a larger frame is read in one piece of its own
_SCAN_BYTES = 4 << 20


def file_name(first_frame: int) -> str:
    return f"{first_frame:020d}{SUFFIX}"


def list_log_files(directory: Path) -> list[int]:
    """First frame numbers of the files in the folder, ascending."""
    names = (path.name for path in directory.glob(f"*{SUFFIX}"))
    stems = (name[: -len(SUFFIX)] for name in names)
    return sorted(int(stem) for stem in stems if len(stem) == 20 and stem.isdigit())


def corrupt(path: Path, offset: int, reason: str) -> NoReturn:
    raise JadeError(
        ErrorCode.CORRUPT,
        f"the log file {path} is damaged at byte {offset}: {reason}. "
        "Nothing was changed; restore this file or the database from a snapshot",
        details={"file": str(path), "offset": offset},
    )


class Part(NamedTuple):
    """One log file as far as it counts."""

    path: Path
    header: FileHeader
    header_bytes: int  # the first frame begins here
    end: int  # the file's durable frames end here


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise JadeError(
            ErrorCode.LOG_TRUNCATED,
            f"the log file {path} was removed while it was being read; read again from a later entry",
            details={"file": str(path)},
        ) from error
    except OSError as error:
        raise disk_error(error, "open a log file", path) from error
    try:
        yield fd
    finally:
        os.close(fd)


def read_header(path: Path) -> tuple[FileHeader, int, int]:
    """The file's header, the header's length and the file's size. Raises CORRUPT, FORMAT_TOO_NEW."""
    with _opened(path) as fd:
        try:
            size = frame.file_header_bytes(_pread(fd, path, 0, frame.PREAMBLE_BYTES))
            return frame.parse_file_header(_pread(fd, path, 0, size)), size, os.fstat(fd).st_size
        except DamageError as damage:
            corrupt(path, damage.offset, damage.reason)


def _pread(fd: int, path: Path, offset: int, size: int) -> bytes:
    """The bytes there are, up to `size`; one piece however large."""
    try:
        data = os.pread(fd, size, offset)
        if len(data) in (0, size):
            return data
        pieces = [data]
        while data:
            done = sum(map(len, pieces))
            data = os.pread(fd, size - done, offset + done)
            pieces.append(data)
        return b"".join(pieces)
    except OSError as error:
        raise disk_error(error, "read the log", path) from error


class FrameCursor:
    """Walks the frames of one file from its first to a given end, checking that numbers and sequences have no gap.

    Memory: one window of about 1 MB, or one frame where that is larger. Entry bytes are views of the window.
    """

    def __init__(self, fd: int, part: Part) -> None:
        self._fd = fd
        self._part = part
        self._salt = part.header.salt
        self._window = b""
        self._window_offset = 0
        self.path = part.path
        self.offset = part.header_bytes  # of the next frame
        self.number = part.header.first_frame  # of the next frame
        self.next_sequences = dict(part.header.next_sequences)

    def _view(self, offset: int, size: int) -> tuple[bytes, int]:
        """Bytes that hold file[offset : offset + size] (less at the end) and where in them it begins."""
        start = offset - self._window_offset
        if start < 0 or start + size > len(self._window):
            self._window = b""  # let the old one go first
            wanted = min(max(size, _WINDOW_BYTES), self._part.end - offset)
            self._window = _pread(self._fd, self._part.path, offset, wanted)
            self._window_offset = offset
            start = 0
        return self._window, start

    def peek(self) -> tuple[FrameHeader, list[Row]]:
        """Header and table of the next frame, checked, without moving on. Raises DamageError."""
        offset = self.offset
        data, at = self._view(offset, frame.FRAME_HEADER_BYTES)
        header = frame.parse_frame_header(data, at, salt=self._salt, offset=offset)
        if header.number != self.number:
            raise DamageError(offset, f"frame {self.number} expected, frame {header.number} found")
        if offset + header.length > self._part.end:
            raise DamageError(offset, "the file ends within a frame")
        data, at = self._view(offset, frame.table_bytes(header))
        rows = frame.parse_table(data, at, header, salt=self._salt)
        following: dict[ShardId, int] = {}
        for row in rows:
            expected = following.get(row.shard) or self.next_sequences.get(row.shard, 1)
            if row.sequence != expected:
                raise DamageError(offset, f"entry {expected} of shard {row.shard} expected, {row.sequence} found")
            following[row.shard] = expected + 1
        return header, rows

    def advance(self, header: FrameHeader, rows: list[Row]) -> None:
        """Move past the frame that `peek` returned."""
        for row in rows:
            self.next_sequences[row.shard] = Sequence(row.sequence + 1)
        self.offset = header.offset + header.length
        self.number = header.number + 1

    def entry_bytes(self, header: FrameHeader, row: Row) -> memoryview:
        """An entry's bytes, checked. Raises DamageError."""
        data, at = self._view(header.offset, header.length)
        start = at + row.start
        view = memoryview(data)[start : start + row.length]
        frame.check_entry(view, row, offset=header.offset + row.start)
        return view

    def extend(self, end: int) -> None:
        """The file has grown: its durable frames end here now."""
        assert end >= self._part.end
        self._part = self._part._replace(end=end)

    @property
    def at_end(self) -> bool:
        return self.offset >= self._part.end


def read_frames(part: Part, wanted_from: dict[ShardId, Sequence]) -> Iterator[list[tuple[ShardId, Sequence, Entry]]]:
    """Decoded frames of one file, entries below `wanted_from` (a shard not named: none) and empty frames left out."""
    with _opened(part.path) as fd:
        yield from frames_from(FrameCursor(fd, part), wanted_from)


def frames_from(
    cursor: FrameCursor, wanted_from: dict[ShardId, Sequence]
) -> Iterator[list[tuple[ShardId, Sequence, Entry]]]:
    """The same from where a cursor stands to its end; it has moved past a frame when that is handed out."""
    path = cursor.path
    while not cursor.at_end:
        found = []
        try:
            header, rows = cursor.peek()
            for row in rows:
                if row.sequence >= wanted_from.get(row.shard, 1):
                    data = cursor.entry_bytes(header, row)
                    found.append((row.shard, row.sequence, _decode(data, path, header.offset + row.start)))
        except DamageError as damage:
            corrupt(path, damage.offset, damage.reason)
        cursor.advance(header, rows)
        if found:
            yield found


def _decode(data: memoryview, path: Path, offset: int) -> Entry:
    try:
        return decode(data)
    except JadeError as error:
        raise JadeError(
            error.code,
            f"{error.message} (file {path}, byte {offset})",
            details={**error.details, "file": str(path), "offset": offset},
        ) from error


def read_tables(part: Part) -> Iterator[list[Row]]:
    """The tables of one file's frames: who, which sequence, when; without the entries."""
    with _opened(part.path) as fd:
        cursor = FrameCursor(fd, part)
        while not cursor.at_end:
            try:
                header, rows = cursor.peek()
            except DamageError as damage:
                corrupt(part.path, damage.offset, damage.reason)
            cursor.advance(header, rows)
            yield rows


@dataclass(frozen=True, slots=True)
class Recovered:
    """The last file after a look at all of it."""

    part: Part
    next_number: int
    next_sequences: dict[ShardId, Sequence]
    torn_bytes: int  # what lies beyond the end and is not zero: the rest of a write that never finished


def recover(path: Path, header: FileHeader, header_bytes: int, size: int, committed: int) -> Recovered:
    """Walk the last file and decide where it ends. committed: everything below was durable once (0: not known).

    Raises CORRUPT when a frame that had been acknowledged is damaged: it lies below `committed`, or below the committed
    end that a later frame carries. Any other bad bytes are a write that was cut short, and the file ends before them.
    """
    if size < committed:
        corrupt(path, size, f"the file ends here, but {committed} bytes of it were in use")
    part = Part(path, header, header_bytes, size)
    with _opened(path) as fd:
        cursor = FrameCursor(fd, part)
        while not cursor.at_end:
            try:
                frame_header, rows = cursor.peek()
                for row in rows:
                    cursor.entry_bytes(frame_header, row)
            except DamageError as damage:
                if cursor.offset < max(committed, _committed_by_later_frames(fd, part, cursor.offset)):
                    corrupt(path, damage.offset, damage.reason)
                break
            cursor.advance(frame_header, rows)
        end = cursor.offset
        torn_bytes = _bytes_in_use(fd, path, end, size)
    return Recovered(Part(path, header, header_bytes, end), cursor.number, cursor.next_sequences, torn_bytes)


def _committed_by_later_frames(fd: int, part: Part, offset: int) -> int:
    """The largest committed end in any frame header beyond `offset`; 0 when there is none."""
    found = 0
    for chunk_offset in range(offset, part.end, _SCAN_BYTES):
        chunk = _pread(fd, part.path, chunk_offset, _SCAN_BYTES)
        at = chunk.find(frame.FRAME_MAGIC)
        while at >= 0:
            if at % frame.FRAME_ALIGNMENT == 0:
                try:
                    header = frame.parse_frame_header(chunk, at, salt=part.header.salt, offset=chunk_offset + at)
                    found = max(found, header.committed)
                except DamageError:
                    pass  # looks like a frame, is none
            at = chunk.find(frame.FRAME_MAGIC, at + 1)
    return found


def _bytes_in_use(fd: int, path: Path, start: int, end: int) -> int:
    """How many bytes from `start` on come before the zeros that fill the rest of the file."""
    in_use = 0
    for offset in range(start, end, _SCAN_BYTES):
        used = len(_pread(fd, path, offset, min(_SCAN_BYTES, end - offset)).rstrip(b"\0"))
        if used:
            in_use = offset + used - start
    return in_use
