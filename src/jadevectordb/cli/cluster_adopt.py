"""`jade cluster adopt`: take the databases of a single node's folder into a cluster.

Every database is made in the cluster with the same settings, filled from the folder, and compared with it; the folder is only read.
An interruption of any kind is taken up again by the same command: what was acknowledged is not sent twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import jadevectordb as jade
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.gateway.service.directory import DatabaseRecord
from jadevectordb.model.database import CATALOG_NAME

if TYPE_CHECKING:
    from jadevectordb.client.sync import Client

_COMPARED_AT_ONCE = 1000
_RECORDS = "database/"  # of the catalog, in the server's metadata store


@dataclass(frozen=True, slots=True)
class Adopted:
    """left: what of the database could not be carried over, for people."""

    name: str
    vectors: int
    left: list[str]


def adopt(
    folder: Path, client: Client, *, replication: int | None, shards: int | None, progress: bool
) -> Iterator[Adopted]:
    """One database after the other. Raises NOT_FOUND (no databases there), LOCKED (a server runs on it), ALREADY_EXISTS, CORRUPT."""
    if not (folder / CATALOG_NAME).is_file():
        raise jade.JadeError(
            jade.ErrorCode.NOT_FOUND,
            f"{folder} holds no databases: name the data folder of a single node, such as jade-data.",
        )
    records = _records(folder)
    with jade.open(folder) as store:
        for engine_name in store.databases():
            if not engine_name.startswith("_"):  # the server's own
                record = records.get(engine_name)
                yield _adopt_one(store.database(engine_name), record, client, folder, replication, shards, progress)


def _records(folder: Path) -> dict[str, DatabaseRecord]:
    """Names people gave databases, where a server kept the folder."""
    path = folder / "server" / "accounts.sqlite"
    if not path.is_file():
        return {}
    with closing(SqliteStore(path)) as store:
        found = (msgspec.json.decode(record.value, type=DatabaseRecord) for record in store.list(_RECORDS).values())
        return {record.id: record for record in found}


def _adopt_one(
    source: jade.Database,
    record: DatabaseRecord | None,
    client: Client,
    folder: Path,
    replication: int | None,
    shards: int | None,
    progress: bool,
) -> Adopted:
    config = source.config
    name = record.name if record is not None else config.name
    target = client.create_database(
        name, config.dimension, str(config.metric), shards, str(config.index), config.schema,
        text_language=config.text_language, description="" if record is None else record.description, exist_ok=True,
        replication=replication,
    )  # fmt: skip
    rows = ((item.id, item.vector, item.metadata) for item in source.items())
    target.upsert_many(rows, progress=progress, resume=_resume_file(folder, config.name))
    _compare(source, target, name)
    left = []
    if config.index_parameters:
        left.append(f"index parameters set by hand ({', '.join(config.index_parameters)}): the cluster chooses its own")
    if record is not None and (record.owner or record.grants):
        left.append("its owner and grants: accounts are not carried over")
    return Adopted(name, source.count(), left)


def _resume_file(folder: Path, name: str) -> Path:
    """Beside the folder, which is only read."""
    whole = folder.absolute()
    return whole.parent / f".{whole.name}-{name}.adopting"


def _compare(source: jade.Database, target: Any, name: str) -> None:
    """Every vector and its metadata, bit for bit. Raises CORRUPT naming the first that differs."""
    names: list[str] = []
    for item in source.items():
        names.append(item.id)
        if len(names) == _COMPARED_AT_ONCE:
            _compare_some(source, target, name, names)
            names = []
    if names:
        _compare_some(source, target, name, names)


def _compare_some(source: jade.Database, target: Any, name: str, names: list[str]) -> None:
    for mine, theirs in zip(source.get(names), target.get(names), strict=True):
        assert mine is not None
        if theirs is None or theirs.metadata != mine.metadata or not np.array_equal(theirs.vector, mine.vector):
            raise jade.JadeError(
                jade.ErrorCode.CORRUPT,
                f"Vector {mine.id!r:.80} of {name!r} is not in the cluster as it is here: was it changed there meanwhile? "
                "The folder was not changed.",
            )
