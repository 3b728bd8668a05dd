"""One connection of this process to the NATS servers, kept for ever: an event loop in a thread of its own, and a way in for threads.

The library's client object is used for one connection and thrown away when that ends; reconnecting is done here. Its own
reconnecting keeps messages that were published meanwhile and sends them later, ends for good on some errors, and leaves
whoever waits for an answer waiting until the deadline. Here, when a connection ends, every waiting request fails at once with
`DisconnectedError`, nothing is sent later behind anyone's back, and what needs a subscription makes a new one on the new connection.

The list of servers begins with the own node's; each attempt goes through the list from its start.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import secrets
import threading
from collections.abc import Callable, Coroutine, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from jadevectordb.adapters.nats_config import CLIENT_USER, Credentials, TlsFiles
from jadevectordb.adapters.nats_tls import client_context
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NATS_RECONNECT_S_MAX, NATS_RECONNECT_S_MIN
from jadevectordb.ports.clock import Clock

_CONNECT_S_MAX = 2.0
_PING_S = 2  # a server that answers none of two pings is gone
_PINGS_UNANSWERED_MAX = 2
_CALL_GRACE_S = 5.0  # beyond a call's own deadline: the loop itself hangs
_NO_RESPONDERS = "503"
_WRONG_PASSWORD = "Authorization Violation"
_RESET = "reset by peer"

T = TypeVar("T")


class DisconnectedError(Exception):
    """The connection ended while an answer was awaited, or there was none: what was sent may have arrived."""


class NoRespondersError(Exception):
    """Nobody serves this subject at the moment: what was sent was received by nobody."""


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """server: the address connected to, "" = none. since_s: the clock's, of the last change. refusal: why the last attempt failed."""

    connected: bool
    server: str
    since_s: float
    connections: int  # made so far
    refusal: str


