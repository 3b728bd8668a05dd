"""A copy of a replicated log as a local one: the same entries under the same sequences, in a folder that `LocalLog` opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from pathlib import Path

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.local_log_active import ActiveFile
from jadevectordb.adapters.os_disk import disk_error, make_directory
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.limits import LOG_FILE_BYTES
from jadevectordb.model.operations import Entry, Write
from jadevectordb.ports.log import Delivered

_FRAME_BYTES = 8 << 20  # about; one sync each
_FRAME_ENTRIES = 512


def copy_streams(parts: Seq[tuple[ShardId, int, Iterator[Delivered]]], directory: Path) -> None:
    """parts: shard, first sequence kept, entries from it on. Durable on return.

    Raises ALREADY_EXISTS when the folder holds something, DISK_FULL, READ_ONLY, IO_ERROR, and what reading raises; what
    was copied until then stays and is the caller's to remove.
    """
    try:
        make_directory(directory)
        if any(directory.iterdir()):
            raise JadeError(ErrorCode.ALREADY_EXISTS, f"{directory} is not empty; name a new folder for the copy")
        begins = {shard: Sequence(first) for shard, first, _entries in parts if first > 1}
        os.close(ActiveFile.create(directory, 1, begins, None, LOG_FILE_BYTES).fd)
    except OSError as error:
        raise disk_error(error, "copy the log", directory) from error
    log = LocalLog(directory)
    try:
        for _shard, first, entries in parts:
            _copy(log, first, entries)
    finally:
        log.close()


def _copy(log: LocalLog, first: int, entries: Iterator[Delivered]) -> None:
    frame: list[tuple[ShardId, Entry]] = []
    size, following = 0, first

    def write() -> None:
        nonlocal size, following
        sequences = log.append(frame)
        assert sequences == list(range(following, following + len(frame)))
        following += len(frame)
        frame.clear()
        size = 0

    for delivered in entries:
        frame.append((delivered.shard, delivered.entry))
        operation = delivered.entry.operation
        if isinstance(operation, Write):
            size += operation.vectors.nbytes + sum(map(len, operation.metadata))
        if size >= _FRAME_BYTES or len(frame) >= _FRAME_ENTRIES:
            write()
    write()
