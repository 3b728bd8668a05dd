"""What a cluster of three nodes does on this machine, all nodes and clients sharing its cores.

    .venv/bin/python bench/cluster.py [--rows 200000] [--only writes,search,...]

start      seconds from nothing to serving
writes     QUORUM writes in batches of 1000 x 128, three replicas: vectors/s, CPU per vector and node
eventual   lag of EVENTUAL writes while that load goes on, and while 10,000 vectors/s are themselves written at EVENTUAL: until a majority
           has them on disk (the nodes' own histogram), and until they are read on every node
search     over 4 shards through a node that holds replicas: latency, CPU by node
gateway    4 shards on 3 nodes through a node that holds none: its CPU a search is what a gateway costs
workers    searches that ask 1, 2, 3 and 5 workers at the same data each: CPU a question and worker
vectorsharding  by vector against by hash: shards visited, recall, CPU of searches and writes (`vector_sharding`)
million    1,000,000 x 128 in 4 shards: latency through a gateway over a network interface, recall
failover   a new master after kill -9; longest gap of writes and reads; the same for a planned stop
restart    kill -9 of all nodes, seconds until they serve, everything acknowledged there
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np

import jadevectordb as jade
import vector_sharding
from cluster_nodes import Node, Nodes, cpu_of

WIDTH = 128


def rows_of(count: int, seed: int = 5) -> np.ndarray:
    """Clustered rows, float32: what embeddings look like more than noise does."""
    return rows_and_queries(count, 0, seed)[0]


def rows_and_queries(count: int, queries: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """`rows_of`, and queries drawn as they are: around the same centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(8, count // 2000), WIDTH)).astype(np.float32)
    drawn = count + queries
    rows = centres[rng.integers(len(centres), size=drawn)] + rng.normal(size=(drawn, WIDTH)).astype(np.float32) * 0.6
    return rows[:count].astype(np.float32), rows[count:].astype(np.float32)


def in_threads(count: int, work) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))  # raises what they raise
    return time.perf_counter() - began


def load(
    nodes: Nodes,
    name: str,
    rows: np.ndarray,
    writers: int = 2,
    batch: int = 1000,
    consistency: str = "",
    per_s: float = 0.0,
) -> float:
    """Seconds it took. per_s: vectors a second at most, 0: as fast as they are taken."""
    began = time.perf_counter()
    starts = list(range(0, len(rows), batch))

    def write(n: int) -> None:
        with nodes.client(nodes.all[0]) as client:
            database = client.database(name)
            for at in starts[n::writers]:
                ids = [f"v{i}" for i in range(at, min(at + batch, len(rows)))]
                extra = {"consistency": consistency} if consistency else {}
                if per_s:
                    time.sleep(max(0.0, began + at / per_s - time.perf_counter()))
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


def measure_eventual(nodes: Nodes, count: int) -> None:
    rows = rows_of(count)
    for level in ("quorum", "eventual"):
        name = f"lag-{level}"
        with nodes.client() as client:
            client.create_database(name, dimension=WIDTH, shards=4)
        before, stop, seen_s = lag_counts(nodes), threading.Event(), []
        prober = threading.Thread(target=probe, args=(nodes, name, stop, seen_s))
        prober.start()
        # As fast as they can, writers at EVENTUAL only fill the outbox: its lag is then that of a backlog
        seconds = load(nodes, name, rows, consistency=level, per_s=10_000 if level == "eventual" else 0)
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
        print(f"EVENTUAL writes while {count / seconds:,.0f} vectors/s are written at {level.upper()}:")
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
    nodes: Nodes, gateway: Node, names: list[str], queries: np.ndarray
) -> tuple[float, dict[str, float], list[float]]:
    """(gateway's CPU, other nodes' CPU by name, sorted latencies): seconds a search, one at a time, over these databases in turn."""
    with nodes.client(gateway) as client:
        turns = cycle([client.database(name) for name in names])
        for query in queries[:300]:
            next(turns).search(query, k=10, include=())
        before = {node.name: nodes.cpu_s(node)[0] for node in nodes.all}
        times = []
        for query, database in zip(queries, turns, strict=False):
            began = time.perf_counter()
            database.search(query, k=10, include=())
            times.append(time.perf_counter() - began)
        used = {node.name: (nodes.cpu_s(node)[0] - before[node.name]) / len(queries) for node in nodes.all}
    return used.pop(gateway.name), used, sorted(times)


