"""A cluster on one machine: each node a process of its own, with a folder, a settings file and ports that it keeps.

DIR/cluster.json        the nodes: ports, process ids; readable by its user only, as the next two
DIR/secret              what nodes know each other by
DIR/admin-password      where sign-in is required
DIR/n1/node.toml        the settings; `jade serve --config DIR/n1/node.toml` starts the node by hand
DIR/n1/data, node.log   its data, and what it logs; node.out has what it printed otherwise
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import msgspec

import jadevectordb as jade
from jadevectordb.adapters.os_disk import FolderLock
from jadevectordb.cli import node_process
from jadevectordb.client import Client, Retries, Timeouts

NODES_MAX = 9
PORTS_A_NODE = 6
_STRIDE = 10  # between the first ports of two nodes, with --base-port
_FILE, _SECRET, _PASSWORD = "cluster.json", "secret", "admin-password"
_HOST = "127.0.0.1"
_READY_LOOK_S = 0.1
_PROBE_S = 10.0  # for one answer; who gives up sooner has a busy node check the password again and again
_TAIL_LINES = 15
_PORT_MIN, _PORT_EPHEMERAL = 10_000, 32_768  # the first that Linux gives to outgoing connections; others begin later
_PORT_TRIES = 100
STOP_S = 30.0
SERVE_S = 120.0
Say = Callable[[str], None]


class LocalNode(msgspec.Struct):
    """ports: REST, gRPC, peers, nats for clients, nats for routes, nats monitoring. ended: how a command ended it last, if one did.

    removed: it was drained while it ran, and is no part of the cluster until it is started anew.
    """

    id: str
    ports: tuple[int, int, int, int, int, int]
    pid: int = 0
    started: str = ""
    ended: str = ""
    removed: bool = False

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.ports[0]}"

    @property
    def is_running(self) -> bool:
        return node_process.runs(self.pid, self.started)


class _Record(msgspec.Struct):
    name: str
    auth: str
    nodes: list[LocalNode]


class LocalCluster:
    """What is in the folder. Changes are written at once; one command at a time changes it (`changing`)."""

    def __init__(self, folder: Path, record: _Record) -> None:
        self.folder = folder
        self._record = record
        self._printed: dict[str, int] = {}  # bytes in a node's node.out when this command started it

    @classmethod
    def open(cls, folder: Path) -> LocalCluster:
        """Raises NOT_FOUND, CORRUPT."""
        path = folder / _FILE
        try:
            return cls(folder, msgspec.json.decode(path.read_bytes(), type=_Record))
        except FileNotFoundError:
            raise jade.JadeError(
                jade.ErrorCode.NOT_FOUND,
                f"There is no cluster in {folder}: make one with `jade cluster up --data {folder}`, or name another with --data.",
            ) from None
        except OSError as error:
            raise jade.JadeError(jade.ErrorCode.IO_ERROR, f"{path} can't be read ({error.strerror}).") from None
        except msgspec.MsgspecError as error:
            raise jade.JadeError(
                jade.ErrorCode.CORRUPT, f"{path} is not what `jade cluster up` wrote ({error})."
            ) from None

    @classmethod
    def make(cls, folder: Path, count: int, base_port: int | None, auth: str) -> LocalCluster:
        """Folder, ports and settings; nothing runs yet."""
        if any(folder.glob("*")) if folder.is_dir() else folder.exists():
            raise jade.JadeError(
                jade.ErrorCode.CONFLICT,
                f"{folder} is there already and is no cluster's folder: name another with --data.",
            )
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise jade.JadeError(jade.ErrorCode.IO_ERROR, f"{folder} can't be made ({error.strerror}).") from None
        ports = _ports_from(base_port, count) if base_port else _free_blocks(count)
        nodes = [LocalNode(f"n{number}", ports[number - 1]) for number in range(1, count + 1)]
        cluster = cls(folder, _Record(f"local-{secrets.token_hex(4)}", auth, nodes))
        _write(folder / _SECRET, secrets.token_hex(32) + "\n")
        if auth == "required":
            _write(folder / _PASSWORD, secrets.token_urlsafe(12) + "\n")
        # Two can't outvote each other, and more than five make writing slower without making it safer
        keepers = [_keeper(node) for node in nodes[: 1 if count < 3 else 3 if count < 5 else 5]]
        for node in nodes:
            cluster._write_settings(node, keepers)
        cluster._save()
        return cluster

    def add(self, base_port: int | None) -> LocalNode:
        """One more node: folder, ports and settings. It holds shards; who keeps the log stays as it is. Raises CONFLICT."""
        if len(self.nodes) >= NODES_MAX:
            raise jade.JadeError(jade.ErrorCode.CONFLICT, f"{NODES_MAX} nodes are as many as a cluster here can have.")
        taken = {int(node.id.removeprefix("n")) for node in self.nodes}
        ports = _ports_from(base_port, 1) if base_port else _free_blocks(1)
        node = LocalNode(f"n{max(taken) + 1}", ports[0])
        keepers = self._keepers()
        self.nodes.append(node)
        self._write_settings(node, keepers)
        self._save()
        return node

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Raises LOCKED when another command is starting or stopping nodes."""
        try:
            lock = FolderLock(self.folder / "LOCK")
        except jade.JadeError as error:
            if error.code is not jade.ErrorCode.LOCKED:
                raise
            raise jade.JadeError(
                jade.ErrorCode.LOCKED, f"Another command is starting or stopping nodes of {self.folder}: wait for it."
            ) from None
        with closing(lock):
            self._record = LocalCluster.open(self.folder)._record
            yield

    @property
    def nodes(self) -> list[LocalNode]:
        return self._record.nodes

    @property
    def is_open(self) -> bool:
        return self._record.auth != "required"

    @property
    def admin_password(self) -> str:
        return "" if self.is_open else (self.folder / _PASSWORD).read_text().strip()

    def node(self, name: str) -> LocalNode:
        """By its id, or its number. Raises NOT_FOUND."""
        for node in self.nodes:
            if name in (node.id, node.id.removeprefix("n")):
                return node
        known = ", ".join(node.id for node in self.nodes)
        raise jade.JadeError(
            jade.ErrorCode.NOT_FOUND, f"There is no node {name!r:.40} in {self.folder} (there are: {known})."
        )

    def data_of(self, node: LocalNode) -> Path:
        return self.folder / node.id / "data"

    def log_of(self, node: LocalNode) -> Path:
        return self.folder / node.id / "node.log"

    def client(self, *nodes: LocalNode, timeouts: Timeouts | None = None, retries: Retries | None = None) -> Client:
        """Of these nodes, or of all."""
        urls = [node.url for node in nodes or self.nodes]
        if self.is_open:
            return Client(urls, timeout=timeouts, retries=retries)
        return Client(urls, user="admin", password=self.admin_password, timeout=timeouts, retries=retries)

    # Processes

    def start(self, nodes: list[LocalNode], say: Say, wait_s: float = SERVE_S) -> None:
        """Start those that don't run and wait until each serves, with a master and all that run. Raises UNAVAILABLE."""
        began_s = time.monotonic()
        processes = {node.id: self._spawn(node) for node in nodes if not node.is_running}
        try:
            self._wait_serving([node for node in self.nodes if node.is_running], processes, began_s + wait_s)
        except KeyboardInterrupt:
            say("What was started goes on: `jade cluster status` shows it, `jade cluster down` stops it.")
            raise
        finally:
            for process in processes.values():
                if process.returncode is None:
                    node_process.release(process)
        for node in nodes:
            if node.id in processes:
                say(f"{node.id} serves at {node.url} (process {node.pid}, {time.monotonic() - began_s:.1f} s)")

    def _spawn(self, node: LocalNode) -> subprocess.Popen[bytes]:
        config = self.folder / node.id / "node.toml"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JADEVECTORDB_")}
        command = [sys.executable, "-m", "jadevectordb", "serve", "--config", str(config.absolute())]
        printed = self.folder / node.id / "node.out"
        self._printed[node.id] = printed.stat().st_size if printed.exists() else 0
        process = node_process.start(command, environment, printed)
        node.pid, node.started, node.ended = process.pid, node_process.started_at(process.pid), ""
        node.removed = False
        self._save()
        return process

    def _wait_serving(
        self, expected: list[LocalNode], processes: dict[str, subprocess.Popen[bytes]], until_s: float
    ) -> None:
        # One that was drained runs on, seen by nobody, until it is stopped
        names = {node.id for node in expected if node.id in processes or not node.removed}
        with ExitStack() as stack:
            quick = Timeouts(_PROBE_S, _PROBE_S, _PROBE_S)
            clients = {
                node.id: stack.enter_context(self.client(node, timeouts=quick, retries=Retries(attempts_max=1)))
                for node in expected
            }
            waiting, why = sorted(names), "it does not answer yet"
            while waiting:
                for node in expected:
                    process = processes.get(node.id)
                    if process is not None and process.poll() is not None:
                        raise self._ended(node, process.returncode)
                why = _not_serving(clients[waiting[0]], names)
                if not why:
                    waiting.pop(0)
                elif time.monotonic() > until_s:
                    raise jade.JadeError(
                        jade.ErrorCode.UNAVAILABLE,
                        f"{waiting[0]} does not serve yet: {why.rstrip('.?')}. It was left running: ask `jade cluster status`, or "
                        f"stop it with `down`. Its log is {self.log_of(self.node(waiting[0]))}.",
                    )
                else:
                    time.sleep(_READY_LOOK_S)

    def _ended(self, node: LocalNode, code: int) -> jade.JadeError:
        """code: as Popen has it, of a signal negative. What it printed in an earlier life is not shown as its last words."""
        printed = self.folder / node.id / "node.out"
        told = tail(printed, _TAIL_LINES, printed.stat().st_size - self._printed[node.id])
        said = "\n".join(told or tail(self.log_of(node), _TAIL_LINES))
        how = f"with code {code}" if code >= 0 else f"by signal {-code}"
        return jade.JadeError(jade.ErrorCode.UNAVAILABLE, f"{node.id} ended {how} instead of serving. It said:\n{said}")

    def stop(self, nodes: list[LocalNode], say: Say, wait_s: float = STOP_S) -> None:
        """Planned: each hands over, finishes requests, closes files. One after the other, and those without whom nothing can be
        decided any more together, so that none waits for the rest.
        """
        running = [node for node in nodes if node.is_running]
        for node in nodes:
            if node not in running:
                say(f"{node.id} was not running")
        left = sum(node.is_running for node in self.nodes)
        while running:
            alone = left - 1 > len(self.nodes) // 2
            now, running = (running[:1], running[1:]) if alone else (running, [])
            self._stop_together(now, say, wait_s)
            left -= len(now)

    def _stop_together(self, nodes: list[LocalNode], say: Say, wait_s: float) -> None:
        began_s = time.monotonic()
        for node in nodes:
            node_process.signal_it(node.pid, node.started, signal.SIGTERM)
        for node in nodes:
            if node_process.gone(node.pid, node.started, wait_s - (time.monotonic() - began_s)):
                say(f"{node.id} stopped ({time.monotonic() - began_s:.1f} s)")
            else:
                self._kill_both(node)
                say(f"{node.id} did not stop within {wait_s:g} s and was killed; nothing acknowledged is lost by that")
            self._note_end(node, "stopped")

    def kill(self, node: LocalNode) -> list[str]:
        """As a power cut of its machine: SIGKILL for the node and its nats-server. What was killed."""
        killed = self._kill_both(node)
        if killed:
            self._note_end(node, "killed")
        return killed

    def _kill_both(self, node: LocalNode) -> list[str]:
        nats = node_process.nats_server_of(self.data_of(node))  # before: it would begin to end with its parent
        parts = (("node", node.pid, node.started), ("nats-server", *nats))
        killed = [
            f"{what} (process {pid})"
            for what, pid, started in parts
            if node_process.signal_it(pid, started, signal.SIGKILL)
        ]
        for _, pid, started in parts:
            node_process.gone(pid, started, STOP_S)
        return killed

    def note_removed(self, name: str) -> None:
        """A drain of it came to its end."""
        for node in self.nodes:
            if node.id == name:
                node.removed = True
        self._save()

    def _note_end(self, node: LocalNode, how: str) -> None:
        node.pid, node.started, node.ended = 0, "", how
        self._save()

    # Files

    def _save(self) -> None:
        _write(self.folder / _FILE, msgspec.json.format(msgspec.json.encode(self._record), indent=1).decode() + "\n")

    def _keepers(self) -> list[str]:
        """As the first node was told, for nodes that come later."""
        settings = tomllib.loads((self.folder / self.nodes[0].id / "node.toml").read_text())
        return [str(text) for text in settings["cluster"]["nats_nodes"]]

    def _write_settings(self, node: LocalNode, keepers: list[str]) -> None:
        """keepers: HOST:CLIENT_PORT:ROUTE_PORT of the nodes that keep the log."""
        rest, grpc, peer, client, route, monitor = node.ports
        sections: dict[str, dict[str, object]] = {
            "server": {"host": _HOST, "port": rest, "grpc_port": grpc, "data": str(self.data_of(node).absolute())},
            "auth": {"mode": self._record.auth},
            "log": {"file": str(self.log_of(node).absolute()), "format": "text"},
            "cluster": {
                "enabled": True,
                "node_id": node.id,
                "name": self._record.name,
                "join": [f"{_HOST}:{other.ports[2]}" for other in self.nodes],
                "peer_host": _HOST,
                "peer_port": peer,
                "nats_client_port": client,
                "nats_route_port": route,
                "nats_monitor_port": monitor,
                "nats_nodes": keepers,
                "secret_file": str((self.folder / _SECRET).absolute()),
                "replication": min(3, len(self.nodes)),
            },
        }
        if not self.is_open and node is self.nodes[0]:
            sections["auth"]["admin_password"] = self.admin_password
        (self.folder / node.id).mkdir(mode=0o700, exist_ok=True)
        lines = []
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in values.items()), ""]
        _write(self.folder / node.id / "node.toml", "\n".join(lines))


