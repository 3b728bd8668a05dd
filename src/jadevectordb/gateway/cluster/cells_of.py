"""How a new database of a cluster is sharded, and the record of its cells where its vectors decide.

cells/ID   written before anyone hears of the database, never changed, removed with it
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import msgspec
import numpy.typing as npt
import xxhash

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.query.cell_training import train_cells
from jadevectordb.topology.cells import CellMap, cells_key, decode_cells, encode_cells
from jadevectordb.topology.placed import PlacedDatabase
from jadevectordb.topology.sharding import choose, sharding_of, shares_one_log


def sharded(
    placed: PlacedDatabase, strategy: str, bounds: Seq[str], sample: npt.ArrayLike | None, cells: int
) -> tuple[PlacedDatabase, bytes]:
    """The database with its sharding, and the record of its cells, b"" where there are none. Raises INVALID_ARGUMENT, INVALID_VECTOR.

    strategy: of `STRATEGIES`. sample, cells: as of `train_cells`.
    """
    config, reason = placed.config, ""
    if type(cells) is not int or cells < 0:
        raise _invalid(f"cells must be a number of cells, got {cells!r:.80}.")
    if strategy == "auto" and not bounds:
        texts = bool(config.schema.texts)
        strategy, reason = choose(config.shards, config.metric, sampled=sample is not None, texts=texts)
    elif strategy != "vector" and (sample is not None or cells):
        raise _invalid(
            f"A sample, and cells, belong to sharding by vector, this database is to be sharded by {strategy!r:.80}."
        )
    trained = b""
    if strategy == "vector":
        if config.schema.texts:
            raise _invalid(
                "Fields searched as text go with sharding by hash or range: a search by words visits every shard."
            )
        if sample is None:
            raise _invalid(
                "Sharding by vector finds its cells in a sample: give some thousands of the vectors to come as sample."
            )
        space = VectorSpace(config.metric, config.dimension)
        trained = encode_cells(train_cells(space, sample, config.shards, cells))
    checksum = xxhash.xxh3_64_hexdigest(trained) if trained else ""
    sharding = sharding_of(strategy, config.shards, bounds, cells=checksum)
    return msgspec.structs.replace(placed, sharding=msgspec.structs.replace(sharding, reason=reason)), trained


def read(metadata: MetadataStore, placed: PlacedDatabase) -> CellMap:
    """Of a database that is sharded by vector. Raises CORRUPT, UNAVAILABLE."""
    record = metadata.get(cells_key(placed.id))
    if record is None or xxhash.xxh3_64_hexdigest(record.value) != placed.sharding.cells:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"The cells of database {placed.name!r} are {'missing' if record is None else 'damaged'} in the metadata store, so it is not "
            "known which shard a vector belongs to. Restore the metadata store from a backup.",
        )
    return CellMap(decode_cells(record.value), placed.config.shards)


def remove(metadata: MetadataStore, placed: PlacedDatabase) -> None:
    record = metadata.get(cells_key(placed.id)) if shares_one_log(placed.sharding) else None
    if record is not None:
        metadata.compare_and_set(cells_key(placed.id), None, record.revision)


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
