"""So many bytes of callers' work at once, and no more: who comes later waits, in the order of coming."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from jadevectordb.model.errors import ErrorCode, JadeError


class BytesGate:
    """Used from any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._inside = 0
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    @contextlib.contextmanager
    def of(self, size: int, wait_s: float) -> Iterator[None]:
        """Room for so many bytes while the block runs; one that is larger than all goes alone. Raises UNAVAILABLE."""
        size = min(size, self._bytes_max)
        self._enter(size, wait_s)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= size
                self._admit()

    def _enter(self, size: int, wait_s: float) -> None:
        admitted = threading.Event()
        with self._lock:
            self._waiting.append((size, admitted))
            self._admit()
        if admitted.wait(wait_s):
            return
        with self._lock:
            if admitted.is_set():
                return
            self._waiting.remove((size, admitted))
            self._admit()
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            f"more is being written than the log takes: nothing of this was sent within {wait_s:g} s; retry with fewer at once",
            details={"undecided": False},
        )

    def _admit(self) -> None:
        while self._waiting and self._inside + self._waiting[0][0] <= self._bytes_max:
            size, admitted = self._waiting.popleft()
            self._inside += size
            admitted.set()
