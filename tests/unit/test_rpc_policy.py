"""When a peer is asked again, and when not at all: on a clock the test moves."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.gateway.rpc.peer.policy import (
    BreakerState,
    CircuitBreaker,
    Failure,
    RetryPolicy,
    Verdict,
    broke_connection,
    is_transient,
    verdict_of,
)
from jadevectordb.model.limits import BREAKER_FAILURES_MIN, BREAKER_OPEN_S_MAX, BREAKER_OPEN_S_MIN, BREAKER_WINDOW_S

REFUSED = Failure("UNAVAILABLE")


def delay(
    tries: int, failure: Failure = REFUSED, repeatable: bool = True, left: float = 2.0, jitter: float = 0.0
) -> float | None:
    return RetryPolicy().delay_s(tries, failure, repeatable=repeatable, remaining_s=left, jitter=jitter)


# Retries


def test_delays_double_from_100_ms_and_end_with_the_third_try() -> None:
    assert [delay(tries) for tries in (1, 2, 3)] == [0.1, 0.2, None]
    assert delay(1, jitter=0.999) == pytest.approx(0.15, rel=0.01), "jitter adds up to half"


def test_only_what_may_be_done_twice_is_tried_again() -> None:
    assert delay(1, repeatable=False) is None


def test_no_try_begins_that_could_not_end_in_time() -> None:
    assert delay(1, left=0.1) is None
    assert delay(1, left=0.11) == 0.1
    assert delay(1, Failure("DEADLINE_EXCEEDED")) is None


@pytest.mark.parametrize(
    ("failure", "again", "verdict", "breaks"),
    [
        (Failure("UNAVAILABLE"), True, Verdict.FAILED, True),  # nobody there, or the connection broke
        (Failure("INTERNAL"), True, Verdict.FAILED, True),  # the stream was reset
        (
            Failure("RESOURCE_EXHAUSTED"),
            True,
            Verdict.FAILED,
            False,
        ),  # too many calls for the server to look at this one
        (Failure("DEADLINE_EXCEEDED"), False, Verdict.FAILED, True),
        (Failure("CANCELLED"), False, Verdict.UNDECIDED, False),
        (Failure("UNIMPLEMENTED"), False, Verdict.ANSWERED, False),
        (
            Failure("UNAVAILABLE", "UNAVAILABLE"),
            True,
            Verdict.ANSWERED,
            False,
        ),  # it says so itself: starting, or behind
        (Failure("RESOURCE_EXHAUSTED", "RATE_LIMITED"), True, Verdict.ANSWERED, False),
        (Failure("RESOURCE_EXHAUSTED", "DISK_FULL"), False, Verdict.ANSWERED, False),
        (Failure("NOT_FOUND", "UNKNOWN_DATABASE"), False, Verdict.ANSWERED, False),
        (Failure("ABORTED", "VERSION_CONFLICT"), False, Verdict.ANSWERED, False),
        (Failure("INTERNAL", "IO_ERROR"), False, Verdict.FAILED, False),
        (Failure("INTERNAL", "INTERNAL_ERROR"), False, Verdict.FAILED, False),
    ],
)
def test_what_a_failure_means(failure: Failure, again: bool, verdict: Verdict, breaks: bool) -> None:
    assert (is_transient(failure), verdict_of(failure), broke_connection(failure)) == (again, verdict, breaks)


# The circuit breaker


def call(breaker: CircuitBreaker, now_s: float, verdict: Verdict) -> bool:
    """Whether a call was let through; it ends at once."""
    ticket = breaker.admit(now_s)
    if ticket is not None:
        breaker.record(ticket, verdict, now_s)
    return ticket is not None


def opened(now_s: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for _ in range(BREAKER_FAILURES_MIN):
        assert call(breaker, now_s, Verdict.FAILED)
    assert breaker.status(now_s).state is BreakerState.OPEN
    return breaker


def test_opens_half_opens_and_closes() -> None:
    breaker = opened(now_s=10.0)
    assert breaker.admit(10.5) is None
    assert breaker.status(10.5).retry_in_s == pytest.approx(BREAKER_OPEN_S_MIN - 0.5)
    probe = breaker.admit(10.0 + BREAKER_OPEN_S_MIN)
    assert probe is not None and probe.probe
    assert breaker.status(11.0).state is BreakerState.HALF_OPEN
    assert breaker.admit(11.0) is None, "one probe at a time"
    breaker.record(probe, Verdict.ANSWERED, 11.1)
    assert (breaker.status(11.1).state, breaker.status(11.1).calls, breaker.status(11.1).opened) == (
        BreakerState.CLOSED,
        0,
        1,
    )


def test_a_failed_probe_doubles_the_pause_up_to_a_bound_and_success_starts_it_over() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        pause = breaker.status(now).retry_in_s
        pauses.append(pause)
        now += pause
        assert call(breaker, now, Verdict.FAILED)
    assert pauses == [min(BREAKER_OPEN_S_MIN * 2**n, BREAKER_OPEN_S_MAX) for n in range(8)]
    now += breaker.status(now).retry_in_s
    assert call(breaker, now, Verdict.ANSWERED)
    for _ in range(BREAKER_FAILURES_MIN):
        call(breaker, now, Verdict.FAILED)
    assert breaker.status(now).retry_in_s == BREAKER_OPEN_S_MIN


def test_few_failures_among_many_answers_do_not_open() -> None:
    breaker = CircuitBreaker()
    for n, verdict in enumerate([Verdict.ANSWERED, Verdict.ANSWERED, Verdict.FAILED] * 20):
        assert call(breaker, n / 100, verdict)


def test_old_failures_are_forgotten() -> None:
    breaker = CircuitBreaker()
    for n in range(3 * BREAKER_FAILURES_MIN):
        assert call(breaker, n * BREAKER_WINDOW_S / (BREAKER_FAILURES_MIN - 1.5), Verdict.FAILED)


def test_what_the_caller_gave_up_says_nothing() -> None:
    breaker = CircuitBreaker()
    for _ in range(50):
        assert call(breaker, 1.0, Verdict.UNDECIDED)
    breaker = opened()
    assert call(breaker, 2.0, Verdict.UNDECIDED)
    assert breaker.status(2.0).state is BreakerState.HALF_OPEN
    assert call(breaker, 2.0, Verdict.ANSWERED), "another probe may go"
    assert breaker.status(2.0).state is BreakerState.CLOSED


def test_calls_that_began_before_it_opened_change_nothing_when_they_end() -> None:
    breaker = CircuitBreaker()
    late = breaker.admit(0.0)
    assert late is not None
    for _ in range(BREAKER_FAILURES_MIN):
        call(breaker, 0.0, Verdict.FAILED)
    breaker.record(late, Verdict.ANSWERED, 0.5)
    assert breaker.status(0.5).state is BreakerState.OPEN
    probe = breaker.admit(2.0)
    assert probe is not None
    assert breaker.admit(2.0) is None
    breaker.record(late, Verdict.FAILED, 2.0)
    assert breaker.admit(2.0) is None, "the probe is still out"
    breaker.record(probe, Verdict.ANSWERED, 2.1)
    assert breaker.status(2.1).state is BreakerState.CLOSED


EVENTS = st.lists(st.tuples(st.sampled_from(["admit", *Verdict]), st.floats(0, 5)), max_size=60)


@given(EVENTS)
def test_whatever_happens_a_peer_is_asked_again_one_day(events: list[tuple[str, float]]) -> None:
    breaker, now, out = CircuitBreaker(), 0.0, []
    for what, passed_s in events:
        now += passed_s
        if what == "admit":
            ticket = breaker.admit(now)
            out += [] if ticket is None else [ticket]
            assert sum(ticket.probe for ticket in out if ticket.epoch == breaker._epoch) <= 1
        elif out:
            breaker.record(out.pop(0), Verdict(what), now)
        status = breaker.status(now)
        assert 0 <= status.failures <= status.calls
        assert 0 <= status.retry_in_s <= BREAKER_OPEN_S_MAX
        assert status.state is BreakerState.OPEN or status.retry_in_s == 0
    for ticket in out:
        breaker.record(ticket, Verdict.ANSWERED, now)
    assert any(call(breaker, now + later, Verdict.ANSWERED) for later in itertools.islice(itertools.count(0, 10), 5))
