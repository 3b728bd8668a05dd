"""The search index beside a bare loop over the same faiss calls and beside faiss HNSW, in one run, as ratios of CPU time.

    python bench/index_vs_prototype.py VECTORS.npy QUERIES.npy [--metric cosine] [--rows 100000] [--hnsw] [--filters]

VECTORS and QUERIES: numpy files of shape (n, d), any float dtype. One thread, one query a call. The bare loop has no checks,
no ties, no results objects: what it takes less is what the index costs on top of faiss. `--hnsw` also builds a graph
(M=32, efConstruction=200: minutes at 340k rows) and looks for the ef that reaches the recall measured for the index.
`--filters` measures filters of 50 %, 10 %, 1 % and 0.1 %, random and made of the rows nearest to one row.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from jadevectordb.index import bitmap  # noqa: E402
from jadevectordb.index.api import VectorIndex  # noqa: E402
from jadevectordb.index.exact import RowBlock  # noqa: E402
from jadevectordb.index.factory import build_index, open_index  # noqa: E402
from jadevectordb.index.index_files import read_meta  # noqa: E402
from jadevectordb.index.ivf_build import CODES_NAME  # noqa: E402
from jadevectordb.index.space import VectorSpace  # noqa: E402
from jadevectordb.index.truth import nearest  # noqa: E402
from jadevectordb.model.index_kind import IndexKind  # noqa: E402
from jadevectordb.model.metric import Metric  # noqa: E402

K = 10
ROUNDS = 5


def best_us(calls: list[Callable[[Any], Any]], queries: Any) -> list[float]:
    """CPU microseconds a query of each call, the best of some rounds, taken in turns so that noise falls on all alike."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            start = time.process_time()
            for query in queries:
                call(query)
            best[i] = min(best[i], (time.process_time() - start) / len(queries) * 1e6)
    return best


def recall(found: list[Any], truth: Any) -> float:
    return sum(len(np.intersect1d(rows[:K], best)) for rows, best in zip(found, truth, strict=True)) / truth.size


def bare_loop(codes: Any, rows: Any, euclidean: bool, nprobe: int, candidates: int) -> Callable[[Any], Any]:
    pointer = faiss.swig_ptr
    rank = faiss.knn_L2sqr_by_idx if euclidean else faiss.knn_inner_products_by_idx
    at, (count, dimension) = pointer(rows), rows.shape

    def search(query: Any) -> Any:
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        scores, labels = np.empty(candidates, np.float32), np.empty(candidates, np.int64)
        codes.search_c(1, pointer(query), candidates, pointer(scores), pointer(labels), parameters)
        values, best = np.empty(K, np.float32), np.empty(K, np.int64)
        rank(
            pointer(query), at, pointer(labels), dimension, 1, count, candidates, K, pointer(values), pointer(best), candidates
        )  # fmt: skip
        return best

    return search


def compare(index: VectorIndex, codes: Any, rows: Any, queries: Any, truth: Any, graph: Any | None) -> None:
    print(f"{'target':>7} {'recall':>7} {'QPS':>7} {'of bare':>8}" + (f" {'x HNSW':>7} {'ef':>5}" if graph else ""))
    for target in (0.90, 0.95, 0.99):
        plan = index.search(queries[0], K, recall=target).plan
        calls = [
            lambda query, target=target: index.search(query, K, recall=target),
            bare_loop(codes, rows, codes.metric_type == faiss.METRIC_L2, plan.nprobe, plan.compared),
        ]
        reached = recall([calls[0](query).rows for query in queries], truth)
        line, breadth = "", 0
        if graph is not None:
            breadth = breadth_for(graph, queries, truth, reached)
            parameters = faiss.SearchParametersHNSW(efSearch=breadth)
            calls.append(lambda query, p=parameters: graph.search(query[None, :], K, params=p))
        times = best_us(calls, queries)
        if graph is not None:
            line = f" {times[2] / times[0]:7.2f} {breadth:5d}"
        print(f"{target:7.2f} {reached:7.4f} {1e6 / times[0]:7.0f} {times[1] / times[0]:8.2f}{line}", flush=True)


def breadth_for(graph: Any, queries: Any, truth: Any, wanted: float) -> int:
    breadth = K
    while breadth < 4000:
        if (
            recall(list(graph.search(queries, K, params=faiss.SearchParametersHNSW(efSearch=breadth))[1]), truth)
            >= wanted
        ):
            break
        breadth = round(breadth * 1.2) + 1
    return breadth


def compare_filters(index: VectorIndex, block: RowBlock, queries: Any) -> None:
    count = block.row_count
    rng = np.random.default_rng(1)
    near = np.argsort(-block.similarities(np.ascontiguousarray(block.rows[rng.integers(count)])))
    (free,) = best_us([lambda query: index.search(query, K)], queries)
    print(f"\n{'filter at recall 0.95':<24} {'recall':>7} {'QPS':>7} {'x unfiltered':>13}")
    for share in (0.5, 0.1, 0.01, 0.001):
        region = np.zeros(count, np.bool_)
        region[near[: int(share * count)]] = True
        for name, mask in (("random", rng.random(count) < share), ("nearest to a row", region)):
            allow, allowed = bitmap.from_mask(mask), int(mask.sum())

            def search(query: Any, allow: Any = allow, allowed: int = allowed) -> Any:
                return index.search(query, K, allow=allow, allowed_count=allowed)

            truth = np.array([block.top(query, K, allow=allow)[1][:K] for query in queries])
            reached = recall([search(query).rows for query in queries], truth)
            (taken,) = best_us([search], queries)
            print(f"{share:7.1%} {name:<16} {reached:7.4f} {1e6 / taken:7.0f} {free / taken:13.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--metric", type=Metric, choices=list(Metric)[:2], default=Metric.COSINE)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--hnsw", action="store_true")
    parser.add_argument("--filters", action="store_true")
    options = parser.parse_args()
    vectors = np.load(options.vectors)[: options.rows]
    space = VectorSpace(options.metric, vectors.shape[1])
    rows = space.search_rows(space.check_and_pack(vectors))
    queries = space.prepare_queries(np.load(options.queries)[:1000])
    block = RowBlock(space, rows)
    truth = nearest(block, queries, K, 0)[1]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        start = time.process_time()
        build_index(IndexKind.IVF, space, rows, directory, threads=1, seed=3)
        built = time.process_time() - start
        start = time.perf_counter()
        index = open_index(directory, space, rows)
        opened = time.perf_counter() - start
        size = sum(record.bytes for record in read_meta(directory, space, len(rows)).files.values())
        print(
            f"{len(rows):,} x {space.dimension}: built in {built:.1f} CPU-s, opened in {opened * 1e3:.0f} ms, "
            f"{size / len(rows):.0f} bytes a row mapped, {index.memory_bytes / len(rows):.1f} in memory"
        )
        codes = faiss.read_index(str(directory / CODES_NAME), faiss.IO_FLAG_MMAP_IFC)
        graph = None
        if options.hnsw:
            euclidean = options.metric is Metric.EUCLIDEAN
            graph = faiss.IndexHNSWFlat(
                space.dimension, 32, faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT
            )
            graph.hnsw.efConstruction = 200
            start = time.process_time()
            graph.add(rows)
            print(f"HNSW32 built in {time.process_time() - start:.1f} CPU-s")
        compare(index, codes, rows, queries, truth, graph)
        if options.filters:
            compare_filters(index, block, queries[:200])


if __name__ == "__main__":
    main()
