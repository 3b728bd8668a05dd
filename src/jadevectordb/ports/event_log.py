"""The event log port: what happened, who did it and when, kept for a time and asked for by kind, user and time.

Contract, the same for every adapter (`tests/contract/test_event_log_contract.py`):
- `append` keeps an event's place: queries answer in the order of the calls, newest first.
- A query sees every event whose `append` returned before.
- An event appended with `at_once` is durable when `append` returns; the others follow within EVENT_FLUSH_S, and on `close`.
- Trouble with the disk never makes `append` raise: what must not be lost waits in memory up to EVENTS_WAITING_MAX and is written
  when there is space again; beyond that the oldest waiting events are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. user_id: who did it, "" = nobody signed in. details: for people, never a secret."""

    id: str
    time_ms: int
    kind: str
    user_id: str = ""
    user: str = ""  # the account's name at that time
    success: bool = True
    address: str = ""
    session_id: str = ""
    resource: str = ""
    operation: str = ""
    details: str = ""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; None = any. since_ms is included, until_ms is not."""

    kinds: frozenset[str] | None = None
    user_id: str | None = None
    success: bool | None = None
    since_ms: int | None = None
    until_ms: int | None = None


EVERY_EVENT = EventFilter()


class EventSums(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the events that a filter lets through. first_ms, last_ms: None when there is none."""

    by_kind: dict[str, int]
    failed: int
    first_ms: int | None
    last_ms: int | None

    @property
    def total(self) -> int:
        return sum(self.by_kind.values())


class EventLog(Protocol):
    def append(self, event: Event, *, at_once: bool = False) -> None:
        """Keep the event. Raises CLOSED, and nothing else."""
        ...

    def query(self, which: EventFilter = EVERY_EVENT, *, limit: int, offset: int = 0) -> list[Event]:
        """The newest first, `offset` of them left out. Raises CORRUPT, IO_ERROR, CLOSED."""
        ...

    def scan(self, which: EventFilter = EVERY_EVENT) -> Iterator[Event]:
        """All of them, oldest first, read in parts: what is appended meanwhile may be seen or not."""
        ...

    def count(self, which: EventFilter = EVERY_EVENT) -> int: ...

    def sums(self, which: EventFilter = EVERY_EVENT) -> EventSums: ...

    def prune(self, *, before_ms: int, rows_max: int) -> int:
        """Forget the oldest events: those older than `before_ms`, and all beyond the newest `rows_max`. How many went."""
        ...

    def flush(self) -> None:
        """Write what waits. Raises what writing raises; it stays waiting then."""
        ...

    @property
    def dropped(self) -> int:
        """How many events could not be kept since the log was opened."""
        ...

    def close(self) -> None:
        """Write what waits and close; again is fine."""
        ...
