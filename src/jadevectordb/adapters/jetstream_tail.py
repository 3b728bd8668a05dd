"""A shard's stream from one sequence on, whatever happens to the servers: no gap, no repetition, or an error that says why not.

The servers' cursors vanish with their server, skip what their copy of the stream has lost, and begin silently at the first
message kept when an older one was asked for. So each message's sequence is compared with the one that must come next. When it
is later than that, or nothing comes although there is more, the stream's leader is asked: its log begins later (LOG_TRUNCATED:
load a snapshot), or it has the message (a copy was damaged: it is taken from the leader), or other copies are tried, and
then nobody has it (CORRUPT).

The loop's thread receives, one other thread takes (`get`). Memory is bounded: more is asked for when half of the window has been
taken and dealt with.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
from dataclasses import dataclass

from nats.aio.msg import Msg

from jadevectordb.adapters.jetstream_api import (
    STREAM_NOT_FOUND,
    ApiError,
    Deadline,
    get_message,
    stream_refused,
    stream_state,
)
from jadevectordb.adapters.jetstream_consume import Consumption, EndedError
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import LOG_FOLLOW_BYTES_MAX

TIME_HEADER = "Jade-Time"
_SET_UP_S = 10.0  # to find the stream and create a consumer, before it is tried anew
_PAUSE_S = 0.05
_PAUSE_S_MAX = 0.5
BEHIND_S = 1.0  # a leader just elected may not have applied all that it has; then what it says its last entry is counts
_GONE_S = 3.0  # a stream that nobody finds for so long was dropped
_MESSAGE_OVERHEAD_BYTES = 200
_COPIES_TRIED = 8  # consumers, each on a server of the servers' choice, before a message counts as lost


@dataclass(frozen=True, slots=True)
class Received:
    sequence: int
    data: bytes  # the message, or with `times_only` what its time header says


class _MissingError(Exception):
    """The next message was not delivered, a later one was."""


class Tail:
    """One stream's messages in order. Created in any thread; `get` by one thread."""

    def __init__(
        self,
        connection: NatsConnection,
        stream: str,
        from_sequence: int,
        *,
        times_only: bool = False,
        window_bytes: int = LOG_FOLLOW_BYTES_MAX,
    ) -> None:
        """times_only: the messages' time headers instead of their contents."""
        assert from_sequence >= 1
        self._connection = connection
        self._stream = stream
        self._times_only = times_only
        self._window_bytes = window_bytes
        self._next = from_sequence  # the loop's thread only
        self._misses = 0  # consumers in a row that skipped the next message
        self._received_bytes = 0  # written by the loop's thread,
        self._handled_bytes = 0  # by the taking thread
        self._queue: queue.SimpleQueue[Received | JadeError | None] = queue.SimpleQueue()
        self._taken = 0  # bytes of what `get` returned last
        self._wants_room = False
        self._consumption: Consumption | None = None
        self._closed = False
        self._trouble = ""
        self._run_future: concurrent.futures.Future[None] = connection.begin(self._run())

    @property
    def trouble(self) -> str:
        """Why nothing is received at the moment; "" when all is well."""
        return self._trouble

    def get(self, wait_s: float | None) -> Received | None:
        """The next message, None after `close`. Asking for the next says that the one before was dealt with.

        Raises LOG_TRUNCATED, CORRUPT, NOT_FOUND (the stream was dropped), CLOSED: nothing follows then. TimeoutError.
        """
        self._handled_bytes += self._taken
        self._taken = 0
        if self._wants_room and self._has_room():
            self._wants_room = False
            self._stir()
        try:
            found = self._queue.get(timeout=wait_s)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(found, JadeError):
            raise found
        if found is not None:
            self._taken = len(found.data) + _MESSAGE_OVERHEAD_BYTES
        return found

    def close(self) -> None:
        """`get` returns None from now on. Again is fine."""
        if not self._closed:
            self._closed = True
            self._run_future.cancel()
            self._queue.put(None)

    def _stir(self) -> None:
        consumption = self._consumption
        if consumption is not None and not self._connection.is_closed:
            try:
                self._connection.loop.call_soon_threadsafe(consumption.stir)
            except RuntimeError:  # the loop was closed in this moment
                return

    def _has_room(self) -> bool:
        return self._received_bytes - self._handled_bytes <= self._window_bytes // 2

    # --- the loop's thread --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._follow()
        except JadeError as error:
            self._queue.put(error)
        except asyncio.CancelledError:
            if not self._closed:  # the connection was closed
                self._queue.put(JadeError(ErrorCode.CLOSED, "the connection to the log's servers is closed"))
            raise

    async def _follow(self) -> None:
        pause_s = _PAUSE_S
        not_found_since_s: float | None = None
        while True:
            next_before = self._next
            try:
                await self._consume()
            except _MissingError:
                await self._recover_next()
                continue
            except (EndedError, TimeoutError) as error:
                self._trouble = str(error) or "no server answers"
            except ApiError as error:
                now_s = self._connection.loop.time()
                not_found_since_s = not_found_since_s or now_s
                if error.number == STREAM_NOT_FOUND and now_s - not_found_since_s >= _GONE_S:
                    raise stream_refused(self._stream, error) from error
                self._trouble = str(error)
            except JadeError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
                self._trouble = error.message
            else:
                raise AssertionError("a consumption ends with an error")
            if self._next > next_before:
                pause_s, not_found_since_s = _PAUSE_S, None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    async def _consume(self) -> None:
        deadline = Deadline(self._connection, _SET_UP_S)
        await check_start(self._connection, self._stream, self._next, deadline)
        consumption = Consumption(self._connection, self._stream, self._receive, window_bytes=self._window_bytes)
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._next,
            "headers_only": self._times_only,
        }
        self._consumption = consumption
        try:
            await consumption.run(config, deadline, self._may_ask, self._look_for_next)
        finally:
            self._consumption = None

    async def _look_for_next(self) -> None:
        """Nothing comes. A server skips what its copy has lost, so it is silent as well when that is the last message."""
        deadline = Deadline(self._connection, _SET_UP_S)
        if (await stream_state(self._connection, self._stream, deadline)).last >= self._next:
            self._misses += 1  # beside the one that is counted for it: noticing took a second
            raise _MissingError

    def _may_ask(self) -> bool:
        self._trouble = ""
        if self._has_room():
            return True
        self._wants_room = True
        return self._has_room()  # room may have been made just before it was asked for

    def _receive(self, sequence: int, _pending: int, message: Msg) -> None:
        if sequence < self._next:
            raise EndedError(f"message {sequence} came again")
        if sequence > self._next:
            raise _MissingError
        data = ((message.headers or {}).get(TIME_HEADER, "")).encode() if self._times_only else message.data
        self._hand_out(data)

    def _hand_out(self, data: bytes) -> None:
        self._received_bytes += len(data) + _MESSAGE_OVERHEAD_BYTES
        self._queue.put(Received(self._next, data))
        self._next += 1
        self._misses = 0

    async def _recover_next(self) -> None:
        """The copy that was read lacks the next message. Raises LOG_TRUNCATED, CORRUPT."""
        deadline = Deadline(self._connection, _SET_UP_S)
        try:
            await check_start(self._connection, self._stream, self._next, deadline)
            stored = await get_message(self._connection, self._stream, deadline, sequence=self._next)
        except (ApiError, JadeError) as error:
            if isinstance(error, JadeError) and error.code is not ErrorCode.UNAVAILABLE:
                raise
            return  # asked again with the next consumer
        if stored is not None and stored.data is not None and not self._times_only:
            self._hand_out(stored.data)
            return
        self._misses += 1
        if self._misses >= _COPIES_TRIED:
            raise damaged(self._stream, self._next, "it is missing, though later ones are there")


