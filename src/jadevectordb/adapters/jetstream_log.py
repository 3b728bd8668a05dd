"""The replicated log: one JetStream stream a shard, one message an entry, acknowledged when a majority of servers has it on disk.

The servers' Raft orders the entries and keeps them through the loss of a minority; they are not trusted with anything else.
Each entry carries our own checksum, each sequence is checked by who reads, and an append whose answer was lost is repeated under the
same message id until its place is known (`jetstream_publish`). An entry that belongs to a request is known by it: the same
request sent again within `LOG_DUPLICATES_S`, by this node or another, gets the place of the first.

The parts: `nats_connection` talks, `jetstream_api` asks, `jetstream_messages` names and
`jetstream_publish` stores, `jetstream_tail` and `jetstream_read` read, `jetstream_follow` delivers, `jetstream_archive` copies.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, TypeVar

from jadevectordb.adapters.bytes_gate import BytesGate
from jadevectordb.adapters.jetstream_api import (
    ApiError,
    Deadline,
    StreamState,
    delete_stream,
    ensure_stream,
    purge_below,
    stream_refused,
    stream_state,
)
from jadevectordb.adapters.jetstream_archive import copy_streams
from jadevectordb.adapters.jetstream_follow import EntryReader, Following
from jadevectordb.adapters.jetstream_messages import messages_of
from jadevectordb.adapters.jetstream_publish import Message, publish
from jadevectordb.adapters.jetstream_read import newest_at, read_entries
from jadevectordb.adapters.jetstream_tail import Tail, check_start
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.log.message import stream_seed
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.limits import (
    LOG_APPEND_S_MAX,
    LOG_APPENDING_BYTES_MAX,
    LOG_DUPLICATES_S,
    LOG_FOLLOW_BYTES_MAX,
)
from jadevectordb.model.operations import Entry
from jadevectordb.ports.log import Delivered, Frame

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ASK_S = 10.0
_CREATE_S = 60.0
_CREATED_AT_ONCE = 16
_PLACES_S = 2.0  # for a server that starts with the others at this moment
_TIMES_FIRST = 256  # entries looked at first by `sequence_at`; then four times as many, and so on

T = TypeVar("T")


def stream_name(cluster: str, database: str, shard: ShardId) -> str:
    """No part of it may hold the '+' between them."""
    return "+".join(("log", cluster, database, str(shard)))


class JetStreamLog:
    """The log port over JetStream. Every method may be called from any thread but the connection's."""

    def __init__(
        self,
        connection: NatsConnection,
        cluster: str,
        database: str,
        *,
        replicas: int = 3,
        append_s: float = LOG_APPEND_S_MAX,
    ) -> None:
        """cluster, database: names the streams are called by. replicas: copies of each stream: 1, 3 or 5."""
        for name in (cluster, database):
            if not _NAME.fullmatch(name):
                raise JadeError(
                    ErrorCode.INVALID_ARGUMENT,
                    f"{name!r} cannot be part of a stream's name: use 1 to 64 letters, digits, '-' and '_'",
                )
        assert replicas in (1, 3, 5)
        self._connection = connection
        self._place = (cluster, database)
        self._replicas = replicas
        self._append_s = append_s
        self._gate = BytesGate(LOG_APPENDING_BYTES_MAX)
        self._lock = threading.Lock()  # guards the fields below
        self._shards: set[ShardId] = set()
        self._followings: set[Following] = set()
        self._subscribed: dict[ShardId, list[Following]] = {}
        self._closed = False
        self._moved = threading.Condition()  # a subscriber's handler has returned

    # --- streams ------------------------------------------------------------------------------------------------------

    def stream(self, shard: ShardId) -> str:
        """The name of the shard's stream."""
        return stream_name(*self._place, shard)

    def _subject(self, shard: ShardId) -> str:
        return ".".join(("jade.log", *self._place, str(shard)))

    def create(self, shard: ShardId) -> None:
        """As `ensure_streams` with one."""
        self.ensure_streams([shard])

    def ensure_streams(self, shards: Iterable[ShardId], seconds: float = _CREATE_S) -> None:
        """The shards' streams exist, are led and durable as they shall be; this log serves them from now on.

        seconds: to wait at most; what was made by then stays, and asking again goes on from there.
        Raises CONFLICT when one exists with other settings, UNAVAILABLE.
        """
        wanted = sorted(set(shards))
        limit = asyncio.Semaphore(_CREATED_AT_ONCE)
        deadline = Deadline(self._connection, seconds)

        async def ensure(shard: ShardId) -> None:
            async with limit:
                await ensure_stream(self._connection, self._config(shard), deadline, places_s=_PLACES_S)

        async def ensure_all() -> None:
            await asyncio.gather(*map(ensure, wanted))

        self._call(ensure_all(), seconds)
        with self._lock:
            self._shards.update(wanted)

    def _config(self, shard: ShardId) -> dict[str, Any]:
        return {
            "name": self.stream(shard),
            "subjects": [self._subject(shard)],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": self._replicas,
            "duplicate_window": int(LOG_DUPLICATES_S * 10**9),
            "deny_delete": True,
            "deny_purge": False,
            "allow_atomic": True,
        }

    def drop(self) -> None:
        """Delete the streams of the shards that this log serves, and all that is in them."""
        shards = self._known()

        async def delete_all() -> None:
            deadline = Deadline(self._connection, _CREATE_S)
            await asyncio.gather(*(delete_stream(self._connection, self.stream(shard), deadline) for shard in shards))

        self._call(delete_all(), _CREATE_S)
        with self._lock:
            self._shards.difference_update(shards)

    def _known(self) -> list[ShardId]:
        with self._lock:
            return sorted(self._shards)

    # --- appending ----------------------------------------------------------------------------------------------------

    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> list[Sequence]:
        """As `Log.append`: the entries of one shard are stored together, one after the other, or none of them.

        Raises NOT_FOUND (a shard without a stream), REQUEST_TOO_LARGE, DISK_FULL, INVALID_ID, CLOSED; UNAVAILABLE when
        it could not be done in time, with `details["undecided"]` true when some of it may be stored all the same, and
        `details["durable"]` naming the sequences of the shards that are done.
        """
        self._refuse_closed()
        if not entries:
            return []
        by_shard: dict[ShardId, list[int]] = {}
        for at, (shard, _entry) in enumerate(entries):
            by_shard.setdefault(shard, []).append(at)
        messages = {
            shard: messages_of(self.stream(shard), shard, [entries[at][1] for at in places])
            for shard, places in by_shard.items()
        }
        size = sum(len(message.data) for parts in messages.values() for message in parts)
        deadline = Deadline(self._connection, self._append_s)
        with self._gate.of(size, self._append_s):
            lasts = self._call(self._publish_all(messages, deadline), self._append_s)
        sequences = [Sequence(0)] * len(entries)
        for shard, places in by_shard.items():
            first = lasts[shard] - len(places) + 1
            for number, at in enumerate(places):
                sequences[at] = Sequence(first + number)
        self._await_subscribers(lasts, deadline)
        return sequences

    async def _publish_all(self, messages: dict[ShardId, list[Message]], deadline: Deadline) -> dict[ShardId, int]:
        """The last sequence of each shard's messages."""
        results = await asyncio.gather(
            *(
                publish(
                    self._connection,
                    self.stream(shard),
                    self._subject(shard),
                    parts,
                    deadline,
                    replicated=self._replicas > 1,
                )
                for shard, parts in messages.items()
            ),
            return_exceptions=True,
        )
        durable: dict[ShardId, int] = {}
        failure: BaseException | None = None
        for shard, result in zip(messages, results, strict=True):
            if isinstance(result, BaseException):
                failure = failure or result
            else:
                durable[shard] = result.last
        if failure is None:
            return durable
        if isinstance(failure, JadeError) and durable:
            failure = JadeError(failure.code, failure.message, details={**failure.details, "durable": durable})
        raise failure

    def _await_subscribers(self, lasts: dict[ShardId, int], deadline: Deadline) -> None:
        """Return when every subscriber's handler has returned for these entries."""
        with self._lock:
            waited = [(following, last) for s, last in lasts.items() for following in self._subscribed.get(s, ())]
        if not waited:
            return
        with self._moved:
            self._moved.wait_for(
                lambda: all(f.position >= last or f.error for f, last in waited), deadline.left_s(self._append_s)
            )
        for following, last in waited:
            if following.position < last:
                reason = following.error.message if following.error else following.trouble or "it is behind"
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"the entries are durable, but were not delivered here within {deadline.seconds:g} s: {reason}",
                    details={"undecided": False, "durable": lasts},
                )

    # --- delivering ---------------------------------------------------------------------------------------------------

    def follow(
        self,
        shard: ShardId,
        from_sequence: Sequence,
        handler: Callable[[Delivered], None],
        on_error: Callable[[JadeError], None],
        *,
        window_bytes: int = LOG_FOLLOW_BYTES_MAX,
    ) -> Following:
        """Have every entry from this one on delivered, in order, each once. Raises CLOSED.

        window_bytes: how much is asked for ahead of the handler.
        """
        self._refuse_closed()
        stream = self.stream(shard)
        following = Following(
            EntryReader(self._connection, stream, shard, stream_seed(stream)),
            Tail(self._connection, stream, from_sequence, window_bytes=window_bytes),
            Sequence(from_sequence - 1),
            handler,
            on_error,
            self._tell_moved,
            f"jade-follow-{shard}",
        )
        with self._lock:
            self._followings = {one for one in self._followings if one.is_alive} | {following}
        return following

    def _tell_moved(self) -> None:
        with self._moved:
            self._moved.notify_all()

    def subscribe(self, handler: Callable[[Frame], None]) -> None:
        """As `Log.subscribe`, for the shards that `ensure_streams` has named: from a thread of this log for each shard."""
        for shard in self._known():
            following = self.follow(
                shard, Sequence(self.last(shard) + 1), lambda delivered: handler([delivered]), lambda _error: None
            )
            with self._lock:
                self._subscribed.setdefault(shard, []).append(following)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, from_frame_of: dict[ShardId, Sequence]) -> Iterator[Frame]:
        """As `Log.read`: one entry a frame, shard after shard. Raises UNAVAILABLE too."""
        self._refuse_closed()
        ranges = self._call(self._ranges(from_frame_of), _ASK_S)
        return self._read(ranges)

    async def _ranges(self, wanted: dict[ShardId, Sequence]) -> list[tuple[ShardId, int, int]]:
        deadline = Deadline(self._connection, _ASK_S)

        async def one(shard: ShardId) -> tuple[ShardId, int, int]:
            stream = self.stream(shard)
            try:
                if shard in wanted:
                    return shard, wanted[shard], await check_start(self._connection, stream, wanted[shard], deadline)
                state = await stream_state(self._connection, stream, deadline)
                return shard, state.first, state.last
            except ApiError as error:
                raise stream_refused(stream, error) from error

        return await asyncio.gather(*(one(shard) for shard in sorted({*self._known(), *wanted})))

    def _read(self, ranges: list[tuple[ShardId, int, int]]) -> Iterator[Frame]:
        for shard, first, last in ranges:
            for delivered in self.entries(shard, Sequence(first), Sequence(last)):
                yield [delivered]

    def entries(self, shard: ShardId, first: Sequence, last: Sequence) -> Iterator[Delivered]:
        """The entries of one shard from first to last, both included. Raises LOG_TRUNCATED, CORRUPT, UNAVAILABLE."""
        return read_entries(self._connection, self.stream(shard), shard, first, last)

    def first(self, shard: ShardId) -> Sequence:
        """As `Log.first`, by the word of the stream's leader."""
        return Sequence(self._state(shard).first)

    def last(self, shard: ShardId) -> Sequence:
        """As `Log.last`, by the word of the stream's leader.

        One that was cut off from the others and does not know it yet may name an older one: who must know what was
        acknowledged before appends a Barrier and waits for it.
        """
        return Sequence(self._state(shard).last)

    def _state(self, shard: ShardId) -> StreamState:
        stream = self.stream(shard)

        async def get() -> StreamState:
            try:
                return await stream_state(self._connection, stream, Deadline(self._connection, _ASK_S))
            except ApiError as error:
                raise stream_refused(stream, error) from error

        return self._call(get(), _ASK_S)

    def truncate(self, up_to: dict[ShardId, Sequence]) -> None:
        """As `Log.truncate`: exact, and freed on all servers."""

        async def purge(shard: ShardId, sequence: Sequence) -> None:
            stream, deadline = self.stream(shard), Deadline(self._connection, _ASK_S)
            try:
                state = await stream_state(self._connection, stream, deadline)
                below = min(sequence, state.last) + 1
                if below > state.first:
                    await purge_below(self._connection, stream, below, deadline)
            except ApiError as error:
                raise stream_refused(stream, error) from error

        async def purge_all() -> None:
            await asyncio.gather(*(purge(shard, sequence) for shard, sequence in up_to.items()))

        self._call(purge_all(), _ASK_S)

    def sequence_at(self, shard: ShardId, time: HybridTime) -> Sequence:
        """As `Log.sequence_at`; times need not ascend. Reads the entries' times only, from the newest back to the first hit."""
        state = self._state(shard)
        stream, end, count = self.stream(shard), state.last, _TIMES_FIRST
        while end >= state.first:
            begin = max(state.first, end - count + 1)
            found = newest_at(self._connection, stream, begin, end, time)
            if found is not None:
                return Sequence(found)
            end, count = begin - 1, count * 4
        return Sequence(state.first - 1)

    def copy_to(self, directory: Path) -> None:
        """As `Log.copy_to`: the copy is a `LocalLog`'s folder with the same sequences."""
        self._refuse_closed()
        ranges = self._call(self._ranges({}), _ASK_S)
        copy_streams(
            [(shard, first, self.entries(shard, Sequence(first), Sequence(last))) for shard, first, last in ranges],
            directory,
        )

    def bytes_on_disk(self) -> int:
        """What the streams of this log take on one of the servers that hold them, as these count."""

        async def add() -> int:
            deadline = Deadline(self._connection, _ASK_S)
            states = await asyncio.gather(
                *(stream_state(self._connection, self.stream(shard), deadline) for shard in self._known())
            )
            return sum(state.bytes for state in states)

        return self._call(add(), _ASK_S)

    def close(self) -> None:
        """End every following. The connection is the caller's to close. Again is fine; later calls raise CLOSED."""
        with self._lock:
            self._closed = True
            followings, self._followings, self._subscribed = self._followings, set(), {}
        for following in followings:
            following.close()

    def _call(self, work: Coroutine[Any, Any, T], deadline_s: float) -> T:
        with self._lock:
            closed = self._closed
        if closed:
            work.close()
            self._refuse_closed()
        try:
            return self._connection.call(work, deadline_s)
        except ApiError as error:
            raise JadeError(ErrorCode.IO_ERROR, f"the log's servers refused: {error}; look into their logs") from error

    def _refuse_closed(self) -> None:
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "the log is closed; open the database again")
