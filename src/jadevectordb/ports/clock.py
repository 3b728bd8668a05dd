"""Time as a port: the core never reads a clock by itself."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since an unknown moment; never goes back."""
        ...
