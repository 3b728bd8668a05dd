"""What this node knows of the cluster: a copy in memory of the records under `cluster/`, kept by a watch, and who is alive.

Every node keeps one, master or not: a gateway routes by it, and who becomes master knows at once which nodes had been silent
for how long. It is as new as the watch; whoever changes a record does it by compare-and-set, so nothing depends on it being newer.
A record that cannot be read keeps its last value and is told as trouble.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import TypeVar

import msgspec

from jadevectordb.control.liveness import Liveness
from jadevectordb.control.observe import Observed
from jadevectordb.model.errors import JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record, Watch
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

PREFIX = "cluster/"
T = TypeVar("T")


class ClusterMirror:
    """Thread-safe. The store is the caller's to close."""

    def __init__(self, store: MetadataStore, clock: Clock, liveness: Liveness | None = None) -> None:
        self._store = store
        self._clock = clock
        self._liveness = liveness or Liveness()
        self._lock = threading.Lock()  # guards all below; mappings are replaced, never changed, once handed out
        self._map = ClusterMap()
        self._map_revision = 0
        self._changes = 0
        self._nodes: dict[str, NodeRecord] = {}
        self._beats: dict[str, Heartbeat] = {}
        self._placed: dict[str, PlacedDatabase] = {}
        self._troubles: dict[str, str] = {}  # by key; as many as there are unreadable records
        self._watch: Watch | None = None
        self._listeners: tuple[Callable[[str], None], ...] = ()

    def start(self) -> None:
        """Read everything and follow it. Raises UNAVAILABLE, CORRUPT, CLOSED: then it has not begun, and may be tried again."""
        with self._lock:  # what is told meanwhile waits, and comes after what is read here
            watch = self._store.watch(PREFIX, self._on_change)
            try:
                found = self._store.list(PREFIX)
                self._nodes, self._beats, self._placed = {}, {}, {}
                for key, record in found.items():
                    self._take(key, record)
            except BaseException:
                self._begun_in_vain(watch)
                raise
            self._watch = watch

    def _begun_in_vain(self, watch: Watch) -> None:
        """Close a watch whose handler may be waiting for the lock."""
        self._lock.release()
        try:
            watch.close()
        finally:
            self._lock.acquire()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have it called, with the key, after each change that was taken in, but not after a heartbeat that says nothing new.

        It must be brief, and not raise.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def observe(self) -> Observed:
        """All that is known, at this moment."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            return Observed(
                map=self._map,
                nodes=MappingProxyType(self._nodes),
                alive=self._liveness.alive(now_s),
                beats=MappingProxyType(self._beats),
                placed=MappingProxyType(self._placed),
                dead_for_s=MappingProxyType(self._liveness.dead_for_s(now_s)),
                map_revision=self._map_revision,
                changes=self._changes,
            )

    @property
    def map(self) -> ClusterMap:
        with self._lock:
            return self._map

    def node(self, name: str) -> NodeRecord | None:
        return self._nodes.get(name)  # of one mapping, whichever is the newest: no lock

    def placed(self, database: str) -> PlacedDatabase | None:
        with self._lock:
            return self._placed.get(database)

    def alive(self) -> frozenset[str]:
        with self._lock:
            return self._liveness.alive(self._clock.monotonic_s())

    @property
    def is_deaf(self) -> bool:
        """Nothing has been heard of any node for so long that the store must be out of reach."""
        with self._lock:
            return self._liveness.is_deaf(self._clock.monotonic_s())

    @property
    def troubles(self) -> dict[str, str]:
        """Records that cannot be read, by key, and why."""
        with self._lock:
            return dict(self._troubles)

    def take_map(self, record: Record | None) -> None:
        """The map's record, as somebody read or wrote it just now: newer than what the watch has told, perhaps."""
        if record is None:
            return
        with self._lock:
            self._take(MAP_KEY, record)

    def close(self) -> None:
        """Again is fine."""
        if self._watch is not None:
            self._watch.close()

    # --- taking in ----------------------------------------------------------------------------------------------------

    def _on_change(self, key: str, record: Record | None) -> None:
        with self._lock:
            before = self._changes
            self._take(key, record)
            tells = self._changes != before or not key.startswith(BEAT_PREFIX)
            listeners = self._listeners if tells else ()
        for listener in listeners:
            listener(key)

    def _take(self, key: str, record: Record | None) -> None:
        try:
            self._sort_in(key, record)
        except JadeError as error:
            self._troubles[key] = error.message
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._troubles[key] = f"the record {key!r} cannot be read ({error})"
        else:
            self._troubles.pop(key, None)

    def _sort_in(self, key: str, record: Record | None) -> None:
        if key == MAP_KEY:
            if record is not None and record.revision > self._map_revision:
                self._map = msgspec.json.decode(record.value, type=ClusterMap)
                self._map_revision = record.revision
        elif key.startswith(BEAT_PREFIX):
            self._sort_in_beat(key.removeprefix(BEAT_PREFIX), record)
        elif key.startswith(NODE_PREFIX):
            node = None if record is None else msgspec.json.decode(record.value, type=NodeRecord)
            self._nodes = _with(self._nodes, key.removeprefix(NODE_PREFIX), node)
            self._changes += 1
        elif key.startswith(PLACED_PREFIX):
            placed = None if record is None else decode_placed(record.value)
            self._placed = _with(self._placed, key.removeprefix(PLACED_PREFIX), placed)
            self._changes += 1

    def _sort_in_beat(self, node: str, record: Record | None) -> None:
        beat = None if record is None else msgspec.json.decode(record.value, type=Heartbeat)
        self._changes += _said(self._beats.get(node)) != _said(beat)
        self._beats = _with(self._beats, node, beat)
        if beat is None:
            self._liveness.forget(node)
        else:
            now_s = self._clock.monotonic_s()
            self._liveness.seen(node, beat.incarnation, beat.beat, now_s, leaving=beat.leaving)


def _said(beat: Heartbeat | None) -> tuple[object, ...]:
    """What decisions are made on: all but how far and how large the replicas are."""
    if beat is None:
        return ()
    replicas = tuple((report.database, report.shard, report.state) for report in beat.replicas)
    return beat.incarnation, beat.map_version, beat.leaving, replicas


def _with(records: dict[str, T], key: str, value: T | None) -> dict[str, T]:
    changed = dict(records)
    changed.pop(key, None)
    if value is not None:
        changed[key] = value
    return changed
