"""What reads give back: hits of a search, items of a get, pages of a scroll.

Metadata and vectors are read from the segment when they are first looked at, so a search pays only for what is used. A hit
belongs to the moment of its search: later writes don't change it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows
from jadevectordb.query.plan import Explanation
from jadevectordb.segment.reader import UNREADABLE, SegmentReader

_decode = msgspec.json.Decoder().decode


class _AnyObject(msgspec.Struct):
    """A JSON object of which nothing is wanted."""


_walk = msgspec.json.Decoder(_AnyObject).decode


class Item:
    """A stored vector. id: str. version: int, grows with every write of the id."""

    __slots__ = ("_database", "_metadata", "_row", "_segment", "_vector", "id")

    def __init__(self, vector_id: str, segment: SegmentReader, row: int, database: Unpacker) -> None:
        self.id = vector_id
        self._segment = segment
        self._row = row
        self._database = database
        self._metadata: dict[str, Any] | None = None
        self._vector: Rows | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """As stored; the dict is the caller's own."""
        if self._metadata is None:
            try:
                self._metadata = _decode(self._segment.metadata_of(self._row))
            except UNREADABLE as error:
                raise self._segment.blame(error) from error
        return self._metadata

    @property
    def metadata_json(self) -> bytes:
        """The metadata as stored: a JSON object in UTF-8. Raises CORRUPT for what damage made of it.

        It is walked over, not decoded: a fifth of a microsecond, so that no damaged bytes go into an answer.
        """
        text = self._segment.metadata_of(self._row)
        try:
            _walk(text)
            if not text.isascii():
                text.decode()
        except UNREADABLE as error:
            raise self._segment.blame(error) from error
        return text

    @property
    def vector(self) -> Rows:
        """float32 (dimension,) exactly as it was sent (uint8 zeros and ones under hamming); read-only."""
        if self._vector is None:
            self._vector = self._database.unpack(self._segment.vector_of(self._row))
        return self._vector

    @property
    def version(self) -> int:
        return self._segment.version_of(self._row)

    def as_dict(self, *, vector: bool = False) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain: dict[str, Any] = {"id": self.id, "version": self.version, "metadata": self.metadata}
        if vector:
            plain["vector"] = self.vector.tolist()
        return plain

    def __repr__(self) -> str:
        return f"Item(id={self.id!r}, version={self.version}, metadata={self.metadata!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Item):
            return NotImplemented
        return (self.id, self.version, self.metadata) == (other.id, other.version, other.metadata)

    __hash__ = None  # type: ignore[assignment]  # metadata is a dict

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"A {type(self).__name__} belongs to its open database and can't be pickled: pickle {type(self).__name__}.as_dict()."
        )


class Hit(Item):
    """A search result. score: larger is better for every metric: cosine similarity, dot product, or 1 / (1 + distance)."""

    __slots__ = ("score",)

    def __init__(self, score: float, vector_id: str, segment: SegmentReader, row: int, database: Unpacker) -> None:
        # The fields of Item once more: a second call per hit would be a measurable part of a search
        self.score = score
        self.id = vector_id
        self._segment = segment
        self._row = row
        self._database = database
        self._metadata = None
        self._vector = None

    def as_dict(self, *, vector: bool = False) -> dict[str, Any]:
        return {"score": self.score, **super().as_dict(vector=vector)}

    def __repr__(self) -> str:
        return f"Hit(id={self.id!r}, score={self.score:.6g}, metadata={self.metadata!r})"


class Hits(list[Hit]):
    """Hits, best first. explanation: what the search did, when it was asked to say (`explain=True`).

    missing_shards: of a cluster's database, those that did not answer, where the caller takes part of an answer.
    """

    __slots__ = ("explanation", "missing_shards")

    def __init__(
        self, hits: Any = (), explanation: Explanation | None = None, missing_shards: tuple[int, ...] = ()
    ) -> None:
        super().__init__(hits)
        self.explanation = explanation
        self.missing_shards = missing_shards

    @property
    def ids(self) -> list[str]:
        return [hit.id for hit in self]

    @property
    def scores(self) -> list[float]:
        return [hit.score for hit in self]


class Group:
    """Hits that share one value of the `group_by` field, best first. key: that value."""

    __slots__ = ("hits", "key")

    def __init__(self, key: Any, hits: list[Hit]) -> None:
        self.key = key
        self.hits = hits

    def __repr__(self) -> str:
        return f"Group(key={self.key!r}, hits={self.hits!r})"


class Page:
    """A stretch of a scroll. cursor: give it to the next call; None at the end."""

    __slots__ = ("cursor", "items")

    def __init__(self, items: list[Item], cursor: str | None) -> None:
        self.items = items
        self.cursor = cursor

    def __repr__(self) -> str:
        return f"Page({len(self.items)} items, cursor={self.cursor!r})"


class Unpacker:
    """Turns stored rows into what the caller sent: bits back to zeros and ones under hamming."""

    def __init__(self, metric: Metric, dimension: int) -> None:
        self._bits = metric is Metric.HAMMING
        self._dimension = dimension

    def unpack(self, row: Rows) -> Rows:
        if not self._bits:
            return row
        values: Rows = np.unpackbits(row, count=self._dimension, bitorder="little")
        values.flags.writeable = False
        return values
