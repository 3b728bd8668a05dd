"""What a gateway knows of the cluster without asking: the map, the nodes, who is alive, which databases there are.

It is the node's own mirror of the metadata store (`control.mirror`) in the form in which reads, writes and handles ask for it. It is
some milliseconds old, or older when the store can't be reached: whoever uses it finds out from the nodes themselves (STALE_MAP,
no connection) and tries others. It never decides anything for others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from jadevectordb.control.mirror import ClusterMirror as NodeMirror
from jadevectordb.ports.clock import Clock
from jadevectordb.topology.cluster_map import PLACED_PREFIX, ClusterMap, Heartbeat, NodeRecord
from jadevectordb.topology.placed import PlacedDatabase

_ALIVE_FOR_S = 0.05  # how long the set of living nodes is taken as known
OnDatabase = Callable[[str], None]  # the id of a database that came, changed or went


class ClusterMirror:
    """Thread-safe; what it returns is never changed afterwards. A `query.fan_out.Picture`. mirror: started, the caller's to close."""

    def __init__(self, mirror: NodeMirror, clock: Clock) -> None:
        self._mirror = mirror
        self._clock = clock
        self._changed = threading.Condition()
        self._alive: tuple[frozenset[str], float] = (frozenset(), float("-inf"))  # who, and when that was looked up
        self.on_database: list[OnDatabase] = []  # called after a change, from the store's thread
        mirror.listen(self._told)

    @property
    def map(self) -> ClusterMap:
        return self._mirror.map

    def node(self, name: str) -> NodeRecord | None:
        return self._mirror.node(name)

    def nodes(self) -> Mapping[str, NodeRecord]:
        return self._mirror.observe().nodes

    def beats(self) -> Mapping[str, Heartbeat]:
        """The newest heartbeat of each node, dead ones included."""
        return self._mirror.observe().beats

    def alive(self) -> frozenset[str]:
        now_s = self._clock.monotonic_s()
        known, looked_s = self._alive
        if now_s - looked_s >= _ALIVE_FOR_S:
            known = self._mirror.alive()
            self._alive = (known, now_s)
        return known

    def is_alive(self, name: str) -> bool:
        return name in self.alive()

    def placed(self) -> Mapping[str, PlacedDatabase]:
        """Databases by id."""
        return self._mirror.observe().placed

    def wait(self, is_so: Callable[[], bool], wait_s: float) -> bool:
        """Until it is so, looked at after every change; whether it is."""
        with self._changed:
            return self._changed.wait_for(is_so, wait_s)

    def _told(self, key: str) -> None:
        self._alive = (frozenset(), float("-inf"))
        with self._changed:
            self._changed.notify_all()
        if key.startswith(PLACED_PREFIX):
            for tell in list(self.on_database):
                tell(key.removeprefix(PLACED_PREFIX))
