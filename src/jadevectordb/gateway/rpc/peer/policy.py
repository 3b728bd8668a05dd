"""When a call to a peer is tried again, and when a peer is not asked at all: decided from events and a clock value.

Nothing here waits, reads a clock or knows gRPC: who performs the calls tells what happened and when. A circuit breaker
(Nygard, Release It!) spares a peer that fails, and its callers the wait:

            failures              open_s passed
    CLOSED ----------> OPEN --------------------> HALF_OPEN        one call is let through, the probe
       ^                ^                            |  |
       |                +------- probe failed -------+  |          open_s doubles
       +------------------------ probe answered --------+          open_s starts over
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from jadevectordb.model.limits import (
    BREAKER_CALLS_MAX,
    BREAKER_FAILURES_MIN,
    BREAKER_OPEN_S_MAX,
    BREAKER_OPEN_S_MIN,
    BREAKER_WINDOW_S,
    PEER_HEALTH_S_MAX,
    PEER_OTHER_S_MAX,
    PEER_RETRY_S_MIN,
    PEER_SEARCH_S_MAX,
    PEER_TRIES_MAX,
    PEER_WRITE_S_MAX,
)


class CallKind(StrEnum):
    """What a call is for; its deadline follows from it."""

    SEARCH = "search"
    WRITE = "write"
    HEALTH = "health"
    OTHER = "other"


DEADLINE_S: dict[CallKind, float] = {
    CallKind.SEARCH: PEER_SEARCH_S_MAX,
    CallKind.WRITE: PEER_WRITE_S_MAX,
    CallKind.HEALTH: PEER_HEALTH_S_MAX,
    CallKind.OTHER: PEER_OTHER_S_MAX,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call ended that did not succeed.

    status: name of the gRPC status. jade_code: the precise code when the peer's own code answered; "" when the answer came
    from below it: a connection that broke, a server too busy to look at the call, a deadline that passed here.
    """

    status: str
    jade_code: str = ""


class Verdict(StrEnum):
    """What the end of a call says about the peer."""

    ANSWERED = "answered"  # it works; a refusal is an answer
    FAILED = "failed"
    UNDECIDED = "undecided"  # the caller gave up


_FROM_BELOW_TRANSIENT = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN"})
_ANSWERED_TRANSIENT = frozenset({"UNAVAILABLE", "RATE_LIMITED"})
_FROM_BELOW_SICK = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"})
_ANSWERED_SICK = frozenset({"INTERNAL_ERROR", "IO_ERROR", "TIMEOUT"})


def is_transient(failure: Failure) -> bool:
    """Whether the same call may succeed in a moment. A passed deadline is not: there is no time left to try again."""
    if failure.jade_code:
        return failure.jade_code in _ANSWERED_TRANSIENT
    return failure.status in _FROM_BELOW_TRANSIENT


def broke_connection(failure: Failure) -> bool:
    """Whether the connection is not to be used again: the call failed below the peer's own code."""
    return not failure.jade_code and failure.status in ("UNAVAILABLE", "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED")


