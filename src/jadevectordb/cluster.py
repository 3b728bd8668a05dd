"""A node of a cluster, put together: nats-server, metadata store, transport, replicas, election, and the store the gateway uses.

Opened in an order in which each part finds what it needs, closed in the reverse one: the master resigns, replicas and outbox come
to rest, the heartbeat ends, and last the nats-server hands over what it leads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path

from jadevectordb.adapters.child_process import ChildProcess
from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.adapters.jetstream_log import JetStreamLog, stream_name
from jadevectordb.adapters.jetstream_shard_logs import JetStreamShardLogs
from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.loop_thread import LoopThread, SharedLoop
from jadevectordb.adapters.nats_config import Address, Credentials, NatsServerConfig, TlsFiles
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.nats_external import check_external
from jadevectordb.adapters.nats_reach import Reach, refuse_other_buckets
from jadevectordb.adapters.nats_server import NatsServer, ServerState
from jadevectordb.adapters.os_disk import FolderLock, write_file_atomically
from jadevectordb.control.elector import Elector
from jadevectordb.control.liveness import Liveness
from jadevectordb.control.loop import MasterLoop, MasterSettings
from jadevectordb.control.mirror import ClusterMirror as NodeMirror
from jadevectordb.gateway.cluster.answering import ShardAnswerer
from jadevectordb.gateway.cluster.clocks import ClusterClocks
from jadevectordb.gateway.cluster.clustered_view import ClusteredView
from jadevectordb.gateway.cluster.facts import ClusterFacts
from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.resignation import Resignations
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.gateway.service.performance import Performance
from jadevectordb.gateway.service.system_usage import SystemUsage
from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.ids import ShardId
from jadevectordb.model.limits import LOG_REPLICAS
from jadevectordb.node import membership
from jadevectordb.node.agent import Agent
from jadevectordb.node.hosted_shard import HostingWorld
from jadevectordb.node.hosting import Hosting, active_peers
from jadevectordb.node.shared_compute import SharedCompute
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import Record
from jadevectordb.prepared_structs import prepare_structs
from jadevectordb.settings import cluster as cluster_settings
from jadevectordb.settings.schema import Settings
from jadevectordb.shard.maintenance import Lane
from jadevectordb.topology.cluster_map import IDENTITY_KEY, NODE_PREFIX, NodeRecord
from jadevectordb.topology.sharding import log_of

logger = logging.getLogger("jadevectordb.cluster")
_REGISTER_SILENT_S = 3.0
_STOPPING_ANSWER_S = 2.0
_DISK_FREE_BYTES_MIN = 16 << 20
_IDENTITY_S = 1.0  # all nodes may be starting, and nobody able to answer


class Foundation:
    """What everything of a node stands on: its folder, its nats-server, the connection to the cluster's, the metadata store.

    Raises CONFLICT (a folder of something else, servers that are unfit), UNAVAILABLE (too few of the others within
    `cluster.start_s`), LOCKED, NOT_INSTALLED, CORRUPT.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.folder = Path(settings.server.data)
        self._closers = contextlib.ExitStack()
        own = settings.cluster
        self.credentials = Credentials(cluster_settings.secret_of(own))
        self.tls = _tls_of(own)
        self._bucket = f"{own.name}-metadata"
        self._reach = Reach(clock, None if own.nats_urls else self.credentials, self.tls)
        try:
            _make(self.folder)
            self._closers.callback(FolderLock(self.folder / "LOCK").close)
            found = membership.folder_identity(self.folder, own.node_id)
            self._refuse_others_folder(found)
            self.nats = self._start_nats()
            self.connection = self._connect()
            self._reach.await_usable(self.connection, self.nats, self._urls(), own.start_s)
            if not own.nats_urls:
                refuse_other_buckets(self.connection, self._bucket)
            servers = len(cluster_settings.nats_nodes(own)) or LOG_REPLICAS
            self.log_replicas = min(LOG_REPLICAS, servers)
            self.metadata = KvStore(self.connection, self._bucket, replicas=self.log_replicas, open_s=own.start_s)
            self._closers.callback(self.metadata.close)
            self.identity = membership.join(
                self.metadata, self.folder, found, node=own.node_id, name=own.name, new_id=lambda: secrets.token_hex(8),
                clock=clock, write_atomically=write_file_atomically,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise

    def _start_nats(self) -> NatsServer | None:
        own = self.settings.cluster
        if not cluster_settings.keeps_log(own):
            return None
        nodes = cluster_settings.nats_nodes(own)
        host = own.bind_host or own.peer_host
        config = NatsServerConfig(
            name=own.node_id,
            cluster=own.name,
            directory=self.folder / "nats",
            client=Address(host, own.nats_client_port),
            routes_listen=Address(host, own.nats_route_port),
            monitoring=Address("127.0.0.1", own.nats_monitor_port),
            routes=tuple(Address(node.host, node.route_port) for node in nodes),
            credentials=self.credentials,
            servers=len(nodes),
            tls=self.tls,
        )
        server = NatsServer(config, self.clock, on_change=_tell)
        self._closers.callback(server.stop)
        server.start()
        return server

    def _refuse_others_folder(self, found: membership.FolderIdentity | None) -> None:
        """Before our nats-server, with the log of the folder's own cluster, meets the servers of another one."""
        own, others = self.settings.cluster, self._urls()[1:]
        if found is not None and others and cluster_settings.keeps_log(own):
            kept = self._reach.record_kept(others, self._bucket, IDENTITY_KEY, _IDENTITY_S)
            if kept is not None:
                membership.refuse_other_cluster(self.folder, found, membership.identity_of(kept))

    def _urls(self) -> list[str]:
        """Of all nats-servers, the own one first."""
        own = self.settings.cluster
        scheme = "tls" if self.tls else "nats"
        mine = cluster_settings.own_nats(own)
        nodes = sorted(cluster_settings.nats_nodes(own), key=lambda node: node != mine)
        return own.nats_urls or [f"{scheme}://{Address(node.host, node.client_port)}" for node in nodes]

    def _connect(self) -> NatsConnection:
        connection = self._reach.connect(self._urls(), self.settings.cluster.node_id)
        self._closers.callback(connection.close)
        if self.settings.cluster.nats_urls:
            checked = check_external(connection, None)
            if checked.unchecked:
                logger.warning("external nats-servers: %s", checked.unchecked)
        return connection

    def open_log(self, database: str) -> JetStreamLog:
        return JetStreamLog(self.connection, self.settings.cluster.name, database, replicas=self.log_replicas)

    def close(self) -> None:
        """Again is fine."""
        self._closers.close()


def _tls_of(own: cluster_settings.ClusterSettings) -> TlsFiles | None:
    if not own.tls_certificate:
        return None
    return TlsFiles(Path(own.tls_certificate), Path(own.tls_key), Path(own.tls_ca))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, "make the data folder", folder) from error


