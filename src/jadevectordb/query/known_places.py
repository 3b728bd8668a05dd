"""How far this gateway knows each shard's log: what its writes at EVENTUAL have seen when they are taken.

The gateway is the writer here, as a server is in a version vector: whatever it has shown to any of its clients, wrote itself, or
applied in a replica of its own node, its next write comes after. A client's session token adds what that client saw elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping


class KnownPlaces:
    """Of all databases. Thread-safe. Places only grow; bounded by the shards that exist."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, dict[int, int]] = {}

    def note(self, database: str, places: Collection[tuple[int, int]]) -> None:
        """places: (shard, sequence) that an answer has seen, or that a write got."""
        known = self._places.get(database)
        if known is not None:
            for shard, place in places:
                if place > known.get(shard, 0):
                    break
            else:
                return  # as for most reads
        with self._lock:
            known = self._places.setdefault(database, {})
            for shard, place in places:
                known[shard] = max(place, known.get(shard, 0))

    def of(self, database: str) -> Mapping[int, int]:
        """By shard; a shard of which nothing is known is left out."""
        with self._lock:
            return dict(self._places.get(database, ()))

    def forget(self, database: str) -> None:
        """It was dropped."""
        with self._lock:
            self._places.pop(database, None)
