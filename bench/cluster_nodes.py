"""Real nodes of a cluster on this machine, for measuring: started, asked how much CPU they took, killed, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jadevectordb as jade
from jadevectordb.cli.local_cluster import free_ports

TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "a secret for measuring on one machine"
PASSWORD = "only for measuring"  # asked for where other machines could reach the nodes
HOST = "127.0.0.1"


@dataclass
class Node:
    name: str
    rest: str
    config: Path
    process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


class Nodes:
    """As many nodes as wished; the first `keepers` (1, 3 or 5) keep the log."""

    def __init__(self, folder: Path, count: int, keepers: int = 3, host: str = HOST) -> None:
        ports = free_ports(5 * count)
        rows = [ports[5 * n : 5 * n + 5] for n in range(count)]
        join = [f"{host}:{row[0]}" for row in rows]
        keepers = min(keepers, count)
        log = [f"{host}:{row[1]}:{row[2]}" for row in rows[:keepers]]
        self.folder = folder
        self.all: list[Node] = []
        auth = 'mode = "open-loopback"'
        self.sign_in: dict[str, str] = {}
        if host != HOST:
            auth = f'mode = "required"\nadmin_password = "{PASSWORD}"'
            self.sign_in = {"user": "admin", "password": PASSWORD}
        for n, (peer, client, route, monitor, rest) in enumerate(rows):
            name = f"n{n + 1}"
            config = folder / f"{name}.toml"
            config.write_text(
                f'[server]\ndata = "{folder / name}"\nhost = "{host}"\nport = {rest}\ngrpc_port = -1\n'
                f'[auth]\n{auth}\n[log]\nlevel = "warning"\n'
                f'[cluster]\nenabled = true\nnode_id = "{name}"\nzone = "z{n}"\njoin = {json.dumps(join)}\n'
                f'nats_nodes = {json.dumps(log)}\npeer_host = "{host}"\npeer_port = {peer}\nnats_client_port = {client}\n'
                f'nats_route_port = {route}\nnats_monitor_port = {monitor}\nsecret = "{SECRET}"\n'
            )
            self.all.append(Node(name, f"http://{host}:{rest}", config))

    def start(self, *nodes: Node) -> float:
        """Start these (all) at once; seconds until all have said that they serve."""
        began = time.perf_counter()
        chosen = nodes or tuple(self.all)
        for node in chosen:
            command = [sys.executable, "-m", "jadevectordb", "serve", "--config", str(node.config)]
            with (self.folder / f"{node.name}.log").open("a") as log:
                node.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        for node in chosen:
            assert node.process is not None and node.process.stdout is not None
            line = node.process.stdout.readline()
            if "ready" not in line:
                raise RuntimeError(
                    f"{node.name} did not start: {(self.folder / f'{node.name}.log').read_text()[-2000:]}"
                )
        return time.perf_counter() - began

    def kill(self, *nodes: Node) -> None:
        for node in nodes or self.all:
            os.kill(node.pid, signal.SIGKILL)
        for node in nodes or self.all:
            assert node.process is not None
            node.process.wait()

    def stop(self, *nodes: Node) -> None:
        chosen = nodes or tuple(self.all)
        for node in chosen:
            if node.process is not None and node.process.poll() is None:
                node.process.terminate()
        for node in chosen:
            if node.process is not None:
                node.process.wait()

    def client(self, node: Node | None = None) -> jade.Client:
        """Of this node (the first); a client knows the others' addresses from it, and begins with the one given."""
        return jade.Client((node or self.all[0]).rest, timeout=60, **self.sign_in)

    def status(self, node: Node | None = None) -> dict[str, object]:
        import urllib.request

        with urllib.request.urlopen((node or self.all[0]).rest + "/v1/cluster/status", timeout=5) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    def cpu_s(self, node: Node) -> tuple[float, float]:
        """(of the node's process, of its nats-server and builders), user and system."""
        own, rest = 0.0, 0.0
        for pid in tree(node.pid):
            used = cpu_of(pid)
            if pid == node.pid:
                own += used
            else:
                rest += used
        return own, rest


def tree(pid: int) -> list[int]:
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    except FileNotFoundError:
        pass
    return found


def cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS
