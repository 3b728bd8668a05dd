"""Searches that took too long, with the plan that says why.

A search that ran without `explain` is run once more in the background to get its plan; what the plan says then is about the
second run, whose time stands beside the first. A flood of slow searches is not doubled: background runs are few and kept to
a share of the time; the others are kept without a plan.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

import msgspec

from jadevectordb.gateway.embedded.hits import Hits as EngineHits
from jadevectordb.gateway.service.watched import DutyCycle, ObservedSearch, filter_text
from jadevectordb.model.errors import JadeError
from jadevectordb.model.limits import SLOW_QUERIES_MAX, SLOW_QUERIES_WAITING_MAX, SLOW_QUERY_TEXT_MAX
from jadevectordb.ports.clock import Clock

logger = logging.getLogger("jadevectordb.slow_query")

TIME_SHARE_MAX = 0.05  # of one core
PER_S_MAX = 2.0
_OPTIONS = (
    "id", "text", "fusion", "alpha", "threshold", "max_distance", "exact", "nprobe", "candidates", "ef_search",
    "group_by", "group_size",
)  # fmt: skip


class SlowQuery(msgspec.Struct, kw_only=True):
    """plan: as `Database.explain` gives it; None when it was not taken, and `plan_note` says why."""

    time_ms: int
    request_id: str
    database: str  # id
    database_name: str
    duration_ms: float
    k: int | None
    recall: float
    filter: str
    options: dict[str, Any]
    hits: int
    plan: dict[str, Any] | None = None
    plan_note: str = ""


class SlowQueries:
    """threshold_ms: a search that takes as long or longer is slow; None = never. Thread-safe."""

    def __init__(self, threshold_ms: float | None, clock: Clock) -> None:
        self.threshold_s = float("inf") if threshold_ms is None else threshold_ms / 1000
        self._clock = clock
        self._cycle = DutyCycle(TIME_SHARE_MAX, PER_S_MAX, clock.monotonic_s)
        self._lock = threading.Lock()
        self._newest: deque[SlowQuery] = deque(maxlen=SLOW_QUERIES_MAX)
        self._waiting: deque[tuple[ObservedSearch, SlowQuery]] = deque()
        self.total = 0

    def note(self, search: ObservedSearch) -> None:
        """Keep a slow search; it is explained later unless its answer has the plan already."""
        slow = SlowQuery(
            time_ms=self._clock.now_ms(),
            request_id=search.request_id,
            database=search.database.id,
            database_name=search.database.record.name,
            duration_ms=round(search.seconds * 1000, 3),
            k=search.k,
            recall=search.recall,
            filter=filter_text(search.filter),
            options=_shown(search),
            hits=len(search.hits),
        )
        explanation = search.hits.explanation if isinstance(search.hits, EngineHits) else None
        if explanation is not None:
            slow.plan, slow.plan_note = explanation.as_dict(), "of the search itself"
        with self._lock:
            self.total += 1
            self._newest.append(slow)
            waits = explanation is None and len(self._waiting) < SLOW_QUERIES_WAITING_MAX
            if waits:
                slow.plan_note = "about to be taken"
                self._waiting.append((search, slow))
            elif explanation is None:
                slow.plan_note = "not taken: too many slow searches at once"
        if not waits:
            _log(slow)

    @property
    def wait_s(self) -> float | None:
        """Seconds until `step` has something to do; None when nothing waits."""
        return self._cycle.wait_s if self._waiting else None

    def step(self) -> bool:
        """Explain the next one, if one waits and it is due. Whether it did."""
        if not self._waiting or not self._cycle.is_due():
            return False
        with self._lock:
            search, slow = self._waiting.popleft()
        started = self._clock.monotonic_s()
        try:
            plan = search.database.handle.explain(
                search.vector,
                k=search.k,
                filter=search.filter,
                recall=search.recall,
                **{name: value for name, value in search.options.items() if name in _OPTIONS},
            )
            note = "of a second run in the background"
        except JadeError as error:
            plan, note = None, f"not taken: {error.code}"
        self._cycle.spent(started)
        slow.plan_note, slow.plan = note, plan
        _log(slow)
        return True

    def newest(self, limit: int) -> list[SlowQuery]:
        """Newest first."""
        with self._lock:
            return list(reversed(self._newest))[:limit]


def _shown(search: ObservedSearch) -> dict[str, Any]:
    shown = {name: value for name, value in search.options.items() if name in _OPTIONS and value is not None}
    return {name: value[:SLOW_QUERY_TEXT_MAX] if isinstance(value, str) else value for name, value in shown.items()}


def _log(slow: SlowQuery) -> None:
    # Neither filter nor words: the log is read by more people than the data
    logger.warning(
        "slow search in %s: %.1f ms, k %s, recall %s%s%s",
        slow.database_name,
        slow.duration_ms,
        slow.k,
        slow.recall,
        ", filtered" if slow.filter else "",
        _outline(slow.plan),
        extra={
            "request_id": slow.request_id,
            "database": slow.database,
            "duration_ms": slow.duration_ms,
            "plan": slow.plan,
            "plan_note": slow.plan_note,
        },
    )


def _outline(plan: dict[str, Any] | None) -> str:
    """The plan in half a line: what each segment did."""
    if plan is None:
        return ""
    steps = [
        f"{segment['index']} {segment['strategy']} ({segment['matches']} of {segment['rows']} rows, "
        f"{segment['search_us'] / 1000:.1f} ms)"
        for segment in plan["segments"][:4]
    ]
    more = len(plan["segments"]) - len(steps)
    return "; " + "; ".join(steps) + (f"; {more} more segments" if more > 0 else "")