def idle_cost(nodes: Nodes, seconds: float = 5.0) -> dict[str, float]:
    """CPU seconds a second that nodes take for being there."""
    before = {node.name: nodes.cpu_s(node)[0] for node in nodes.all}
    time.sleep(seconds)
    return {node.name: (nodes.cpu_s(node)[0] - before[node.name]) / seconds for node in nodes.all}


def one_server(folder: Path, rows: np.ndarray, queries: np.ndarray) -> float:
    """CPU seconds a search of a server without a cluster, the search itself included: what a gateway's cost compares with."""
    command = [sys.executable, "-m", "jadevectordb", "serve", "--data", str(folder), "--port", "0", "--grpc-port", "-1"]
    process = subprocess.Popen(
        [*command, "--auth", "open-loopback", "--log-level", "warning"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split("REST ")[1].split()[0]
        with jade.Client(address, timeout=60) as client:
            database = client.create_database("search", dimension=WIDTH, shards=1)
            for at in range(0, len(rows), 1000):
                some = rows[at : at + 1000]
                database.upsert([f"v{at + i}" for i in range(len(some))], some)
            database.wait_indexed(600)
            for query in queries[:300]:
                database.search(query, k=10, include=())
            before = cpu_of(process.pid)
            for query in queries:
                database.search(query, k=10, include=())
            return (cpu_of(process.pid) - before) / len(queries)
    finally:
        process.terminate()
        process.wait()


def measure_gateway(rows_count: int) -> None:
    """All CPU of the gateway's process, every thread, user and system, from a request's arrival to its answer, less what it takes idle.

    It holds no replica: no part of it is the shards' own search. REST with a raw body, one search at a time. In the same run a server
    without a cluster, with as many rows as one shard has, says what REST and one search cost on the machine as it is now.
    """
    rows, queries = rows_and_queries(rows_count, 2000)
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
            own, others, times = search_cost(nodes, gateway, ["search"], queries)
            alone = one_server(Path(folder) / "alone", rows[: rows_count // 4], queries)
        finally:
            nodes.stop()
    mean = sum(times) / len(times)
    others_us = sum(us - idle[n] * mean for n, us in others.items()) * 1e6
    own_us = (own - idle[gateway.name] * mean) * 1e6
    print(f"4 shards of {rows_count} rows on 3 nodes through a fourth: {own_us:.0f} us CPU a search in the gateway,")
    print(f"  {others_us:.0f} us in the three others; p50 {statistics.median(times) * 1e3:.2f} ms")
    print(
        f"  a server of one shard, its search included: {alone * 1e6:.0f} us; the gateway {own_us / alone / 1e6:.2f} times that"
    )


def measure_workers(rows_each: int) -> None:
    """CPU a question to a worker, by how many are asked for a search.

    All five workers are there and asked in turn whatever the number, and both cores are kept busy by loops that yield to
    everything else: on one machine for all of them, a worker's caches and core would otherwise depend on how many others run.
    """
    costs: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, cores_busy():
        nodes = Nodes(Path(folder), 6)
        try:
            nodes.start()
            gateway = nodes.all[5]
            drained(nodes, gateway)
            print(f"CPU a question to a worker that holds {rows_each} rows of the database:")
            for count in (1, 2, 3, 5):
                names = [f"search-{count}-{n}" for n in range(5)]
                rows, queries = rows_and_queries(rows_each * count, 2000)
                with nodes.client() as client:
                    for name in names:
                        client.create_database(name, dimension=WIDTH, shards=count, replication=1)
                        load(nodes, name, rows)
                        client.database(name).wait_indexed(600)
                idle = idle_cost(nodes)
                own, others, times = search_cost(nodes, gateway, names, queries)
                mean = sum(times) / len(times)
                costs[count] = sum(us - idle[n] * mean for n, us in others.items()) / count * 1e6
                print(
                    f"  {count} of 5 workers asked: {costs[count]:.0f} us, gateway {(own - idle[gateway.name] * mean) * 1e6:.0f} us, "
                    f"p50 {statistics.median(times) * 1e3:.2f} ms"
                )
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
