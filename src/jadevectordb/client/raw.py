"""Vectors on the wire: float32 rows, little-endian, as they lie in memory; around them as much JSON as is needed.

    body = uint32 length of the JSON, JSON padded with spaces to a multiple of four bytes, rows

JSON would take three times the bytes and most of the time of a request, and its decimals need care to come back as the same
float32. Rows are sent from the caller's own array and read from the answer's own bytes, without a copy where that is possible.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.metric import Metric
from jadevectordb.model.vector_input import NUMERIC_KINDS, bad_row, invalid_vector, wrong_dimension

RAW = "application/octet-stream"
_LENGTH = struct.Struct("<I")
_FLOAT = np.dtype("<f4")


def rows_of(vectors: npt.ArrayLike, dimension: int, metric: str) -> npt.NDArray[np.float32]:
    """float32 (n, dimension), C-order, from what a caller gives: one vector or n of them, of any real dtype.

    An array that is so already is returned itself. Raises DIMENSION_MISMATCH, INVALID_VECTOR naming the row; values (NaN, zeros
    under cosine) are judged by the server.
    """
    try:
        given = np.asarray(vectors)
    except (ValueError, TypeError, OverflowError):
        raise _not_a_table(vectors, dimension) from None
    if given.ndim == 1:
        given = given.reshape(1, -1) if len(given) else given.reshape(0, dimension)
    if given.dtype.kind not in NUMERIC_KINDS or given.ndim != 2:
        raise _not_a_table(vectors, dimension)
    if given.shape[1] != dimension:
        raise wrong_dimension(0, dimension, given.shape[1])
    if given.dtype.kind == "b" and metric != Metric.HAMMING:
        raise invalid_vector("Vectors of true and false values need the hamming metric; send numbers.")
    with np.errstate(over="ignore"):  # becomes infinity, which the server refuses with the row's number
        return np.ascontiguousarray(given, _FLOAT)


def query_of(vector: npt.ArrayLike, dimension: int, metric: str) -> bytes:
    """One query as the body of a search."""
    if (
        type(vector) is np.ndarray
        and vector.dtype == _FLOAT
        and vector.shape == (dimension,)
        and vector.flags.c_contiguous
    ):
        return vector.tobytes()
    rows = rows_of(vector, dimension, metric)
    if len(rows) != 1:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"A search takes one query vector, {len(rows)} were given; use search_batch for several.",
            details={"given": len(rows)},
        )
    return rows.tobytes()


def framed(header: bytes, rows: npt.NDArray[np.float32]) -> tuple[bytes, memoryview]:
    """The body of a write in two pieces; the second is the array's own memory."""
    padding = -len(header) % 4
    first = _LENGTH.pack(len(header) + padding) + header + b" " * padding
    return first, rows.reshape(-1).data.cast("B") if rows.size else memoryview(b"")


def unframed(body: bytes | bytearray, dimension: int) -> tuple[bytes, npt.NDArray[np.float32]]:
    """The JSON of an answer and its rows (n, dimension), which are the body's own memory. Raises IO_ERROR."""
    length = _LENGTH.unpack_from(body)[0] if len(body) >= 4 else -1
    start = 4 + length
    if length < 0 or start > len(body) or start % 4 or (len(body) - start) % (4 * dimension):
        raise JadeError(
            ErrorCode.IO_ERROR,
            f"The vectors of an answer are not framed as they should be ({len(body)} bytes, dimension {dimension}): "
            "is the URL that of a JadeVectorDB server, and was the database made anew with another dimension?",
        )
    rows = np.frombuffer(body, _FLOAT, offset=start).reshape(-1, dimension)
    return bytes(memoryview(body)[4:start]), rows


def _not_a_table(vectors: Any, dimension: int) -> JadeError:
    sentence = f"Vectors must be real numbers in rows of {dimension}, (n, {dimension})."
    return bad_row(vectors, dimension) or invalid_vector(sentence)
