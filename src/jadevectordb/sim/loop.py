"""Virtual time, and fibers on it: whole clusters run in one thread, each run of a seed exactly like the one before.

A fiber is what a thread is to the code that runs in it: it blocks, sleeps and is woken. But only one runs at a time, it is left
only where it blocks, and time moves only when nothing can run: then it jumps to the next event. What happens at the same moment
happens in the order in which it was asked for. Chance comes from one generator that the seed makes.

Fibers and events belong to a `Process`, which can be stopped (its fibers end where they are, at once, and nothing of it happens any
more) or paused (everything of it waits, and it cannot tell).

Fibers are greenlets; the one that steps the loop is the hub. An action of an event runs in the hub and must not block.
"""

from __future__ import annotations

import heapq
import itertools
import random
import traceback
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import greenlet  # type: ignore[import-untyped]

_STEPS_MAX = 20_000_000


class KilledError(BaseException):
    """The process of this fiber is no more. Never caught but by what started the fiber."""


class DefectError(AssertionError):
    """Code under simulation raised what it must not, or an invariant does not hold."""


class Process:
    """One process of the simulated world. rate: how fast its monotonic clock runs; wall_ms: how wrong its wall clock is."""

    def __init__(self, name: str, *, rate: float = 1.0, offset_s: float = 0.0, wall_ms: int = 0) -> None:
        self.name = name
        self.rate = rate
        self.offset_s = offset_s
        self.wall_ms = wall_ms
        self.alive = True
        self.paused_until_s = 0.0
        self.fibers: dict[Fiber, None] = {}  # in the order of their start


class Fiber:
    """A thread of control. `park` is what every kind of blocking comes down to."""

    def __init__(self, loop: Loop, process: Process, target: Callable[[], object], name: str, number: int) -> None:
        self.loop = loop
        self.process = process
        self.name = name
        self.number = number
        self.over = False
        self.thread: Any = None  # what stands for it in programs with threads
        self._target = target
        self._place = 0  # counts parks: a waking that comes for an earlier one is void
        self._joiners: list[Fiber] = []
        self._greenlet = greenlet.greenlet(self._run, loop.hub)

    def _run(self, _woken: bool) -> None:
        try:
            self._target()
        except KilledError:
            pass
        except BaseException as error:
            self.loop.found_defect(error, f"{self.process.name}/{self.name}")
        self.over = True
        self.process.fibers.pop(self, None)
        for joiner in self._joiners:
            joiner.wake()

    def resume(self, place: int, woken: bool) -> None:
        """From the hub only."""
        if not self.over and place == self._place:
            self._place += 1
            self.loop.current = self
            try:
                self._greenlet.switch(woken)
            finally:
                self.loop.current = None

    def kill(self) -> None:
        """From the hub only."""
        if self.over:
            return
        self._place += 1
        self.loop.current = self
        try:
            self._greenlet.throw(KilledError)
        finally:
            self.loop.current = None
        if not self.over:  # it had not begun, or something swallowed it
            self.over = True
            self.process.fibers.pop(self, None)

    def park(self, timeout_s: float | None) -> bool:
        """Block until woken; False when the time is over first. timeout_s: by the process's own clock.

        A waking may be meant for an earlier wait: whoever parks looks again at what it waits for.
        """
        assert self.loop.current is self, "a fiber parks itself"
        if not self.process.alive:
            raise KilledError
        place = self._place
        if timeout_s is not None:
            delay_s = max(0.0, timeout_s) / self.process.rate
            self.loop.after(delay_s, lambda: self.resume(place, False), self.process)
        woken: bool = self.loop.hub.switch()
        if not self.process.alive:
            raise KilledError
        return woken

    def wake(self) -> None:
        """Let it go on soon, if it is parked; from anywhere."""
        place = self._place
        self.loop.after(0.0, lambda: self.resume(place, True), self.process)

    def join(self, timeout_s: float | None) -> bool:
        current = self.loop.current
        assert current is not None and current is not self
        until_s = None if timeout_s is None else self.loop.now_s + timeout_s / current.process.rate
        while not self.over and (until_s is None or self.loop.now_s < until_s):
            self._joiners.append(current)
            current.park(None if until_s is None else (until_s - self.loop.now_s) * current.process.rate + 1e-9)
        return self.over


class Loop:
    """hub: the greenlet that steps; whoever makes the loop."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.hub = greenlet.getcurrent()
        self.current: Fiber | None = None
        self.steps = 0
        self.after_step: Callable[[], None] | None = None
        self.defect: DefectError | None = None
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self._events: list[tuple[float, int, Process | None, Callable[[], None]]] = []
        self._trace = blake2b(digest_size=8)

    # Events

    def after(self, delay_s: float, action: Callable[[], None], process: Process | None = None) -> None:
        """process: whose event it is; None: the world's own."""
        heapq.heappush(self._events, (self.now_s + max(0.0, delay_s), next(self._order), process, action))

    def spawn(self, process: Process, target: Callable[[], object], name: str) -> Fiber:
        """A fiber that begins soon. Of a process that is no more it never does."""
        fiber = Fiber(self, process, target, name, next(self._numbers))
        if process.alive:
            process.fibers[fiber] = None
            fiber.wake()
        return fiber

    def kill(self, process: Process) -> None:
        """As kill -9. From the hub only."""
        assert self.current is None
        process.alive = False
        for fiber in list(process.fibers):
            fiber.kill()

    def sleep(self, seconds: float) -> None:
        """In a fiber; by its process's clock."""
        fiber = self.current
        assert fiber is not None
        until_s = self.now_s + seconds / fiber.process.rate
        while self.now_s < until_s:
            fiber.park((until_s - self.now_s) * fiber.process.rate + 1e-9)

    # Running

    @property
    def next_s(self) -> float | None:
        """When something happens next."""
        return self._events[0][0] if self._events else None

    def step(self) -> bool:
        """One event; False when there is none. Raises DefectError."""
        if not self._events:
            return False
        when_s, order, process, action = heapq.heappop(self._events)
        self.now_s = max(self.now_s, when_s)
        if process is not None:
            if not process.alive:
                return True
            if process.paused_until_s > self.now_s:
                heapq.heappush(self._events, (process.paused_until_s, order, process, action))
                return True
        self.steps += 1
        assert self.steps < _STEPS_MAX, "time does not move"
        action()
        if self.defect is not None:
            raise self.defect
        if self.after_step is not None:
            self.after_step()
        return True

    def run_until(self, end_s: float) -> None:
        while self._events and self._events[0][0] <= end_s:
            self.step()
        self.now_s = max(self.now_s, end_s)

    # What happened

    def found_defect(self, error: BaseException, where: str) -> None:
        text = "".join(traceback.format_exception(error))
        self.defect = self.defect or DefectError(f"at {self.now_s:.6f} s in {where}: {error!r}\n{text}")

    def note(self, text: str) -> None:
        """Something happened that another run of the seed must show as well, at the same moment."""
        self._trace.update(f"{self.now_s!r} {text}\n".encode())

    def fingerprint(self) -> str:
        """Of everything noted so far: equal runs have equal ones."""
        return f"{self._trace.hexdigest()}-{self.steps}"
