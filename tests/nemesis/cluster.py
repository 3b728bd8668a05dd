"""A real cluster for the nemesis: nodes with configuration files, disks and a network that can be broken."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import msgspec

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Asked, Count, Look
from tests.nemesis.caller import Caller
from tests.nemesis.disks import Disk, make_disks
from tests.nemesis.network import make_network
from tests.nemesis.node import Node, NodeDidNot

PASSWORD = "correct horse battery"
SECRET = "a secret between these nodes"
DATABASE = "registers"
DIMENSION = 16
_ASK_S = 5.0
_INSIST_S = 60.0
_LOOK_S = 0.25
_PORTS = 5  # of a node


class Replica(msgspec.Struct, frozen=True):
    shard: int
    node: str
    watermark: int
    vectors: int
    digest: str


class RealCluster:
    """nodes: by place. Started by `start`. token: of an administrator, good on every node."""

    def __init__(
        self, folder: Path, count: int, *, shards: int, replication: int = 3, sharding: dict[str, Any] | None = None
    ) -> None:
        """sharding: of the database, as a request says it."""
        self.folder = folder
        self.shards = shards
        self.replication = min(count, replication)
        self._sharding = {} if sharding is None else {"sharding": sharding}
        self.token = ""
        self._undo = contextlib.ExitStack()
        try:
            self.network = make_network(count)
            self._undo.callback(self.network.close)
            names = [f"n{place + 1}" for place in range(count)]
            self.disks: list[Disk]
            self.disks, self.disks_stay_good = make_disks([folder / name for name in names])
            for disk in self.disks:
                self._undo.callback(disk.close)
            self.nodes = self._configure(names)
            for node in self.nodes:
                self._undo.callback(node.end)
        except BaseException:
            self._undo.close()
            raise
        self._database_id = ""

    def _configure(self, names: list[str]) -> list[Node]:
        network, ports = self.network, [self.network.ports(place, _PORTS) for place in range(len(names))]
        hosts = [network.host(place) for place in range(len(names))]
        join = [f"{host}:{peer}" for host, (peer, *_) in zip(hosts, ports, strict=True)]
        logs = [f"{host}:{own[1]}:{own[2]}" for host, own in zip(hosts, ports, strict=True)]
        self._peers = dict(zip(names, join, strict=True))
        nodes = []
        for place, name in enumerate(names):
            peer, client, route, monitor, rest = ports[place]
            config, data = self.folder / f"{name}.toml", self.disks[place].folder / "data"
            config.write_text(
                f"""
[server]
data = {json.dumps(str(data))}
host = "{hosts[place]}"
port = {rest}
grpc_port = -1
[auth]
mode = "required"
admin_password = "{PASSWORD}"
[log]
format = "text"
[cluster]
enabled = true
node_id = "{name}"
join = {json.dumps(join)}
nats_nodes = {json.dumps(logs)}
peer_host = "{hosts[place]}"
peer_port = {peer}
nats_client_port = {client}
nats_route_port = {route}
nats_monitor_port = {monitor}
secret = "{SECRET}"
zone = "z{place + 1}"
""",
                "utf-8",
            )
            nodes.append(Node(place, name, config, data, network.prefix(place), f"http://{hosts[place]}:{rest}"))
        return nodes

    def start(self) -> float:
        """Every node, and a database; seconds until the first write was possible."""
        began_s = time.monotonic()
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()
        first = self.nodes[0]
        self.token = self.insist(first, "POST", "/v1/auth/login", {"username": "admin", "password": PASSWORD})["token"]
        self.wait_healthy(120.0)
        made = self.ask(
            first, "POST", "/v2/databases",
            {"name": DATABASE, "dimension": DIMENSION, "metric": "euclidean", "shards": self.shards, **self._sharding},
            timeout_s=60.0,
        )  # fmt: skip
        self._database_id = made["id"]
        self.wait_healthy(120.0)
        return time.monotonic() - began_s

    # Asking it

    def ask(
        self, node: Node, method: str, path: str, body: Any = None, timeout_s: float = _ASK_S,
        headers: dict[str, str] | None = None,
    ) -> Any:  # fmt: skip
        """Raises JadeError."""
        with contextlib.closing(Caller(node.rest, self.token, timeout_s)) as caller:
            return caller.call(method, path, body, headers)

    def insist(
        self, node: Node, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        """As `ask`, again and again while it can't be answered: when no fault is under way, and the machine is busy."""
        until_s = time.monotonic() + _INSIST_S
        while True:
            try:
                return self.ask(node, method, path, body, headers=headers)
            except JadeError as error:
                if not error.retryable or time.monotonic() > until_s:
                    raise
            time.sleep(_LOOK_S)

    def status(self, node: Node) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask(node, "GET", "/v1/cluster/status")
        return answer

    def master(self) -> str:
        """As far as anybody knows; "" when nobody does."""
        for node in self.nodes:
            with contextlib.suppress(JadeError):
                name = self.status(node)["master_node"]
                if name != "none":
                    return str(name)
        return ""

    def wait_healthy(self, limit_s: float) -> float:
        """Until every node says that the cluster is HEALTHY; how long that took. Raises NodeDidNot with the reasons."""
        began_s = time.monotonic()
        while True:
            says = {node.name: self._health(node) for node in self.nodes}
            if not any(says.values()):
                return time.monotonic() - began_s
            if time.monotonic() - began_s > limit_s:
                raise NodeDidNot(f"not HEALTHY after {limit_s:g} s: {says}")
            time.sleep(_LOOK_S)

    def _health(self, node: Node) -> str:
        try:
            status = self.status(node)
        except JadeError as error:
            return f"{error.code}: {error.message}"
        if status["status"] == "HEALTHY":
            return ""
        return f"{status['status']}: {'; '.join(status['reasons'])}"

    # Its replicas

    def replicas(self, limit_s: float) -> list[Replica]:
        """All of them, looked at until each shard's stand at one watermark twice in a row, or for so long."""
        until_s = time.monotonic() + limit_s
        cluster_id = self.insist(self.nodes[0], "GET", "/v1/cluster/status")["cluster_id"]
        identity = NodeIdentity("observer", cluster_id, SECRET)
        with contextlib.closing(FramedTransport(identity, SystemClock())) as transport:
            before: list[Replica] = []
            while True:
                found = [replica for node in self.nodes for replica in self._replicas_on(node, transport)]
                level = len({(r.shard, r.watermark) for r in found}) == self.shards
                complete = len(found) == self.shards * self.replication
                if (level and complete and found == before) or time.monotonic() > until_s:
                    return found
                before = found
                time.sleep(_LOOK_S)

    def _replicas_on(self, node: Node, transport: FramedTransport) -> list[Replica]:
        found = []
        for shard in range(self.shards):
            asked = Asked(database=self._database_id, shards=(shard,))
            address = self._peers[node.name]
            try:
                digest = transport.call(address, Look(asked=asked, what="digest"), 30.0)
                counted = transport.call(address, Count(asked=asked), 30.0)
            except JadeError as error:
                if error.code is ErrorCode.STALE_MAP:
                    continue  # it is not there
                found.append(Replica(shard, node.name, -1, -1, f"{error.code}: {error.message}"))
                continue
            watermark = dict(counted.watermarks).get(shard, -1)
            text = msgspec.json.decode(digest.by_shard[0][1], type=str)
            found.append(Replica(shard, node.name, watermark, counted.count, text))
        return found

    def close(self) -> None:
        self._undo.close()
