"""The session of a request: what its client has seen, from its headers; and what it has seen then, as a header of the answer.

An error brings it too: a part of a write may have been done, and who is told that a vector has changed, or is not there, must not
read an older state next.

The token that comes back stands for the one that was sent too, so who asks one thing after the other keeps the newest and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.rest.http import Request
from jadevectordb.gateway.service.sessions import reading, seen_after, token_of, writing, written_by
from jadevectordb.model.errors import JadeError
from jadevectordb.query.levels import WriteLevel

SESSION = "x-jade-session"
CONSISTENCY = "x-jade-consistency"
_NOTHING: Mapping[str, Any] = {}


def reading_of(request: Request, consistency: str = "") -> Mapping[str, Any]:
    """How new a read must be, as arguments for it. To be asked once a request: all its reads are of one session.

    consistency: of the body, instead of the header. Raises as `sessions.reading`.
    """
    headers = request.headers
    given = reading(headers.get(SESSION, ""), consistency or headers.get(CONSISTENCY, ""), request.entry)
    request.seen = given.get("seen")
    return given


def writing_of(request: Request) -> Mapping[str, Any]:
    """How sure a write must be, as arguments for it. Raises INVALID_ARGUMENT."""
    consistency = request.headers.get(CONSISTENCY, "")
    if not consistency:
        return _NOTHING
    return writing(consistency, request.entry, request.headers.get(SESSION, ""))


def reading_to_write(request: Request) -> Mapping[str, Any]:
    """The same for what a write reads first: the header is then about the write, and a strong one begins with a strong read."""
    headers = request.headers
    level = writing(headers.get(CONSISTENCY, ""), request.entry).get("consistency", "")
    given = reading(headers.get(SESSION, ""), level if level == WriteLevel.STRONG else "", request.entry)
    request.seen = given.get("seen")
    return given


def token_after(request: Request, sequences: Mapping[int, int]) -> str:
    """The session of a request that wrote these, by shard; it comes back with the answer, "" when there is none."""
    request.seen = seen_after(request.headers.get(SESSION, ""), sequences, request.entry, request.seen)
    return token_of(request.entry.id, request.seen)


def session_header_of_error(request: Request, error: JadeError) -> tuple[tuple[str, str], ...]:
    """Takes from the error's details what is for the header alone."""
    written = written_by(error)
    if request.database is not None and written:
        token_after(request, written)
    return session_header(request)


def session_header(request: Request) -> tuple[tuple[str, str], ...]:
    """What the answer says of the session; nothing when nothing was read or written that later reads could miss."""
    return ((SESSION, token_of(request.entry.id, request.seen)),) if request.seen else ()
