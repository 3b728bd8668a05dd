"""One shard of an open database, for a node that other nodes ask: search it alone, see its state, see what stands in its way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.embedded.arguments import overrides_of
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.gateway.embedded.opening import FilterLike
from jadevectordb.gateway.embedded.searching import request_of
from jadevectordb.index.api import RECALL_DEFAULT
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import ShardId
from jadevectordb.query import executor
from jadevectordb.segment.records import hash_ids
from jadevectordb.shard.view import DatabaseView
from jadevectordb.topology.sharding import shards_of


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """watermark: the newest log entry applied; log_end: the newest there is. 0 <= watermark <= log_end."""

    shard: int
    rows: int
    dead_rows: int
    segments: int
    watermark: int
    log_end: int
    memory_bytes: int
    disk_bytes: int


def search_shard(
    database: Database,
    shard: int,
    vector: npt.ArrayLike,
    *,
    k: int,
    filter: FilterLike,
    recall: float,
    exact: bool,
    threshold: float | None,
    watermark_min: int,
) -> tuple[Hits, int]:
    """The shard's best k and the watermark they were found at. Raises UNAVAILABLE when that is below `watermark_min`."""
    opening = database._now()
    check_shard(database, shard)
    view = opening.view.shards[shard]
    if view.watermark < watermark_min:
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            f"Shard {shard} has applied its log up to {view.watermark}, {watermark_min} was asked for: retry in a moment.",
            details={"watermark": int(view.watermark), "asked": watermark_min},
        )
    request = request_of(opening, vector, k=k, filter=filter, recall=recall, threshold=threshold)
    if exact:
        request.overrides = overrides_of(True, None, None, None)
    elif recall == RECALL_DEFAULT:
        request.overrides = opening.overrides
    matches = executor.search(DatabaseView.of((view,)), request, None, None)
    return Hits(opening.hits(matches, request)), int(view.watermark)


def check_shard(database: Database, shard: int) -> None:
    """Raises INVALID_ARGUMENT when the database has no such shard."""
    if not 0 <= shard < database.config.shards:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"There is no shard {shard}: the database has {database.config.shards}, numbered from 0.",
            details={"shards": database.config.shards},
        )


def check_belongs(database: Database, shard: int, ids: Iterable[str]) -> None:
    """Raises CONFLICT naming the first id that belongs to another shard."""
    check_shard(database, shard)
    names = list(ids)
    if not names or database.config.shards == 1:
        return
    shards = shards_of(hash_ids(names), database.config.shards)
    strays = np.flatnonzero(shards != shard)
    if len(strays):
        at = int(strays[0])
        raise JadeError(
            ErrorCode.CONFLICT,
            f"Vector {names[at][:80]!r} belongs to shard {shards[at]}, not to {shard}: nothing was changed. Route by the hash of the id.",
            details={"id": names[at], "shard": int(shards[at]), "asked": shard},
        )


def figures_of(database: Database) -> list[ShardFigures]:
    """Every shard's state, of one moment."""
    opened = database._use()
    stats = database.stats()
    figures = []
    for shard in range(stats.shards):
        mine = [segment for segment in stats.segments if segment.shard == shard]
        live = sum(segment.live for segment in mine)
        figures.append(
            ShardFigures(
                shard=shard,
                rows=live,
                dead_rows=sum(segment.rows for segment in mine) - live,
                segments=len(mine),
                watermark=stats.watermarks[shard],
                log_end=int(opened.log.last(ShardId(shard))),
                memory_bytes=sum(segment.memory_bytes for segment in mine),
                disk_bytes=sum(segment.disk_bytes for segment in mine),
            )
        )
    return figures
