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
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.model.database import same_config
from jadevectordb.topology.cluster_map import NODE_PREFIX, NodeRecord, ReplicaState
from tests.hosting_world import WAIT_S, Node, Nodes, wait_until

__all__ = ["WAIT_S", "Cluster", "Folders", "Gateway", "wait_until"]

PLACE_S = 120.0  # for a database to be served: a busy machine may need longer than people are asked to wait


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
            place_s=PLACE_S,
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
        patience_s: float = WAIT_S,
    ) -> None:
        """patience_s: of `Nodes`."""
        self.folder, self.shards, self.replication = folder, shards, replication
        self.nodes = Nodes(connection, folder, bucket, patience_s)
        self.running: dict[str, Node] = {}
        self.gateways: dict[str, Gateway] = {}
        clock = SystemClock()
        for number in range(1, nodes + 1):
            self.start(f"n{number}")
        self._observed = ControlMirror(self.nodes.store, clock)
        self._observed.start()
        mirrors = [self._observed, *(gateway.mirror for gateway in self.gateways.values())]
        wait_until(lambda: all(mirror.alive() == self.running.keys() for mirror in mirrors))  # so that all get shards
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

    def database(self, node: str, name: str) -> ClusterDatabase:
        """At this node's gateway, which hears of a database that another one made a moment later."""
        store = self.gateways[node].store
        wait_until(lambda: name in store.databases(), f"{name} is not known on {node}")
        return store.database(name)

    def wait_everywhere(self, database: ClusterDatabase) -> None:
        """Until every replica that there shall be is in use, as configured, and has applied all that was written before.

        What was written before is shown from then on by whichever replica is asked, with or without a session. A write, also one
        at STRONG, promises that only of replicas that were in use already, on nodes that seemed alive.
        """
        last = database._writer.barrier(range(database.config.shards))
        wait_until(
            lambda: self._is_everywhere(database, last), lambda: [n.hosting.reports() for n in self.running.values()]
        )

    def _is_everywhere(self, database: ClusterDatabase, last: dict[int, int]) -> bool:
        wanted = min(database.placed.replication, len(self.running))
        config = msgspec.structs.replace(database.config, shards=1)
        for gateway in self.gateways.values():
            record = gateway.mirror.map.databases.get(database.placed.id)
            if record is None or len(record.shards) < len(last) or gateway.mirror.alive() != self.running.keys():
                return False
            for shard in record.shards:
                active = [r.node for r in shard.replicas if r.state is ReplicaState.ACTIVE and r.node in self.running]
                if len(active) < wanted:
                    return False
                for node in active:
                    hosted = self.running[node].hosting.get(database.placed.id, shard.number)
                    readable = None if hosted is None else hosted.readable
                    if hosted is None or readable is None or not same_config(readable.config, config):
                        return False
                    if hosted.watermark < last[shard.number]:
                        return False
        return True

    def check_replicas(self, database: ClusterDatabase) -> None:
        """Every replica, at the same place of its log, says the same."""
        self.wait_everywhere(database)
        for shard in range(database.config.shards):
            hosted = [node.hosting.get(database.placed.id, shard) for node in self.running.values()]
            digests = {one.readable.replicas[0].digest() for one in hosted if one and one.readable}
            assert len(digests) == 1

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
