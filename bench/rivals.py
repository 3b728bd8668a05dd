"""What the engine is measured against in the same run: faiss HNSW as people use it, and the bare kernel loop without an engine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import faiss
import numpy as np

from measure import Search

pointer = faiss.swig_ptr


def hnsw(
    train: np.ndarray, threads: int, m: int = 32, ef_construction: int = 200
) -> tuple[Callable[[int], Search], float]:
    """faiss IndexHNSWFlat over unit rows; a maker of searches by efSearch, and the build's CPU seconds."""
    started = time.process_time()
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexHNSWFlat(train.shape[1], m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = ef_construction
    index.add(train)
    built = time.process_time() - started

    def make(ef_search: int) -> Search:
        parameters = faiss.SearchParametersHNSW(efSearch=ef_search)

        def search(query: np.ndarray) -> list[int]:
            faiss.omp_set_num_threads(1)
            return index.search(query[None], 10, params=parameters)[1][0].tolist()

        return search

    return make, built


class BareSegment:
    """IVF + 4-bit PQ candidates rescored from the raw rows, and nothing else: no checks, ids, filters, deletes, durability.

    The recipe of the engine's index as a bare loop over faiss calls: what the engine adds on top is its overhead.
    """

    def __init__(self, train: np.ndarray, threads: int, seed: int = 3) -> None:
        n, d = train.shape
        self.rows = train
        self.nlist = max(16, 1 << round(math.log2(1.5 * math.sqrt(n))))
        faiss.omp_set_num_threads(threads)
        self.index = faiss.index_factory(d, f"IVF{self.nlist},PQ{d // 2}x4fsr", faiss.METRIC_INNER_PRODUCT)
        sample = min(n, max(100 * self.nlist, 20_000))
        pick = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
        self.index.train(train[pick])
        self.index.add(train)

    def searcher(self, nprobe: int, candidates: int) -> Search:
        faiss.omp_set_num_threads(1)
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        index, rows, (n, d) = self.index, pointer(self.rows), self.rows.shape

        def search(query: np.ndarray) -> list[int]:
            q = pointer(query)
            distances, found = np.empty(candidates, np.float32), np.empty(candidates, np.int64)
            index.search_c(1, q, candidates, pointer(distances), pointer(found), parameters)
            values, best = np.empty(10, np.float32), np.empty(10, np.int64)
            faiss.knn_inner_products_by_idx(
                q, rows, pointer(found), d, 1, n, candidates, 10, pointer(values), pointer(best), candidates
            )
            return best.tolist()

        return search

    def cheapest(self, target: float, queries: np.ndarray, truth: np.ndarray) -> tuple[tuple[int, int], Search]:
        """The quickest (nprobe, candidates) whose recall on these very queries reaches the target: the best a bare loop can do."""
        best: tuple[float, tuple[int, int], Search] | None = None
        wanted = [set(t.tolist()) for t in truth]
        for nprobe in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256):
            if nprobe > self.nlist:
                break
            for candidates in (20, 30, 40, 60, 80, 100, 150, 200, 300, 400):
                search = self.searcher(nprobe, candidates)
                hits = sum(len(w.intersection(search(q))) for q, w in zip(queries, wanted, strict=True))
                if hits / truth.size < target:
                    continue
                cpu = time.thread_time()
                for query in queries:
                    search(query)
                cpu = time.thread_time() - cpu
                if best is None or cpu < best[0]:
                    best = (cpu, (nprobe, candidates), search)
                break  # more candidates at this nprobe only cost more
        if best is None:
            raise SystemExit(f"the bare loop does not reach recall {target}")
        return best[1], best[2]
