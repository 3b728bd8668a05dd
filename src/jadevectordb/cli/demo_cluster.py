"""`jade cluster demo`: three nodes, real data, a node killed in the middle of it, and a look at what is left."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import jadevectordb as jade
from jadevectordb.cli import demo_data
from jadevectordb.cli.cluster_digests import DigestReader, equal
from jadevectordb.cli.demo_show import Show
from jadevectordb.cli.local_cluster import LocalCluster, LocalNode

if TYPE_CHECKING:
    from jadevectordb.client.sync import Client, Database

NODES, SHARDS = 3, 4
_BATCH = 1000
_WARM_S, _AFTER_S = 2.0, 6.0
_HEAL_S_MAX = 60.0
_SCHEMA = {"pos": "string", "topic": "string", "gloss_length": "integer"}


def run(data: Path | None, keep: bool) -> bool:
    """Whether every promise was kept."""
    words, show = demo_data.load(data), Show()
    show.title(
        f"JadeVectorDB {jade.__version__}, a cluster",
        "Three nodes on this machine, each its own processes and folder. Everything you see is measured now.",
    )
    with _cluster(keep) as local:
        _begin(show, local)
        with local.client() as client:
            database = client.create_database("wordnet", words.vectors.shape[1], schema=_SCHEMA, shards=SHARDS)
            _load(show, database, words)
            _search(show, database, words)
            kept, victim = _kill(show, local, client, database, words)
            return _return(show, local, client, database, victim) and kept


@contextmanager
def _cluster(keep: bool) -> Iterator[LocalCluster]:
    folder = Path(tempfile.mkdtemp(prefix="jade-cluster-"))
    local = LocalCluster.make(folder / "cluster", NODES, None, "open-loopback")
    try:
        yield local
    finally:
        local.stop(local.nodes, lambda _: None)
        if keep:
            click.echo(f"Kept in {local.folder}: jade cluster up --data {local.folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _begin(show: Show, local: LocalCluster) -> None:
    show.act(
        "Start three nodes",
        "Each starts a server of the replicated log beside it; they find each other, elect a master, and serve.",
    )
    began = time.perf_counter()
    with show.busy("starting"):
        local.start(local.nodes, lambda _: None)
    show.facts([("all three serve", f"{time.perf_counter() - began:.1f} s"), *((n.id, n.url) for n in local.nodes)])


def _load(show: Show, database: Database, words: demo_data.WordNet) -> None:
    n = len(words.ids)
    show.act(
        f"Load {n:,} definitions into {SHARDS} shards, three replicas each",
        "A batch is acknowledged when its log entries are on the disks of a majority and a replica has applied them.",
    )
    began = time.perf_counter()
    with show.bar("writing", n) as done:
        for at in range(0, n, _BATCH):
            part = slice(at, at + _BATCH)
            database.upsert(words.ids[part], words.vectors[part], words.metadata[part])
            done(min(at + _BATCH, n))
    seconds = time.perf_counter() - began
    show.facts([("written, durable on a majority", f"{seconds:.1f} s   {n / seconds:,.0f} vectors/s of 384 values")])


def _search(show: Show, database: Database, words: demo_data.WordNet) -> None:
    show.act("Search", "Any node answers, from all shards, wherever they are.")
    at = words.query(words.query_metadata[0]["words"])
    began = time.perf_counter()
    hits = database.search(words.queries[at], k=3)
    took_ms = (time.perf_counter() - began) * 1e3
    show.say(f"most like the definition of {words.query_metadata[at]['words']!r}, {took_ms:.1f} ms:")
    rows = [[f"{hit.score:.3f}", str(hit.metadata["words"]), str(hit.metadata["gloss"])] for hit in hits]
    show.table(["score", "words", "definition"], rows, ["score"])


@dataclass
class _Traffic:
    """What a writer and a reader saw. acked: (when, id) of each acknowledged write."""

    stop: threading.Event = field(default_factory=threading.Event)
    acked: list[tuple[float, str]] = field(default_factory=list)
    reads_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def write(self, local: LocalCluster, words: demo_data.WordNet) -> None:
        with local.client() as client:
            database = client.database("wordnet")
            for number in itertools.count():
                if self.stop.is_set():
                    return
                name, row = f"written-{number}", words.vectors[number % len(words.vectors)]
                try:
                    database.upsert([name], row[None, :], [{"number": number}])
                    self.acked.append((time.perf_counter(), name))
                except jade.JadeError as error:
                    self.errors.append(f"a write: {error}")

    def read(self, local: LocalCluster, words: demo_data.WordNet) -> None:
        with local.client() as client:
            database = client.database("wordnet")
            for query in itertools.cycle(words.queries):
                if self.stop.is_set():
                    return
                began = time.perf_counter()
                try:
                    database.search(query, k=10)
                    self.reads_s.append(time.perf_counter() - began)
                except jade.JadeError as error:
                    self.errors.append(f"a search: {error}")


def _kill(
    show: Show, local: LocalCluster, client: Client, database: Database, words: demo_data.WordNet
) -> tuple[bool, LocalNode]:
    victim = local.node(_status(client)["master_node"])
    show.act(
        "Kill the master in the middle of writing and searching",
        f"One client writes, one searches, as fast as they can. {victim.id} is the master: it and its log server are ended by kill -9.",
    )
    traffic = _Traffic()
    threads = [threading.Thread(target=work, args=(local, words)) for work in (traffic.write, traffic.read)]
    for thread in threads:
        thread.start()
    try:
        with show.busy("writing and searching; killing; waiting for a new master"):
            time.sleep(_WARM_S)
            before = len(traffic.acked)
            killed = time.perf_counter()
            local.kill(victim)
            master = _new_master(client, victim)
            took_s = time.perf_counter() - killed
            time.sleep(_AFTER_S)
    finally:
        traffic.stop.set()
        for thread in threads:
            thread.join()
    lost = _missing(database, [name for _, name in traffic.acked])
    pause_s = max((b[0] - a[0] for a, b in pairwise(traffic.acked)), default=float("inf"))
    reads = sorted(traffic.reads_s)
    show.facts(
        [
            ("writes acknowledged", f"{before:,} before the kill, {len(traffic.acked) - before:,} after it"),
            ("longest pause of writes", f"{pause_s:.2f} s"),
            ("searches", f"{len(reads):,}, slowest {reads[-1] * 1e3:.0f} ms" if reads else "none"),
            ("a new master", f"{master} after {took_s:.1f} s" if master else "none in time"),
        ]
    )
    show.verdict(
        not lost, f"all {len(traffic.acked):,} acknowledged writes are there" if not lost else f"lost: {lost[:5]}"
    )
    show.verdict(not traffic.errors, traffic.errors[0] if traffic.errors else "no client saw an error")
    show.verdict(bool(master), "the master was replaced")
    return not lost and not traffic.errors and bool(master), victim


def _return(show: Show, local: LocalCluster, client: Client, database: Database, victim: LocalNode) -> bool:
    show.act("The node returns", "It opens what it has, catches up from the log, and serves again.")
    began = time.perf_counter()
    status = _status(client)
    with show.busy(f"starting {victim.id}"):
        local.start([victim], lambda _: None)
        serving_s = time.perf_counter() - began
        peers = {node.id: f"127.0.0.1:{node.ports[2]}" for node in local.nodes}
        placed = client.call("GET", "/v1/cluster/shards")["shards"]
        database_id = next(str(shard["database_id"]) for shard in placed)
        with DigestReader(str(status["cluster_id"]), local.folder / "secret", peers) as reader:
            found = reader.settled(database_id, SHARDS, NODES, _HEAL_S_MAX)
    whole_s = time.perf_counter() - began
    same = len(found) == SHARDS * NODES and equal(found)
    show.facts([(f"{victim.id} serves again", f"{serving_s:.1f} s"), ("it has caught up", f"{whole_s:.1f} s")])
    show.table(
        ["shard", "vectors", "log entries", "fingerprints of its three replicas"],
        [
            [str(n), f"{mine[0].rows:,}", str(mine[0].watermark), " ".join(sorted({one.digest[:16] for one in mine}))]
            for n in range(SHARDS)
            if (mine := [one for one in found if one.shard == n])
        ],
        ["shard", "vectors", "log entries"],
    )
    show.verdict(
        same, f"all {len(found)} replicas are equal, by a fingerprint of every vector" if same else "replicas differ"
    )
    show.say("Your own: jade cluster up --nodes 3; docs/cluster.md", style="dim")
    return same


def _status(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.call("GET", "/v1/cluster/status")
    return found


def _new_master(client: Client, old: LocalNode) -> str:
    until = time.perf_counter() + 30
    while time.perf_counter() < until:
        try:
            name = str(_status(client)["master_node"])
        except jade.JadeError:
            name = ""
        if name not in ("", "none", old.id):
            return name
        time.sleep(0.05)
    return ""


def _missing(database: Database, names: list[str]) -> list[str]:
    """At STRONG: others wrote them, and this client's session knows nothing of that."""
    lost = []
    for at in range(0, len(names), _BATCH):
        part = names[at : at + _BATCH]
        there = database.exists(part, consistency="strong")
        lost += [name for name, is_there in zip(part, there, strict=True) if not is_there]
    return lost
