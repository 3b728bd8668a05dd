"""When to ask a second replica the same question: after the time in which nearly all answers come, and seldom.

Dean, Barroso: "The Tail at Scale", CACM 2013. A second call after about the 95th percentile of recent answers costs a few
percent more calls and cuts the tail that one slow node makes. A budget keeps it at that when everything is slow: then
second calls would only make it slower.
"""

from __future__ import annotations

import threading

from jadevectordb.model.limits import HEDGE_DELAY_S_MAX, HEDGE_DELAY_S_MIN, HEDGE_SHARE_MAX

_WINDOW = 256  # newest answers that the delay is taken from,
_EVERY = 32  # worked out anew with every so many
_QUANTILE = 0.95
_TOKENS_MAX = 10.0  # second calls that may be made at once after a quiet time


class Hedging:
    """Thread-safe. One for each kind of question of a database, so that slow questions do not delay the hedging of quick ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: list[float] = []
        self._next = 0
        self._delay_s = HEDGE_DELAY_S_MAX
        self._tokens = _TOKENS_MAX

    @property
    def delay_s(self) -> float:
        """How long to wait for an answer before another replica is asked."""
        return self._delay_s

    def asked(self) -> None:
        """A first call was made."""
        with self._lock:
            self._tokens = min(_TOKENS_MAX, self._tokens + HEDGE_SHARE_MAX)

    def answered(self, seconds: float) -> None:
        with self._lock:
            if len(self._seconds) < _WINDOW:
                self._seconds.append(seconds)
            else:
                self._seconds[self._next % _WINDOW] = seconds
            self._next += 1
            if self._next % _EVERY == 0:
                ordered = sorted(self._seconds)
                found = ordered[int(_QUANTILE * (len(ordered) - 1))]
                self._delay_s = min(HEDGE_DELAY_S_MAX, max(HEDGE_DELAY_S_MIN, found))

    def take(self) -> bool:
        """Whether a second call may be made now; it counts as made."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True
