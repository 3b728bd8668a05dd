"""The databases of a cluster: create, open, list, drop, from any node.

    cluster/database/ID   what a database was created with; whoever creates or drops one writes this, the master does the rest
    cluster/name/NAME     the id that has the name: two nodes that create the same name at once are told apart here

A handle works as long as its database exists, whatever becomes of nodes: it follows the cluster map.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy.typing as npt

from jadevectordb.gateway.cluster import cells_of
from jadevectordb.gateway.cluster.altering import alter
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.moving_reader import MovingReader
from jadevectordb.gateway.cluster.outboxes import Outboxes, OutboxFolders
from jadevectordb.gateway.cluster.reading import ClusterReader, Wanted
from jadevectordb.gateway.embedded.alteration import altered
from jadevectordb.index.text import TextConfig
from jadevectordb.model.database import DatabaseConfig, check_config, index_kind_of, metric_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import VectorId
from jadevectordb.model.index_parameters import parse_index_parameters
from jadevectordb.model.limits import PLACE_S_MAX, SEAL_ROWS
from jadevectordb.model.schema import Schema, parse_schema
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.ports.transport import Transport
from jadevectordb.query.balancer import Balancer, Balancing
from jadevectordb.query.barriers import Barriers
from jadevectordb.query.cluster_writer import AppendOnly, ClusterWriter, GatewayTime, WriterParts
from jadevectordb.query.fan_out import FanOut
from jadevectordb.query.levels import ReadLevel
from jadevectordb.query.outbox import OutboxFigures
from jadevectordb.query.question import OwnReplicas
from jadevectordb.query.shared_log_writer import SharedLogWriter
from jadevectordb.topology.cells import cells_key
from jadevectordb.topology.cluster_map import DatabaseRecord, ReplicaState
from jadevectordb.topology.placed import PlacedDatabase, Sharding, check_replication, encode_placed, placed_key
from jadevectordb.topology.sharding import shares_one_log

_NAME_PREFIX = "cluster/name/"
_NEVER_AGAIN = re.compile(r"db_[0-9a-f]{16}")  # as the catalog makes them, from chance


class ClusterStore:
    """Thread-safe. mirror, transport: owned by the caller, closed after this.

    open_log: the logs of a database with this id. local: answers for this node's own replicas. outboxes: None = this node takes no
    writes at EVENTUAL. new_id: letters and digits never used before.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        mirror: ClusterMirror,
        transport: Transport,
        clock: Clock,
        *,
        node: str,
        open_log: Callable[[str], AppendOnly],
        new_id: Callable[[], str],
        local: OwnReplicas | None = None,
        outboxes: OutboxFolders | None = None,
        balancing: Balancing = Balancing.LEAST_LOADED,
        replication: int = 3,
        shards: int = 4,
        place_s: float = PLACE_S_MAX,
    ) -> None:
        self.mirror = mirror
        self.fan_out = FanOut(transport, mirror, Balancer(balancing, node if local is not None else ""), node, local)
        self._metadata = metadata
        self._clock = clock
        self._time = GatewayTime(clock)
        self._open_log = open_log
        self._new_id = new_id
        self._outboxes = Outboxes(outboxes, mirror, open_log, clock, self._time)
        self._replication = replication
        self._shards = shards
        self._place_s = place_s
        self._lock = threading.RLock()
        self._altering = threading.Lock()  # one at a time on this node
        self._handles: dict[str, ClusterDatabase] = {}  # by id
        self._closed = False
        self.on_change: list[Callable[[], None]] = []  # a database came or went, here or from another node
        mirror.on_database.append(self._database_changed)
        self._outboxes.reopen()

    # Databases

    def create_database(
        self,
        name: str,
        dimension: int,
        metric: str = "cosine",
        shards: int = 0,
        index: str = "AUTO",
        schema: Schema | Mapping[str, Any] | None = None,
        *,
        index_parameters: Mapping[str, Any] | None = None,
        strict: bool = False,
        text_language: str = "english",
        seal_rows: int = SEAL_ROWS,
        exist_ok: bool = False,
        replication: int = 0,
        sharding: str = "auto",
        bounds: Seq[str] = (),
        sample: npt.ArrayLike | None = None,
        cells: int = 0,
    ) -> ClusterDatabase:
        """As `Store.create_database`; returns when the database can be written and read.

        shards, replication: 0 = as the cluster is set. sharding: hash, range (with the bounds between shards), vector (with a sample of
        the vectors to come, (n, dimension), and perhaps a number of cells), or auto, which is hash or, with a sample, vector.
        Raises ALREADY_EXISTS, INVALID_ARGUMENT, UNAVAILABLE (nothing was created then).
        """
        if not isinstance(name, str) or type(dimension) is not int or type(shards) is not int:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                "create_database takes a name, an integer dimension, and an integer number of shards.",
            )
        shards = shards or self._shards
        # A name that is never given twice serves as the id: then people, streams and folders call the database alike
        database_id = name if isinstance(name, str) and _NEVER_AGAIN.fullmatch(name) else f"d{self._new_id()}"
        config = DatabaseConfig(
            name=name,
            folder=database_id,
            dimension=dimension,
            metric=metric_of(metric),
            shards=shards,
            index=index_kind_of(index),
            index_parameters=parse_index_parameters(index_kind_of(index), index_parameters),
            schema=parse_schema(schema, strict=strict),
            text_language=text_language,
            seal_rows=seal_rows,
            created_ms=self._clock.now_ms(),
        )
        check_config(config)
        TextConfig(config.schema.texts or ("any",), text_language)
        placed = PlacedDatabase(
            id=database_id,
            name=name,
            config=config,
            replication=check_replication(replication or self._replication),
            sharding=Sharding(),
        )
        placed, trained = cells_of.sharded(placed, sharding, bounds, sample, cells)
        existing = self._find(name)
        if existing is not None:
            return self._existing(existing, placed, exist_ok)
        self._create(placed, trained)
        return self.database(name)

    def _existing(self, found: PlacedDatabase, wanted: PlacedDatabase, exist_ok: bool) -> ClusterDatabase:
        ours, theirs = wanted.config, found.config
        different = [
            field
            for field in ours.__struct_fields__
            if field not in ("folder", "created_ms") and getattr(ours, field) != getattr(theirs, field)
        ]
        different += [] if wanted.replication == found.replication else ["replication"]
        different += [] if wanted.sharding.is_like(found.sharding) else ["sharding"]
        if not exist_ok or different:
            otherwise = f" with another {', '.join(different)}" if different else ""
            raise JadeError(
                ErrorCode.ALREADY_EXISTS,
                f"Database {found.name!r} exists{otherwise}: open it with database({found.name!r}), or choose another name.",
                details={"different": different},
            )
        return self.database(found.name)

    def _create(self, placed: PlacedDatabase, cells: bytes) -> None:
        """Claim the name, say what is wanted, wait for the master; or leave nothing of it and raise."""
        self._check_open()
        claim = self._claim(placed)
        try:
            if cells:  # first: whoever hears of the database finds them
                written = self._metadata.compare_and_set(cells_key(placed.id), cells, 0)
                assert written is not None, "nobody else makes this id"
            written = self._metadata.compare_and_set(placed_key(placed.id), encode_placed(placed), 0)
            assert written is not None, "nobody else makes this id"
            # Who took this claim for abandoned has read before this write, or is refused by it
            confirmed = self._metadata.compare_and_set(_NAME_PREFIX + placed.name, placed.id.encode(), claim)
            if confirmed is None:
                raise _exists(placed.name)
            claim = confirmed
            self._wait_served(placed)
        except BaseException:
            with contextlib.suppress(JadeError):
                self._remove(placed)
            with contextlib.suppress(JadeError):
                self._metadata.compare_and_set(_NAME_PREFIX + placed.name, None, claim)
            raise

    def _claim(self, placed: PlacedDatabase) -> int:
        """The name is ours: the revision of the record that says so. Raises ALREADY_EXISTS."""
        key = _NAME_PREFIX + placed.name
        record = self._metadata.get(key)
        expected = 0 if record is None else record.revision
        if record is not None and self._metadata.get(placed_key(record.value.decode())) is not None:
            raise _exists(placed.name)
        # A claim without a database is what a crash left, or somebody creates it at this moment: who comes second loses
        if record is not None and not self._is_abandoned(record.value.decode()):
            raise _exists(placed.name)
        revision = self._metadata.compare_and_set(key, placed.id.encode(), expected)
        if revision is None:
            raise _exists(placed.name)
        return revision

    def _is_abandoned(self, database_id: str) -> bool:
        """Whether nothing appears under this id for as long as creating takes at most."""
        return not self.mirror.wait(lambda: database_id in self.mirror.placed(), min(self._place_s, 10.0))

    def _wait_served(self, placed: PlacedDatabase) -> None:
        """Until the master has placed it and a majority of each shard's replicas, or all that can be, are active."""
        if not self.mirror.wait(lambda: self._is_served(placed), self._place_s):
            record = self.mirror.map.databases.get(placed.id)
            why = self._master_trouble(placed.id) or "no master has placed it"
            if record is not None:
                why = "its replicas did not become ready"
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"Database {placed.name!r} could not be created within {self._place_s:g} s: {why}. Look at the cluster's status; "
                "nothing was kept.",
                details={"undecided": False},
            )

    def _master_trouble(self, database_id: str) -> str:
        """What the master said of it in a heartbeat, "" when it said nothing."""
        told = (trouble for beat in self.mirror.beats().values() for trouble in beat.troubles)
        return next((trouble for trouble in told if database_id in trouble), "")

    def _is_served(self, placed: PlacedDatabase) -> bool:
        record = self.mirror.map.databases.get(placed.id)
        if placed.id not in self.mirror.placed() or record is None or len(record.shards) < placed.config.shards:
            return False
        return all(self._is_shard_served(record, number, placed.replication) for number in range(len(record.shards)))

    def _is_shard_served(self, record: DatabaseRecord, number: int, replication: int) -> bool:
        shard = record.shards[number]
        active = sum(replica.state is ReplicaState.ACTIVE for replica in shard.replicas)
        possible = min(replication, max(1, len(shard.replicas)))
        return bool(shard.primary) and active >= possible // 2 + 1

    def database(self, name: str) -> ClusterDatabase:
        """A handle; the same object every time. Raises UNKNOWN_DATABASE."""
        self._check_open()
        placed = self._find(name)
        if placed is None:
            known = ", ".join(self.databases()[:20]) or "none yet"
            raise JadeError(
                ErrorCode.UNKNOWN_DATABASE,
                f"There is no database {name!r} in this cluster (there are: {known}). Make it with create_database.",
                details={"name": name},
            )
        with self._lock:
            handle = self._handles.get(placed.id)
            if handle is None:
                handle = self._handles[placed.id] = self._open(placed)
            return handle

    def _open(self, placed: PlacedDatabase) -> ClusterDatabase:
        def stored_sizes(names: list[VectorId]) -> dict[str, int]:
            items = reader.find(names, Wanted(ReadLevel.EVENTUAL), vectors=False)
            return {item.id: len(item.metadata_json) for item in items if item is not None}

        parts = WriterParts(
            placed=placed,
            fan_out=self.fan_out,
            log=self._open_log(placed.id),
            time=self._time,
            open_outbox=lambda: self._outboxes.of(placed),
            new_request_id=self._new_id,
            stored_sizes=stored_sizes,
            known=lambda: self._known(placed.id),
        )
        writer: ClusterWriter
        reader: ClusterReader
        if shares_one_log(placed.sharding):
            cells = cells_of.read(self._metadata, placed)
            writer = SharedLogWriter(parts, cells)
            reader = MovingReader(placed, self.fan_out, Barriers(writer.barrier), cells)
        else:
            writer = ClusterWriter(parts)
            reader = ClusterReader(placed, self.fan_out, Barriers(writer.barrier))
        return ClusterDatabase(placed, self.mirror, reader, writer)

    def find(self, name: str) -> ClusterDatabase | None:
        """The handle of `database`, None where there is no such database. As far as this node has heard."""
        return None if self._find(name) is None else self.database(name)

    def is_stored(self, database_id: str) -> bool:
        """Whether there is a database of this id, by the word of the metadata store. Raises UNAVAILABLE."""
        return self._metadata.get(placed_key(database_id)) is not None

    def databases(self) -> list[str]:
        """Names, in order."""
        self._check_open()
        return sorted({placed.name for placed in self.mirror.placed().values()})

    def describe(self, name: str) -> DatabaseConfig:
        """How the database is configured. Raises UNKNOWN_DATABASE."""
        return self.database(name).config

    def alter_database(
        self,
        name: str,
        *,
        index: str | None = None,
        index_parameters: Mapping[str, Any] | None = None,
        schema: Schema | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        dimension: int | None = None,
    ) -> ClusterDatabase:
        """As `Store.alter_database`, on every node; returns when a replica of each shard is found by the new text fields.

        Raises what that raises, and NOT_IMPLEMENTED for another dimension, and for fields that become dates or are none any more.
        """
        database = self.database(name)
        with self._altering:
            alter(
                database, self._metadata, self.mirror, self._clock,
                lambda config: altered(
                    config, index=index, index_parameters=index_parameters, schema=schema, strict=strict, dimension=dimension
                ),
            )  # fmt: skip
        return database

    def drop_database(self, name: str) -> None:
        """Delete a database and everything in it: at once for whoever asks, on the nodes soon after. Raises UNKNOWN_DATABASE."""
        placed = self.database(name).placed
        self._remove(placed)
        key = _NAME_PREFIX + name
        claim = self._metadata.get(key)
        if claim is not None and claim.value.decode() == placed.id:
            self._metadata.compare_and_set(key, None, claim.revision)
        # What this node lists and opens next must not show it any more
        self.mirror.wait(lambda: placed.id not in self.mirror.placed(), self._place_s)

    def _remove(self, placed: PlacedDatabase) -> None:
        record = self._metadata.get(placed_key(placed.id))
        if record is not None:
            self._metadata.compare_and_set(placed_key(placed.id), None, record.revision)
        cells_of.remove(self._metadata, placed)

    def _find(self, name: str) -> PlacedDatabase | None:
        """The oldest of this name: of two that nodes made at the same moment the second is about to be taken back."""
        named = [placed for placed in self.mirror.placed().values() if placed.name == name]
        return min(named, key=lambda placed: (placed.config.created_ms, placed.id), default=None)

    # Following

    def _database_changed(self, database_id: str) -> None:
        """Told by the mirror, from the metadata store's thread."""
        placed = self.mirror.placed().get(database_id)
        if placed is not None:
            handle = self._handles.get(database_id)
            if handle is not None:
                handle.reconfigure(placed)
        else:
            with self._lock:
                handle = self._handles.pop(database_id, None)
            if handle is not None:
                handle.close()
            self._outboxes.end(database_id)
            self.fan_out.known.forget(database_id)
        for tell in list(self.on_change):
            tell()

    def _known(self, database_id: str) -> Mapping[int, tuple[int, int]]:
        """How far this gateway knows each shard's log, and the newest hybrid time it has heard of from there."""
        known = {shard: (place, 0) for shard, place in self.fan_out.known.of(database_id).items()}
        told = [
            (report.shard, (report.watermark, report.newest_time))
            for beat in self.mirror.beats().values()
            for report in beat.replicas
            if report.database == database_id
        ]
        if self.fan_out.local is not None:
            told += self.fan_out.local.applied(database_id).items()
        for shard, (place, newest_time) in told:
            before = known.get(shard, (0, 0))
            known[shard] = max(place, before[0]), max(newest_time, before[1])
        return known

    def outbox_figures(self) -> dict[str, OutboxFigures]:
        """Of each database that this node took writes at EVENTUAL for, by id."""
        return self._outboxes.figures()

    # The end

    def _check_open(self) -> None:
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "This node is stopping: ask another one.")

    def close(self) -> None:
        """Handles are closed; writes at EVENTUAL get a moment to be published, and stay for the next start else. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            handles = list(self._handles.values())
        for handle in handles:
            handle.close()
        self._outboxes.close()
        for tell in list(self.on_change):
            tell()

    def __repr__(self) -> str:
        return f"<ClusterStore of node {self.fan_out.node!r}{' closed' if self._closed else ''}>"


def _exists(name: str) -> JadeError:
    return JadeError(
        ErrorCode.ALREADY_EXISTS, f"Database {name!r} exists, or is being created: open it with database({name!r})."
    )
