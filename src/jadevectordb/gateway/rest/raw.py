"""Vectors as raw bytes: little-endian float32, for clients to whom every microsecond and every byte counts.

A framed body is: the length H of a JSON header as uint32 little-endian, H bytes of JSON padded with spaces so that 4 + H is a
multiple of 4, then the rows. A query alone needs no frame: its body is just the row, or the rows of a batch.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.rest.http import RAW, Response, decode, encode, invalid

T = TypeVar("T")
_LENGTH = struct.Struct("<I")
_FLOAT = np.dtype("<f4")


def floats(body: bytes, dimension: int) -> npt.NDArray[np.float32]:
    """float32 (n, dimension) over the body, n >= 1, not copied. Raises INVALID_ARGUMENT."""
    if not body or len(body) % (4 * dimension):
        raise invalid(
            f"A raw body holds rows of {dimension} little-endian float32 values ({4 * dimension} bytes each), got {len(body)} bytes.",
            expected_bytes=4 * dimension,
            actual_bytes=len(body),
        )
    return np.frombuffer(body, _FLOAT).reshape(-1, dimension)


def split(body: bytes, type: type[T]) -> tuple[T, memoryview]:
    """The header and what follows it. Raises INVALID_ARGUMENT."""
    if len(body) < 4:
        raise invalid("A raw body begins with the length of its JSON header as uint32, little-endian.")
    (length,) = _LENGTH.unpack_from(body)
    if length > len(body) - 4:
        raise invalid(f"The raw body says its header has {length} bytes, but only {len(body) - 4} follow.")
    return decode(body[4 : 4 + length], type), memoryview(body)[4 + length :]


def framed(header: Any, rows: npt.NDArray[np.float32] | None, status: int = 200) -> Response:
    """An answer with its vectors raw. rows: float32 (n, d), or None for no rows."""
    text = encode(header)
    text += b" " * (-(4 + len(text)) % 4)
    payload = b"" if rows is None else np.ascontiguousarray(rows, _FLOAT).tobytes()
    return Response(status, _LENGTH.pack(len(text)) + text + payload, RAW)
