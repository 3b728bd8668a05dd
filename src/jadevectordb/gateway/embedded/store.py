"""A folder of databases: create, open, list, drop, copy.

FOLDER/LOCK            held while the store is open, so that two processes never write one folder
FOLDER/catalog.sqlite  which databases there are and how they were configured
FOLDER/db-*/           one database: its log and its shards
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from jadevectordb.gateway.embedded.alteration import altered
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.index.text import TextConfig
from jadevectordb.model.database import (
    CATALOG_NAME,
    FORMAT_VERSION,
    DatabaseConfig,
    check_config,
    index_kind_of,
    metric_of,
)
from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import NodeId
from jadevectordb.model.index_parameters import parse_index_parameters
from jadevectordb.model.limits import SEAL_ROWS
from jadevectordb.model.schema import Schema, parse_schema
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.snapshot import copy_database
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record
from jadevectordb.prepared_structs import prepare_structs
from jadevectordb.segment.builder import sync_folder

_PREFIX = "database/"
_FOLDER = "db-"
_DROPPED = "dropped-"
_UNFINISHED = ".unfinished-"
_NODE = NodeId("local")


class World(Protocol):
    """What a store needs from outside; `main` builds the real one."""

    @property
    def clock(self) -> Clock: ...
    def open_catalog(self, folder: Path) -> MetadataStore: ...
    def lock(self, folder: Path) -> Any:
        """Exclusive use of the folder until its `close()`; raises LOCKED."""
        ...

    def open_database(self, config: DatabaseConfig, directory: Path) -> OpenDatabase: ...
    def unique_name(self) -> str: ...


class Store:
    """Made by `jadevectordb.open`. Thread-safe. A context manager: leaving it closes everything."""

    def __init__(self, path: Path, world: World) -> None:
        prepare_structs()
        self.path = path
        self._world = world
        self._lock = threading.RLock()
        self._open: dict[str, Database] = {}
        self._closed = False
        if (path / "log").is_dir() and any(path.glob("shard-*")):
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"{path} is the inside of one database: open the folder above it, {path.parent}.",
            )
        self._folder_lock = world.lock(path)
        try:
            self._check_catalog()
            self._catalog = world.open_catalog(path)
            try:
                self._finish_drops()
            except BaseException:
                self._catalog.close()
                raise
        except BaseException:
            self._folder_lock.close()
            raise

    def _check_catalog(self) -> None:
        path = self.path / CATALOG_NAME
        # An empty file would be taken for a new catalog, and the databases for none.
        if (not path.exists() or path.stat().st_size == 0) and any(self.path.glob(f"*{_FOLDER}*")):
            raise JadeError(
                ErrorCode.CORRUPT,
                f"{path} is missing or empty but databases are there: restore the folder from a snapshot.",
                details={"file": str(path)},
            )

    def _finish_drops(self) -> None:
        """What a crash left of dropping a database goes, or comes back; so does an empty folder it left of creating one."""
        known = {
            msgspec.json.decode(record.value, type=_Located).folder for record in self._catalog.list(_PREFIX).values()
        }
        for leftover in self.path.glob(f"{_DROPPED}{_FOLDER}*"):
            name = leftover.name.removeprefix(_DROPPED)
            if name in known:
                leftover.rename(self.path / name)
            else:
                shutil.rmtree(leftover, ignore_errors=True)
        for folder in self.path.glob(f"{_FOLDER}*"):
            if folder.name not in known:
                with contextlib.suppress(OSError):  # never one that holds anything
                    folder.rmdir()

    # Databases

    def create_database(
        self,
        name: str,
        dimension: int,
        metric: str = "cosine",
        shards: int = 1,
        index: str = "AUTO",
        schema: Schema | Mapping[str, Any] | None = None,
        *,
        index_parameters: Mapping[str, Any] | None = None,
        strict: bool = False,
        text_language: str = "english",
        seal_rows: int = SEAL_ROWS,
        exist_ok: bool = False,
    ) -> Database:
        """Make a database and open it.

        dimension: 1 to 4096 (bits under hamming). metric: cosine, euclidean, dot or hamming. shards: parts it is split into
        by id. index: AUTO, FLAT, IVF, HNSW or LSH. index_parameters: by hand instead of what is found best when the index
        is built: M, efConstruction and efSearch of HNSW, nlist and nprobe of IVF, numTables and numBits of LSH. schema:
        metadata fields declared with a type, such as {"year": "integer", "tags": "string[]", "body": "text"}: typed and
        faster to filter; "text" makes a field searchable by words. strict: refuse fields that are not declared. exist_ok:
        open it if it exists with the same settings.
        Raises ALREADY_EXISTS, INVALID_ARGUMENT.
        """
        if not isinstance(name, str) or type(dimension) is not int or type(shards) is not int:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                "create_database takes a name, an integer dimension, and an integer number of shards.",
            )
        config = DatabaseConfig(
            name=name,
            folder=f"{_FOLDER}{self._world.unique_name()}",
            dimension=dimension,
            metric=metric_of(metric),
            shards=shards,
            index=index_kind_of(index),
            index_parameters=parse_index_parameters(index_kind_of(index), index_parameters),
            schema=parse_schema(schema, strict=strict),
            text_language=text_language,
            seal_rows=seal_rows,
            created_ms=self._world.clock.now_ms(),
        )
        check_config(config)
        TextConfig(
            config.schema.texts or ("any",), text_language
        )  # raises for languages and fields that cannot be searched
        with self._lock:
            self._check_open()
            existing = self._catalog.get(_PREFIX + name)
            if existing is not None:
                return self._existing(name, config, existing, exist_ok)
            folder = self.path / config.folder
            folder.mkdir()
            revision: int | None = None
            try:
                revision = self._catalog.compare_and_set(_PREFIX + name, msgspec.json.encode(config), 0)
                if revision is None:
                    raise _exists(name)
                return self.database(name)
            except BaseException:
                self._uncreate(name, folder, revision)
                raise

    def _uncreate(self, name: str, folder: Path, revision: int | None) -> None:
        """Take back what creating has left when it failed, such as on a full disk. revision: of the catalog's record, if any."""
        try:
            if revision is not None:
                self._catalog.compare_and_set(_PREFIX + name, None, revision)
        except JadeError:  # then it stays, empty, and can be dropped
            return
        shutil.rmtree(folder, ignore_errors=True)

    def _existing(self, name: str, wanted: DatabaseConfig, existing: Record, exist_ok: bool) -> Database:
        if not exist_ok:
            raise _exists(name)
        found = _decode(name, existing)
        ours = msgspec.structs.replace(wanted, folder=found.folder, created_ms=found.created_ms)
        if ours != found:
            different = [f for f in found.__struct_fields__ if getattr(ours, f) != getattr(found, f)]
            raise JadeError(
                ErrorCode.ALREADY_EXISTS,
                f"Database {name!r} exists with another {', '.join(different)}: open it with database({name!r}), or choose another name.",
                details={"different": different},
            )
        return self.database(name)

    def database(self, name: str) -> Database:
        """Open an existing database; the same object every time. Raises UNKNOWN_DATABASE, CORRUPT, FORMAT_TOO_NEW."""
        with self._lock:
            self._check_open()
            if name in self._open:
                return self._open[name]
            record = self._catalog.get(f"{_PREFIX}{name}")
            if record is None:
                known = ", ".join(self.databases()) or "none yet"
                raise JadeError(
                    ErrorCode.UNKNOWN_DATABASE,
                    f"There is no database {name!r} in {self.path} (there are: {known}). Make it with create_database.",
                    details={"name": name},
                )
            config = _decode(name, record)
            if not (self.path / config.folder).is_dir():
                raise JadeError(
                    ErrorCode.CORRUPT,
                    f"The folder {self.path / config.folder} of database {name!r} is missing: restore the store from a snapshot.",
                    details={"file": str(self.path / config.folder)},
                )
            opened = Database(self._world.open_database(config, self.path / config.folder), _NODE)
            self._open[name] = opened
            return opened

    def alter_database(
        self,
        name: str,
        *,
        index: str | None = None,
        index_parameters: Mapping[str, Any] | None = None,
        schema: Schema | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        dimension: int | None = None,
    ) -> Database:
        """Change how a database is configured, while it is in use; what is None stays. The same object as `database(name)`.

        index, index_parameters: segments that were built otherwise are rebuilt in the background and searched as they are
        until then. Parameters replace those there were; another index starts without. schema: replaces the declared fields,
        and what is stored must fit; fields declared as text are found by their words at once. strict: refuse fields that are
        not declared. dimension: only while the database is empty.
        Searches go on meanwhile, writes wait. After a crash at any moment the database is configured as before or as wanted.
        Raises INVALID_ARGUMENT, SCHEMA_VIOLATION naming a vector that does not fit, CONFLICT, TIMEOUT, DISK_FULL,
        UNKNOWN_DATABASE; in every case nothing was changed.
        """
        database = self.database(name)
        with database._openings.altering:
            record = self._catalog.get(_PREFIX + name)
            if record is None:
                raise _changed_meanwhile(name)
            config = _decode(name, record)
            wanted = altered(
                config,
                index=index,
                index_parameters=index_parameters,
                schema=schema,
                strict=strict,
                dimension=dimension,
            )
            if wanted != config or list(wanted.schema.fields) != list(config.schema.fields):
                database._openings.alter(wanted, lambda: self._reconfigure(database, record, wanted))
        return database

    def _reconfigure(self, database: Database, record: Record, wanted: DatabaseConfig) -> None:
        """Write the configuration to the catalog and open the database with it, or leave both as they were and raise."""
        key, folder = _PREFIX + wanted.name, self.path / wanted.folder
        with self._lock:
            self._check_open()
            if self._open.get(wanted.name) is not database:
                raise _changed_meanwhile(wanted.name)
            revision = self._catalog.compare_and_set(key, msgspec.json.encode(wanted), record.revision)
            if revision is None:
                raise _changed_meanwhile(wanted.name)
            try:
                database._openings.reopen(lambda: self._world.open_database(wanted, folder))
            except BaseException:
                try:
                    self._catalog.compare_and_set(key, record.value, revision)
                    config = _decode(wanted.name, record)
                    database._openings.reopen(lambda: self._world.open_database(config, folder))
                except JadeError:  # it can't be opened at all now: the next call of `database` tries again and says why
                    self._open.pop(wanted.name, None)
                    database._openings.close()
                raise

    def databases(self) -> list[str]:
        """Names, in order."""
        with self._lock:
            self._check_open()
            return [key.removeprefix(_PREFIX) for key in self._catalog.list(_PREFIX)]

    def describe(self, name: str) -> DatabaseConfig:
        """How the database is configured."""
        with self._lock:
            self._check_open()
            record = self._catalog.get(f"{_PREFIX}{name}")
            if record is None:
                raise JadeError(
                    ErrorCode.UNKNOWN_DATABASE, f"There is no database {name!r} in {self.path}.", details={"name": name}
                )
            return _decode(name, record)

    def drop_database(self, name: str) -> None:
        """Delete a database and everything in it. Raises UNKNOWN_DATABASE."""
        with self._lock:
            config = self.describe(name)
            record = self._catalog.get(_PREFIX + name)
            opened = self._open.pop(name, None)
            if opened is not None:
                opened._openings.close()
            assert record is not None
            # Renamed first: the next open finishes or takes back what a crash leaves, and what is half deleted is no database.
            folder, gone = self.path / config.folder, self.path / f"{_DROPPED}{config.folder}"
            if folder.exists():
                folder.rename(gone)
            try:
                self._catalog.compare_and_set(_PREFIX + name, None, record.revision)
            except BaseException:
                if gone.exists():
                    gone.rename(folder)
                raise
            shutil.rmtree(gone, ignore_errors=True)

    # The whole folder

    def snapshot(self, path: str | Path) -> None:
        """Copy the store to a new folder as of now, while reading and writing go on; open it like any other store.

        Sealed files are hard-linked where the file system allows, so this takes milliseconds and little space. Every write
        acknowledged before the call is in it; each write is in it whole or not at all. Raises ALREADY_EXISTS, DISK_FULL.
        """
        target = Path(path)
        with self._lock:
            self._check_open()
            if target.exists():
                raise JadeError(ErrorCode.ALREADY_EXISTS, f"{target} exists: name a new folder for the snapshot.")
            opened = {name: self.database(name) for name in self.databases()}
            _remove_unfinished(target)
            draft = target.with_name(f"{target.name}{_UNFINISHED}{self._world.unique_name()}")
            try:
                draft.mkdir(parents=True)
                catalog = self._world.open_catalog(draft)
                try:
                    for name, database in opened.items():
                        copy_database(database._use(), draft / database.config.folder)
                        catalog.compare_and_set(_PREFIX + name, msgspec.json.encode(database.config), 0)
                finally:
                    catalog.close()
                draft.rename(target)
                sync_folder(target.parent)
            except OSError as error:
                shutil.rmtree(draft, ignore_errors=True)
                raise disk_error(error, "make the snapshot", target) from error
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise

    def close(self) -> None:
        """Close every database. What was written is safe without it; with it the next open is quicker. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for database in self._open.values():
                database._openings.close()
            self._open.clear()
            self._catalog.close()
            self._folder_lock.close()

    def _check_open(self) -> None:
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, f"The store {self.path} is closed: open it again with jadevectordb.open.")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {str(self.path)!r}{' closed' if self._closed else ''}>"


class _Located(msgspec.Struct):
    """As much of a catalog entry as every format has."""

    folder: str


def _remove_unfinished(target: Path) -> None:
    """Remove what crashes left of earlier snapshots to the same place, and nothing that is anything else."""
    for path in target.parent.glob(f"*{_UNFINISHED}*"):
        is_draft = path.name.startswith(target.name + _UNFINISHED) and path.is_dir() and not path.is_symlink()
        if is_draft and all(p.name.startswith((CATALOG_NAME, _FOLDER)) for p in path.iterdir()):
            shutil.rmtree(path, ignore_errors=True)


def _decode(name: str, record: Record) -> DatabaseConfig:
    probe = msgspec.json.decode(record.value)
    found = probe.get("format") if isinstance(probe, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise JadeError(
            ErrorCode.FORMAT_TOO_NEW,
            f"Database {name!r} has format {found}, this version reads up to {FORMAT_VERSION}: open it with a newer JadeVectorDB.",
            details={"format": found, "supported": FORMAT_VERSION},
        )
    try:
        return msgspec.json.decode(record.value, type=DatabaseConfig)
    except msgspec.MsgspecError as error:
        raise JadeError(
            ErrorCode.CORRUPT, f"The catalog entry of database {name!r} can't be read ({error})."
        ) from error


def _changed_meanwhile(name: str) -> JadeError:
    return JadeError(
        ErrorCode.CONFLICT,
        f"Database {name!r} was dropped or closed while it was to be altered; nothing was changed.",
        details={"name": name},
    )


def _exists(name: str) -> JadeError:
    return JadeError(
        ErrorCode.ALREADY_EXISTS,
        f"Database {name!r} exists: open it with database({name!r}), or create it with exist_ok=True.",
        details={"name": name},
    )
