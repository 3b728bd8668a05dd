"""The session token of reads and writes, and the consistency they ask for.

The token says which log sequences a client has seen, so that its next read sees at least those. Text form, safe in a header:
`DATABASE~SHARD.SEQUENCE,SHARD.SEQUENCE`, several joined by `|`; what is of another database counts for nothing. In a cluster every
read and every write answers with one, which stands for the one that came with it too.

On a single node every read sees what any earlier answer showed, whichever process gave it, so reads answer none; writes do, for the
client may go on where there is a cluster, and it tells a folder that was restored from an older snapshot. A consistency is
checked and changes nothing there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import TARGET_REMEMBERED_MAX
from jadevectordb.query.levels import WriteLevel, read_level, write_level
from jadevectordb.query.seen import SeenSequences

_LENGTH_MAX = 32_768
_NOTHING: Mapping[str, Any] = {}


def token_of(database_id: str, sequences: Mapping[int, int] | None) -> str:
    """ "" for nothing seen."""
    if not sequences:
        return ""
    return f"{database_id}~{','.join([f'{shard}.{sequence}' for shard, sequence in sequences.items()])}"


def reading(token: str, consistency: str, entry: Entry) -> Mapping[str, Any]:
    """What to give a read of the database beside its own arguments. token, consistency: as the client sent them, "" = not.

    Of a cluster's database also "seen": after the read, what the client has seen then, to be answered (`token_of`).
    Raises INVALID_ARGUMENT, and UNAVAILABLE when a single node has not applied what the client has seen.
    """
    level = read_level(consistency) if consistency else None
    if isinstance(entry.handle, ClusterDatabase):
        seen = seen_in(token, entry) if token else SeenSequences()
        return {"seen": seen} if level is None else {"seen": seen, "consistency": str(level)}
    if token:
        check_seen(token, entry)
    return _NOTHING


def writing(consistency: str, entry: Entry, token: str = "") -> Mapping[str, Any]:
    """What to give a write beside its own arguments: of a token, what a write at EVENTUAL came after. Raises INVALID_ARGUMENT.

    A token that is none counts for nothing, as for all writes.
    """
    if not consistency:
        return _NOTHING
    level = write_level(consistency)
    if not isinstance(entry.handle, ClusterDatabase):
        return _NOTHING
    given: dict[str, Any] = {"consistency": str(level)}
    if level is WriteLevel.EVENTUAL and token:
        with contextlib.suppress(JadeError):
            given["seen"] = seen_in(token, entry)
    return given


def seen_after(
    token: str, sequences: Mapping[int, int], entry: Entry, read: SeenSequences | None = None
) -> SeenSequences:
    """What a client has seen that came with `token`, read so much, and was told that it wrote these sequences.

    On a single node only the last counts. A token that is none counts for nothing: the write is done, and says so.
    """
    seen = SeenSequences() if read is None else read
    if token and read is None and isinstance(entry.handle, ClusterDatabase):
        with contextlib.suppress(JadeError):
            seen = seen_in(token, entry)
    seen.raise_to(sequences.items())
    return seen


def written_by(error: JadeError) -> Mapping[int, int]:
    """How far the write that failed stands in the logs, by shard; taken out of the details, as the token is to say it."""
    sequences: Mapping[int, int] = error.details.pop("durable", {})
    return sequences


def seen_in(token: str, entry: Entry) -> SeenSequences:
    """Sequences by shard that the token names for this database. Raises INVALID_ARGUMENT for a token that is none."""
    if len(token) > _LENGTH_MAX:
        raise _malformed()
    if len(token) > TARGET_REMEMBERED_MAX:
        return _read(token, entry.id)
    return SeenSequences(_remembered(token, entry.id))  # of its own: the request raises it


def _read(token: str, database: str) -> SeenSequences:
    seen = SeenSequences()
    for part in token.split("|"):
        database_id, _, pairs = part.partition("~")
        if database_id != database or not pairs:
            continue
        for pair in pairs.split(","):
            shard, _, sequence = pair.partition(".")
            if not (_is_number(shard) and _is_number(sequence)):
                raise _malformed()
            seen.raise_to([(int(shard), int(sequence))])
    return seen


_remembered = lru_cache(maxsize=1024)(_read)  # while nobody writes, a client sends the same one with each read


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
        ErrorCode.INVALID_ARGUMENT, "The session token is malformed: send back what an answer brought, or none."
    )
