"""The query log port: which searches were run, and what came of them; asked for sums, never for more than a page of rows.

It is kept for people who look after a database, not for correctness: a crash may lose the last moments, never the order or
the shape of what was written before. Times are ms since 1970, windows include their start and exclude their end.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from enum import StrEnum
from typing import Protocol

import msgspec


class QueryKind(StrEnum):
    VECTOR = "vector"
    HYBRID = "hybrid"
    BM25 = "bm25"
    RERANK = "rerank"


class Granularity(StrEnum):
    """Width of a bucket of time, in UTC; a week begins on Monday."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class QueryRecord(msgspec.Struct, frozen=True, gc=False):
    """One search. text: "" for a pure vector query. results: hits returned. error: the code it failed with, "" when it did not.

    fusion, alpha: how a hybrid search weighed its rankings, "" and None otherwise. time_ms: when it ended.
    """

    query_id: str
    database: str  # id
    user: str  # id
    session: str
    kind: QueryKind
    text: str
    k: int
    latency_ms: float
    results: int
    error: str
    fusion: str
    alpha: float | None
    time_ms: int


class LoggedQuery(msgspec.Struct, frozen=True):
    record: QueryRecord
    normalized: str  # what texts that mean the same share


class BucketStats(msgspec.Struct, frozen=True):
    """Sums over one bucket. Percentiles by nearest rank, over every search of the bucket, failed ones included."""

    start_ms: int
    total: int
    failed: int
    zero_results: int  # succeeded and found nothing
    latency_avg_ms: float
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    users: int
    sessions: int
    vector: int
    hybrid: int
    bm25: int
    rerank: int


class Pattern(msgspec.Struct, frozen=True):
    """Searches that share a normalised text. example: the text of one of them, as it was sent."""

    normalized: str
    example: str
    count: int
    latency_avg_ms: float
    results_avg: float
    first_ms: int
    last_ms: int


class Trend(msgspec.Struct, frozen=True):
    normalized: str
    example: str
    current: int
    previous: int


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said about a search. label: whom the caller named; user: who was signed in."""

    feedback_id: str
    database: str
    query_id: str
    query_known: bool
    user: str
    label: str = ""
    rating: int | None = None
    text: str = ""
    clicked_id: str = ""
    clicked_rank: int | None = None
    time_ms: int


class QueryLog(Protocol):
    def append(self, queries: Seq[LoggedQuery]) -> None:
        """Keep these; one transaction."""
        ...

    def page(self, database: str, start_ms: int, end_ms: int, limit: int, offset: int) -> list[QueryRecord]:
        """Newest first."""
        ...

    def count(self, database: str, start_ms: int, end_ms: int) -> int: ...

    def buckets(self, database: str, start_ms: int, end_ms: int, granularity: Granularity) -> list[BucketStats]:
        """Buckets with at least one search, oldest first."""
        ...

    def total(self, database: str, start_ms: int, end_ms: int) -> BucketStats:
        """The whole window as one bucket; zeros when nothing was searched."""
        ...

    def patterns(
        self, database: str, start_ms: int, end_ms: int, count_min: int, limit: int, *, found_nothing: bool = False
    ) -> list[Pattern]:
        """Most frequent first, then by text. found_nothing: only searches that succeeded without a hit."""
        ...

    def slowest(self, database: str, start_ms: int, end_ms: int, limit: int) -> list[QueryRecord]: ...

    def errors(self, database: str, start_ms: int, end_ms: int) -> list[tuple[str, int]]:
        """Error codes and how often each came, most frequent first."""
        ...

    def trends(
        self, database: str, start_ms: int, middle_ms: int, end_ms: int, growth_min: float, limit: int
    ) -> list[Trend]:
        """Texts searched in [middle, end) at least `growth_min` (a fraction) more often than in [start, middle).

        One that is new grows from 0 as if from 1, and counts from its second search on. Greatest growth first, then the more
        frequent, then by text.
        """
        ...

    def knows(self, database: str, query_id: str) -> bool: ...

    def add_feedback(self, feedback: Feedback) -> None:
        """Durable on return."""
        ...

    def feedback(self, database: str, start_ms: int, end_ms: int, limit: int) -> list[Feedback]:
        """Newest first."""
        ...

    def prune(self, before_ms: int, rows_max: int) -> int:
        """Forget what is older, and the oldest beyond this many rows; how many searches went."""
        ...

    def forget(self, database: str) -> None:
        """Everything about a database that is no more."""
        ...

    def close(self) -> None: ...
