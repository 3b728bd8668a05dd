"""The servers that keep the replicated log and the metadata store, as JetStream's do: streams, each led by one of its servers.

What they promise and what not, as measured on the real ones:
- A message is acknowledged when a majority of a stream's servers has it (`sync`: on their disks). It is never lost then, unless
  servers lose what they had not synced and `sync` is off: then a loss of power of a majority loses acknowledged messages.
- When a stream's leader dies, stops, or loses the majority, nothing is acknowledged for some seconds; then a server whose copy has all
  that a majority has leads on. What the old leader had alone is overwritten; what was not acknowledged may be kept or lost.
- A leader that was cut off does not know it, and answers reads with what it has.
- A message with an id that the stream has is not stored again, for some time.

What is simplified: who leads is chosen with the knowledge of the whole world instead of by votes; the choice is one that votes could have
made. Followers that lag are sent what they lack at once. One stream stands for one Raft group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

from jadevectordb.model.limits import LOG_DUPLICATES_S
from jadevectordb.sim.loop import DefectError, Loop, Process
from jadevectordb.sim.network import Network

_TICK_S = 0.25
_ELECTION_S = (0.8, 5.0)
_SYNC_EVERY_S = 5.0  # where a message counts before that
_PLANNED_S = (0.02, 0.12)

Refused: TypeAlias = Literal["again", "wrong"]


@dataclass(eq=False, slots=True)
class Unit:
    """Messages that are stored together. items: one a sequence. id: of the last one. key: of a record, in a store."""

    index: int
    first: int
    last: int
    term: int
    items: list[bytes | None]
    id: str
    at_s: float
    key: str | None = None


@dataclass(eq=False, slots=True)
class Copy:
    """One server's copy of a stream. synced: units on its disk. commit: units that it knows a majority to have."""

    units: list[Unit] = field(default_factory=list)
    synced: int = 0
    commit: int = 0


