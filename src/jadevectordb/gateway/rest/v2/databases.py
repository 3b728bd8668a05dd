"""Databases over the native API: make, list, look at, change, drop; their statistics and grants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jadevectordb.gateway.access.accounts import Account
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, iso, reply
from jadevectordb.gateway.service.catalog import GRANT_RIGHTS, Entry
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.database import index_kind_of, metric_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CELLS_MAX, GRANTS_MAX
from jadevectordb.model.schema import Schema, parse_schema
from jadevectordb.topology.placed import Sharding

_WAIT_S_MAX = 3600.0


class ShardingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """sample: some thousands of the vectors to come, that cells are found in, for vector (and for auto, which then may choose it).

    cells: how many; left out, as many as suit.
    """

    kind: Literal["hash", "range", "vector", "auto"]
    sample: list[list[float]] | UnsetType = UNSET
    cells: Annotated[int, Meta(ge=1, le=CELLS_MAX)] | UnsetType = UNSET


class CreateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """shards: left out, one on a single node and `cluster.shards` in a cluster.

    In a cluster only: replication (replicas of a shard; left out, `cluster.replication`), sharding (hash, range, vector or auto;
    vector takes a sample beside it), bounds (the first id of every range but the first).
    """

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    dimension: Annotated[int, Meta(ge=1, le=4096)]
    metric: str = "cosine"
    index: str = "AUTO"
    shards: Annotated[int, Meta(ge=1, le=1024)] | UnsetType = UNSET
    replication: Annotated[int, Meta(ge=1, le=7)] | UnsetType = UNSET
    sharding: Literal["hash", "range", "vector", "auto"] | ShardingBody | UnsetType = UNSET
    bounds: list[str] | UnsetType = UNSET
    schema: dict[str, Any] = {}
    strict: bool = False
    text_language: str = "english"
    description: Annotated[str, Meta(max_length=1000)] = ""
    exist_ok: bool = False


class ChangeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str | None = None
    description: str | None = None
    index: str | None = None
    schema: dict[str, Any] | None = None


class DatabaseAnswer(msgspec.Struct):
    """sharding: how vectors are spread over shards. sharding_reason: why, where it was left to the server."""

    id: str
    name: str
    description: str
    dimension: int
    metric: str
    index: str
    shards: int
    schema: dict[str, Any]
    strict: bool
    text_language: str
    owner: str
    created_at: str | None
    updated_at: str | None
    vectors: int
    sharding: str
    sharding_reason: str


class DatabasesAnswer(msgspec.Struct):
    databases: list[DatabaseAnswer]


class DroppedAnswer(msgspec.Struct):
    id: str
    name: str


class WaitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timeout_s: Annotated[float, Meta(ge=0, le=_WAIT_S_MAX)] = 60.0


class ReplicaChecked(msgspec.Struct, frozen=True):
    """node: "" on a single node. damage, unread: "" when there is nothing to say."""

    shard: int | None
    node: str
    damage: str
    unread: str


class VerifiedAnswer(msgspec.Struct, frozen=True):
    """replicas: of a cluster all; of a single node the damage that was found first, if any."""

    sound: bool
    replicas: list[ReplicaChecked]


class GrantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    right: str


class GrantsAnswer(msgspec.Struct):
    grants: dict[str, str]


def described(entry: Entry) -> DatabaseAnswer:
    config, record = entry.handle.config, entry.record
    sharding = entry.handle.placed.sharding if isinstance(entry.handle, ClusterDatabase) else Sharding()
    return DatabaseAnswer(
        id=record.id,
        name=record.name,
        description=record.description,
        dimension=config.dimension,
        metric=str(config.metric),
        index=str(config.index),
        shards=config.shards,
        schema={path: str(kind) for path, kind in config.schema.fields.items()},
        strict=config.schema.strict,
        text_language=config.text_language,
        owner=record.owner,
        created_at=iso(record.created_ms),
        updated_at=iso(record.updated_ms),
        vectors=entry.handle.count(),
        sharding=sharding.strategy,
        sharding_reason=sharding.reason,
    )


def _create(services: Services, request: Request) -> Response:
    body = request.json(CreateBody)
    kind = index_kind_of(body.index)
    entry, was_made = services.catalog.create_unique(
        body.name, body.dimension, request.principal, exist_ok=body.exist_ok, description=body.description,
        index_type=str(kind), metric=metric_of(body.metric), index=kind,
        schema=parse_schema(body.schema, strict=body.strict), text_language=body.text_language,
        **_placement(services, body),
    )  # fmt: skip
    if was_made:
        request.audit_note = entry.record.name
    return reply(described(entry), 201)


def _placement(services: Services, body: CreateBody) -> dict[str, Any]:
    """How it is to be split and copied, as far as the body says."""
    given = {
        name: value
        for name in ("shards", "replication", "sharding", "bounds")
        if (value := getattr(body, name)) is not UNSET
    }
    if isinstance(body.sharding, ShardingBody):
        given |= {"sharding": body.sharding.kind}
        given |= {n: v for n in ("sample", "cells") if (v := getattr(body.sharding, n)) is not UNSET}
    if services.cluster.is_cluster:
        return given
    only = given.keys() - {"shards"}
    if only - {"replication"} or given.get("replication", 1) != 1:
        raise invalid(f"{min(only)} is for a cluster; this server is a single node, which keeps each vector once.")
    return {"shards": given.get("shards", 1)}


def _list(services: Services, request: Request) -> Response:
    name = request.query.get("name")
    entries = services.catalog.visible(request.principal)
    chosen = [e for e in entries if name is None or e.record.name == name]
    return reply(DatabasesAnswer(services.catalog.of_each(chosen, described)))


def _get(services: Services, request: Request) -> Response:
    return reply(described(request.entry))


def _change(services: Services, request: Request) -> Response:
    body = request.json(ChangeBody)
    entry = request.entry
    engine: dict[str, Any] = {}
    if body.index is not None:
        engine["index"] = str(index_kind_of(body.index))
    if body.schema is not None:
        config: Schema = entry.handle.config.schema
        engine["schema"] = parse_schema(body.schema, strict=config.strict)
    changes = {name: value for name in ("name", "description") if (value := getattr(body, name)) is not None}
    if not engine and not changes:
        raise invalid("Nothing to change: give name, description, index or schema.")
    if "index" in engine:
        changes["index_type"] = engine["index"]  # what v1 shows of it
    entry = services.catalog.alter(entry.id, engine, unique=True, **changes)
    request.audit_note = entry.record.name
    return reply(described(entry))


def _drop(services: Services, request: Request) -> Response:
    entry = request.entry
    services.catalog.drop(entry.id)
    request.audit_note = entry.record.name
    return reply(DroppedAnswer(entry.id, entry.record.name))


def _stats(services: Services, request: Request) -> Response:
    return reply({**request.entry.handle.stats().as_dict(), "name": request.entry.record.name})


def _wait_indexed(services: Services, request: Request) -> Response:
    request.entry.handle.wait_indexed(request.json(WaitBody).timeout_s)
    return reply({"indexed": True})


def _verify(services: Services, request: Request) -> Response:
    handle = request.entry.handle
    if isinstance(handle, ClusterDatabase):
        checked = [ReplicaChecked(one.shard, one.node, one.damage, one.unread) for one in handle.verify_replicas()]
    else:
        checked = []
        try:
            handle.verify()
        except JadeError as error:
            if error.code is not ErrorCode.CORRUPT:
                raise
            checked.append(ReplicaChecked(None, "", error.message, ""))
    return reply(VerifiedAnswer(not any(one.damage or one.unread for one in checked), checked))


def _compact(services: Services, request: Request) -> Response:
    request.entry.handle.compact(request.json(WaitBody).timeout_s)
    return reply({"compacted": True})


# Grants


def _grants(services: Services, request: Request) -> Response:
    return reply(GrantsAnswer(request.entry.record.grants))


def _user(services: Services, name: str) -> Account:
    account = services.access.accounts.find(name)
    if account is None:
        raise JadeError(ErrorCode.NOT_FOUND, f"User not found: {name!r:.200}.")
    return account


def _grant(services: Services, request: Request) -> Response:
    right = request.json(GrantBody).right
    if right not in GRANT_RIGHTS:
        raise invalid(f"right must be one of {', '.join(GRANT_RIGHTS)}, got {right!r:.60}.")
    user = _user(services, request.params["userId"])
    grants = {**request.entry.record.grants, user.user_id: right}
    if len(grants) > GRANTS_MAX:
        raise invalid(f"A database can be granted to at most {GRANTS_MAX} users.")
    entry = services.catalog.update(request.entry.id, grants=grants)
    request.audit_note = f"grant {right} to {user.user_id}"
    return reply(GrantsAnswer(entry.record.grants))


def _revoke(services: Services, request: Request) -> Response:
    user_id = request.params["userId"]
    if user_id not in request.entry.record.grants:
        user_id = _user(services, user_id).user_id
    grants = {user: right for user, right in request.entry.record.grants.items() if user != user_id}
    if len(grants) == len(request.entry.record.grants):
        raise JadeError(ErrorCode.NOT_FOUND, "Grant not found: this user has none on this database.")
    entry = services.catalog.update(request.entry.id, grants=grants)
    request.audit_note = f"revoke from {user_id}"
    return reply(GrantsAnswer(entry.record.grants))


_DB = "/v2/databases/{db}"
ROUTES = (
    Route("GET", "/v2/databases", "database.list", _list, summary="Databases you may see", answer=DatabasesAnswer),
    Route(
        "POST",
        "/v2/databases",
        "database.create",
        _create,
        summary="Make a database",
        request=CreateBody,
        answer=DatabaseAnswer,
        success=201,
    ),
    Route("GET", _DB, "database.read", _get, summary="How a database is made", answer=DatabaseAnswer),
    Route(
        "PATCH",
        _DB,
        "database.update",
        _change,
        summary="Rename, describe, change index or schema",
        request=ChangeBody,
        answer=DatabaseAnswer,
    ),
    Route(
        "DELETE", _DB, "database.delete", _drop, summary="Drop a database and everything in it", answer=DroppedAnswer
    ),
    Route(
        "GET", _DB + "/stats", "database.stats", _stats, summary="Rows, segments, memory, disk", answer=dict[str, Any]
    ),
    Route(
        "POST",
        _DB + "/wait-indexed",
        "database.compact",
        _wait_indexed,
        summary="Wait until every row is indexed",
        request=WaitBody,
        answer=dict[str, bool],
    ),
    Route(
        "POST",
        _DB + "/compact",
        "database.compact",
        _compact,
        summary="Merge segments, reclaim deleted rows",
        request=WaitBody,
        answer=dict[str, bool],
    ),
    Route(
        "POST",
        _DB + "/verify",
        "database.compact",
        _verify,
        summary="Read every file and compare checksums, on every node that has it",
        answer=VerifiedAnswer,
    ),
    Route("GET", _DB + "/grants", "grant.read", _grants, summary="Who may do what with it", answer=GrantsAnswer),
    Route(
        "PUT",
        _DB + "/grants/{userId}",
        "grant.write",
        _grant,
        summary="Grant read, write or admin",
        request=GrantBody,
        answer=GrantsAnswer,
    ),
    Route("DELETE", _DB + "/grants/{userId}", "grant.write", _revoke, summary="Take a grant back", answer=GrantsAnswer),
)
