"""A whole cluster in one process: a nats-server, nodes with replicas, a master, and a gateway beside each node.

Nothing is imitated: replicas lie in folders, nodes talk over connections, the master decides, and a gateway knows what the metadata
store told it. Only the processes are one, so that a test can look at everything and stop any part.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import msgspec

from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.control.loop import MasterLoop
from jadevectordb.control.mirror import ClusterMirror as ControlMirror
from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.topology.cluster_map import NODE_PREFIX, NodeRecord
from tests.hosting_world import WAIT_S, Node, Nodes, wait_until

__all__ = ["WAIT_S", "Cluster", "Folders", "Gateway", "wait_until"]


class Folders:
    """`OutboxFolders` under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def known(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def open(self, database: str) -> LocalLog:
        return LocalLog(self.folder / database, rotate_bytes_min=1)

    def remove(self, database: str) -> None:
        shutil.rmtree(self.folder / database, ignore_errors=True)


class Gateway:
    """What a node's clients talk to. node: the replicas beside it; None for a gateway that holds none."""

    def __init__(self, cluster: Cluster, name: str, node: Node | None, transport_of: Node) -> None:
        clock = SystemClock()
        self._seen = ControlMirror(cluster.nodes.store, clock)
        self._seen.start()
        self.mirror = ClusterMirror(self._seen, clock)
        self.store = ClusterStore(
            cluster.nodes.store, self.mirror, transport_of.transport, clock, node=name, open_log=cluster.nodes.open_log,
            new_id=lambda: secrets.token_hex(8), local=None if node is None else node.answerer,
            outboxes=Folders(cluster.folder / f"outbox-{name}"), shards=cluster.shards, replication=cluster.replication,
        )  # fmt: skip

    def close(self) -> None:
        self.store.close()
        self._seen.close()


class _Logs:
    """`control.loop.ShardLogs`."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def _log(self, database: str, shards: int) -> JetStreamLog:
        log = self._nodes.open_log(database)
        log.ensure_streams(range(shards))
        return log

    def create(self, database: str, shards: int) -> None:
        self._log(database, shards).close()

    def drop(self, database: str, shards: int) -> None:
        self._log(database, shards).drop()

    def truncate(self, database: str, up_to: dict[int, int]) -> None:
        self._nodes.open_log(database).truncate(up_to)


class Cluster:
    def __init__(
        self,
        connection: NatsConnection,
        folder: Path,
        bucket: str,
        *,
        nodes: int = 3,
        shards: int = 4,
        replication: int = 3,
    ) -> None:
        self.folder, self.shards, self.replication = folder, shards, replication
        self.nodes = Nodes(connection, folder, bucket)
        self.running: dict[str, Node] = {}
        self.gateways: dict[str, Gateway] = {}
        clock = SystemClock()
        for number in range(1, nodes + 1):
            self.start(f"n{number}")
        self._observed = ControlMirror(self.nodes.store, clock)
        self._observed.start()
        self.master = MasterLoop(self.nodes.store, self._observed, clock, lambda: 1, _Logs(self.nodes))
        self.master.start()

    def start(self, name: str) -> Gateway:
        """Start a node, anew in its folder when it was stopped, and its gateway."""
        node = self.running[name] = self.nodes.start(name)
        record = NodeRecord(id=name, incarnation=node.incarnation, peer=node.server.address)
        key = NODE_PREFIX + name
        before = self.nodes.store.get(key)
        written = self.nodes.store.compare_and_set(
            key, msgspec.json.encode(record), 0 if before is None else before.revision
        )
        assert written is not None
        gateway = self.gateways[name] = Gateway(self, name, node, node)
        return gateway

    def stop(self, name: str) -> None:
        """As a process that ends: its gateway, its replicas and its heartbeat."""
        self.gateways.pop(name).close()
        self.running.pop(name).stop()

    def close(self) -> None:
        for gateway in self.gateways.values():
            gateway.close()
        self.master.stop()
        self._observed.close()
        self.nodes.close()
