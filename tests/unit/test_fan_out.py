"""Asking shards over real connections: who is asked, who is asked instead, and what is said when nobody answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from tests.transport_world import PATIENT, WAIT_S

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Asked, Count, Counted
from jadevectordb.query.balancer import Balancer, Balancing
from jadevectordb.query.fan_out import FanOut
from jadevectordb.query.hedging import Hedging
from jadevectordb.query.question import Gathered, Question
from jadevectordb.topology.cluster_map import (
    ClusterMap,
    DatabaseRecord,
    NodeRecord,
    ReplicaRecord,
    ReplicaState,
    ShardRecord,
)

Reply = Callable[[Any, Exception | None], None]
ACTIVE = ReplicaState.ACTIVE


class Replicas:
    """What one node answers: by default one vector a shard; `behave` may answer otherwise, or keep the reply and never."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[int, ...]] = []
        self.asked: list[Asked] = []
        self.given_up = threading.Event()
        self.behave: Callable[[Count, Reply], bool] = lambda call, reply: False

    def answer_here(self, call: msgspec.Struct, limit_us: float) -> Any | None:
        return None

    def applied(self, database: str) -> dict[int, tuple[int, int]]:
        return {}

    def answer(self, call: msgspec.Struct, reply: Reply) -> Callable[[], None] | None:
        assert isinstance(call, Count)
        self.calls.append(call.asked.shards)
        self.asked.append(call.asked)
        if not self.behave(call, reply):
            reply(Counted(count=len(call.asked.shards)), None)
        return self.given_up.set


def refusing(code: ErrorCode) -> Callable[[Count, Reply], bool]:
    def behave(call: Count, reply: Reply) -> bool:
        reply(None, JadeError(code, "not here"))
        return True

    return behave


def silent(call: Count, reply: Reply) -> bool:
    return True


