"""The event loops that connections between nodes live in.

What other nodes ask this one is answered in a loop with a thread of its own: a slow request of a client must not make this node look
dead to others. What a client's search asks other nodes may live in the web server's loop, where the request is: then no
change of threads is paid for, and what a slow request there holds up is this gateway's own business.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from jadevectordb.model.errors import ErrorCode, JadeError

T = TypeVar("T")


class NodeLoop:
    """The loop that connections live in, whoever runs it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()  # guards _closed: nothing is handed to a loop that has stopped
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()  # the loop's own

    @property
    def is_here(self) -> bool:
        """Whether the caller is in the loop's thread."""
        raise NotImplementedError

    def run(self, action: Callable[..., None], *arguments: Any) -> None:
        """Have it called in the loop soon; from any thread. Raises CLOSED."""
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "the connections between nodes are closed: this node is stopping")
            self.loop.call_soon_threadsafe(action, *arguments)

    def ask(self, action: Callable[[], T]) -> T:
        """Call it in the loop and wait for its result; raises what it raises, and CLOSED."""
        assert not self.is_here, "the loop must not wait for itself"
        done: Future[T] = Future()

        def act() -> None:
            try:
                done.set_result(action())
            except BaseException as error:
                done.set_exception(error)

        self.run(act)
        return done.result()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it in the loop until it ends or the loop does. In the loop only."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            report_defect(error)

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were told to close do so in the loop's next round
        await asyncio.sleep(0)


class LoopThread(NodeLoop):
    """A loop in a thread of its own, from construction to `close`."""

    def __init__(self, name: str) -> None:
        super().__init__(_new_loop())
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """What was handed over before still happens; tasks are cancelled. Not from the loop. Again is fine."""
        assert not self.is_here, "the loop must not wait for itself"
        with self._lock:
            if not self._closed:
                self._closed = True
                self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self._end())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())  # of name look-ups
            asyncio.set_event_loop(None)
            self.loop.close()


class SharedLoop(NodeLoop):
    """The loop that the caller is in, which has other work too and lives longer; made and left in it."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self._thread = threading.current_thread()

    @property
    def is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def ask(self, action: Callable[[], T]) -> T:
        return action() if self.is_here else super().ask(action)

    async def leave(self) -> None:
        """What was handed over before still happens; tasks are cancelled."""
        with self._lock:
            self._closed = True
        await asyncio.sleep(0)
        await self._end()


def report_defect(error: BaseException) -> None:
    """A callback raised: that is its owner's defect, and must not end the connection it was called from."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
