"""What the writing process shows to those that read: numbers in shared memory that move before an answer leaves.

    access     moves on when something was taken away from anybody: every credential must be looked up again
    databases  for each one a slot of four numbers: epoch, position, installs (`ports/progress.py`), and `ahead`: what the position
               becomes. It moves before the writer's own searches see more, the position after; so while the two differ a search
               in the writer may have shown what a reader would not, and the writer has to answer
    text       the list of databases: records, configurations, slots

An epoch is of one opening of one database and never comes again; 0 is none. Who follows a database under another epoch than its slot
shows knows nothing about it: it was dropped, closed, configured otherwise or found damaged.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable

import msgspec

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.catalog import DatabaseRecord, Entry
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import JadeError
from jadevectordb.model.limits import FOLLOWED_DATABASES_MAX
from jadevectordb.ports.progress import UNWATCHED, Progress
from jadevectordb.ports.shared_page import ShownPage

logger = logging.getLogger("jadevectordb.processes")

ACCESS = 0
_SLOTS = 8  # the first slot begins here
EPOCH, POSITION, INSTALLS, AHEAD, _SLOT_NUMBERS = 0, 1, 2, 3, 4
NOT_SHOWN = -1
NUMBERS = _SLOTS + FOLLOWED_DATABASES_MAX * _SLOT_NUMBERS


class Described(msgspec.Struct, array_like=True, frozen=True):
    """One database, as a reader needs to know it. place: of its slot. epoch: NOT_SHOWN when readers have to leave it alone."""

    record: DatabaseRecord
    config: DatabaseConfig
    place: int
    epoch: int


class Databases(msgspec.Struct, array_like=True, frozen=True):
    databases: list[Described]


class Shown:
    """Thread-safe. `progress_of` is given to the store; `every` says which databases there are, once there is a catalog."""

    def __init__(self, page: ShownPage) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self._epochs = itertools.count(1)
        self._slots: dict[str, _Slot] = {}  # by folder
        self._free = iter(range(FOLLOWED_DATABASES_MAX))
        self._is_stale = True
        self.every: Callable[[], Iterable[Entry]] = tuple

    def progress_of(self, config: DatabaseConfig) -> Progress:
        """The slot of this database. When there are too many databases it has none, and readers leave it to the writer."""
        with self._lock:
            slot = self._slots.get(config.folder)
            if slot is None:
                place = self._place()
                if place is None:
                    logger.warning("there are too many databases: searches of %s run in one process", config.name)
                    return UNWATCHED
                slot = self._slots[config.folder] = _Slot(self, place)
            return slot

    def _place(self) -> int | None:
        number = next(self._free, None)
        if number is not None:
            return _SLOTS + number * _SLOT_NUMBERS
        for folder, slot in self._slots.items():
            if not slot.epoch:  # closed for good, or about to be opened again and given another one
                del self._slots[folder]
                return slot.place
        return None

    def access_changed(self) -> None:
        """Something was taken away from somebody. To be called before anyone is told."""
        self._page.add(ACCESS)

    def publish(self) -> None:
        """Show which databases there are now. To be called before anyone is told of a change. Never raises."""
        with self._publishing:
            self._is_stale = False
            try:
                described = list(map(_described, self.every()))
                self._page.set_text(msgspec.msgpack.encode(Databases(described)))
            except OSError as error:  # readers see that there is no list and leave everything to this process
                self._is_stale = True
                logger.warning("the list of databases can't be shown to the other processes: %s", error)

    def publish_if_stale(self) -> None:
        """A database may be opened anew by other ways than the catalog's; until that is shown, readers leave it to the writer."""
        if self._is_stale:
            self.publish()

    def _opened(self) -> int:
        self._is_stale = True
        return next(self._epochs)


class _Slot:
    """Progress of one database, in its slot."""

    def __init__(self, shown: Shown, place: int) -> None:
        self._shown = shown
        self._page = shown._page
        self.place = place
        self.epoch = 0

    def opened(self, position: int) -> None:
        self._page.set(self.place + AHEAD, position)
        self._page.set(self.place + POSITION, position)
        self._page.add(self.place + INSTALLS)
        self.epoch = self._shown._opened()
        self._page.set(self.place + EPOCH, self.epoch)

    def applying(self, entries: int) -> None:
        self._page.add(self.place + AHEAD, entries)

    def applied(self, entries: int) -> None:
        self._page.add(self.place + POSITION, entries)

    def installed(self) -> None:
        self._page.add(self.place + INSTALLS)

    def ended(self) -> None:
        self.epoch = 0
        self._page.set(self.place + EPOCH, 0)


def _described(entry: Entry) -> Described:
    """All there are, so that a name which two of them have is not taken for one's own."""
    hidden = Described(entry.record, entry.handle.config, _SLOTS, NOT_SHOWN)
    if isinstance(entry.handle, ClusterDatabase):
        return hidden  # nothing of it is in this process's files
    try:
        database = entry.handle._use()
        slot = database.progress
        epoch = slot.epoch if isinstance(slot, _Slot) else 0
        if not isinstance(slot, _Slot) or not epoch or entry.handle._use() is not database:
            return hidden  # it has no slot, or is altered at this moment
        return Described(entry.record, database.config, slot.place, epoch)
    except JadeError:  # closed or damaged
        return hidden
