"""What a cluster of three nodes does on this machine, all nodes and clients sharing its cores.

    .venv/bin/python bench/cluster.py [--rows 200000] [--only writes,search,...]

start      seconds from nothing to serving
writes     QUORUM writes in batches of 1000 x 128, three replicas: vectors/s, CPU per vector and node
eventual   lag of EVENTUAL writes while that load goes on, while 10,000 vectors/s are themselves written at EVENTUAL, and while four
           clients write one vector after the other: until a majority has them on disk (the nodes' own histogram), and until they are
           read on every node
search     over 4 shards through a node that holds replicas: latency, CPU by node
gateway    4 shards on 3 nodes through a node that holds none: its CPU a search is what a gateway costs; 1 and 4 clients
workers    searches that ask 1, 2, 3 and 5 workers at the same data each: CPU a question and worker
vectorsharding  by vector against by hash: shards visited, recall, CPU of searches and writes (`vector_sharding`)
million    1,000,000 x 128 in 4 shards: latency through a gateway over a network interface, recall
failover   a new master after kill -9; longest gap of writes and reads; the same for a planned stop
restart    kill -9 of all nodes, seconds until they serve, everything acknowledged there
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import jadevectordb as jade
import vector_sharding
from cluster_load import WIDTH, load, rows_and_queries, rows_of
from cluster_nodes import Node, Nodes
from cluster_searches import measure_gateway, measure_million, measure_search, measure_workers


def measure_writes(nodes: Nodes, count: int) -> None:
    rows = rows_of(count)
    with nodes.client() as client:
        client.create_database("writes", dimension=WIDTH, shards=4)
    before = [nodes.cpu_s(node) for node in nodes.all]
    mine = time.process_time()
    seconds = load(nodes, "writes", rows)
    after = [nodes.cpu_s(node) for node in nodes.all]
    print(f"QUORUM writes, batches of 1000 x {WIDTH}, 4 shards x 3 replicas: {count / seconds:,.0f} vectors/s")
    for node, (own, rest), (own_after, rest_after) in zip(nodes.all, before, after, strict=True):
        print(
            f"  {node.name}: {(own_after - own) / count * 1e6:.1f} us CPU a vector in the node, "
            f"{(rest_after - rest) / count * 1e6:.1f} in its nats-server and builders"
        )
    print(f"  clients: {(time.process_time() - mine) / count * 1e6:.1f} us CPU a vector")


def measure_eventual(nodes: Nodes, count: int) -> None:
    rows = rows_of(count)
    # As fast as they can, writers of batches at EVENTUAL only fill the outbox: its lag is then that of a backlog
    cases = (
        ("quorum", "at QUORUM", {}),
        ("eventual", "at EVENTUAL", {"consistency": "eventual", "per_s": 10_000}),
        ("singles", "at EVENTUAL, one a request", {"consistency": "eventual", "batch": 1, "writers": 4}),
    )
    for case, how, options in cases:
        name = f"lag-{case}"
        some = rows[: count // 10] if case == "singles" else rows
        with nodes.client() as client:
            client.create_database(name, dimension=WIDTH, shards=4)
        before, stop, seen_s = lag_counts(nodes), threading.Event(), []
        prober = threading.Thread(target=probe, args=(nodes, name, stop, seen_s))
        prober.start()
        seconds = load(nodes, name, some, **options)
        stop.set()
        prober.join()
        until_empty = time.perf_counter()
        while waiting_entries(nodes):
            time.sleep(0.05)
        behind = time.perf_counter() - until_empty
        lags = {bound: after - before.get(bound, 0.0) for bound, after in lag_counts(nodes).items()}
        p50, p99 = (bound_of(lags, share) for share in (0.5, 0.99))
        seen_s.sort()
        shown = ", ".join(f"p{share} {seen_s[int(len(seen_s) * share / 100)] * 1e3:.0f} ms" for share in (50, 95, 99))
        print(f"EVENTUAL writes while {len(some) / seconds:,.0f} vectors/s are written {how}:")
        print(
            f"  on a majority's disks: p50 <= {p50 * 1e3:g} ms, p99 <= {p99 * 1e3:g} ms of {lags[float('inf')]:.0f} entries; "
            f"outboxes empty {behind:.2f} s after the last answer"
        )
        print(f"  read on all three nodes: {shown}, longest {seen_s[-1] * 1e3:.0f} ms of {len(seen_s)} probes")


def probe(nodes: Nodes, name: str, stop: threading.Event, seen_s: list[float]) -> None:
    """Writes a vector at EVENTUAL through one node after the other, and looks for it on all of them until it is there."""
    row = rows_of(8)[:1]
    with ExitStack() as stack:
        databases = [stack.enter_context(jade.Client(node.rest, timeout=60)).database(name) for node in nodes.all]
        number = 0
        while not stop.is_set():
            probed = f"probe{number}"
            databases[number % len(databases)].upsert([probed], row, consistency="eventual")
            began = time.perf_counter()
            for database in databases:
                while database.get(probed, include=()) is None:  # a node asks its own replica first
                    time.sleep(0.002)
            seen_s.append(time.perf_counter() - began)
            number += 1
            time.sleep(0.05)


def figures(nodes: Nodes, name: str) -> list[tuple[str, float]]:
    """(labels, value) of every sample of this name, on all nodes."""
    found = []
    for node in nodes.all:
        with urllib.request.urlopen(f"{node.rest}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"jadevectordb_{name}{{"):
                    labels, _, value = line.rpartition(" ")
                    found.append((labels, float(value)))
    return found


def lag_counts(nodes: Nodes) -> dict[float, float]:
    """Entries published so far by how long that took at most, in seconds."""
    counts: dict[float, float] = {}
    for labels, value in figures(nodes, "eventual_lag_seconds_bucket"):
        bound = float(labels.partition('le="')[2].partition('"')[0])
        counts[bound] = counts.get(bound, 0.0) + value
    return dict(sorted(counts.items()))


def waiting_entries(nodes: Nodes) -> float:
    return sum(value for _, value in figures(nodes, "eventual_waiting_entries"))


def bound_of(cumulative: dict[float, float], share: float) -> float:
    """The bucket's bound that this share of the entries did not exceed."""
    total = max(cumulative.values())
    return next(bound for bound, count in cumulative.items() if count >= share * total)


