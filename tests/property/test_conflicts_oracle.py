"""Concurrent writes, against an oracle that knows who knew of what because it was there.

Gateways with clocks that are wrong write at QUORUM, or into their outbox, learn of the log now and then, and publish. The oracle
keeps for each write the set of all writes that its gateway knew; it never looks at places, times of others or tables. Beside the
replica that only applies runs one that is frozen, written, built, and opened from its folder again and again.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jadevectordb.adapters.os_disk import write_file_atomically
from jadevectordb.index.space import VectorSpace
from jadevectordb.model import filter_parse, filters
from jadevectordb.model.hybrid_time import HybridClock
from jadevectordb.model.ids import NodeId, RequestId, Sequence, ShardId, VectorId
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Barrier, Delete, DeleteWhere, Entry, Operation, Update, Write
from jadevectordb.model.schema import parse_schema
from jadevectordb.segment import builder
from jadevectordb.shard.apply import ShardConfig
from jadevectordb.shard.replica import Replica

FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CONFIG = ShardConfig(VectorSpace(Metric.DOT, 1), parse_schema(None), None, seal_rows=6)
GATEWAYS = 3
NAMES = [VectorId(f"v{n}") for n in range(5)]

names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
kinds = st.sampled_from(["write", "write", "write", "update", "delete", "where"])
gateways = st.integers(0, GATEWAYS - 1)
steps = st.one_of(
    st.tuples(st.just("quorum"), gateways, kinds, names),
    st.tuples(st.just("eventual"), gateways, kinds, names),
    st.tuples(st.just("eventual"), gateways, kinds, names),
    st.tuples(st.just("publish"), gateways),
    st.tuples(st.just("publish"), gateways),
    st.tuples(st.just("learn"), gateways, st.integers(0, 100)),
    st.tuples(st.just("chore"), st.sampled_from("wbo"), st.integers(0, 3)),
)


@dataclass(eq=False)
class Event:
    """A write. knew: all writes that its gateway knew when it took it. number: its metadata, so that a filter can name it."""

    number: int
    gateway: int
    entry: Entry
    knew: frozenset[Event]
    late: bool

    @property
    def rank(self) -> tuple[int, str]:
        return self.entry.time, self.entry.node


@dataclass
class Gateway:
    name: NodeId
    off_ms: int
    clock: HybridClock = field(default_factory=HybridClock)
    outbox: deque[Event] = field(default_factory=deque)
    own: set[Event] = field(default_factory=set)
    known: int = 0  # how far it knows the log


@dataclass
class Register:
    """What a vector's last write was, and what that left. number: of the metadata."""

    by: Event
    alive: bool
    number: int


class Oracle:
    def __init__(self) -> None:
        self.registers: dict[str, Register] = {}
        self.found: list[tuple[str, int, int, bool]] = []  # id, late, stood (numbers), whether the late one won
        self.overtaken: list[tuple[str, int, int]] = []

    def apply(self, event: Event) -> None:
        match event.entry.operation:
            case Write(ids=ids) | Delete(ids=ids) | Update(ids=ids):
                targets = list(ids)
            case DeleteWhere(filter=wanted):
                number = msgspec.json.decode(wanted)["value"]
                targets = sorted(i for i, r in self.registers.items() if r.alive and r.number == number)
            case _:
                targets = []
        for name in targets:
            if self._counts(name, event):
                self._change(name, event)

    def _change(self, name: str, event: Event) -> None:
        stood = self.registers.get(name)
        match event.entry.operation:
            case Write():
                self.registers[name] = Register(event, True, event.number)
            case Update():
                if stood is not None and stood.alive:
                    self.registers[name] = Register(event, True, event.number)
            case Delete() | DeleteWhere():
                self.registers[name] = Register(event, False, 0)

    def _counts(self, name: str, late: Event) -> bool:
        stood = self.registers.get(name)
        if not late.late or stood is None or stood.by in late.knew:
            return True
        deletes = isinstance(late.entry.operation, Delete | DeleteWhere)
        is_partial = isinstance(stood.by.entry.operation, Update)
        if late in stood.by.knew and stood.by.gateway == late.gateway and not is_partial:
            if stood.alive or not deletes:
                self.overtaken.append((name, late.number, stood.by.number))
            return False
        won = late.rank > stood.by.rank
        if not stood.alive and isinstance(late.entry.operation, Update):
            won = False
        if stood.alive or not deletes:
            self.found.append((name, late.number, stood.by.number, won))
        return won


