"""What o'clock it is in a cluster whose nodes' clocks may differ: as early, and as late, as any living node says."""

from __future__ import annotations

from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.ports.clock import Clock

_BEAT_AGE_MS_MAX = 5_000  # of the newest heartbeat of a node that counts as alive


class ClusterClocks:
    """`service.aging.Clocks` of all living nodes, by their heartbeats."""

    def __init__(self, mirror: ClusterMirror, clock: Clock) -> None:
        self._mirror = mirror
        self._clock = clock

    def earliest_ms(self) -> int:
        """No living node's clock shows less, but for the moment that its heartbeat takes to get here."""
        return min(self._said_ms())

    def latest_ms(self) -> int:
        """No living node's clock shows more."""
        own_ms, *others_ms = self._said_ms()
        return max(own_ms, *(ms + _BEAT_AGE_MS_MAX for ms in others_ms), 0)

    def _said_ms(self) -> list[int]:
        alive = self._mirror.alive()
        beats = [beat.wall_ms for node, beat in self._mirror.beats().items() if node in alive and beat.wall_ms]
        return [self._clock.now_ms(), *beats]
