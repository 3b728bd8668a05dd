"""Files that are there as a whole or not at all: written under another name, renamed when complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.transfer.checkpoint import sync_directory
from jadevectordb.transfer.rows import write_failed


@contextmanager
def complete_files(paths: list[Path], overwrite: bool) -> Iterator[list[BinaryIO]]:
    """Open files for writing that take their names, durable, when the block ends without an error, and else leave nothing.

    paths: in one directory. The last is the one that counts: while it is there, the others are its own.
    Raises ALREADY_EXISTS (overwrite=False), DISK_FULL, IO_ERROR.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise JadeError(
                ErrorCode.ALREADY_EXISTS,
                f"{path} exists already: choose another name, or replace it with overwrite=True.",
                details={"file": str(path)},
            )
    parts = [path.with_name(path.name + ".part") for path in paths]
    try:
        with ExitStack() as stack:
            files: list[BinaryIO] = [stack.enter_context(part.open("wb")) for part in parts]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        if len(paths) > 1:
            paths[-1].unlink(missing_ok=True)  # or an old array could be found beside new ids
        for part, path in zip(parts, paths, strict=True):
            part.replace(path)
        sync_directory(paths[-1].parent)
    except OSError as error:
        raise write_failed(paths[-1], error) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
