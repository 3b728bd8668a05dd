"""HNSW: a navigable graph of near neighbours (Malkov, Yashunin 2016), built once over a sealed block and never changed.

On request only: a build costs ten to twenty times that of IVF, and the graph holds a copy of the rows beside their links.
Under a filter the graph is not asked to skip rows, which loses recall when the filter is correlated with the vectors.
It is asked for so many neighbours that k allowed ones should be among them; if they are, they are the nearest allowed ones, and
if not, the allowed rows are compared one by one.
"""

from __future__ import annotations

import bisect
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.allowed import Allowed
from jadevectordb.index.api import K_TYPICAL, RECALL_DEFAULT, Found, Plan, SearchOverrides
from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.index.block_index import CandidateIndex
from jadevectordb.index.calibration import TARGETS, exact_cost_us, margin
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.faiss_calls import (
    faiss,
    index_failed,
    map_faiss,
    pointer,
    threads_for_building,
    use_one_thread,
    write_faiss,
)
from jadevectordb.index.index_files import IndexMeta, refuse, write_array, write_meta
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

GRAPH_NAME = "graph.faiss"
ORDER_NAME = "order.i64"
DEFAULT_LINKS = 32  # neighbours a node and level; twice as many on the lowest level
DEFAULT_BUILD_BREADTH = 200
_SAMPLE_ROWS = 500
_KS = (10, 100)
_BREADTHS = (10, 14, 20, 28, 40, 56, 80, 100, 120, 160, 200, 280, 400, 560, 800, 1200, 1600, 2400)
_DEAD_US = 20.0  # what leaving dead rows out adds to a search, about
_SPARE = 8  # neighbours asked for beyond k, to settle ties
_FILTER_SHARE_MIN = 0.05  # a filter that leaves less is answered by comparing the allowed rows
_FILTER_ASKED_MAX = 2000


class HnswBody(msgspec.Struct, frozen=True):
    """breadths: for each k of `_KS`, the ef_search of each of `TARGETS`; None = out of reach."""

    breadths: list[list[int | None]]


