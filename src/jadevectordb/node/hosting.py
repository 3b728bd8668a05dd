"""All replicas that this node holds, and the snapshots of them that it offers to others.

DATA/shards/DATABASE/NNNN-CCCCCC   replicas (`replica_folders`)
DATA/snapshots/...                 offered snapshots; emptied when the node starts
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

from jadevectordb.model.database import DatabaseConfig
from jadevectordb.node.hosted_shard import HostedShard, HostingWorld
from jadevectordb.node.replica_folders import ReplicaFolders, replicas_in
from jadevectordb.node.snapshot_shelf import SnapshotShelf
from jadevectordb.topology.cluster_map import ClusterMap, NodeRecord, ReplicaReport, ReplicaState

Place: TypeAlias = tuple[str, int]  # database id, shard


class Picture(Protocol):
    """What this node knows of the cluster now."""

    @property
    def map(self) -> ClusterMap: ...
    def node(self, name: str) -> NodeRecord | None: ...


def active_peers(picture: Picture, own: str, database: str, shard: int) -> list[str]:
    """Addresses of other nodes with an active replica of the shard, the primary's first: `HostingWorld.peers`."""
    record = picture.map.shard(database, shard)
    names = () if record is None else record.readable
    nodes = [picture.node(name) for name in names if name != own]
    return [node.peer for node in nodes if node is not None]


class Hosting:
    """folder: the node's data folder. Every method may be called from any thread."""

    def __init__(self, folder: Path, world: HostingWorld, unique: Callable[[], str]) -> None:
        """unique: a name never given before, for snapshots."""
        self.folder = folder / "shards"
        self.snapshots = SnapshotShelf(folder / "snapshots", world.clock, unique)
        self._world = world
        self._lock = threading.Lock()  # guards the fields below
        self._hosted: dict[Place, HostedShard] = {}
        self._removing: set[Place] = set()
        self._closed = False

    def get(self, database: str, shard: int) -> HostedShard | None:
        return self._hosted.get((database, shard))

    def __iter__(self) -> Iterator[HostedShard]:
        with self._lock:
            return iter(list(self._hosted.values()))

    @property
    def places(self) -> set[Place]:
        """Where something of a replica is: hosted, being removed, or left in a folder."""
        with self._lock:
            known = {*self._hosted, *self._removing}
        return known | replicas_in(self.folder)

    def host(self, place: Place, config: DatabaseConfig, log_shard: int | None = None) -> None:
        """Begin to hold this replica, from what its folder has. One that is held already, or still being removed, is left alone.

        log_shard: whose log it follows, where that is not its own.
        """
        database, shard = place
        with self._lock:
            if self._closed or place in self._hosted or place in self._removing:
                return
            self._hosted[place] = HostedShard(self._world, database, shard, config, self.folder / database, log_shard)

    def reconfigure(self, database: str, config: DatabaseConfig) -> None:
        """Replicas of the database that are held are opened with this configuration from now on."""
        with self._lock:
            hosted = [one for (name, _), one in self._hosted.items() if name == database]
        for one in hosted:
            one.reconfigure(config)

    def remove(self, place: Place) -> None:
        """Close the replica and remove its files, in the background."""
        with self._lock:
            if self._closed or place in self._removing:
                return
            self._removing.add(place)
            hosted = self._hosted.pop(place, None)

        def remove() -> None:
            try:
                if hosted is not None:
                    hosted.remove()
                else:
                    ReplicaFolders(self.folder / place[0], place[1]).remove()
            finally:
                with self._lock:
                    self._removing.discard(place)

        threading.Thread(target=remove, name=f"jade-remove-{place[1]:04}", daemon=True).start()

    def all(self) -> list[HostedShard]:
        with self._lock:
            return list(self._hosted.values())

    def of(self, database: str) -> list[HostedShard]:
        """The replicas of this database that are here."""
        with self._lock:
            return [one for (owner, _), one in self._hosted.items() if owner == database]

    def reports(self) -> list[ReplicaReport]:
        with self._lock:
            hosted, removing = list(self._hosted.values()), list(self._removing)
        return [
            *(one.report() for one in hosted),
            *(ReplicaReport(database, shard, ReplicaState.RETIRING) for database, shard in removing),
        ]

    def close(self) -> None:
        """Stop all of them; what is in their folders stays. Again is fine."""
        with self._lock:
            self._closed = True
            hosted = list(self._hosted.values())
        for one in hosted:
            one.stop()
        for one in hosted:
            one.close()
        self.snapshots.close()
