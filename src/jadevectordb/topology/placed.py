"""What a database of a cluster was created with: its configuration, how its ids are spread over shards, how many copies it has.

One record of the metadata store for each database, under its id. Who creates, alters or drops a database writes or deletes it; the
master answers with an entry in the cluster map, so this says what is wanted and the map where it lies. Shard count and
sharding never change in a database's life: a writer that knows this record routes right, however old its map is. Index and schema
may (`gateway/cluster/altering.py`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import REPLICAS_MAX
from jadevectordb.topology.cluster_map import PLACED_PREFIX


class Sharding(msgspec.Struct, frozen=True):
    """How vectors are spread over shards; the last two fields came later and may be missing in a record.

    bounds: of "range", strictly ascending, one fewer than shards: shard n holds the ids from bounds[n-1] on. cells: of "vector", the
    checksum of the cells, which are a record of their own (`topology.cells`). reason: why "auto" chose the strategy, "" when it did not.
    """

    strategy: Literal["hash", "range", "vector"] = "hash"
    bounds: tuple[str, ...] = ()
    cells: str = ""
    reason: str = ""

    def is_like(self, other: Sharding) -> bool:
        """Whether both spread vectors alike, for whatever reason."""
        return (self.strategy, self.bounds, self.cells) == (other.strategy, other.bounds, other.cells)


class PlacedDatabase(msgspec.Struct, frozen=True, kw_only=True):
    """id: names its streams and folders, never used again. replication: replicas each shard shall have."""

    id: str
    name: str
    config: DatabaseConfig
    replication: int
    sharding: Sharding = Sharding()


def check_replication(replication: object) -> int:
    """Raises INVALID_ARGUMENT."""
    if type(replication) is not int or not 1 <= replication <= REPLICAS_MAX:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"replication must be an integer from 1 to {REPLICAS_MAX}, got {replication!r}."
        )
    return replication


def placed_key(database: str) -> str:
    return PLACED_PREFIX + database


def encode_placed(placed: PlacedDatabase) -> bytes:
    return msgspec.json.encode(placed)


def decode_placed(value: bytes) -> PlacedDatabase:
    """Raises CORRUPT: written by a newer version, or damaged."""
    try:
        return msgspec.json.decode(value, type=PlacedDatabase)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"the record of a placed database cannot be read ({error}); run the newest version of the cluster's nodes here",
        ) from error
