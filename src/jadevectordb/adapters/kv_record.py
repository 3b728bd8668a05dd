"""A record of the replicated metadata store as bytes: who wrote it, whether it is a deletion, and a checksum over all of it.

    header   32 bytes   magic, format version, kind, unused, write id (16 bytes), hash
    value

The write id names one call of `compare_and_set`: whoever lost the answer finds out by it whether the record is its own.
The hash is xxh3-64 of key, header and value. A deletion is a record too: revisions go on, and watchers are told.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from jadevectordb.model.errors import ErrorCode, JadeError

FORMAT_VERSION = 1
WRITE_ID_BYTES = 16
_MAGIC = b"jRec"
_HEAD = struct.Struct("<4sBBH16s")
_HASH = struct.Struct("<Q")
_HEADER_BYTES = _HEAD.size + _HASH.size
_VALUE, _DELETED = 1, 2


@dataclass(frozen=True, slots=True)
class Stored:
    value: bytes | None  # None = deleted
    write_id: bytes


def encode_record(key: str, value: bytes | None, write_id: bytes) -> bytes:
    head = _HEAD.pack(_MAGIC, FORMAT_VERSION, _DELETED if value is None else _VALUE, 0, write_id)
    content = value or b""
    return b"".join([head, _HASH.pack(_hash(key, head, content)), content])


def decode_record(key: str, data: bytes) -> Stored | JadeError:
    """The record, or what is wrong with it: CORRUPT, FORMAT_TOO_NEW."""
    if len(data) < _HEADER_BYTES:
        return _damaged(key, f"it has {len(data)} bytes, fewer than a header")
    magic, version, kind, _, write_id = _HEAD.unpack_from(data)
    if magic == _MAGIC and version > FORMAT_VERSION:
        return JadeError(
            ErrorCode.FORMAT_TOO_NEW,
            f"the record {key!r} of the metadata store has format version {version}, this program reads up to "
            f"{FORMAT_VERSION}; use the newer JadeVectorDB that wrote it",
            details={"key": key, "version": version},
        )
    value = data[_HEADER_BYTES:]
    if magic != _MAGIC or _HASH.unpack_from(data, _HEAD.size)[0] != _hash(key, data[: _HEAD.size], value):
        return _damaged(key, "it does not match its checksum")
    return Stored(value if kind == _VALUE else None, write_id)


def _hash(key: str, head: bytes, value: bytes) -> int:
    hasher = xxhash.xxh3_64(key.encode())
    hasher.update(b"\0" + head)
    hasher.update(value)
    return hasher.intdigest()


def _damaged(key: str, what: str) -> JadeError:
    return JadeError(
        ErrorCode.CORRUPT,
        f"the record {key!r} of the metadata store is damaged: {what}; restore it from a backup",
        details={"key": key},
    )
