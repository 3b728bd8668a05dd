"""What a database of a cluster is, how it is, and what is done to look after it: asked of replicas on all nodes that hold them.

What it holds is the business of `ClusterDatabase`, which builds on this.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from jadevectordb.gateway.cluster.looking import ClusterLooks
from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.reading import ClusterReader, Wanted
from jadevectordb.gateway.cluster.verifying import ReplicaCheck, check_replicas, raise_unsound
from jadevectordb.gateway.embedded.arguments import number_of, timeout_of
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import READ_S_MAX
from jadevectordb.model.schema import Schema
from jadevectordb.query.awaiting import Waits
from jadevectordb.query.cluster_writer import ClusterWriter
from jadevectordb.query.levels import ReadLevel, read_level
from jadevectordb.query.seen import SeenSequences
from jadevectordb.query.write_checks import invalid
from jadevectordb.shard.conflicts import ConflictReport
from jadevectordb.topology.placed import PlacedDatabase


class TendedDatabase:
    """Every method may be called from many threads at once."""

    def __init__(
        self, placed: PlacedDatabase, mirror: ClusterMirror, reader: ClusterReader, writer: ClusterWriter
    ) -> None:
        self.placed = placed
        self._mirror = mirror
        self._reader = reader
        self._writer = writer
        self._looks = ClusterLooks(placed, mirror, reader)
        self._closed = threading.Event()

    # What it is

    @property
    def name(self) -> str:
        return self.placed.config.name

    @property
    def dimension(self) -> int:
        return self.placed.config.dimension

    @property
    def metric(self) -> str:
        return str(self.placed.config.metric)

    @property
    def config(self) -> DatabaseConfig:
        return self.placed.config

    def __repr__(self) -> str:
        return (
            f"<ClusterDatabase {self.name!r}: {self.config.shards} shards, dimension {self.dimension}, {self.metric}>"
        )

    # Looking after it

    def stats(self) -> Stats:
        """Of one replica of each shard, as it is now there."""
        self._check_open()
        return self._looks.stats()

    @property
    def trouble(self) -> str:
        """What keeps shards from being read, as far as this node knows, "" when nothing does. Asks nobody."""
        return "closed" if self._closed.is_set() else self._looks.trouble()

    def written_up_to(self, shard: int, mark: int, limit: int, seen: SeenSequences) -> list[Item]:
        """Up to `limit` vectors of a shard whose version, the sequence that wrote them last, is at most the mark."""
        return self._reader.aged(shard, mark, limit, self.wanted("session", seen, READ_S_MAX))

    def background_trouble(self) -> JadeError | None:
        """As `trouble`, for alerts."""
        self._check_open()
        says = self._looks.trouble()
        return JadeError(ErrorCode.UNAVAILABLE, says) if says else None

    @property
    def index_in_use(self) -> str:
        """What most rows are searched with; some seconds old."""
        self._check_open()
        return self._looks.index_in_use()

    async def finding_index_in_use(self) -> str:
        """`index_in_use`, as a coroutine."""
        known = self._looks.index_known()
        return await Waits(lambda: self.index_in_use) if known is None else known

    def watermarks(self) -> list[int]:
        """The newest log sequence that a replica of each shard has applied, now."""
        self._check_open()
        return self._looks.stats().watermarks

    def search_cost_us(self) -> float:
        """A search may wait for other nodes: it is never to be done where nothing may wait."""
        return float("inf")

    def wait_indexed(self, timeout: float | None = None) -> None:
        """Seal what is growing and return when every replica on a live node has indexed it. Raises TIMEOUT after `timeout` s."""
        self._seal_and_wait(timeout, compact=False)

    def compact(self, timeout: float | None = None) -> None:
        """Merge every shard into one segment without dead rows, on all its replicas on live nodes, and wait for it."""
        self._seal_and_wait(timeout, compact=True)

    def _seal_and_wait(self, timeout: float | None, *, compact: bool) -> None:
        limit_s = timeout_of(timeout)
        sequences = self.seal(compact=compact)
        self.wait_settled(sequences, limit_s)

    def seal(self, *, compact: bool) -> Mapping[int, int]:
        """Ask for what is growing to be sealed; the sequences to wait for."""
        self._check_open()
        return self._writer.seal(compact=compact).sequences

    def wait_settled(self, sequences: Mapping[int, int], limit_s: float | None) -> None:
        """Until the replicas on live nodes have applied these and have no index to build. Raises TIMEOUT."""
        self._looks.wait_settled(sequences, limit_s, self._check_open)

    def verify(self) -> None:
        """Have every replica's files read and compared with their checksums, each on its node.

        Raises CORRUPT when some are damaged, UNAVAILABLE when some could not be read; `details["replicas"]` names them.
        """
        raise_unsound(self.name, self.verify_replicas())

    def verify_replicas(self) -> list[ReplicaCheck]:
        """As `verify`, what was found of each replica, by shard and node."""
        self._check_open()
        return check_replicas(self.placed, self._mirror, self._reader, self._check_open)

    def conflicts(self) -> dict[int, ConflictReport]:
        """Of each shard, of one replica: writes at EVENTUAL that did not know of another write of the same vector."""
        self._check_open()
        return self._reader.conflicts(Wanted())

    def digest(self) -> list[str]:
        """A fingerprint of each shard's contents, of one replica each."""
        self._check_open()
        return self._reader.digests(Wanted(timeout_s=60.0))

    def are_written(self, sequences: Mapping[int, int], rows: int) -> bool:
        """As `ClusterLooks.are_written`."""
        self._check_open()
        return self._looks.are_written(sequences, rows)

    def check_schema(self, schema: Schema, timeout_s: float) -> None:
        """Whether all that is written fits these declarations. Raises SCHEMA_VIOLATION, UNAVAILABLE, TIMEOUT."""
        self._check_open()
        self._reader.check_schema(schema, Wanted(ReadLevel.STRONG, timeout_s=timeout_s))

    # How it is asked

    def wanted(
        self,
        consistency: str = "session",
        seen: SeenSequences | None = None,
        timeout: float = READ_S_MAX,
        allow_partial: bool = False,
    ) -> Wanted:
        """How a read is to be done. Raises INVALID_ARGUMENT."""
        self._check_open()
        timeout_s = number_of(timeout, "timeout")
        if not 0 < timeout_s <= 3600:
            raise invalid(f"timeout must be above 0 and at most 3600 seconds, got {timeout}.")
        if seen:
            self._reader.check_seen(seen)
        return Wanted(read_level(consistency), SeenSequences() if seen is None else seen, allow_partial, timeout_s)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise JadeError(ErrorCode.CLOSED, f"Database {self.name!r} was dropped, or this node stops.")

    def close(self) -> None:
        """Later calls raise CLOSED. Again is fine."""
        self._closed.set()
