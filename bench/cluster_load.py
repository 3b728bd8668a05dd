"""What clusters are measured with: rows, queries, and how they are written."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cluster_nodes import Nodes

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
