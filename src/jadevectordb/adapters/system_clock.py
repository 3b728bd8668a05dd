"""The real clock. The only place, beside other adapters, where the wall clock is read."""

from __future__ import annotations

import time


class SystemClock:
    """Clock port over the operating system's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
