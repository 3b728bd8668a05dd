"""How many connections a peer gets, and which one a call takes: decided from events and a clock value.

gRPC can carry many calls over one connection, but they share its flow control and one core's work at the other end: a call
behind a large answer waits. So a call gets a connection to itself while there are fewer than `most`; beyond that, calls share
the least used ones. A connection whose call failed below the peer's own code is retired: no further call gets it, and it is
closed when its last call ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from jadevectordb.model.limits import (
    PEER_CONNECTIONS_INITIAL,
    PEER_CONNECTIONS_MAX,
    PEER_CONNECTIONS_MIN,
    PEER_IDLE_S_MAX,
)

ConnectionId = NewType("ConnectionId", int)


class Action(StrEnum):
    OPEN = "open"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Effect:
    """What the owner of the sockets is to do."""

    action: Action
    connection: ConnectionId


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """1 <= least <= initial <= most."""

    least: int = PEER_CONNECTIONS_MIN
    initial: int = PEER_CONNECTIONS_INITIAL
    most: int = PEER_CONNECTIONS_MAX
    idle_s_max: float = PEER_IDLE_S_MAX

    def __post_init__(self) -> None:
        assert 1 <= self.least <= self.initial <= self.most and self.idle_s_max > 0


@dataclass(slots=True)
class _Connection:
    in_use: int  # calls under way, >= 0
    idle_since_s: float  # meaningful while in_use == 0
    retired: bool  # gets no further call; closed when in_use == 0


class PoolPolicy:
    """Of one peer. Not thread-safe: the caller holds a lock. Effects are to be performed in order, before the next event."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._connections: dict[ConnectionId, _Connection] = {}
        self._next = 0
        self._started = False

    def acquire(self, now_s: float) -> tuple[ConnectionId, list[Effect]]:
        """The connection for one call."""
        effects = []
        if not self._started:
            self._started = True
            effects = [self._open(now_s) for _ in range(self._limits.initial)]
        usable = {name: one for name, one in self._connections.items() if not one.retired}
        idle = [name for name, one in usable.items() if one.in_use == 0]
        if idle:
            # The one used last, so that those not needed get old enough to be closed
            chosen = max(idle, key=lambda name: (usable[name].idle_since_s, -name))
        elif len(usable) < self._limits.most:
            effects.append(self._open(now_s))
            chosen = effects[-1].connection
        else:
            chosen = min(usable, key=lambda name: (usable[name].in_use, name))
        self._connections[chosen].in_use += 1
        return chosen, effects

    def release(self, connection: ConnectionId, now_s: float, *, broken: bool) -> list[Effect]:
        """A call ended. broken: it failed below the peer's own code."""
        one = self._connections[connection]
        assert one.in_use > 0
        one.in_use -= 1
        one.idle_since_s = now_s
        one.retired = one.retired or broken
        return [self._close(connection)] if one.retired and one.in_use == 0 else []

    def sweep(self, now_s: float) -> list[Effect]:
        """Close what was idle for long, keep `least`. To be called now and then."""
        usable = [name for name, one in self._connections.items() if not one.retired]
        old = [
            name
            for name in usable
            if self._connections[name].in_use == 0
            and now_s - self._connections[name].idle_since_s >= self._limits.idle_s_max
        ]
        old.sort(key=lambda name: self._connections[name].idle_since_s)
        return [self._close(name) for name in old[: max(0, len(usable) - self._limits.least)]]

    def close(self) -> list[Effect]:
        """Close everything, calls under way included; nothing is to be asked of the policy afterwards but `release`-free silence."""
        return [self._close(name) for name in list(self._connections)]

    @property
    def size(self) -> int:
        """Connections there are, retired ones with calls under way included."""
        return len(self._connections)

    @property
    def in_use(self) -> int:
        """Calls under way."""
        return sum(one.in_use for one in self._connections.values())

    def check_invariants(self) -> None:
        usable = [one for one in self._connections.values() if not one.retired]
        assert len(usable) <= self._limits.most
        assert all(one.in_use >= 0 for one in self._connections.values())
        assert all(one.in_use > 0 for one in self._connections.values() if one.retired)

    def _open(self, now_s: float) -> Effect:
        name = ConnectionId(self._next)
        self._next += 1
        self._connections[name] = _Connection(in_use=0, idle_since_s=now_s, retired=False)
        return Effect(Action.OPEN, name)

    def _close(self, connection: ConnectionId) -> Effect:
        del self._connections[connection]
        return Effect(Action.CLOSE, connection)
