"""`jade cluster`: a cluster on this machine (up, down, kill, ...), and questions to any cluster over REST.

The cluster is named by --url or --profile, else $JADEVECTORDB_URL, else it is the one in the folder --data (./jade-cluster), if
there is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.local_cluster import NODES_MAX, SERVE_S, STOP_S, LocalCluster, LocalNode, tail
from jadevectordb.cli.output import TABLE, format_option, show_facts, show_plain, show_records
from jadevectordb.cli.places import connection_options, is_curl, names_server, open_client, timeout_given
from jadevectordb.client import Client
from jadevectordb.client.core import timeouts_of

_Function = TypeVar("_Function", bound=Callable[..., Any])
_FOLDER = "jade-cluster"
_DRAIN_LOOK_S = 0.5
_LOCAL_S = 20.0  # for a question to the cluster on this machine, retries included: a failover takes less
_data_option = click.option(
    "--data", metavar="DIR", default=_FOLDER, show_default=True, help="Folder of a cluster on this machine."
)


def _asks(function: _Function) -> _Function:
    """The options of every question over REST; the command gets `data` and `output`."""
    return connection_options()(_data_option(format_option(function)))


@contextmanager
def _client(data: str) -> Iterator[Client]:
    folder = Path(data)
    if not names_server() and (folder / "cluster.json").exists():
        local = LocalCluster.open(folder)
        if is_curl():
            raise click.UsageError("--curl shows a request to one server: name it with --url.")
        with local.client(timeouts=timeouts_of(timeout_given() or _LOCAL_S)) as client:
            yield client
    else:
        with open_client() as client:
            yield client


def _ask(data: str, method: str, path: str) -> Any:
    with _client(data) as client:
        return client.call(method, f"/v1/cluster/{path}")


def _segment(text: str) -> str:
    return quote(text, safe="")


@click.group()
def cluster() -> None:
    """A cluster: one on this machine, and questions to any.

    \b
    jade cluster up --nodes 3        three nodes, each a process with a folder of its own
    jade cluster status
    jade cluster kill 2              as a power cut; start 2 brings it back
    jade cluster shards --url http://db1:8080
    """


# On this machine


@cluster.command()
@click.option("--nodes", "count", type=click.IntRange(1, NODES_MAX), default=3, show_default=True)
@click.option(
    "--base-port",
    type=click.IntRange(1024, 65000),
    help="Node i uses ports from here + 10 i; else free ones are picked.",
)
@click.option("--auth", type=click.Choice(["open-loopback", "required"]), default="open-loopback", show_default=True)
@click.option(
    "--wait", "wait_s", type=float, default=SERVE_S, show_default=True, help="Seconds to wait until it serves."
)
@_data_option
def up(data: str, count: int, base_port: int | None, auth: str, wait_s: float) -> None:
    """Start a cluster on this machine, or what of it does not run, and wait until it serves."""
    folder = Path(data)
    explicit = click.get_current_context().get_parameter_source("count") is not click.core.ParameterSource.DEFAULT
    if (folder / "cluster.json").exists():
        local = LocalCluster.open(folder)
        if explicit and count != len(local.nodes):
            raise jade.JadeError(
                jade.ErrorCode.CONFLICT,
                f"The cluster in {folder} has {len(local.nodes)} nodes, not {count}: leave --nodes out, or name another --data; "
                "`jade cluster add` adds a node.",
            )
    else:
        local = LocalCluster.make(folder, count, base_port, auth)
    with local.changing():
        local.start(local.nodes, click.echo, wait_s)
    click.echo(f"The cluster serves: {','.join(node.url for node in local.nodes)}")
    if local.is_open:
        click.echo("Open mode: everyone on this machine acts as an admin. For development only.")
    else:
        click.echo(f"Sign in as admin with the password in {folder / 'admin-password'}: {local.admin_password}")


@cluster.command()
@click.option("--base-port", type=click.IntRange(1024, 65000), help="Its first port; else free ones are picked.")
@click.option(
    "--wait", "wait_s", type=float, default=SERVE_S, show_default=True, help="Seconds to wait until it serves."
)
@_data_option
def add(data: str, base_port: int | None, wait_s: float) -> None:
    """Start one more node, which gets its part of the shards."""
    local = LocalCluster.open(Path(data))
    with local.changing():
        local.start([local.add(base_port)], click.echo, wait_s)


@cluster.command()
@click.argument("names", nargs=-1, metavar="[NODE]...")
@click.option("--wait", "wait_s", type=float, default=STOP_S, show_default=True, help="Seconds for each node to stop.")
@_data_option
def down(data: str, names: tuple[str, ...], wait_s: float) -> None:
    """Stop the nodes one after the other, or those named; data stays. `up` and `start` bring them back."""
    local = LocalCluster.open(Path(data))
    with local.changing():
        local.stop([local.node(name) for name in names] or local.nodes, click.echo, wait_s)


@cluster.command()
@click.argument("name", metavar="NODE")
@_data_option
def kill(data: str, name: str) -> None:
    """Kill NODE (n2, or 2) and its nats-server, as kill -9 does: nothing is handed over."""
    local = LocalCluster.open(Path(data))
    with local.changing():
        node = local.node(name)
        killed = local.kill(node)
    if not killed:
        raise jade.JadeError(jade.ErrorCode.CONFLICT, f"{node.id} is not running.")
    click.echo(f"killed {node.id}: {', '.join(killed)}")


@cluster.command()
@click.argument("name", metavar="NODE")
@click.option(
    "--wait", "wait_s", type=float, default=SERVE_S, show_default=True, help="Seconds to wait until it serves."
)
@_data_option
def start(data: str, name: str, wait_s: float) -> None:
    """Start NODE again and wait until it serves."""
    local = LocalCluster.open(Path(data))
    with local.changing():
        node = local.node(name)
        if node.is_running:
            raise jade.JadeError(jade.ErrorCode.CONFLICT, f"{node.id} is running already (process {node.pid}).")
        local.start([node], click.echo, wait_s)


@cluster.command()
@click.argument("name", required=False, metavar="[NODE]")
@click.option("--lines", type=click.IntRange(1, 100_000), default=20, show_default=True)
@_data_option
def logs(data: str, name: str | None, lines: int) -> None:
    """Print the last lines that NODE logged, or every node."""
    local = LocalCluster.open(Path(data))
    for node in [local.node(name)] if name else local.nodes:
        for line in tail(local.log_of(node), lines):
            click.echo(line if name else f"{node.id} {line}")


# Any cluster


@cluster.command()
@_asks
def status(data: str, output: str) -> None:
    """How the cluster is, and its nodes. Exit code 1 unless it is HEALTHY."""
    local = _local_nodes(data)
    try:
        answer = _ask(data, "GET", "status")
    except jade.JadeError:
        if local is not None and output == TABLE:
            _show_nodes(output, [], local)
        raise
    if output != TABLE:
        show_plain(output, answer, answer["nodes"])
    else:
        facts = {name: value for name, value in answer.items() if name not in ("nodes", "reasons")}
        terminal.console().print(terminal.table(("", ""), [(name, str(value)) for name, value in facts.items()]))
        _show_nodes(output, answer["nodes"], local)
        for reason in answer["reasons"]:
            click.echo(reason)
    if answer["status"] != "HEALTHY":
        raise click.exceptions.Exit(1)


def _local_nodes(data: str) -> list[LocalNode] | None:
    if names_server() or not (Path(data) / "cluster.json").exists():
        return None
    return LocalCluster.open(Path(data)).nodes


_NODE = ("node_id", "role", "status", "health", "address", "shards", "cpu", "memory", "storage", "last_heartbeat")


def _show_nodes(output: str, found: list[dict[str, Any]], local: list[LocalNode] | None) -> None:
    """local: the processes, where they are on this machine: those that run are shown also when nobody answers."""
    if output != TABLE or local is None:
        show_records(output, found, _NODE, right=("shards",), nothing="No nodes.")
        return
    told = {node["node_id"]: node for node in found}
    rows = [
        {
            "node_id": node.id,
            "address": node.url.removeprefix("http://"),
            **told.get(node.id, {}),
            "process": _process(node),
        }
        for node in local
    ]
    show_records(output, rows, (*_NODE, "process"), right=("shards",))


def _process(node: LocalNode) -> str:
    return str(node.pid) if node.is_running else node.ended or ("died" if node.pid else "not started")


@cluster.command()
@_asks
def nodes(data: str, output: str) -> None:
    """List the nodes."""
    _show_nodes(output, _ask(data, "GET", "nodes")["nodes"], _local_nodes(data))


_SHARD = ("shard_id", "status", "primary_node", "replicas", "replica_nodes", "vector_count", "size_bytes")


@cluster.command()
@click.option("--database", help="Only of this one, by name or id.")
@_asks
def shards(data: str, database: str | None, output: str) -> None:
    """List the shards with their replicas."""
    path = f"shards?database_id={_segment(database)}" if database else "shards"
    found = _ask(data, "GET", path)["shards"]
    show_records(output, found, _SHARD, right=("replicas", "vector_count", "size_bytes"), nothing="No shards.")


@cluster.command("shard-status")
@click.argument("shard")
@_asks
def shard_status(data: str, shard: str, output: str) -> None:
    """One shard with each of its replicas. Exit code 1 when nobody serves it."""
    answer = _ask(data, "GET", f"shards/{_segment(shard)}")
    _show_with(output, answer, "placement")
    if answer["status"] == "UNAVAILABLE":
        raise click.exceptions.Exit(1)


@cluster.command("node-health")
@click.argument("node")
@_asks
def node_health(data: str, node: str, output: str) -> None:
    """The checks of one node. Exit code 1 unless it is HEALTHY."""
    answer = _ask(data, "GET", f"nodes/{_segment(node)}/health")
    facts = {name: value for name, value in answer.items() if name != "checks"}
    show_facts(output, answer if output != TABLE else {**facts, **answer["checks"]})
    if answer["status"] != "HEALTHY":
        raise click.exceptions.Exit(1)


@cluster.command()
@_asks
def diagnostics(data: str, output: str) -> None:
    """What is wrong, and what the master lately changed and why."""
    answer = _ask(data, "GET", "diagnostics")
    if output != TABLE:
        show_plain(output, answer, answer["shards"])
        return
    show_facts(output, {"status": answer["status"], **answer["replication"], "at": answer["timestamp"]})
    for error in answer["errors"] or ["Nothing is wrong."]:
        click.echo(error)
    for note in answer["notes"]:
        click.echo(f"Note: {note}")
    if answer["changes"]:
        show_records(output, answer["changes"], ("time", "term", "map_version", "reason"))
    else:
        click.echo(f"What was changed is known to the master, {answer['changes_known_by']}: ask it with --url.")


@cluster.command()
@_asks
def metrics(data: str, output: str) -> None:
    """Figures of the cluster."""
    answer = _ask(data, "GET", "metrics")
    if output != TABLE:
        show_plain(output, answer, [{name: value for name, value in answer.items() if name != "by_node"}])
        return
    latency = {f"latency_{name}_ms": value for name, value in answer["query_latency_ms"].items()}
    plain = {name: value for name, value in answer.items() if name not in ("query_latency_ms", "by_node")}
    show_facts(output, {**plain, **latency})


@cluster.command()
@_asks
def failover(data: str, output: str) -> None:
    """Have another node become the master, on purpose (admin)."""
    done = _ask(data, "POST", "failover")
    sentence = f"{done['new_master']} is the master now, after {done['old_master']} (term {done['term']}, {done['took_ms']:.0f} ms)"
    show_facts(output, done, sentence)


@cluster.command()
@click.argument("node")
@click.option(
    "--wait", "wait_s", type=float, default=0.0, help="Seconds to wait until it has no shards and is removed."
)
@_asks
def drain(data: str, node: str, wait_s: float, output: str) -> None:
    """Move all that NODE holds to others, then forget the node (admin). Without --wait it goes on by itself; ask again to see.

    What it waits for is said; `keep` takes the drain back. Exit code 1 when it can't go on, or is not done after --wait.
    """
    until_s, told, node = time.monotonic() + wait_s, "", _node_id(data, node)
    with _client(data) as client:
        while True:
            try:
                done = client.call("DELETE", f"/v1/cluster/nodes/{_segment(node)}")
            except jade.JadeError as error:
                if error.code is not jade.ErrorCode.NOT_FOUND or not told:
                    raise
                done = {
                    **done,
                    "status": "removed",
                    "shards_to_move": 0,
                    "moves": [],
                    "waits_for": "",
                }  # somebody else did
            if done["status"] == "removed" or time.monotonic() >= until_s:
                break
            if (progress := _progress(done)) != told:
                told = progress
                if output == TABLE:
                    click.echo(told)
            time.sleep(_DRAIN_LOOK_S)
    _note_removed(data, node, done)
    if output != TABLE:
        show_facts(output, done)
    else:
        for line in (_progress(done), *done["moves"], done["waits_for"], done["note"]):
            if line:
                click.echo(line)
    if done["waits_for"] or (wait_s and done["status"] != "removed"):
        raise click.exceptions.Exit(1)


def _node_id(data: str, name: str) -> str:
    """Of a node on this machine also by its number."""
    local = _local_nodes(data)
    return next((node.id for node in local or () if name in (node.id, node.id.removeprefix("n"))), name)


def _progress(done: dict[str, Any]) -> str:
    left = done["shards_to_move"]
    return f"{done['node_id']}: {done['status']}" + (f", {left} replicas to move" if left else "")


def _note_removed(data: str, node: str, done: dict[str, Any]) -> None:
    """Of a node on this machine: it runs on, and nobody waits for the others to see it."""
    if done["status"] == "removed" and _local_nodes(data) is not None:
        local = LocalCluster.open(Path(data))
        with local.changing():
            local.note_removed(node)


@cluster.command()
@click.argument("node")
@_asks
def keep(data: str, node: str, output: str) -> None:
    """Take the drain of NODE back, if it has not come to its end (admin)."""
    node = _node_id(data, node)
    with _client(data) as client:
        kept = client.call("POST", "/v1/cluster/nodes", body={"node_id": node, "address": "as it is"})
    show_facts(output, kept, f"{node} stays, with {kept['shards']} replicas")


@cluster.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--replication", type=click.IntRange(1, 7), help="Replicas of each shard; else as the cluster is set.")
@click.option("--shards", type=click.IntRange(1, 1024), help="Of each database; else as the cluster is set.")
@click.option("--no-progress", is_flag=True)
@_asks
def adopt(folder: Path, replication: int | None, shards: int | None, no_progress: bool, data: str, output: str) -> None:
    """Take the databases of a single node's FOLDER into the cluster; the folder is only read, and must not be in use.

    Each is filled, then compared vector by vector. When interrupted, the same command goes on where it was.
    """
    from jadevectordb.cli.cluster_adopt import adopt as adopted  # opens the engine, which other commands do without

    done = []
    with _client(data) as client:
        for one in adopted(folder, client, replication=replication, shards=shards, progress=not no_progress):
            done.append({"database": one.name, "vectors": one.vectors, "not_carried_over": "; ".join(one.left)})
    show_records(output, done, ["database", "vectors", "not_carried_over"])


def _show_with(output: str, answer: dict[str, Any], rows: str) -> None:
    """Facts, and below them the list that belongs to them."""
    if output != TABLE:
        show_plain(output, answer, answer[rows])
        return
    show_facts(output, {name: value for name, value in answer.items() if name != rows})
    if answer[rows]:
        show_records(output, answer[rows], list(answer[rows][0]))


COMMANDS = (cluster,)
