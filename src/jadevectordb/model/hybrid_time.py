"""Hybrid logical clocks: times that stay close to the wall clock and never contradict cause and effect.

Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks", OPODIS 2014. A time is one integer: milliseconds
since 1970 in the upper bits, a counter in the lower 16, so times compare as plain integers. The clock here is pure: the
caller passes what its own wall clock says, which may jump in either direction.
"""

from __future__ import annotations

from jadevectordb.model.ids import HybridTime

COUNTER_BITS = 16


def from_ms(now_ms: int) -> HybridTime:
    """The first hybrid time of a millisecond."""
    return HybridTime(now_ms << COUNTER_BITS)


def to_ms(time: HybridTime) -> int:
    """The millisecond of a hybrid time: at least the wall clock at the time it was taken."""
    return time >> COUNTER_BITS


class HybridClock:
    """One node's clock. Not thread-safe: whoever owns it calls it under the lock that orders its events.

    Invariants: every time returned is greater than all returned or observed before, and its millisecond is at least
    `now_ms`. When the counter of a millisecond is used up, it carries into the next millisecond: order is kept, and the
    clock runs ahead of the wall by 1 ms for each 65,536 events within one.
    """

    def __init__(self, last: int = 0) -> None:
        """last: the newest time known from before, such as the log's; the clock continues after it."""
        self._last = last

    @property
    def last(self) -> HybridTime:
        """The newest time returned or observed."""
        return HybridTime(self._last)

    def tick(self, now_ms: int) -> HybridTime:
        """The time of a local event, or of a message about to be sent."""
        self._last = max(self._last + 1, from_ms(now_ms))
        return HybridTime(self._last)

    def observe(self, time: HybridTime, now_ms: int) -> HybridTime:
        """The time of receiving something that happened at `time` elsewhere: later than both."""
        self._last = max(self._last + 1, time + 1, from_ms(now_ms))
        return HybridTime(self._last)
