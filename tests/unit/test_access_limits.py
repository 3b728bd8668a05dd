"""Rates and lockouts: only failures count, the right one is never locked out by others, and everything is bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.access_world import HOME, PASSWORD, MovedClock, World, basic, refused

from jadevectordb.gateway.access.limits import Buckets, Limits, LimitValues, is_loopback
from jadevectordb.gateway.access.principals import ANONYMOUS, Principal
from jadevectordb.model.errors import ErrorCode, JadeError

ALICE = Principal("user_alice", "alice", ("user",), None, "session", "sess_1")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.user("alice")
    yield world
    world.close()


def fail(world: World, name: str = "alice", client: str = HOME, times: int = 1) -> list[ErrorCode]:
    codes = []
    for _ in range(times):
        with pytest.raises(JadeError) as caught:
            world.access.sign_in(name, "wrong password", client)
        codes.append(caught.value.code)
    return codes


def test_a_bucket_refills_steadily_and_never_beyond_its_size() -> None:
    clock = MovedClock()
    buckets = Buckets(clock, 3, 0.5)
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 2, 2]
    assert buckets.take("b") == 0
    clock.move(2)
    assert [buckets.take("a"), buckets.take("a")] == [0, 2]
    clock.move(1)
    assert buckets.take("a") == 1
    clock.move(1000)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 2]
    buckets.give_back("a")
    assert [buckets.take("a"), buckets.take("a")] == [0, 2]
    buckets.give_back("unknown")


def test_buckets_are_bounded_and_the_idle_ones_go() -> None:
    buckets = Buckets(MovedClock(), 1, 0.01, names_max=3)
    assert buckets.take("a") == 0
    for name in ("b", "c", "a", "d", "e"):
        buckets.take(name)
    assert buckets.take("a") > 0  # used in between
    assert len(buckets._buckets) == 3
    assert buckets.take("b") == 0  # forgotten


def test_requests_are_unlimited_until_somebody_limits_them() -> None:
    limits = Limits(LimitValues(), MovedClock(), is_open=False)
    for _ in range(5000):
        limits.admit(ALICE, HOME, "search")


def test_requests_are_limited_by_principal_and_by_address_of_the_unknown() -> None:
    clock = MovedClock()
    limits = Limits(LimitValues(requests_per_s=10, burst=20), clock, is_open=False)
    for principal, client in ((ALICE, HOME), (ANONYMOUS, HOME), (ANONYMOUS, "203.0.113.8")):
        for _ in range(20):
            limits.admit(principal, client, "search")
        with refused(ErrorCode.RATE_LIMITED) as caught:
            limits.admit(principal, client, "search")
        assert caught.value.details == {"retry_after_s": 1} and caught.value.retryable
        limits.admit(principal, client, "health")
    with refused(ErrorCode.RATE_LIMITED):
        limits.admit(ALICE, "198.51.100.1", "search")  # from wherever it comes
    assert limits.refused == 4
    clock.move(1)
    for _ in range(10):
        limits.admit(ALICE, HOME, "search")


def test_only_failures_count(world: World) -> None:
    for _ in range(50):
        world.sign_in("alice")
    for _ in range(3):
        assert fail(world, times=9) == [ErrorCode.UNAUTHORIZED] * 9
        world.sign_in("alice")
        world.clock.move(300)


def test_after_ten_failures_even_the_right_password_waits(world: World) -> None:
    assert fail(world, times=10) == [ErrorCode.UNAUTHORIZED] * 10
    with refused(ErrorCode.RATE_LIMITED) as caught:
        world.sign_in("alice")
    assert caught.value.details == {"retry_after_s": 30}
    assert not any(c.isdigit() for c in caught.value.message)
    with refused(ErrorCode.RATE_LIMITED):  # nor by another door
        world.access.gatekeeper.authenticate(basic("alice", PASSWORD), None, HOME)
    world.user("bob")
    world.sign_in("bob")  # others from this address, and she from elsewhere, go on
    world.sign_in("alice", client="203.0.113.8")
    world.clock.move(30)
    world.sign_in("alice")
    assert fail(world, times=2) == [ErrorCode.UNAUTHORIZED, ErrorCode.RATE_LIMITED]


def test_an_address_that_tries_many_accounts_is_stopped(world: World) -> None:
    codes = [fail(world, f"name{n}")[0] for n in range(60)]
    assert codes == [ErrorCode.UNAUTHORIZED] * 50 + [ErrorCode.RATE_LIMITED] * 10
    assert fail(world, client="203.0.113.8") == [ErrorCode.UNAUTHORIZED]


def test_an_account_tried_from_many_addresses_is_closed_to_strangers_only(world: World) -> None:
    world.sign_in("alice", client=HOME)
    codes = [fail(world, client=f"198.51.100.{n}")[0] for n in range(120)]
    assert codes == [ErrorCode.UNAUTHORIZED] * 100 + [ErrorCode.RATE_LIMITED] * 20
    with refused(ErrorCode.RATE_LIMITED):
        world.sign_in("alice", client="203.0.113.99")
    world.sign_in("alice", client=HOME)  # she was here before: nobody locks her out


def test_guessing_in_parallel_gains_nothing(world: World) -> None:
    codes: list[ErrorCode] = []
    barrier = threading.Barrier(8)

    def guess() -> None:
        barrier.wait()
        for _ in range(5):
            codes.extend(fail(world))

    threads = [threading.Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(ErrorCode.UNAUTHORIZED) == 10


def test_wrong_passwords_in_basic_credentials_count_too(world: World) -> None:
    codes = []
    for _ in range(12):
        with pytest.raises(JadeError) as caught:
            world.access.gatekeeper.authenticate(basic("alice", "wrong password"), None, HOME)
        codes.append(caught.value.code)
    assert codes == [ErrorCode.UNAUTHORIZED] * 10 + [ErrorCode.RATE_LIMITED] * 2


def test_an_attempt_that_could_not_be_checked_costs_nothing(world: World) -> None:
    for _ in range(30):
        with pytest.raises(ZeroDivisionError), world.access.limits.password_attempt("alice", HOME):
            raise ZeroDivisionError
    world.sign_in("alice")


def test_registrations_and_resets_of_an_address_are_limited(tmp_path: Path) -> None:
    world = World(tmp_path)
    for n in range(100):  # existing test suites register again and again
        world.access.register(f"user{n}", PASSWORD, email="", wanted=(), client=HOME)
    with refused(ErrorCode.RATE_LIMITED):
        world.access.register("one more", PASSWORD, email="", wanted=(), client=HOME)
    world.access.register("from elsewhere", PASSWORD, email="", wanted=(), client="203.0.113.8")
    for _ in range(20):
        world.access.limits.password_reset("alice", HOME)
    with refused(ErrorCode.RATE_LIMITED):
        world.access.limits.password_reset("alice", HOME)
    world.close()


def test_open_mode_spares_this_machine(tmp_path: Path) -> None:
    world = World(tmp_path, is_open=True)
    world.user("alice")
    assert fail(world, client="127.0.0.1", times=40) == [ErrorCode.UNAUTHORIZED] * 40
    assert fail(world, client=HOME, times=11)[-1] is ErrorCode.RATE_LIMITED
    world.close()


def test_names_as_long_as_they_like_are_kept_short() -> None:
    limits = Limits(LimitValues(), MovedClock(), is_open=False)
    limits.password_attempt("x" * 1_000_000, HOME)
    assert max(map(len, limits._pairs._buckets)) < 1000


@pytest.mark.parametrize(("address", "is_local"), [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True), ("203.0.113.7", False),
    ("::ffff:203.0.113.7", False), ("fe80::1", False), ("nonsense", False),
])  # fmt: skip
def test_which_addresses_are_of_this_machine(address: str, is_local: bool) -> None:
    assert is_loopback(address) == is_local
