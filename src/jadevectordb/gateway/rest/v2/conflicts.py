"""Writes at EVENTUAL that did not know of another write of the same vector: found by the shards, listed here."""

from __future__ import annotations

import msgspec

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.rest.http import Request, Response, Route, iso, reply
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.hybrid_time import to_ms
from jadevectordb.model.ids import HybridTime
from jadevectordb.shard.conflicts import UNKNOWN_TIME, Conflict, ConflictReport, Contender


class ConflictingWrite(msgspec.Struct):
    """node: the gateway that took it, "" = not remembered. time: by that node's hybrid clock, null = not remembered.

    sequence: its place in the shard's log. request_id: of the late one; "" for the other.
    """

    node: str
    time: str | None
    hybrid_time: int
    sequence: int
    deletes: bool
    request_id: str


class ConflictAnswer(msgspec.Struct):
    """late: the write at EVENTUAL that was logged behind `stood` without having seen it. winner: late or stood.

    concurrent: false when `stood` came after `late` on the same node and overtook it.
    """

    id: str
    shard: int
    winner: str
    concurrent: bool
    found_at: str | None
    late: ConflictingWrite
    stood: ConflictingWrite


class ConflictsAnswer(msgspec.Struct):
    """found: concurrent pairs since the database was made. superseded: writes that changed nothing because a later one of their own
    node had overtaken them. conflicts: the newest of both, of each shard, newest first.
    """

    found: int
    superseded: int
    conflicts: list[ConflictAnswer]


def _write(one: Contender) -> ConflictingWrite:
    time = None if one.time == UNKNOWN_TIME else iso(to_ms(HybridTime(one.time)))
    return ConflictingWrite(one.node, time, one.time, one.sequence, one.deletes, one.request_id)


def _answer(shard: int, found: Conflict) -> ConflictAnswer:
    winner = "late" if found.late_won else "stood"
    at = iso(to_ms(HybridTime(found.found_time)))
    return ConflictAnswer(found.id, shard, winner, found.is_concurrent, at, _write(found.late), _write(found.stood))


def _list(services: Services, request: Request) -> Response:
    handle = request.entry.handle
    # A single node orders all writes before it answers them: there is nothing to find
    reports: dict[int, ConflictReport] = handle.conflicts() if isinstance(handle, ClusterDatabase) else {}
    listed = [(found.found_time, shard, found) for shard, report in reports.items() for found in report.listed]
    listed.sort(key=lambda one: (-one[0], one[1], -one[2].late.sequence, one[2].id))
    return reply(
        ConflictsAnswer(
            sum(report.found for report in reports.values()),
            sum(report.superseded for report in reports.values()),
            [_answer(shard, found) for _, shard, found in listed],
        )
    )


ROUTES = (
    Route(
        "GET",
        "/v2/databases/{db}/conflicts",
        "conflict.list",
        _list,
        summary="Writes at EVENTUAL that did not know of each other",
        answer=ConflictsAnswer,
    ),
)
