"""Opening a log's folder after whatever happened: finish what was begun, check that nothing is missing, find the end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jadevectordb.adapters.local_log_active import NEW_SUFFIX, ActiveFile, CommittedFile
from jadevectordb.adapters.local_log_file import (
    Part,
    Recovered,
    corrupt,
    file_name,
    list_log_files,
    read_header,
    recover,
)
from jadevectordb.adapters.os_disk import disk_error, fsync_directory, make_directory
from jadevectordb.log.frame import Committed


@dataclass(frozen=True, slots=True)
class OpenedFolder:
    closed: list[Part]  # oldest first
    last: Recovered
    committed: CommittedFile


def open_folder(directory: Path) -> OpenedFolder:
    """Raises CORRUPT, FORMAT_TOO_NEW, READ_ONLY, DISK_FULL or IO_ERROR; the log's files are then as they were."""
    try:
        make_directory(directory)
        committed = CommittedFile(directory)
    except OSError as error:
        raise disk_error(error, "create the log's folder", directory) from error
    try:
        _remove_unfinished(directory)
        first_frames = _kept_files(directory, committed.found)
        if not first_frames:
            first_frames = [_create_first(directory)]
        closed, last = _check_chain(directory, first_frames, committed.found)
        return OpenedFolder(closed, last, committed)
    except OSError as error:
        committed.close()
        raise disk_error(error, "open the log", directory) from error
    except BaseException:
        committed.close()
        raise


def _remove_unfinished(directory: Path) -> None:
    for path in directory.glob(f"*{NEW_SUFFIX}"):
        path.unlink()


def _create_first(directory: Path) -> int:
    created = ActiveFile.create(directory, 1, {}, None, 0)
    os.close(created.fd)
    return created.header.first_frame


def _kept_files(directory: Path, committed: Committed | None) -> list[int]:
    """First frames of the files that make the log, ascending; a truncation that a crash cut short is finished.

    Without the record, missing files at either end cannot be seen here: a reader that asks for what was in them is told.
    """
    found = list_log_files(directory)
    if committed is None:
        return found
    for needed in (committed.first_file, committed.last_file):
        if needed not in found:
            corrupt(directory / file_name(needed), 0, "the file is missing")
    kept = [first for first in found if first >= committed.first_file]
    if len(kept) < len(found):
        for first in found[: len(found) - len(kept)]:
            (directory / file_name(first)).unlink()
        fsync_directory(directory)
    return kept


def _check_chain(directory: Path, first_frames: list[int], committed: Committed | None) -> tuple[list[Part], Recovered]:
    """Each file names the one before it and where that one ended: nothing between the first and the last can be missing."""
    closed: list[Part] = []
    previous: tuple[Part, int] | None = None  # and its size
    for first_frame in first_frames:
        path = directory / file_name(first_frame)
        header, header_bytes, size = read_header(path)
        if header.first_frame != first_frame:
            corrupt(path, 0, f"its header says it begins at frame {header.first_frame}")
        if previous is not None:
            part, part_size = previous
            if header.previous_first != part.header.first_frame:
                corrupt(directory / file_name(header.previous_first), 0, "the file is missing")
            if part_size < header.previous_end:
                corrupt(part.path, part_size, f"the file ends here, but {header.previous_end} bytes of it were in use")
            if part_size > header.previous_end:
                corrupt(
                    part.path, header.previous_end, f"{part_size - header.previous_end} bytes follow the file's end"
                )
            closed.append(part._replace(end=header.previous_end))
        previous = Part(path, header, header_bytes, size), size
    assert previous is not None
    part, size = previous
    known_end = committed.end if committed is not None and committed.last_file == part.header.first_frame else 0
    return closed, recover(part.path, part.header, part.header_bytes, size, known_end)
