"""IVF: candidates from inverted lists of 4-bit codes, compared exactly in the memory-mapped rows.

A query with no filter costs two kernel calls: the lists nearest to it are scanned for candidates, the candidates compared
exactly. With a filter the engine knows the exact number of matching rows: few are compared one by one; for more, all
lists are ranked, the density of matching rows around the query is read off them, and as many lists are probed as that
density needs (see `probing`). Where the calibration says a target is out of the structure's reach, every row is compared.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.index.allowed import Allowed
from jadevectordb.index.api import K_TYPICAL, RECALL_DEFAULT, Found, Plan, SearchOverrides
from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.index.block_index import BlockIndex
from jadevectordb.index.calibration import Step, costs_of, exact_cost_us, inverse_list_costs
from jadevectordb.index.density import DensityModel
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.faiss_calls import bytes_of_codes, faiss, index_failed, map_faiss, pointer, use_one_thread
from jadevectordb.index.index_files import IndexMeta, refuse
from jadevectordb.index.ivf_build import (
    CODES_NAME,
    DENSITY_NAME,
    LISTS_NAME,
    IvfBody,
    centroids_of,
    coding_for,
    lists_dtype,
    padded,
)
from jadevectordb.index.ivf_setting import Buffers, Setting
from jadevectordb.index.probing import K_CALIBRATED_MAX, UNEVEN_CANDIDATES, step_for
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

_DEAD_US = 15.0  # what leaving dead rows out adds to a search, about
_SETTINGS_MAX = 256  # (recall, k) pairs whose setting is kept ready
_EXACT_ROWS_ALWAYS = 1000  # so few allowed rows are compared at once, without a thought
_EVEN_MIN, _EVEN_MAX = (
    0.7,
    1.5,
)  # density of allowed rows around a query, beside their density overall, that counts as even
_EVEN_SHARE_MIN = 0.5  # a filter that leaves at least this share of every list needs no look at the lists


class IvfIndex(BlockIndex):
    """Implements `VectorIndex`. Opened by `open_ivf`; immutable but for bounded caches."""

    def __init__(
        self,
        block: RowBlock,
        index: Any,
        list_of_row: npt.NDArray[np.integer[Any]],
        density: DensityModel,
        body: IvfBody,
    ) -> None:
        super().__init__(block)
        self._index = index
        self._list_of_row = list_of_row
        self._lists = body.lists
        self._width = body.coded_dimension
        self._calibration = body.calibration
        self._density = density
        self._costs = costs_of(block.space.row_width, body.codes)
        self._ranks_by_product = block.space.metric is Metric.DOT
        self._centroids = centroids_of(index)
        self._centroids_at = pointer(self._centroids)
        sizes = [index.invlists.list_size(i) for i in range(body.lists)]
        self._sizes = np.array(sizes, np.float32)
        self._codes_bytes = bytes_of_codes(index, sizes)
        self._minus_inverse_cost = -inverse_list_costs(self._sizes, self._costs)
        self._settings: dict[tuple[float, int], Setting | None] = {}
        self._buffers = Buffers()

    @property
    def kind(self) -> IndexKind:
        return IndexKind.IVF

    @property
    def memory_bytes(self) -> int:
        table = 0
        if self._block.space.metric is Metric.EUCLIDEAN and hasattr(self._index, "precomputed_table"):
            table = self._index.precomputed_table.nbytes()
        return self._centroids.nbytes + self._sizes.nbytes + table + self._codes_bytes

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        setting = self._setting(RECALL_DEFAULT, K_TYPICAL)
        nprobe = overrides.nprobe or (setting.nprobe if setting else 0)
        if overrides.exact or not nprobe:
            return exact_cost_us(self._block, has_dead=has_dead)
        count = overrides.candidates or (setting.candidates if setting else 20 * K_TYPICAL)
        nprobe = min(nprobe, self._lists)
        cost_ns = self._index_cost_ns(nprobe, nprobe * self.row_count / self._lists, count)
        return cost_ns / 1000 + (_DEAD_US if has_dead else 0.0)

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
        if overrides is not None and (overrides.exact or overrides.nprobe or overrides.candidates):
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
        known = self._known(allow, allowed_count, allowed_rows)
        if known is not None:
            return self._search_allowed(query, k, setting, bits=allow, known=known)
        if setting is None:
            return self._exact(query, k, None, None, "the index does not reach this recall")
        if k > K_CALIBRATED_MAX:
            exact_ns = self._exact_cost_ns(self.row_count)
            found = self._search_by_density(query, k, setting, allowed=self._sizes, selector=None, exact_ns=exact_ns)
            return found or self._exact(query, k, None, None, "comparing all rows is cheaper")
        candidates = self._nearest_lists(query, setting.nprobe, setting.candidates, setting.parameters)
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
        return super().search_batch(
            queries,
            k,
            recall=recall,
            allow=allow,
            allowed_count=allowed_count,
            allowed_rows=allowed_rows,
            overrides=overrides,
        )

    def _setting(self, recall: float, k: int) -> Setting | None:
        key = (recall, k)
        if key in self._settings:
            return self._settings[key]
        assert 0 < recall <= 1 and k > 0
        step = None if recall >= 1 else step_for(self._calibration, recall, k)
        if step is not None and self._step_cost_ns(step) > self._exact_cost_ns(self.row_count):
            step = None
        setting = None if step is None else Setting(step, recall, self._calibration)
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

    # ------------------------------------------------------------------ filters and tombstones

    def _search_allowed(
        self, query: Rows, k: int, setting: Setting | None, *, bits: Bitmap | None, known: Allowed
    ) -> Found:
        """bits: None only when the rows are known."""
        count = known.count
        if setting is None:
            return self._exact(query, k, bits, known, "the index does not reach this recall")
        exact_ns = self._exact_cost_ns(count)
        least_ns = self._costs.fixed_ns + setting.candidates * self._costs.candidate_ns
        if count <= max(k, _EXACT_ROWS_ALWAYS) or exact_ns < least_ns:
            return self._exact(query, k, bits, known, "few allowed rows")
        if bits is None:
            bits = bitmap.from_rows(self._rows(None, known), self.row_count)
        counts = known.per_list(bits, self._list_of_row, self._sizes)
        selector = faiss.IDSelectorBitmap(len(bits), pointer(bits))
        if counts.share_min >= _EVEN_SHARE_MIN and k <= K_CALIBRATED_MAX / 2:
            found = self._search_even(query, k, setting, count, selector)
        else:
            found = self._search_by_density(
                query, k, setting, allowed=counts.allowed, selector=selector, exact_ns=exact_ns
            )
        if found is None:
            return self._exact(query, k, bits, known, "comparing the allowed rows is cheaper")
        return found

    def _search_even(self, query: Rows, k: int, setting: Setting, count: int, selector: Any) -> Found | None:
        """Every list keeps most of its rows: the k-th allowed row is about the k / share-th of all."""
        wider = self._setting(setting.recall, min(K_CALIBRATED_MAX, math.ceil(k * self.row_count / count)))
        if wider is None:
            return None
        parameters = faiss.SearchParametersIVF(nprobe=wider.nprobe, sel=selector)
        candidates = self._nearest_lists(query, wider.nprobe, setting.candidates, parameters)
        similarities, rows = self._block.top_of(query, candidates, k)
        if len(rows) < k:
            return None
        plan = Plan("index", "evenly spread filter", setting.candidates, nprobe=wider.nprobe, lists=wider.nprobe)
        return Found(similarities, rows, plan)

    def _search_by_density(
        self,
        query: Rows,
        k: int,
        setting: Setting,
        *,
        allowed: npt.NDArray[np.float32],
        selector: Any | None,
        exact_ns: float,
    ) -> Found | None:
        """Probe the lists where the density model expects the allowed neighbours; None when an exact search is cheaper."""
        self._block.check_query(query)
        use_one_thread()
        allowed_share = float(allowed.sum()) / self.row_count
        wide = padded(query, self._width)
        mu, inverse_spread = self._density.similarity_laws(wide)
        odds = self._density.odds(mu, inverse_spread, allowed, k)
        hits = odds * allowed
        order = np.argsort(hits * self._minus_inverse_cost)  # most hits for the time first
        reached = hits[order].cumsum()
        # The share of allowed rows where this query's neighbours lie, beside their share of all rows: about 1 = spread evenly.
        evenness = float(reached[-1]) / max(1e-30, float(np.dot(odds, self._sizes)) * allowed_share)
        level, count = setting.even_level, setting.candidates
        if k > K_CALIBRATED_MAX or not _EVEN_MIN <= evenness <= _EVEN_MAX:
            level, count = setting.uneven_level, min(self.row_count, math.ceil(UNEVEN_CANDIDATES * count))
        nprobe = min(self._lists, int(reached.searchsorted(level * reached[-1])) + 1)
        lists = order[:nprobe]
        if exact_ns < self._index_cost_ns(nprobe, float(self._sizes[lists].sum()), count):
            return None
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        if selector is not None:
            parameters.sel = selector
        candidates = self._scan(wide, self._coarse_scores(wide)[lists], lists, count, parameters)
        similarities, rows = self._block.top_of(query, candidates, k)
        if len(rows) < k:
            return None
        return Found(
            similarities,
            rows,
            Plan("index", "density of allowed rows", count, nprobe=nprobe, lists=nprobe),
        )

    def _coarse_scores(self, wide: Rows) -> npt.NDArray[np.float32]:
        """What faiss wants to know of each list: inner product with, or squared distance to its centroid, float32 (lists,)."""
        scores = np.empty(self._lists, np.float32)
        euclidean = self._block.space.metric is Metric.EUCLIDEAN
        call = faiss.fvec_L2sqr_ny if euclidean else faiss.fvec_inner_products_ny
        call(pointer(scores), pointer(wide), self._centroids_at, self._width, self._lists)
        return scores

    def _nearest_lists(self, query: Rows, nprobe: int, count: int, parameters: Any) -> RowArray:
        """Candidates out of the lists nearest to the query; a buffer of this thread."""
        self._block.check_query(query)
        use_one_thread()
        wide = query if len(query) == self._width else padded(query, self._width)
        if self._ranks_by_product:
            scores = self._coarse_scores(wide)
            lists = np.argsort(-scores)[:nprobe]
            return self._scan(wide, scores[lists], lists, count, parameters)
        rows, _, rows_at, values_at = self._buffers.of(count)
        try:
            self._index.search_c(1, pointer(wide), count, values_at, rows_at, parameters)
        except RuntimeError as error:
            raise index_failed(error) from error
        return rows

    def _scan(
        self, wide: Rows, scores: npt.NDArray[np.float32], lists: npt.NDArray[np.int64], count: int, parameters: Any
    ) -> RowArray:
        """Candidates out of the given lists. lists, scores: C-order (p,). A buffer of this thread."""
        assert lists.dtype == np.int64 and lists.flags.c_contiguous and scores.flags.c_contiguous
        assert len(lists) == len(scores) and len(wide) == self._width
        rows, _, rows_at, values_at = self._buffers.of(count)
        try:
            self._index.search_preassigned_c(
                1, pointer(wide), count, pointer(lists), pointer(scores), values_at, rows_at, False, parameters
            )
        except RuntimeError as error:
            raise index_failed(error) from error
        return rows

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
        known = self._known(allow, allowed_count, allowed_rows)
        if overrides.exact:
            return self._exact(query, k, allow, known, "asked for")
        calibrated = self._setting(recall, k)
        nprobe = overrides.nprobe or (calibrated.nprobe if calibrated else self._lists)
        count = overrides.candidates or (calibrated.candidates if calibrated else 20 * k)
        nprobe = max(1, min(nprobe, self._lists))
        count = max(1, min(max(k, count), self.row_count))
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        if known is not None:
            bits = bitmap.from_rows(self._rows(None, known), self.row_count) if allow is None else allow
            parameters.sel = faiss.IDSelectorBitmap(len(bits), pointer(bits))
        candidates = self._nearest_lists(query, nprobe, count, parameters)
        similarities, rows = self._block.top_of(query, candidates, k)
        if len(rows) < min(k, self.row_count if known is None else known.count):
            return self._exact(query, k, allow, known, "the probed lists hold fewer than k rows")
        return Found(similarities, rows, Plan("index", "set by hand", count, nprobe=nprobe, lists=nprobe))


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
    length = DensityModel.packed_length(body.lists, dimension)
    density_path = directory / DENSITY_NAME
    if meta.files.get(DENSITY_NAME) is None or meta.files[DENSITY_NAME].bytes != 4 * length:
        refuse(density_path, "does not describe these lists")
    values = np.asarray(np.memmap(density_path, np.float32, "r", shape=(length,)))
    density = DensityModel.unpacked(values, body.lists, dimension, euclidean=block.space.metric is Metric.EUCLIDEAN)
    return IvfIndex(block, index, np.asarray(list_of_row), density, body)
