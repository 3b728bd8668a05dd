"""A whole cluster on virtual time: its nodes, the faults that meet it, and what must hold whatever happens.

One run of a seed:
    the nodes start, a database is made
    clients write and read while faults come and go (`faults`)
    the faults end; within `HEALTHY_S_MAX` of virtual time everything must be whole again: a master, every shard with its replicas
    active and at their log's end, every outbox empty
    every vector is read at STRONG, every replica tells its digest, and the checkers judge the whole history

After every event (`Invariants`): at most one master by its own deadline; versions of the map by one each, terms never back; no change of
the map takes the last replica that serves; what a majority of log servers had stays; replicas that have applied equally many
entries have equal digests.

What is real and what is not. Real, as it runs in a process: election, mirrors, placement and master loop, truncation, agent, hosting,
`HostedShard`, `OpenDatabase` with the state machine of shards, watermarks, answering of calls, fan-out with hedging and balancing,
routing, reader, writer, barriers, outbox, store of databases, registration; the encodings of entries, calls and records; the
watches of a store. Stand-ins: threads, locks and queues (`threads`: fibers), clocks, the network and its connections (`transport`),
JetStream's servers and what talks to them (`servers`, `log`, `store`), disks and the files of a replica (`disk`: checkpoints are kept as
objects, no segment is built, a snapshot is copied in one piece), `cluster.py`'s assembly (`node`), the REST and RPC layers in
front (`workload` calls the database's handle on the node). A loss of power tears no file apart: that is tested on real ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from jadevectordb.control.loop import MasterSettings
from jadevectordb.model.errors import JadeError
from jadevectordb.node.hosted_shard import HostedShard
from jadevectordb.sim.checkers import check
from jadevectordb.sim.checks.violation import Violation
from jadevectordb.sim.disk import Disk, on_simulated_disks
from jadevectordb.sim.faults import Faults
from jadevectordb.sim.history import Level
from jadevectordb.sim.loop import DefectError, Loop, Process
from jadevectordb.sim.network import Network
from jadevectordb.sim.node import SimNode
from jadevectordb.sim.recorder import Recorder
from jadevectordb.sim.report import Report
from jadevectordb.sim.servers import Server, Servers, Stream, Unit
from jadevectordb.sim.threads import linked
from jadevectordb.sim.transport import SimServer
from jadevectordb.sim.workload import DIMENSION, MACHINE, SAMPLE, VECTORS, SimClient
from jadevectordb.topology.cluster_map import MAP_KEY, ClusterMap, ReplicaState

HEALTHY_S_MAX = 120.0
DATABASE = "register"
_START_S_MAX = 60.0
_DIGESTS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a run is like. busy_s: how long there are faults and clients. sync: whether log servers sync before they acknowledge."""

    nodes: int = 3
    shards: int = 2
    clients: int = 4
    ids: int = 10
    busy_s: float = 20.0
    faults: bool = True
    sync: bool = True
    seal_rows: int = 12
    blackout_s: float = 0.0  # when all machines lose their power at once; 0: never
    pause_s: float = 0.15
    sharding: str = "hash"  # or "vector"


@dataclass
class Outcome:
    """fingerprint: of everything that happened; the same for every run of the seed. healed_s: how long it took to be whole."""

    seed: int
    report: Report
    fingerprint: str
    virtual_s: float
    healed_s: float
    steps: int
    told: list[str] = field(default_factory=list)
    lost: int = 0
    conflicts: int = 0

    @property
    def violations(self) -> list[Violation]:
        return self.report.violations