def build_hnsw(
    space: VectorSpace,
    rows: Rows,
    directory: Path,
    *,
    threads: int,
    seed: int,
    links: int = DEFAULT_LINKS,
    breadth: int = DEFAULT_BUILD_BREADTH,
) -> list[str]:
    """Build, measure and write. Links are inserted by one thread: with several the graph depends on their timing.

    A row that is a node finds its neighbours by its own links, so leave-one-out would flatter a graph. Some rows are
    therefore held back, used as queries, and inserted last; `order` says which row a node is.
    """
    metric = faiss.METRIC_L2 if space.metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT
    held = np.random.default_rng(seed).choice(len(rows), min(_SAMPLE_ROWS, len(rows) // 10), replace=False)
    inside = np.ones(len(rows), np.bool_)
    inside[held] = False
    order = np.concatenate([np.flatnonzero(inside), np.sort(held)])
    nodes = np.ascontiguousarray(rows[order])
    first = len(rows) - len(held)
    index = faiss.IndexHNSWFlat(space.dimension, links, metric)
    index.hnsw.efConstruction = breadth
    index.hnsw.rng = faiss.RandomGenerator(seed)
    with threads_for_building(1):
        index.add(nodes[:first])
    with threads_for_building(threads):
        body = HnswBody(_calibrate(RowBlock(space, nodes[:first]), index, nodes[first:]))
    with threads_for_building(1):
        index.add(nodes[first:])
    write_faiss(index, directory / GRAPH_NAME)
    write_array(order, directory / ORDER_NAME)
    return write_meta(directory, IndexKind.HNSW, space, row_count=len(rows), names=[GRAPH_NAME, ORDER_NAME], body=body)


def _calibrate(block: RowBlock, index: Any, queries: Rows) -> list[list[int | None]]:
    depth = min(max(_KS), block.row_count)
    truth = [block.top(query, depth) for query in queries]
    table: list[list[int | None]] = []
    for k in _KS:
        steps: list[int | None] = [None] * len(TARGETS)
        kept = min(k, depth)
        for breadth in (b for b in _BREADTHS if b >= k):
            _, found = index.search(queries, kept, params=faiss.SearchParametersHNSW(efSearch=breadth))
            hits = [
                min(kept, int(np.isin(rows, best[values >= values[kept - 1]]).sum()))
                for rows, (values, best) in zip(found, truth, strict=True)
            ]
            recall = sum(hits) / (kept * len(queries))
            for at, target in enumerate(TARGETS):
                if steps[at] is None and recall >= target + margin(target):
                    steps[at] = breadth
            if steps[-1] is not None:
                break
        table.append(steps)
    return table


class HnswIndex(CandidateIndex):
    """Opened by `open_hnsw`."""

    def __init__(self, block: RowBlock, index: Any, order: RowArray, body: HnswBody) -> None:
        super().__init__(block)
        self._index = index
        self._order = order
        self._breadths = body.breadths
        self._links = index.hnsw.nb_neighbors(1)

    @property
    def kind(self) -> IndexKind:
        return IndexKind.HNSW

    @property
    def memory_bytes(self) -> int:
        return 0  # graph and rows are mapped

    def _find(
        self,
        query: Rows,
        k: int,
        recall: float,
        *,
        bits: Bitmap | None,
        known: Allowed | None,
        overrides: SearchOverrides,
    ) -> Found | str:
        asked = min(k + _SPARE, self.row_count)
        if known is not None:
            share = known.count / self.row_count
            if share < _FILTER_SHARE_MIN:
                return "few allowed rows"
            asked = min(self.row_count, math.ceil(k / share + 3 * math.sqrt(k) / share) + _SPARE)
            if asked > _FILTER_ASKED_MAX:
                return "too many neighbours to look through"
        breadth = overrides.ef_search or self._breadth(recall, k if known is None else asked)
        if breadth is None:
            return "the index does not reach this recall"
        breadth = max(breadth, asked)
        candidates = self._neighbours(query, asked, breadth)
        candidates = self._order[candidates[candidates >= 0]]
        if known is not None:
            if bits is None:
                bits = bitmap.from_rows(self._rows(None, known), self.row_count)
            candidates = candidates[bitmap.contains(bits, candidates)]
        if len(candidates) < min(k, self.row_count if known is None else known.count):
            return "too few allowed rows among the nearest"
        similarities, rows = self._block.top_of(query, candidates, k)
        return Found(similarities, rows, Plan("index", "graph", len(candidates), ef_search=breadth))

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        breadth = overrides.ef_search or self._breadth(RECALL_DEFAULT, K_TYPICAL)
        if breadth is None or overrides.exact:
            return exact_cost_us(self._block, has_dead=has_dead)
        compared = max(breadth, K_TYPICAL + _SPARE) * self._links
        return float(10 + (_DEAD_US if has_dead else 0.0) + compared * (0.02 + 0.0002 * self._block.space.row_width))

    def _breadth(self, recall: float, k: int) -> int | None:
        at = bisect.bisect_left(TARGETS, recall - 1e-9)
        if at == len(TARGETS):
            return None
        low, high = self._breadths[0][at], self._breadths[1][at]
        if k <= _KS[0] or low is None:
            return low
        if high is None:
            return None
        if k >= _KS[1]:
            return math.ceil(high * k / _KS[1])
        share = math.log(k / _KS[0]) / math.log(_KS[1] / _KS[0])
        return math.ceil(math.exp(math.log(low) * (1 - share) + math.log(high) * share))

    def _neighbours(self, query: Rows, count: int, breadth: int) -> Any:
        use_one_thread()
        values, rows = np.empty(count, np.float32), np.empty(count, np.int64)
        parameters = faiss.SearchParametersHNSW(efSearch=breadth)
        try:
            self._index.search_c(1, pointer(query), count, pointer(values), pointer(rows), parameters)
        except RuntimeError as error:
            raise index_failed(error) from error
        return rows


def open_hnsw(directory: Path, block: RowBlock, meta: IndexMeta) -> HnswIndex:
    """Map the graph. Raises CORRUPT naming the file."""
    path = directory / GRAPH_NAME
    try:
        body = msgspec.json.decode(meta.body, type=HnswBody)
    except msgspec.DecodeError as error:
        refuse(directory / "index.json", f"has no valid HNSW part ({error})")
    index = map_faiss(path)
    if not isinstance(index, faiss.IndexHNSWFlat) or (index.ntotal, index.d) != (
        block.row_count,
        block.space.dimension,
    ):
        refuse(path, "was made for other rows")
    order_path = directory / ORDER_NAME
    if ORDER_NAME not in meta.files or meta.files[ORDER_NAME].bytes != 8 * block.row_count:
        refuse(order_path, "was made for other rows")
    order = np.asarray(np.memmap(order_path, np.int64, "r", shape=(block.row_count,)))
    return HnswIndex(block, index, order, body)
