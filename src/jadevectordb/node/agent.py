"""The node's agent: moves this node's replicas towards the cluster map, and tells the cluster what is true here.

One thread looks at the map, when it changes and now and then, and hosts, keeps or removes replicas. Another writes the heartbeat, with
what every replica reports, and depends on nothing else: a node that is busy loading is alive. Nothing here decides about the
cluster, and nothing here stops serving because the metadata store is away: the last map known stays in force.

A map that is older than one seen before is ignored, also after a restart: what such a map lacks must not be removed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import HEARTBEAT_S, RETIRED_SERVES_S
from jadevectordb.node.hosting import Hosting, Place
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record, Watch
from jadevectordb.segment.builder import sync_folder
from jadevectordb.shard.replica import WriteAtomically
from jadevectordb.topology.cluster_map import (
    BEAT_PREFIX,
    MAP_KEY,
    PLACED_PREFIX,
    ClusterMap,
    Heartbeat,
    ReplicaReport,
    ReplicaState,
    ShardRecord,
)
from jadevectordb.topology.placed import PlacedDatabase, decode_placed, placed_key
from jadevectordb.topology.sharding import log_of

_LOOK_S = 1.0
_READ_MAP_S = 5.0  # the watch tells of changes; this is for what it may have missed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the map wants of a node. gone: replicas it may drop from the map once nothing is left of them here."""

    hosted: frozenset[Place]
    gone: frozenset[Place]


def wanted_of(cluster_map: ClusterMap, node: str) -> Wanted:
    """A replica that retires is held until the others are active that shall be."""
    hosted, gone = set(), set()
    for database, shard, replica in cluster_map.of_node(node):
        place = database, shard.number
        if replica.state is ReplicaState.RETIRING and _others_serve(
            shard, node, cluster_map.databases[database].replication
        ):
            gone.add(place)
        else:
            hosted.add(place)
    return Wanted(frozenset(hosted), frozenset(gone))


def _others_serve(shard: ShardRecord, node: str, replication: int) -> bool:
    others = [
        replica for replica in shard.replicas if replica.node != node and replica.state is not ReplicaState.RETIRING
    ]
    active = sum(replica.state is ReplicaState.ACTIVE for replica in others)
    return active >= max(1, min(replication, len(others)))