class Server:
    """One server process on its machine; killed and started again, its copies remain. slow_s: what each sync takes more."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.process = Process(f"log-{machine}")
        self.slow_s = 0.0

    def is_up(self, now_s: float) -> bool:
        return self.process.alive and self.process.paused_until_s <= now_s


Answer: TypeAlias = Callable[[Any], None]


class Stream:
    """One replicated sequence of messages; see the module. Everything here happens in the hub."""

    def __init__(self, servers: Servers, name: str) -> None:
        self.name = name
        self._servers = servers
        self._loop = servers.loop
        self.copies = {server.machine: Copy() for server in servers.all}
        self.leader: Server | None = None
        self.term = 0
        self.purged = 0  # sequences up to this one are kept no more
        self.dropped = False
        self.truth: list[Unit] = []  # what a majority ever had
        self.lost = 0  # acknowledged units that no majority has any more
        self.on_commit: list[Callable[[Unit], None]] = []
        self.on_moved: list[Callable[[], None]] = []  # followers look again
        self._match: dict[str, int] = {}
        self._waiting: dict[Unit, list[Answer]] = {}
        self._ids: dict[str, Unit] = {}  # of the leader's copy
        self._keys: dict[str, Unit] = {}
        self._leaderless_since_s: float | None = None
        self._elect_s = 0.0

    # Who leads

    def leads(self, server: Server) -> bool:
        return self.leader is server

    def reached_by(self, machine: str) -> Server | None:
        """The server that a client on this machine takes for the leader, if it can reach it."""
        network, now_s = self._servers.network, self._loop.now_s
        own = self._servers.on(machine)
        if own is not None and own is not self.leader and own.is_up(now_s) and self._thinks_it_leads(own):
            return own
        leader = self.leader
        if leader is None or not leader.is_up(now_s) or not network.is_joined(machine, leader.machine):
            return None
        return leader

    def _thinks_it_leads(self, server: Server) -> bool:
        """It led, was cut off, and nobody could tell it."""
        return self._servers.deposed.get((self.name, server.machine), 0.0) > self._loop.now_s

    def tick(self) -> None:
        """Look whether the stream is led; elect, or send followers what they lack."""
        now_s, leader = self._loop.now_s, self.leader
        if self.dropped:
            return
        if leader is not None and self._servers.has_majority(leader):
            self._leaderless_since_s = None
            for server in self._servers.all:
                if server is not leader and self._match.get(server.machine, 0) < len(self.copies[leader.machine].units):
                    self._replicate(leader, server)
                elif server is not leader and self.copies[server.machine].commit < len(self.truth):
                    self._tell_commit(leader, server, len(self.truth))  # what told it was lost on its way
            return
        if self._leaderless_since_s is None:
            self._leaderless_since_s = now_s
            self._elect_s = now_s + self._loop.random.uniform(*_ELECTION_S)
        if now_s >= self._elect_s:
            self._elect()

    def step_down(self) -> None:
        """A planned stop of the leader: another is chosen at once."""
        self._leaderless_since_s = self._loop.now_s
        wait_s = self._loop.random.uniform(*_PLANNED_S)
        self._elect_s = self._loop.now_s + wait_s
        self._loop.after(wait_s, self.tick)

    def _elect(self) -> None:
        able = [server for server in self._servers.all if self._servers.has_majority(server)]
        if not able:
            return

        def rank(server: Server) -> tuple[int, int]:
            units = self.copies[server.machine].units
            return (units[-1].term if units else 0, len(units))

        best = max(rank(server) for server in able)
        # Whoever it can reach must not have more: a majority would not vote for less
        able = [s for s in able if rank(s) == best and all(rank(o) <= best for o in self._servers.reached_from(s))]
        if not able:
            return
        before = self.leader
        if before is not None and before.process.alive:
            self._servers.deposed[self.name, before.machine] = self._loop.now_s + self._loop.random.uniform(0.5, 6.0)
        self.leader = leader = self._loop.random.choice(able)
        self._servers.deposed.pop((self.name, leader.machine), None)
        self.term += 1
        self._leaderless_since_s = None
        copy = self.copies[leader.machine]
        if self._servers.sync and copy.units[: len(self.truth)] != self.truth:
            raise DefectError(f"{self.name}: {leader.machine} leads without everything that a majority had")
        if not self._servers.sync and len(copy.units) < len(self.truth):
            self.lost += len(self.truth) - len(copy.units)
            del self.truth[len(copy.units) :]
        for unit in copy.units[len(self.truth) :]:
            unit.term = self.term
        self._ids = {unit.id: unit for unit in copy.units if unit.id}
        self._keys = {unit.key: unit for unit in copy.units if unit.key is not None}
        self._match = {leader.machine: copy.synced if self._servers.sync else len(copy.units)}
        self._waiting = {unit: waiting for unit, waiting in self._waiting.items() if unit in copy.units}
        copy.commit = len(self.truth)
        self._sync(leader, len(copy.units))
        self._loop.note(f"{self.name} is led by {leader.machine} in term {self.term}")
        for server in self._servers.all:
            if server is not leader:
                self._replicate(leader, server)
        self.moved()

    def moved(self) -> None:
        for look in list(self.on_moved):
            look()

    # Storing; called where a request has arrived at a server

    def append(self, server: Server, items: list[bytes | None], unit_id: str, answer: Answer) -> None:
        """answer: the first unit's last sequence, when a majority has it. A server that does not lead any more never answers."""
        if self._is_told_before(server, unit_id, answer):
            return
        self._store(server, items, unit_id, answer)

    def change(
        self, server: Server, key: str, value: bytes | None, expected: int, unit_id: str, answer: Answer
    ) -> None:
        """answer: the new revision, or "wrong" (the record is another), or "again" (a change of it is under way)."""
        if self._is_told_before(server, unit_id, answer):
            return
        newest = self._keys.get(key)
        if newest is not None and newest.index >= len(self.truth):
            answer("again")
            return
        exists = newest is not None and newest.items[0] is not None
        revision = newest.last if newest is not None and exists else 0
        if revision != expected:
            answer("wrong")
            return
        self._store(server, [value], unit_id, answer, key)

    def _is_told_before(self, server: Server, unit_id: str, answer: Answer) -> bool:
        """Whether nothing is to be stored: it leads no more, or has this already."""
        if not self.leads(server) or self.dropped:
            return True
        known = self._ids.get(unit_id)
        if known is None or self._loop.now_s - known.at_s > LOG_DUPLICATES_S:
            return False
        if known.index < len(self.truth):
            answer(known.last)
        else:
            self._waiting.setdefault(known, []).append(answer)
        return True

    def _store(
        self, server: Server, items: list[bytes | None], unit_id: str, answer: Answer, key: str | None = None
    ) -> None:
        copy = self.copies[server.machine]
        last = copy.units[-1].last if copy.units else 0
        unit = Unit(len(copy.units), last + 1, last + len(items), self.term, items, unit_id, self._loop.now_s, key)
        copy.units.append(unit)
        self._ids[unit_id] = unit
        if key is not None:
            self._keys[key] = unit
        self._waiting[unit] = [answer]
        self._sync(server, len(copy.units))
        for other in self._servers.all:
            if other is not server:
                self._replicate(server, other)

    def _sync(self, server: Server, count: int) -> None:
        """The leader's own copy."""
        term = self.term

        def synced() -> None:
            copy = self.copies[server.machine]
            copy.synced = max(copy.synced, min(count, len(copy.units)))
            if term == self.term:
                self._matched(server, count)

        self._loop.after(self._servers.sync_s(server), synced, server.process)
        if not self._servers.sync:
            self._matched(server, count)

    def _replicate(self, leader: Server, other: Server) -> None:
        """Send what the other lacks; it answers when it has it."""
        term, count = self.term, len(self.copies[leader.machine].units)
        network = self._servers.network

        def arrives() -> None:
            if term != self.term:
                return
            self._servers.deposed.pop((self.name, other.machine), None)
            copy, theirs = self.copies[other.machine], self.copies[leader.machine].units
            common = min(len(copy.units), count)
            while common and copy.units[common - 1] is not theirs[common - 1]:
                common -= 1
            if common < count:
                copy.units[common:] = theirs[common:count]
                copy.synced = min(copy.synced, common)
            self._loop.after(self._servers.sync_s(other), synced, other.process)
            if not self._servers.sync:
                tell()
            self._learn(other, len(self.truth))

        def synced() -> None:
            copy = self.copies[other.machine]
            if term == self.term:
                copy.synced = max(copy.synced, min(count, len(copy.units)))
                tell()

        def tell() -> None:
            if term == self.term:
                network.send(
                    other.machine, leader.machine, lambda: self._told(leader, other, term, count), leader.process
                )

        network.send(leader.machine, other.machine, arrives, other.process)

    def _told(self, leader: Server, other: Server, term: int, count: int) -> None:
        if term == self.term and self.leads(leader):
            self._matched(other, count)

    def _matched(self, server: Server, count: int) -> None:
        self._match[server.machine] = max(self._match.get(server.machine, 0), count)
        ordered = sorted((self._match.get(s.machine, 0) for s in self._servers.all), reverse=True)
        reached = ordered[len(self._servers.all) // 2]
        leader = self.leader
        assert leader is not None
        if reached <= len(self.truth):
            return
        units = self.copies[leader.machine].units
        for unit in units[len(self.truth) : reached]:
            self.truth.append(unit)
            for told in self.on_commit:
                told(unit)
            for answer in self._waiting.pop(unit, ()):
                answer(unit.last)
        self._learn(leader, reached)
        for other in self._servers.all:
            if other is not leader:
                self._tell_commit(leader, other, reached)

    def _tell_commit(self, leader: Server, other: Server, commit: int) -> None:
        learn = partial(self._learn, other, commit)
        self._servers.network.send(leader.machine, other.machine, learn, other.process)

    def _learn(self, server: Server, commit: int) -> None:
        """The server hears how much a majority has, and delivers that to who is attached to it."""
        copy = self.copies[server.machine]
        sound = min(commit, len(copy.units), len(self.truth))
        if sound > copy.commit and (sound == 0 or copy.units[sound - 1] is self.truth[sound - 1]):
            copy.commit = sound
            self.moved()

    # Reading at a server

    def state(self, server: Server) -> tuple[int, int]:
        """First and last sequence, as this server knows them."""
        copy = self.copies[server.machine]
        last = copy.units[copy.commit - 1].last if copy.commit else 0
        return min(self.purged, last) + 1, last

    def newest(self, server: Server, key: str) -> Unit | None:
        copy = self.copies[server.machine]
        if self.leads(server) and (unit := self._keys.get(key)) is not None and unit.index < copy.commit:
            return unit
        return next((unit for unit in reversed(copy.units[: copy.commit]) if unit.key == key), None)

    def purge(self, server: Server, up_to: int) -> bool:
        if not self.leads(server) or not self._servers.has_majority(server):
            return False
        self.purged = max(self.purged, min(up_to, self.state(server)[1]))
        return True


class Servers:
    """All servers, and the streams that they keep. sync: whether a message counts once it is on the disk."""

    def __init__(self, loop: Loop, network: Network, machines: list[str], *, sync: bool = True) -> None:
        self.loop = loop
        self.network = network
        self.sync = sync
        self.all = [Server(machine) for machine in machines]
        self.streams: dict[str, Stream] = {}
        self.deposed: dict[
            tuple[str, str], float
        ] = {}  # (stream, machine): how long it takes itself for the leader yet
        self.on_commit_of: Callable[[Stream, Unit], None] = lambda _stream, _unit: None
        network.on_change.append(self.moved)
        self._tick()

    def on(self, machine: str) -> Server | None:
        return next((server for server in self.all if server.machine == machine), None)

    def stream(self, name: str) -> Stream:
        """Made when it is not there."""
        stream = self.streams.get(name)
        if stream is None or stream.dropped:
            stream = self.streams[name] = Stream(self, name)
            made = stream
            stream.on_commit.append(lambda unit: self.on_commit_of(made, unit))
            stream.step_down()
        return stream

    def _tick(self) -> None:
        for stream in self.streams.values():
            stream.tick()
        self.loop.after(_TICK_S, self._tick)

    def has_majority(self, server: Server) -> bool:
        if not server.is_up(self.loop.now_s):
            return False
        return len(self.reached_from(server)) + 1 > len(self.all) // 2

    def reached_from(self, server: Server) -> list[Server]:
        now_s = self.loop.now_s
        return [
            other
            for other in self.all
            if other is not server and other.is_up(now_s) and self.network.is_joined(server.machine, other.machine)
        ]

    def attached(self, machine: str) -> Server | None:
        """The server that a client on this machine is connected to: its own, or another that it reaches."""
        now_s = self.loop.now_s
        able = [s for s in self.all if s.is_up(now_s) and self.network.is_joined(machine, s.machine)]
        return min(able, key=lambda s: (s.machine != machine, s.machine), default=None)

    def sync_s(self, server: Server) -> float:
        wait_s = 0.0 if self.sync else _SYNC_EVERY_S
        return self.loop.random.uniform(0.0003, 0.002) + server.slow_s + wait_s

    # Faults

    def kill(self, server: Server, *, power: bool = False) -> None:
        """power: what it had not synced is lost."""
        self.loop.kill(server.process)
        for stream in self.streams.values():
            copy = stream.copies[server.machine]
            if power:
                del copy.units[copy.synced :]
                copy.commit = min(copy.commit, len(copy.units))
            self.deposed.pop((stream.name, server.machine), None)
        self.moved()

    def start(self, server: Server) -> None:
        """A new process over the same files. It has to be told anew who leads."""
        assert not server.process.alive
        server.process = Process(server.process.name)
        for stream in self.streams.values():
            copy = stream.copies[server.machine]
            copy.synced = len(copy.units)
            if stream.leader is server:
                stream.leader = None
        self.moved()

    def moved(self) -> None:
        for stream in self.streams.values():
            stream.moved()
