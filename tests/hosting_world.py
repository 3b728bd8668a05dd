"""Nodes that hold replicas, without a master: a test writes the cluster map and the log, and looks at what the nodes make of them.

Everything else is real: a nats-server, replicas in folders, agents, and connections between the nodes.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.os_disk import write_file_atomically
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.answering import ShardAnswerer
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Entry, Seal, Write
from jadevectordb.model.schema import Schema
from jadevectordb.node.agent import Agent
from jadevectordb.node.hosted_shard import HostedShard
from jadevectordb.node.hosting import Hosting, active_peers
from jadevectordb.node.replica_opening import HostingWorld
from jadevectordb.ports.node_calls import Asked, Look
from jadevectordb.prepared_structs import prepare_structs
from jadevectordb.shard.maintenance import Lane
from jadevectordb.topology.cluster_map import (
    BEAT_PREFIX,
    MAP_KEY,
    ClusterMap,
    DatabaseRecord,
    Heartbeat,
    NodeRecord,
    ReplicaRecord,
    ReplicaState,
    ShardRecord,
)
from jadevectordb.topology.placed import PlacedDatabase, encode_placed, placed_key

WAIT_S = 60.0
DIMENSION = 8
ACTIVE, ASSIGNED, RETIRING = ReplicaState.ACTIVE, ReplicaState.ASSIGNED, ReplicaState.RETIRING


def wait_until(condition: Callable[[], Any], what: Callable[[], object] | str = "it", seconds: float = WAIT_S) -> Any:
    """Its first true value. What nodes do in the background has no other end to wait for."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, what if isinstance(what, str) else what()
        threading.Event().wait(0.01)
    return found


def config_of(database: str, shards: int, *, seal_rows: int = 64) -> DatabaseConfig:
    return DatabaseConfig(
        name=database,
        folder=database,
        dimension=DIMENSION,
        metric=Metric.COSINE,
        shards=shards,
        index=IndexKind.FLAT,
        schema=Schema(),
        seal_rows=seal_rows,
    )


