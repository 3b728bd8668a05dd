"""Fills a folder that is to become a replica: with a snapshot of a peer's, or with nothing where the log has every entry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import ShardId
from jadevectordb.model.limits import SNAPSHOT_ENTRIES_MIN
from jadevectordb.node.replica_opening import HostingWorld
from jadevectordb.node.snapshot_copy import copy_snapshot


def fill_folder(
    world: HostingWorld,
    database: str,
    shard: int,
    part: Path,
    *,
    log_shard: int,
    beyond: int | None,
    is_replacement: bool,
    check_wanted: Callable[[], None],
) -> None:
    """log_shard: whose log the replica follows.

    beyond: what the replica in whose place this comes has applied, when it is sound: only a snapshot from beyond that helps.

    Raises UNAVAILABLE with the reasons of all who were asked (`details["in_memory"]`: a peer has what is needed, not in files yet),
    what `check_wanted` raises, and what the log's servers answer.
    """
    first, last = _ends_of_log(world, database, log_shard)
    reasons, in_memory = [], False
    if first > 1 or last >= SNAPSHOT_ENTRIES_MIN or is_replacement:
        applied_min = max(first - 1, 0 if beyond is None else beyond + 1)
        for address in world.peers(database, shard):
            try:
                copy_snapshot(
                    world.transport, address, database, shard, part, applied_min=applied_min, check_wanted=check_wanted
                )
                return
            except JadeError as error:
                check_wanted()
                reasons.append(f"{address}: {error.message}")
                in_memory = in_memory or bool(error.details.get("in_memory"))
    if first > 1 or beyond is not None:
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            f"The log of shard {shard} {f'begins at entry {first}' if first > 1 else 'can not be followed'}, so a snapshot is needed, "
            f"and no other node has one to give{''.join('; ' + reason for reason in reasons)}.",
            details={"in_memory": in_memory},
        )
    _empty(part)


def _ends_of_log(world: HostingWorld, database: str, shard: int) -> tuple[int, int]:
    log = world.open_log(database)
    try:
        return log.first(ShardId(shard)), log.last(ShardId(shard))
    finally:
        log.close()


def _empty(folder: Path) -> None:
    """Nothing of an earlier copy is to be left in a folder that the whole log is applied to."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
