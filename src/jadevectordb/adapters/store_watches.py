"""Who is told of changes in a metadata store. A handler that is slow misses nothing but what was overtaken meanwhile.

Each watch has a thread and keeps, for every key that changed since the handler last took one, the newest state: so what waits
is bounded by the number of keys, however slow the handler and however fast the changes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from jadevectordb.ports.metadata_store import OnChange, Record


class KeyWatch:
    """One watch: as `Watch`."""

    def __init__(self, prefix: str, handler: OnChange, forget: Callable[[KeyWatch], None]) -> None:
        self._prefix = prefix
        self._handler = handler
        self._forget = forget
        self._changed = threading.Condition()
        self._waiting: dict[str, Record | None] = {}  # the newest of each key, in the order of these changes
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="jade-store-watch", daemon=True)
        self._thread.start()

    def tell(self, key: str, record: Record | None) -> None:
        if not key.startswith(self._prefix):
            return
        with self._changed:
            self._waiting.pop(key, None)
            self._waiting[key] = record
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                key = next(iter(self._waiting))
                record = self._waiting.pop(key)
            try:
                self._handler(key, record)
            except Exception:  # a defect of the handler's owner, who must still hear of the next change
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))

    def close(self) -> None:
        self._forget(self)
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()


class StoreWatches:
    """All watches of one store. `tell` is called in the order of the changes, by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: tuple[KeyWatch, ...] = ()

    def add(self, prefix: str, handler: OnChange) -> KeyWatch:
        watch = KeyWatch(prefix, handler, self._forget)
        with self._lock:
            self._watches = (*self._watches, watch)
        return watch

    def _forget(self, watch: KeyWatch) -> None:
        with self._lock:
            self._watches = tuple(one for one in self._watches if one is not watch)

    def tell(self, key: str, record: Record | None) -> None:
        for watch in self._watches:
            watch.tell(key, record)

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
