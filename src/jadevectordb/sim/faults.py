"""What goes wrong in a simulated cluster, drawn from the seed: one kind after the other, several at once, each for some seconds.

node         killed and started again; paused and let go on
log server   killed, with or without its power; paused; told to stop, so that another leads at once
machine      all of it loses its power: what its disk and its log server had not synced is gone
network      a machine cut off, from all or from some, in one direction or both; slow; messages that take seconds
disk         syncs take long
clock        the wall clock of a node jumps by up to an hour, either way
replica      a file turns out to be damaged
operator     a node is drained and taken back; the master is told to hand over
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.sim.node import SimNode
from jadevectordb.sim.servers import Server
from jadevectordb.topology.cluster_map import NODE_PREFIX, NodeRecord

if TYPE_CHECKING:
    from jadevectordb.sim.world import World

_BETWEEN_S = (0.3, 4.0)
_LASTS_S = (0.5, 9.0)
Undo = Callable[[], None]


class Faults:
    """From `begin` to `end`; then everything is undone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._under_way: dict[str, tuple[str, Undo]] = {}  # by what it hits: one fault at a time
        self._ended = False
        self._draining: dict[str, bool] = {}  # what the operator wants of a node, until it is so

    def begin(self) -> None:
        self._world.loop.after(self._world.loop.random.uniform(*_BETWEEN_S), self._next)

    def _next(self) -> None:
        if self._ended:
            return
        rnd = self._world.loop.random
        kind = rnd.choice(
            [
                self._kill_node, self._kill_node, self._pause_node, self._kill_server, self._pause_server,
                self._step_down, self._machine, self._cut, self._cut, self._cut_some, self._slow, self._late,
                self._slow_disk, self._jump, self._damage, self._drain, self._hand_over,
            ]
        )  # fmt: skip
        kind()
        self._world.loop.after(rnd.uniform(*_BETWEEN_S), self._next)

    def end(self) -> None:
        self._ended = True
        for target in list(self._under_way):
            self._undo(target)
        world = self._world
        world.network.heal()
        world.held_down.clear()
        for node in world.nodes.values():
            node.process.paused_until_s = 0.0
        for server in world.servers.all:
            server.process.paused_until_s = 0.0
            server.slow_s = 0.0
            if not server.process.alive:
                world.servers.start(server)
        for disk in world.disks.values():
            disk.slow_s = 0.0
        world.tell("the faults end")

    def _do(self, target: str, kind: str, undo: Undo, lasts_s: float | None = None) -> None:
        world = self._world
        lasts_s = world.loop.random.uniform(*_LASTS_S) if lasts_s is None else lasts_s
        name = world.recorder.fault_began(kind, target)
        self._under_way[target] = (name, undo)
        world.tell(f"{kind} {target} for {lasts_s:.2f} s")

        def over() -> None:
            if self._under_way.get(target, ("",))[0] == name:
                self._undo(target)

        world.loop.after(lasts_s, over)

    def _undo(self, target: str) -> None:
        name, undo = self._under_way.pop(target)
        undo()
        self._world.recorder.fault_ended(name)
        self._world.tell(f"{target} is as before")

    def _free(self, prefix: str, names: list[str]) -> str | None:
        """One that no fault has hit."""
        able = [name for name in names if f"{prefix} {name}" not in self._under_way]
        return self._world.loop.random.choice(able) if able else None

    # Nodes

    def _kill_node(self) -> None:
        world, machine = self._world, self._free("node", self._world.machines)
        if machine is None:
            return
        world.held_down.add(machine)
        world.kill_node(machine)
        self._do(f"node {machine}", "kill", lambda: world.held_down.discard(machine))

    def _pause_node(self) -> None:
        world, machine = self._world, self._free("node", self._world.machines)
        if machine is None:
            return
        process = world.nodes[machine].process
        lasts_s = world.loop.random.uniform(*_LASTS_S)
        process.paused_until_s = world.loop.now_s + lasts_s

        def go_on() -> None:
            process.paused_until_s = 0.0

        self._do(f"node {machine}", "pause", go_on, lasts_s)

    # Log servers

    def _server(self) -> Server | None:
        machine = self._free("log server", [server.machine for server in self._world.servers.all])
        return None if machine is None else self._world.servers.on(machine)

    def _kill_server(self) -> None:
        world, server = self._world, self._server()
        if server is None:
            return
        power = world.loop.random.random() < 0.3
        world.servers.kill(server, power=power)
        self._do(f"log server {server.machine}", "power loss" if power else "kill", lambda: world.servers.start(server))

    def _pause_server(self) -> None:
        world, server = self._world, self._server()
        if server is None:
            return
        process = server.process
        lasts_s = world.loop.random.uniform(*_LASTS_S)
        process.paused_until_s = world.loop.now_s + lasts_s

        def go_on() -> None:
            process.paused_until_s = 0.0
            world.servers.moved()

        self._do(f"log server {server.machine}", "pause", go_on, lasts_s)

    def _step_down(self) -> None:
        """A planned stop: its streams are led by others at once."""
        world, server = self._world, self._server()
        if server is None:
            return
        world.servers.kill(server)
        for stream in world.servers.streams.values():
            if stream.leads(server):
                stream.step_down()
        self._do(f"log server {server.machine}", "planned stop", lambda: world.servers.start(server))

    # Machines and what joins them

    def blackout(self) -> None:
        """Every machine loses its power at one moment."""
        for machine in self._world.machines:
            for target in (f"node {machine}", f"log server {machine}"):
                if target in self._under_way:
                    self._undo(target)
            self._lose_power(machine)

    def _machine(self) -> None:
        """Everything on it at once; sometimes on all machines."""
        world, rnd = self._world, self._world.loop.random
        free = [m for m in world.machines if not {f"node {m}", f"log server {m}"} & self._under_way.keys()]
        if not free:
            return
        for machine in free if rnd.random() < 0.2 else [rnd.choice(free)]:
            self._lose_power(machine)

    def _lose_power(self, machine: str) -> None:
        world, server = self._world, self._world.servers.on(machine)
        world.held_down.add(machine)
        world.kill_node(machine)
        world.disks[machine].lose_power()
        lasts_s = world.loop.random.uniform(*_LASTS_S)
        self._do(f"node {machine}", "power loss", lambda: world.held_down.discard(machine), lasts_s)
        if server is not None:
            world.servers.kill(server, power=True)
            self._do(f"log server {machine}", "power loss", lambda: world.servers.start(server), lasts_s)

    def _cut(self) -> None:
        world, machine = self._world, self._free("network", self._world.machines)
        if machine is None:
            return
        others = [other for other in [*world.machines, "clients"] if other != machine]
        if world.loop.random.random() < 0.5:
            others.remove("clients")
        for other in others:
            world.network.cut(machine, other)

        def join() -> None:
            for other in others:
                world.network.join(machine, other)

        self._do(f"network {machine}", "partition", join)

    def _cut_some(self) -> None:
        """One way, between two machines, perhaps in one direction only."""
        world, machine = self._world, self._free("network", self._world.machines)
        if machine is None:
            return
        other = world.loop.random.choice([other for other in world.machines if other != machine])
        world.network.cut(machine, other, one_way=world.loop.random.random() < 0.5)
        self._do(f"network {machine}", f"cut to {other}", lambda: world.network.join(machine, other))

    def _slow(self) -> None:
        world, machine = self._world, self._free("network", self._world.machines)
        if machine is None:
            return
        world.network.slow(machine, world.loop.random.choice([0.01, 0.1, 0.5]))
        self._do(f"network {machine}", "slow", lambda: world.network.slow(machine, 0.0))

    def _late(self) -> None:
        network = self._world.network
        if "network all" in self._under_way:
            return
        network.late = self._world.loop.random.choice([0.01, 0.05])

        def end() -> None:
            network.late = 0.0

        self._do("network all", "late messages", end)

    def _slow_disk(self) -> None:
        world, machine = self._world, self._free("disk", self._world.machines)
        if machine is None:
            return
        disk, server = world.disks[machine], world.servers.on(machine)
        slow_s = world.loop.random.choice([0.02, 0.2, 1.0])
        disk.slow_s = slow_s
        if server is not None:
            server.slow_s = slow_s

        def end() -> None:
            disk.slow_s = 0.0
            if server is not None:
                server.slow_s = 0.0

        self._do(f"disk {machine}", "slow", end)

    # What a person asks for

    def _drain(self) -> None:
        machine = self._free("role of", self._world.machines)
        if machine is None:
            return
        self._set_draining(machine, True)
        self._do(f"role of {machine}", "drain", lambda: self._set_draining(machine, False))

    def _set_draining(self, machine: str, draining: bool) -> None:
        is_operating = machine in self._draining
        self._draining[machine] = draining
        if not is_operating:
            self._world.loop.spawn(self._world.operator, lambda: self._operate(machine), "operator")

    def _operate(self, machine: str) -> None:
        """An operator, who asks one node after the other until the record says what it shall."""
        loop, done = self._world.loop, False
        while not done:
            draining = self._draining[machine]
            nodes = self._world.running()
            if nodes:
                node = loop.random.choice(nodes)
                marked: list[bool] = []
                fiber = loop.spawn(node.process, partial(mark, node, machine, draining, marked), "operator")
                while not fiber.over and node.process.alive:
                    loop.sleep(0.1)
                done = bool(marked) and draining == self._draining[machine]
            if not done:
                loop.sleep(0.5)
        del self._draining[machine]

    def _hand_over(self) -> None:
        for node in self._world.running():
            if node.term() is not None and node.elector is not None:
                self._world.tell(f"{node.name} is told to hand over")
                self._world.loop.spawn(node.process, node.elector.resign, "resign")

    # Clocks and contents

    def _jump(self) -> None:
        world, machine = self._world, self._free("clock", self._world.machines)
        if machine is None:
            return
        process = world.nodes[machine].process
        by_ms = world.loop.random.choice([-3_600_000, -5_000, 5_000, 3_600_000])
        process.wall_ms += by_ms

        def back() -> None:
            process.wall_ms -= by_ms

        self._do(f"clock {machine}", f"jump by {by_ms} ms", back)

    def _damage(self) -> None:
        hosted = [one for one in self._world.hosted() if one[1].readable is not None]
        if not hosted:
            return
        node, one = self._world.loop.random.choice(hosted)
        database = one.readable
        if database is None:
            return
        error = JadeError(ErrorCode.CORRUPT, "a file does not match its checksum", details={"file": "checkpoint"})
        self._world.tell(f"the replica of shard {one.shard} on {node.name} is damaged")
        self._world.loop.spawn(node.process, lambda: one.found_damage(error), "damage")


def mark(node: SimNode, machine: str, draining: bool, done: list[bool]) -> None:
    """Change what the machine's node is to be; in a fiber of some node."""
    try:
        store = node.metadata
        record = store.get(NODE_PREFIX + machine)
        if record is None:
            return
        known = msgspec.json.decode(record.value, type=NodeRecord)
        changed = msgspec.json.encode(msgspec.structs.replace(known, draining=draining))
        if store.compare_and_set(NODE_PREFIX + machine, changed, record.revision) is not None:
            done.append(True)
    except JadeError:
        return
