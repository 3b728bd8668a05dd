"""The sections of `make bench`: each measures one row of the table of promises and returns figures with the ratio promised."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import jadevectordb as jade
from datasets import Dataset, exact_top
from measure import cheapest, one_round, recall_of, side_by_side
from rivals import BareSegment, hnsw

BATCH = 1000
Row = dict[str, Any]


def load(
    folder: Path, data: Dataset, metadata: list[dict[str, Any]] | None = None, **options: Any
) -> tuple[jade.Store, jade.Database, Row]:
    """A fresh store with the data in durable batches; how fast until searchable and until indexed."""
    shutil.rmtree(folder, ignore_errors=True)
    store = jade.open(folder)
    database = store.create_database("bench", dimension=data.train.shape[1], **options)
    ids = [f"r{i}" for i in range(len(data.train))]
    waits = []
    started = time.perf_counter()
    for at in range(0, len(ids), BATCH):
        one = time.perf_counter()
        rows = slice(at, at + BATCH)
        database.upsert(ids[rows], data.train[rows], None if metadata is None else metadata[rows])
        waits.append(time.perf_counter() - one)
    searchable = time.perf_counter() - started
    database.wait_indexed()
    indexed = time.perf_counter() - started
    return (
        store,
        database,
        {
            "data": data.name,
            "searchable vectors/s": round(len(ids) / searchable),
            "indexed vectors/s": round(len(ids) / indexed),
            "batch p99 ms": round(float(np.percentile(waits, 99)) * 1e3, 1),
        },
    )


def row_numbers(hits: jade.Hits) -> list[int]:
    return [int(hit.id[1:]) for hit in hits]


def searching(database: jade.Database, data: Dataset, threads: int, rivals: bool) -> list[Row]:
    """QPS per CPU second of one thread at measured recall, beside faiss HNSW and the bare loop, interleaved."""
    rows = []
    make_hnsw, built = hnsw(data.train, threads) if rivals else (None, 0.0)
    bare = BareSegment(data.train, threads)
    for target in (0.95, 0.99):
        searches = {"jade": partial(database_rows, database, recall=_target(database, data, target))}
        parameters, searches["bare loop"] = bare.cheapest(target, data.queries, data.truth)
        ef = 0
        if make_hnsw is not None:
            settings = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
            ef, searches["faiss HNSW32"] = cheapest("HNSW", settings, make_hnsw, target, (data.queries, data.truth))
        timings = side_by_side(searches, data.queries, data.truth)
        ours = timings["jade"]
        row: Row = {"data": data.name, "recall asked": target, "recall": ours.recall, "QPS": ours.qps}
        row |= {"p50 us": ours.p50_us, "p95 us": ours.p95_us, "p99 us": ours.p99_us}
        row["/ bare loop"] = round(ours.qps / timings["bare loop"].qps, 2)
        row["bare loop"] = f"nprobe {parameters[0]}, candidates {parameters[1]}, recall {timings['bare loop'].recall}"
        if ef:
            rival = timings["faiss HNSW32"]
            row["/ HNSW32"] = round(ours.qps / rival.qps, 2)
            row["HNSW32"] = f"efSearch {ef}, recall {rival.recall}, {rival.qps} QPS, built in {built:.0f} CPU s"
        rows.append(row)
    return rows


def database_rows(database: jade.Database, query: np.ndarray, recall: float) -> list[int]:
    return row_numbers(database.search(query, k=10, recall=recall))


def _target(database: jade.Database, data: Dataset, target: float) -> float:
    """The recall to ask for so that the measured one is at least the target: the calibration aims at it, not above it."""
    for ask in (target, target + 0.002, target + 0.004, target + 0.006, target + 0.009):
        if recall_of([database_rows(database, q, ask) for q in data.queries], data.truth) >= target:
            return ask
    return min(1.0, target + 0.009)


def promised_recall(database: jade.Database, data: Dataset) -> list[Row]:
    """Measured recall on held-out queries beside the recall asked for."""
    rows = []
    for target in (0.90, 0.95, 0.99, 1.0):
        found = [database_rows(database, q, target) for q in data.queries]
        measured = recall_of(found, data.truth)
        rows.append(
            {
                "data": data.name,
                "recall asked": target,
                "recall": round(measured, 4),
                "off by": round(measured - target, 4),
            }
        )
    return rows


def filters(folder: Path, data: Dataset) -> list[Row]:
    """Filters of 10 %, 1 % and 0.1 %: drawn at random, and correlated with the vectors (the rows nearest a random row)."""
    n = len(data.train)
    random = np.random.default_rng(5)
    masks: dict[str, np.ndarray] = {}
    for share in (0.1, 0.01, 0.001):
        masks[f"random {share:.1%}"] = np.flatnonzero(random.random(n) < share)
        centre = data.train[random.integers(n)]
        masks[f"correlated {share:.1%}"] = np.sort(np.argsort(-(data.train @ centre))[: int(n * share)])
    metadata: list[dict[str, Any]] = [{"n": i} for i in range(n)]
    for number, rows in enumerate(masks.values()):
        for row in rows.tolist():
            metadata[row][f"f{number}"] = True
    store, database, _ = load(folder, data, metadata)
    try:
        plain = side_by_side({"plain": lambda q: row_numbers(database.search(q, k=10))}, data.queries, data.truth)[
            "plain"
        ]
        table = [{"filter": "none", "recall": plain.recall, "QPS": plain.qps, "x unfiltered": 1.0}]
        for number, (name, allowed) in enumerate(masks.items()):
            truth = exact_top(data.train, data.queries, 10, allowed)
            node = {f"f{number}": True}
            timing = side_by_side(
                {"filter": lambda q, f=node: row_numbers(database.search(q, k=10, filter=f))},
                data.queries,
                truth,
                rounds=3,
            )["filter"]
            plan = database.explain(data.queries[0], k=10, filter=node)
            strategy = plan["segments"][0]["strategy"]
            table.append(
                {
                    "filter": name,
                    "matches": len(allowed),
                    "recall": timing.recall,
                    "QPS": timing.qps,
                    "x unfiltered": round(timing.qps / plain.qps, 2),
                    "p99 us": timing.p99_us,
                    "plan": strategy,
                }
            )
        return table
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)


def while_writing(
    database: jade.Database, data: Dataset, spare: np.ndarray, rate: int = 10_000, seconds: float = 10.0
) -> list[Row]:
    """Search latency of one thread, idle and while another thread writes `rate` new vectors a second in batches of 1000."""

    def latencies(duration: float) -> np.ndarray:
        walls, until, i = [], time.perf_counter() + duration, 0
        while (started := time.perf_counter()) < until:
            database.search(data.queries[i % len(data.queries)], k=10)
            walls.append(time.perf_counter() - started)
            i += 1
        return np.array(walls) * 1e6

    latencies(1.0)
    idle = latencies(seconds / 2)
    stop, written = threading.Event(), [0]

    def write() -> None:
        started, number = time.perf_counter(), 0
        while not stop.is_set():
            rows = spare[np.arange(number, number + BATCH) % len(spare)]
            database.upsert([f"w{number + i}" for i in range(BATCH)], rows)
            number += BATCH
            written[0] = number
            stop.wait(max(0.0, started + number / rate - time.perf_counter()))

    writer = threading.Thread(target=write)
    writer.start()
    busy = latencies(seconds)
    stop.set()
    writer.join()
    return [
        {
            "data": data.name,
            "written/s": round(written[0] / seconds),
            "idle p50 us": _at(idle, 50),
            "idle p99 us": _at(idle, 99),
            "busy p50 us": _at(busy, 50),
            "busy p99 us": _at(busy, 99),
            "p99 x idle": round(_at(busy, 99) / _at(idle, 99), 2),
        }
    ]


def _at(walls: np.ndarray, percentile: float) -> float:
    return round(float(np.percentile(walls, percentile)), 1)


_OPEN_AND_SEARCH = """
import sys, time, numpy as np
import jadevectordb as jade
def anonymous():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) * 1024
query = np.load(sys.argv[2])
import faiss
jade.open  # the engine is loaded, its code is nobody's vectors
before = anonymous(); started = time.perf_counter()
database = jade.open(sys.argv[1]).database("bench")
database.search(query[0], k=10)
first = time.perf_counter() - started
for q in query: database.search(q, k=10)
print(first, anonymous() - before, database.stats().memory_bytes, database.count(), database.stats().disk_bytes)
"""


def opening(folder: Path, data: Dataset) -> list[Row]:
    """A new process opens the folder and searches: time to the first answer, memory beyond the page cache after 1,000 searches."""
    queries = folder.with_name("queries.npy")
    np.save(queries, data.queries)
    environment = dict(os.environ, MALLOC_ARENA_MAX="1")
    done = subprocess.run(
        [sys.executable, "-c", _OPEN_AND_SEARCH, str(folder), str(queries)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    first, grown, stated, rows, disk = map(float, done.stdout.split())
    return [
        {
            "data": data.name,
            "first answer s": round(first, 3),
            "memory B/vector measured": round(grown / rows, 1),
            "stated by stats": round(stated / rows, 1),
            "disk B/vector": round(disk / rows),
        }
    ]


def latency(database: jade.Database, data: Dataset) -> list[Row]:
    rows = []
    for target in (0.95, 0.99):
        ask = _target(database, data, target)
        best = min(
            (one_round(lambda q, r=ask: database_rows(database, q, r), data.queries) for _ in range(4)),
            key=lambda r: r[0],
        )
        walls = best[1] * 1e6
        rows.append(
            {
                "data": data.name,
                "recall asked": target,
                "recall": round(recall_of(best[2], data.truth), 4),
                "p50 us": _at(walls, 50),
                "p95 us": _at(walls, 95),
                "p99 us": _at(walls, 99),
                "QPS": round(len(walls) / best[0]),
            }
        )
    return rows
