"""`jade cluster`: a cluster on this machine (up, down, kill, ...), and questions to any cluster over REST.

The cluster is named by --url or --profile, or by --data; else by $JADEVECTORDB_URL, else it is the one in ./jade-cluster, if there is
one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import jadevectordb as jade
from jadevectordb.cli import cluster_changes, terminal
from jadevectordb.cli.cluster_asking import (
    ask,
    asks,
    client_of,
    data_option,
    local_nodes,
    node_id,
    segment,
    wait_option,
)
from jadevectordb.cli.local_cluster import NODES_MAX, SERVE_S, STOP_S, LocalCluster, LocalNode, tail
from jadevectordb.cli.output import TABLE, show_facts, show_plain, show_records


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
@wait_option(SERVE_S, "Seconds to wait until it serves.")
@data_option
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
@wait_option(SERVE_S, "Seconds to wait until it serves.")
@data_option
def add(data: str, base_port: int | None, wait_s: float) -> None:
    """Start one more node, which gets its part of the shards."""
    local = LocalCluster.open(Path(data))
    with local.changing():
        if not any(node.is_running for node in local.nodes):
            raise jade.JadeError(
                jade.ErrorCode.CONFLICT,
                f"No node of the cluster in {local.folder} is running, which a new one could join: `jade cluster up` first.",
            )
        local.start([local.add(base_port)], click.echo, wait_s)


@cluster.command()
@click.argument("names", nargs=-1, metavar="[NODE]...")
@wait_option(STOP_S, "Seconds for each node to stop.")
@data_option
def down(data: str, names: tuple[str, ...], wait_s: float) -> None:
    """Stop the nodes one after the other, or those named; data stays. `up` and `start` bring them back."""
    local = LocalCluster.open(Path(data))
    with local.changing():
        local.stop([local.node(name) for name in names] or local.nodes, click.echo, wait_s)


@cluster.command()
@click.argument("name", metavar="NODE")
@data_option
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
@wait_option(SERVE_S, "Seconds to wait until it serves.")
@data_option
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
@data_option
def logs(data: str, name: str | None, lines: int) -> None:
    """Print the last lines that NODE logged, or every node."""
    local = LocalCluster.open(Path(data))
    for node in [local.node(name)] if name else local.nodes:
        for line in tail(local.log_of(node), lines):
            click.echo(line if name else f"{node.id} {line}")


# Any cluster


@cluster.command()
@asks
def status(data: str, output: str) -> None:
    """How the cluster is, and its nodes. Exit code 1 unless it is HEALTHY."""
    local = local_nodes(data)
    try:
        answer = ask(data, "GET", "status")
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
@asks
def nodes(data: str, output: str) -> None:
    """List the nodes."""
    _show_nodes(output, ask(data, "GET", "nodes")["nodes"], local_nodes(data))


_SHARD = ("shard_id", "status", "primary_node", "replicas", "replica_nodes", "vector_count", "size_bytes")


@cluster.command()
@click.option("--database", help="Only of this one, by name or id.")
@asks
def shards(data: str, database: str | None, output: str) -> None:
    """List the shards with their replicas."""
    path = f"shards?database_id={segment(database)}" if database else "shards"
    found = ask(data, "GET", path)["shards"]
    if database and not found:
        raise jade.JadeError(
            jade.ErrorCode.UNKNOWN_DATABASE, f"There is no database {database!r:.80} here, or you may not see it."
        )
    show_records(output, found, _SHARD, right=("replicas", "vector_count", "size_bytes"), nothing="No shards.")


@cluster.command("shard-status")
@click.argument("shard")
@asks
def shard_status(data: str, shard: str, output: str) -> None:
    """One shard with each of its replicas. Exit code 1 when nobody serves it."""
    answer = ask(data, "GET", f"shards/{segment(shard)}")
    _show_with(output, answer, "placement")
    if answer["status"] == "UNAVAILABLE":
        raise click.exceptions.Exit(1)


@cluster.command("node-health")
@click.argument("node")
@asks
def node_health(data: str, node: str, output: str) -> None:
    """The checks of one node. Exit code 1 unless it is HEALTHY."""
    answer = ask(data, "GET", f"nodes/{segment(node_id(data, node))}/health")
    facts = {name: value for name, value in answer.items() if name != "checks"}
    show_facts(output, answer if output != TABLE else {**facts, **answer["checks"]})
    if answer["status"] != "HEALTHY":
        raise click.exceptions.Exit(1)


@cluster.command()
@asks
def diagnostics(data: str, output: str) -> None:
    """What is wrong, and what the master lately changed and why."""
    answer = ask(data, "GET", "diagnostics")
    if output != TABLE:
        show_plain(output, answer, answer["shards"])
        return
    show_facts(output, {"status": answer["status"], **answer["replication"], "at": answer["timestamp"]})
    for error in answer["errors"] or ["Nothing is wrong."]:
        click.echo(error)
    for note in answer["notes"]:
        click.echo(f"Note: {note}")
    show_records(
        output, answer["changes"], ("time", "term", "map_version", "reason"), nothing="Nothing was changed yet."
    )


@cluster.command()
@asks
def metrics(data: str, output: str) -> None:
    """Figures of the cluster."""
    answer = ask(data, "GET", "metrics")
    if output != TABLE:
        show_plain(output, answer, [{name: value for name, value in answer.items() if name != "by_node"}])
        return
    latency = {f"latency_{name}_ms": value for name, value in answer["query_latency_ms"].items()}
    plain = {name: value for name, value in answer.items() if name not in ("query_latency_ms", "by_node")}
    show_facts(output, {**plain, **latency})


@cluster.command()
@click.argument("database")
@asks
def conflicts(database: str, data: str, output: str) -> None:
    """Writes of DATABASE at EVENTUAL that met another one of the same vector they had not seen, newest first, and which one counts."""
    with client_of(data) as client:
        answer = client.call("GET", f"/v2/databases/{segment(database)}/conflicts")
    if output != TABLE:
        show_plain(output, answer, answer["conflicts"])
        return
    show_facts(output, {"conflicts found": answer["found"], "superseded": answer["superseded"]})
    if answer["conflicts"]:
        rows = [{**one, "late": _side(one["late"]), "stood": _side(one["stood"])} for one in answer["conflicts"]]
        show_records(output, rows, ["id", "shard", "concurrent", "winner", "late", "stood", "found_at"])


def _side(one: dict[str, Any]) -> str:
    """One of the two writes: by which node, when, and its place in the log."""
    who = f"{one['node']} {one['time']}" if one["time"] else "long before"
    return f"{who} #{one['sequence']}{' deletes' if one['deletes'] else ''}"


def _show_with(output: str, answer: dict[str, Any], rows: str) -> None:
    """Facts, and below them the list that belongs to them."""
    if output != TABLE:
        show_plain(output, answer, answer[rows])
        return
    show_facts(output, {name: value for name, value in answer.items() if name != rows})
    if answer[rows]:
        show_records(output, answer[rows], list(answer[rows][0]))


for _command in cluster_changes.COMMANDS:
    cluster.add_command(_command)
COMMANDS = (cluster,)
