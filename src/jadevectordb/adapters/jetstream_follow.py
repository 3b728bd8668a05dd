"""One shard's entries from a sequence on, delivered to a replica in order, each once, for as long as it is followed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jadevectordb.adapters.jetstream_api import ApiError, Deadline, get_message
from jadevectordb.adapters.jetstream_tail import Received, Tail, damaged
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.log.frame import DamageError
from jadevectordb.log.message import decode_message
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.operations import Entry
from jadevectordb.ports.log import Delivered

_REREAD_S = 10.0


class EntryReader:
    """Messages to entries. One whose bytes are damaged is read again from the stream's leader before it counts as lost."""

    def __init__(self, connection: NatsConnection, stream: str, shard: ShardId, seed: int) -> None:
        self._connection = connection
        self.stream = stream
        self._shard = shard
        self._seed = seed

    def delivered(self, received: Received) -> Delivered:
        """Raises CORRUPT naming stream and sequence, FORMAT_TOO_NEW, UNAVAILABLE."""
        try:
            entry = self._decode(received.data)
        except DamageError as error:
            entry = self._read_again(received.sequence, error.reason)
        return Delivered(self._shard, Sequence(received.sequence), entry)

    def _decode(self, data: bytes) -> Entry:
        try:
            return decode_message(data, self._shard, self._seed)
        except JadeError as error:
            if error.code is not ErrorCode.CORRUPT:
                raise
            raise DamageError(0, error.message) from error

    def _read_again(self, sequence: int, reason: str) -> Entry:
        async def get() -> bytes | None:
            stored = await get_message(
                self._connection, self.stream, Deadline(self._connection, _REREAD_S), sequence=sequence
            )
            return stored.data if stored is not None else None

        try:
            data = self._connection.call(get(), _REREAD_S)
            if data is not None:
                return self._decode(data)
        except ApiError as error:
            reason = f"{reason}; read again: {error}"
        except DamageError as error:
            reason = error.reason
        raise damaged(self.stream, sequence, reason)


class Following:
    """A replica's place in its shard's log. `handler` is called from one thread of its own; it must not raise or close this.

    What ends it (`on_error`, called once from that thread): LOG_TRUNCATED, CORRUPT, FORMAT_TOO_NEW, NOT_FOUND, CLOSED.
    Servers that are away do not: it waits for them and goes on; `trouble` says so.
    """

    def __init__(
        self,
        reader: EntryReader,
        tail: Tail,
        position: Sequence,
        handler: Callable[[Delivered], None],
        on_error: Callable[[JadeError], None],
        on_moved: Callable[[], None],
        name: str,
    ) -> None:
        """position: the last sequence not wanted. on_moved: called after each handled entry, and at the end."""
        self._reader = reader
        self._tail = tail
        self._position = position
        self._handler = handler
        self._on_error = on_error
        self._on_moved = on_moved
        self._error: JadeError | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def position(self) -> Sequence:
        """The last sequence whose handler has returned."""
        return self._position

    @property
    def error(self) -> JadeError | None:
        """What ended it."""
        return self._error

    @property
    def trouble(self) -> str:
        """Why nothing is received at the moment; "" when all is well."""
        return self._tail.trouble

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """No handler is called after this returns (unless it is called by the handler). Again is fine."""
        self._tail.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            while (received := self._tail.get(None)) is not None:
                self._handle(self._delivered(received))
        except JadeError as error:
            self._error = error
            self._tail.close()
            self._on_error(error)
        self._on_moved()

    def _delivered(self, received: Received) -> Delivered:
        while True:
            try:
                return self._reader.delivered(received)
            except JadeError as error:  # damaged, and the leader that has it whole is away: wait for it
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise

    def _handle(self, delivered: Delivered) -> None:
        try:
            self._handler(delivered)
        except Exception as error:
            raise JadeError(
                ErrorCode.INTERNAL_ERROR,
                f"applying entry {delivered.sequence} of {self._reader.stream} failed ({error!r}); open the replica anew",
                details={"stream": self._reader.stream, "sequence": delivered.sequence},
            ) from error
        self._position = delivered.sequence
        self._on_moved()
