"""An election on virtual time: candidates with clocks of their own, a real store, and a network that delays and loses.

Only time and the network are simulated. What the store is asked is done by a real `SqliteStore`, at the moment the request
arrives there; an answer that is lost, or later than the caller waits, is "unknown" to him although it happened, or happens yet.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from jadevectordb.control.election import Action, Candidate, Kind, Written
from jadevectordb.ports.metadata_store import MetadataStore, Record
from jadevectordb.topology.cluster_map import LEASE_KEY

ANSWER_S = 2.0  # how long a caller waits
LATE_S = 8.0


@dataclass
class Node:
    """One process. rate, offset: of its monotonic clock against the world's time."""

    name: str
    candidate: Candidate
    rate: float
    offset: float
    paused_until: float = 0.0
    cut_until: float = 0.0  # nothing it sends arrives, nothing arrives at it
    alive: bool = True
    turn: int = 0  # a step that was planned before the newest one is void
    busy: bool = False  # a call to the store is under way; its answer plans the next step


class World:
    def __init__(self, store: MetadataStore, seed: int, names: list[str], *, skew: float = 0.1) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.now = 0.0
        self.skew = skew
        self.loss = 0.0  # chance that a request or an answer is lost
        self.slowest_s = 0.02  # of one way
        self.store_away_until = 0.0
        self.late = 0.0  # chance that a message takes up to LATE_S, longer than anybody waits for it
        self.nodes: dict[str, Node] = {}
        self.processes: list[Node] = []
        self.masters: list[tuple[float, str, int]] = []  # (when, incarnation, term), each once
        self.outages: list[float] = []  # how long there was no master
        self._free_since: float | None = 0.0
        self._starts = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Node | None, Callable[[], None]]] = []
        for name in names:
            self.start(name)

    # --- faults -------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """A new process of this node; one that runs already goes on beside it."""
        rate = 1 + self.random.uniform(-self.skew, self.skew)
        candidate = Candidate(name, f"{name}-{next(self._starts)}")
        self.nodes[name] = node = Node(name, candidate, rate, self.random.uniform(0, 1e6))
        self.processes.append(node)
        self._plan(node)

    def kill(self, name: str) -> None:
        self.nodes[name].alive = False

    def pause(self, name: str, seconds: float) -> None:
        node = self.nodes[name]
        node.paused_until = max(node.paused_until, self.now + seconds)

    def cut_off(self, name: str, seconds: float) -> None:
        self.nodes[name].cut_until = self.now + seconds

    def resign(self, name: str, stand_back_s: float) -> None:
        node = self.nodes[name]
        node.candidate.resign(self.local(node), stand_back_s)
        self._plan(node)

    # --- time ---------------------------------------------------------------------------------------------------------

    def local(self, node: Node) -> float:
        return node.offset + node.rate * self.now

    def at(self, when: float, what: Callable[[], None], node: Node | None = None) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), node, what))

    def run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            when, _, node, what = heapq.heappop(self._events)
            self.now = when
            if node is not None and not node.alive:
                continue
            if node is not None and node.paused_until > when:
                self.at(node.paused_until, what, node)
                continue
            what()
            self.check()
        self.now = end

    def leaders(self) -> list[Node]:
        return [
            node
            for node in self.processes
            if node.alive and node.candidate.term_if_leader(self.local(node)) is not None
        ]

    def check(self) -> None:
        """At most one has the right, whoever is paused or cut off; each new one has a term above all before."""
        leaders = self.leaders()
        assert len(leaders) <= 1, [(n.name, n.candidate.term_if_leader(self.local(n))) for n in leaders]
        if not leaders:
            self._free_since = self.now if self._free_since is None else self._free_since
            return
        if self._free_since is not None:
            self.outages.append(self.now - self._free_since)
            self._free_since = None
        candidate = leaders[0].candidate
        term = candidate.term_if_leader(self.local(leaders[0]))
        assert term is not None
        if not self.masters or self.masters[-1][1] != candidate.incarnation:
            assert all(term > earlier for _, _, earlier in self.masters), (term, self.masters)
            self.masters.append((self.now, candidate.incarnation, term))
        else:
            assert term >= self.masters[-1][2]

    # --- what a process does --------------------------------------------------------------------------------------------

    def _plan(self, node: Node, when: float | None = None) -> None:
        if node.busy:
            return
        node.turn += 1
        turn = node.turn

        def step() -> None:
            if turn == node.turn and not node.busy:
                self._step(node)

        self.at(self.now if when is None else when, step, node)

    def _step(self, node: Node) -> None:
        action = node.candidate.step(self.local(node))
        if action.kind is Kind.WAIT:
            self._plan(node, (min(action.until_s, self.local(node) + 1000) - node.offset) / node.rate)
        else:
            self._ask(node, action)

    def _ask(self, node: Node, action: Action) -> None:
        sent_s, done = self.local(node), [False]
        node.busy = True

        def arrives() -> None:
            answer = self._serve(action)
            if not self._lost(node):
                self.at(self.now + self._way(), lambda: answered(answer), node)

        def answered(answer: Written | Record) -> None:
            if done[0]:
                return
            done[0], node.busy = True, False
            now_s = self.local(node)
            if action.kind is Kind.READ:
                if answer == "unknown":
                    node.candidate.on_read_failed(now_s)
                else:
                    assert answer is None or isinstance(answer, Record)
                    node.candidate.on_read(answer, now_s)
            else:
                assert not isinstance(answer, Record)
                node.candidate.on_written(action, answer, sent_s, now_s)
            self._plan(node)

        if not self._lost(node):
            self.at(max(self.now, self.store_away_until) + self._way(), arrives)
        self.at(self.now + ANSWER_S, lambda: answered("unknown"), node)

    def _serve(self, action: Action) -> Written | Record:
        if action.kind is Kind.READ:
            return self.store.get(LEASE_KEY)
        revision = self.store.compare_and_set(LEASE_KEY, action.value, action.expected)
        if revision is not None:
            for node in self.processes:
                if not self._lost(node):
                    self._tell(node, Record(action.value, revision))
        return revision

    def _tell(self, node: Node, record: Record) -> None:
        def told() -> None:
            node.candidate.on_told(record, self.local(node))
            self._plan(node)

        self.at(self.now + self._way(), told, node)

    def _way(self) -> float:
        return self.random.uniform(0.0005, LATE_S if self.random.random() < self.late else self.slowest_s)

    def _lost(self, node: Node) -> bool:
        return node.cut_until > self.now or self.random.random() < self.loss
