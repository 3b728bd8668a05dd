"""FLAT: no structure, every allowed row is compared. Best below some thousand rows, and always exact."""

from __future__ import annotations

from jadevectordb.index.api import RECALL_DEFAULT, Found, Plan, SearchOverrides
from jadevectordb.index.bitmap import Bitmap, RowArray, count
from jadevectordb.index.calibration import exact_cost_us
from jadevectordb.index.exact import RowBlock
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.operations import Rows


class FlatIndex:
    """Exact search over a block; implements `VectorIndex`."""

    def __init__(self, block: RowBlock, reason: str = "flat index") -> None:
        self._block = block
        self._reason = reason

    @property
    def kind(self) -> IndexKind:
        return IndexKind.FLAT

    @property
    def row_count(self) -> int:
        return self._block.row_count

    @property
    def memory_bytes(self) -> int:
        return 0

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        del overrides
        return exact_cost_us(self._block, has_dead=has_dead)

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
        compared = _compared(self._block, allow, allowed_count, allowed_rows)
        similarities, rows = self._block.top(query, k, allow=allow, allowed_rows=allowed_rows)
        return Found(similarities, rows, Plan("exact", self._reason, compared))

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
        plan = Plan("exact", self._reason, _compared(self._block, allow, allowed_count, allowed_rows))
        if allowed_rows is not None:
            hits = [self._block.top_of(query, allowed_rows, k) for query in queries]
        else:
            hits = self._block.top_batch(queries, k, allow=allow)
        return [Found(similarities, rows, plan) for similarities, rows in hits]

    def search_within(self, query: Rows, similarity_min: float, *, allow: Bitmap | None = None) -> Found:
        similarities, rows = self._block.within(query, similarity_min, allow=allow)
        return Found(similarities, rows, Plan("exact", "all within a threshold", self._block.row_count))


def _compared(block: RowBlock, allow: Bitmap | None, allowed_count: int | None, rows: RowArray | None) -> int:
    if rows is not None:
        return len(rows)
    if allow is None:
        return block.row_count
    return count(allow) if allowed_count is None else allowed_count
