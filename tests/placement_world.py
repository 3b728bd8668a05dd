"""A cluster as placement sees it: nodes that come, die, return and drain, and agents that move their replicas towards the map.

No files and no time: an agent's `act` takes each replica one state further and says so in its heartbeat. `decide` makes the
master's next version of the map and checks what must hold of every decision.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from jadevectordb.control.moving import moved
from jadevectordb.control.observe import Observed
from jadevectordb.control.placement import apply_changes, decide
from jadevectordb.control.scene import Change
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.schema import Schema
from jadevectordb.topology.cluster_map import (
    ClusterMap,
    Heartbeat,
    NodeRecord,
    ReplicaReport,
    ReplicaState,
    ShardRecord,
)
from jadevectordb.topology.placed import PlacedDatabase

S = ReplicaState
ON_THE_WAY = {S.ASSIGNED: S.LOADING, S.LOADING: S.CATCHING_UP, S.CATCHING_UP: S.ACTIVE}


@dataclass
class Agent:
    """What a node has, by (database, shard), and what it said last."""

    record: NodeRecord
    alive: bool = True
    dead_s: float = 0.0
    has: dict[tuple[str, int], ReplicaState] = field(default_factory=dict)
    beat: Heartbeat | None = None
    known: bool = True  # its record is in the store


def placed_database(database: str, shards: int, replication: int) -> PlacedDatabase:
    config = DatabaseConfig(
        name=database,
        folder="",
        dimension=4,
        metric=Metric.COSINE,
        shards=shards,
        index=IndexKind.AUTO,
        schema=Schema(),
    )
    return PlacedDatabase(id=database, name=database, config=config, replication=replication)


class Cluster:
    def __init__(self) -> None:
        self.map = ClusterMap()
        self.agents: dict[str, Agent] = {}
        self.placed: dict[str, PlacedDatabase] = {}
        self.reasons: list[str] = []
        self.starts = 0

    # --- the world ----------------------------------------------------------------------------------------------------

    def start(self, node: str, zone: str = "") -> None:
        """A new node, or one that was dead, with the files it had; what it has must be opened again."""
        self.starts += 1
        record = NodeRecord(id=node, incarnation=f"i{self.starts}", peer="", zone=zone)
        agent = self.agents.get(node)
        if agent is None:
            self.agents[node] = agent = Agent(record)
        else:
            agent.record = msgspec.structs.replace(
                agent.record, incarnation=record.incarnation, draining=agent.record.draining
            )
            agent.has = dict.fromkeys((place for place, s in agent.has.items() if s is not S.GONE), S.LOADING)
        agent.alive, agent.dead_s, agent.known = True, 0.0, True
        self.speak(node, acted=False)

    def kill(self, node: str, dead_s: float = 0.0) -> None:
        self.agents[node].alive, self.agents[node].dead_s = False, dead_s

    def drain(self, node: str, draining: bool = True) -> None:
        agent = self.agents[node]
        agent.record = msgspec.structs.replace(agent.record, draining=draining)

    def create(self, database: str, shards: int, replication: int) -> None:
        self.placed[database] = placed_database(database, shards, replication)

    def act(self, node: str) -> None:
        """The node's agent takes each replica one state further."""
        agent = self.agents[node]
        if not agent.alive:
            return
        wanted = {(database, shard.number): replica for database, shard, replica in self.map.of_node(node)}
        agent.has = {place: state for place, state in agent.has.items() if place in wanted}
        for place, replica in wanted.items():
            state = agent.has.get(place, S.ASSIGNED)
            if replica.state is S.RETIRING:
                agent.has[place] = S.GONE if state in (S.GONE, S.RETIRING) else S.RETIRING
            elif state in (S.RETIRING, S.GONE):
                agent.has[place] = S.LOADING  # called back
            else:
                agent.has[place] = ON_THE_WAY.get(state, state)
        self.speak(node, acted=True)

    def speak(self, node: str, *, acted: bool) -> None:
        agent = self.agents[node]
        version = self.map.version if acted else 0
        reports = tuple(ReplicaReport(database, shard, state) for (database, shard), state in sorted(agent.has.items()))
        agent.beat = Heartbeat(node, agent.record.incarnation, 1, version, reports)

    def move(self, database: str, shard: int, source: str, target: str) -> None:
        """A person moves a replica. Raises what refuses it."""
        known = self.observed()
        self.map = moved(self.map, known.nodes, known.alive, database, shard, source, target)

    def fail(self, node: str, place: tuple[str, int]) -> None:
        self.agents[node].has[place] = S.FAILED
        if self.agents[node].beat is not None:
            self.speak(node, acted=True)

    def observed(self, *, backwards: bool = False) -> Observed:
        names = sorted(self.agents, reverse=backwards)
        known = {name: self.agents[name] for name in names if self.agents[name].known}
        return Observed(
            map=self.map,
            nodes={name: agent.record for name, agent in known.items()},
            alive=frozenset(name for name, agent in known.items() if agent.alive),
            beats={name: agent.beat for name, agent in known.items() if agent.beat is not None},
            placed={name: self.placed[name] for name in sorted(self.placed, reverse=backwards)},
            dead_for_s={name: agent.dead_s for name, agent in known.items() if not agent.alive},
        )

    # --- the master ---------------------------------------------------------------------------------------------------

    def decide(self) -> list[Change]:
        """One version of the map further, if there is something to change."""
        observed = self.observed()
        changes = decide(observed)
        assert changes == decide(self.observed(backwards=True)), "the same whatever the order in which things are known"
        if changes:
            before, self.map = self.map, apply_changes(self.map, changes, 1)
            self.reasons += [change.reason for change in changes]
            self.check_step(before)
            again = decide(self.observed())
            assert again == [], f"decided at once, and not step by step: {again}"
        for name in [name for name, record in self.map.databases.items() if record.dropped]:
            self.map = apply_changes(self.map, [Change("", name, None)], 1)
        return changes

    def truly_serving(self, database: str, shard: ShardRecord) -> set[str]:
        """Nodes whose replica the map calls active, and that say so."""
        return {
            r.node
            for r in shard.replicas
            if r.state is S.ACTIVE
            and self.agents[r.node].alive
            and self.agents[r.node].has.get((database, shard.number)) is S.ACTIVE
        }

    def check_step(self, before: ClusterMap) -> None:
        for name, record in self.map.databases.items():
            earlier = before.databases.get(name)
            for shard in record.shards:
                nodes = [r.node for r in shard.replicas]
                assert len(nodes) == len(set(nodes)), "one replica a node"
                assert shard.primary in ("", *nodes)
                primary = shard.on(shard.primary)
                assert primary is None or primary.state is not S.ASSIGNED
                if earlier is None or record.dropped:
                    continue
                then = earlier.shards[shard.number]
                served, serve = self.truly_serving(name, then), self.truly_serving(name, shard)
                assert len(serve) >= min(len(served), record.replication), f"{name}/{shard.number}: {then} {shard}"
                for gone in {r.node for r in then.replicas} - set(nodes):
                    agent = self.agents[gone]
                    state = agent.has.get((name, shard.number), S.GONE)
                    assert not (agent.alive and agent.known) or state is S.GONE, f"{gone} still had it"
                    assert serve or state is S.GONE, "the last one was given up"

    # --- the end ------------------------------------------------------------------------------------------------------

    def settle(self, rounds: int = 400) -> None:
        """All who are alive act, until the master has nothing to change and nothing moves."""
        for _ in range(rounds):
            before = (self.map, {name: dict(agent.has) for name, agent in self.agents.items()})
            for node in sorted(self.agents):
                self.act(node)
            self.decide()
            if before == (self.map, {name: agent.has for name, agent in self.agents.items()}):
                return
        raise AssertionError(f"it never comes to rest: {self.reasons[-12:]}")

    def check_settled(self) -> None:
        """Everybody who lives is well: all is placed, served, and even."""
        takes = sorted(n for n, a in self.agents.items() if a.alive and a.known and not a.record.draining)
        if not takes:
            return
        assert set(self.map.databases) == set(self.placed)
        loads: Counter[str] = Counter(dict.fromkeys(takes, 0))
        for name, record in self.map.databases.items():
            for shard in record.shards:
                kept = [r for r in shard.replicas if r.node in takes]
                loads.update(r.node for r in kept)
                assert len(kept) == min(record.replication, len(takes)), (name, shard)
                assert all(r.state is S.ACTIVE for r in kept), (name, shard)
                assert shard.primary in [r.node for r in kept], (name, shard)
                if len(takes) >= record.replication:
                    assert len(shard.replicas) == len(kept), f"others have gone: {shard}"
                if not any(r.by_hand for r in kept):
                    self._check_zones(takes, [r.node for r in kept])
        zones = {self.agents[node].record.zone for node in takes}
        by_hand = any(
            r.by_hand for record in self.map.databases.values() for shard in record.shards for r in shard.replicas
        )
        if (
            not by_hand
            and len(zones) == 1
            and all(record.replication <= len(takes) for record in self.map.databases.values())
        ):
            assert max(loads.values()) - min(loads.values()) <= 1, loads

    def _check_zones(self, takes: list[str], holders: list[str]) -> None:
        def crowding(nodes: list[str]) -> int:
            return sum(n * n for n in Counter(self.agents[node].record.zone for node in nodes).values())

        for out in holders:
            for into in set(takes) - set(holders):
                assert crowding([into, *(n for n in holders if n != out)]) >= crowding(holders), (holders, out, into)
