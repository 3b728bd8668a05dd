"""What all calls of the gRPC door share: the services, what is under way, and what keeps slow clients from holding its threads.

gRPC's synchronous server gives every call a thread for as long as it lasts. A client that opens a call and sends nothing, or a
stream on which nothing moves, would keep that thread for ever. So whoever waits for a client is watched and ended after a
while, and calls that may last hold only some of the threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock


class Watch:
    """Calls that wait for their client, and since when; thread-safe. At most as many as there are threads."""

    def __init__(self, still_s_max: float, clock: Clock) -> None:
        self._still_s_max = still_s_max
        self._clock = clock
        self._lock = threading.Lock()
        self._moved_s: dict[grpc.ServicerContext, float] = {}

    def moved(self, context: grpc.ServicerContext) -> None:
        """Watch the call from now on; something moved, if it was watched already."""
        with self._lock:
            self._moved_s[context] = self._clock.monotonic_s()

    def forget(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._moved_s.pop(context, None)

    def sweep(self) -> int:
        """End the calls that stood still for too long; how many. To be called now and then."""
        before_s = self._clock.monotonic_s() - self._still_s_max
        with self._lock:
            still = [context for context, moved_s in self._moved_s.items() if moved_s < before_s]
        for context in still:
            context.cancel()  # type: ignore[no-untyped-call]
        return len(still)


class LongCalls:
    """Streams and waits may hold only so many threads at once; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held = 0  # 0 <= _held <= _most

    @contextmanager
    def holding(self) -> Iterator[None]:
        """While inside, one of the threads for long calls is held. Raises RATE_LIMITED when all are."""
        with self._lock:
            if self._held >= self._most:
                raise JadeError(
                    ErrorCode.RATE_LIMITED,
                    f"{self._most} streams and waits are under way, as many as are served at once: retry in a moment.",
                    details={"retry_after_s": 1},
                )
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1

    @property
    def held(self) -> int:
        with self._lock:
            return self._held


class Counts:
    """Calls since the start; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.in_flight = 0  # >= 0
        self.calls = 0
        self.failed = 0  # <= calls

    def begin(self) -> None:
        with self._lock:
            self.in_flight += 1
            self.calls += 1

    def end(self, failed: bool) -> None:
        with self._lock:
            self.in_flight -= 1
            self.failed += failed


class Node:
    """Handed to every call. stopping: set when the server begins to stop; calls that come then are refused."""

    def __init__(self, services: Services, watch: Watch, long_calls: LongCalls) -> None:
        self.services = services
        self.watch = watch
        self.long_calls = long_calls
        self.counts = Counts()
        self.started_ms = services.clock.now_ms()
        self.stopping = False
