"""What people do to a cluster while it is used, simulated: nodes join, are emptied, and die at the worst moment of that.

Every step is followed by the invariants of the simulation, and at the end by the checkers of the whole history.
"""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from jadevectordb.control.moving import moved
from jadevectordb.sim.checkers import check
from jadevectordb.sim.disk import Disk
from jadevectordb.sim.faults import mark
from jadevectordb.sim.workload import VECTORS, SimClient
from jadevectordb.sim.world import DATABASE, Shape, World, end, simulated
from jadevectordb.topology.cluster_map import MAP_KEY, ClusterMap, ShardRecord

_S_MAX = 60.0
_SHAPE = Shape(nodes=4, shards=3, clients=3, pause_s=0.05, seal_rows=5)


class Operated(World):
    """A cluster in use, and an operator's commands."""

    def begin(self) -> None:
        self._await(lambda: len(self.running()) == len(self.machines), _S_MAX, "the nodes start")
        self._in_a_fiber(self._create, _S_MAX, "a database is made")
        for number in range(self.shape.clients):
            client = SimClient(
                f"c{number}", self.loop, self.network, self._clients_process, self.recorder, self.running, DATABASE,
                self.shape.shards, ["k0", "k1", "k2", "k3"],
            )  # fmt: skip
            self.clients.append(client)
            act = partial(client.run, lambda: self._over, self.shape.pause_s)
            self.loop.spawn(self._clients_process, act, client.name)
        self._await(self._is_placed, _S_MAX, "it is placed")

    def _is_placed(self) -> bool:
        return all(len(shard.readable) == 3 for shard in self.shards)

    def join(self, machine: str) -> None:
        self.machines.append(machine)
        self.disks[machine] = Disk(self.loop, machine)
        self.start_node(machine)

    def drain(self, machine: str) -> None:
        marked: list[bool] = []
        node = next(node for node in self.running() if node.name != machine)
        self.loop.spawn(node.process, lambda: mark(node, machine, True, marked), "operator")
        self._await(lambda: bool(marked), _S_MAX, "the drain is asked for")

    def move(self, source: str, target: str) -> None:
        """As the node that a person asks writes it."""
        done: list[bool] = []
        node = self.running()[0]

        def act() -> None:
            while not done:
                found, known = node.metadata.get(MAP_KEY), node.observed.observe()
                assert found is not None
                before = msgspec.json.decode(found.value, type=ClusterMap)
                changed = moved(before, known.nodes, known.alive, next(iter(before.databases)), 0, source, target)
                if node.metadata.compare_and_set(MAP_KEY, msgspec.json.encode(changed), found.revision) is not None:
                    done.append(True)

        self.loop.spawn(node.process, act, "operator")
        self._await(lambda: bool(done), _S_MAX, "the move is asked for")

    @property
    def shards(self) -> tuple[ShardRecord, ...]:
        return next(iter(self.invariants.map.databases.values())).shards

    def held(self, machine: str) -> int:
        return sum(shard.on(machine) is not None for shard in self.shards)

    def master(self) -> str:
        masters = [node.name for node in self.running() if node.term() is not None]
        return masters[0] if masters else ""

    def finish(self) -> None:
        """No client is told anything wrong, and the replicas that are left are equal."""
        self._over = True
        self._await(lambda: not any(client.busy for client in self.clients), _S_MAX, "clients are answered")
        self.loop.run_until(self.loop.now_s + 8.0)
        self.recorder.settled()
        self._report_conflicts()
        self._in_a_fiber(lambda: self._read_all(["k0", "k1", "k2", "k3"]), _S_MAX, "everything is read")
        self.invariants.check_digests()
        self._report_replicas()
        found = check(self.recorder.history(), vectors=VECTORS, replicas_expected=3)
        assert not found.violations, "\n".join(self.told) + found.text()


@pytest.mark.parametrize("seed", range(2))
def test_a_node_joins_and_another_is_emptied_in_use(seed: int) -> None:
    with simulated(seed) as loop:
        world = Operated(loop, seed, _SHAPE)
        try:
            world.begin()
            world.join("n5")
            world.drain("n1")
            world._await(lambda: world.held("n1") == 0 and world.held("n5") > 0, _S_MAX, "n1 is emptied, n5 used")
            world.finish()
        finally:
            end(world)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("killed", ["the master", "the one that leaves", "both"])
def test_a_drain_is_carried_out_whoever_dies_meanwhile(seed: int, killed: str) -> None:
    with simulated(seed) as loop:
        world = Operated(loop, seed, _SHAPE)
        try:
            world.begin()
            leaving = world.machines[seed % 4]
            world.drain(leaving)
            loop.run_until(loop.now_s + loop.random.uniform(0.0, 1.5))
            doomed = {"the master": {world.master()}, "the one that leaves": {leaving}}.get(
                killed, {world.master(), leaving}
            )
            for machine in sorted(doomed - {""}):
                world.kill_node(machine)  # the world starts it again after a moment
            world._await(lambda: world.held(leaving) == 0 and world._is_placed(), _S_MAX, f"{leaving} is emptied")
            world.finish()
        finally:
            end(world)


@pytest.mark.parametrize("seed", range(3))
def test_a_replica_moved_by_hand_arrives_and_stays_though_the_master_dies(seed: int) -> None:
    with simulated(seed) as loop:
        world = Operated(loop, seed, _SHAPE)
        try:
            world.begin()
            shard = world.shards[0]
            source = shard.replicas[seed].node
            target = next(machine for machine in world.machines if shard.on(machine) is None)
            world.move(source, target)
            world.kill_node(world.master())
            world._await(
                lambda: world.shards[0].on(source) is None and world._is_placed(),
                _S_MAX,
                f"{target} has it, {source} not",
            )
            loop.run_until(loop.now_s + 5.0)
            replica = world.shards[0].on(target)
            assert replica is not None and replica.by_hand
            world.finish()
        finally:
            end(world)
