"""What a database of a cluster is made of and how it is, over all its shards: figures, trouble, and waiting for indexes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.reading import ClusterReader, Wanted
from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.levels import ReadLevel
from jadevectordb.query.routing import live_replicas
from jadevectordb.topology.cluster_map import ReplicaState
from jadevectordb.topology.placed import PlacedDatabase

_KNOWN_FOR_S = 10.0  # how old the kind of index in use may be
_LOOK_S = 0.2  # between looks while waiting
_HURRY_S = 2.0  # some looks may be late
_ANY = Wanted(ReadLevel.EVENTUAL, timeout_s=5.0)


class ClusterLooks:
    """Of one database. Thread-safe."""

    def __init__(self, placed: PlacedDatabase, mirror: ClusterMirror, reader: ClusterReader) -> None:
        self._placed = placed
        self._mirror = mirror
        self._reader = reader
        self._index: tuple[str, float] | None = None  # the kind, and when that was looked up

    def stats(self) -> Stats:
        """The sums over one replica of each shard."""
        by_shard = self._reader.stats(Wanted())
        shards = [by_shard[number] for number in range(self._placed.config.shards)]
        segments = [
            msgspec.structs.replace(segment, shard=number)
            for number, stats in enumerate(shards)
            for segment in stats.segments
        ]
        troubles = dict.fromkeys(text for text in (self.trouble(), *(stats.trouble for stats in shards)) if text)
        return Stats(
            name=self._placed.config.name,
            dimension=self._placed.config.dimension,
            metric=str(self._placed.config.metric),
            shards=len(shards),
            rows=sum(stats.rows for stats in shards),
            indexed_rows=sum(stats.indexed_rows for stats in shards),
            dead_rows=sum(stats.dead_rows for stats in shards),
            segments=segments,
            memory_bytes=sum(stats.memory_bytes for stats in shards),
            disk_bytes=sum(stats.disk_bytes for stats in shards),
            log_bytes=sum(stats.log_bytes for stats in shards),
            watermarks=[stats.watermarks[0] for stats in shards],
            trouble=" ".join(troubles),
            rows_to_build=sum(stats.rows_to_build for stats in shards),
            settled=all(stats.settled for stats in shards),
        )

    def trouble(self) -> str:
        record = self._mirror.map.databases.get(self._placed.id)
        if record is None:
            return "No node holds its shards yet."
        alive = self._mirror.alive()
        unreadable = [shard.number for shard in record.shards if not alive.intersection(shard.readable)]
        says = [f"No live node has shards {', '.join(map(str, unreadable))}."] if unreadable else []
        for node, beat in sorted(self._mirror.beats().items()):
            for report in beat.replicas:
                if report.database == self._placed.id and report.state is ReplicaState.FAILED and node in alive:
                    says.append(f"The replica of shard {report.shard} on {node} failed: {report.reason}")
        return " ".join(says)

    def index_known(self) -> str | None:
        """`index_in_use`, when nobody has to be asked."""
        known = self._index
        return None if known is None or self._reader.now_s() - known[1] > _KNOWN_FOR_S else known[0]

    def index_in_use(self) -> str:
        known = self.index_known()
        if known is None:
            rows: Counter[str] = Counter()
            for segment in self.stats().segments:
                rows[segment.index] += segment.live
            for unbuilt in ("growing", "not built yet"):
                rows.pop(unbuilt, None)
            known = rows.most_common(1)[0][0] if rows else "FLAT"
            self._index = known, self._reader.now_s()
        return known

    def wait_settled(self, sequences: Mapping[int, int], limit_s: float | None, check: Callable[[], None]) -> None:
        until_s = None if limit_s is None else self._reader.now_s() + limit_s
        pause = threading.Event()
        while True:
            check()
            late = self._late(sequences, lambda stats: stats.settled, hurry_s=_HURRY_S)
            if not late:
                return
            left_s = _LOOK_S if until_s is None else until_s - self._reader.now_s()
            if left_s <= 0:
                raise JadeError(
                    ErrorCode.TIMEOUT,
                    f"Indexing was not complete after {limit_s:g} s, it goes on in the background; not ready: {late[0]}"
                    f"{f' and {len(late) - 1} more' if len(late) > 1 else ''}.",
                    details={"replicas": late[:100]},
                )
            pause.wait(min(_LOOK_S, left_s))

    def are_written(self, sequences: Mapping[int, int], rows: int) -> bool:
        """Whether replicas on live nodes have applied these and hold at most so many rows in memory only."""
        return not self._late(sequences, lambda stats: _rows_in_memory(stats) <= rows)

    def _late(
        self, sequences: Mapping[int, int], is_done: Callable[[Stats], bool], *, hurry_s: float = 0.0
    ) -> list[str]:
        """Replicas on live nodes that have not applied these, or are not done. hurry_s: as of `Look`."""
        record = self._mirror.map.databases.get(self._placed.id)
        if record is None:
            return ["all shards"]
        places = [(node, shard) for shard in sequences for node in live_replicas(record, shard, self._mirror.is_alive)]
        bare = set(sequences) - {shard for _, shard in places}
        late = [f"shard {shard} (no live replica)" for shard in sorted(bare)]
        found = self._reader.stats_of_all(places, _ANY, hurry_s=hurry_s)
        for node, shard in places:
            stats = found.get((node, shard))
            if stats is None or stats.watermarks[0] < sequences[shard] or not is_done(stats):
                late.append(f"shard {shard} on {node}")
        return late


def _rows_in_memory(stats: Stats) -> int:
    return sum(segment.rows for segment in stats.segments if segment.index == "growing")
