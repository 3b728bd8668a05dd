"""What one segment did for a search, noted for `explain`."""

from __future__ import annotations

from time import perf_counter_ns

from jadevectordb.index.api import Plan
from jadevectordb.query.plan import Explanation, SegmentPlan
from jadevectordb.segment.reader import Allowed
from jadevectordb.shard.view import Part


def note(explain: Explanation, part: Part, allowed: Allowed | None, started: int, filtered: int, plan: Plan) -> None:
    """started, filtered: nanoseconds, when it began, and when it was known which rows are allowed; it ends now."""
    ended = perf_counter_ns()
    explain.segments.append(
        SegmentPlan(
            segment=part.reader.name,
            index=part.reader.index_kind or "not built yet",
            rows=part.live,
            matches=part.live if allowed is None else allowed.count,
            strategy=plan.strategy,
            reason=plan.reason,
            compared=plan.compared,
            nprobe=plan.nprobe,
            lists=plan.lists,
            ef_search=plan.ef_search,
            filter_us=(filtered - started) / 1000,
            search_us=(ended - filtered) / 1000,
        )
    )