class Agent:
    """displaced: called once when another process writes this node's heartbeats; none are written here any more.

    For the heartbeat: troubles: what else is wrong on this node. load: a number that grows with how busy it is. figures: `FIGURES`.
    """

    def __init__(
        self,
        node: str,
        incarnation: str,
        store: MetadataStore,
        hosting: Hosting,
        clock: Clock,
        *,
        write_atomically: WriteAtomically,
        displaced: Callable[[], None],
        troubles: Callable[[], tuple[str, ...]] = tuple,
        load: Callable[[], float] = float,
        figures: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._store = store
        self._hosting = hosting
        self._clock = clock
        self._write_atomically = write_atomically
        self._displaced = displaced
        self._troubles = troubles
        self._load = load
        self._figures = figures
        self._seen_file = hosting.folder / "map-version"
        self._wake = threading.Condition()  # guards the fields below
        self._map = ClusterMap()
        self._placed: dict[str, int] = {}  # revisions of the databases' records, by id
        self._altered: dict[str, PlacedDatabase] = {}  # what has come or changed since replicas were opened by it
        self._changed = False
        self._closing = False
        self._leaving = False
        self._beat_now = threading.Event()
        self._has_beaten = False
        self._acted_upon = 0  # version of the map that `_move` was through with
        self._has_read = False  # the map, from the store, at least once
        self._seen = 0  # the newest version ever acted upon
        self._unwanted_since_s: dict[Place, float] = {}
        self._gone: frozenset[Place] = frozenset()
        self._trouble = ""
        self._threads = [
            threading.Thread(target=self._look_on, name="jade-agent", daemon=True),
            threading.Thread(target=self._beat_on, name="jade-heartbeat", daemon=True),
        ]

    def start(self) -> None:
        self._hosting.folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self._hosting.folder.parent)
        self._seen = _read_version(self._seen_file)
        for thread in self._threads:
            thread.start()

    @property
    def map(self) -> ClusterMap:
        """The newest known; version 0 while none is."""
        return self._map

    def leave(self) -> None:
        """From now on heartbeats say that this node is about to stop."""
        self._leaving = True
        self._beat_now.set()

    def stop(self) -> None:
        """End both threads. What is hosted stays so until `Hosting.close`. Again is fine."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._beat_now.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    # --- towards the map ------------------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        watches: list[Watch] = []
        read_s = -_READ_MAP_S
        while not self._closing:
            try:
                if not watches:
                    watches = self._watch()
                    read_s = -_READ_MAP_S
                if self._clock.monotonic_s() - read_s >= _READ_MAP_S:
                    read_s = self._clock.monotonic_s()
                    self._take(self._store.get(MAP_KEY))
                    for key, record in self._store.list(PLACED_PREFIX).items():
                        self._database_changed(key, record)
                self._move()
                self._reconfigure()
                self._trouble = ""
            except JadeError as error:
                self._trouble = f"the agent: {error.message}"
            except OSError as error:
                self._trouble = f"the agent: {error}"
            self._hosting.snapshots.sweep()
            with self._wake:
                self._wake.wait_for(lambda: self._changed or self._closing, _LOOK_S)
                self._changed = False
        for watch in watches:
            watch.close()

    def _watch(self) -> list[Watch]:
        """The map, and how databases are configured."""
        of_map = self._store.watch(MAP_KEY, self._map_changed)
        try:
            return [of_map, self._store.watch(PLACED_PREFIX, self._database_changed)]
        except BaseException:
            of_map.close()
            raise

    def _database_changed(self, key: str, record: Record | None) -> None:
        database = key.removeprefix(PLACED_PREFIX)
        with self._wake:
            if record is None:
                self._placed.pop(database, None)
                return
            if self._placed.get(database, 0) >= record.revision:
                return
            with contextlib.suppress(JadeError):  # written by a newer version: the replica stays as it is
                self._altered[database] = decode_placed(record.value)
                self._placed[database] = record.revision
                self._changed = True
                self._wake.notify_all()

    def _reconfigure(self) -> None:
        """Have replicas here opened as their databases are configured now; one hosted later is opened so from the start."""
        with self._wake:
            altered, self._altered = self._altered, {}
        for database in altered.values():
            self._hosting.reconfigure(database.id, database.config)

    def _map_changed(self, key: str, record: Record | None) -> None:
        if key == MAP_KEY:
            with contextlib.suppress(JadeError):  # written by a newer version: said when it is read again
                self._take(record)

    def _take(self, record: Record | None) -> None:
        """Raises CORRUPT. A map that is missing changes nothing: no replica is removed for want of one."""
        if record is None:
            return
        try:
            found = msgspec.json.decode(record.value, type=ClusterMap)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise JadeError(
                ErrorCode.CORRUPT, f"the cluster map can't be read ({error}); run the newest version of the nodes here"
            ) from error
        with self._wake:
            if found.version >= max(self._seen, self._map.version):
                self._map = found
                self._changed = self._has_read = True
                self._wake.notify_all()

    def _move(self) -> None:
        if not self._has_read:
            return
        cluster_map, now_s = self._map, self._clock.monotonic_s()
        if cluster_map.version > self._seen:
            self._remember(cluster_map.version)
        wanted = wanted_of(cluster_map, self._node)
        present = self._hosting.places
        unwanted = present - wanted.hosted
        self._unwanted_since_s = {place: self._unwanted_since_s.get(place, now_s) for place in unwanted}
        self._gone = wanted.gone - present
        for place, since_s in self._unwanted_since_s.items():
            is_held = self._hosting.get(*place) is not None
            if not is_held or now_s - since_s >= RETIRED_SERVES_S:
                self._hosting.remove(place)
        self._host(wanted.hosted)
        self._acted_upon = cluster_map.version

    def _remember(self, version: int) -> None:
        """On a full disk it is tried again at the next look: what the map wants removed would make room."""
        with contextlib.suppress(JadeError):
            self._write_atomically(self._seen_file, b"%d\n" % version)
            self._seen = version

    def _host(self, wanted: Set[Place]) -> None:
        placed: dict[str, PlacedDatabase | None] = {}
        for place in sorted(wanted):
            database, shard = place
            if self._hosting.get(database, shard) is None:
                if database not in placed:
                    record = self._store.get(placed_key(database))
                    placed[database] = None if record is None else decode_placed(record.value)
                found = placed[database]
                if found is not None:  # else it is being dropped
                    self._hosting.host(place, found.config, log_of(found.sharding, shard))

    # --- the heartbeat --------------------------------------------------------------------------------------------------

    def _beat_on(self) -> None:
        beat, revision = 0, -1  # -1: not known
        last = False
        while not last:
            last = self._closing
            beat += 1
            try:
                revision = self._beat(beat, revision)
            except JadeError:
                revision = -1  # whether it was written is not known; who watches sees for himself
            except _DisplacedError:
                self._displaced()
                return
            if not last:
                self._beat_now.wait(HEARTBEAT_S)
                self._beat_now.clear()

    def _beat(self, beat: int, revision: int) -> int:
        key = BEAT_PREFIX + self._node
        if revision < 0:
            found = self._store.get(key)
            revision = 0 if found is None else found.revision
            if found is not None and self._has_beaten and not self._is_own(found):
                raise _DisplacedError
        value = msgspec.json.encode(self._heartbeat(beat))
        written = self._store.compare_and_set(key, value, revision)
        self._has_beaten = self._has_beaten or written is not None
        return -1 if written is None else written

    def _is_own(self, found: Record) -> bool:
        try:
            return msgspec.json.decode(found.value, type=Heartbeat).incarnation == self._incarnation
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False

    def _heartbeat(self, beat: int) -> Heartbeat:
        acted_upon = self._acted_upon  # before the reports: they tell of all that this map places here
        gone = [ReplicaReport(database, shard, ReplicaState.GONE) for database, shard in sorted(self._gone)]
        troubles = [self._trouble] if self._trouble else []
        return Heartbeat(
            node=self._node,
            incarnation=self._incarnation,
            beat=beat,
            map_version=acted_upon,
            replicas=(*self._hosting.reports(), *gone),
            troubles=(*troubles, *self._troubles()),
            load=self._load(),
            leaving=self._leaving,
            figures=self._figures(),
            wall_ms=self._clock.now_ms(),
        )


class _DisplacedError(Exception):
    """Another process beats for this node."""


def _read_version(path: Path) -> int:
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdigit() else 0
