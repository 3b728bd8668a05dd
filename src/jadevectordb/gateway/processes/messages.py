"""What goes over the connection between the writing process and one that reads: frames of a kind, a number, a head and a body.

The head is MessagePack, the body bytes that nobody has to look at. A connection is one end of a pair of sockets that the writer made
and handed to its child: nobody else can speak on it, so what comes over it is believed.

    writer to reader   WELCOME, once                    ANSWER, with the number of the request
    reader to writer   LISTENING, once · REPORT         ASK, with a number of the reader's choice
"""

from __future__ import annotations

import asyncio
import struct
from enum import IntEnum
from typing import NamedTuple

import msgspec

from jadevectordb.gateway.access.principals import Principal
from jadevectordb.gateway.rest.http import Request, Response
from jadevectordb.settings.schema import Settings

_FRAME = struct.Struct("<BxxxIIQ")  # kind, number, bytes of the head, of the body
STREAM_BYTES = 1 << 20  # read ahead at most


class Kind(IntEnum):
    WELCOME = 1
    LISTENING = 2
    REPORT = 3
    ASK = 4
    ANSWER = 5


class Frame(NamedTuple):
    kind: int
    number: int
    head: bytes
    body: bytes


class Welcome(msgspec.Struct, array_like=True, frozen=True):
    """What a reader is told when it starts. settings: without secrets. port: of REST, also where the settings say any."""

    settings: Settings
    version: str
    port: int


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """A request to be answered by the writer; its body is the frame's. client: the address it came from."""

    method: str
    path: str
    query_string: str
    headers: dict[str, str]
    client: str


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """A response; its body is the frame's. principal, expires_ms: who asked, where that may be remembered."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    principal: Principal | None = None
    expires_ms: int = 0


def frame(kind: Kind, head: object = None, *, number: int = 0, body: bytes = b"") -> tuple[bytes, bytes]:
    """The frame as two pieces, so that a large body is not copied."""
    packed = b"" if head is None else msgspec.msgpack.encode(head)
    return _FRAME.pack(kind, number, len(packed), len(body)) + packed, body


async def read_frame(stream: asyncio.StreamReader) -> Frame | None:
    """None when the other side is gone."""
    try:
        kind, number, head_bytes, body_bytes = _FRAME.unpack(await stream.readexactly(_FRAME.size))
        head = await stream.readexactly(head_bytes)
        body = await stream.readexactly(body_bytes) if body_bytes else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Frame(kind, number, head, body)


def ask_of(request: Request) -> Ask:
    return Ask(request.method, request.path, request.query_string, dict(request.headers), request.client)


def request_of(ask: Ask, body: bytes) -> Request:
    return Request(ask.method, ask.path, ask.headers, body, query_string=ask.query_string, client=ask.client)


def response_of(answer: Answer, body: bytes) -> Response:
    return Response(answer.status, body, answer.content_type, answer.headers)
