"""The master at work: look, decide, change the map, and look after the logs that the map implies; as long as it is master.

The thread runs on every node and does nothing while the node is not master. A turn of a master:
1. The map gets the master's term before anything else, so a change that an earlier master still has on its way is refused.
2. What `decide` says is made, in one compare-and-set of the map; somebody else's change in between means deciding anew.
3. New databases get their logs first and then their entry, one a turn: an entry in the map means that it can be written to.
4. A dropped database loses its replicas, then its logs, then its entry: whatever a master dies in between, the next goes on. That
   it was dropped is asked of the store itself, not of the mirror, before anything of it is taken away.
5. Now and then logs are cut to what is still needed.

Nothing here depends on who is master being sure: each act is either a compare-and-set, or right whoever does it.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from jadevectordb.control.mirror import ClusterMirror
from jadevectordb.control.observe import Observed
from jadevectordb.control.placement import REPLACE_AFTER_S, apply_changes, decide
from jadevectordb.control.scene import Change
from jadevectordb.control.truncation import HOLD_DEAD_S, RETAINED_ENTRIES, may_truncate
from jadevectordb.model.errors import JadeError
from jadevectordb.model.limits import MASTER_TURN_S, MASTER_TURN_S_MIN, TRUNCATE_EVERY_S
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record
from jadevectordb.topology.cluster_map import LEASE_KEY, MAP_KEY, ClusterMap
from jadevectordb.topology.placed import placed_key
from jadevectordb.topology.sharding import logs_of

logger = logging.getLogger("jadevectordb.control")


class ShardLogs(Protocol):
    """The replicated logs of databases. Each call may be repeated: what is done already is not an error."""

    def create(self, database: str, shards: int) -> None:
        """The logs of shards 0..shards-1 exist. Raises UNAVAILABLE, CONFLICT."""
        ...

    def drop(self, database: str, shards: int) -> None:
        """They do not exist any more. Raises UNAVAILABLE."""
        ...

    def truncate(self, database: str, up_to: Mapping[int, int]) -> None:
        """Entries up to these sequences, by shard, are needed no more. Raises UNAVAILABLE, NOT_FOUND."""
        ...


@dataclass(frozen=True, slots=True)
class MasterSettings:
    """replace_after_s: how long a node may be away before its replicas are made anew elsewhere."""

    replace_after_s: float = REPLACE_AFTER_S
    retained_entries: int = RETAINED_ENTRIES
    hold_dead_s: float = HOLD_DEAD_S
    turn_s: float = MASTER_TURN_S
    truncate_every_s: float = TRUNCATE_EVERY_S


class LostError(Exception):
    """The map was changed by somebody else, or this node is master no more: look again."""


DEFAULTS: Final = MasterSettings()


class MasterLoop:
    """Thread-safe. `start` once, `stop` at the end; or call `turn` where there is a loop already."""

    def __init__(
        self,
        store: MetadataStore,
        mirror: ClusterMirror,
        clock: Clock,
        term: Callable[[], int | None],
        logs: ShardLogs,
        settings: MasterSettings = DEFAULTS,
    ) -> None:
        """term: of `Elector`, asked at each use. The mirror has been started, and is the caller's to close."""
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._term = term
        self._logs = logs
        self._settings = settings
        self._changed = threading.Condition()  # guards the fields up to the empty line
        self._woken = False
        self._stopping = False
        self._trouble = ""

        self._troubles: list[str] = []  # of the turn under way
        self._settled: tuple[object, ...] | None = None  # what was seen when there was nothing to decide
        self._created: dict[str, int] = {}  # shards of databases that have logs and are not in the map yet
        self._tried: dict[str, float] = {}  # when each of those that have none was tried last
        self._truncated_s = float("-inf")
        self._cut: dict[tuple[str, int], int] = {}  # by (database, shard): what the logs were told last
        self._thread = threading.Thread(target=self._run, name="jade-master", daemon=True)
        mirror.listen(self._on_change)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Take a turn soon: this node has become master, say."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Returns when the turn under way has ended. Again is fine."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def trouble(self) -> str:
        """Why the last turn could not be ended; "" when it could, and while another is master."""
        with self._changed:
            return self._trouble

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _on_change(self, key: str) -> None:
        if key != LEASE_KEY:
            self.wake()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                self._woken = False
            try:
                self.turn()
            except Exception:  # a defect, to be reported; the cluster still needs its master's next turn
                self._note("a defect: see this node's log")
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, MASTER_TURN_S_MIN)
                self._changed.wait_for(lambda: self._woken or self._stopping, self._settings.turn_s)

    def _note(self, trouble: str) -> None:
        with self._changed:
            if trouble and trouble != self._trouble:
                logger.warning("the master could not end its turn: %s", trouble)
            self._trouble = trouble

    # --- a turn -------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Do what there is to do, if this node is master. What the world does to it is kept as `trouble`; the next turn tries again."""
        term = self._term()
        if term is None:
            self._note("")  # whatever stood against it is another's now
            return
        self._troubles = []
        try:
            if self._mirror.map.term != term:
                self._take_office(term)
            self._decide(term)
            self._drop_logs(term)
            self._truncate(term)
        except LostError:
            self.wake()
        except JadeError as error:
            self._troubles.append(error.message)
        self._note("; ".join(self._troubles))

    def _take_office(self, term: int) -> None:
        self._reread()
        observed = self._mirror.observe()
        if observed.map.term > term:
            raise LostError
        self._change(observed, [], term, f"master of term {term}")
        self._cut.clear()

    def _decide(self, term: int) -> None:
        observed = self._mirror.observe()
        if self._mirror.is_deaf:
            return  # nobody has been heard of for a while: what is seen is not what is
        given_up = frozenset(n for n, dead_s in observed.dead_for_s.items() if dead_s >= self._settings.replace_after_s)
        seen = (observed.map_revision, observed.changes, observed.alive, given_up)
        if seen == self._settled:
            return
        changes = decide(observed, replace_after_s=self._settings.replace_after_s)
        self._settled = seen if not changes and not self._created else None
        new = {change.database for change in changes if change.database not in observed.map.databases}
        dropped = {change.database for change in changes if _drops(observed.map, change)}
        now = [change for change in changes if change.database not in new | dropped]
        for database in sorted(dropped):
            if self._store.get(placed_key(database)) is None:
                now += [change for change in changes if change.database == database]
        placeable = [change for change in changes if change.database in new and change.database in self._created]
        self._forget_created(observed)
        if now or placeable:
            self._change(observed, now or placeable, term)
            self.wake()  # there may be more
        elif new and self._create_logs(observed, new):
            self.wake()

    def _create_logs(self, observed: Observed, new: set[str]) -> bool:
        """The logs of one new database, of those that have none yet the one that was tried longest ago. Whether it has some now."""
        self._tried = {name: at_s for name, at_s in self._tried.items() if name in new}
        name = min(new, key=lambda name: (self._tried.get(name, float("-inf")), name))
        self._tried[name] = self._clock.monotonic_s()
        placed = observed.placed[name]
        shards = logs_of(placed.sharding, placed.config.shards)
        try:
            self._logs.create(name, shards)
        except JadeError as error:
            self._troubles.append(f"the logs of {name} could not be created: {error.message}")
            return False
        self._created[name] = shards
        return True

    def _forget_created(self, observed: Observed) -> None:
        """Logs made for a database count until it is in the map; one that was dropped before it got there leaves none behind."""
        for name, shards in list(self._created.items()):
            if name not in observed.placed and self._store.get(placed_key(name)) is None:
                self._logs.drop(name, shards)
            elif name not in observed.map.databases:
                continue
            del self._created[name]

    def _change(self, observed: Observed, changes: list[Change], term: int, reason: str = "") -> None:
        """Write the next version of the map, if nobody has since. Raises LostError; UNAVAILABLE, then it may have happened."""
        if self._term() != term:
            raise LostError
        reasons = [reason] if reason else [change.reason for change in changes]
        wanted = apply_changes(observed.map, changes, term).explained(reasons, self._clock.now_ms())
        value = msgspec.json.encode(wanted)
        try:
            written = self._store.compare_and_set(MAP_KEY, value, observed.map_revision)
        except JadeError:
            self._reread()
            raise
        if written is None:
            self._reread()
            raise LostError
        self._mirror.take_map(Record(value, written))
        for why in reasons:
            logger.info("map %d: %s", wanted.version, why)

    def _reread(self) -> None:
        self._mirror.take_map(self._store.get(MAP_KEY))

    def _drop_logs(self, term: int) -> None:
        observed = self._mirror.observe()
        for name, record in sorted(observed.map.databases.items()):
            if not record.dropped:
                continue
            try:
                self._logs.drop(name, len(record.shards))
            except JadeError as error:
                self._troubles.append(f"the logs of {name} could not be deleted: {error.message}")
                continue
            self._change(self._mirror.observe(), [Change(f"{name}: its logs are deleted", name, None)], term)

    def _truncate(self, term: int) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._truncated_s + self._settings.truncate_every_s or self._term() != term:
            return
        self._truncated_s = now_s
        wanted = may_truncate(
            self._mirror.observe(), retained=self._settings.retained_entries, hold_dead_s=self._settings.hold_dead_s
        )
        self._cut = {place: up_to for place, up_to in self._cut.items() if place[0] in wanted}
        for database, by_shard in wanted.items():
            more = {shard: up_to for shard, up_to in by_shard.items() if up_to > self._cut.get((database, shard), 0)}
            try:
                if more:
                    self._logs.truncate(database, more)
            except JadeError as error:
                self._troubles.append(f"the logs of {database} could not be cut: {error.message}")
                continue
            self._cut.update({(database, shard): up_to for shard, up_to in more.items()})


def _drops(cluster_map: ClusterMap, change: Change) -> bool:
    before = cluster_map.databases.get(change.database)
    return before is not None and not before.dropped and change.record is not None and change.record.dropped
