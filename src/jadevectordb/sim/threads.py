"""What the operating system gives to programs with threads, over fibers: the names of `threading`, `queue` and pools on virtual time.

The cluster's shells (agent, hosting, elector, master loop, mirrors, writer, reader, outbox, answering) are written with threads. They are
not modelled here: `linked` puts these modules in the place of the standard ones in them, as a loader would, and they run as they are.
A deadlock, a wake-up that was lost and a lock held over a call thereby show in a simulation as they would in a process.

One simulation at a time can be linked in a process.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from jadevectordb.adapters import store_watches
from jadevectordb.sim.loop import Fiber, KilledError, Loop

# Everything with threads of a node that a simulation runs; `world` imports what it needs of them before it links
_PACKAGES = ("jadevectordb.control.", "jadevectordb.gateway.cluster.", "jadevectordb.node.", "jadevectordb.query.")


def _modules() -> list[ModuleType]:
    names = [name for name in sorted(sys.modules) if name.startswith(_PACKAGES)]
    return [store_watches, *(sys.modules[name] for name in names)]


class _Lock:
    _reentrant = False

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._owner: Fiber | object | None = None
        self._depth = 0
        self._waiting: deque[Fiber] = deque()

    def _me(self) -> Fiber | object:
        return self._loop.current or self._loop

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._me()
        if self._owner is None or (self._reentrant and self._owner is me):
            self._owner = me
            self._depth += 1
            return True
        if not blocking:
            return False
        fiber = self._loop.current
        assert fiber is not None, "an action of an event would block"
        assert self._owner is not fiber, "deadlock: a fiber waits for a lock that it holds"
        until_s = None if timeout < 0 else self._loop.now_s + timeout
        while self._owner is not None:
            self._waiting.append(fiber)
            try:
                left_s = None if until_s is None else until_s - self._loop.now_s
                if (left_s is not None and left_s <= 0) or not fiber.park(left_s):
                    return False
            finally:
                if fiber in self._waiting:
                    self._waiting.remove(fiber)
        self._owner, self._depth = me, 1
        return True

    def release(self) -> None:
        assert self._owner is not None, "a lock that nobody holds is released"
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            if self._waiting:
                self._waiting[0].wake()

    def locked(self) -> bool:
        return self._owner is not None

    def give_up(self) -> int:
        depth, self._depth, self._owner = self._depth, 0, None
        if self._waiting:
            self._waiting[0].wake()
        return depth

    def take_back(self, depth: int) -> None:
        self.acquire()
        self._depth = depth

    __enter__ = acquire

    def __exit__(self, *_error: object) -> None:
        if self._owner is self._me():  # a fiber that was killed while it waited holds nothing
            self.release()


class _RLock(_Lock):
    _reentrant = True


class _Condition:
    def __init__(self, loop: Loop, lock: _Lock | None = None) -> None:
        self._loop = loop
        self._lock = lock or _RLock(loop)
        self._waiting: deque[Fiber] = deque()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)

    def wait(self, timeout: float | None = None) -> bool:
        fiber = self._loop.current
        assert fiber is not None, "an action of an event would block"
        assert self._lock.locked(), "wait without the lock"
        self._waiting.append(fiber)
        depth = self._lock.give_up()
        try:
            return fiber.park(timeout)
        finally:
            if fiber in self._waiting:
                self._waiting.remove(fiber)
            if fiber.process.alive:
                self._lock.take_back(depth)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        fiber = self._loop.current
        rate = 1.0 if fiber is None else fiber.process.rate
        until_s = None if timeout is None else self._loop.now_s + timeout / rate
        result = predicate()
        while not result:
            left_s = None if until_s is None else (until_s - self._loop.now_s) * rate
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        assert self._lock.locked(), "notify without the lock"
        for _ in range(min(n, len(self._waiting))):
            self._waiting.popleft().wake()

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class _Event:
    def __init__(self, loop: Loop) -> None:
        self._changed = _Condition(loop)
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(self.is_set, timeout))


class _Semaphore:
    def __init__(self, loop: Loop, value: int = 1) -> None:
        self._changed = _Condition(loop)
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: self._value > 0, timeout if blocking else 0.0):
                return False
            self._value -= 1
            return True

    def release(self) -> None:
        with self._changed:
            self._value += 1
            self._changed.notify()


class _Thread:
    def __init__(
        self,
        loop: Loop,
        *,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        name: str = "",
        daemon: bool | None = None,
    ) -> None:
        del daemon
        self._loop = loop
        self._target, self._args = target, args
        self.name = name
        self._fiber: Fiber | None = None

    @property
    def ident(self) -> int | None:
        return None if self._fiber is None else self._fiber.number

    def start(self) -> None:
        parent = self._loop.current
        assert parent is not None, "threads are started by threads"
        self._fiber = self._loop.spawn(parent.process, lambda: self._target(*self._args), self.name)
        self._fiber.thread = self

    def is_alive(self) -> bool:
        return self._fiber is not None and not self._fiber.over

    def join(self, timeout: float | None = None) -> None:
        assert self._fiber is not None
        self._fiber.join(timeout)


class SimThreading:
    """Stands for the module `threading`."""

    ExceptHookArgs = threading.ExceptHookArgs

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._main = _Thread(loop, target=lambda: None, name="hub")

    def Lock(self) -> _Lock:  # noqa: N802  # the names of the module it stands for
        return _Lock(self._loop)

    def RLock(self) -> _Lock:  # noqa: N802
        return _RLock(self._loop)

    def Condition(self, lock: _Lock | None = None) -> _Condition:  # noqa: N802
        return _Condition(self._loop, lock)

    def Event(self) -> _Event:  # noqa: N802
        return _Event(self._loop)

    def Semaphore(self, value: int = 1) -> _Semaphore:  # noqa: N802
        return _Semaphore(self._loop, value)

    def Thread(self, **arguments: Any) -> _Thread:  # noqa: N802
        return _Thread(self._loop, **arguments)

    def get_ident(self) -> int:
        return 0 if self._loop.current is None else self._loop.current.number

    def current_thread(self) -> _Thread:
        fiber = self._loop.current
        if fiber is None:
            return self._main
        if fiber.thread is None:  # it was not started as a thread
            fiber.thread = _Thread(self._loop, target=lambda: None, name=fiber.name)
        thread: _Thread = fiber.thread
        return thread

    def excepthook(self, args: Any) -> None:
        """What a shell calls a defect of its own is one of the simulation's findings."""
        self._loop.found_defect(args.exc_value, "a thread")


