"""Entries as the messages of a stream: under which id, with which header, and how many at once."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence as Seq

from jadevectordb.adapters.jetstream_publish import Message
from jadevectordb.adapters.jetstream_tail import TIME_HEADER
from jadevectordb.log.message import encode_message, stream_seed
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import ShardId
from jadevectordb.model.limits import LOG_REQUEST_BYTES_MAX, LOG_REQUEST_ENTRIES_MAX, NATS_PAYLOAD_BYTES_MAX
from jadevectordb.model.operations import Entry

_HEADERS_BYTES = 1024


def messages_of(stream: str, shard: ShardId, entries: Seq[Entry]) -> list[Message]:
    """One request's entries for one shard. Raises REQUEST_TOO_LARGE, INVALID_ID."""
    seed = stream_seed(stream)
    messages = [
        Message(_message_id(entry), encode_message(shard, entry, seed), ((TIME_HEADER, str(entry.time)),))
        for entry in entries
    ]
    largest = max(len(message.data) for message in messages)
    together = sum(len(message.data) for message in messages)
    if (
        largest > NATS_PAYLOAD_BYTES_MAX - _HEADERS_BYTES
        or together > LOG_REQUEST_BYTES_MAX
        or len(messages) > LOG_REQUEST_ENTRIES_MAX
    ):
        raise JadeError(
            ErrorCode.REQUEST_TOO_LARGE,
            f"{together} bytes in {len(messages)} entries for shard {shard} are too much for one request to a replicated "
            f"log, which takes {LOG_REQUEST_BYTES_MAX} bytes in {LOG_REQUEST_ENTRIES_MAX} entries at once; send less at a time",
            details={"shard": shard, "bytes": together, "entries": len(messages)},
        )
    return messages


def _message_id(entry: Entry) -> str:
    """The same for the same part of the same request, whoever sends it. A request id is any text, so it is hashed."""
    if not entry.request_id:
        return secrets.token_hex(16)
    name = f"{entry.part}/{entry.parts}/{entry.request_id}"
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
