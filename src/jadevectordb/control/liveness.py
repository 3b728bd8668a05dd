"""Who is alive: judged by the watcher's own monotonic clock since each node's heartbeat last changed.

Nobody's clock is compared with another's, and a heartbeat's age is never read from its contents. Silence of *all* nodes means
that the watcher hears nothing (the metadata store has no majority, or this node is cut off from it), not that all have died:
time counts only while some heartbeat arrives within about half the time after which a node is called dead. So nobody is
declared dead for a silence of the store, and after it all who were alive have as long as ever to be heard again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEAD_AFTER_S: Final = 3.0
DEAF_SHARE: Final = 0.54  # of dead_after_s: 1.6 s, where heartbeats come every second


@dataclass(slots=True)
class _Heard:
    incarnation: str
    beat: int
    at_s: float  # in heard time
    leaving: bool


class Liveness:
    """Not thread-safe. now_s never goes back from one call to the next."""

    def __init__(self, dead_after_s: float = DEAD_AFTER_S) -> None:
        """dead_after_s: of time that counts, without a change of the heartbeat."""
        self._dead_after_s = dead_after_s
        self._deaf_after_s = dead_after_s * DEAF_SHARE
        self._nodes: dict[str, _Heard] = {}
        self._newest_s: float | None = None  # when any heartbeat changed last
        self._deaf_s = 0.0  # how much time did not count so far

    def seen(self, node: str, incarnation: str, beat: int, now_s: float, *, leaving: bool = False) -> None:
        """A heartbeat as it was read; one that has not changed tells nothing. leaving: the node stops, and is alive no more."""
        heard = self._nodes.get(node)
        if heard is not None and (heard.incarnation, heard.beat, heard.leaving) == (incarnation, beat, leaving):
            return
        if self.is_deaf(now_s):
            self._end_silence(now_s)
        self._newest_s = now_s
        self._nodes[node] = _Heard(incarnation, beat, now_s - self._deaf_s, leaving)

    def _end_silence(self, now_s: float) -> None:
        """The time of silence does not count, and all that were alive before have as long as ever to be heard again."""
        alive = self.alive(now_s)
        assert self._newest_s is not None
        self._deaf_s += now_s - self._newest_s - self._deaf_after_s
        for node in alive:
            self._nodes[node].at_s = now_s - self._deaf_s

    def forget(self, node: str) -> None:
        """Its heartbeat was deleted."""
        self._nodes.pop(node, None)

    def alive(self, now_s: float) -> frozenset[str]:
        time_s = self._heard_time(now_s)
        return frozenset(
            node
            for node, heard in self._nodes.items()
            if not heard.leaving and time_s - heard.at_s < self._dead_after_s
        )

    def dead_for_s(self, now_s: float) -> dict[str, float]:
        """For each node that is not alive, how long it has not been heard of, in time that counts."""
        time_s, alive = self._heard_time(now_s), self.alive(now_s)
        return {node: time_s - heard.at_s for node, heard in self._nodes.items() if node not in alive}

    def is_deaf(self, now_s: float) -> bool:
        """Nothing has been heard of anybody for so long that it says nothing about them."""
        return self._newest_s is not None and now_s - self._newest_s > self._deaf_after_s

    def _heard_time(self, now_s: float) -> float:
        """Seconds that count; stands still while nothing is heard of anybody."""
        if self._newest_s is None:
            return 0.0
        return min(now_s, self._newest_s + self._deaf_after_s) - self._deaf_s