def _keeper(node: LocalNode) -> str:
    return f"{_HOST}:{node.ports[3]}:{node.ports[4]}"


def _not_serving(client: Client, names: set[str]) -> str:
    """Why the node does not serve yet, "" when it does: it answers, has a master, and sees all that are to be seen."""
    try:
        status = client.call("GET", "/v1/cluster/status")
    except jade.JadeError as error:
        return error.message
    alive = {node["node_id"] for node in status["nodes"] if node["status"] != "inactive"}
    if not names <= alive:
        return f"it does not see {', '.join(sorted(names - alive))} yet"
    return "" if status["master_node"] in alive else "it knows no master yet"


def _toml(value: object) -> str:
    """Booleans, numbers, texts and lists of texts are written in TOML as in JSON."""
    return json.dumps(value, ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    """Readable by its user only, replaced as a whole."""
    beside = path.with_name(f"{path.name}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
    beside.replace(path)


def _ports_from(base_port: int, count: int) -> list[tuple[int, int, int, int, int, int]]:
    """Six of every ten from there on. Raises CONFLICT when one is taken."""
    blocks = []
    for first in range(base_port, base_port + _STRIDE * count, _STRIDE):
        for port in range(first, first + PORTS_A_NODE):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((_HOST, port))
                except OSError as error:
                    raise jade.JadeError(
                        jade.ErrorCode.CONFLICT,
                        f"Port {port} can't be used ({error.strerror}): choose another --base-port, or leave it out.",
                    ) from None
        blocks.append((first, first + 1, first + 2, first + 3, first + 4, first + 5))
    return blocks


def bind_below_ephemeral(probe: socket.socket, host: str = _HOST) -> int:
    """Bind it to a free port that stays free while nobody listens on it, as far as that goes: not one of those that systems give to
    outgoing connections, which would keep a node from starting that has been away for a while.
    """
    for _ in range(_PORT_TRIES):
        with suppress(OSError):
            probe.bind((host, _PORT_MIN + secrets.randbelow(_PORT_EPHEMERAL - _PORT_MIN)))
            return int(probe.getsockname()[1])
    probe.bind((host, 0))
    return int(probe.getsockname()[1])


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now, all different."""
    with ExitStack() as stack:
        return [bind_below_ephemeral(stack.enter_context(socket.socket())) for _ in range(count)]


def _free_blocks(count: int) -> list[tuple[int, int, int, int, int, int]]:
    found, blocks = free_ports(PORTS_A_NODE * count), []
    for at in range(0, len(found), PORTS_A_NODE):
        a, b, c, d, e, f = found[at : at + PORTS_A_NODE]
        blocks.append((a, b, c, d, e, f))
    return blocks


def tail(path: Path, lines: int, bytes_max: int = 1 << 20) -> list[str]:
    """The last lines of a file; none when there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - bytes_max))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
