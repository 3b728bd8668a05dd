"""Sharding by vector against sharding by hash, the same rows in one cluster: shards visited, recall, CPU of a search and of a write.

Rows that lie in clusters are what it is for. Rows that overlap (`datasets.million`) are the hard case: their neighbours are everywhere.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from cluster_nodes import Nodes
from datasets import exact_top, million, unit

SHARDS, SAMPLE, QUERIES, K = 8, 10_000, 400, 10
Load = Callable[[Nodes, str, np.ndarray], float]


def measure(nodes: Nodes, clustered: np.ndarray, queries: np.ndarray, load: Load) -> None:
    """clustered (n, d) and queries to it; as many overlapping rows are made here. load: writes all rows, answers the seconds."""
    hard = million(len(clustered), clustered.shape[1], QUERIES)
    _compare(nodes, "clusters", unit(clustered), unit(queries[:QUERIES]), load)
    _compare(nodes, "overlapping", hard.train, hard.queries[:QUERIES], load)


def _compare(nodes: Nodes, what: str, rows: np.ndarray, queries: np.ndarray, load: Load) -> None:
    sample = rows[np.random.default_rng(3).permutation(len(rows))[:SAMPLE]]
    truth = exact_top(rows, queries, K)
    print(f"{what}: {len(rows):,} x {rows.shape[1]} in {SHARDS} shards, cells from a sample of {SAMPLE:,}")
    for sharding in ("hash", "vector"):
        name = f"{what}-{sharding}"
        with nodes.client() as client:
            began = time.perf_counter()
            extra = {"sample": sample} if sharding == "vector" else {}
            database = client.create_database(name, dimension=rows.shape[1], shards=SHARDS, sharding=sharding, **extra)
            made_s = time.perf_counter() - began
            before = sum(sum(nodes.cpu_s(node)) for node in nodes.all)
            loaded_s = load(nodes, name, rows)
            used_us = (sum(sum(nodes.cpu_s(node)) for node in nodes.all) - before) / len(rows) * 1e6
            database.wait_indexed(600)
            print(
                f"  {sharding}: made in {made_s:.1f} s, {len(rows) / loaded_s:,.0f} vectors/s written, "
                f"{used_us:.0f} us CPU a vector in all nodes"
            )
            for recall in (0.9, 0.95):
                _search(nodes, database, queries, truth, recall)
            client.drop_database(name)


def _search(nodes: Nodes, database: object, queries: np.ndarray, truth: np.ndarray, recall: float) -> None:
    for query in queries[:100]:
        database.search(query, k=K, recall=recall, include=())  # type: ignore[attr-defined]
    before = sum(nodes.cpu_s(node)[0] for node in nodes.all)
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(database.search(query, k=K, recall=recall, include=()))  # type: ignore[attr-defined]
        times.append(time.perf_counter() - began)
    used_us = (sum(nodes.cpu_s(node)[0] for node in nodes.all) - before) / len(queries) * 1e6
    reached = np.mean(
        [
            len({int(hit.id[1:]) for hit in hits} & set(near.tolist())) / K
            for hits, near in zip(found, truth, strict=True)
        ]
    )
    explained = [database.explain(query, k=K, recall=recall) for query in queries[:100]]  # type: ignore[attr-defined]
    visited = statistics.mean(sum(len(node["shards"]) for node in one["nodes"]) for one in explained)
    print(
        f"    recall asked {recall}: {visited:.2f} of {SHARDS} shards visited, recall {reached:.3f}, "
        f"p50 {statistics.median(times) * 1e3:.2f} ms, CPU a search in all nodes {used_us:.0f} us"
    )