class World:
    """Made and stepped in one thread; within `simulated`."""

    def __init__(self, loop: Loop, seed: int, shape: Shape) -> None:
        self.loop = loop
        self.seed = seed
        self.shape = shape
        self.told: list[str] = []
        self.network = Network(loop)
        self.machines = [f"n{number}" for number in range(1, shape.nodes + 1)]
        self.servers = Servers(loop, self.network, self.machines[:3], sync=shape.sync)
        self.listeners: dict[str, SimServer] = {}
        self.disks = {machine: Disk(loop, machine) for machine in self.machines}
        self.nodes: dict[str, SimNode] = {}
        self.held_down: set[str] = set()  # nodes that nobody starts for now
        self.recorder = Recorder(lambda: loop.now_s, name="s")
        self._ids = itertools.count(1)
        self._clients_process = Process("clients")
        self.operator = Process("operator")
        self.clients: list[SimClient] = []
        self._over = False
        self.conflicts = 0  # that the shards found
        self._told_conflicts: set[tuple[str, int]] = set()  # (database, shard)
        self.invariants = Invariants(self)
        loop.after_step = self.invariants.after_step
        self.servers.on_commit_of = self.invariants.on_commit
        for machine in self.machines:
            self.start_node(machine)
        loop.after(0.5, self._supervise)

    def new_id(self) -> str:
        return f"{next(self._ids):08x}"

    def tell(self, text: str) -> None:
        self.loop.note(text)
        self.told.append(f"{self.loop.now_s:9.3f}  {text}")

    # Nodes

    def start_node(self, machine: str) -> None:
        rnd = self.loop.random
        process = Process(
            machine, rate=1 + rnd.uniform(-0.05, 0.05), offset_s=rnd.uniform(0, 1e6), wall_ms=rnd.randint(-2000, 2000)
        )
        self.nodes[machine] = SimNode(
            self.loop, self.network, self.servers, self.listeners, self.disks[machine], process, self.new_id,
            MasterSettings(replace_after_s=8.0, retained_entries=30, truncate_every_s=2.0), zone="",
        )  # fmt: skip

    def kill_node(self, machine: str) -> None:
        node = self.nodes[machine]
        if node.process.alive:
            self.loop.kill(node.process)
        if node.server is not None:
            node.server.close()

    def _supervise(self) -> None:
        for machine, node in list(self.nodes.items()):
            if node.failed and node.process.alive:
                self.tell(f"{machine} could not open: {node.failed}")
                self.kill_node(machine)
            if not node.process.alive and machine not in self.held_down:
                self.tell(f"{machine} starts")
                self.start_node(machine)
        self.loop.after(1.0, self._supervise)

    def running(self) -> list[SimNode]:
        return [node for node in self.nodes.values() if node.process.alive and node.ready]

    def hosted(self) -> Iterator[tuple[SimNode, HostedShard]]:
        for node in self.running():
            if node.hosting is not None:
                for one in list(node.hosting._hosted.values()):
                    yield node, one

    # A run

    def run(self) -> Outcome:
        self._await(lambda: len(self.running()) == len(self.machines), _START_S_MAX, "the nodes start")
        self._in_a_fiber(self._create, _START_S_MAX, "a database is made")
        names = [f"k{number}" for number in range(self.shape.ids)]
        for number in range(self.shape.clients):
            client = SimClient(
                f"c{number}", self.loop, self.network, self._clients_process, self.recorder, self.running, DATABASE,
                self.shape.shards, names, by_vector=self.shape.sharding == "vector",
            )  # fmt: skip
            self.clients.append(client)
            self.loop.spawn(
                self._clients_process, partial(client.run, lambda: self._over, self.shape.pause_s), client.name
            )
        faults = Faults(self)
        if self.shape.faults:
            faults.begin()
        if self.shape.blackout_s:
            self.loop.after(self.shape.blackout_s, faults.blackout)
        self.loop.run_until(self.loop.now_s + self.shape.busy_s)
        faults.end()
        began_s = self.loop.now_s
        self._over = True
        self._await(self._is_whole, HEALTHY_S_MAX, "everything is whole again")
        healed_s = self.loop.now_s - began_s
        self._await(lambda: not any(client.busy for client in self.clients), 60.0, "clients are answered")
        self._await(self._is_whole, HEALTHY_S_MAX, "everything is whole")
        self.loop.run_until(self.loop.now_s + 8.0)  # what is late in the network arrives
        self._await(self._is_whole, HEALTHY_S_MAX, "everything is whole")
        self.recorder.settled()
        self._report_conflicts()
        self._in_a_fiber(lambda: self._read_all(names), 60.0, "everything is read")
        self._await(self._is_whole, HEALTHY_S_MAX, "replicas are at the end")
        self._report_replicas()
        self._look_for_doubles(names)
        report = check(self.recorder.history(), vectors=VECTORS, replicas_expected=3)
        lost = sum(stream.lost for stream in self.servers.streams.values())
        return Outcome(
            self.seed, report, self.loop.fingerprint(), self.loop.now_s, healed_s, self.loop.steps, self.told, lost,
            self.conflicts,
        )  # fmt: skip

    def _create(self) -> None:
        store = self.running()[0].store
        assert store is not None
        sample = SAMPLE if self.shape.sharding == "vector" else None
        store.create_database(
            DATABASE, DIMENSION, shards=self.shape.shards, replication=3, seal_rows=self.shape.seal_rows, index="FLAT",
            sharding=self.shape.sharding, sample=sample,
        )  # fmt: skip

    def _read_all(self, names: list[str]) -> None:
        for vector_id in names:
            for _ in range(10):
                if self.clients[0].read(*_strong(vector_id)):
                    break
            else:
                raise DefectError(f"{vector_id} can't be read at STRONG though all is whole")

    def _in_a_fiber(self, work: Callable[[], None], seconds: float, what: str) -> None:
        """In the fiber of a client, or of a node where the work needs one."""
        process = self.running()[0].process if what == "a database is made" else self._clients_process
        failures: list[JadeError] = []

        def act() -> None:
            try:
                work()
            except JadeError as error:
                failures.append(error)

        fiber = self.loop.spawn(process, act, what)
        self._await(lambda: fiber.over, seconds, what)
        if failures:
            raise DefectError(f"{what}: {failures[0]}")

    def _await(self, is_so: Callable[[], bool], seconds: float, what: str) -> None:
        until_s = self.loop.now_s + seconds
        while not is_so():
            if self.loop.now_s >= until_s:
                raise DefectError(f"not within {seconds:g} s: {what}. {self.why_not_whole()}")
            self.loop.run_until(self.loop.now_s + 0.25)

    # Being whole

    def _is_whole(self) -> bool:
        return not self.why_not_whole()

    def why_not_whole(self) -> str:
        if len(self.running()) < len(self.machines):
            return f"of the nodes only {[node.name for node in self.running()]} run"
        draining = [name for name, node in self.running()[0].observed.observe().nodes.items() if node.draining]
        if draining:
            return f"still draining: {draining}"
        masters = [node.name for node in self.running() if node.term() is not None]
        if len(masters) != 1:
            return f"masters: {masters}"
        cluster_map = self.invariants.map
        for record in cluster_map.databases.values():
            for shard in record.shards:
                states = {replica.node: str(replica.state) for replica in shard.replicas}
                if len(states) != record.replication or set(states.values()) != {ReplicaState.ACTIVE}:
                    return f"{record.id}/{shard.number}: {states}, {self._reports(record.id, shard.number)}"
                end = self._end_of(record.id, 0 if self.shape.sharding == "vector" else shard.number)
                for machine in states:
                    hosting = self.nodes[machine].hosting
                    hosted = None if hosting is None else hosting.get(record.id, shard.number)
                    if hosted is None or hosted.readable is None or hosted.watermark != end:
                        at = "nothing" if hosted is None else f"{hosted.watermark} ({hosted.report()})"
                        return f"{record.id}/{shard.number} on {machine}: {at} of {end}"
        for node in self.running():
            assert node.store is not None
            waiting = sum(figures.entries for figures in node.store.outbox_figures().values())
            if waiting:
                return f"{waiting} entries wait in the outbox of {node.name}: {node.store.outbox_figures()}"
        return ""

    def _reports(self, database: str, shard: int) -> list[str]:
        return [f"{n.name}: {h.report()}" for n, h in self.hosted() if (h.database_id, h.shard) == (database, shard)]

    def _end_of(self, database: str, shard: int) -> int:
        truth = self.servers.streams[f"log+{database}+{shard}"].truth
        return truth[-1].last if truth else 0

    def _report_conflicts(self) -> None:
        """Writes that were acknowledged and changed nothing: what the cluster lists is what the checker may excuse."""
        for _, hosted in self.hosted():
            report = hosted.conflicts()
            if report is None or (hosted.database_id, hosted.shard) in self._told_conflicts:
                continue
            self._told_conflicts.add((hosted.database_id, hosted.shard))
            self.conflicts += report.found
            for one in report.listed:
                if not one.late_won:
                    self.recorder.conflict(one.id, request=one.late.request_id)

    def _report_replicas(self) -> None:
        for node, hosted in self.hosted():
            database = hosted.readable
            if database is not None:
                replica = database.replicas[0]
                self.recorder.replica(hosted.shard, node.name, hosted.watermark, replica.digest(), database.view.live)

    def _look_for_doubles(self, names: list[str]) -> None:
        """Every id lives in one shard at most, on every node."""
        for node in self.running():
            shards_of: dict[str, list[int]] = {}
            for one, hosted in self.hosted():
                database = hosted.readable if one is node else None
                located = [] if database is None else database.view.shards[0].locate(names)
                for name, at in zip(names, located, strict=bool(located)):
                    if at is not None:
                        shards_of.setdefault(name, []).append(hosted.shard)
            for name, shards in shards_of.items():
                if len(shards) > 1:
                    raise DefectError(f"{name} is alive in shards {shards} on {node.name}")


