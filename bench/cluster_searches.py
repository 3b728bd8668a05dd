"""Searches of a cluster: what they cost each node, how long they take, and whether workers cost the same however many there are."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle, repeat
from pathlib import Path

import numpy as np

import jadevectordb as jade
from cluster_load import WIDTH, in_threads, load, rows_and_queries
from cluster_nodes import Node, Nodes, cpu_of


def measure_search(nodes: Nodes, count: int) -> None:
    rows, queries = rows_and_queries(count, 1000)
    with nodes.client() as client:
        client.create_database("search", dimension=WIDTH, shards=4)
        load(nodes, "search", rows)
        database = client.database("search")
        database.wait_indexed(600)
        for query in queries[:300]:
            database.search(query, k=10, include=())
        before = {node.name: nodes.cpu_s(node)[0] for node in nodes.all}
        times = []
        for query in queries:
            began = time.perf_counter()
            database.search(query, k=10, include=())
            times.append(time.perf_counter() - began)
        used = {node.name: (nodes.cpu_s(node)[0] - before[node.name]) / len(queries) * 1e6 for node in nodes.all}
    times.sort()
    print(
        f"search over 4 shards of {count} rows through {nodes.all[0].name}: p50 {statistics.median(times) * 1e3:.2f} ms, "
        f"p95 {times[int(len(times) * 0.95)] * 1e3:.2f} ms"
    )
    print("  CPU a search by node: " + ", ".join(f"{name} {us:.0f} us" for name, us in used.items()))


def drained(nodes: Nodes, node: Node) -> None:
    """Make it a node that holds no replicas: only a gateway. Just after a start the master may still be being elected."""
    request = urllib.request.Request(f"{node.rest}/v1/cluster/nodes/{node.name}", method="DELETE")
    until_s = time.perf_counter() + 10
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                return
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.perf_counter() > until_s:
                raise
        time.sleep(0.1)


def search_cost(
    nodes: Nodes, gateway: Node, names: list[str], queries: np.ndarray, clients: int = 1
) -> tuple[float, dict[str, float], list[float]]:
    """(gateway's CPU, other nodes' CPU by name, sorted latencies): seconds a search, over these databases in turn.

    Each client asks all queries, one at a time.
    """
    times: list[float] = []

    def ask_all(n: int) -> None:
        with nodes.client(gateway) as client:
            turns = cycle([client.database(name) for name in names[n:] + names[:n]])
            times.extend(timed(queries, turns))

    with nodes.client(gateway) as client:
        turns = cycle([client.database(name) for name in names])
        timed(queries[:300], turns)
    before = {node.name: nodes.cpu_s(node)[0] for node in nodes.all}
    in_threads(clients, ask_all)
    used = {node.name: (nodes.cpu_s(node)[0] - before[node.name]) / len(times) for node in nodes.all}
    return used.pop(gateway.name), used, sorted(times)


def timed(queries: np.ndarray, databases: Iterable[jade.client.Database]) -> list[float]:
    """Seconds of each search."""
    times = []
    for query, database in zip(queries, databases, strict=False):
        began = time.perf_counter()
        database.search(query, k=10, include=())
        times.append(time.perf_counter() - began)
    return times


def idle_cost(nodes: Nodes, seconds: float = 5.0) -> dict[str, float]:
    """CPU seconds a second that nodes take for being there."""
    before = {node.name: nodes.cpu_s(node)[0] for node in nodes.all}
    time.sleep(seconds)
    return {node.name: (nodes.cpu_s(node)[0] - before[node.name]) / seconds for node in nodes.all}


def one_server(folder: Path, rows: np.ndarray, queries: np.ndarray, clients: tuple[int, ...]) -> list[float]:
    """CPU seconds a search of a server without a cluster, the search itself included, by how many clients ask at once."""
    command = [sys.executable, "-m", "jadevectordb", "serve", "--data", str(folder), "--port", "0", "--grpc-port", "-1"]
    process = subprocess.Popen(
        [*command, "--auth", "open-loopback", "--log-level", "warning"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split("REST ")[1].split()[0]

        def ask_all(_: int) -> None:
            with jade.Client(address, timeout=60) as client:
                timed(queries, repeat(client.database("search")))

        with jade.Client(address, timeout=60) as client:
            database = client.create_database("search", dimension=WIDTH, shards=1)
            for at in range(0, len(rows), 1000):
                some = rows[at : at + 1000]
                database.upsert([f"v{at + i}" for i in range(len(some))], some)
            database.wait_indexed(600)
        ask_all(0)
        costs = []
        for count in clients:
            before = cpu_of(process.pid)
            in_threads(count, ask_all)
            costs.append((cpu_of(process.pid) - before) / len(queries) / count)
        return costs
    finally:
        process.terminate()
        process.wait()


def measure_gateway(rows_count: int) -> None:
    """All CPU of the gateway's process, every thread, user and system, from a request's arrival to its answer, less what it takes idle.

    It holds no replica: no part of it is the shards' own search. REST with a raw body. In the same run a server without a cluster, with
    as many rows as one shard has, says what REST and one search cost on the machine as it is now.
    """
    rows, queries = rows_and_queries(rows_count, 2000)
    clients = (1, 4)
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder), 4)
        try:
            nodes.start()
            gateway = nodes.all[3]
            drained(nodes, gateway)
            with nodes.client() as client:
                client.create_database("search", dimension=WIDTH, shards=4, replication=1)
            load(nodes, "search", rows)
            with nodes.client() as client:
                client.database("search").wait_indexed(600)
            idle = idle_cost(nodes)
            costs = [search_cost(nodes, gateway, ["search"], queries, count) for count in clients]
        finally:
            nodes.stop()
        alone = one_server(Path(folder) / "alone", rows[: rows_count // 4], queries, clients)
    print(f"4 shards of {rows_count} rows on 3 nodes through a fourth, CPU a search:")
    for count, (own, others, times), server in zip(clients, costs, alone, strict=True):
        wall_s = sum(times) / len(times) / count
        others_us = sum(us - idle[n] * wall_s for n, us in others.items()) * 1e6
        own_us = (own - idle[gateway.name] * wall_s) * 1e6
        print(
            f"  {count} clients: gateway {own_us:.0f} us, the others {others_us:.0f} us; p50 {statistics.median(times) * 1e3:.2f} ms; "
            f"a server of a quarter of the rows: {server * 1e6:.0f} us"
        )


def measure_workers(rows_each: int) -> None:
    """CPU a question to a worker, by how many are asked for a search.

    On one machine for all of them, what a question costs depends on how many run at once and how lately they ran. So the same five
    workers are there whatever the number asked, about five questions are under way at any time (the fewer a search asks, the more
    searches at once), and loops that yield to everything else keep both cores busy.
    """
    costs: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, cores_busy():
        nodes = Nodes(Path(folder), 6)
        try:
            nodes.start()
            gateway = nodes.all[5]
            drained(nodes, gateway)
            print(f"CPU a question to a worker that holds {rows_each} rows of the database:")
            for count, clients in ((1, 5), (2, 3), (3, 2), (5, 1)):
                names = [f"search-{count}-{n}" for n in range(5)]
                rows, queries = rows_and_queries(rows_each * count, 2000)
                with nodes.client() as client:
                    for name in names:
                        client.create_database(name, dimension=WIDTH, shards=count, replication=1)
                        load(nodes, name, rows)
                        client.database(name).wait_indexed(600)
                idle = idle_cost(nodes)
                own, others, times = search_cost(nodes, gateway, names, queries, clients)
                wall_s = sum(times) / len(times) / clients
                costs[count] = sum(us - idle[n] * wall_s for n, us in others.items()) / count * 1e6
                own_us = (own - idle[gateway.name] * wall_s) * 1e6
                print(f"  {count} of 5 workers asked: {costs[count]:.0f} us, gateway {own_us:.0f} us a search")
                with nodes.client() as client:
                    for name in names:
                        client.drop_database(name)
        finally:
            nodes.stop()
    print(f"  largest beside smallest: {max(costs.values()) / min(costs.values()):.2f}")


@contextmanager
def cores_busy() -> Iterator[None]:
    """A loop on each core that yields to everything else (SCHED_IDLE where there is such a thing)."""

    loop = """
