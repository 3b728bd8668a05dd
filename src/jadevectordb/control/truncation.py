"""How far each shard's log may be cut: below what every replica has in its own files, less some entries to catch up by.

A replica that the map places counts whether its node lives or not, with what it said last; one that has said nothing needs the
whole log. Only a node that has been away for `hold_dead_s` is waited for no longer, where another replica serves: a cluster that
has no other node to replace it would keep its log for ever, and what comes back can copy a snapshot from who serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jadevectordb.control.observe import Observed
from jadevectordb.topology.cluster_map import ReplicaRecord, ReplicaState, ShardRecord
from jadevectordb.topology.sharding import shares_one_log

RETAINED_ENTRIES: Final = 10_000
HOLD_DEAD_S: Final = 3600.0

NO_HOLDS: Final[Mapping[tuple[str, int], int]] = {}


def may_truncate(
    observed: Observed,
    *,
    retained: int = RETAINED_ENTRIES,
    hold_dead_s: float = HOLD_DEAD_S,
    holds: Mapping[tuple[str, int], int] = NO_HOLDS,
) -> dict[str, dict[int, int]]:
    """By database and log, the sequence up to which (inclusive) it is needed no more; logs that keep all are left out.

    holds: by (database, shard), entries after this sequence are needed by something else.
    """
    reports = observed.reports()
    result: dict[str, dict[int, int]] = {}
    for name, record in observed.map.databases.items():
        for shard in record.shards:
            needed = [
                report.checkpointed if (report := reports.get((replica.node, name, shard.number))) else 0
                for replica in shard.replicas
                if not _given_up(observed, shard, replica, hold_dead_s)
            ]
            if not needed:
                continue
            up_to = min(*needed, holds.get((name, shard.number), needed[0])) - retained
            if up_to > 0:
                result.setdefault(name, {})[shard.number] = up_to
    return {
        name: logs
        for name, by_shard in result.items()
        if (logs := _by_log(observed, name, by_shard, len(observed.map.databases[name].shards)))
    }


def _by_log(observed: Observed, name: str, by_shard: dict[int, int], shards: int) -> dict[int, int]:
    """By log: one that feeds several shards goes as far as all of them allow."""
    placed = observed.placed.get(name)
    if placed is None:
        return {}  # being dropped, or not heard of yet: which logs it has is not known here
    if not shares_one_log(placed.sharding):
        return by_shard
    return {0: min(by_shard.values())} if len(by_shard) == shards else {}


def _given_up(observed: Observed, shard: ShardRecord, replica: ReplicaRecord, hold_dead_s: float) -> bool:
    if observed.dead_s(replica.node) < hold_dead_s:
        return False
    return any(
        other.state is ReplicaState.ACTIVE and observed.is_up(other.node)
        for other in shard.replicas
        if other.node != replica.node
    )
