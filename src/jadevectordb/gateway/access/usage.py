"""When credentials were last used, and how often.

Every request counts, so counting must cost nothing: a number in memory, written once a minute, one record a user. A killed
process loses the counts of its last minute; nothing that is decided depends on them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from jadevectordb.gateway.access.records import Records
from jadevectordb.model.errors import JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore


class Use(msgspec.Struct):
    """Of one session or key."""

    count: int = 0
    last_ms: int = 0


class _UserUses(msgspec.Struct):
    uses: dict[str, Use] = {}  # by credential id


class Usage:
    """Every method may be called from any thread."""

    def __init__(self, store: MetadataStore, clock: Clock) -> None:
        self._records = Records(store, "usage", _UserUses)
        self._clock = clock
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._unwritten: dict[str, dict[str, Use]] = {}  # by user id, then by credential id

    def touch(self, user_id: str, credential_id: str, now_ms: int) -> None:
        with self._lock:
            mine = self._unwritten.get(user_id)
            if mine is None:
                mine = self._unwritten[user_id] = {}
            use = mine.get(credential_id)
            if use is None:
                use = mine[credential_id] = Use()
            use.count += 1
            use.last_ms = now_ms

    def add(self, user_id: str, credential_id: str, count: int, last_ms: int) -> None:
        """So many uses at once, counted elsewhere."""
        with self._lock:
            mine = self._unwritten.setdefault(user_id, {})
            use = mine.setdefault(credential_id, Use())
            use.count += count
            use.last_ms = max(use.last_ms, last_ms)

    def of_user(self, user_id: str) -> dict[str, Use]:
        """By credential id, as of now."""
        stored = self._records.get(user_id)
        with self._lock:
            fresh = {name: Use(use.count, use.last_ms) for name, use in self._unwritten.get(user_id, {}).items()}
        return _sum(stored.uses if stored is not None else {}, fresh)

    def flush(self, alive_of: Callable[[str], set[str]], *, budget_s: float = 60.0) -> None:
        """Write what is not written, for as many users as the time allows.

        alive_of: the credentials a user still has; uses of others are forgotten.
        """
        end_s = self._clock.monotonic_s() + budget_s
        with self._flushing:
            for user_id in list(self._unwritten):
                if self._clock.monotonic_s() > end_s:
                    return
                alive = alive_of(user_id)
                if alive:
                    self._flush_user(user_id, alive)
                else:
                    self.forget(user_id)

    def forget(self, user_id: str) -> None:
        with self._lock:
            self._unwritten.pop(user_id, None)
        self._records.remove(user_id)

    def _flush_user(self, user_id: str, alive: set[str]) -> None:
        with self._lock:
            fresh = self._unwritten.pop(user_id, {})

        def step(old: _UserUses) -> _UserUses:
            uses = _sum(old.uses, fresh)
            return _UserUses({name: use for name, use in uses.items() if name in alive})

        try:
            if self._records.change(user_id, step) is None:
                self._records.add(user_id, step(_UserUses()))
        except JadeError:
            with self._lock:  # kept for the next time
                self._unwritten[user_id] = _sum(fresh, self._unwritten.get(user_id, {}))
            raise


def _sum(older: dict[str, Use], newer: dict[str, Use]) -> dict[str, Use]:
    total = {name: Use(use.count, use.last_ms) for name, use in older.items()}
    for name, use in newer.items():
        known = total.setdefault(name, Use())
        known.count += use.count
        known.last_ms = max(known.last_ms, use.last_ms)
    return total
