"""What a gateway knows of the cluster without asking: the map, the nodes, who is alive, which databases there are.

Kept by watching the metadata store, so it is some milliseconds old, or older when the store can't be reached: whoever uses it
finds out from the nodes themselves (STALE_MAP, no connection) and tries others. It never decides anything for others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from jadevectordb.control.liveness import DEAD_AFTER_S, Liveness
from jadevectordb.model.errors import JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record
from jadevectordb.topology.cluster_map import (
    BEAT_PREFIX,
    MAP_KEY,
    NODE_PREFIX,
    PLACED_PREFIX,
    ClusterMap,
    Heartbeat,
    NodeRecord,
)
from jadevectordb.topology.placed import PlacedDatabase, decode_placed

logger = logging.getLogger("jadevectordb.mirror")
_PREFIX = "cluster/"
_ALIVE_FOR_S = 0.05  # how long the set of living nodes is taken as known
OnDatabase = Callable[[str], None]  # the id of a database that came, changed or went


class ClusterMirror:
    """Thread-safe; what its properties return is never changed afterwards. A `query.question.Picture`."""

    def __init__(self, metadata: MetadataStore, clock: Clock, *, dead_after_s: float = DEAD_AFTER_S) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._revisions: dict[str, int] = {}
        self._gone: set[str] | None = set()  # keys deleted while the first list is read
        self._map = ClusterMap()
        self._nodes: dict[str, NodeRecord] = {}
        self._beats: dict[str, Heartbeat] = {}
        self._liveness = Liveness(dead_after_s)
        self._alive: tuple[frozenset[str], float] = (frozenset(), -1.0)  # who, and when that was looked up
        self._placed: dict[str, PlacedDatabase] = {}
        self.on_database: list[OnDatabase] = []  # called after a change, from the store's thread
        self._watch = metadata.watch(_PREFIX, self._take)  # first, so that nothing is missed between the two
        try:
            for key, record in metadata.list(_PREFIX).items():
                if key not in self._gone:
                    self._take(key, record)
            self._gone = None
        except BaseException:
            self._watch.close()
            raise

    # Looking

    @property
    def map(self) -> ClusterMap:
        return self._map

    def node(self, name: str) -> NodeRecord | None:
        return self._nodes.get(name)

    def nodes(self) -> dict[str, NodeRecord]:
        with self._changed:
            return dict(self._nodes)

    def beats(self) -> dict[str, Heartbeat]:
        """The newest heartbeat of each node, dead ones included."""
        with self._changed:
            return dict(self._beats)

    def alive(self) -> frozenset[str]:
        now_s = self._clock.monotonic_s()
        known, looked_s = self._alive
        if 0.0 <= now_s - looked_s < _ALIVE_FOR_S:
            return known
        with self._changed:
            known = self._liveness.alive(self._clock.monotonic_s())
            self._alive = (known, now_s)
        return known

    def is_alive(self, name: str) -> bool:
        return name in self.alive()

    def placed(self) -> dict[str, PlacedDatabase]:
        """Databases by id."""
        with self._changed:
            return dict(self._placed)

    def wait(self, is_so: Callable[[], bool], wait_s: float) -> bool:
        """Until it is so, looked at after every change; whether it is."""
        with self._changed:
            return self._changed.wait_for(is_so, wait_s)

    # Following

    def _take(self, key: str, record: Record | None) -> None:
        with self._changed:
            if record is not None:
                if record.revision <= self._revisions.get(key, 0):
                    return  # the list is older than what was told meanwhile
                self._revisions[key] = record.revision
            else:
                self._revisions.pop(key, None)
                if self._gone is not None:
                    self._gone.add(key)
            try:
                told = self._put(key, record)
            except (msgspec.MsgspecError, JadeError, UnicodeDecodeError) as error:
                logger.error("the record %s can't be read and is left out: %s", key, error)
                return
            self._changed.notify_all()
        if told is not None:
            for tell in list(self.on_database):
                tell(told)

    def _put(self, key: str, record: Record | None) -> str | None:
        """The id of the database that changed, if one did."""
        if key == MAP_KEY:
            if record is not None:
                found = msgspec.json.decode(record.value, type=ClusterMap)
                if found.version > self._map.version:
                    self._map = found
        elif key.startswith(NODE_PREFIX):
            name = key.removeprefix(NODE_PREFIX)
            if record is None:
                self._nodes.pop(name, None)
            else:
                self._nodes[name] = msgspec.json.decode(record.value, type=NodeRecord)
        elif key.startswith(BEAT_PREFIX):
            name = key.removeprefix(BEAT_PREFIX)
            if record is None:
                self._beats.pop(name, None)
                self._liveness.forget(name)
            else:
                beat = msgspec.json.decode(record.value, type=Heartbeat)
                self._beats[name] = beat
                now_s = self._clock.monotonic_s()
                self._liveness.seen(name, beat.incarnation, beat.beat, now_s, leaving=beat.leaving)
                self._alive = (frozenset(), -1.0)
        elif key.startswith(PLACED_PREFIX):
            database = key.removeprefix(PLACED_PREFIX)
            if record is None:
                self._placed.pop(database, None)
            else:
                self._placed[database] = decode_placed(record.value)
            return database
        return None

    def close(self) -> None:
        self._watch.close()
