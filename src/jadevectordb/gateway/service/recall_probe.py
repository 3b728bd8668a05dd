"""The recall that clients really get: now and then an answered search is repeated exactly and the two answers are compared.

The repetition looks at the very view that the search saw, so writes in between do not count as mistakes. It runs in the
background, takes at most a small share of one core, and is skipped where an answer was exact anyway. A hit counts as right
when it is at least as similar as the true k-th: with equal scores there are many right answers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.watched import DutyCycle, ObservedSearch
from jadevectordb.index.api import SearchOverrides
from jadevectordb.model import filter_parse
from jadevectordb.model.errors import JadeError
from jadevectordb.model.limits import RECALL_SAMPLES_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.query import executor
from jadevectordb.query.plan import SearchRequest

TIME_SHARE_MAX = 0.02  # of one core
PER_S_MAX = 5.0
SAMPLE_AGE_S_MAX = 3600.0  # older samples say nothing about now
_SCORE_TOLERANCE = 1e-5  # two kernels may round the same similarity differently


@dataclass(frozen=True, slots=True)
class RecallEstimate:
    """Of the newest samples, at most an hour old. recall: their mean. target: the mean of what was asked for."""

    recall: float
    target: float
    samples: int
    samples_total: int


@dataclass(slots=True)
class _Samples:
    newest: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=RECALL_SAMPLES_MAX))
    total: int = 0


class RecallProbe:
    """one_in: repeat about one of so many searches; 0 = none. below: an integer from 0 to its argument, exclusive, by chance."""

    def __init__(self, one_in: int, clock: Clock, below: Callable[[int], int]) -> None:
        self.one_in = one_in
        self._clock = clock
        self._below = below
        self._cycle = DutyCycle(TIME_SHARE_MAX, PER_S_MAX, clock.monotonic_s)
        self._countdown = self._next_distance()
        self._waiting: ObservedSearch | None = None  # one place: a second sample would not be due anyway
        self._lock = threading.Lock()
        self._by_database: dict[str, _Samples] = {}

    def is_chosen(self) -> bool:
        """Whether this search is one of those to repeat. Cheap: called by every search, from many threads.

        A lost update among threads shifts a random distance a little, which does not matter.
        """
        self._countdown -= 1
        if self._countdown > 0:
            return False
        self._countdown = self._next_distance()
        return self.one_in > 0 and self._waiting is None and self._cycle.is_due()

    def offer(self, search: ObservedSearch) -> None:
        self._waiting = search

    @property
    def is_waiting(self) -> bool:
        return self._waiting is not None

    def step(self) -> bool:
        """Repeat the search that waits, if one does. Whether there was one."""
        search, self._waiting = self._waiting, None
        if search is None:
            return False
        started = self._clock.monotonic_s()
        try:
            recall = measured_recall(search)
        except JadeError:  # the database was closed or damaged meanwhile: its own calls say so
            recall = None
        self._cycle.spent(started)
        if recall is not None:
            with self._lock:
                samples = self._by_database.setdefault(search.database.id, _Samples())
                samples.newest.append((self._clock.monotonic_s(), recall, search.recall))
                samples.total += 1
        return True

    def estimate(self, database_id: str) -> RecallEstimate | None:
        """None while there is no sample of the last hour."""
        oldest = self._clock.monotonic_s() - SAMPLE_AGE_S_MAX
        with self._lock:
            samples = self._by_database.get(database_id)
            fresh = [] if samples is None else [sample for sample in samples.newest if sample[0] >= oldest]
            total = 0 if samples is None else samples.total
        if not fresh:
            return None
        count = len(fresh)
        return RecallEstimate(sum(s[1] for s in fresh) / count, sum(s[2] for s in fresh) / count, count, total)

    def keep_only(self, database_ids: set[str]) -> None:
        """Forget databases that are gone."""
        with self._lock:
            for gone in self._by_database.keys() - database_ids:
                del self._by_database[gone]

    def _next_distance(self) -> int:
        # By chance, or a client that repeats a round of questions would be asked about the same ones for ever
        return 1 + self._below(2 * self.one_in - 1) if self.one_in > 1 else 1


def measured_recall(search: ObservedSearch) -> float | None:
    """Share of the true k nearest that the answer holds; None when nothing matches. Raises what the database raises."""
    if isinstance(search.database.handle, ClusterDatabase):
        return None  # its view at the time of the search can't be had
    opened = search.database.handle._use()
    parsed = None if search.filter is None else filter_parse.parse(search.filter, opened.config.schema)
    assert search.vector is not None and search.k is not None
    request = SearchRequest(
        opened.space.prepare_query(search.vector), search.k, 1.0, parsed, overrides=SearchOverrides(exact=True)
    )
    truth = executor.search(search.view or opened.view, request, None, None)
    if not truth:
        return None
    ids = {match[1] for match in truth}
    last = opened.space.public_score(truth[-1][0])
    enough = last - _SCORE_TOLERANCE * max(abs(last), 1e-9)
    right = sum(hit.id in ids or hit.score >= enough for hit in search.hits)
    return min(1.0, right / len(truth))