class World:
    def __init__(self, folder: Path, offsets_ms: list[int]) -> None:
        self.gateways = [Gateway(NodeId(f"n{n}"), off) for n, off in enumerate(offsets_ms)]
        self.log: list[Event] = []
        self.oracle = Oracle()
        self.folder = folder
        self.plain = self._opened("plain")
        self.chores = self._opened("chores")
        self.now_ms = 1_000_000
        self.count = 0
        self._append(self._event(0, Barrier(), late=True))  # from here on the shard remembers who wrote when

    def _opened(self, name: str) -> Replica:
        replica = Replica(ShardId(0), self.folder / name, CONFIG, IndexKind.AUTO, write_file_atomically)
        replica.remove_orphans()
        return replica

    def _event(self, gateway: int, operation: Operation, *, late: bool) -> Event:
        who = self.gateways[gateway]
        self.now_ms += 1
        time = who.clock.tick(self.now_ms + who.off_ms)
        knew = frozenset(self.log[: who.known]) | who.own
        request = RequestId(f"r{self.count}") if late else RequestId("")
        entry = Entry(operation, time, who.name, request, seen=who.known if late else None)
        return Event(self.count, gateway, entry, knew, late)

    def operation(self, kind: str, ids: list[VectorId]) -> Operation:
        self.count += 1
        document = b'{"n":%d}' % self.count
        match kind:
            case "write":
                return Write(ids, np.full((len(ids), 1), self.count, np.float32), [document] * len(ids))
            case "update":
                return Update(ids, [document] * len(ids), True)
            case "delete":
                return Delete(ids)
            case _:
                alive = [r.number for r in self.oracle.registers.values() if r.alive]
                node = filter_parse.parse({"n": alive[self.count % len(alive)] if alive else -1})
                assert node is not None
                return DeleteWhere(filters.to_json(node))

    def step(self, step: tuple[object, ...]) -> None:
        match step:
            case ("quorum", int(gateway), str(kind), list(ids)):
                event = self._event(gateway, self.operation(kind, ids), late=False)
                self.gateways[gateway].own.add(event)
                self._append(event)
                self.gateways[gateway].known = len(self.log)
            case ("eventual", int(gateway), str(kind), list(ids)):
                event = self._event(gateway, self.operation(kind, ids), late=True)
                self.gateways[gateway].own.add(event)
                self.gateways[gateway].outbox.append(event)
            case ("publish", int(gateway)):
                if self.gateways[gateway].outbox:
                    self._append(self.gateways[gateway].outbox.popleft())
            case ("learn", int(gateway), int(percent)):
                who = self.gateways[gateway]
                who.known = max(who.known, len(self.log) * percent // 100)
            case ("chore", str(chore), int(which)):
                self._chore(chore, which)

    def _append(self, event: Event) -> None:
        self.log.append(event)
        self.oracle.apply(event)
        for replica in (self.plain, self.chores):
            replica.apply(Sequence(len(self.log)), event.entry)

    def _chore(self, chore: str, which: int) -> None:
        replica = self.chores
        if chore == "w":
            replica.write_frozen()
        elif chore == "o":
            self.chores = self._opened("chores")
            for missed in range(self.chores.state.applied + 1, len(self.log) + 1):
                self.chores.apply(Sequence(missed), self.log[missed - 1].entry)
        elif builds := replica.planned_builds():
            build = builds[which % len(builds)]
            job = replica.job_of(build, 1) if build.rows else None
            if job is not None:
                builder.build_encoded(msgspec.msgpack.encode(job))
            replica.install(build, None if job is None else Path(job.target))

    def check(self) -> None:
        found = {}
        for part in self.plain.state.view().parts:
            for row in range(part.reader.row_count):
                if part.is_alive(row):
                    number = msgspec.json.decode(part.reader.metadata_of(row))["n"]
                    found[part.reader.id_of(row)] = (part.reader.version_of(row), number)
        places = {event: place for place, event in enumerate(self.log, start=1)}
        alive = {name: (places[r.by], r.number) for name, r in self.oracle.registers.items() if r.alive}
        assert found == alive
        report = self.plain.conflicts()
        number_of = {place: event.number for event, place in places.items()}
        told = [
            (one.id, number_of[one.late.sequence], number_of[one.stood.sequence], one.late_won) for one in report.listed
        ]
        concurrent = [one for one, listed in zip(told, report.listed, strict=True) if listed.is_concurrent]
        assert concurrent == self.oracle.found and report.found == len(self.oracle.found)
        overtaken = [one[:3] for one, listed in zip(told, report.listed, strict=True) if not listed.is_concurrent]
        assert overtaken == self.oracle.overtaken and report.superseded == len(self.oracle.overtaken)
        for one in report.listed:
            late, stood = self.log[one.late.sequence - 1].entry, self.log[one.stood.sequence - 1].entry
            assert (one.late.time, one.late.node, one.late.request_id) == (late.time, late.node, late.request_id)
            assert (one.stood.time, one.stood.node) == (stood.time, stood.node)
        assert self.chores.digest() == self.plain.digest() and self.chores.conflicts() == report


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(-20, 20), min_size=GATEWAYS, max_size=GATEWAYS), st.lists(steps, min_size=30, max_size=90))
def test_exactly_the_concurrent_writes_are_conflicts_and_the_later_one_counts(
    offsets_ms: list[int], history: list[tuple[object, ...]]
) -> None:
    with tempfile.TemporaryDirectory(dir=FAST_DISK) as folder:
        world = World(Path(folder), offsets_ms)
        for step in history:
            world.step(step)
        for gateway in range(GATEWAYS):
            while world.gateways[gateway].outbox:
                world.step(("publish", gateway))
        world.check()
        world._chore("o", 0)
        world.check()