class Connected:
    """One connection, from its beginning to its end. Used in the loop's thread only."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.number = number
        self.ended: asyncio.Event = asyncio.Event()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._next = 0
        self._at_end: set[Callable[[], None]] = set()

    async def begin(self) -> None:
        await self.client.subscribe(f"{self._inbox}.*", cb=self._answered)

    async def _answered(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if waiting is None or waiting.done():
            return
        if not message.data and message.headers and message.headers.get("Status") == _NO_RESPONDERS:
            waiting.set_exception(NoRespondersError())
        else:
            waiting.set_result(message)

    async def post(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> asyncio.Future[Msg]:
        """Send, and a future of the answer: cancel it when it is not awaited to its end. Raises DisconnectedError."""
        if self.ended.is_set():
            raise DisconnectedError("the connection ended")
        self._next += 1
        token = str(self._next)
        waiting: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = waiting
        waiting.add_done_callback(lambda _done: self._waiting.pop(token, None))
        try:
            await self.send(subject, payload, headers, reply=f"{self._inbox}.{token}")
        except BaseException:
            waiting.cancel()
            raise
        return waiting

    async def send(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, reply: str = ""
    ) -> None:
        """Send without waiting for an answer. Raises DisconnectedError."""
        try:
            await self.client.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats.errors.Error, OSError) as error:
            raise DisconnectedError(repr(error)) from error

    async def ask(self, subject: str, payload: bytes, headers: Mapping[str, str] | None, wait_s: float) -> Msg:
        """Raises DisconnectedError, NoRespondersError, TimeoutError."""
        return await asyncio.wait_for(await self.post(subject, payload, headers), wait_s)

    async def subscribe(self, subject: str, handler: Callable[[Msg], Coroutine[Any, Any, None]]) -> Subscription:
        """Raises DisconnectedError."""
        try:
            return await self.client.subscribe(subject, cb=handler)
        except (nats.errors.Error, OSError) as error:
            raise DisconnectedError(repr(error)) from error

    def at_end(self, action: Callable[[], None]) -> Callable[[], None]:
        """Have it called when the connection ends; what this returns takes that back."""
        self._at_end.add(action)
        return lambda: self._at_end.discard(action)

    def end(self) -> None:
        self.ended.set()
        for action in list(self._at_end):
            action()
        for waiting in list(self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(DisconnectedError("the connection ended"))
                waiting.exception()  # nobody may be waiting any more: that is no defect


class NatsConnection:
    """The connection. Coroutines run in its loop (`call`); everything else may be called from any thread."""

    def __init__(
        self,
        servers: Seq[str],
        clock: Clock,
        *,
        credentials: Credentials | None = None,
        tls: TlsFiles | None = None,
        name: str = "jade",
    ) -> None:
        """servers: URLs, the own node's first. credentials: None = the URLs hold what is needed, or nothing is.

        Connecting goes on in the background. Raises INVALID_ARGUMENT for TLS files that cannot be used.
        """
        assert servers, "without a server there is nothing to connect to"
        self.clock = clock
        self._servers = tuple(servers)
        self._credentials = credentials
        self._tls = client_context(tls) if tls else None
        self._name = name
        self._lock = threading.Lock()  # guards _state and _closed
        self._state = ConnectionState(False, "", clock.monotonic_s(), 0, "")
        self._closed = False
        self._running: set[concurrent.futures.Future[Any]] = set()  # calls that threads wait for; guarded by the lock
        self._wait_s_max = float("inf")
        self._current: Connected | None = None  # the loop's own, as is the next
        self._changed: asyncio.Event
        self.loop = _new_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=f"jade-nats-{name}", daemon=True)
        self._thread.start()
        ready.wait()

    @property
    def state(self) -> ConnectionState:
        with self._lock:
            return self._state

    def set_servers(self, servers: Seq[str]) -> None:
        """The list for the next attempt; a connection that works is kept."""
        assert servers
        self._servers = tuple(servers)

    def call(self, work: Coroutine[Any, Any, T], deadline_s: float) -> T:
        """Run it in the loop and wait. It must end by itself within the deadline. Raises what it raises, and CLOSED."""
        assert threading.current_thread() is not self._thread, "the loop must not wait for itself"
        with self._lock:
            if self._closed:
                work.close()
                raise _closed()
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
            self._running.add(future)
            wait_s = min(deadline_s + _CALL_GRACE_S, self._wait_s_max)
        try:
            return future.result(wait_s)
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            raise _closed() from None
        except TimeoutError:
            future.cancel()
            raise JadeError(
                ErrorCode.UNAVAILABLE, f"the connection to the log's servers did not answer within {wait_s:g} s"
            ) from None
        finally:
            with self._lock:
                self._running.discard(future)

    def hasten(self, seconds: float) -> None:
        """This node is stopping: calls wait no longer than this, those under way included. What a call began may still happen."""
        with self._lock:
            self._wait_s_max = seconds
            waiting = list(self._running)
            if self._closed:
                return

        def cancel() -> None:
            for future in waiting:
                future.cancel()

        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, cancel)

    def begin(self, work: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        """Run it in the loop until it ends or the connection is closed. Raises CLOSED."""
        with self._lock:
            if self._closed:
                work.close()
                raise _closed()
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def connected(self) -> Connected:
        """The connection of this moment, awaited if there is none. In the loop only."""
        while self._current is None:
            self._changed.clear()
            await self._changed.wait()
        return self._current

    @property
    def is_closed(self) -> bool:
        with self._lock:
            return self._closed

    def close(self) -> None:
        """End the connection and the loop; whatever waits raises CLOSED. Again is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        assert threading.current_thread() is not self._thread
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    # --- the loop's thread --------------------------------------------------------------------------------------------

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self._changed = asyncio.Event()
        keeping = self.loop.create_task(self._keep_connected())
        self.loop.call_soon(ready.set)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self._end(keeping))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _end(self, keeping: asyncio.Task[None]) -> None:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _keep_connected(self) -> None:
        pause_s = NATS_RECONNECT_S_MIN
        number = 0
        while True:
            connected = None
            for server in self._servers:
                connected = await self._try(server, number + 1)
                if connected is not None:
                    break
            if connected is None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, NATS_RECONNECT_S_MAX)
                continue
            number, began_s = number + 1, self.loop.time()
            self._show(True, server, number, "")
            self._current = connected
            self._changed.set()
            try:
                await connected.ended.wait()
            finally:
                self._current = None
                connected.end()
                self._show(False, "", number, f"the connection to {server} ended")
                await _close_quietly(connected.client)
            if self.loop.time() - began_s > NATS_RECONNECT_S_MAX:
                pause_s = NATS_RECONNECT_S_MIN
            else:  # it was accepted and thrown out at once: not in a busy circle
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, NATS_RECONNECT_S_MAX)

    async def _try(self, server: str, number: int) -> Connected | None:
        client = Client()
        connected = Connected(client, number)
        refusals: list[str] = []

        async def ended() -> None:
            connected.end()

        async def failed(error: Exception) -> None:
            refusals.append(str(error) or repr(error))

        password = self._credentials.client_password if self._credentials else None
        try:
            connecting = self.loop.create_task(
                client.connect(
                    [server],
                    name=self._name,
                    user=CLIENT_USER if password else None,
                    password=password,
                    tls=self._tls,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=2,
                    ping_interval=_PING_S,
                    max_outstanding_pings=_PINGS_UNANSWERED_MAX,
                    error_cb=failed,
                    closed_cb=ended,
                    disconnected_cb=ended,
                )
            )
            connecting.add_done_callback(_look_at)
            await asyncio.wait_for(connecting, _CONNECT_S_MAX)
            await connected.begin()
        except (TimeoutError, OSError, nats.errors.Error, ValueError) as error:
            await _close_quietly(client)
            self._show(False, "", number - 1, self._refusal(server, [*refusals, str(error) or repr(error)]))
            return None
        except BaseException:
            await _close_quietly(client)
            raise
        return connected

    def _refusal(self, server: str, heard: list[str]) -> str:
        """What tells most. A server that does not take the password says so and hangs up, and often only the latter is heard."""
        for text in heard:
            if _WRONG_PASSWORD in text:
                return f"{server}: {text}"
        before = self.state.refusal
        if _RESET in heard[0] and before.startswith(server) and _WRONG_PASSWORD in before:
            return before
        return f"{server}: {heard[0]}"

    def _show(self, connected: bool, server: str, number: int, refusal: str) -> None:
        with self._lock:
            since_s = self._state.since_s if self._state.connected == connected else self.clock.monotonic_s()
            self._state = ConnectionState(connected, server, since_s, number, refusal)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _close_quietly(client: Client) -> None:
    with contextlib.suppress(Exception):  # it is thrown away; what its socket says to that changes nothing
        await client.close()


def _look_at(connecting: asyncio.Task[None]) -> None:
    """An attempt that is given up may end with an error that nobody waits for any more; asyncio would report it as forgotten."""
    if not connecting.cancelled():
        connecting.exception()


def _closed() -> JadeError:
    return JadeError(ErrorCode.CLOSED, "the connection to the log's servers is closed")