def watch(nodes: Nodes, through: Node, action, settle_s: float) -> tuple[float, float, list[str], object]:  # type: ignore[no-untyped-def]
    """(longest gap between acknowledged writes, longest read, errors, what action returned) while it is carried out."""
    stop = threading.Event()
    acked: list[float] = []
    reads: list[float] = []
    errors: list[str] = []
    row = rows_of(2000)[:1]

    def write() -> None:
        with nodes.client(through) as client:
            database, n = client.database("search"), 0
            while not stop.is_set():
                try:
                    database.upsert([f"w{n % 50}"], row)
                    acked.append(time.perf_counter())
                except jade.JadeError as error:
                    errors.append(f"write: {error}")
                n += 1

    def read() -> None:
        with nodes.client(through) as client:
            database = client.database("search")
            while not stop.is_set():
                began = time.perf_counter()
                try:
                    database.search(row[0], k=10, include=())
                    reads.append(time.perf_counter() - began)
                except jade.JadeError as error:
                    errors.append(f"read: {error}")

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    found = action()
    time.sleep(settle_s)
    stop.set()
    for thread in threads:
        thread.join()
    gap = max((b - a for a, b in pairwise(acked)), default=float("inf"))
    return gap, max(reads), errors, found


def measure_failover(nodes: Nodes) -> None:
    def master() -> str:
        return str(nodes.status()["master_node"])

    def by_name(name: str) -> Node:
        return next(node for node in nodes.all if node.name == name)

    for how in ("kill -9", "planned stop"):
        if master() == nodes.all[0].name:  # who is asked must live on
            nodes.stop(nodes.all[0])
            nodes.start(nodes.all[0])
            wait_whole(nodes)
        victim = by_name(master())

        def act(victim: Node = victim, how: str = how) -> float:
            began = time.perf_counter()
            (nodes.kill if how == "kill -9" else nodes.stop)(victim)
            while master() in (victim.name, "none", ""):
                time.sleep(0.05)
            return time.perf_counter() - began

        gap, read, errors, seconds = watch(nodes, nodes.all[0], act, 12.0)
        print(
            f"{how} of the master's node: a new master after {seconds:.1f} s; longest gap of writes {gap:.2f} s; "
            f"slowest read {read * 1e3:.0f} ms; errors {len(errors)}{': ' + errors[0] if errors else ''}"
        )
        nodes.start(victim)
        wait_whole(nodes)


def wait_whole(nodes: Nodes, limit_s: float = 120.0) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < limit_s:
        try:
            if nodes.status()["status"] == "HEALTHY":
                return time.perf_counter() - began
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"not healthy after {limit_s} s: {nodes.status()}")


def measure_restart(nodes: Nodes) -> None:
    with nodes.client() as client:
        before = client.database("search").count()
    nodes.kill()
    began = time.perf_counter()
    nodes.start()
    with nodes.client() as client:
        database = client.database("search")
        while True:
            try:
                count = database.count()
                break
            except jade.JadeError:
                time.sleep(0.1)
    print(
        f"kill -9 of all nodes: serving {before} vectors after {time.perf_counter() - began:.1f} s, {before - count} lost"
    )
    print(f"  all replicas whole after another {wait_whole(nodes):.1f} s")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument(
        "--only", default="writes,eventual,search,failover,restart,gateway,workers,vectorsharding,million"
    )
    arguments.add_argument("--million", type=int, default=1_000_000)
    given = arguments.parse_args()
    wanted = given.only.split(",")
    print(f"{os.cpu_count()} cores shared by three nodes, three nats-servers and the clients")
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder), 3)
        try:
            print(f"start: all three serve after {nodes.start():.1f} s")
            if "writes" in wanted:
                measure_writes(nodes, given.rows)
            if "eventual" in wanted:
                measure_eventual(nodes, given.rows)
            if "search" in wanted or "failover" in wanted or "restart" in wanted:
                measure_search(nodes, given.rows)
            if "vectorsharding" in wanted:
                vector_sharding.measure(nodes, *rows_and_queries(given.rows, vector_sharding.QUERIES), load)
            if "failover" in wanted:
                measure_failover(nodes)
            if "restart" in wanted:
                measure_restart(nodes)
        finally:
            nodes.stop()
    if "gateway" in wanted:
        measure_gateway(given.rows)
    if "workers" in wanted:
        measure_workers(min(given.rows, 20_000))
    if "million" in wanted:
        measure_million(given.million)


if __name__ == "__main__":
    main()
