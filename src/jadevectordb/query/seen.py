"""How far into each shard's log a session has seen: a read is answered from no less, and afterwards it has seen what that answer saw.

This is all that a session is: nothing is kept of it between requests, a client carries it as a token (`gateway.service.sessions`).
A shard that is not named, or an empty one, was not seen yet.
"""

from __future__ import annotations

from collections.abc import Iterable


class SeenSequences(dict[int, int]):
    """By shard, the newest sequence seen, above 0. Of one request, which raises it; not thread-safe."""

    __slots__ = ()

    def raise_to(self, positions: Iterable[tuple[int, int]]) -> None:
        """positions: (shard, sequence) that an answer was computed at, or that a write got."""
        for shard, sequence in positions:
            if sequence > self.get(shard, 0):
                self[shard] = sequence
