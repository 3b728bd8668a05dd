"""A stretch of a shard's stream, from one sequence to another that is known to be there."""

from __future__ import annotations

from collections.abc import Iterator

from jadevectordb.adapters.jetstream_follow import EntryReader
from jadevectordb.adapters.jetstream_tail import Received, Tail
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.log.message import stream_seed
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, ShardId
from jadevectordb.ports.log import Delivered

_SILENT_S_MAX = 30.0  # a reader that receives nothing for so long gives up


def read_entries(connection: NatsConnection, stream: str, shard: ShardId, first: int, last: int) -> Iterator[Delivered]:
    """The entries from first to last, both included. Raises LOG_TRUNCATED, CORRUPT, UNAVAILABLE."""
    if first > last:
        return
    reader = EntryReader(connection, stream, shard, stream_seed(stream))
    tail = Tail(connection, stream, first)
    try:
        for received in _taken(tail, stream, first, last):
            yield reader.delivered(received)
    finally:
        tail.close()


def newest_at(connection: NatsConnection, stream: str, first: int, last: int, time: HybridTime) -> int | None:
    """The newest sequence from first to last whose entry's time is not after this one, by the messages' headers."""
    tail = Tail(connection, stream, first, times_only=True)
    try:
        hits = [one.sequence for one in _taken(tail, stream, first, last) if int(one.data or b"0") <= time]
    finally:
        tail.close()
    return hits[-1] if hits else None


def _taken(tail: Tail, stream: str, first: int, last: int) -> Iterator[Received]:
    for sequence in range(first, last + 1):
        try:
            received = tail.get(_SILENT_S_MAX)
        except TimeoutError:
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"nothing was received from {stream} for {_SILENT_S_MAX:g} s ({tail.trouble or 'no answer'}); retry",
            ) from None
        assert received is not None and received.sequence == sequence
        yield received
