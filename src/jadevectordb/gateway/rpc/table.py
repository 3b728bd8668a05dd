"""Which RPCs there are: for each its messages, its form, its handler, and the operation whose rights it needs.

`RPC_OPERATIONS` is the one table of rights of the gRPC door: every method that the server answers stands in it, health and
reflection included, and names an operation of `access.operations`. Nothing else is served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jadevectordb.gateway.rpc import databases, search, vectors, worker
from jadevectordb.gateway.rpc.generated import database_pb2, search_pb2, vectors_pb2, worker_pb2

PACKAGE = "jadevectordb.v1"


class Kind(StrEnum):
    """The form of a call. WAIT: unary, but may take minutes."""

    UNARY = "unary"
    WAIT = "wait"
    SERVER_STREAM = "server_stream"
    BOTH_STREAM = "both_stream"


@dataclass(frozen=True, slots=True)
class Rpc:
    """by_shard: the database is named in `request.shard`, not in `request` itself."""

    service: str
    name: str
    operation: str
    request: Any
    handler: Callable[..., Any]
    kind: Kind = Kind.UNARY
    by_shard: bool = False

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


def _database(name: str, operation: str, handler: Callable[..., Any], kind: Kind = Kind.UNARY) -> Rpc:
    return Rpc(f"{PACKAGE}.DatabaseService", name, operation, getattr(database_pb2, f"{name}Request"), handler, kind)


def _vector(name: str, operation: str, handler: Callable[..., Any], kind: Kind = Kind.UNARY) -> Rpc:
    return Rpc(f"{PACKAGE}.VectorService", name, operation, getattr(vectors_pb2, f"{name}Request"), handler, kind)


def _search(name: str, operation: str, handler: Callable[..., Any]) -> Rpc:
    return Rpc(f"{PACKAGE}.SearchService", name, operation, getattr(search_pb2, f"{name}Request"), handler)


def _worker(name: str, operation: str, handler: Callable[..., Any], by_shard: bool = False) -> Rpc:
    request = getattr(worker_pb2, f"{name}Request")
    return Rpc(f"{PACKAGE}.WorkerService", name, operation, request, handler, by_shard=by_shard)


RPCS: tuple[Rpc, ...] = (
    _database("CreateDatabase", "database.create", databases.create),
    _database("ListDatabases", "database.list", databases.list_all),
    _database("GetDatabase", "database.read", databases.get),
    _database("AlterDatabase", "database.update", databases.alter),
    _database("DeleteDatabase", "database.delete", databases.delete),
    _database("GetDatabaseStats", "database.stats", databases.stats),
    _database("WaitIndexed", "database.stats", databases.wait_indexed, Kind.WAIT),
    _database("CompactDatabase", "database.compact", databases.compact, Kind.WAIT),
    _vector("UpsertVectors", "vector.write", vectors.upsert),
    _vector("BulkUpsert", "vector.write", vectors.bulk_upsert, Kind.BOTH_STREAM),
    _vector("UpdateMetadata", "vector.update", vectors.update_metadata),
    _vector("DeleteVectors", "vector.delete", vectors.delete),
    _vector("GetVectors", "vector.read", vectors.get),
    _vector("VectorsExist", "vector.read", vectors.exist),
    _vector("CountVectors", "vector.read", vectors.count),
    _vector("ScrollVectors", "vector.read", vectors.scroll, Kind.SERVER_STREAM),
    _search("Search", "search", search.search),
    _search("SearchBatch", "search", search.search_batch),
    _worker("SearchShard", "search", worker.search_shard, by_shard=True),
    _worker("WriteBatch", "vector.write", worker.write_batch, by_shard=True),
    _worker("Delete", "vector.delete", worker.delete, by_shard=True),
    _worker("Health", "status", worker.health),
    _worker("Stats", "cluster.read", worker.stats),
    _worker("ShardInfo", "database.stats", worker.shard_info),
    _worker("AssignShard", "cluster.change", worker.assign_shard),
    _worker("RemoveShard", "cluster.change", worker.remove_shard),
)

HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

RPC_OPERATIONS: dict[str, str] = {
    **{rpc.path: rpc.operation for rpc in RPCS},
    **{f"/{HEALTH}/{name}": "health" for name in ("Check", "List", "Watch")},
    **{f"/{service}/ServerReflectionInfo": "info" for service in REFLECTION},
}
