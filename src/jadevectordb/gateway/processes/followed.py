"""The databases of a reading process: those the writer shows, each followed from the first request for it on.

One thread keeps them in step and does what takes time: opening, refreshing, catching up with much. A request only looks whether its
database is in step, and applies the last few entries itself when they are few; else the writer answers it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.processes.shown import AHEAD, EPOCH, INSTALLS, POSITION, Databases, Described
from jadevectordb.gateway.service.catalog import Check, Directory, Entry
from jadevectordb.gateway.service.watched import DutyCycle
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import NodeId
from jadevectordb.node.follower import Follower
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.shared_page import SeenPage

logger = logging.getLogger("jadevectordb.processes")
_NODE = NodeId("reader")
_LOOK_S = 0.05  # how often the thread looks at all databases, unless it is woken
_REFRESH_SHARE_MAX = 0.2  # of one core, while the writer replaces segments again and again
_REFRESHES_PER_S_MAX = 5.0
_RETRY_S_MIN, _RETRY_S_MAX = 0.2, 30.0
_decode = msgspec.msgpack.Decoder(Databases).decode
# How a followed database is made: its configuration, and what says how far the writer is
MakeFollower = Callable[[DatabaseConfig, Callable[[], int]], Follower]


class FollowedEntry(Entry):
    """A database in this process. `is_wanted` once somebody asked for it."""

    __slots__ = ("_cycle", "_described", "_failed", "_installs", "_page", "_retry_at_s", "follower", "is_wanted")

    def __init__(self, described: Described, page: SeenPage, make: MakeFollower, clock: Clock) -> None:
        self._described = described
        self._page = page
        place = described.place
        self.follower = make(described.config, lambda: page.get(place + POSITION))
        self.is_wanted = False
        self._installs = -1
        self._cycle = DutyCycle(_REFRESH_SHARE_MAX, _REFRESHES_PER_S_MAX, clock.monotonic_s)
        self._failed = 0
        self._retry_at_s = 0.0
        super().__init__(described.record, Database(self.follower, _NODE), 0)

    def is_same(self, described: Described) -> bool:
        """Whether this is still the same opening of the same database."""
        mine = self._described
        return (mine.place, mine.epoch, mine.config) == (described.place, described.epoch, described.config)

    def renamed(self, described: Described) -> None:
        self.record = described.record

    @property
    def is_current(self) -> bool:
        """Whether the view holds all that was acknowledged or can have been seen, and nothing is known to be wrong with it."""
        page, place, position = self._page, self._described.place, self.follower.position
        return (
            page.get(place + AHEAD)
            == position  # before the position: what is seen after this look may be answered from here
            and page.get(place + POSITION) == position
            and page.get(place + EPOCH) == self._described.epoch
        )

    def catch_up_now(self) -> bool:
        """Apply the last few entries. Whether the database is current then."""
        try:
            return self.follower.catch_up(now=True) and self.is_current
        except JadeError:
            return False  # the thread finds out and says so

    def attend(self, now_s: float) -> None:
        """What the thread does about it now and then."""
        page, place = self._page, self._described.place
        if not self.is_wanted or page.get(place + EPOCH) != self._described.epoch or now_s < self._retry_at_s:
            return
        try:
            installs = page.get(place + INSTALLS)
            if self.follower.position < 0 or (installs != self._installs and self._cycle.is_due()):
                self._refresh(installs, now_s)
            elif page.get(place + POSITION) != self.follower.position:
                self._catch_up(installs, now_s)
            self._failed = 0
        except Exception as error:
            self._note(error, now_s)

    def _refresh(self, installs: int, now_s: float) -> None:
        """installs: the number before the checkpoint is read: a change in between is seen next time."""
        taken = self.follower.refresh()
        self._cycle.spent(now_s)
        if taken:
            self._installs = installs

    def _catch_up(self, installs: int, now_s: float) -> None:
        try:
            self.follower.catch_up()
        except JadeError as error:
            if error.code is not ErrorCode.LOG_TRUNCATED:
                raise
            self._refresh(installs, now_s)

    def _note(self, error: Exception, now_s: float) -> None:
        """It is tried again, later and later; until then the writer answers."""
        if self._page.get(self._described.place + EPOCH) != self._described.epoch:
            return  # dropped or altered under our hands
        self._retry_at_s = now_s + min(_RETRY_S_MAX, _RETRY_S_MIN * 2 ** min(self._failed, 10))
        self._failed += 1
        logger.warning(
            "database %s can't be followed (%s); another process answers for it, and it is tried again",
            self.record.name, error, exc_info=None if isinstance(error, JadeError) else error,
        )  # fmt: skip


class FollowedDatabases(Directory):
    """The directory of a reader. `refresh` and `resolve` belong to one thread, the event loop's; `start` begins another."""

    def __init__(self, page: SeenPage, make: MakeFollower, clock: Clock, check: Check) -> None:
        super().__init__(check)
        self._page = page
        self._make = make
        self._clock = clock
        self._number = -1  # of the text that the entries are from
        self._retired: list[FollowedEntry] = []
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._follow, name="jade-follow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def refresh(self) -> bool:
        """Take over the newest list of databases. False: it is being changed at this moment."""
        if self._page.text_number == self._number:
            return True
        found = self._page.text()
        if found is None:
            return False
        entries: dict[str, Entry] = {}
        for described in _decode(found[1]).databases:
            before = self._entries.get(described.record.id)
            if isinstance(before, FollowedEntry) and before.is_same(described):
                before.renamed(described)
                entries[described.record.id] = before
            else:
                entries[described.record.id] = FollowedEntry(described, self._page, self._make, self._clock)
        kept = set(map(id, entries.values()))
        self._retired += [e for e in self._entries.values() if isinstance(e, FollowedEntry) and id(e) not in kept]
        self._publish(entries)
        self._number = found[0]
        self._wake.set()
        return True

    def is_ready(self, entry: Entry) -> bool:
        """Whether a request for this database can be answered here and now."""
        assert isinstance(entry, FollowedEntry)
        if entry.is_current or (entry.is_wanted and entry.catch_up_now()):
            return True
        entry.is_wanted = True
        self._wake.set()
        return False

    def _follow(self) -> None:
        while not self._closing:
            while self._retired:
                self._retired.pop().follower.close()
            for entry in self.every():
                assert isinstance(entry, FollowedEntry)
                entry.attend(self._clock.monotonic_s())
            self._wake.wait(_LOOK_S)
            self._wake.clear()

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        for entry in (*self.every(), *self._retired):
            assert isinstance(entry, FollowedEntry)
            entry.follower.close()
