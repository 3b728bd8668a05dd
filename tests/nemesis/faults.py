"""What can be done to a cluster, each with the way back: the faults the nemesis chooses from.

A fault is aimed, begun, and later ended; then it may take a while until it is over, as a node that was started needs others to be
ready. A node that does not come back, or does not stop when it is asked to, raises NodeDidNot: a finding.
"""

from __future__ import annotations

import contextlib
import random
from abc import ABC, abstractmethod
from typing import ClassVar

from jadevectordb.model.errors import JadeError
from tests.nemesis.cluster import RealCluster
from tests.nemesis.disks import Slow
from tests.nemesis.network import both_ways
from tests.nemesis.node import Node


class Fault(ABC):
    """target: what it hits, for the report. nodes: that must not be touched by another fault meanwhile. Both known once it is aimed."""

    kind: ClassVar[str]
    lasts_s: ClassVar[tuple[float, float]] = (0.5, 6.0)
    comes_alone: ClassVar[bool] = False  # must not meet another

    def __init__(self, cluster: RealCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.nodes: list[Node] = []
        self.target = ""

    def aim(self, free: list[Node]) -> None:
        """At one of these nodes, which no other fault has; often at the master."""
        master = self.cluster.master() if self.rng.random() < 0.4 else ""
        node = next((node for node in free if node.name == master), None) or self.rng.choice(free)
        self.nodes, self.target = [node], node.name

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def end(self) -> None:
        """Begin to mend what was broken."""

    def is_over(self) -> bool:
        """Whether it is mended, once it was ended."""
        return all(node.is_ready() for node in self.nodes)

    @property
    def node(self) -> Node:
        return self.nodes[0]

    @property
    def _others(self) -> list[Node]:
        return [node for node in self.cluster.nodes if node is not self.node]


class _AtAll(Fault):
    def aim(self, free: list[Node]) -> None:
        self.nodes, self.target = list(free), "all" if len(free) == len(self.cluster.nodes) else f"{len(free)} nodes"


class _Kill(Fault):
    what: ClassVar[str]

    def begin(self) -> None:
        for node in self.nodes:
            node.kill(self.what)

    def end(self) -> None:
        for node in self.nodes:
            node.start()


class KillNode(_Kill):
    kind, what = "kill -9 node", "node"  # the kernel ends its nats-server after it, in order


class KillMachine(_Kill):
    kind, what = "kill -9 node and nats", "machine"


class KillAll(_Kill, _AtAll):
    kind, what = "kill -9 everything", "machine"
    lasts_s = (0.2, 3.0)


class KillNats(Fault):
    kind = "kill -9 nats"  # its node starts another

    def begin(self) -> None:
        self.node.kill("nats")

    def end(self) -> None:
        pass


class _Pause(Fault):
    what: ClassVar[str]

    def begin(self) -> None:
        self._pids = self.node.pause(self.what)

    def end(self) -> None:
        self.node.resume(self._pids)


class PauseNode(_Pause):
    kind, what = "pause node", "node"
    lasts_s = (0.5, 10.0)


class PauseNats(_Pause):
    kind, what = "pause nats", "nats"
    lasts_s = (0.5, 10.0)


class PauseMachine(_Pause):
    kind, what = "pause node and nats", "machine"
    lasts_s = (0.5, 10.0)


class StopNode(Fault):
    kind = "planned stop"

    def begin(self) -> None:
        self.node.stop()

    def end(self) -> None:
        self.node.start()


class RollingRestart(_AtAll):
    kind = "planned restart, one by one"
    lasts_s = (0.0, 0.1)
    comes_alone = True

    def begin(self) -> None:
        for node in self.rng.sample(self.nodes, len(self.nodes)):
            node.stop()
            node.start()
            node.wait_ready()

    def end(self) -> None:
        pass


class _Cut(Fault):
    lasts_s = (1.0, 12.0)

    def _cut(self, links: list[tuple[int, int]]) -> None:
        self._links = links
        for sender, receiver in links:
            self.cluster.network.cut(sender, receiver)

    def end(self) -> None:
        for sender, receiver in self._links:
            self.cluster.network.mend(sender, receiver)


class Isolate(_Cut):
    kind = "partition: one node alone"

    def begin(self) -> None:
        self._cut(both_ways((self.node.place, other.place) for other in self._others))


class CutLink(_Cut):
    kind = "partition: one link"

    def aim(self, free: list[Node]) -> None:
        super().aim(free)
        self._other = self.rng.choice(self._others)
        self.target = f"{self.node.name}-{self._other.name}"

    def begin(self) -> None:
        self._cut(both_ways([(self.node.place, self._other.place)]))


class CutOneWay(_Cut):
    kind = "partition: one direction"

    def aim(self, free: list[Node]) -> None:
        super().aim(free)
        self._inward = self.rng.random() < 0.5
        self.target = f"{'to' if self._inward else 'from'} {self.node.name}"

    def begin(self) -> None:
        own = self.node.place
        self._cut([(other.place, own) if self._inward else (own, other.place) for other in self._others])


class CutAll(_Cut, _AtAll):
    kind = "partition: every link"
    lasts_s = (1.0, 8.0)

    def begin(self) -> None:
        places = [node.place for node in self.cluster.nodes]
        self._cut([(a, b) for a in places for b in places if a != b])


class FrozenDisk(Fault):
    kind = "disk stands still"

    def begin(self) -> None:
        self.cluster.disks[self.node.place].freeze()

    def end(self) -> None:
        self.cluster.disks[self.node.place].thaw()


class SlowDisk(Fault):
    kind = "disk is slow"
    lasts_s = (2.0, 10.0)

    def begin(self) -> None:
        self._slow = Slow(self.cluster.disks[self.node.place])

    def end(self) -> None:
        self._slow.close()


class FullDisk(Fault):
    kind = "disk is full"
    lasts_s = (2.0, 10.0)

    def begin(self) -> None:
        self.cluster.disks[self.node.place].fill()

    def end(self) -> None:
        self.cluster.disks[self.node.place].empty()


class Failover(Fault):
    kind = "failover on purpose"
    lasts_s = (0.1, 2.0)

    def begin(self) -> None:
        with contextlib.suppress(JadeError):  # nobody is master at this moment, or nobody else can be
            self.cluster.ask(self.node, "POST", "/v1/cluster/failover", timeout_s=15.0)

    def end(self) -> None:
        pass


_PROCESSES: dict[type[Fault], float] = {
    KillNode: 3, KillMachine: 3, KillNats: 3, KillAll: 1, PauseNode: 2, PauseNats: 2, PauseMachine: 2,
    StopNode: 2, RollingRestart: 0.5, Failover: 1,
}  # fmt: skip
_LINKS: dict[type[Fault], float] = {Isolate: 3, CutLink: 2, CutOneWay: 2, CutAll: 0.5}
_DISKS: dict[type[Fault], float] = {FrozenDisk: 1, SlowDisk: 1, FullDisk: 1}


def possible(cluster: RealCluster) -> tuple[dict[type[Fault], float], list[str]]:
    """How often each is chosen, relative to the others, and what can't be done here and why."""
    chances, not_here = dict(_PROCESSES), []
    for why, kinds in ((cluster.network.can_cut, _LINKS), (cluster.disks_stay_good, _DISKS)):
        if why:
            not_here += [f"{kind.kind}: {why}" for kind in kinds]
        else:
            chances |= kinds
    return chances, not_here
