"""Exact comparison of a query with rows: the ground every other index stands on, and what a recall of 1.0 means.

All of it runs in faiss kernels on the rows where they lie (a memory-mapped file or a growing buffer), with the interpreter
lock released. The kernels give bit-equal similarities for equal rows whichever of them is used, so results of different
plans merge cleanly. Results are sorted best first, equal similarities by row ascending. Where equal ones straddle the k-th
place, all of them are returned, more than k: which of them stay is decided by their ids, which only the caller knows, and
so does not depend on how rows are spread over segments. faiss keeps any of them, so one more result than asked for is
fetched, and only when the boundary really is a tie, which float data rarely has, a second pass collects it.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.index.faiss_calls import faiss, pointer, use_one_thread
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

Similarities: TypeAlias = npt.NDArray[np.float32]
Hits: TypeAlias = tuple[
    Similarities, RowArray
]  # best first, equally long; more than k when the k-th is tied with others

SELECTOR_SHARE_MIN = 0.4  # above this share of allowed rows, walking all of them beats listing the allowed ones
_BATCH_QUERIES_MIN = 16  # from here on one matrix product beats a scan a query
_HAMMING_SPARE = 64  # results beyond k: few different distances make ties the rule, and so many more cost nothing
_BATCH_SPARE = 16  # candidates beyond k that a matrix product hands to the exact kernel, whose rounding differs


class RowBlock:
    """Search rows of one segment with exact search over them. Does not copy, does not change, keeps a reference.

    rows: C-order (capacity, row_width) of the space's dtype. Thread-safe as long as rows below `row_count` do not change.
    """

    __slots__ = ("_at", "_by_row", "_maximize", "_scan", "row_count", "rows", "space")

    def __init__(self, space: VectorSpace, rows: Rows) -> None:
        assert rows.ndim == 2 and rows.shape[1] == space.row_width and rows.dtype == space.row_dtype
        assert rows.flags.c_contiguous
        self.space = space
        self.rows = np.asarray(rows)  # a plain array over a memmap: its calls are cheaper
        self.row_count = len(rows)
        self._at: Any = pointer(self.rows) if len(rows) else None
        self._maximize = space.metric in (Metric.COSINE, Metric.DOT)
        self._scan = faiss.knn_inner_product if self._maximize else faiss.knn_L2sqr
        self._by_row = faiss.knn_inner_products_by_idx if self._maximize else faiss.knn_L2sqr_by_idx

    # ------------------------------------------------------------------ best k

    def top(
        self,
        query: Rows,
        k: int,
        *,
        row_count: int | None = None,
        allow: Bitmap | None = None,
        allowed_rows: RowArray | None = None,
    ) -> Hits:
        """The best k of the first row_count rows, or of the allowed ones among them (fewer when fewer exist), and ties of the k-th.

        query: search row (row_width,), C-order. allow: bitmap of at least row_count rows, none set beyond row_count.
        allowed_rows: the same set as ascending int64, when the caller has it.
        """
        count = self.row_count if row_count is None else row_count
        assert 0 <= count <= self.row_count
        if allowed_rows is not None:
            return self.top_of(query, allowed_rows, k)
        if allow is not None:
            assert len(allow) >= bitmap.size_bytes(count)
            if self.space.metric is Metric.HAMMING or bitmap.count(allow) < SELECTOR_SHARE_MIN * count:
                return self.top_of(query, bitmap.to_rows(allow), k)
        k = min(k, count)
        if k <= 0:
            return _nothing()
        self.check_query(query)
        use_one_thread()
        if self.space.metric is Metric.HAMMING:
            return _hamming_top(query, self.rows[:count], k)
        fetch = min(k + 1, count)
        values = np.empty(fetch, np.float32)
        rows = np.empty(fetch, np.int64)
        arguments = (pointer(query), self._at, self.space.row_width, 1, count, fetch, pointer(values), pointer(rows))
        if allow is None:
            self._scan(*arguments)
        else:
            selector = faiss.IDSelectorBitmap(len(allow), pointer(allow))
            if self._maximize:
                self._scan(*arguments, selector)
            else:
                self._scan(*arguments, None, selector)
        hits = self._ordered(values, rows, k)
        if hits is not None:
            return hits
        boundary = float(values[k - 1]) if self._maximize else -float(values[k - 1])
        return self.within(query, boundary, row_count=count, allow=allow)

    def top_of(self, query: Rows, candidates: RowArray, k: int) -> Hits:
        """The best k of the given rows and ties of the k-th.

        candidates: int64, C-order, rows of the block, none twice; -1 may fill the end, and only the end.
        """
        k = min(k, len(candidates))
        if k <= 0:
            return _nothing()
        self.check_query(query)
        assert candidates.dtype == np.int64 and candidates.ndim == 1 and candidates.flags.c_contiguous
        use_one_thread()
        if self.space.metric is Metric.HAMMING:
            return _hamming_top_of(query, self.rows, candidates, k)
        hits = self._rescore(query, candidates, k, min(k + 1, len(candidates)))
        if hits is None:  # a tie at the k-th place: look at them all
            hits = self._rescore(query, candidates, k, len(candidates))
            assert hits is not None
        return hits

    def _rescore(self, query: Rows, candidates: RowArray, k: int, fetch: int) -> Hits | None:
        values = np.empty(fetch, np.float32)
        rows = np.empty(fetch, np.int64)
        count = len(candidates)
        # The stride of the row list is given although there is one query: faiss's default for it is wrong.
        self._by_row(
            pointer(query), self._at, pointer(candidates), self.space.row_width, 1, self.row_count, count, fetch,
            pointer(values), pointer(rows), count,
        )  # fmt: skip
        return self._ordered(values, rows, k, complete=fetch == count)

    def _ordered(self, values: Similarities, rows: RowArray, k: int, *, complete: bool = False) -> Hits | None:
        """Sorted faiss output as hits; None when a tie straddles the k-th place and more rows may belong to it.

        complete: nothing was left out of values, so that a tie is there as a whole.
        """
        if rows[-1] < 0:
            found = int(np.count_nonzero(rows >= 0))
            values, rows = values[:found], rows[:found]
            complete = True
        end = k
        if len(values) > 1 and (values[1:] == values[:-1]).any():
            if len(values) > k and values[k] == values[k - 1]:
                if not complete:
                    return None
                end = k + int(np.count_nonzero(values[k:] == values[k]))
            order = np.lexsort((rows, -values if self._maximize else values))
            values, rows = values[order], rows[order]
        values = values[:end]
        return (values if self._maximize else -values), rows[:end]

    # ------------------------------------------------------------------ all within a threshold

    def within(
        self, query: Rows, similarity_min: float, *, row_count: int | None = None, allow: Bitmap | None = None
    ) -> Hits:
        """Every row (of the allowed ones) whose similarity is at least similarity_min, best first."""
        count = self.row_count if row_count is None else row_count
        assert 0 <= count <= self.row_count
        if count == 0 or similarity_min == math.inf:
            return _nothing()
        self.check_query(query)
        use_one_thread()
        if self.space.metric is Metric.HAMMING:
            values, rows = _hamming_within(query, self.rows[:count], similarity_min)
        else:
            values, rows = self._faiss_range(query, similarity_min, count)
        if allow is not None:
            inside = bitmap.contains(allow, rows)
            values, rows = values[inside], rows[inside]
        return _by_similarity(values, rows)

    def _faiss_range(self, query: Rows, similarity_min: float, count: int) -> Hits:
        result = faiss.RangeSearchResult(1)
        limit = np.float32(similarity_min if self._maximize else -similarity_min)
        # faiss compares strictly, a threshold here is inclusive: move it by one step.
        radius = float(np.nextafter(limit, np.float32(-np.inf if self._maximize else np.inf)))
        search = faiss.range_search_inner_product if self._maximize else faiss.range_search_L2sqr
        search(pointer(query), self._at, self.space.row_width, 1, count, radius, result)
        values, rows = _taken(result)
        return (-values if self._maximize else values), rows

    def similarities(self, query: Rows) -> Similarities:
        """The similarity of every row, float32 (row_count,), in row order; not under hamming."""
        self.check_query(query)
        assert self.space.metric is not Metric.HAMMING
        values = np.empty(self.row_count, np.float32)
        call = faiss.fvec_inner_products_ny if self._maximize else faiss.fvec_L2sqr_ny
        call(pointer(values), pointer(query), self._at, self.space.row_width, self.row_count)
        return values if self._maximize else -values

    # ------------------------------------------------------------------ many queries

    def top_batch(self, queries: Rows, k: int, *, allow: Bitmap | None = None) -> list[Hits]:
        """`top` for each of queries (m, row_width). Many queries over an inner product share one pass over the rows."""
        assert queries.ndim == 2 and queries.flags.c_contiguous
        together = self._maximize and allow is None and len(queries) >= _BATCH_QUERIES_MIN and self.row_count > 1
        if not together:
            return [self.top(query, k, allow=allow) for query in queries]
        k = min(k, self.row_count)
        candidates = self.nearest_batch(queries, min(k + _BATCH_SPARE, self.row_count))[1]
        hits: list[Hits] = []
        for query, rows in zip(queries, candidates, strict=True):
            found = self._rescore(query, rows, k, min(k + 1, len(rows)))
            hits.append(found if found is not None else self.top(query, k))
        return hits

    def nearest_batch(self, queries: Rows, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Best k of all rows for each query by matrix products, as many threads as the caller has set.

        Similarities (m, k) and rows (m, k), k <= row_count; rounding and the order of ties are those of the matrix product.
        """
        assert queries.dtype == np.float32 and queries.shape[1] == self.space.row_width and queries.flags.c_contiguous
        assert 1 <= k <= self.row_count
        count = len(queries)
        values = np.empty((count, k), np.float32)
        rows = np.empty((count, k), np.int64)
        self._scan(
            pointer(queries),
            self._at,
            self.space.row_width,
            count,
            self.row_count,
            k,
            pointer(values),
            pointer(rows),
        )
        return (values if self._maximize else -values), rows

    def check_query(self, query: Rows) -> None:
        # A wrong array would make the kernels read foreign memory.
        assert query.shape == (self.space.row_width,) and query.dtype == self.space.row_dtype
        assert query.flags.c_contiguous