class _SimpleQueue:
    def __init__(self, loop: Loop) -> None:
        self._changed = _Condition(loop)
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, timeout if block else 0.0):
                raise queue.Empty
            return self._items.popleft()


class SimQueue:
    """Stands for the module `queue`."""

    Empty = queue.Empty

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def SimpleQueue(self) -> _SimpleQueue:  # noqa: N802
        return _SimpleQueue(self._loop)


class _Pool:
    """A pool of one kind of work; as many fibers at once as it has threads."""

    def __init__(self, loop: Loop, threads: int, name: str) -> None:
        self._loop = loop
        self._queue = _SimpleQueue(loop)
        self._name = name
        self._closed = False
        parent = loop.current
        assert parent is not None
        self._fibers = [loop.spawn(parent.process, self._run, f"{name}-{n}") for n in range(threads)]

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def submit(self, work: Callable[[], object]) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self._queue.put(work)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        del cancel_futures
        if not self._closed:
            self._closed = True
            for _ in self._fibers:
                self._queue.put(None)
        if wait:
            for fiber in self._fibers:
                fiber.join(None)


@contextmanager
def linked(loop: Loop) -> Iterator[None]:
    """While this lasts, these modules run on the loop's fibers."""
    replaced: list[tuple[ModuleType, str, Any]] = []

    standard = {
        threading: SimThreading(loop),
        queue: SimQueue(loop),
        ThreadPoolExecutor: lambda threads, name: _Pool(loop, threads, name),
    }
    assert vars(store_watches)["threading"] is threading, "another simulation is linked in this process"
    try:
        for module in _modules():
            for name in ("threading", "queue", "ThreadPoolExecutor"):
                value = getattr(module, name, None)
                if value is not None and value in standard:
                    replaced.append((module, name, value))
                    setattr(module, name, standard[value])
        yield
    finally:
        for module, name, value in reversed(replaced):
            setattr(module, name, value)


__all__ = ["KilledError", "SimQueue", "SimThreading", "linked"]
