"""Vectors that another node sent, in the shape of a block of rows, so that hits and items are the same as those of a local search.

What an answer left out (vectors, when nobody asked for them) is fetched when it is first looked at, for all rows of the answer at
once. A vector that was changed meanwhile is not given out as the one that was found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.embedded.hits import Unpacker
from jadevectordb.index.api import Found as FoundRows
from jadevectordb.index.api import SearchOverrides
from jadevectordb.index.columns import Selection
from jadevectordb.index.text import TextReader
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows
from jadevectordb.ports.node_calls import Found, FoundWords, Items
from jadevectordb.segment.reader import Allowed
from jadevectordb.segment.records import HashArray

Fetch = Callable[[list[str], Seq[tuple[int, int]]], "Fetched"]


class Fetched:
    """By id: (version, metadata, vector) of what is there."""

    def __init__(self, by_id: dict[str, tuple[int, bytes, Rows]]) -> None:
        self.by_id = by_id


def unpacker_of(config: DatabaseConfig) -> Unpacker:
    """Rows arrive as the client sent them: nothing is to be unpacked, whatever the metric."""
    return Unpacker(Metric.DOT, config.dimension)


def vectors_in(data: bytes, count: int, config: DatabaseConfig) -> Rows | None:
    """(count, dimension), read-only; None when the answer has none. Raises CORRUPT for bytes of another length."""
    if not data:
        return None
    dtype = np.dtype(np.uint8 if config.metric is Metric.HAMMING else "<f4")
    if len(data) != count * config.dimension * dtype.itemsize:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"A node answered {len(data)} bytes for {count} vectors of dimension {config.dimension}: its version does not fit.",
        )
    return np.frombuffer(data, dtype).reshape(count, config.dimension)


class FetchedRows:
    """A `SegmentReader` over one answer, for reading rows; it can't be searched.

    metadata: None when the answer has none. vectors: as the client sent them, None when the answer has none. positions: (shard,
    sequence) that the answer was computed at; what is fetched for it is from no earlier.
    """

    name = "fetched"
    units = (0, 0)
    index_kind = ""
    text: TextReader | None = None

    def __init__(
        self,
        ids: list[str],
        versions: list[int],
        metadata: list[bytes] | None,
        vectors: Rows | None,
        positions: Seq[tuple[int, int]],
        fetch: Fetch,
    ) -> None:
        self._ids = ids
        self._versions = versions
        self._metadata = metadata
        self._vectors: Rows | list[Rows | None] | None = vectors
        self._positions = positions
        self._fetch = fetch
        self._fetching = threading.Lock()

    @classmethod
    def of(cls, answer: Found | FoundWords | Items, config: DatabaseConfig, fetch: Fetch) -> FetchedRows:
        count = len(answer.ids)
        metadata = answer.metadata if len(answer.metadata) == count else None
        vectors = vectors_in(answer.vectors, count, config)
        return cls(answer.ids, answer.versions, metadata, vectors, answer.watermarks, fetch)

    @property
    def row_count(self) -> int:
        return len(self._ids)

    def id_of(self, row: int) -> str:
        return self._ids[row]

    def ids_of(self, rows: Seq[int]) -> list[str]:
        return [self._ids[row] for row in rows]

    def version_of(self, row: int) -> int:
        return self._versions[row]

    def metadata_of(self, row: int) -> bytes:
        if self._metadata is None:
            self._fill()
        assert self._metadata is not None
        found = self._metadata[row]
        if not found:  # never valid JSON: it was not there any more
            raise self._changed(row)
        return found

    def vector_of(self, row: int) -> Rows:
        if self._vectors is None:
            self._fill()
        assert self._vectors is not None
        found = self._vectors[row]
        if found is None:
            raise self._changed(row)
        return found

    def _fill(self) -> None:
        with self._fetching:
            if self._vectors is not None and self._metadata is not None:
                return
            by_id = self._fetch(self._ids, self._positions).by_id
            same = [
                found if found is not None and found[0] == version else None
                for found, version in zip(map(by_id.get, self._ids), self._versions, strict=True)
            ]
            if self._metadata is None:
                self._metadata = [b"" if found is None else found[1] for found in same]
            if self._vectors is None:
                self._vectors = [None if found is None else found[2] for found in same]

    def _changed(self, row: int) -> JadeError:
        return JadeError(
            ErrorCode.CONFLICT,
            f"Vector {self._ids[row]!r} was changed or deleted after it was found: search again, and ask for vectors in the search "
            "itself (include) to get both at once.",
            details={"id": self._ids[row]},
        )

    def blame(self, error: Exception) -> Exception:
        return error

    # What blocks of rows can do beside, and these are never asked

    def search(
        self, query: Rows, k: int, recall: float, allowed: Allowed | None, overrides: SearchOverrides | None
    ) -> FoundRows:
        raise NotImplementedError("an answer is not searched again")

    def search_range(
        self, query: Rows, similarity_min: float, allowed: Allowed | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        raise NotImplementedError("an answer is not searched again")

    def select(self, node: Filter) -> Selection:
        raise NotImplementedError("an answer is not filtered again")

    def hash_order(self) -> tuple[HashArray, npt.NDArray[Any]]:
        raise NotImplementedError("an answer is in the order it has")

    def find(self, ids: Seq[str], hashes: HashArray) -> dict[int, list[int]]:
        raise NotImplementedError("an answer is read by its rows")

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        raise NotImplementedError("an answer is not searched again")