def _tell(state: ServerState, reason: str) -> None:
    level = (
        logging.INFO if state in (ServerState.STARTING, ServerState.RUNNING, ServerState.STOPPED) else logging.WARNING
    )
    logger.log(level, "nats-server: %s%s", state, f" ({reason})" if reason else "")


class ClusterNode:
    """store: of databases, for the gateway. metadata: shared by all nodes. view: the cluster as people ask about it.

    `announce` enters it in the cluster once it listens for clients; until then nobody places anything on it.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        prepare_structs()
        own = settings.cluster
        self.settings = settings
        self.clock = clock
        self.node = own.node_id
        self.incarnation = secrets.token_hex(6)
        self._closers = contextlib.ExitStack()
        self._performance: Callable[[], Performance] | None = None
        self._usage: Callable[[], SystemUsage] | None = None
        try:
            self._base = Foundation(settings, clock)
            self._closers.callback(self._base.close)
            self.metadata = self._base.metadata
            self._observed = NodeMirror(self.metadata, clock, Liveness(own.dead_after_s))
            self._observed.start()
            self._closers.callback(self._observed.close)
            self.mirror = ClusterMirror(self._observed, clock)
            if self._base.nats is not None:
                self._base.nats.copies.know(self._log_ends)
            self.clocks = ClusterClocks(self.mirror, clock)
            self._open_replicas()
            self._open_control()
            self.store = self._open_store()
            self._closers.callback(self.store.close)
            self.view = ClusteredView(
                self.node, self._facts, self.metadata, clock, self._measured,
                map_version=lambda: self.mirror.map.version,
            )  # fmt: skip
            self._closers.callback(self.view.close)
        except BaseException:
            self.close()
            raise

    # Opening

    def _open_replicas(self) -> None:
        """The transport, the replicas this node holds, and what answers other nodes about them."""
        own, base = self.settings.cluster, self._base
        identity = self._identity = NodeIdentity(self.node, base.identity.cluster_id, base.credentials.secret)
        loop = LoopThread(f"jade-nodes-{self.node}")
        self._closers.callback(loop.close)
        self.transport = FramedTransport(identity, self.clock, tls=base.tls, loop=loop)
        self._closers.callback(self.transport.close)
        builders = {lane: SharedCompute(ChildProcess()) for lane in Lane}
        for shared in builders.values():
            self._closers.callback(shared.close)
        world = HostingWorld(
            clock=self.clock,
            open_log=base.open_log,
            make_compute=lambda: {lane: shared.share() for lane, shared in builders.items()},
            write_atomically=write_file_atomically,
            transport=self.transport,
            peers=lambda database, shard: active_peers(self.mirror, self.node, database, shard),
            threads=os.cpu_count() or 1,
        )
        self.hosting = Hosting(base.folder, world, lambda: secrets.token_hex(6))
        self._closers.callback(self.hosting.close)
        self.answerer = ShardAnswerer(
            self.hosting, self.clock, node=self.node, incarnation=self.incarnation,
            map_version=lambda: self.mirror.map.version,
        )  # fmt: skip
        self._closers.callback(self.answerer.close)
        listen = own.bind_host or own.peer_host
        self._closers.callback(
            FramedServer(listen, own.peer_port, self.answerer, identity, tls=base.tls, loop=loop).close
        )
        self._closers.callback(self._leave)
        self.agent = Agent(
            self.node, self.incarnation, self.metadata, self.hosting, self.clock,
            write_atomically=write_file_atomically, displaced=self._on_displaced, troubles=self._troubles,
            figures=self._figures,
        )  # fmt: skip

    def _open_control(self) -> None:
        """The election, and what a master does; both begin with `announce`."""
        own = self.settings.cluster
        self.elector = Elector(
            self.metadata, self.clock, self.node, self.incarnation, lease_s=own.lease_s, renew_s=own.lease_s / 3,
            on_gain=self._on_gain, on_loss=lambda term: logger.info("not the master any more (term %d)", term),
        )  # fmt: skip
        self.master = MasterLoop(
            self.metadata, self._observed, self.clock, self.elector.term, JetStreamShardLogs(
                self._base.connection, own.name, replicas=self._base.log_replicas
            ),
            MasterSettings(replace_after_s=own.replace_after_s),
        )  # fmt: skip

    def _on_gain(self, term: int) -> None:
        logger.info("this node is the master now (term %d)", term)
        self.master.wake()

    def _open_store(self) -> ClusterStore:
        own = self.settings.cluster
        return ClusterStore(
            self.metadata, self.mirror, self.transport, self.clock, node=self.node, open_log=self._base.open_log,
            new_id=lambda: secrets.token_hex(8), local=self.answerer, outboxes=_Outboxes(self._base.folder / "outbox"),
            replication=own.replication, shards=own.shards,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def in_gateway(self) -> AsyncIterator[None]:
        """While this lasts, searches of clients ask other nodes from the running loop: the one that serves clients."""
        loop, fan_out = SharedLoop(), self.store.fan_out
        transport = FramedTransport(self._identity, self.clock, tls=self._base.tls, loop=loop)
        fan_out.in_gateway = fan_out.over(transport, self.settings.server.inline_search_us)
        try:
            yield
        finally:
            fan_out.in_gateway = None
            transport.close()
            await loop.leave()

    def announce(self, *, rest: str, grpc_port: int | None) -> None:
        """Enter this node: it listens for clients at `rest`. Raises CONFLICT when another process of this name is alive."""
        own = self.settings.cluster
        host = cluster_settings.bracketed(own.peer_host)
        record = NodeRecord(
            id=self.node, incarnation=self.incarnation, peer=f"{host}:{own.peer_port}", rest=own.rest_url or rest,
            grpc=f"{host}:{grpc_port}" if grpc_port else "", zone=own.zone, version=version("jadevectordb"),
            started_ms=self.clock.now_ms(), keeps_log=cluster_settings.keeps_log(own),
        )  # fmt: skip
        membership.register(self.metadata, record, self.clock, time.sleep, _REGISTER_SILENT_S)
        self.agent.start()
        self._closers.callback(self.agent.stop)
        self.master.start()
        self._closers.callback(self.master.stop)
        self.elector.start()
        self._closers.callback(self.elector.stop)
        self._observed.listen(self._look_whether_removed)
        resignations = Resignations(self.metadata, self.elector.term, self.elector.resign)
        self._closers.callback(resignations.close)
        # First of all when stopping: others may be gone, and with them the quorum
        self._closers.callback(self._base.connection.hasten, _STOPPING_ANSWER_S)

    def _look_whether_removed(self, key: str) -> None:
        """Who is no part of the cluster any more is no candidate either; it answers on until it is stopped."""
        if key != NODE_PREFIX + self.node or self.node in self._observed.observe().nodes:
            return
        logger.warning("node %s was drained and is no part of the cluster any more: it can be stopped", self.node)
        threading.Thread(target=self.elector.stop, name="jade-removed", daemon=True).start()

    def is_master(self) -> bool:
        """At this moment: whoever does what one node alone shall do asks again and again."""
        return self.elector.term() is not None

    def _leave(self) -> None:
        self.agent.leave()

    # What people are told

    def measured_by(self, performance: Callable[[], Performance], usage: Callable[[], SystemUsage]) -> None:
        """What this node measures of itself comes from here."""
        self._performance, self._usage = performance, usage

    def _measured(self) -> Performance:
        assert self._performance is not None, "told before anyone can ask"
        return self._performance()

    def _figures(self) -> dict[str, float]:
        if self._performance is None or self._usage is None:
            return {}
        searches, usage = self._performance(), self._usage()
        known = {
            "cpu_percent": usage.cpu_percent,
            "memory_percent": usage.memory_percent,
            "disk_percent": usage.disk_percent,
            "queries_per_second": searches.queries_per_second,
            "latency_p50_ms": searches.latency_p50_ms,
            "latency_p95_ms": searches.latency_p95_ms,
            "latency_p99_ms": searches.latency_p99_ms,
        }
        return {name: value for name, value in known.items() if value is not None}

    def _facts(self) -> ClusterFacts:
        observed, lease, now_ms = self._observed.observe(), self.elector.leader(), self.clock.now_ms()
        silent = {node: observed.dead_for_s.get(node, 0.0) for node in observed.beats}
        return ClusterFacts(
            cluster_id=self._base.identity.cluster_id, map=observed.map, nodes=observed.nodes, beats=observed.beats,
            alive=observed.alive, beat_age_s=silent, master="" if lease is None else lease.holder,
            term=0 if lease is None else lease.term, store_trouble=self.elector.trouble,
            clock_ms={node: beat.wall_ms - now_ms for node, beat in observed.beats.items() if beat.wall_ms},
        )  # fmt: skip

    def _log_ends(self) -> dict[str, int]:
        """By stream of the log: how far replicas have applied it, as far as is known here."""
        ends: dict[str, int] = {}
        placed = self.mirror.placed()
        for beat in self._observed.observe().beats.values():
            for report in beat.replicas:
                if (known := placed.get(report.database)) is not None:
                    log = ShardId(log_of(known.sharding, report.shard))
                    name = stream_name(self.settings.cluster.name, report.database, log)
                    ends[name] = max(ends.get(name, 0), report.watermark)
        return ends

    # What others are told

    def _on_displaced(self) -> None:
        logger.error("another process runs as node %s: this one stops taking part; stop one of them", self.node)

    def _troubles(self) -> tuple[str, ...]:
        """What else is wrong on this node; brief, as heartbeats wait for it."""
        found = []
        nats, connection = self._base.nats, self._base.connection.state
        if nats is not None and (wrong := nats.trouble):
            found.append(f"nats-server: {wrong}")
        if not connection.connected:
            found.append(f"no connection to the cluster's log: {connection.refusal or 'none of its servers answers'}")
        if wrong := self.master.trouble:
            found.append(f"as the master: {wrong}")
        found += self._observed.troubles.values()
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self._base.folder).free
            if free < _DISK_FREE_BYTES_MIN:
                found.append(f"its disk is full: {free >> 20} MB are left for {self._base.folder}; free some")
        return tuple(found)

    def watch_credentials(self, forget: Callable[[], None]) -> None:
        """Have `forget` called whenever another node may have taken a right away from somebody."""

        def taken(key: str, record: Record | None) -> None:
            if record is None or not key.startswith("session/"):
                forget()

        for prefix in ("user/", "key/", "session/"):
            self._closers.callback(self.metadata.watch(prefix, taken).close)

    def close(self) -> None:
        """Again is fine."""
        self._closers.close()


class _Outboxes:
    """`gateway.cluster.store.OutboxFolders`: FOLDER/DATABASE, a local log each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def known(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("*") if path.is_dir())

    def open(self, database: str) -> LocalLog:
        self._folder.mkdir(parents=True, exist_ok=True)
        return LocalLog(self._folder / database, rotate_bytes_min=1)  # what was published is not kept

    def remove(self, database: str) -> None:
        shutil.rmtree(self._folder / database, ignore_errors=True)