import os
os.nice(19)
if hasattr(os, "SCHED_IDLE"):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.wait()


def interface_address() -> str:
    """An address of this machine that is not loopback, where there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def measure_million(count: int) -> None:
    rows, queries = rows_and_queries(count, 500)
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder), 3, host=interface_address())
        try:
            nodes.start()
            with nodes.client() as client:
                client.create_database("search", dimension=WIDTH, shards=4, replication=1)
            seconds = load(nodes, "search", rows)
            with nodes.client() as client:
                database = client.database("search")
                database.wait_indexed(1800)
                found = [[hit.id for hit in database.search(query, k=10, include=())] for query in queries[:200]]
            unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            exact = np.argpartition(-(queries[:200] @ unit.T), 10, axis=1)[:, :10]
            recall = np.mean(
                [len({f"v{i}" for i in row} & set(ids)) / 10 for row, ids in zip(exact, found, strict=True)]
            )
            _, _, times = search_cost(nodes, nodes.all[0], ["search"], queries)
            host = nodes.all[0].rest
        finally:
            nodes.stop()
    print(f"{count} x {WIDTH} in 4 shards through {host}: written at {count / seconds:,.0f} vectors/s")
    p50, p95 = (times[int(len(times) * share)] * 1e3 for share in (0.5, 0.95))
    print(f"  p50 {p50:.2f}, p95 {p95:.2f} ms at recall {recall:.3f}")
