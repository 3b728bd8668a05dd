"""The threads that serve calls: as many as are needed up to a bound, the one that became idle last works next.

What gRPC needs of an executor is little: to run a call in a thread and to be told when it ended. `ThreadPoolExecutor` does much
more for each call, and hands calls to idle threads in turn; here the thread whose caches are warm goes on. A tenth of the CPU
of a small call is saved (bench/grpc_search.py).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

logger = logging.getLogger("jadevectordb.rpc")

_Work = tuple["Running", Callable[..., Any], tuple[Any, ...]]


class Running:
    """What is left of a future: whoever asks is told, once, when the work has ended."""

    __slots__ = ("_ended", "_lock", "_tell")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._ended = False
        self._tell: Callable[[Any], None] | None = None

    def add_done_callback(self, tell: Callable[[Any], None]) -> None:
        with self._lock:
            ended = self._ended
            self._tell = tell
        if ended:
            tell(self)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            tell = self._tell
        if tell is not None:
            tell(self)


class _Worker:
    """One thread. work: what it is to do next; None ends it."""

    __slots__ = ("thread", "wake", "work")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.work: _Work | None = None
        self.thread: threading.Thread | None = None


class CallThreads(ThreadPoolExecutor):
    """Thread-safe. How much may wait is bounded by whoever submits: the server's limit on concurrent calls.

    A ThreadPoolExecutor by type alone, because gRPC asks for one; nothing of it is used.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(1)
        self._most = most
        self._name = name
        self._changing = threading.Lock()
        self._idle: list[_Worker] = []
        self._workers: list[_Worker] = []
        self._waiting: deque[_Work] = deque()
        self._closing = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        assert not kwargs, "gRPC passes none"
        running = Running(threading.Lock())
        work: _Work = (running, fn, args)
        fresh: _Worker | None = None
        with self._changing:
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._idle:
                worker = self._idle.pop()
                worker.work = work
                worker.wake.release()
            elif len(self._workers) < self._most:
                fresh = _Worker()
                fresh.work = work
                fresh.thread = threading.Thread(
                    target=self._serve, args=(fresh,), name=f"{self._name}-{len(self._workers)}", daemon=True
                )
                self._workers.append(fresh)
            else:
                self._waiting.append(work)
        if fresh is not None:
            assert fresh.thread is not None
            fresh.thread.start()
        return running

    def _serve(self, worker: _Worker) -> None:
        work = worker.work
        while work is not None:
            running, call, arguments = work
            try:
                call(*arguments)
            except Exception:  # gRPC handles what its calls raise; a thread must not be lost either way
                logger.exception("a call failed outside its handler")
            running.end()
            work = self._next(worker)

    def _next(self, worker: _Worker) -> _Work | None:
        with self._changing:
            if self._waiting:
                return self._waiting.popleft()
            if self._closing:
                return None
            worker.work = None
            self._idle.append(worker)
        worker.wake.acquire()
        return worker.work

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more work is taken; what waits is still done. Returns when all threads ended, if asked to wait."""
        with self._changing:
            self._closing = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.wake.release()
        if wait:
            for worker in self._workers:
                assert worker.thread is not None
                worker.thread.join()
