"""What a search costs the client: CPU time of the process per call, with the wait for the server left out.

    python bench/client_search.py [--rows 20000] [--dimension 100] [--searches 3000]

A real server process answers on loopback. "bare socket" sends the same bytes and receives the same answers without looking at
them: what any client pays to the kernel. CPU time of a process that sleeps between calls is dearer than in a busy loop (caches are
cold), so the figure is what a program sees, not what a profile of the code alone says.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.serving import serving

import jadevectordb as jade
from jadevectordb.client.sync import Database

ROUNDS = 5


def measured(searches: int, run: Callable[[], None]) -> tuple[float, float]:
    """(CPU us, wall us) per search: the best of the rounds, as noise only adds."""
    run()
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        best = [min(best[0], time.process_time() - cpu), min(best[1], time.perf_counter() - wall)]
    return best[0] / searches * 1e6, best[1] / searches * 1e6


def bare(url: str, head: bytes, queries: np.ndarray) -> Callable[[], None]:
    host, _, port = url.partition("://")[2].partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run() -> None:
        for query in queries:
            connection.sendall(head + query.tobytes())
            connection.recv(65536)

    return run


def by_tasks(url: str, queries: np.ndarray, at_once: int) -> Callable[[], None]:
    loop = asyncio.new_event_loop()
    client = jade.AsyncClient(url)
    db = loop.run_until_complete(client.database("bench"))

    async def part(own: np.ndarray) -> None:
        for query in own:
            await db.search(query)

    async def all_parts() -> None:
        await asyncio.gather(*(part(own) for own in np.array_split(queries, at_once)))

    return lambda: loop.run_until_complete(all_parts())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=100)
    parser.add_argument("--searches", type=int, default=3000)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((options.rows, options.dimension)).astype(np.float32)
    queries = rng.standard_normal((options.searches, options.dimension)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
        client = jade.Client(server.url)
        db = client.create_database("bench", options.dimension)
        db.upsert_many(((f"id-{i}", row, {"n": i, "pos": "noun"}) for i, row in enumerate(rows)), progress=False)
        db.wait_indexed()
        head = client._core.head(db._calls.search(queries[0]))

        def searching(db: Database, **search: object) -> Callable[[], None]:
            def run() -> None:
                for query in queries:
                    db.search(query, **search)  # type: ignore[arg-type]

            return run

        cases = {
            "bare socket, answers not read": bare(server.url, head, queries),
            "Client, 10 hits with metadata": searching(db),
            "Client, 10 hits, ids and scores alone": searching(db, include=()),
            "Client, 10 hits with vectors": searching(db, include=("metadata", "vector")),
            "Client, filtered": searching(db, filter={"n": {"$lt": options.rows // 10}}),
            "AsyncClient, one task": by_tasks(server.url, queries, 1),
            "AsyncClient, eight tasks": by_tasks(server.url, queries, 8),
        }
        print(
            f"{options.rows} x {options.dimension}, k=10, recall .95, {options.searches} searches a round, best of {ROUNDS}"
        )
        print(f"{'':40s}{'CPU us':>10s}{'wall us':>10s}")
        for name, run in cases.items():
            cpu, wall = measured(options.searches, run)
            print(f"{name:40s}{cpu:10.0f}{wall:10.0f}")


if __name__ == "__main__":
    main()
