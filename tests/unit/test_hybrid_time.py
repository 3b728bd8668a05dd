"""The hybrid logical clock keeps its invariants whatever the wall clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model import hybrid_time
from jadevectordb.model.hybrid_time import HybridClock
from jadevectordb.model.ids import HybridTime

WALL = st.integers(0, 2**45)
EVENTS = st.lists(st.tuples(WALL, st.none() | st.integers(0, 2**61)), max_size=50)


@given(EVENTS)
def test_times_grow_and_are_not_behind_the_wall_or_what_was_seen(events: list[tuple[int, int | None]]) -> None:
    clock = HybridClock()
    newest = 0
    for now_ms, received in events:
        time = clock.tick(now_ms) if received is None else clock.observe(HybridTime(received), now_ms)
        assert time > newest and time > (received or 0)
        assert hybrid_time.to_ms(time) >= now_ms
        assert clock.last == time
        newest = time


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), WALL), min_size=1, max_size=60))
def test_a_message_is_received_later_than_it_was_sent(hops: list[tuple[int, int, int]]) -> None:
    """Cause before effect among three nodes whose wall clocks agree on nothing."""
    clocks = [HybridClock() for _ in range(3)]
    for sender, receiver, now_ms in hops:
        sent = clocks[sender].tick(now_ms)
        assert clocks[receiver].observe(sent, 2**45 - now_ms) > sent


def test_it_stays_with_the_wall_clock_when_that_behaves() -> None:
    clock = HybridClock()
    assert clock.tick(1000) == hybrid_time.from_ms(1000)
    assert clock.tick(1000) == hybrid_time.from_ms(1000) + 1
    assert clock.tick(2000) == hybrid_time.from_ms(2000)
    assert clock.tick(1500) == hybrid_time.from_ms(2000) + 1  # the wall went back, the clock does not


def test_a_full_counter_runs_into_the_next_millisecond() -> None:
    clock = HybridClock(HybridTime(hybrid_time.from_ms(7) + 65535))
    assert clock.tick(7) == hybrid_time.from_ms(8)


def test_it_continues_after_the_newest_time_known_from_before() -> None:
    assert HybridClock(hybrid_time.from_ms(10**9)).tick(5) == hybrid_time.from_ms(10**9) + 1


def test_the_system_clock_tells_milliseconds_and_never_goes_back() -> None:
    clock = SystemClock()
    assert 1_600_000_000_000 < clock.now_ms() < 10_000_000_000_000
    first = clock.monotonic_s()
    assert clock.monotonic_s() >= first
