"""IVF: candidates from inverted lists of 4-bit codes, compared exactly in the memory-mapped rows.

A query with no filter costs two kernel calls: the lists nearest to it are scanned for candidates, the candidates compared
exactly. With a filter the engine knows the exact number of matching rows: few are compared one by one; for more, all
lists are ranked, the density of matching rows around the query is read off them, and as many lists are probed as that
density needs (see `probing`). Where the calibration says a target is out of the structure's reach, every row is compared.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.index.api import RECALL_DEFAULT, Found, Plan, SearchOverrides
from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.index.calibration import Step, costs_of
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.faiss_calls import faiss, map_faiss, pointer, use_one_thread
from jadevectordb.index.index_files import IndexMeta, refuse
from jadevectordb.index.ivf_build import CODES_NAME, LISTS_NAME, IvfBody, centroids_of, coding_for, lists_dtype, padded
from jadevectordb.index.probing import Prober
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

_SETTINGS_MAX = 256  # (recall, k) pairs whose setting is kept ready
_COUNTS_MAX = 16  # bitmaps whose rows per list are kept
_COUNTED_ROWS_MAX = 16_384  # a larger set of allowed rows is counted by a spread sample of about this many
_EXACT_ROWS_ALWAYS = 1000  # so few allowed rows are compared at once, without a thought
_BUFFERS_MAX = 32  # candidate buffers a thread keeps


class _Setting:
    """A calibrated step made ready: the faiss parameters and the plan told to `explain`, shared by all threads, never changed."""

    __slots__ = ("candidates", "coverage", "nprobe", "parameters", "plan")

    def __init__(self, step: Step, reason: str) -> None:
        self.nprobe = step.nprobe
        self.candidates = step.candidates
        self.coverage = step.coverage
        self.parameters = faiss.SearchParametersIVF(nprobe=step.nprobe)
        self.plan = Plan("index", reason, step.candidates, nprobe=step.nprobe, lists=step.nprobe)


class _Buffers(threading.local):
    """Candidate buffers of one thread, with their pointers: making them anew costs as much as a small search."""

    def __init__(self) -> None:
        self.by_count: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Any, Any]] = {}

    def of(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Any, Any]:
        found = self.by_count.get(count)
        if found is None:
            if len(self.by_count) >= _BUFFERS_MAX:
                self.by_count.clear()
            rows, values = np.empty(count, np.int64), np.empty(count, np.float32)
            found = self.by_count[count] = rows, values, pointer(rows), pointer(values)
        return found


class IvfIndex:
    """Implements `VectorIndex`. Opened by `open_ivf`; immutable but for bounded caches."""

    def __init__(self, block: RowBlock, index: Any, list_of_row: npt.NDArray[np.integer[Any]], body: IvfBody) -> None:
        self._block = block
        self._index = index
        self._list_of_row = list_of_row
        self._lists = body.lists
        self._width = body.coded_dimension
        self._prober = Prober(body.calibration, body.lists, block.row_count)
        self._costs = costs_of(block.space.row_width, body.codes)
        self._ranks_by_product = block.space.metric is Metric.DOT
        self._centroids = centroids_of(index)
        self._centroids_at = pointer(self._centroids)
        sizes = [index.invlists.list_size(i) for i in range(body.lists)]
        self._sizes = np.array(sizes, np.int64)
        self._settings: dict[tuple[float, int], _Setting | None] = {}
        self._counts: dict[int, tuple[weakref.ref[Bitmap], npt.NDArray[np.float64], bool]] = {}
        self._buffers = _Buffers()

    @property
    def kind(self) -> IndexKind:
        return IndexKind.IVF

    @property
    def row_count(self) -> int:
        return self._block.row_count

    @property
    def memory_bytes(self) -> int:
        table = 0
        if self._block.space.metric is Metric.EUCLIDEAN and hasattr(self._index, "precomputed_table"):
            table = self._index.precomputed_table.nbytes()
        return self._centroids.nbytes + self._sizes.nbytes + table

    # ------------------------------------------------------------------ search

    def search(
        self,
        query: Rows,
        k: int,
        *,
        recall: float = RECALL_DEFAULT,
        allow: Bitmap | None = None,
        allowed_count: int | None = None,
        allowed_rows: RowArray | None = None,
        overrides: SearchOverrides | None = None,
    ) -> Found:
        if overrides is not None:
            return self._search_by_hand(
                query,
                k,
                recall,
                allow=allow,
                allowed_count=allowed_count,
                allowed_rows=allowed_rows,
                overrides=overrides,
            )
        setting = self._setting(recall, k)
        if allow is not None or allowed_rows is not None:
            return self._search_allowed(
                query, k, setting, allow=allow, allowed_count=allowed_count, allowed_rows=allowed_rows
            )
        if setting is None:
            return self._exact(query, k, None, None, "the index does not reach this recall")
        candidates = self._candidates(query, setting)
        similarities, rows = self._block.top_of(query, candidates, k)
        if len(rows) < k and len(rows) < self._block.row_count:
            return self._exact(query, k, None, None, "the probed lists hold fewer than k rows")
        return Found(similarities, rows, setting.plan)

    def search_batch(
        self,
        queries: Rows,
        k: int,
        *,
        recall: float = RECALL_DEFAULT,
        allow: Bitmap | None = None,
        allowed_count: int | None = None,
        allowed_rows: RowArray | None = None,
        overrides: SearchOverrides | None = None,
    ) -> list[Found]:
        # Scanning lists for several queries at once saves nothing: they share too few lists.
        if self._setting(recall, k) is None and allow is None and allowed_rows is None and overrides is None:
            plan = Plan("exact", "the index does not reach this recall", self.row_count)
            return [Found(s, r, plan) for s, r in self._block.top_batch(queries, k)]
        return [
            self.search(
                query,
                k,
                recall=recall,
                allow=allow,
                allowed_count=allowed_count,
                allowed_rows=allowed_rows,
                overrides=overrides,
            )
            for query in queries
        ]

    def search_within(self, query: Rows, similarity_min: float, *, allow: Bitmap | None = None) -> Found:
        similarities, rows = self._block.within(query, similarity_min, allow=allow)
        return Found(similarities, rows, Plan("exact", "all within a threshold", self._block.row_count))

    def _setting(self, recall: float, k: int) -> _Setting | None:
        key = (recall, k)
        if key in self._settings:
            return self._settings[key]
        assert 0 < recall <= 1 and k > 0
        step = None if recall >= 1 else self._prober.step(recall, k)
        if step is not None and self._step_cost_ns(step) > self._exact_cost_ns(self.row_count):
            step = None
        setting = None if step is None else _Setting(step, f"calibrated for recall {recall:g}")
        if len(self._settings) >= _SETTINGS_MAX:
            self._settings.clear()
        self._settings[key] = setting
        return setting

    def _step_cost_ns(self, step: Step) -> float:
        rows = step.nprobe * self.row_count / self._lists
        return self._index_cost_ns(step.nprobe, rows, step.candidates)

    def _index_cost_ns(self, lists: int, rows: float, candidates: int) -> float:
        costs = self._costs
        return costs.fixed_ns + lists * costs.list_ns + rows * costs.scanned_row_ns + candidates * costs.candidate_ns

    def _exact_cost_ns(self, rows: int) -> float:
        return rows * self._costs.exact_row_ns

    def _candidates(self, query: Rows, setting: _Setting) -> RowArray:
        self._block.check_query(query)
        use_one_thread()
        if self._ranks_by_product:
            scores, lists = self._rank(query)
            return self._scan(
                query, scores[: setting.nprobe], lists[: setting.nprobe], setting.candidates, setting.parameters
            )
        rows, _, rows_at, values_at = self._buffers.of(setting.candidates)
        at = pointer(query if len(query) == self._width else padded(query, self._width))
        try:
            self._index.search_c(1, at, setting.candidates, values_at, rows_at, setting.parameters)
        except RuntimeError as error:
            raise _failed(error) from error
        return rows

    def _exact(self, query: Rows, k: int, allow: Bitmap | None, allowed: RowArray | None, reason: str) -> Found:
        similarities, rows = self._block.top(query, k, allow=allow, allowed_rows=allowed)
        compared = len(allowed) if allowed is not None else self.row_count if allow is None else bitmap.count(allow)
        return Found(similarities, rows, Plan("exact", reason, compared))

    # ------------------------------------------------------------------ filters and tombstones

    def _search_allowed(
        self,
        query: Rows,
        k: int,
        setting: _Setting | None,
        *,
        allow: Bitmap | None,
        allowed_count: int | None,
        allowed_rows: RowArray | None,
    ) -> Found:
        if allowed_rows is not None:
            allowed_count = len(allowed_rows)
        elif allowed_count is None:
            assert allow is not None
            allowed_count = bitmap.count(allow)
        if setting is None:
            return self._exact(query, k, allow, allowed_rows, "the index does not reach this recall")
        if allowed_count <= _EXACT_ROWS_ALWAYS or allowed_count <= k:
            return self._exact(query, k, allow, allowed_rows, "few allowed rows")
        exact_ns = self._exact_cost_ns(allowed_count)
        if exact_ns < self._costs.fixed_ns + setting.candidates * self._costs.candidate_ns:
            return self._exact(query, k, allow, allowed_rows, "comparing the allowed rows is cheaper")
        if allow is None:
            assert allowed_rows is not None
            allow = bitmap.from_rows(allowed_rows, self.row_count)
        counts, counted_exactly = self._allowed_per_list(allow, allowed_count)
        self._block.check_query(query)
        use_one_thread()
        scores, lists = self._rank(query)
        allowed, sizes = counts[lists], self._sizes[lists]
        nprobe = self._prober.lists_to_probe(k, setting.coverage, allowed, sizes)
        holding = allowed[:nprobe] > 0 if counted_exactly else sizes[:nprobe] > 0
        scores, lists = scores[:nprobe][holding], lists[:nprobe][holding]
        scanned = float(sizes[:nprobe][holding].sum())
        if exact_ns < self._index_cost_ns(len(lists), scanned, setting.candidates):
            return self._exact(query, k, allow, allowed_rows, "comparing the allowed rows is cheaper")
        selector = faiss.IDSelectorBitmap(len(allow), pointer(allow))
        parameters = faiss.SearchParametersIVF(nprobe=len(lists), sel=selector)
        candidates = self._scan(query, scores, lists, setting.candidates, parameters)
        similarities, rows = self._block.top_of(query, candidates, k)
        if len(rows) < k:
            return self._exact(query, k, allow, allowed_rows, "the probed lists hold fewer than k allowed rows")
        plan = Plan("index", "density of allowed rows", setting.candidates, nprobe=nprobe, lists=len(lists))
        return Found(similarities, rows, plan)

    def _rank(self, query: Rows) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """All lists, nearest first, with their coarse scores as faiss wants them."""
        wide = padded(query, self._width)
        scores = np.empty(self._lists, np.float32)
        if self._block.space.metric is Metric.EUCLIDEAN:
            faiss.fvec_L2sqr_ny(pointer(scores), pointer(wide), self._centroids_at, self._width, self._lists)
            order = np.argsort(scores, kind="stable")
        else:
            faiss.fvec_inner_products_ny(pointer(scores), pointer(wide), self._centroids_at, self._width, self._lists)
            order = np.argsort(-scores, kind="stable")
        return scores[order], order

    def _scan(
        self, query: Rows, scores: npt.NDArray[np.float32], lists: npt.NDArray[np.int64], count: int, parameters: Any
    ) -> RowArray:
        """Candidates out of the given lists. lists, scores: C-order (p,)."""
        assert lists.flags.c_contiguous and scores.flags.c_contiguous and len(lists) == len(scores)
        wide = padded(query, self._width)
        rows, _, rows_at, values_at = self._buffers.of(count)
        try:
            self._index.search_preassigned_c(
                1, pointer(wide), count, pointer(lists), pointer(scores), values_at, rows_at, False, parameters
            )
        except RuntimeError as error:
            raise _failed(error) from error
        return rows

    def _allowed_per_list(self, allow: Bitmap, allowed_count: int) -> tuple[npt.NDArray[np.float64], bool]:
        """Allowed rows of each list, float64 (lists,), and whether they were all counted. Kept while the bitmap lives."""
        kept = self._counts.get(id(allow))
        if kept is not None and kept[0]() is allow:
            return kept[1], kept[2]
        every = -(-allowed_count // _COUNTED_ROWS_MAX)
        if every == 1:
            rows = bitmap.to_rows(allow)
        else:
            words = np.ascontiguousarray(allow.view(np.uint64)[::every])
            inside = bitmap.to_rows(words.view(np.uint8))
            rows = (inside >> 6) * (64 * every) + (inside & 63)
        counts = np.bincount(self._list_of_row[rows], minlength=self._lists).astype(np.float64)
        if every > 1:
            counts *= allowed_count / max(1, len(rows))
        if len(self._counts) >= _COUNTS_MAX:
            self._counts.clear()
        self._counts[id(allow)] = weakref.ref(allow), counts, every == 1
        return counts, every == 1

    # ------------------------------------------------------------------ experts

    def _search_by_hand(
        self,
        query: Rows,
        k: int,
        recall: float,
        *,
        allow: Bitmap | None,
        allowed_count: int | None,
        allowed_rows: RowArray | None,
        overrides: SearchOverrides,
    ) -> Found:
        if overrides.exact:
            return self._exact(query, k, allow, allowed_rows, "asked for")
        if overrides.nprobe is None and overrides.candidates is None:
            return self.search(
                query, k, recall=recall, allow=allow, allowed_count=allowed_count, allowed_rows=allowed_rows
            )
        calibrated = self._setting(recall, k)
        nprobe = overrides.nprobe or (calibrated.nprobe if calibrated else self._lists)
        candidates = overrides.candidates or (calibrated.candidates if calibrated else 20 * k)
        nprobe = max(1, min(nprobe, self._lists))
        candidates = max(k, min(candidates, self.row_count))
        if allowed_rows is not None and allow is None:
            allow = bitmap.from_rows(allowed_rows, self.row_count)
        self._block.check_query(query)
        use_one_thread()
        scores, lists = self._rank(query)
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        if allow is not None:
            parameters.sel = faiss.IDSelectorBitmap(len(allow), pointer(allow))
        found = self._scan(query, scores[:nprobe], lists[:nprobe], candidates, parameters)
        similarities, rows = self._block.top_of(query, found, k)
        return Found(similarities, rows, Plan("index", "set by hand", candidates, nprobe=nprobe, lists=nprobe))


def open_ivf(directory: Path, block: RowBlock, meta: IndexMeta) -> IvfIndex:
    """Map the files named by a checked `index.json`. Raises CORRUPT naming the file."""
    path = directory / CODES_NAME
    try:
        body = msgspec.json.decode(meta.body, type=IvfBody)
    except msgspec.DecodeError as error:
        refuse(directory / "index.json", f"has no valid IVF part ({error})")
    index = map_faiss(path)
    dimension, codes = coding_for(block.space.dimension)
    if not isinstance(index, faiss.IndexIVFPQFastScan if codes else faiss.IndexIVFFlat):
        refuse(path, "holds another type of index")
    if (index.ntotal, index.nlist, index.d) != (block.row_count, body.lists, dimension):
        refuse(path, "was made for other rows")
    dtype = lists_dtype(body.lists)
    lists_path = directory / LISTS_NAME
    if meta.files.get(LISTS_NAME) is None or meta.files[LISTS_NAME].bytes != dtype.itemsize * block.row_count:
        refuse(lists_path, "does not hold one list a row")
    list_of_row = np.memmap(lists_path, dtype, "r", shape=(block.row_count,))
    return IvfIndex(block, index, np.asarray(list_of_row), body)


def _failed(error: RuntimeError) -> JadeError:
    return JadeError(
        ErrorCode.CORRUPT,
        f"The index failed while searching ({str(error)[:200]}): rebuild the index of this segment, or search with recall=1.0.",
    )
