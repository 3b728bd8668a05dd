"""The reading processes of a server, from the side of the one that writes: started, listened to, started again, ended.

A reader that ends although it was not asked to is started again, at once the first time, then later and later. All of this runs on
the server's event loop. A reader notices the end of this process, however it came, by its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from jadevectordb.adapters.shared_page import SharedPage
from jadevectordb.gateway.processes.hub import Hub
from jadevectordb.gateway.processes.messages import Welcome
from jadevectordb.gateway.processes.shown import Shown
from jadevectordb.gateway.rest.app import Application
from jadevectordb.gateway.service.logs import LogEntry
from jadevectordb.gateway.service.telemetry import Telemetry
from jadevectordb.model.limits import REPORT_EVERY_S

logger = logging.getLogger("jadevectordb.processes")
_READY_S_MAX = 30.0  # for readers to listen, before the server says that it is ready without them
_RESTART_S_MIN, _RESTART_S_MAX = 0.1, 30.0
_LONG_S = 60.0  # a reader that lived for so long is started again as if for the first time
_END_S = 2.0  # beyond the time to drain, until a reader that does not end is killed


class Readers:
    """count: of processes. `start` and `stop` belong to the event loop that the server runs on."""

    def __init__(self, count: int, page: SharedPage, shown: Shown) -> None:
        self._count = count
        self._page = page
        self._shown = shown
        self._children: set[subprocess.Popen[bytes]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()
        self._hub: Hub | None = None

    @property
    def listening(self) -> int:
        """How many take connections now."""
        return 0 if self._hub is None else self._hub.listening

    @property
    def passed(self) -> int:
        return 0 if self._hub is None else self._hub.passed

    def watched_by(self, telemetry: Telemetry) -> None:
        telemetry.watch_gauge(
            "reading_processes", "Processes beside the writing one that take requests.", lambda: self.listening
        )
        telemetry.watch_gauge(
            "passed_requests",
            "Requests that the writing process answered for another, since the start.",
            lambda: self.passed,
        )

    async def start(self, application: Application, port: int, add_entry: Callable[[LogEntry], None]) -> None:
        """Return when all of them listen, or when that takes too long: they are tried on."""
        settings = application.services.settings
        auth = msgspec.structs.replace(settings.auth, admin_password="")
        welcome = Welcome(msgspec.structs.replace(settings, auth=auth), application.services.version, port)
        self._hub = Hub(application, welcome, add_entry)
        self._shown.publish()
        ready = [asyncio.Event() for _ in range(self._count)]
        self._tasks = [asyncio.create_task(self._keep(self._hub, event)) for event in ready]
        self._tasks.append(asyncio.create_task(self._keep_shown()))
        try:
            async with asyncio.timeout(_READY_S_MAX):
                await asyncio.gather(*(event.wait() for event in ready))
        except TimeoutError:
            logger.error(
                "only %d of %d reading processes listen; the others are tried again", self.listening, self._count
            )

    async def _keep_shown(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._shown.publish_if_stale()

    async def _keep(self, hub: Hub, ready: asyncio.Event) -> None:
        """Have one reader running for as long as the server does."""
        loop, failures = asyncio.get_running_loop(), 0
        while not self._stopped.is_set():
            started_s = loop.time()
            try:
                code = await self._run_one(hub, ready)
            except OSError as error:  # no memory, no processes left
                code = -1
                logger.error("a reading process could not be started: %s", error)
            if self._stopped.is_set():
                return
            failures = 0 if loop.time() - started_s >= _LONG_S else failures + 1
            wait_s = min(_RESTART_S_MAX, _RESTART_S_MIN * 4 ** (failures - 1)) if failures else 0.0
            logger.error("a reading process ended (%s); another is started in %.1f s", _cause(code), wait_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopped.wait()

    async def _run_one(self, hub: Hub, ready: asyncio.Event) -> int:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with its:
                child = _start(its, self._page)
        except BaseException:
            mine.close()
            raise
        self._children.add(child)
        try:
            mine.setblocking(False)
            await hub.serve(mine, ready.set)
        except Exception:
            logger.exception("the connection to a reading process failed; it is ended")
        finally:
            if not self._stopped.is_set():
                child.kill()  # without its connection it is of no use, and it ends by itself if it can
            code = await asyncio.to_thread(child.wait)
            self._children.discard(child)
        return code

    async def stop(self, drain_s: float) -> None:
        """Have them finish what runs, and end. This process must go on answering what they pass on meanwhile."""
        self._stopped.set()
        for child in list(self._children):
            child.terminate()
        if self._tasks:
            self._tasks[-1].cancel()
            _, late = await asyncio.wait(self._tasks[:-1], timeout=drain_s + _END_S)
            for child in list(self._children):
                child.kill()
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def close(self) -> None:
        """End what is left, when the event loop ended otherwise than by `stop`. Idempotent."""
        self._stopped.set()
        for child in list(self._children):
            child.kill()
            child.wait()
        self._children.clear()


def _start(connection: socket.socket, page: SharedPage) -> subprocess.Popen[bytes]:
    package_root = str(Path(__file__).parents[1])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    fds = (connection.fileno(), *page.fds)
    return subprocess.Popen(
        # -P: a file in the current folder must not shadow a library module
        [sys.executable, "-P", "-m", "jadevectordb.reader", *map(str, fds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the writer's is for its ready line; what a crash says goes to standard error
        env=dict(os.environ, PYTHONPATH=search_path),
        pass_fds=fds,
        start_new_session=True,  # an interrupt at the terminal is this process's to handle
    )


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
