"""A way to call off calls that are under way: whoever asked for an answer no longer wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """Given to calls by whoever may call them off. Thread-safe; once cancelled it stays so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._told: dict[int, Callable[[], object]] = {}
        self._next = 0

    @property
    def is_cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Idempotent. Calls each watcher once, from this thread."""
        with self._lock:
            self._event.set()
            told, self._told = self._told, {}
        for tell in told.values():
            tell()

    def wait(self, seconds: float) -> bool:
        """Sleep, at most until cancelled; whether it was."""
        return self._event.wait(seconds)

    @contextmanager
    def watched_by(self, tell: Callable[[], object]) -> Iterator[None]:
        """While inside, cancelling calls `tell`; at once when it is cancelled already."""
        with self._lock:
            name = self._next
            self._next += 1
            cancelled = self._event.is_set()
            if not cancelled:
                self._told[name] = tell
        if cancelled:
            tell()
        try:
            yield
        finally:
            with self._lock:
                self._told.pop(name, None)
