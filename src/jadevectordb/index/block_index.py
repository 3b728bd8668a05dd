"""What every index over a block shares (`BlockIndex`), and what those share that only propose candidates (`CandidateIndex`)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jadevectordb.index import bitmap
from jadevectordb.index.allowed import Allowed, AllowedMemory
from jadevectordb.index.api import RECALL_DEFAULT, Found, Plan, SearchOverrides
from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.index.exact import SELECTOR_SHARE_MIN, RowBlock
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.operations import Rows

_NO_BITS = bitmap.empty(0)  # stands in where the rows are known
_NO_OVERRIDES = SearchOverrides()


class BlockIndex(ABC):
    """Implements `VectorIndex` but for `kind`, `memory_bytes`, `cost_us` and `search`: exact answers, batches, what is allowed."""

    def __init__(self, block: RowBlock) -> None:
        self._block = block
        self._memory = AllowedMemory()

    @property
    @abstractmethod
    def kind(self) -> IndexKind: ...

    @property
    @abstractmethod
    def memory_bytes(self) -> int: ...

    @abstractmethod
    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float: ...

    @property
    def row_count(self) -> int:
        return self._block.row_count

    @abstractmethod
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
    ) -> Found: ...

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
        return Found(similarities, rows, Plan("exact", "all within a threshold", self.row_count))

    def _known(self, allow: Bitmap | None, count: int | None, rows: RowArray | None) -> Allowed | None:
        """What is known of the rows that may be found; None when all may."""
        if rows is not None:
            return Allowed(len(rows), rows)
        if allow is None:
            return None
        assert len(allow) >= bitmap.size_bytes(self.row_count)
        return self._memory.of(allow, count)

    def _exact(self, query: Rows, k: int, bits: Bitmap | None, known: Allowed | None, reason: str) -> Found:
        if known is None:
            similarities, rows = self._block.top(query, k)
            return Found(similarities, rows, Plan("exact", reason, self.row_count))
        if bits is not None and known.count > SELECTOR_SHARE_MIN * self.row_count:
            similarities, rows = self._block.top(query, k, allow=bits)
        else:
            similarities, rows = self._block.top_of(query, self._rows(bits, known), k)
        return Found(similarities, rows, Plan("exact", reason, known.count))

    @staticmethod
    def _rows(bits: Bitmap | None, known: Allowed) -> RowArray:
        return known.rows(bits if bits is not None else _NO_BITS)


class CandidateIndex(BlockIndex):
    """Leaves only `kind`, `memory_bytes`, `cost_us` and `_find`, the search of the structure itself."""

    @abstractmethod
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
        """Hits by the structure, or why only an exact search will do. recall < 1; known: what is allowed, None = all."""
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
        self._block.check_query(query)
        known = self._known(allow, allowed_count, allowed_rows)
        overrides = overrides or _NO_OVERRIDES
        if overrides.exact or recall >= 1.0:
            return self._exact(query, k, allow, known, "asked for")
        found = self._find(query, k, recall, bits=allow, known=known, overrides=overrides)
        return self._exact(query, k, allow, known, found) if isinstance(found, str) else found