def _nothing() -> Hits:
    return np.empty(0, np.float32), np.empty(0, np.int64)


def _hamming_top(query: Rows, rows: Rows, k: int) -> Hits:
    fetch = min(k + _HAMMING_SPARE, len(rows))
    distances = np.empty(fetch, np.int32)
    found = np.empty(fetch, np.int64)
    heap = faiss.int_maxheap_array_t()
    heap.nh, heap.k = 1, fetch
    heap.val, heap.ids = pointer(distances), pointer(found)
    faiss.hammings_knn_hc(heap, pointer(query), pointer(rows), len(rows), rows.shape[1], 1)
    order = np.lexsort((found, distances))
    distances, found = distances[order], found[order]
    boundary = distances[k - 1]
    if fetch < len(rows) and distances[-1] == boundary:  # the tie may go on beyond what was fetched
        return _by_similarity(*_hamming_within(query, rows, -float(boundary)))
    end = int(np.searchsorted(distances, boundary, "right"))
    return -distances[:end].astype(np.float32), found[:end]


def _hamming_top_of(query: Rows, rows: Rows, candidates: RowArray, k: int) -> Hits:
    candidates = np.sort(candidates[candidates >= 0])
    k = min(k, len(candidates))
    if k == 0:
        return _nothing()
    similarities, places = _hamming_top(query, rows[candidates], k)
    return similarities, candidates[places]


def _hamming_within(query: Rows, rows: Rows, similarity_min: float) -> Hits:
    """Unordered. similarity_min: minus the greatest distance allowed; -inf for all rows."""
    width = rows.shape[1]
    if similarity_min > 0:
        return _nothing()
    radius = math.floor(min(-similarity_min, 8.0 * width)) + 1  # faiss compares strictly
    result = faiss.RangeSearchResult(1)
    faiss.hamming_range_search(pointer(query), pointer(rows), 1, len(rows), radius, width, result)
    return _taken(result)


def _by_similarity(values: Similarities, rows: RowArray) -> Hits:
    order = np.lexsort((rows, -values))
    return values[order], rows[order]


def _taken(result: Any) -> Hits:
    """Distances as similarities, and rows, out of a faiss range search of one query."""
    found = int(faiss.rev_swig_ptr(result.lims, 2)[1])
    if found == 0:
        return _nothing()
    return -faiss.rev_swig_ptr(result.distances, found), faiss.rev_swig_ptr(result.labels, found).copy()
