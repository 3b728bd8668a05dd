"""`jade cluster` commands that change a cluster, over REST: another master, nodes that leave or stay, moves, databases taken in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

import jadevectordb as jade
from jadevectordb.cli.cluster_asking import ask, asks, client_of, local_nodes, node_id, segment, wait_option
from jadevectordb.cli.local_cluster import LocalCluster
from jadevectordb.cli.output import TABLE, show_facts, show_records

_LOOK_S = 0.5


@click.command()
@asks
def failover(data: str, output: str) -> None:
    """Have another node become the master, on purpose (admin)."""
    done = ask(data, "POST", "failover")
    sentence = f"{done['new_master']} is the master now, after {done['old_master']} (term {done['term']}, {done['took_ms']:.0f} ms)"
    show_facts(output, done, sentence)


@click.command()
@click.argument("node")
@wait_option(0.0, "Seconds to wait until it has no shards and is removed.", show=False)
@asks
def drain(data: str, node: str, wait_s: float, output: str) -> None:
    """Move all that NODE holds to others, then forget the node (admin). Without --wait it goes on by itself; ask again to see.

    What it waits for is said; `keep` takes the drain back. Exit code 1 when it can't go on, or is not done after --wait.
    """
    until_s, told, node = time.monotonic() + wait_s, "", node_id(data, node)
    with client_of(data) as asked:
        while True:
            try:
                done = asked.call("DELETE", f"/v1/cluster/nodes/{segment(node)}")
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
            time.sleep(_LOOK_S)
    _note_removed(data, node, done)
    if output != TABLE:
        show_facts(output, done)
    else:
        for line in (_progress(done), *done["moves"], done["waits_for"], done["note"]):
            if line:
                click.echo(line)
    if done["waits_for"] or (wait_s and done["status"] != "removed"):
        raise click.exceptions.Exit(1)


def _progress(done: dict[str, Any]) -> str:
    left = done["shards_to_move"]
    return f"{done['node_id']}: {done['status']}" + (f", {left} replicas to move" if left else "")


def _note_removed(data: str, node: str, done: dict[str, Any]) -> None:
    """Of a node on this machine: it runs on, and nobody waits for the others to see it."""
    if done["status"] == "removed" and local_nodes(data) is not None:
        local = LocalCluster.open(Path(data))
        with local.changing():
            local.note_removed(node)


@click.command()
@click.argument("shard")
@click.option("--to", "target", required=True, metavar="NODE", help="Where it shall be.")
@click.option("--from", "source", metavar="NODE", default="", help="Whose replica moves; else the primary's.")
@wait_option(0.0, "Seconds to wait until the move is over.", show=False)
@asks
def migrate(data: str, shard: str, target: str, source: str, wait_s: float, output: str) -> None:
    """Move a replica of SHARD to another node (admin); it stays there. Without --wait `shard-status` shows how far it is."""
    until_s = time.monotonic() + wait_s
    body = {"target_node": node_id(data, target), "source_node": node_id(data, source)}
    with client_of(data) as asked:
        begun = asked.call("POST", f"/v1/cluster/shards/{segment(shard)}/migrate", body=body)
        is_begun = is_over = False  # who is asked hears of the map some moments later
        while not is_over and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
            now = asked.call("GET", f"/v1/cluster/shards/{segment(shard)}")
            is_begun = is_begun or begun["target_node"] in now["replica_nodes"].split(",")
            is_over = is_begun and now["migration"] is None
    source, target = begun["source_node"], begun["target_node"]
    if is_over and target not in now["replica_nodes"].split(","):
        raise jade.JadeError(
            jade.ErrorCode.CONFLICT,
            f"{shard} was not moved: {target} did not get ready. `jade cluster diagnostics` says why the master gave it up.",
        )
    show_facts(output, begun, f"{shard}: {'moved' if is_over else 'moves'} from {source} to {target}")
    if wait_s and not is_over:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("node")
@asks
def keep(data: str, node: str, output: str) -> None:
    """Take the drain of NODE back, if it has not come to its end (admin)."""
    node = node_id(data, node)
    with client_of(data) as asked:
        kept = asked.call("POST", "/v1/cluster/nodes", body={"node_id": node, "address": "as it is"})
    show_facts(output, kept, f"{node} stays, with {kept['shards']} replicas")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--replication", type=click.IntRange(1, 7), help="Replicas of each shard; else as the cluster is set.")
@click.option("--shards", type=click.IntRange(1, 1024), help="Of each database; else as the cluster is set.")
@click.option("--no-progress", is_flag=True, help="Don't show how far it is.")
@asks
def adopt(folder: Path, replication: int | None, shards: int | None, no_progress: bool, data: str, output: str) -> None:
    """Take the databases of a single node's FOLDER into the cluster; the folder is only read, and must not be in use.

    Each is filled, then compared vector by vector. When interrupted, the same command goes on where it was.
    """
    from jadevectordb.cli.cluster_adopt import adopt as adopted  # opens the engine, which other commands do without

    done = []
    with client_of(data) as asked:
        for one in adopted(folder, asked, replication=replication, shards=shards, progress=not no_progress):
            done.append({"database": one.name, "vectors": one.vectors, "not_carried_over": "; ".join(one.left)})
    show_records(output, done, ["database", "vectors", "not_carried_over"])


COMMANDS = (failover, drain, keep, migrate, adopt)
