"""From a caller's dicts to the JSON bytes that are stored: checked once here, trusted everywhere else.

The fast path lets the JSON library encode a block of rows, decode it again, and compare with what came in: a row that returns
unchanged is plain JSON, and anything the library would bend (NaN to null, bytes to base64, integer keys to strings) is unequal.
Only such rows take the careful path, which converts dates and numpy values, or says which row and key is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final

import msgspec
import numpy as np

from jadevectordb.model import limits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filter_eval import resolve
from jadevectordb.model.instants import instant_text, parse_instant
from jadevectordb.model.schema import NO_SCHEMA, FieldType, Schema

Metadata = Mapping[str, Any] | bytes | None  # bytes: one JSON object, kept as it is

_BLOCK_ROWS: Final = 1024
_encode: Final = msgspec.json.encode
_decode_rows: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_row: Final = msgspec.json.Decoder(dict[str, Any]).decode
_TYPES: Final[dict[str, frozenset[type]]] = {
    "string": frozenset({str}),
    "text": frozenset({str}),
    "date": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
}
_NAMES: Final[dict[type, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}


def encode_for_ids(
    metadata: Sequence[Metadata] | Mapping[str, Any], count: int, schema: Schema = NO_SCHEMA
) -> list[bytes]:
    """`encode_metadata` of what came with `count` ids; a single mapping is taken where there is one id.

    Raises INVALID_ARGUMENT when there are more or fewer objects than ids, or something else than a list.
    """
    if isinstance(metadata, Mapping):
        if count != 1:
            raise _misfit(f"One metadata object came with {count} ids: give a list with one an id.")
        metadata = [metadata]
    if isinstance(metadata, str | bytes) or not isinstance(metadata, Iterable):
        raise _misfit(f"metadata must be a list of dicts, one an id, got {type(metadata).__name__}.")
    rows = list(metadata)
    if len(rows) != count:
        raise _misfit(f"{count} ids came with {len(rows)} metadata objects: give one an id, or None.")
    return encode_metadata(rows, schema)


def _misfit(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)


def encode_metadata(metadata: Sequence[Metadata], schema: Schema = NO_SCHEMA) -> list[bytes]:
    """One JSON object a row, UTF-8; None becomes `{}`.

    Values: strings, numbers, booleans, None, lists, tuples, dicts with string keys, date and datetime (stored as RFC 3339, in UTC when
    they have a time zone), numpy scalars and arrays (stored as numbers and lists).
    Raises INVALID_METADATA (row and key in the message) for anything else, NaN, Inf, and sizes beyond the limits;
    SCHEMA_VIOLATION for a declared field of another type, or an undeclared one under a strict schema.
    """
    rows: list[bytes] = []
    checks = _checks_of(schema)
    for start in range(0, len(metadata), _BLOCK_ROWS):
        block = metadata[start : start + _BLOCK_ROWS]
        encoded, decoded = _encode_block(block, start)
        _check_block(decoded, schema, checks, start)
        rows += encoded
    return rows


def check_declared(documents: list[dict[str, Any]], schema: Schema) -> None:
    """The schema's part of the check alone, for rows that are stored already. Raises SCHEMA_VIOLATION; its details name the row."""
    _check_block(documents, schema, _checks_of(schema), 0)


def _checks_of(schema: Schema) -> list[_FieldCheck]:
    return [_FieldCheck(path, declared) for path, declared in schema.fields.items()]


def _check_block(documents: list[dict[str, Any]], schema: Schema, checks: list[_FieldCheck], first_row: int) -> None:
    for check in checks:
        check.run(documents, first_row)
    if schema.strict:
        _check_strict(documents, schema, first_row)


