"""What a cluster of three nodes does on this machine, all nodes and clients sharing its cores.

    .venv/bin/python bench/cluster.py [--rows 200000] [--only writes,search,...]

start      seconds from nothing to serving
writes     QUORUM writes in batches of 1000 x 128, three replicas: vectors/s, CPU per vector and node; EVENTUAL: lag under the same load
search     over 4 shards: gateway CPU a search beyond what the shards' own search takes
failover   a new master after kill -9; longest gap of writes and reads; the same for a planned stop
restart    kill -9 of all nodes, seconds until they serve, everything acknowledged there
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

import jadevectordb as jade
from cluster_nodes import Node, Nodes

WIDTH = 128


def rows_of(count: int, seed: int = 5) -> np.ndarray:
    """Clustered rows, float32: what embeddings look like more than noise does."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(8, count // 2000), WIDTH)).astype(np.float32)
    rows = centres[rng.integers(len(centres), size=count)] + rng.normal(size=(count, WIDTH)).astype(np.float32) * 0.6
    return rows.astype(np.float32)


def in_threads(count: int, work) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))  # raises what they raise
    return time.perf_counter() - began


def load(
    nodes: Nodes, name: str, rows: np.ndarray, writers: int = 2, batch: int = 1000, consistency: str = ""
) -> float:
    starts = list(range(0, len(rows), batch))

    def write(n: int) -> None:
        with nodes.client(nodes.all[0]) as client:
            database = client.database(name)
            for at in starts[n::writers]:
                ids = [f"v{i}" for i in range(at, min(at + batch, len(rows)))]
                extra = {"consistency": consistency} if consistency else {}
                database.upsert(ids, rows[at : at + len(ids)], **extra)

    return in_threads(writers, write)


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


def measure_search(nodes: Nodes, count: int) -> None:
    rows = rows_of(count)
    with nodes.client() as client:
        client.create_database("search", dimension=WIDTH, shards=4)
        load(nodes, "search", rows)
        database = client.database("search")
        database.wait_indexed(600)
        queries = rows_of(2000, 6)[:1000]
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
    arguments.add_argument("--only", default="writes,search,failover,restart")
    given = arguments.parse_args()
    wanted = given.only.split(",")
    print(f"{os.cpu_count()} cores shared by three nodes, three nats-servers and the clients")
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder), 3)
        try:
            print(f"start: all three serve after {nodes.start():.1f} s")
            if "writes" in wanted:
                measure_writes(nodes, given.rows)
            if "search" in wanted or "failover" in wanted or "restart" in wanted:
                measure_search(nodes, given.rows)
            if "failover" in wanted:
                measure_failover(nodes)
            if "restart" in wanted:
                measure_restart(nodes)
        finally:
            nodes.stop()


if __name__ == "__main__":
    main()
