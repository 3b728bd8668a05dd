"""The only place that builds the real world: which clock, which disk, which log, which processes."""

from __future__ import annotations

import atexit
import os
import secrets
import weakref
from collections.abc import Callable
from pathlib import Path

from jadevectordb.adapters.child_process import ChildProcess
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.os_disk import FolderLock, disk_error, write_file_atomically
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.model.database import CATALOG_NAME, DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.ports.compute import Compute
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.ports.progress import UNWATCHED, Progress
from jadevectordb.shard.maintenance import Lane


class RealWorld:
    """The adapters of a single node that keeps its data in a folder.

    make_compute: where segments are built. progress_of: what a database with this configuration tells how far it is.
    """

    def __init__(
        self,
        make_compute: Callable[[], Compute] = ChildProcess,
        progress_of: Callable[[DatabaseConfig], Progress] | None = None,
    ) -> None:
        self.clock = SystemClock()
        self._make_compute = make_compute
        self._progress_of = progress_of

    def lock(self, folder: Path) -> FolderLock:
        return FolderLock(folder / "LOCK")

    def open_catalog(self, folder: Path) -> MetadataStore:
        return SqliteStore(folder / CATALOG_NAME)

    def open_database(self, config: DatabaseConfig, directory: Path) -> OpenDatabase:
        if not (directory / "log").exists() and any(directory.glob("shard-*")):
            raise JadeError(
                ErrorCode.CORRUPT,
                f"The log {directory / 'log'} is missing but shards are there: restore the database from a snapshot.",
                details={"file": str(directory / "log")},
            )
        log = LocalLog(directory / "log")
        try:
            return OpenDatabase(
                config,
                directory,
                log=log,
                compute={lane: self._make_compute() for lane in Lane},
                clock=self.clock,
                write_atomically=write_file_atomically,
                threads=os.cpu_count() or 1,
                progress=UNWATCHED if self._progress_of is None else self._progress_of(config),
            )
        except BaseException:
            log.close()
            raise

    def unique_name(self) -> str:
        return secrets.token_hex(5)


def open(path: str | Path) -> Store:
    """Open the folder of databases at `path`, made if it does not exist.

    One process at a time: raises LOCKED when another holds it, READ_ONLY when it can't be written to, FORMAT_TOO_NEW or
    CORRUPT when its contents are not what they should be. Close it, or use it in a `with` block.
    """
    return open_in(path, RealWorld())


def open_in(path: str | Path, world: RealWorld) -> Store:
    """The same in a world of the caller's making."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"{folder} is a file: name a folder.") from None
    except OSError as error:
        raise disk_error(error, "the folder can't be made", folder) from error
    store = Store(folder, world)
    # Threads and child processes are ended in order when the program forgets to; data is safe either way.
    atexit.register(_close_if_alive, weakref.ref(store))
    return store


def _close_if_alive(store: weakref.ref[Store]) -> None:
    alive = store()
    if alive is not None:
        alive.close()
