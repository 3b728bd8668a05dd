"""What a search index is to the rest of the engine.

An index finds the rows nearest to a query within one immutable block of search rows (a sealed segment; row number =
offset), and gives their exact similarities: structures only propose candidates, every result is compared exactly. Files,
ids, metadata, filters and tombstones are the segment's business; it passes what may be found as an `allow` bitmap.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.operations import Rows

RECALL_DEFAULT = 0.95
K_TYPICAL = 10  # hits of the search whose cost an index estimates


class SearchOverrides(msgspec.Struct, frozen=True, gc=False):
    """What an expert sets by hand instead of a recall target. None: the calibrated value."""

    nprobe: int | None = None  # IVF: lists to look into
    candidates: int | None = None  # IVF, LSH: rows compared exactly
    ef_search: int | None = None  # HNSW: length of the list of best nodes kept
    exact: bool = False  # compare every row, whatever the index


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What a search did, for `explain`. Counts that do not belong to the strategy are 0."""

    strategy: str  # "exact": every (allowed) row compared; "index": candidates from the structure, compared exactly
    reason: str
    compared: int  # rows compared exactly
    nprobe: int = 0
    lists: int = 0
    ef_search: int = 0


class Found(msgspec.Struct, frozen=True, gc=False):
    """Hits of one search, best first, equal similarities by row ascending; fewer than k when fewer exist.

    More than k where rows found are exactly as similar as the k-th: the caller keeps those with the smallest ids.
    """

    similarities: npt.NDArray[np.float32]
    rows: RowArray
    plan: Plan


class VectorIndex(Protocol):
    """A searchable block. Every method may be called from many threads at once."""

    @property
    def kind(self) -> IndexKind:
        """What the index really is; FLAT when the block was too small for what was asked."""
        ...

    @property
    def row_count(self) -> int: ...

    @property
    def memory_bytes(self) -> int:
        """Memory of this process that the index takes beyond the page cache."""
        ...

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        """About how many microseconds a search for `K_TYPICAL` hits at the default recall takes here.

        has_dead: all rows may be found but for some.
        """
        ...

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
        """The best k allowed rows for one search row from `VectorSpace.prepare_query`.

        recall: the share of the true best k to be found on average, 0 < recall <= 1; 1.0 gives the exact result.
        allow: bitmap of the rows that may be found, None = all. It must not change while it lives: counts over it are kept.
        allowed_count: exactly how many rows it holds, counted when not given.
        allowed_rows: the same rows as ascending int64, when the caller has them; `allow` may then be None.
        """
        ...

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
        """`search` for each of queries (m, row_width), sharing work where that pays."""
        ...

    def search_within(self, query: Rows, similarity_min: float, *, allow: Bitmap | None = None) -> Found:
        """Every allowed row at least this similar, exactly, best first."""
        ...
