"""What a search was asked, what was done about it, and what was found: small values that travel between the steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jadevectordb.index.api import SearchOverrides
from jadevectordb.model.filters import Filter
from jadevectordb.model.operations import Rows
from jadevectordb.segment.reader import SegmentReader

Match = tuple[float, str, SegmentReader, int]  # (rank score, larger is better; id; where: segment and row)


@dataclass(slots=True)
class SearchRequest:
    """One search after validation.

    query: (width,) as `VectorSpace.prepare_query` made it, None for text alone. k: hits wanted, None = all (range only).
    similarity_min: only hits about this similar or more (internal scale, larger is nearer). within: find all such, exactly.
    score_min, distance_max: the same as the caller said it, on the public scale, to the last bit.
    """

    query: Rows | None
    k: int | None
    recall: float
    filter: Filter | None = None
    overrides: SearchOverrides | None = None
    similarity_min: float | None = None
    within: bool = False
    score_min: float | None = None
    distance_max: float | None = None
    text: str | None = None
    fusion: str = "rrf"
    alpha: float = 0.7
    rrf_k: int = 60
    exclude_id: str | None = None
    group_by: str | None = None
    group_size: int = 1


@dataclass(slots=True)
class SegmentPlan:
    """What one segment did. matches: rows alive that the filter lets through; rows: alive in all."""

    segment: str
    index: str
    rows: int
    matches: int
    strategy: str
    reason: str
    compared: int
    nprobe: int
    lists: int
    ef_search: int
    filter_us: float
    search_us: float


@dataclass(slots=True)
class Explanation:
    """The plan of a search with what it cost; times in microseconds of wall time."""

    recall: float
    segments: list[SegmentPlan] = field(default_factory=list)
    text_terms: list[str] = field(default_factory=list)
    fusion: str = ""
    depth: int = 0
    merge_us: float = 0.0
    total_us: float = 0.0

    @property
    def matches(self) -> int:
        return sum(s.matches for s in self.segments)

    @property
    def candidates(self) -> int:
        """Rows compared exactly."""
        return sum(s.compared for s in self.segments)

    def as_dict(self) -> dict[str, Any]:
        segments = [{name: getattr(s, name) for name in SegmentPlan.__slots__} for s in self.segments]
        return {
            "recall": self.recall,
            "matches": self.matches,
            "candidates": self.candidates,
            "text_terms": self.text_terms,
            "fusion": self.fusion,
            "depth": self.depth,
            "segments": segments,
            "merge_us": self.merge_us,
            "total_us": self.total_us,
        }
