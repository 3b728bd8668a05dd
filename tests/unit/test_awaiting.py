"""Coroutines that wait: the same result in a thread and in a loop, errors and giving up included; questions to shards are steps."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from tests.transport_world import PATIENT, WAIT_S

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.adapters.loop_thread import SharedLoop
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.adapters.timers import Timers
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Count, Counted
from jadevectordb.query.awaiting import GiveUp, Step, Then, Underway, Waits, waited, waiting
from jadevectordb.query.balancer import Balancer, Balancing
from jadevectordb.query.fan_out import Ask, FanOut
from jadevectordb.query.question import Gathered, Question
from jadevectordb.topology.cluster_map import (
    ClusterMap,
    DatabaseRecord,
    NodeRecord,
    ReplicaRecord,
    ReplicaState,
    ShardRecord,
)

Outcome = tuple[Any, BaseException | None]


class Number(Step[int]):
    """A step whose result the test gives, or that is there at once."""

    def __init__(self, at_once: int | JadeError | None = None) -> None:
        self.at_once = at_once
        self.then: Then | None = None
        self.given_up = 0

    def wait(self) -> int:
        assert self.at_once is not None
        if isinstance(self.at_once, JadeError):
            raise self.at_once
        return self.at_once

    def begin(self, then: Then) -> GiveUp | None:
        self.then = then
        if isinstance(self.at_once, JadeError):
            then(None, self.at_once)
        elif self.at_once is not None:
            then(self.at_once, None)

        def give_up() -> None:
            self.given_up += 1

        return give_up


async def total(*steps: Step[int]) -> int:
    found = 0
    for step in steps:
        try:
            found += await step
        except JadeError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
    return found


def carried_out(work: Any) -> tuple[Underway, list[Outcome]]:
    done: list[Outcome] = []

    def in_thread(wait: Callable[[], Any], then: Then) -> None:
        then(wait(), None)

    return Underway(work, lambda result, error: done.append((result, error)), in_thread), done


NOT_THERE = JadeError(ErrorCode.NOT_FOUND, "not there")
BROKEN = JadeError(ErrorCode.CORRUPT, "broken")


@pytest.mark.parametrize("several", [1, 3000])
def test_steps_that_are_there_at_once_are_taken_one_after_the_other(several: int) -> None:
    def steps() -> list[Step[int]]:
        return [Number(1) for _ in range(several)] + [Number(NOT_THERE), Waits(lambda: 5)]

    assert waited(total(*steps())) == several + 5
    assert waiting(total)(*steps()) == several + 5
    underway, done = carried_out(total(*steps()))
    underway.begin()
    assert done == [(several + 5, None)]


def test_an_error_of_a_step_is_raised_where_it_is_awaited() -> None:
    with pytest.raises(JadeError, match="broken"):
        waited(total(Number(1), Number(BROKEN)))
    underway, done = carried_out(total(Number(1), Number(BROKEN)))
    underway.begin()
    assert done == [(None, BROKEN)]


def test_results_that_come_later_carry_it_on() -> None:
    first, second = Number(), Number()
    underway, done = carried_out(total(first, Number(10), second))
    underway.begin()
    assert first.then is not None and second.then is None and not done
    first.then(1, None)
    assert second.then is not None and not done
    first.then(7, None)  # void: that step is over
    second.then(None, NOT_THERE)
    assert done == [(11, None)]


def test_giving_up_gives_up_the_step_that_is_under_way_and_nothing_else_comes_of_it() -> None:
    first, second = Number(1), Number()
    underway, done = carried_out(total(first, second))
    underway.begin()
    underway.cancel()
    underway.cancel()
    assert (first.given_up, second.given_up) == (0, 1)
    ((result, error),) = done
    assert result is None and isinstance(error, JadeError) and error.code is ErrorCode.CANCELLED
    assert second.then is not None
    second.then(1, None)
    assert len(done) == 1


def test_what_has_not_begun_is_given_up_without_a_word() -> None:
    first = Number(1)
    underway, done = carried_out(total(first))
    underway.cancel()
    assert not done and first.then is None


def test_timers_share_one_of_the_loop_are_never_early_and_are_forgotten_when_cancelled() -> None:
    clock = SystemClock()

    async def run() -> list[tuple[str, float]]:
        timers = Timers(asyncio.get_running_loop(), clock.monotonic_s)
        began_s, fired, last = clock.monotonic_s(), [], asyncio.Event()

        def note(name: str) -> Callable[[], None]:
            def fire() -> None:
                fired.append((name, clock.monotonic_s() - began_s))
                if name == "last":
                    last.set()

            return fire

        timers.after(0.02, note("short"))
        timers.after(1.0, note("long"))
        kept = [timers.after(1.0 + n / 1000, note("cancelled")) for n in range(100)]
        timers.after(1.2, note("last"))
        for timer in kept:
            timer.cancel()
            timer.cancel()
        await asyncio.wait_for(last.wait(), WAIT_S)
        return fired

    fired = asyncio.run(run())
    assert [name for name, _ in fired] == ["short", "long", "last"]
    assert all(after_s >= asked_s for (_, after_s), asked_s in zip(fired, (0.02, 1.0, 1.2), strict=True))


class Counting:
    """Counts one vector a shard, or keeps quiet."""

    def __init__(self) -> None:
        self.is_quiet = False
        self.asked = threading.Event()
        self.given_up = threading.Event()

    def answer(self, call: msgspec.Struct, reply: Callable[[Any, Exception | None], None]) -> Callable[[], None] | None:
        assert isinstance(call, Count)
        self.asked.set()
        if not self.is_quiet:
            reply(Counted(count=len(call.asked.shards)), None)
        return self.given_up.set


class World:
    """One node that listens, and a place to ask it from."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.counting = Counting()
        server = FramedServer("127.0.0.1", 0, self.counting, NodeIdentity("a", "tests", "secret"), patience=PATIENT)
        stack.callback(server.close)
        self.record = NodeRecord(id="a", incarnation="", peer=server.address)
        transport = FramedTransport(NodeIdentity("me", "tests", "secret"), SystemClock(), patience=PATIENT)
        stack.callback(transport.close)
        shards = tuple(ShardRecord(n, (ReplicaRecord("a", ReplicaState.ACTIVE),), "a") for n in range(2))
        self.map = ClusterMap(1, 1, {"d": DatabaseRecord("d", 1, shards)})
        self.fan_out = FanOut(transport, self, Balancer(Balancing.LEAST_LOADED, ""), "me", None)

    def node(self, name: str) -> NodeRecord | None:
        return self.record if name == "a" else None

    def is_alive(self, name: str) -> bool:
        return True

    async def count(self, database: str = "d", timeout_s: float = WAIT_S) -> int:
        def ask() -> Ask:
            question = Question(database, (0, 1), lambda asked: Count(asked=asked), timeout_s, timeout_s)
            return Ask(self.fan_out, question)

        gathered: list[Gathered] = [await ask(), await ask()]
        return sum(one.answer.count for found in gathered for one in found.answers)


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(stack)


