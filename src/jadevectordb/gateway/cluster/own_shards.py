"""What one node of a cluster holds of a database, for the worker service: its replicas searched and looked at one by one.

As `gateway.embedded.shards` for a node by itself. A shard that has no replica here is refused; nothing is asked of other nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.cluster import merging
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.reading import Include, Wanted, query_bytes
from jadevectordb.gateway.cluster.rows import unpacker_of
from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.gateway.embedded.opening import FilterLike
from jadevectordb.gateway.embedded.shards import ShardFigures
from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import VectorId
from jadevectordb.query.levels import ReadLevel
from jadevectordb.query.seen import SeenSequences
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.sharding import shards_of_ids

_LOOK_S = 5.0


class OwnShards:
    """Of one database on the node of this process. Thread-safe."""

    def __init__(self, handle: ClusterDatabase) -> None:
        self._handle = handle
        self._reader = handle._reader
        self._node = handle._reader.node

    def held(self) -> list[int]:
        """The shards that the cluster map places here."""
        record = self._handle._mirror.map.databases.get(self._handle.placed.id)
        shards = () if record is None else record.shards
        return [one.number for one in shards if any(replica.node == self._node for replica in one.replicas)]

    def search(
        self,
        shard: int,
        vector: npt.ArrayLike,
        *,
        k: int,
        filter: FilterLike,
        recall: float,
        exact: bool,
        threshold: float | None,
        watermark_min: int,
        include: Include,
        timeout_s: float,
    ) -> tuple[Hits, int]:
        """The best k of the replica here and the watermark they were found at. Waits for `watermark_min`; raises UNAVAILABLE, TIMEOUT."""
        self.check_held(shard)
        config = self._handle.config
        given = np.asarray(vector)
        VectorSpace(config.metric, config.dimension).prepare_query(given)
        options = self._handle._searches.options(
            k, filter, recall, threshold, None, exact, None, None, None, None, 1
        )  # fmt: skip
        seen = SeenSequences()
        seen.raise_to([(shard, watermark_min)])
        wanted = Wanted(ReadLevel.SESSION, seen, timeout_s=timeout_s)
        gathered = self._reader.search_on(
            self._node, shard, query_bytes(given, config.metric), options, include, wanted
        )  # fmt: skip
        matches = merging.best(merging.ranked(gathered.answers, self._reader.rows_of), k, None)
        watermarks = dict(gathered.answers[0].answer.watermarks)
        return Hits(merging.hits_of(matches, unpacker_of(config))), watermarks[shard]

    def check_held(self, shard: int) -> None:
        """Raises INVALID_ARGUMENT when the database has no such shard, STALE_MAP when it has no replica here."""
        shards = self._handle.config.shards
        if not 0 <= shard < shards:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"There is no shard {shard}: the database has {shards}, numbered from 0.",
                details={"shards": shards},
            )
        if shard not in self.held():
            raise JadeError(
                ErrorCode.STALE_MAP,
                f"Node {self._node!r} holds no replica of shard {shard} of this database: nothing was done. Ask one that does.",
                details={"shard": shard},
            )

    def check_belongs(self, shard: int, ids: Iterable[str]) -> None:
        """Raises CONFLICT naming the first id that belongs to another shard, and as `check_held`."""
        self.check_held(shard)
        names = [VectorId(name) for name in ids]
        shards = shards_of_ids(self._handle.placed.sharding, self._handle.config.shards, names, hash_ids(names))
        strays = np.flatnonzero(shards != shard)
        if len(strays):
            at = int(strays[0])
            raise JadeError(
                ErrorCode.CONFLICT,
                f"Vector {names[at][:80]!r} belongs to shard {shards[at]}, not to {shard}: nothing was changed.",
                details={"id": names[at], "shard": int(shards[at]), "asked": shard},
            )

    def stats(self) -> dict[int, Stats]:
        """Of each replica here that can be read now, by shard; each as a database of one shard."""
        places = [(self._node, shard) for shard in self.held()]
        found = self._reader.stats_of_all(places, Wanted(ReadLevel.EVENTUAL, timeout_s=_LOOK_S))
        return {shard: stats for (_, shard), stats in sorted(found.items())}

    def figures(self) -> list[ShardFigures]:
        """Of each replica here that can be read now. Where the log ends is asked of its servers."""
        stats = self.stats()
        wanted = Wanted(ReadLevel.EVENTUAL, timeout_s=_LOOK_S)
        ends = self._reader.log_ends([(self._node, shard) for shard in stats], wanted)
        return [
            replace(_figures(shard, one), log_end=max(one.watermarks[0], ends.get((self._node, shard), 0)))
            for shard, one in stats.items()
        ]


def _figures(shard: int, stats: Stats) -> ShardFigures:
    return ShardFigures(
        shard=shard,
        rows=stats.rows,
        dead_rows=stats.dead_rows,
        segments=len(stats.segments),
        watermark=stats.watermarks[0],
        log_end=stats.watermarks[0],
        memory_bytes=sum(segment.memory_bytes for segment in stats.segments),
        disk_bytes=sum(segment.disk_bytes for segment in stats.segments),
    )
