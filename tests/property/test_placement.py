"""Placement against a world of nodes and agents: whatever happens, no decision harms, and in the end all is placed and even."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from tests.placement_world import Cluster, S

from jadevectordb.model.errors import JadeError

NODES = st.sampled_from([f"n{n}" for n in range(1, 7)])
DATABASES = st.sampled_from(["d1", "d2", "d3"])


class Placement(RuleBasedStateMachine):
    zones = ("",)

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()

    def _known(self) -> list[str]:
        return sorted(self.cluster.agents)

    @rule(node=NODES, data=st.data())
    def start(self, node: str, data: st.DataObject) -> None:
        if node not in self.cluster.agents or not self.cluster.agents[node].alive:
            self.cluster.start(node, data.draw(st.sampled_from(self.zones)))

    @rule(database=DATABASES, shards=st.integers(1, 5), replication=st.integers(1, 4))
    def create(self, database: str, shards: int, replication: int) -> None:
        if database not in self.cluster.map.databases and database not in self.cluster.placed:
            self.cluster.create(database, shards, replication)

    @rule(database=DATABASES)
    def drop(self, database: str) -> None:
        self.cluster.placed.pop(database, None)

    @rule(database=DATABASES, replication=st.integers(1, 4))
    def alter(self, database: str, replication: int) -> None:
        if database in self.cluster.placed:
            self.cluster.create(database, self.cluster.placed[database].config.shards, replication)

    @precondition(_known)
    @rule(data=st.data(), dead_s=st.sampled_from([1.0, 59.0, 61.0]))
    def die(self, data: st.DataObject, dead_s: float) -> None:
        self.cluster.kill(data.draw(st.sampled_from(self._known())), dead_s)

    @precondition(_known)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        agent = self.cluster.agents[data.draw(st.sampled_from(self._known()))]
        agent.known = agent.alive

    @precondition(_known)
    @rule(data=st.data(), draining=st.booleans())
    def drain(self, data: st.DataObject, draining: bool) -> None:
        self.cluster.drain(data.draw(st.sampled_from(self._known())), draining)

    @precondition(lambda self: self.cluster.map.databases and len(self.cluster.agents) > 1)
    @rule(data=st.data(), which=st.integers(0, 10))
    def move_by_hand(self, data: st.DataObject, which: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.map.databases)))
        shards = self.cluster.map.databases[name].shards
        shard = shards[which % len(shards)]
        source = data.draw(st.sampled_from(["", *(r.node for r in shard.replicas)]))
        with contextlib.suppress(JadeError):
            self.cluster.move(name, shard.number, source, data.draw(st.sampled_from(self._known())))

    @precondition(_known)
    @rule(data=st.data(), which=st.integers(0, 10))
    def fail(self, data: st.DataObject, which: int) -> None:
        node = data.draw(st.sampled_from(self._known()))
        has = sorted(self.cluster.agents[node].has)
        if has and self.cluster.agents[node].alive:
            self.cluster.fail(node, has[which % len(has)])

    @precondition(_known)
    @rule(data=st.data(), times=st.integers(1, 4))
    def act(self, data: st.DataObject, times: int) -> None:
        node = data.draw(st.sampled_from(self._known()))
        for _ in range(times):
            self.cluster.act(node)

    @rule()
    def decide(self) -> None:
        self.cluster.decide()

    @rule()
    def go_on(self) -> None:
        for _ in range(3):
            for node in self._known():
                self.cluster.act(node)
            self.cluster.decide()

    def teardown(self) -> None:
        """Quiet: the dead stay dead and are given up, what failed is mended."""
        for agent in self.cluster.agents.values():
            agent.dead_s = 0.0 if agent.alive else 1e9
            agent.has = {place: S.LOADING if state is S.FAILED else state for place, state in agent.has.items()}
        self.cluster.settle()
        self.cluster.check_settled()


class Zones(Placement):
    zones = ("a", "b", "c")


@pytest.mark.parametrize("machine", [Placement, Zones])
def test_no_decision_harms_and_all_comes_to_rest(machine: type[Placement]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=120,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_what_a_move_for_zones_makes_uneven_is_decided_at_once() -> None:
    """The move of a later database makes one of an earlier one due."""
    cluster = Cluster()
    for node in ("n2", "n3"):
        cluster.start(node, "b")
    cluster.create("d1", shards=1, replication=1)
    cluster.create("d2", shards=2, replication=2)
    cluster.decide()
    cluster.start("n1", "a")
    cluster.settle()
    cluster.check_settled()