def _encode_block(block: Sequence[Metadata], first_row: int) -> tuple[list[bytes], list[dict[str, Any]]]:
    originals = [{} if row is None else row for row in block]
    try:
        encoded = [_encode(row) for row in originals]
        decoded = _decode_rows(b"[" + b",".join(encoded) + b"]")
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError):
        encoded, decoded = [b""] * len(originals), [{}] * len(originals)  # some row is not plain JSON: look at each
    if len(decoded) != len(originals):
        decoded = [{}] * len(originals)
    if decoded == originals and all(map(_is_small, encoded)):
        return encoded, decoded
    for i, original in enumerate(originals):
        if not encoded[i] or not _is_small(encoded[i]) or decoded[i] != original:
            encoded[i], decoded[i] = _encode_one(original, first_row + i)
    return encoded, decoded


def _is_small(encoded: bytes) -> bool:
    """Within the limits for sure: too few brackets to be deep, too few bytes for an integer that is too large."""
    return (
        len(encoded) <= _SURELY_SMALL_BYTES and encoded.count(b"{") + encoded.count(b"[") <= limits.METADATA_DEPTH_MAX
    )


_SURELY_SMALL_BYTES: Final = int(limits.INTEGER_BITS_MAX * math.log10(2))


def _encode_one(value: Metadata, row: int) -> tuple[bytes, dict[str, Any]]:
    if isinstance(value, bytes):
        return _check_raw(value, row)
    if not isinstance(value, Mapping):
        raise _invalid(row, "", f"metadata is a dict, not {type(value).__name__}")
    document = _plain(value, row, "", 1)
    data = _encode(document)
    _check_bytes(data, row)
    return data, document


