"""Reading all files of all replicas of a database, each on its node, and what was found.

A replica that turns out to be damaged is replaced by its node from another one, as when a search finds the damage; here it is told
which they were. A node reads the files of one replica at a time, so that searches go on beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.reading import ClusterReader
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import VERIFY_S_MAX
from jadevectordb.topology.placed import PlacedDatabase

_NAMED_MAX = 20  # replicas in a message; `details` has all


@dataclass(frozen=True, slots=True, order=True)
class ReplicaCheck:
    """damage: what was found, "" when all files are as they were written. unread: why they could not be read, "" when they were."""

    shard: int
    node: str
    damage: str = ""
    unread: str = ""

    @property
    def is_sound(self) -> bool:
        return not self.damage and not self.unread


def check_replicas(
    placed: PlacedDatabase, mirror: ClusterMirror, reader: ClusterReader, check: Callable[[], None]
) -> list[ReplicaCheck]:
    """Every replica that the cluster map names, in order. check: raises when nobody wants to know any more."""
    record = mirror.map.databases.get(placed.id)
    shards = () if record is None else record.shards
    left = [(replica.node, shard.number) for shard in shards for replica in shard.replicas]
    checked = [
        ReplicaCheck(number, "", unread="the cluster map names no replica of it")
        for number in set(range(placed.config.shards)) - {shard for _, shard in left}
    ]
    while left:
        check()
        round_ = {node: (node, shard) for node, shard in reversed(left)}  # of each node one
        left = [place for place in left if place not in round_.values()]
        asked = [place for place in round_.values() if mirror.is_alive(place[0])]
        checked += [ReplicaCheck(s, n, unread=f"node {n} is away") for n, s in round_.values() if (n, s) not in asked]
        for (node, shard), found in reader.verify_each(asked, VERIFY_S_MAX).items():
            if isinstance(found, JadeError):
                checked.append(ReplicaCheck(shard, node, unread=found.message))
            else:
                checked.append(ReplicaCheck(shard, node, damage=found))
    return sorted(checked)


def raise_unsound(name: str, checked: list[ReplicaCheck]) -> None:
    """Raises CORRUPT when a replica is damaged, UNAVAILABLE when one could not be read; `details["replicas"]` names them."""
    damaged = [one for one in checked if one.damage]
    unsound = [one for one in checked if not one.is_sound]
    if not unsound:
        return
    told = "; ".join(
        f"shard {one.shard} on {one.node or 'no node'}: {one.damage or one.unread}" for one in unsound[:_NAMED_MAX]
    )
    raise JadeError(
        ErrorCode.CORRUPT if damaged else ErrorCode.UNAVAILABLE,
        f"Database {name!r}: {len(damaged)} of {len(checked)} replicas are damaged, {len(unsound) - len(damaged)} could not be read. "
        f"Damaged ones are being made anew from the others. {told}",
        details={
            "replicas": [
                {"shard": one.shard, "node": one.node, "damage": one.damage, "unread": one.unread} for one in unsound
            ]
        },
    )
