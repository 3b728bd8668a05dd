"""A real server process that says it is a node of a cluster: its map is a file that a test writes.

    python -m tests.mapped_server NAME DATA MAP_FILE

The file holds {"version", "nodes": [[name, url, alive], ...]}, and is read anew for every question. Databases are the process's
own: this is for how clients find nodes, not for what nodes share.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.clustered_view import ClusteredView
from jadevectordb.gateway.cluster.facts import ClusterFacts
from jadevectordb.gateway.service.logs import start_log
from jadevectordb.gateway.service.services import Services
from jadevectordb.server import Server
from jadevectordb.settings.sources import Known, load
from jadevectordb.topology.cluster_map import ClusterMap, NodeRecord


def write_map(path: Path, version: int, nodes: list[tuple[str, str, bool]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"version": version, "nodes": nodes}))
    partial.replace(path)


def _facts(path: Path) -> ClusterFacts:
    told: dict[str, Any] = json.loads(path.read_text())
    return ClusterFacts(
        cluster_id="tests",
        map=ClusterMap(told["version"], 1),
        nodes={
            name: NodeRecord(id=name, incarnation="i", peer="127.0.0.1:1", rest=url) for name, url, _ in told["nodes"]
        },
        beats={},
        alive=frozenset(name for name, _, alive in told["nodes"] if alive),
        term=1,
    )


class MappedServer(Server):
    name: str
    path: Path

    def _build(self, known: Known) -> Services:
        services = super()._build(known)
        store = SqliteStore(Path(self.settings.server.data) / "server" / "cluster.sqlite")
        self._closers.append(store.close)
        services.cluster_view = ClusteredView(
            self.name, lambda: _facts(self.path), store, SystemClock(), services.telemetry.performance
        )
        return services


def main() -> None:
    name, data, path = sys.argv[1:4]
    flags = {"server.data": data, "server.port": 0, "server.grpc_port": -1, "auth.mode": "open-loopback"}
    with start_log("info", "text", data + ".log") as log:
        MappedServer.name, MappedServer.path = name, Path(path)
        server = MappedServer(load(None, {}, flags), log.recent, log.take)
        try:
            server.run(lambda ready: print(ready.url, flush=True))
        finally:
            server.close()


if __name__ == "__main__":
    main()