def _check_raw(data: bytes, row: int) -> tuple[bytes, dict[str, Any]]:
    _check_bytes(data, row)
    try:
        document = _decode_row(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise _invalid(row, "", f"metadata given as bytes is not a JSON object: {error}") from None
    _plain(document, row, "", 1)
    return data, document


def _check_bytes(data: bytes, row: int) -> None:
    if len(data) > limits.METADATA_BYTES_MAX:
        raise _invalid(
            row,
            "",
            f"metadata takes {len(data)} bytes as JSON, at most {limits.METADATA_BYTES_MAX} are possible; store large values elsewhere",
        )


def _plain(value: Any, row: int, at: str, depth: int) -> Any:
    """The value as plain JSON types. Raises INVALID_METADATA."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, row, at)
    if isinstance(value, int):
        if value.bit_length() > limits.INTEGER_BITS_MAX:
            raise _invalid(row, at, f"an integer of {value.bit_length()} bits is too large; store it as a string")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _invalid(row, at, f"{value} has no place in JSON; use None for a missing number")
        return float(value)
    if isinstance(value, date):
        if value != value:  # noqa: PLR0124 - pandas.NaT calls itself a datetime
            raise _invalid(row, at, "a date that is not a date (NaT) has no place in JSON; use None")
        return instant_text(value)
    if isinstance(value, np.generic | np.ndarray):
        return _plain_numpy(value, row, at, depth)
    if isinstance(value, Mapping):
        _check_depth(row, at, depth)
        return {
            _plain_key(key, row, at): _plain(inner, row, f"{at}.{key}" if at else str(key), depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        _check_depth(row, at, depth)
        return [_plain(inner, row, f"{at}[{i}]", depth + 1) for i, inner in enumerate(value)]
    raise _invalid(
        row,
        at,
        f"{type(value).__name__} cannot be stored; use strings, numbers, booleans, None, dates, lists and dicts, or str(value)",
    )


def _plain_text(text: str, row: int, at: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _invalid(row, at, "a string holds half of a surrogate pair, which is no character") from None
    return str.__str__(text)


def _plain_key(key: object, row: int, at: str) -> str:
    if not isinstance(key, str):
        raise _invalid(row, at, f"a key is a string, not {key!r}")
    return _plain_text(key, row, at)


def _plain_numpy(value: np.generic | np.ndarray[Any, Any], row: int, at: str, depth: int) -> Any:
    if value.dtype.kind not in "biufUM":
        raise _invalid(row, at, f"numpy {value.dtype} cannot be stored; use numbers, booleans or strings")
    if value.size * 2 > limits.METADATA_BYTES_MAX:
        raise _invalid(
            row, at, f"an array of {value.size} values is too large for metadata; vectors belong into the vector"
        )
    if value.dtype.kind == "M":
        value = value.astype("datetime64[us]")
    return _plain(value.tolist() if isinstance(value, np.ndarray) else value.item(), row, at, depth)


def _check_depth(row: int, at: str, depth: int) -> None:
    if depth > limits.METADATA_DEPTH_MAX:
        raise _invalid(row, at[:80], f"objects and arrays are nested more than {limits.METADATA_DEPTH_MAX} deep")


def _invalid(row: int, at: str, message: str) -> JadeError:
    shown = at.encode(errors="backslashreplace").decode()
    place = f"metadata of row {row}" + (f", key {shown}" if at else "")
    return JadeError(ErrorCode.INVALID_METADATA, f"{place}: {message}", details={"row": row, "key": shown})


class _FieldCheck:
    """The check of one declared field, over a block of decoded rows."""

    def __init__(self, path: str, declared: FieldType) -> None:
        self._path = path
        self._declared = declared
        self._types = _TYPES[declared.element]
        self._is_array = declared.is_array
        self._is_date = declared.element == "date"
        self._is_plain = "." not in path

    def run(self, documents: list[dict[str, Any]], first_row: int) -> None:
        path = self._path
        # The usual case costs one look-up a row: every value has the type.
        is_simple = self._is_plain and not self._is_array and not self._is_date
        if is_simple and {type(document.get(path)) for document in documents} <= self._types | {type(None)}:
            return
        for row, document in enumerate(documents, start=first_row):
            for value in resolve(document, path):
                if value is not None:
                    self._check(value, row)

    def _check(self, value: Any, row: int) -> None:
        if self._is_array:
            if type(value) is not list:
                raise self._violation(row, _NAMES[type(value)])
            for element in value:
                self._check_element(element, row, "an array with ")
        else:
            self._check_element(value, row, "")

    def _check_element(self, value: Any, row: int, container: str) -> None:
        if type(value) not in self._types:
            raise self._violation(row, container + _NAMES[type(value)])
        if self._is_date and parse_instant(value) is None:
            raise self._violation(
                row,
                f"{container}the string {value[:40]!r}, which is no date such as 2024-05-17 or 2024-05-17T12:00:00Z",
            )

    def _violation(self, row: int, actual: str) -> JadeError:
        return JadeError(
            ErrorCode.SCHEMA_VIOLATION,
            f"metadata of row {row}, field {self._path}: declared {self._declared}, got {actual}",
            details={"row": row, "field": self._path, "expected": str(self._declared), "actual": actual},
        )


def _check_strict(documents: list[dict[str, Any]], schema: Schema, first_row: int) -> None:
    """Refuse fields that are neither declared nor on the way to a declared one."""
    inner = {path[:cut] for path in schema.fields for cut in range(len(path)) if path[cut] == "."}
    for row, document in enumerate(documents, start=first_row):
        if document.keys() <= schema.fields.keys():
            continue
        pending: list[tuple[str, Any]] = [("", document)]
        while pending:
            at, value = pending.pop()
            if isinstance(value, list):
                pending.extend((at, element) for element in value)
            elif isinstance(value, dict):
                for key, below in value.items():
                    path = f"{at}.{key}" if at else key
                    if path in schema.fields:
                        continue
                    if path not in inner or not isinstance(below, dict | list | None):
                        raise JadeError(
                            ErrorCode.SCHEMA_VIOLATION,
                            f"metadata of row {row}, field {path}: not declared, and the schema is strict; "
                            f"declared are {', '.join(sorted(schema.fields)[:20]) or 'none'}",
                            details={"row": row, "field": path},
                        )
                    pending.append((path, below))
