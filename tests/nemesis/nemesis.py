"""Breaks and mends the cluster until time is up: which fault, whom it hits, how long it lasts and when the next comes follow from the seed.

Now and then a second fault begins while one lasts, on another node: that is where clusters that survive every single fault lose data.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from jadevectordb.sim.recorder import Recorder
from tests.nemesis.cluster import RealCluster
from tests.nemesis.faults import Fault, possible
from tests.nemesis.node import READY_S, Node, NodeDidNot

_CALM_S = (1.0, 6.0)  # between faults
_OVERLAP = 0.25  # share of faults that meet another


@dataclass(slots=True)
class _Lasting:
    fault: Fault
    name: str  # in the history
    until_s: float
    ended: bool = False  # being mended


class Nemesis:
    """findings: what nodes did not do that they must. tell: for those who watch."""

    def __init__(
        self, cluster: RealCluster, recorder: Recorder, rng: random.Random, tell: Callable[[str], None],
        only: str = "",
    ) -> None:  # fmt: skip
        """only: kinds of faults whose name has this in it."""
        self.findings: list[str] = []
        self._cluster = cluster
        self._recorder = recorder
        self._rng = rng
        self._tell = tell
        chances, self.not_here = possible(cluster)
        self._chances = {kind: chance for kind, chance in chances.items() if only in kind.kind}
        if not self._chances:
            raise SystemExit(f"no fault is called {only!r} here; there are: {', '.join(k.kind for k in chances)}")
        self._lasting: list[_Lasting] = []
        self._patient_until_s = 0.0

    def run(self, seconds: float, failed: Callable[[], bool]) -> None:
        """failed: whether to stop early. Everything is mended on return."""
        until_s = time.monotonic() + seconds
        pause = threading.Event()
        next_s = time.monotonic() + self._rng.uniform(*_CALM_S) / 2
        while time.monotonic() < until_s and not failed() and not self.findings:
            if self._mend(time.monotonic()) and not self._lasting:
                next_s = time.monotonic() + self._rng.uniform(*_CALM_S)
            if time.monotonic() >= next_s:
                self._begin()
                overlaps = self._rng.random() < _OVERLAP
                next_s = time.monotonic() + self._rng.uniform(0.2, 3.0) if overlaps else float("inf")
            pause.wait(0.05)
        while self._lasting and not failed():
            self._mend(float("inf"))
            pause.wait(0.05)

    def _mend(self, now_s: float) -> bool:
        """End what is due, and look after what is being mended; whether something is over."""
        before = len(self._lasting)
        for lasting in list(self._lasting):
            try:
                if not lasting.ended and lasting.until_s <= now_s:
                    lasting.ended = True
                    self._tell(f"  mending: {lasting.fault.kind}")
                    lasting.fault.end()
                if lasting.ended and lasting.fault.is_over():
                    self._over(lasting)
            except NodeDidNot as finding:
                self._lasting.remove(lasting)
                self._found(lasting.fault.kind, finding)
        self._lose_patience()
        return len(self._lasting) < before

    def _lose_patience(self) -> None:
        """A node that was started may need the others: its time runs while nothing else is broken."""
        if not self._lasting or not all(one.ended for one in self._lasting):
            self._patient_until_s = time.monotonic() + READY_S
        elif time.monotonic() > self._patient_until_s:
            for lasting in self._lasting:
                logs = "\n".join(f"{node.name}: {node.log_end()}" for node in lasting.fault.nodes)
                self._found(lasting.fault.kind, NodeDidNot(f"not mended within {READY_S:g} s; logs end with\n{logs}"))
            self._lasting.clear()

    def _begin(self) -> None:
        taken = {node.name for one in self._lasting for node in one.fault.nodes}
        free: list[Node] = [node for node in self._cluster.nodes if node.name not in taken]
        if not free:
            return
        kind = self._rng.choices(list(self._chances), list(self._chances.values()))[0]
        if kind.comes_alone and self._lasting:
            return
        fault = kind(self._cluster, self._rng)
        fault.aim(free)
        lasts_s = self._rng.uniform(*kind.lasts_s)
        self._tell(f"{fault.kind}: {fault.target}, for {lasts_s:.1f} s")
        name = self._recorder.fault_began(fault.kind, fault.target)
        try:
            fault.begin()
        except NodeDidNot as finding:
            self._found(fault.kind, finding)
            return
        self._lasting.append(_Lasting(fault, name, time.monotonic() + lasts_s))

    def _over(self, lasting: _Lasting) -> None:
        self._lasting.remove(lasting)
        self._recorder.fault_ended(lasting.name)
        self._tell(f"  over: {lasting.fault.kind}")

    def _found(self, kind: str, finding: NodeDidNot) -> None:
        self.findings.append(f"{kind}: {finding}")
        self._tell(f"FOUND {self.findings[-1]}")
