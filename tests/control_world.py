"""What tests of the control plane share: a clock set by hand, logs kept as a list, and nodes that say what they are told to say."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.topology.cluster_map import (
    BEAT_PREFIX,
    MAP_KEY,
    NODE_PREFIX,
    ClusterMap,
    Heartbeat,
    NodeRecord,
    ReplicaReport,
    ReplicaState,
)
from jadevectordb.topology.placed import PlacedDatabase, encode_placed, placed_key


class HandClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic_s(self) -> float:
        return self.seconds


class ListedLogs:
    """Which logs there are. refused: databases whose calls fail, as when the log has no majority."""

    def __init__(self) -> None:
        self.there: dict[str, int] = {}
        self.cut: list[tuple[str, dict[int, int]]] = []
        self.refused: set[str] = set()

    def _check(self, database: str) -> None:
        if database in self.refused:
            raise JadeError(ErrorCode.UNAVAILABLE, "too few servers are up")

    def create(self, database: str, shards: int) -> None:
        self._check(database)
        self.there[database] = shards

    def drop(self, database: str, shards: int) -> None:
        self._check(database)
        assert self.there.pop(database, shards) == shards

    def truncate(self, database: str, up_to: Mapping[int, int]) -> None:
        self._check(database)
        self.cut.append((database, dict(up_to)))


def put(store: MetadataStore, key: str, value: bytes | None) -> None:
    record = store.get(key)
    assert store.compare_and_set(key, value, 0 if record is None else record.revision) is not None


def read_map(store: MetadataStore) -> ClusterMap:
    record = store.get(MAP_KEY)
    return ClusterMap() if record is None else msgspec.json.decode(record.value, type=ClusterMap)


def put_placed(store: MetadataStore, placed: PlacedDatabase) -> None:
    put(store, placed_key(placed.id), encode_placed(placed))


class SpokenNode:
    """A node whose heartbeats are written by hand."""

    def __init__(self, store: MetadataStore, name: str) -> None:
        self.store = store
        self.name = name
        self.beats = 0
        put(store, NODE_PREFIX + name, msgspec.json.encode(NodeRecord(id=name, incarnation="i", peer="")))
        self.beat()

    def beat(self, *reports: ReplicaReport, version: int = 0, leaving: bool = False) -> None:
        self.beats += 1
        beat = Heartbeat(self.name, "i", self.beats, version, reports, leaving=leaving)
        put(self.store, BEAT_PREFIX + self.name, msgspec.json.encode(beat))

    def follow(self, cluster_map: ClusterMap, checkpointed: int = 0) -> None:
        """All that the map places here is active, or gone where it retires."""
        gone = ReplicaState.RETIRING
        reports = [
            ReplicaReport(
                database,
                shard.number,
                ReplicaState.GONE if replica.state is gone else ReplicaState.ACTIVE,
                checkpointed=checkpointed,
            )
            for database, shard, replica in cluster_map.of_node(self.name)
        ]
        self.beat(*reports, version=cluster_map.version)