async def in_a_loop(world: World, run: Callable[[FramedTransport], Any]) -> Any:
    """With a transport of this loop, as the one that serves clients has it."""
    loop = SharedLoop()
    transport = FramedTransport(NodeIdentity("me", "tests", "secret"), SystemClock(), loop=loop, patience=PATIENT)
    world.fan_out.in_gateway = world.fan_out.over(transport, 1000.0)
    try:
        return await asyncio.wait_for(run(transport), WAIT_S)
    finally:
        world.fan_out.in_gateway = None
        transport.close()
        await loop.leave()


def test_a_question_has_the_same_answer_in_a_thread_and_in_a_loop(world: World) -> None:
    assert waited(world.count()) == 4

    async def run(_transport: FramedTransport) -> Outcome:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        Underway(
            world.count(), lambda result, error: answer.set_result((result, error)), lambda work, then: None
        ).begin()
        return await answer

    assert asyncio.run(in_a_loop(world, run)) == (4, None)
    with pytest.raises(JadeError) as told:
        waited(world.count())  # the loop is gone, a thread asks as before
        waited(world.count("another", timeout_s=0.2))
    assert told.value.code is ErrorCode.UNAVAILABLE or told.value.code is ErrorCode.TIMEOUT


def test_the_other_node_is_told_that_nobody_waits_any_more(world: World) -> None:
    world.counting.is_quiet = True
    told: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    async def run(_transport: FramedTransport) -> None:
        underway = Underway(world.count(), lambda result, error: told.put((result, error)), lambda work, then: None)
        underway.begin()
        while not world.counting.asked.is_set():
            await asyncio.sleep(0.001)
        underway.cancel()
        while not world.counting.given_up.is_set():
            await asyncio.sleep(0.001)

    asyncio.run(in_a_loop(world, run))
    result, error = told.get(timeout=WAIT_S)
    assert result is None and isinstance(error, JadeError) and error.code is ErrorCode.CANCELLED