async def check_start(connection: NatsConnection, stream: str, sequence: int, deadline: Deadline) -> int:
    """The stream's last sequence, when reading may begin at this one.

    Raises LOG_TRUNCATED, CORRUPT when it lies beyond last + 1, ApiError, UNAVAILABLE.
    """
    patience = Deadline(connection, min(BEHIND_S, deadline.left_s(BEHIND_S)))
    while True:
        state = await stream_state(connection, stream, deadline)
        if sequence < state.first:
            raise JadeError(
                ErrorCode.LOG_TRUNCATED,
                f"entry {sequence} of {stream} was asked for, but the log begins at {state.first}; load a snapshot",
                details={"stream": stream, "asked": sequence, "first": state.first},
            )
        if sequence <= state.last + 1:
            return state.last
        if patience.over:
            raise damaged(
                stream, sequence - 1, f"the log ends with entry {state.last}, but entry {sequence - 1} was acknowledged"
            )
        await asyncio.sleep(_PAUSE_S)


def damaged(stream: str, sequence: int, what: str) -> JadeError:
    return JadeError(
        ErrorCode.CORRUPT,
        f"the log {stream} is damaged at entry {sequence}: {what}; load a snapshot of the shard from another replica or a backup",
        details={"stream": stream, "sequence": sequence},
    )
