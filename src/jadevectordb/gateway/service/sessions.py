"""The session token of reads and writes: which log sequences a client has seen, so that its next read sees at least those.

Text form, safe in a header: `DATABASE~SHARD.SEQUENCE,SHARD.SEQUENCE`, several joined by `|`. Every write answers with one.
"""

from __future__ import annotations

from collections.abc import Mapping

from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.model.errors import ErrorCode, JadeError

_LENGTH_MAX = 32_768


def token_of(database_id: str, sequences: Mapping[int, int]) -> str:
    return (
        f"{database_id}~{','.join(f'{shard}.{sequence}' for shard, sequence in sequences.items())}" if sequences else ""
    )


def check_seen(token: str, entry: Entry) -> None:
    """Raises UNAVAILABLE when this node has not applied what the client has seen, INVALID_ARGUMENT for a token that is none."""
    if len(token) > _LENGTH_MAX:
        raise _malformed()
    for part in token.split("|"):
        database_id, _, pairs = part.partition("~")
        if database_id != entry.id or not pairs:
            continue
        marks = entry.handle.watermarks()
        for pair in pairs.split(","):
            shard, _, sequence = pair.partition(".")
            if not (shard.isascii() and shard.isdigit() and sequence.isascii() and sequence.isdigit()):
                raise _malformed()
            if int(shard) >= len(marks) or marks[int(shard)] < int(sequence):
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    "This node has not applied a write that this client has seen: retry, or drop the session token "
                    "when the data was restored from an older snapshot.",
                )


def _malformed() -> JadeError:
    return JadeError(
        ErrorCode.INVALID_ARGUMENT, "The session token is malformed: send back what a write answered, or none."
    )
