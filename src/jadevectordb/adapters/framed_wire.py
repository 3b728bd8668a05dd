"""How calls between nodes look on the wire: frames of a fixed header and a payload, and nothing else.

    u32 length of what follows · u32 call number · u8 kind · u8 number of the call's type in `ports.node_calls.CALLS` · payload

Integers are big-endian. A payload is msgpack, or the bytes themselves where a call answers with bytes. No I/O here: bytes in, frames out.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NODE_FRAME_BYTES_MAX
from jadevectordb.ports.node_calls import Failure

HEADER = struct.Struct(">IIBB")
HEADER_BYTES = HEADER.size
_AFTER_LENGTH_BYTES = HEADER_BYTES - 4

# Kinds are on the wire: never reuse one.
CALL = 1
ANSWER = 2
BYTES_ANSWER = 3
ERROR = 4
CANCEL = 5  # nobody waits for this call any more
HELLO = 6
PROOF = 7
REFUSAL = 8  # of the connection as a whole; the payload is a Failure
PING = 9
PONG = 10

Frame: TypeAlias = tuple[int, int, int, memoryview]  # call number, kind, type number, payload

encode = msgspec.msgpack.Encoder().encode
_encode_failure = msgspec.msgpack.Encoder(enc_hook=str).encode  # details may hold anything that has a text
_decode_failure = msgspec.msgpack.Decoder(Failure).decode


def pack(number: int, kind: int, code: int, payload: bytes | bytearray | memoryview) -> tuple[bytes, ...]:
    """The buffers of one frame: one, unless copying the payload would cost more than writing two.

    Raises REQUEST_TOO_LARGE.
    """
    size = len(payload)
    if size > NODE_FRAME_BYTES_MAX:
        raise JadeError(
            ErrorCode.REQUEST_TOO_LARGE,
            f"a message between nodes would have {size:,} bytes, above the {NODE_FRAME_BYTES_MAX:,} of a frame; ask for less at once",
            details={"bytes": size, "bytes_max": NODE_FRAME_BYTES_MAX},
        )
    header = HEADER.pack(size + _AFTER_LENGTH_BYTES, number, kind, code)
    if size <= 1 << 16:
        return (header + payload,)
    return (header, bytes(payload) if isinstance(payload, bytearray) else payload)  # type: ignore[return-value]


def signal(number: int, kind: int) -> bytes:
    """A frame without a payload."""
    return HEADER.pack(_AFTER_LENGTH_BYTES, number, kind, 0)


class Splitter:
    """Cuts what arrives into frames. Between calls it holds less than one frame of at most `payload_bytes_max` and its header."""

    def __init__(self, payload_bytes_max: int) -> None:
        self.payload_bytes_max = payload_bytes_max
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = 0  # what must be held before it is worth looking again

    def feed(self, data: bytes) -> list[Frame]:
        """Frames that are complete now; payloads are views into `data`. Raises REQUEST_TOO_LARGE: the rest can't be read any more."""
        if self._pieces:
            self._pieces.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._wanted_bytes:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held_bytes = 0
        frames: list[Frame] = []
        view, position, end = memoryview(data), 0, len(data)
        wanted = HEADER_BYTES
        while end - position >= HEADER_BYTES:
            length, number, kind, code = HEADER.unpack_from(data, position)
            if not _AFTER_LENGTH_BYTES <= length <= self.payload_bytes_max + _AFTER_LENGTH_BYTES:
                raise JadeError(
                    ErrorCode.REQUEST_TOO_LARGE,
                    f"a frame of {length:,} bytes was announced, at most {self.payload_bytes_max:,} are taken: "
                    "the other side is no node of JadeVectorDB, or what it sends is damaged",
                )
            behind = position + 4 + length
            if behind > end:
                wanted = 4 + length
                break
            frames.append((number, kind, code, view[position + HEADER_BYTES : behind]))
            position = behind
        if position < end:
            self._pieces.append(data[position:] if position else data)
            self._held_bytes = end - position
            self._wanted_bytes = wanted
        return frames


def failure_payload(error: Exception) -> bytes:
    """What the other side is told. Anything but a JadeError is a defect here, which this node's log tells, not the asker."""
    if isinstance(error, JadeError):
        return _encode_failure(Failure(code=error.code.value, message=error.message, details=error.details))
    return encode(
        Failure(code=ErrorCode.INTERNAL_ERROR.value, message="the node that was asked failed; its log says more")
    )


def failure_error(payload: memoryview) -> JadeError:
    """The other side's error. Its code may be of a newer version."""
    try:
        failure = _decode_failure(payload)
    except msgspec.MsgspecError as error:
        return JadeError(ErrorCode.INTERNAL_ERROR, f"another node answered with an error that can't be read ({error})")
    try:
        code = ErrorCode(failure.code)
    except ValueError:
        return JadeError(ErrorCode.INTERNAL_ERROR, failure.message, details={**failure.details, "code": failure.code})
    return JadeError(code, failure.message, details=failure.details)
