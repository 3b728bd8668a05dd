"""Whether a keeper's nats-server has a whole copy of the log again after it was started.

A server that comes back gets what it lacks from the others, and one whose disk was lost gets everything, which takes as long as its disk
and network take. Meanwhile it counts for a majority, and its leaders call it current long before its files are whole: it is the
streams' own last sequences that tell. Until they have reached what replicas had applied when the last look was taken, the log has a
copy less than it shall have, and whoever takes another keeper's disk away may lose what was acknowledged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from jadevectordb.adapters.nats_config import Address
from jadevectordb.adapters.nats_monitor import stored

Ends = Callable[[], Mapping[str, int]]  # by stream, a sequence that is known to be durable


class LogCopies:
    """Of one server. Thread-safe; nothing is judged before `know`. holds_all: whether every stream has a copy on this server."""

    def __init__(self, monitoring: Address, *, holds_all: bool) -> None:
        self._monitoring = monitoring
        self._holds_all = holds_all
        self._lock = threading.Lock()
        self._ends: Ends | None = None
        self._expected: Mapping[str, int] | None = None  # as of the last look
        self._behind = 0
        self._is_whole = False

    def know(self, ends: Ends) -> None:
        """ends: asked before each look; must not wait."""
        with self._lock:
            self._ends = ends

    def begin_anew(self) -> None:
        """The server was started."""
        with self._lock:
            self._expected, self._behind, self._is_whole = None, 0, False

    @property
    def is_whole(self) -> bool:
        """It stays so until the next start."""
        with self._lock:
            return self._is_whole or self._ends is None

    @property
    def trouble(self) -> str:
        """What it lacks, "" when it is whole."""
        with self._lock:
            if self._is_whole or self._ends is None:
                return ""
            if self._expected is None:
                return "whether it has all of the log was not found out yet"
            return (
                f"it has not all of the log yet: {self._behind} of {len(self._expected)} streams are being completed by the other "
                "keepers, whose disks must not be lost meanwhile"
            )

    def look(self) -> None:
        """Asks the server, so it may take up to two seconds."""
        ends = self._ends
        if ends is None:
            return
        now = ends()
        try:
            held = stored(self._monitoring)
        except (OSError, ValueError):
            return
        with self._lock:
            expected = now if self._expected is None else self._expected
            self._behind = sum(
                held.get(name, 0) < end for name, end in expected.items() if self._holds_all or name in held
            )
            self._is_whole = not self._behind
            self._expected = now
