"""Copies a database as of one moment while it is in use: hard links of sealed files, the checkpoint, and the log's tail."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.segment.builder import sync_folder
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard.checkpoint import CHECKPOINT_NAME


def copy_database(database: OpenDatabase, target: Path) -> None:
    """Make `target` a database folder with everything acknowledged before the call.

    Checkpoints and segment folders stand still meanwhile (writing goes on into the log and memory), so that the log copied
    last continues every checkpoint copied before it. Raises DISK_FULL, READ_ONLY or IO_ERROR, and leaves what was copied.
    """
    try:
        _copy(database, target)
    except OSError as error:
        raise disk_error(error, "copy the database", target) from error


def _copy(database: OpenDatabase, target: Path) -> None:
    target.mkdir()
    with ExitStack() as still:
        for replica in database.replicas:
            still.enter_context(replica.maintenance)
        for replica in database.replicas:
            folder = target / replica.directory.name
            folder.mkdir()
            for part in replica.checkpoint_parts:
                assert isinstance(part.reader, SealedSegment)
                _link_folder(part.reader.directory, folder / part.reader.name)
            checkpoint = replica.directory / CHECKPOINT_NAME
            if checkpoint.exists():
                _copy_durably(checkpoint, folder / CHECKPOINT_NAME)
            sync_folder(folder)
        database.log.copy_to(target / "log")
    sync_folder(target)


def _link_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError:  # another file system, or one without links
            _copy_durably(path, target / path.name)
    sync_folder(target)


def _copy_durably(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
