"""Nodes that are started wrongly, or in a wrong world, beside a cluster on this machine: `jade serve` as a person starts it.

with Refusals(cluster, folder) as started:       # processes run at once, each with ports and a folder of its own
    started.add("elsewhere", cluster={"nats_nodes": [...]})
    told = started.refused("elsewhere")          # its exit code and what it said
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from jadevectordb.cli.local_cluster import LocalCluster, free_ports

SHIMS = Path(__file__).parent / "faults" / "shims"
START_S = 15.0  # what a node is given to find the cluster, beside all the others
_END_S = 240.0  # of wall time on a busy machine, where imports alone may take ten


def in_shim(**settings: object) -> dict[str, str]:
    """The environment of a process that runs in this shim; see `faults/shims`."""
    return {**os.environ, "PYTHONPATH": str(SHIMS), **{name: str(value) for name, value in settings.items()}}


@dataclass(frozen=True, slots=True)
class Told:
    code: int
    error: str  # the line that says why
    all: str


class Ports:
    """Of one node."""

    def __init__(self) -> None:
        self.rest, self.grpc, self.peer, self.client, self.route, self.monitor = free_ports(6)

    @property
    def nats(self) -> str:
        return f"127.0.0.1:{self.client}:{self.route}"


class Refusals:
    """Processes that are expected to end by themselves. On leaving, those that did not are killed."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        """The settings are those of the cluster's last node, with a name and ports of their own; folder: for what they leave."""
        self.folder = folder
        self._base = tomllib.loads((cluster.folder / cluster.nodes[-1].id / "node.toml").read_text())
        self._processes: dict[str, subprocess.Popen[str]] = {}

    @property
    def cluster_name(self) -> str:
        return str(self._base["cluster"]["name"])

    def data_of(self, name: str) -> Path:
        return self.folder / name / "data"

    def add(
        self,
        name: str,
        /,
        *,
        ports: Ports | None = None,
        environment: Mapping[str, str] | None = None,
        server: Mapping[str, Any] | None = None,
        **cluster: Any,
    ) -> None:
        """server, cluster: settings of these sections that are otherwise."""
        ports = ports or Ports()
        own = {"host": "127.0.0.1", "port": ports.rest, "grpc_port": ports.grpc, "data": str(self.data_of(name))}
        joined = {
            **self._base["cluster"], "node_id": name, "start_s": START_S, "peer_port": ports.peer, "nats_client_port": ports.client,
            "nats_route_port": ports.route, "nats_monitor_port": ports.monitor, **cluster,
        }  # fmt: skip
        sections = {"server": {**own, **(server or {})}, "auth": self._base["auth"], "cluster": joined}
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        path = self.folder / name / "node.toml"
        path.write_text("".join(_section(*each) for each in sections.items()))
        self._processes[name] = subprocess.Popen(
            [sys.executable, "-m", "jadevectordb", "serve", "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=None if environment is None else dict(environment),
        )

    def refused(self, name: str) -> Told:
        """What it said; it must have ended by itself."""
        said, _ = self._processes[name].communicate(timeout=_END_S)
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and said.splitlines()[-1] == errors[0], said
        assert "Traceback" not in said and "is ready" not in said, said
        return Told(self._processes[name].returncode, errors[0], said)

    def __enter__(self) -> Refusals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.communicate()


def _section(name: str, values: Mapping[str, Any]) -> str:
    """Booleans, numbers, texts and lists of texts are written in TOML as in JSON."""
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), "", ""])
