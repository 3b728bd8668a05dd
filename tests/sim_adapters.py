"""The simulated log, store and transport as the contract tests of the real ones call them: from threads, in real time.

One thread steps a simulation whose clock follows the wall clock; calls of other threads are done there, each in a fiber of its own, so
many are under way at once. Nothing of the adapters is changed or answered in their place.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jadevectordb.model.ids import ShardId
from jadevectordb.ports.log import Frame, Log
from jadevectordb.ports.metadata_store import MetadataStore, OnChange, Record, Watch
from jadevectordb.ports.transport import Answerer, Transport
from jadevectordb.sim.log import SimLog
from jadevectordb.sim.loop import Loop, Process
from jadevectordb.sim.network import Network
from jadevectordb.sim.requests import Client
from jadevectordb.sim.servers import Servers
from jadevectordb.sim.store import SimStore
from jadevectordb.sim.threads import linked
from jadevectordb.sim.transport import NodeLoop, SimServer, SimTransport

MACHINES = ["n1", "n2", "n3"]


class Driver:
    """Steps the world in a thread of its own. `do` is for every other thread, and passes calls of fibers through."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._posts: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._ready: Future[None] = Future()
        self._ids = itertools.count(1)
        self.defects: list[BaseException] = []
        self._inside = threading.local()  # in a thread of `call_out`: the fiber that waits for it
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.result()

    def _run(self) -> None:
        self.loop = Loop(1)
        self.network = Network(self.loop)
        self.servers = Servers(self.loop, self.network, MACHINES)
        self.process = Process("caller")
        self.client = Client(self.loop, self.servers, "n1", self.process)
        started = time.monotonic()
        with linked(self.loop):
            self._ready.set_result(None)
            while True:
                with self._changed:
                    next_s = self.loop.next_s
                    now_s = time.monotonic() - started
                    self._changed.wait_for(
                        lambda: self._posts or self._stopping,
                        None if next_s is None else max(0.0, next_s - now_s),
                    )
                    if self._stopping:
                        break
                    posts = list(self._posts)
                    self._posts.clear()
                self.loop.run_until(time.monotonic() - started)
                for post in posts:
                    post()
                self.loop.run_until(time.monotonic() - started)
            self.loop.kill(self.process)

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"

    def is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def post(self, action: Callable[[], None]) -> None:
        with self._changed:
            self._posts.append(action)
            self._changed.notify()

    def do(self, action: Callable[[], Any]) -> Any:
        """What it returns or raises, done in a fiber."""
        if self.is_here():
            return action()
        done: Future[Any] = Future()
        inside = getattr(self._inside, "call", None)

        def act() -> None:
            try:
                done.set_result(action())
            except Exception as error:
                done.set_exception(error)

        if inside is not None:
            fiber, asked = inside
            asked.append(act)
            self.post(fiber.wake)
        else:
            self.post(lambda: self.loop.spawn(self.process, act, "caller") and None)
        return done.result(60)

    def call_out(self, handler: Callable[..., None], *args: Any) -> None:
        """Call it in a thread of its own, where it may block, while this fiber waits and does what it asks for."""
        fiber = self.loop.current
        assert fiber is not None
        asked: deque[Callable[[], None]] = deque()
        over: list[bool] = []

        def body() -> None:
            self._inside.call = (fiber, asked)
            try:
                handler(*args)
            finally:
                over.append(True)
                self.post(fiber.wake)

        threading.Thread(target=body).start()
        while not over:
            fiber.park(None)
            while asked:
                asked.popleft()()

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()


@contextmanager
def driver() -> Iterator[Driver]:
    made = Driver()
    try:
        yield made
    finally:
        made.close()


class _Passed:
    """Calls of an object's methods, done in the driver's fibers."""

    def __init__(self, driver: Driver, inner: Any) -> None:
        self._driver = driver
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)
        return lambda *args, **kwargs: self._driver.do(lambda: method(*args, **kwargs))


class _PassedLog(_Passed):
    def read(self, from_frame_of: dict[Any, Any]) -> Iterator[Frame]:
        return iter(self._driver.do(lambda: list(self._inner.read(from_frame_of))))


def open_log(driver: Driver, path: Path, shards: range) -> Log:
    def make() -> SimLog:
        log = SimLog(driver.client, path.as_posix().replace("/", "-"), driver.new_id)
        log.ensure_streams([ShardId(shard) for shard in shards])
        return log

    return _PassedLog(driver, driver.do(make))  # type: ignore[return-value]


class _PassedStore(_Passed):
    def watch(self, prefix: str, handler: OnChange) -> Watch:
        def told(key: str, record: Record | None) -> None:
            self._driver.call_out(handler, key, record)

        return _Passed(self._driver, self._driver.do(lambda: self._inner.watch(prefix, told)))  # type: ignore[return-value]


def open_store(driver: Driver, folder: Path) -> MetadataStore:
    made = driver.do(lambda: SimStore(driver.client, folder.as_posix(), driver.new_id))
    return _PassedStore(driver, made)  # type: ignore[return-value]


class _PassedTransport(_Passed):
    def run(self, action: Callable[[], None]) -> None:
        if self._inner._closed:
            self._inner.run(action)  # raises
        self._driver.post(lambda: self._inner.node_loop.post(action))

    def now_s(self) -> float:
        return self._inner.now_s()  # type: ignore[no-any-return]


class _PassedAnswerer:
    """Replies may come from any thread."""

    def __init__(self, driver: Driver, inner: Answerer) -> None:
        self._driver = driver
        self._inner = inner

    def answer(self, call: Any, reply: Callable[[Any, Exception | None], None]) -> Callable[[], None] | None:
        def passed(answer: Any, error: Exception | None) -> None:
            if self._driver.is_here():
                reply(answer, error)
            else:
                self._driver.post(lambda: reply(answer, error))

        return self._inner.answer(call, passed)


class SimTransportWorld:
    """As `World` of the transport's contract."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._listeners: dict[str, SimServer] = {}
        self._servers: dict[str, SimServer] = {}
        self._count = itertools.count(1)
        inner = driver.do(
            lambda: SimTransport(driver.loop, driver.network, self._listeners, "asker", driver.process, self._on_defect)
        )
        self.transport: Transport = _PassedTransport(driver, inner)  # type: ignore[assignment]

    def _on_defect(self, error: BaseException, where: str) -> None:
        self._driver.defects.append(error)

    def serve(self, answerer: Answerer, address: str = "") -> str:
        address = address or f"host-{next(self._count)}:1"
        driver = self._driver

        def make() -> SimServer:
            process = Process(address)
            return SimServer(
                self._listeners, address, process, NodeLoop(driver.loop, process, self._on_defect),
                _PassedAnswerer(driver, answerer), self._on_defect,
            )  # fmt: skip

        self._servers[address] = driver.do(make)
        return address

    def stop(self, address: str) -> None:
        self._driver.do(self._servers[address].close)

    def nobody(self) -> str:
        return f"host-{next(self._count)}:1"