class Node:
    """One node. Its folder outlives it: another object over the same folder is the node restarted."""

    def __init__(self, cluster: Nodes, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._cluster = cluster
        self._stack = ExitStack()
        clock = SystemClock()
        identity = NodeIdentity(name, "tests", "a secret of tests")
        self.incarnation = secrets.token_hex(4)
        self.displaced = threading.Event()
        self.transport = FramedTransport(identity, clock)
        self._stack.callback(self.transport.close)
        world = HostingWorld(
            clock=clock,
            open_log=cluster.open_log,
            make_compute=lambda: {lane: InlineCompute() for lane in Lane},
            write_atomically=write_file_atomically,
            transport=self.transport,
            peers=lambda database, shard: active_peers(self, name, database, shard),
            threads=1,
        )
        self.hosting = Hosting(folder, world, lambda: secrets.token_hex(4))
        self._stack.callback(self.hosting.close)
        self.agent = Agent(
            name,
            self.incarnation,
            cluster.store,
            self.hosting,
            clock,
            write_atomically=write_file_atomically,
            displaced=self.displaced.set,
        )
        self._stack.callback(self.agent.stop)
        self.answerer = ShardAnswerer(
            self.hosting, clock, node=name, incarnation=self.incarnation, map_version=lambda: self.agent.map.version
        )
        self._stack.callback(self.answerer.close)
        self.server = FramedServer("127.0.0.1", 0, self.answerer, identity)
        self._stack.callback(self.server.close)
        cluster.addresses[name] = self.server.address
        self.agent.start()

    @property
    def map(self) -> ClusterMap:
        return self.agent.map

    def node(self, name: str) -> NodeRecord | None:
        address = self._cluster.addresses.get(name)
        return None if address is None else NodeRecord(id=name, incarnation="", peer=address)

    def hosted(self, database: str, shard: int = 0) -> HostedShard:
        found = self.hosting.get(database, shard)
        assert found is not None
        return found

    def wait_state(self, database: str, state: ReplicaState, shard: int = 0) -> HostedShard:
        def found() -> HostedShard | None:
            hosted = self.hosting.get(database, shard)
            return hosted if hosted is not None and hosted.state is state else None

        def what() -> object:
            return self.name, self.hosting.reports()

        hosted: HostedShard = wait_until(found, what)
        return hosted

    def wait_applied(self, database: str, sequence: int, shard: int = 0) -> HostedShard:
        hosted = self.wait_state(database, ACTIVE, shard)
        wait_until(lambda: hosted.watermark >= sequence, lambda: (self.name, hosted.report(), sequence))
        return hosted

    def ask(self, address: str, call: msgspec.Struct) -> Any:
        """The answer of the node there, or its refusal as JadeError. On a busy machine a node may be silent for so long that the
        connection is given up: that is neither, and the call is sent again, so it must be one that changes nothing.
        """
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return self.transport.call(address, call, WAIT_S)
            except JadeError as error:
                is_lost = error.code is ErrorCode.UNAVAILABLE and "sent" in error.details
                if not is_lost or time.monotonic() >= until:
                    raise
            threading.Event().wait(0.05)

    def digests(self, database: str, *shards: int) -> dict[int, str]:
        asked = Asked(database=database, shards=shards)
        answer = self.ask(self.server.address, Look(asked=asked, what="digest"))
        return {shard: msgspec.json.decode(value) for shard, value in answer.by_shard}

    def stop(self) -> None:
        self._cluster.addresses.pop(self.name, None)
        self._stack.close()


class Nodes:
    """A log, a metadata store, and the nodes started so far."""

    def __init__(self, connection: NatsConnection, folder: Path, bucket: str, patience_s: float = WAIT_S) -> None:
        """patience_s: how long log and store try before they say that their server is away."""
        prepare_structs()
        self.connection = connection
        self.folder = folder
        self.store = KvStore(connection, bucket, replicas=1, answer_s=patience_s)
        self._patience_s = patience_s
        self.addresses: dict[str, str] = {}
        self._nodes: list[Node] = []
        self._written = 0

    def open_log(self, database: str) -> JetStreamLog:
        return JetStreamLog(self.connection, "tests", database, replicas=1, append_s=self._patience_s)

    def start(self, name: str) -> Node:
        node = Node(self, name, self.folder / name)
        self._nodes.append(node)
        return node

    def create(self, database: str, shards: int = 1, *, replication: int = 3, seal_rows: int = 64) -> JetStreamLog:
        """A database that no node holds yet; its log."""
        log = self.open_log(database)
        log.ensure_streams(range(shards))
        placed = PlacedDatabase(
            id=database, name=database, config=config_of(database, shards, seal_rows=seal_rows), replication=replication
        )
        assert self.store.compare_and_set(placed_key(database), encode_placed(placed), 0) is not None
        return log

    def place(self, database: str, shards: int = 1, *, replication: int = 3, **states: ReplicaState) -> int:
        """Write a map that has these replicas of every shard of the database, others as before; its version."""
        record = self.store.get(MAP_KEY)
        known = ClusterMap() if record is None else msgspec.json.decode(record.value, type=ClusterMap)
        replicas = tuple(ReplicaRecord(node, state) for node, state in states.items())
        primary = next((node for node, state in states.items() if state is ACTIVE), "")
        databases = dict(known.databases)
        databases[database] = DatabaseRecord(
            database, replication, tuple(ShardRecord(shard, replicas, primary) for shard in range(shards))
        )
        if not states:
            del databases[database]
        newer = ClusterMap(known.version + 1, 1, databases)
        written = self.store.compare_and_set(
            MAP_KEY, msgspec.json.encode(newer), 0 if record is None else record.revision
        )
        assert written is not None
        return newer.version

    def heartbeat(self, node: str) -> Heartbeat | None:
        record = self.store.get(BEAT_PREFIX + node)
        return None if record is None else msgspec.json.decode(record.value, type=Heartbeat)

    def close(self) -> None:
        for node in self._nodes:
            node.stop()
        self.store.close()


def rows(seed: int, count: int) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]], bytes]]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIMENSION), dtype=np.float32)
    for n in range(count):
        yield f"v{seed}-{n}", vectors[n], b'{"seed":%d,"n":%d}' % (seed, n)


def write_rows(log: JetStreamLog, seed: int, count: int, *, shard: int = 0, request: str = "") -> int:
    """One entry with so many vectors; its sequence."""
    ids, vectors, metadata = map(list, zip(*rows(seed, count), strict=True))
    entry = Entry(Write(ids, np.stack(vectors), metadata), (seed + 1) << 16, request_id=request)
    return log.append([(shard, entry)])[0]


def seal(log: JetStreamLog, shard: int = 0) -> int:
    """Has every replica write its rows to disk, so that its checkpoint is here; the entry's sequence."""
    return log.append([(shard, Entry(Seal(), 1 << 40))])[0]
