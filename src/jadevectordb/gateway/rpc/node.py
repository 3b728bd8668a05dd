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

from jadevectordb.gateway.service.meters import Meter
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock

OK = grpc.StatusCode.OK.name


class Watch:
    """Calls that wait for their client, and since when. At most as many as there are threads.

    Thread-safe without a lock, because every call passes here twice: single operations on a dict are atomic.
    """

    def __init__(self, still_s_max: float, clock: Clock) -> None:
        self._still_s_max = still_s_max
        self._clock = clock
        self._moved_s: dict[grpc.ServicerContext, float] = {}

    def moved(self, context: grpc.ServicerContext) -> None:
        """Watch the call from now on; something moved, if it was watched already."""
        self._moved_s[context] = self._clock.monotonic_s()

    def forget(self, context: grpc.ServicerContext) -> None:
        self._moved_s.pop(context, None)

    def sweep(self) -> None:
        """End the calls that stood still for too long. To be called now and then."""
        before_s = self._clock.monotonic_s() - self._still_s_max
        for context, moved_s in list(self._moved_s.items()):
            if moved_s < before_s:
                context.cancel()  # type: ignore[no-untyped-call]


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


class Node:
    """Handed to every call. stopping: set when the server begins to stop; calls that come then are refused."""

    def __init__(self, services: Services, watch: Watch, long_calls: LongCalls) -> None:
        self.services = services
        self.watch = watch
        self.long_calls = long_calls
        self.meters: list[Meter] = []  # of every RPC that is served
        self.started_ms = services.clock.now_ms()
        self.stopping = False

    @property
    def in_flight(self) -> int:
        """Calls being served."""
        return sum(meter.figures().in_flight for meter in self.meters)

    def calls(self) -> tuple[int, int]:
        """Calls that ended since the start, and those of them that failed."""
        figures = [meter.figures() for meter in self.meters]
        every = sum(one.requests for one in figures)
        return every, every - sum(one.statuses.get(OK, 0) for one in figures)
