"""What every block of rows can be asked, growing or sealed. Queries are written against this and know no difference.

Row numbers are the block's own, from 0. A reader never changes: a growing segment is read through views of its first rows.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index import bitmap
from jadevectordb.index.api import Found, SearchOverrides
from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.index.columns import Selection
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.text import TextReader
from jadevectordb.model.filters import Filter
from jadevectordb.model.operations import Rows
from jadevectordb.segment.records import HashArray

# What reading flipped bits can end in. A segment is verified while opening up to a bound, and in the background beyond it:
# until then whoever reads turns these into what `SegmentReader.blame` finds.
UNREADABLE = (ValueError, IndexError, OverflowError, RecursionError, msgspec.MsgspecError)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The rows a search may return, as a bitmap or as ascending row numbers, whichever is at hand; count of them."""

    count: int
    bits: Bitmap | None
    rows: RowArray | None

    def as_bits(self, row_count: int) -> Bitmap:
        if self.bits is not None:
            return self.bits
        assert self.rows is not None
        return bitmap.from_rows(self.rows, row_count)


def range_in(
    block: RowBlock, row_count: int, query: Rows, similarity_min: float, allowed: Allowed | None
) -> tuple[npt.NDArray[np.float32], RowArray]:
    """Every allowed row among the first row_count at least this similar, best first."""
    bits = None if allowed is None else allowed.as_bits(row_count)
    return block.within(query, similarity_min, row_count=row_count, allow=bits)


class SegmentReader(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def units(self) -> tuple[int, int]:
        """First and last unit it covers: runs of the shard's rows in the order they were written."""
        ...

    @property
    def row_count(self) -> int: ...
    @property
    def index_kind(self) -> str:
        """ "growing", "" (sealed, index not built yet) or the kind of the index."""
        ...

    def search(
        self, query: Rows, k: int, recall: float, allowed: Allowed | None, overrides: SearchOverrides | None
    ) -> Found:
        """Nearest rows, best first. query: (width,) as `VectorSpace.prepare_query` made it."""
        ...

    def search_range(
        self, query: Rows, similarity_min: float, allowed: Allowed | None
    ) -> tuple[npt.NDArray[np.float32], RowArray]:
        """Every row at least this similar, best first; exact."""
        ...

    def select(self, node: Filter) -> Selection:
        """The rows whose metadata match, dead ones included."""
        ...

    @property
    def text(self) -> TextReader | None:
        """The full-text index; None when the database declares no text field."""
        ...

    def id_of(self, row: int) -> str: ...
    def ids_of(self, rows: Seq[int]) -> list[str]: ...
    def version_of(self, row: int) -> int: ...
    def metadata_of(self, row: int) -> bytes: ...
    def vector_of(self, row: int) -> Rows:
        """(width,) as the caller sent it; read-only."""
        ...

    def hash_order(self) -> tuple[HashArray, npt.NDArray[Any]]:
        """Hashes of all ids, ascending, and the row of each: the order of `scroll`."""
        ...

    def find(self, ids: Seq[str], hashes: HashArray) -> dict[int, list[int]]:
        """Position in ids -> rows that carry the id, dead ones included."""
        ...

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        """About how many microseconds a search without filter takes here."""
        ...

    def blame(self, error: Exception) -> Exception:
        """Why reading failed: CORRUPT naming the file when one is damaged (all are compared with their checksums now), else the error."""
        ...
