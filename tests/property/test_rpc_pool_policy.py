"""Connections to a peer, decided on a clock the test moves: few when idle, one for each call, none that broke."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jadevectordb.gateway.rpc.peer.pool_policy import Action, ConnectionId, Effect, PoolLimits, PoolPolicy

LIMITS = PoolLimits(least=2, initial=5, most=20, idle_s_max=60.0)


def names(effects: list[Effect], action: Action) -> list[int]:
    return [effect.connection for effect in effects if effect.action is action]


def test_begins_with_five_and_gives_each_call_its_own() -> None:
    pool = PoolPolicy(LIMITS)
    first, effects = pool.acquire(0.0)
    assert len(names(effects, Action.OPEN)) == 5
    taken = [first] + [pool.acquire(0.0)[0] for _ in range(19)]
    assert len(set(taken)) == 20 == pool.size
    shared, effects = pool.acquire(0.0)
    assert shared in taken and not effects, "beyond the bound calls share, they don't wait"


def test_ten_calls_at_once_use_ten_connections() -> None:
    pool = PoolPolicy(LIMITS)
    assert len({pool.acquire(0.0)[0] for _ in range(10)}) == 10


def test_idle_ones_go_and_two_stay() -> None:
    pool = PoolPolicy(LIMITS)
    taken = [pool.acquire(0.0)[0] for _ in range(8)]
    for one in taken:
        pool.release(one, 1.0, broken=False)
    assert pool.sweep(60.9) == [] and pool.size == 8
    assert len(names(pool.sweep(61.0), Action.CLOSE)) == 6 and pool.size == 2
    assert pool.sweep(1e6) == []


def test_the_one_used_last_is_used_next_so_that_others_age() -> None:
    pool = PoolPolicy(LIMITS)
    for second in range(100):
        one, _ = pool.acquire(float(second))
        pool.release(one, second + 0.5, broken=False)
        pool.sweep(second + 0.5)
    assert pool.size == 2


def test_a_broken_one_is_not_used_again_and_closed_after_its_last_call() -> None:
    pool = PoolPolicy(PoolLimits(least=1, initial=1, most=1))
    one, _ = pool.acquire(0.0)
    again, _ = pool.acquire(0.0)
    assert one == again
    assert pool.release(one, 1.0, broken=True) == []
    fresh, effects = pool.acquire(1.0)
    assert fresh != one and names(effects, Action.OPEN) == [fresh]
    assert pool.release(one, 2.0, broken=False) == [Effect(Action.CLOSE, one)]


def test_limits_make_sense() -> None:
    with pytest.raises(AssertionError):
        PoolLimits(least=3, initial=2)


class Pool(RuleBasedStateMachine):
    """Against a model: what is open, what was retired, who uses what."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PoolPolicy(LIMITS)
        self.now = 0.0
        self.open: set[ConnectionId] = set()
        self.broken: set[ConnectionId] = set()
        self.used: list[ConnectionId] = []

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if effect.action is Action.OPEN:
                assert effect.connection not in self.open
                self.open.add(effect.connection)
            else:
                assert effect.connection not in self.used, "nobody loses a connection in use"
                self.open.remove(effect.connection)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def acquire(self) -> None:
        usable = self.open - self.broken
        free = usable - set(self.used)
        chosen, effects = self.pool.acquire(self.now)
        self.perform(effects)
        assert chosen in self.open and chosen not in self.broken
        if free or len(usable) < LIMITS.most:
            assert chosen not in self.used, "no queueing while there is another way"
        self.used.append(chosen)

    @rule(data=st.data(), broken=st.booleans())
    def release(self, data: st.DataObject, broken: bool) -> None:
        if self.used:
            chosen = self.used.pop(data.draw(st.integers(0, len(self.used) - 1)))
            if broken:
                self.broken.add(chosen)
            self.perform(self.pool.release(chosen, self.now, broken=broken))

    @rule()
    def sweep(self) -> None:
        before = len(self.open - self.broken)
        self.perform(self.pool.sweep(self.now))
        assert len(self.open - self.broken) >= min(before, LIMITS.least)

    @invariant()
    def agrees(self) -> None:
        self.pool.check_invariants()
        assert self.pool.size == len(self.open) and self.pool.in_use == len(self.used)


TestPool = Pool.TestCase
