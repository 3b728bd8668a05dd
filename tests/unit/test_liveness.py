"""Who is alive by a watcher's own clock; silence of all is the watcher's deafness, not everybody's death."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.control.liveness import Liveness


def test_a_node_is_dead_when_its_heartbeat_has_not_changed_for_a_while_though_others_did() -> None:
    liveness = Liveness(3.0)
    liveness.seen("a", "i", 1, 0.0)
    for second in range(10):
        liveness.seen("b", "i", second, float(second))
        liveness.seen("a", "i", 1, float(second))  # read again, unchanged
        assert liveness.alive(second) == ({"a", "b"} if second < 3 else {"b"})
    assert liveness.dead_for_s(9.0) == {"a": 9.0}
    liveness.seen("a", "i2", 1, 9.5)
    assert liveness.alive(9.5) == {"a", "b"}


def test_a_node_that_leaves_is_not_alive_at_once() -> None:
    liveness = Liveness(3.0)
    liveness.seen("a", "i", 1, 0.0)
    liveness.seen("b", "i", 1, 0.0)
    liveness.seen("a", "i", 2, 0.5, leaving=True)
    assert liveness.alive(0.5) == {"b"} and liveness.dead_for_s(1.0) == {"a": 0.5}
    liveness.seen("a", "i2", 1, 1.0)
    assert liveness.alive(1.0) == {"a", "b"}
    liveness.forget("a")
    assert liveness.alive(1.0) == {"b"} and liveness.dead_for_s(9.0) == {}


def test_nobody_dies_of_silence_of_all_and_all_get_time_after_it() -> None:
    liveness = Liveness(3.0)
    for beat in range(3):
        for node in ("a", "b", "c"):
            liveness.seen(node, "i", beat, float(beat))
    assert liveness.alive(2.0) == liveness.alive(1000.0) == {"a", "b", "c"} and liveness.is_deaf(1000.0)
    liveness.seen("a", "i", 9, 1000.0)
    assert liveness.alive(1002.9) == {"a", "b", "c"}
    for tenth in range(40):
        liveness.seen("a", "i", 10 + tenth, 1000.0 + tenth / 10)
        liveness.seen("b", "i", 10 + tenth, 1000.0 + tenth / 10)
    assert liveness.alive(1003.9) == {"a", "b"}
    assert liveness.dead_for_s(1003.9)["c"] == pytest.approx(3.9)


def test_the_dead_do_not_come_alive_by_silence() -> None:
    liveness = Liveness(3.0)
    liveness.seen("a", "i", 1, 0.0)
    for second in range(6):
        liveness.seen("b", "i", second, float(second))
    assert liveness.alive(5.0) == {"b"}
    assert liveness.alive(100.0) == {"b"}
    liveness.seen("b", "i", 99, 100.0)
    assert liveness.alive(100.0) == {"b"} and liveness.dead_for_s(100.0)["a"] < 8


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 5.0)), max_size=60))
def test_who_beats_often_enough_is_always_alive_and_deaths_only_grow(steps: list[tuple[str, float]]) -> None:
    liveness, now, beat = Liveness(3.0), 0.0, 0
    last: dict[str, float] = {}
    dead: dict[str, float] = {}
    for node, pause in steps:
        now, beat = now + pause, beat + 1
        for name, seconds in liveness.dead_for_s(now).items():
            assert seconds >= dead.get(name, 0.0) - 1e-9 and seconds >= 3.0 - 1e-9
            assert seconds <= now - last[name] + 1e-9, "never longer than it was"
        assert {name for name, at in last.items() if now - at < 3.0} <= liveness.alive(now)
        liveness.seen(node, "i", beat, now)
        last[node] = now
        dead = liveness.dead_for_s(now)
        assert node in liveness.alive(now)
