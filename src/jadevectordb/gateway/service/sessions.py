"""The session token of reads and writes, and the consistency they ask for.

The token says which log sequences a client has seen, so that its next read sees at least those. Text form, safe in a header:
`DATABASE~SHARD.SEQUENCE,SHARD.SEQUENCE`, several joined by `|`. Every write answers with one. On a single node every read sees every
write that was answered, so a consistency is checked and changes nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.levels import read_level, write_level

_LENGTH_MAX = 32_768
_NOTHING: Mapping[str, Any] = {}


def token_of(database_id: str, sequences: Mapping[int, int]) -> str:
    return (
        f"{database_id}~{','.join(f'{shard}.{sequence}' for shard, sequence in sequences.items())}" if sequences else ""
    )


def reading(token: str, consistency: str, entry: Entry) -> Mapping[str, Any]:
    """What to give a read of the database beside its own arguments. token, consistency: as the client sent them, "" = not.

    Raises INVALID_ARGUMENT, and UNAVAILABLE when a single node has not applied what the client has seen.
    """
    if not token and not consistency:
        return _NOTHING
    level = read_level(consistency) if consistency else None
    if not isinstance(entry.handle, ClusterDatabase):
        if token:
            check_seen(token, entry)
        return _NOTHING
    given: dict[str, Any] = {"seen": seen_in(token, entry)} if token else {}
    if level is not None:
        given["consistency"] = str(level)
    return given


def writing(consistency: str, entry: Entry) -> Mapping[str, Any]:
    """What to give a write beside its own arguments. Raises INVALID_ARGUMENT."""
    if not consistency:
        return _NOTHING
    level = write_level(consistency)
    return {"consistency": str(level)} if isinstance(entry.handle, ClusterDatabase) else _NOTHING


def seen_in(token: str, entry: Entry) -> dict[int, int]:
    """Sequences by shard that the token names for this database. Raises INVALID_ARGUMENT for a token that is none."""
    if len(token) > _LENGTH_MAX:
        raise _malformed()
    seen: dict[int, int] = {}
    for part in token.split("|"):
        database_id, _, pairs = part.partition("~")
        if database_id != entry.id or not pairs:
            continue
        for pair in pairs.split(","):
            shard, _, sequence = pair.partition(".")
            if not all(_is_number(text) for text in (shard, sequence)):
                raise _malformed()
            seen[int(shard)] = max(int(sequence), seen.get(int(shard), 0))
    return seen


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


def check_seen(token: str, entry: Entry) -> None:
    """Raises UNAVAILABLE when this node has not applied what the client has seen, INVALID_ARGUMENT for a token that is none."""
    seen = seen_in(token, entry)
    if not seen:
        return
    marks = entry.handle.watermarks()
    if any(shard >= len(marks) or marks[shard] < sequence for shard, sequence in seen.items()):
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            "This node has not applied a write that this client has seen: retry, or drop the session token "
            "when the data was restored from an older snapshot.",
        )


def _malformed() -> JadeError:
    return JadeError(
        ErrorCode.INVALID_ARGUMENT, "The session token is malformed: send back what a write answered, or none."
    )
