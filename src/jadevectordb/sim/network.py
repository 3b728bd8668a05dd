"""The simulated network: machines, the ways between them, and what can be wrong with these.

A message takes some time, drawn anew for each, so messages overtake each other; a way can be cut, slow, or let single messages
take seconds. What is on its way when it is cut does not arrive. Connections (`transport`) build an order on top, as TCP does.
"""

from __future__ import annotations

from collections.abc import Callable

from jadevectordb.sim.loop import Loop, Process

_NEAR_S = (0.00002, 0.00006)  # inside a machine
_FAR_S = (0.0002, 0.002)
_LATE_S = (0.3, 6.0)


class Network:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.late = 0.0  # the chance that a message takes longer than anybody waits for it
        self._cut: set[tuple[str, str]] = set()  # (from, to): a way may be cut in one direction only
        self._slow_s: dict[str, float] = {}  # of a machine: what every message from or to it takes more
        self.on_change: list[Callable[[], None]] = []

    def is_open(self, source: str, target: str) -> bool:
        return source == target or (source, target) not in self._cut

    def is_joined(self, one: str, other: str) -> bool:
        """Both directions."""
        return self.is_open(one, other) and self.is_open(other, one)

    def way_s(self, source: str, target: str) -> float:
        """How long the next message takes."""
        random = self.loop.random
        if source == target:
            return random.uniform(*_NEAR_S)
        if self.late and random.random() < self.late:
            return random.uniform(*_LATE_S)
        return random.uniform(*_FAR_S) + self._slow_s.get(source, 0.0) + self._slow_s.get(target, 0.0)

    def send(self, source: str, target: str, arrives: Callable[[], None], process: Process | None = None) -> None:
        """A message that arrives once, later, or never. process: whose event its arrival is."""
        if self.is_open(source, target):

            def arrive() -> None:
                if self.is_open(source, target):
                    arrives()

            self.loop.after(self.way_s(source, target), arrive, process)

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        self._cut.add((one, other))
        if not one_way:
            self._cut.add((other, one))
        self._tell()

    def join(self, one: str, other: str) -> None:
        self._cut -= {(one, other), (other, one)}
        self._tell()

    def slow(self, machine: str, seconds: float) -> None:
        """0: as fast as ever."""
        self._slow_s.pop(machine, None)
        if seconds:
            self._slow_s[machine] = seconds

    def heal(self) -> None:
        self._cut.clear()
        self._slow_s.clear()
        self.late = 0.0
        self._tell()

    def _tell(self) -> None:
        for told in self.on_change:
            told()