def _strong(vector_id: str) -> tuple[Level, list[str]]:
    return Level.STRONG, [vector_id]


class Invariants:
    """What must hold after every event. map: the newest that a majority of the store's servers has."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.map = ClusterMap()
        self._highest_term = 0
        self._master = ""
        self._digests: dict[tuple[str, int, int], tuple[str, str]] = {}  # (database, shard, watermark): digest, of whom
        self._next_digests_s = 0.0

    def after_step(self) -> None:
        world = self._world
        masters = []
        for node in world.nodes.values():
            if (term := node.term()) is not None:
                masters.append((node.name, term))
        if len(masters) > 1:
            raise DefectError(f"at {world.loop.now_s:.6f} s there are two masters: {masters}")
        if masters and masters[0][1] < self._highest_term:
            raise DefectError(f"{masters[0]} is master, but term {self._highest_term} has been")
        if masters:
            master = f"{masters[0][0]} is master in term {masters[0][1]}"
            if master != self._master:
                self._master, self._highest_term = master, masters[0][1]
                world.tell(master)
        if world.loop.now_s >= self._next_digests_s:
            self._next_digests_s = world.loop.now_s + _DIGESTS_EVERY_S
            self.check_digests()

    def on_commit(self, stream: Stream, unit: Unit) -> None:
        if unit.key != MAP_KEY or not stream.name.startswith("kv+"):
            return
        value = unit.items[0]
        assert value is not None, "the map is never deleted"
        before, self.map = self.map, msgspec.json.decode(value, type=ClusterMap)
        if self.map.version != before.version + 1 or self.map.term < before.term:
            raise DefectError(
                f"map {before.version} of term {before.term} is followed by {self.map.version} of term {self.map.term}"
            )
        self._world.tell(f"map {self.map.version} of term {self.map.term}{_differences(before, self.map)}")
        for name, record in before.databases.items():
            after = self.map.databases.get(name)
            if after is None or after.dropped:
                continue
            for old, new in zip(record.shards, after.shards, strict=True):
                gone = {r.node for r in old.replicas} - {r.node for r in new.replicas}
                if gone and old.readable and not new.readable:
                    raise DefectError(
                        f"map {self.map.version} takes the last replica of {name}/{old.number} away: {gone}"
                    )

    def check_digests(self) -> None:
        for node, hosted in self._world.hosted():
            opened = hosted._opened
            if opened is None:
                continue
            replica = opened.database.replicas[0]
            key = (hosted.database_id, hosted.shard, int(replica.state.applied))
            digest = replica.digest()
            known, whose = self._digests.setdefault(key, (digest, node.name))
            if known != digest:
                raise DefectError(f"{node.name} and {whose} have applied {key[2]} entries of shard {key[1]} and differ")


def _differences(before: ClusterMap, after: ClusterMap) -> str:
    found = []
    for name, record in after.databases.items():
        old = before.databases.get(name)
        for shard in record.shards:
            was = old.shards[shard.number] if old is not None else None
            if was != shard:
                states = " ".join(f"{r.node}:{r.state.value}{'*' * (r.node == shard.primary)}" for r in shard.replicas)
                found.append(f"{shard.number} [{states}]")
    return "".join(f"; {one}" for one in found)


@contextmanager
def simulated(seed: int) -> Iterator[Loop]:
    """A loop with everything linked to it."""
    loop = Loop(seed)
    with linked(loop), on_simulated_disks():
        yield loop


def run_seed(seed: int, shape: Shape | None = None) -> Outcome:
    """Raises DefectError with what was told until then when something does not hold."""
    with simulated(seed) as loop:
        world = World(loop, seed, shape or shape_of(seed))
        try:
            return world.run()
        except DefectError as error:
            tail = "\n".join(world.told)
            raise DefectError(f"seed {seed}: {error}\n{tail}") from error
        finally:
            end(world)


def end(world: World) -> None:
    """Every fiber ends."""
    world.loop.after_step = None
    for node in world.nodes.values():
        world.loop.kill(node.process)
    world.loop.kill(world._clients_process)
    world.loop.kill(world.operator)


def shape_of(seed: int, *, short: bool = False) -> Shape:
    """Seeds differ in more than luck. short: some seconds of faults, for many seeds in little time."""
    kinds = [Shape(), Shape(nodes=5, shards=3), Shape(nodes=4, pause_s=0.05, seal_rows=5), Shape(clients=8, ids=4)]
    shape = kinds[seed % len(kinds)]
    return replace(shape, busy_s=5.0, clients=3, pause_s=0.15) if short else shape


def by_vector(shape: Shape) -> Shape:
    """The same with a database whose vectors decide their shard."""
    return replace(shape, sharding="vector", shards=shape.shards + 1)


__all__ = ["MACHINE", "Outcome", "Server", "Shape", "World", "by_vector", "run_seed", "shape_of", "simulated"]
