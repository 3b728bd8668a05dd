"""Between messages and the engine's values: vectors, metadata, filters, conditions in; hits, items, receipts out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.embedded.hits import Hit, Item
from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.generated import types_pb2 as types
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.writer import WriteResult

Floats: TypeAlias = npt.NDArray[np.float32]
Conditions: TypeAlias = "list[int | None] | None"

_FLOAT32 = np.dtype("<f4")
_FLOAT_BYTES = 4
_NO_CONDITION = -1
_decode_json = msgspec.json.Decoder().decode


def invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)


# Vectors in


def floats_of(vector: types.Vector) -> Floats:
    """The numbers of a vector in either form, flat. The result may share the message's memory and is read-only."""
    packed = vector.packed
    if packed:
        if vector.values:
            raise invalid("A vector comes as packed or as values, not both.")
        if len(packed) % _FLOAT_BYTES:
            raise JadeError(
                ErrorCode.INVALID_VECTOR,
                f"A packed vector is float32, 4 bytes a number; {len(packed)} bytes were sent.",
            )
        return np.frombuffer(packed, _FLOAT32)
    return np.array(vector.values, np.float32)


def rows_of(vectors: types.Vector, count: int, dimension: int) -> Floats:
    """(count, dimension) of vectors that come row after row."""
    flat = floats_of(vectors)
    if len(flat) != count * dimension:
        each = len(flat) / count if count else 0.0
        raise JadeError(
            ErrorCode.DIMENSION_MISMATCH,
            f"{count} vectors of dimension {dimension} are {count * dimension} numbers, {len(flat)} were sent. "
            "Nothing was written.",
            details={"expected": dimension, "actual": int(each) if each.is_integer() else each},
        )
    return flat.reshape(count, dimension)


def queries_of(vectors: types.Vector, dimension: int) -> Floats:
    """(m, dimension) of queries that come row after row."""
    flat = floats_of(vectors)
    if not len(flat) or len(flat) % dimension:
        raise JadeError(
            ErrorCode.DIMENSION_MISMATCH,
            f"Queries are one or more vectors of dimension {dimension}, row after row; {len(flat)} numbers were sent.",
            details={"expected": dimension, "actual": len(flat)},
        )
    return flat.reshape(-1, dimension)


def point_rows(points: Sequence[types.Point], dimension: int) -> Floats:
    """(n, dimension)"""
    packed = [point.vector.packed for point in points]
    if set(map(len, packed)) == {dimension * _FLOAT_BYTES} and not any(point.vector.values for point in points):
        return np.frombuffer(b"".join(packed), _FLOAT32).reshape(-1, dimension)
    rows = np.empty((len(points), dimension), np.float32)
    for position, point in enumerate(points):
        row = floats_of(point.vector)
        if len(row) != dimension:
            raise JadeError(
                ErrorCode.DIMENSION_MISMATCH,
                f"Vector {position} ({point.id[:80]!r}) has {len(row)} numbers, the database has dimension {dimension}. "
                "Nothing was written.",
                details={"expected": dimension, "actual": len(row), "position": position},
            )
        rows[position] = row
    return rows


# JSON and conditions in


def object_of(packed: bytes, field: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> dict[str, Any] | None:
    """A JSON object in bytes; None for an empty field."""
    if not packed:
        return None
    try:
        value = _decode_json(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JadeError(code, f"{field} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise JadeError(code, f"{field} must be a JSON object, got {type(value).__name__}.")
    return value


def filter_of(packed: bytes) -> dict[str, Any] | None:
    return object_of(packed, "filter_json", ErrorCode.INVALID_FILTER)


def metadata_of(packed: Iterable[bytes], count: int) -> list[bytes | None] | None:
    """One JSON object a vector, or None for no metadata at all; the engine checks what is inside."""
    found: list[bytes | None] = [one or None for one in packed]
    if not found:
        return None
    if len(found) != count:
        raise invalid(f"{count} ids came with {len(found)} metadata objects: give one an id, or none at all.")
    return found


def conditions_of(given: Iterable[int]) -> Conditions:
    """Expected versions, one an id; -1 is no condition. None when none are given."""
    return [None if version == _NO_CONDITION else version for version in given] or None


# Out


def packed_of(values: npt.NDArray[Any], selection: types.Selection | None) -> types.Vector:
    if selection is not None and selection.vector_as_values:
        return types.Vector(values=values.tolist())
    return types.Vector(packed=np.ascontiguousarray(values, _FLOAT32).tobytes())


def add_hits(answer: Any, hits: Iterable[Hit], selection: types.Selection | None) -> None:
    """To the field `hits` of an answer. selection: None is metadata alone."""
    add = answer.hits.add
    if selection is None:
        for hit in hits:
            add(id=hit.id, score=hit.score, metadata_json=hit.metadata_json)
    else:
        for hit in hits:
            _fill(add(id=hit.id, score=hit.score), hit, selection)


def stored_of(item: Item, selection: types.Selection) -> types.StoredVector:
    one = types.StoredVector(id=item.id)
    _fill(one, item, selection)
    return one


def _fill(one: types.Hit | types.StoredVector, item: Item, selection: types.Selection) -> None:
    if selection.metadata:
        one.metadata_json = item.metadata_json
    if selection.vector or selection.vector_as_values:
        one.vector.CopyFrom(packed_of(item.vector, selection))
    if selection.version:
        one.version = item.version


def receipt_of(call: Call, result: WriteResult) -> types.WriteReceipt:
    return types.WriteReceipt(
        count=result.count,
        session=call.session_after(result.sequences),
        version=result.version,
        duplicate=result.duplicate,
    )