class World:
    """Three nodes that listen, and a fourth place to ask from."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        clock = SystemClock()
        self.nodes = {name: Replicas(name) for name in ("a", "b", "c")}
        self.servers: dict[str, FramedServer] = {}
        self.dead: set[str] = set()
        for name, replicas in self.nodes.items():
            server = self.servers[name] = FramedServer(
                "127.0.0.1", 0, replicas, NodeIdentity(name, "tests", "secret"), patience=PATIENT
            )
            stack.callback(server.close)
        self.records = {name: NodeRecord(id=name, incarnation="", peer=s.address) for name, s in self.servers.items()}
        self.transport = FramedTransport(NodeIdentity("me", "tests", "secret"), clock, patience=PATIENT)
        stack.callback(self.transport.close)
        self.balancer = Balancer(Balancing.ROUND_ROBIN, "")
        self.map = ClusterMap()
        self.place(0, "ab")
        self.place(1, "bc")
        self.fan_out = FanOut(self.transport, self, self.balancer, "me", None)

    def node(self, name: str) -> NodeRecord | None:
        return self.records.get(name)

    def is_alive(self, name: str) -> bool:
        return name not in self.dead

    def place(self, shard: int, nodes: str) -> None:
        known = self.map.databases.get("d", DatabaseRecord("d", 2)).shards
        shards = {one.number: one for one in known}
        replicas = tuple(ReplicaRecord(node, ACTIVE) for node in nodes)
        shards[shard] = ShardRecord(shard, replicas, nodes[:1])
        record = DatabaseRecord("d", 2, tuple(shards[number] for number in sorted(shards)))
        self.map = ClusterMap(self.map.version + 1, 1, {"d": record})

    def ask(self, *shards: int, timeout_s: float = WAIT_S, worker_s: float = WAIT_S / 2, **more: Any) -> Gathered:
        return self.fan_out.ask(
            Question("d", shards or (0, 1), lambda asked: Count(asked=asked), timeout_s, worker_s, **more)
        )

    def suspect(self, *names: str) -> None:
        """For longer than any test takes."""
        for name in names:
            self.balancer.suspect(name, self.transport.now_s() + 1000.0)

    def counted(self, gathered: Gathered) -> int:
        return sum(one.answer.count for one in gathered.answers)


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(stack)


def test_few_nodes_are_asked_and_each_shard_once(world: World) -> None:
    for _ in range(12):
        gathered = world.ask()
        assert world.counted(gathered) == 2
        assert sorted(shard for one in gathered.answers for shard in one.shards) == [0, 1]
    asked = [shards for node in world.nodes.values() for shards in node.calls]
    assert (0, 1) in asked  # b alone, when it is its turn
    assert all(node.calls for node in world.nodes.values())


def test_the_dead_are_not_asked_unless_nobody_else_has_a_shard(world: World) -> None:
    world.dead = {"b"}
    for _ in range(6):
        world.ask()
    assert not world.nodes["b"].calls
    world.dead = {"b", "c"}
    assert world.counted(world.ask()) == 2


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.STALE_MAP,
        ErrorCode.UNAVAILABLE,
        ErrorCode.CORRUPT,
        ErrorCode.INTERNAL_ERROR,
        ErrorCode.CLOSED,
        ErrorCode.NOT_IMPLEMENTED,
    ],
)
def test_another_replica_is_asked_after_an_error_of_one(world: World, code: ErrorCode) -> None:
    world.nodes["b"].behave = refusing(code)
    for _ in range(5):
        assert world.counted(world.ask()) == 2


def test_an_error_of_the_question_itself_is_everyones(world: World) -> None:
    for node in world.nodes.values():
        node.behave = refusing(ErrorCode.INVALID_FILTER)
    with pytest.raises(JadeError) as refused:
        world.ask()
    assert refused.value.code is ErrorCode.INVALID_FILTER
    assert sum(len(node.calls) for node in world.nodes.values()) <= 2


def test_a_node_that_is_gone_costs_one_more_call(world: World) -> None:
    world.servers["b"].close()
    began_s = world.transport.now_s()
    for _ in range(5):
        assert world.counted(world.ask()) == 2
    assert world.balancer.is_suspected("b", began_s)  # as late as that: a suspicion passes


def test_a_silent_node_is_left_for_another_after_its_time(world: World) -> None:
    world.nodes["b"].behave = silent
    began_s = world.transport.now_s()
    gathered = world.ask(worker_s=0.2)
    assert world.counted(gathered) == 2
    assert world.balancer.is_suspected("b", began_s) or not world.nodes["b"].calls


def test_a_second_replica_answers_for_a_late_one_which_is_told_to_stop(world: World) -> None:
    world.place(0, "a")
    world.place(0, "ab")
    world.nodes["a"].behave = silent
    world.suspect("b")  # so that a is the first to be asked
    hedging = Hedging()
    gathered = world.ask(0, hedging=hedging)
    assert [one.node for one in gathered.answers] == ["b"] and gathered.hedges == 1
    assert world.nodes["a"].calls and world.nodes["a"].given_up.wait(WAIT_S)


def test_second_calls_have_a_budget() -> None:
    hedging = Hedging()
    taken = sum(hedging.take() for _ in range(50))
    assert taken == 10
    for _ in range(100):
        hedging.asked()
    assert sum(hedging.take() for _ in range(50)) == pytest.approx(10, abs=1)
    for seconds in [0.01] * 95 + [0.2] * 5 + [0.01] * 28:
        hedging.answered(seconds)
    assert 0.01 <= hedging.delay_s <= 0.2


def test_what_nobody_answers_is_named(world: World) -> None:
    for name in "bc":
        world.nodes[name].behave = silent
    world.place(1, "bc")
    with pytest.raises(JadeError) as failed:
        world.ask(1, timeout_s=0.6, worker_s=0.2)
    assert failed.value.code in (ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE) and failed.value.retryable
    assert failed.value.details["shards"] == [1]


def test_part_of_an_answer_is_enough_where_it_is_asked_for(world: World) -> None:
    for name in "bc":
        world.nodes[name].behave = refusing(ErrorCode.UNAVAILABLE)
    gathered = world.ask(allow_partial=True)
    assert world.counted(gathered) == 1 and list(gathered.missing) == [1]
    world.nodes["a"].behave = refusing(ErrorCode.UNAVAILABLE)
    with pytest.raises(JadeError) as failed:
        world.ask(allow_partial=True)
    assert failed.value.details["shards"] == [0, 1]


def test_a_database_without_replicas_is_waited_for(world: World) -> None:
    known, world.map = world.map, ClusterMap()
    threading.Timer(0.2, lambda: setattr(world, "map", known)).start()
    assert world.counted(world.ask()) == 2


def test_a_newer_map_is_used_when_everyone_says_the_one_known_is_old(world: World) -> None:
    moved = threading.Event()

    def stale(call: Count, reply: Reply) -> bool:
        if 0 not in call.asked.shards:
            return False
        reply(None, JadeError(ErrorCode.STALE_MAP, "moved"))
        if not moved.is_set():
            moved.set()
            world.place(0, "c")
        return True

    world.nodes["a"].behave = world.nodes["b"].behave = stale
    gathered = world.ask(0)
    assert [one.node for one in gathered.answers] == ["c"]
    assert world.nodes["c"].asked[-1].map_version == world.map.version


def test_sequences_to_have_seen_go_to_the_shards_they_are_of(world: World) -> None:
    world.ask(at_least={1: 42, 7: 1})
    asked = [one for node in world.nodes.values() for one in node.asked]
    assert {one.at_least for one in asked if 1 in one.shards} == {((1, 42),)}
    assert all(one.at_least == () for one in asked if 1 not in one.shards)
    assert all(0 < one.wait_s < WAIT_S / 2 for one in asked)


def test_an_answer_that_does_not_count_is_taken_when_there_is_no_better(world: World) -> None:
    def poor(call: Count, reply: Reply) -> bool:
        reply(Counted(count=-1), None)
        return True

    world.nodes["a"].behave = poor
    accept = lambda answer: answer.count >= 0  # noqa: E731
    for _ in range(4):
        assert world.counted(world.ask(0, accept=accept)) == 1
    world.nodes["b"].behave = poor
    assert world.counted(world.ask(0, accept=accept)) == -1


def test_one_node_alone_is_asked_until_it_is_dead(world: World) -> None:
    def dies(call: Count, reply: Reply) -> bool:
        if len(world.nodes["a"].calls) >= 2:
            world.dead.add("a")
        reply(None, JadeError(ErrorCode.UNAVAILABLE, "not here"))
        return True

    world.nodes["a"].behave = dies
    with pytest.raises(JadeError):
        world.ask(0, only="a")
    assert len(world.nodes["a"].calls) >= 2 and not world.nodes["b"].calls


def test_the_own_replicas_are_asked_without_a_connection(world: World) -> None:
    own = Replicas("me")
    fan_out = FanOut(world.transport, world, world.balancer, "me", own)
    world.place(0, ["me", "a"])  # type: ignore[arg-type]
    world.place(1, ["me", "b"])  # type: ignore[arg-type]
    world.suspect("a", "b")
    question = Question("d", (0, 1), lambda asked: Count(asked=asked), WAIT_S, WAIT_S / 2)
    assert [one.node for one in fan_out.ask(question).answers] == ["me"]
    own.behave = refusing(ErrorCode.UNAVAILABLE)
    assert world.counted(fan_out.ask(question)) == 2
    assert world.nodes["a"].calls and world.nodes["b"].calls
    own.behave = silent
    quick = Question("d", (0, 1), lambda asked: Count(asked=asked), WAIT_S, 0.2)
    world.suspect("a", "b")
    assert world.counted(fan_out.ask(quick)) == 2 and own.given_up.wait(WAIT_S)


def test_least_loaded_prefers_the_own_node_and_those_that_answer_soon() -> None:
    balancer = Balancer(Balancing.LEAST_LOADED, "me")
    assert balancer.order(["a", "me", "b"], 0.0)[0] == "me"
    for _ in range(40):
        for name, seconds in (("a", 0.01), ("b", 0.05), ("me", 0.2)):
            balancer.began(name)
            balancer.ended(name, seconds)
    assert balancer.order(["a", "me", "b"], 0.0) == ["a", "b", "me"]
    for _ in range(20):
        balancer.began("a")
    assert balancer.order(["a", "b"], 0.0) == ["b", "a"]
    balancer.suspect("b", 0.0)
    assert balancer.order(["a", "b"], 0.1) == ["a", "b"] and balancer.order(["a", "b"], 60.0) == ["b", "a"]


def test_turns_go_round() -> None:
    balancer = Balancer(Balancing.ROUND_ROBIN, "me")
    firsts = [balancer.order(["a", "b", "me"], 0.0)[0] for _ in range(9)]
    assert {name: firsts.count(name) for name in firsts} == {"a": 3, "b": 3, "me": 3}