def verdict_of(failure: Failure | None) -> Verdict:
    """None is success. A peer that says it is not ready, or has no such database, works; one that can't read its disk does not."""
    if failure is None:
        return Verdict.ANSWERED
    if failure.status == "CANCELLED":
        return Verdict.UNDECIDED
    sick = failure.jade_code in _ANSWERED_SICK if failure.jade_code else failure.status in _FROM_BELOW_SICK
    return Verdict.FAILED if sick else Verdict.ANSWERED


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """tries_max >= 1 counts the first try. delay_s_min: before the second try; doubled before each further one."""

    tries_max: int = PEER_TRIES_MAX
    delay_s_min: float = PEER_RETRY_S_MIN

    def delay_s(
        self, tries_done: int, failure: Failure, *, repeatable: bool, remaining_s: float, jitter: float
    ) -> float | None:
        """How long to wait before the next try; None: give up with this failure.

        repeatable: doing the call twice does what doing it once does. remaining_s: until the call's deadline.
        jitter: 0 <= jitter < 1, spreads callers that failed together over half a delay more.
        """
        assert tries_done >= 1 and 0.0 <= jitter < 1.0
        if not repeatable or tries_done >= self.tries_max or not is_transient(failure):
            return None
        delay = self.delay_s_min * 2.0 ** (tries_done - 1) * (1.0 + jitter / 2.0)
        return delay if delay < remaining_s else None


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """What a person sees of a breaker. retry_in_s: until a probe is let through, 0.0 when calls are; opened: how often it did."""

    state: BreakerState
    calls: int
    failures: int
    retry_in_s: float
    opened: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to make one call; to be given back with its outcome. epoch: of the breaker, so that old outcomes change nothing."""

    epoch: int
    probe: bool


class CircuitBreaker:
    """Of one peer. Not thread-safe: the caller holds a lock. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._state = BreakerState.CLOSED
        self._recent: deque[tuple[float, bool]] = deque(
            maxlen=BREAKER_CALLS_MAX
        )  # when it ended, whether it was answered
        self._open_s = BREAKER_OPEN_S_MIN  # BREAKER_OPEN_S_MIN <= _open_s <= BREAKER_OPEN_S_MAX
        self._opened_at_s = 0.0  # meaningful while OPEN
        self._probing = False  # only while HALF_OPEN: at most one probe is under way
        self._epoch = 0  # grows with every change of state
        self._opened = 0

    def admit(self, now_s: float) -> Ticket | None:
        """Leave for a call, or None: don't ask the peer now."""
        if self._state is BreakerState.OPEN and now_s >= self._opened_at_s + self._open_s:
            self._become(BreakerState.HALF_OPEN)
        match self._state:
            case BreakerState.CLOSED:
                return Ticket(self._epoch, probe=False)
            case BreakerState.OPEN:
                return None
            case BreakerState.HALF_OPEN:
                if self._probing:
                    return None
                self._probing = True
                return Ticket(self._epoch, probe=True)

    def record(self, ticket: Ticket, verdict: Verdict, now_s: float) -> None:
        """How an admitted call ended."""
        if ticket.epoch != self._epoch:
            return  # begun before the state changed: says nothing about now
        if ticket.probe:
            self._probing = False
            if verdict is Verdict.ANSWERED:
                self._open_s = BREAKER_OPEN_S_MIN
                self._become(BreakerState.CLOSED)
            elif verdict is Verdict.FAILED:
                self._open_s = min(2.0 * self._open_s, BREAKER_OPEN_S_MAX)
                self._open(now_s)
            return
        if verdict is Verdict.UNDECIDED:
            return
        self._recent.append((now_s, verdict is Verdict.ANSWERED))
        self._forget_old(now_s)
        failures = sum(not answered for _, answered in self._recent)
        if failures >= BREAKER_FAILURES_MIN and 2 * failures >= len(self._recent):
            self._open(now_s)

    def status(self, now_s: float) -> BreakerStatus:
        self._forget_old(now_s)
        waiting_s = self._opened_at_s + self._open_s - now_s if self._state is BreakerState.OPEN else 0.0
        failures = sum(not answered for _, answered in self._recent)
        return BreakerStatus(self._state, len(self._recent), failures, max(0.0, waiting_s), self._opened)

    def _open(self, now_s: float) -> None:
        self._opened_at_s = now_s
        self._opened += 1
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self._state = state
        self._epoch += 1
        self._probing = False
        if state is BreakerState.CLOSED:
            self._recent.clear()

    def _forget_old(self, now_s: float) -> None:
        # While open, what opened it stays to be looked at
        while self._state is BreakerState.CLOSED and self._recent and self._recent[0][0] < now_s - BREAKER_WINDOW_S:
            self._recent.popleft()
