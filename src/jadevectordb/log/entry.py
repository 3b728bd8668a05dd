"""Log entries as bytes: what goes to disk, and in a cluster over the wire.

    prefix    16 bytes   format version, kind, dtype of the vectors, their width and count, length of the header
    vectors              one contiguous block, rows x width, float32 little-endian or uint8
    header               msgpack: time, node, request id, part, then ids, conditions and raw JSON documents
    seen       8 bytes   format 2 alone: the place of the log that the writer knew, uint64 little-endian

Format 2 is written for entries that carry such a place (writes that waited in an outbox), format 1 for all others; both are read.

The vectors come before the header so that they lie 16 bytes from the entry's start whatever the ids are: an entry that
begins at an aligned address decodes to an aligned numpy view without padding and without a copy. Documents are msgpack
byte strings inside the header: their bytes are the caller's JSON, untouched, and one C loop reads them all, twice as fast
as a table of lengths cut up in Python. Integrity is the frame's business (`log.frame`); this codec only promises that
whatever bytes it is given, it returns an entry or raises `JadeError`.
"""

from __future__ import annotations

import struct
from collections.abc import Sized
from typing import Annotated, Any, NoReturn, TypeAlias, assert_never

import msgspec
import numpy as np

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, NodeId, RequestId, VectorId
from jadevectordb.model.limits import SHARDS_MAX
from jadevectordb.model.operations import (
    Barrier,
    Delete,
    DeleteWhere,
    Entry,
    EntryKind,
    Operation,
    PlacedWrite,
    Rows,
    Seal,
    Update,
    Write,
)

ENTRY_FORMAT_VERSION = 2  # the newest that is read
_PLAIN, _WITH_SEEN = 1, 2
Buffer: TypeAlias = bytes | bytearray | memoryview

_PREFIX = struct.Struct("<BBBxIII")  # format version, kind, dtype, unused, width, rows, header bytes
_SEEN = struct.Struct("<Q")
_NO_VECTORS = 0
_WITH_VECTORS = (EntryKind.WRITE, EntryKind.PLACED_WRITE)
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("u1")}  # numbers are on disk: never reuse one


class _Header(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    time: int
    node: NodeId
    request_id: RequestId
    part: int
    parts: int


class _WriteHeader(_Header, gc=False):
    ids: list[VectorId]
    metadata: list[bytes]
    if_version: list[int] | None


class _PlacedWriteHeader(_Header, gc=False):
    ids: list[VectorId]
    metadata: list[bytes]
    places: list[Annotated[int, msgspec.Meta(ge=0, lt=SHARDS_MAX)]]


class _DeleteHeader(_Header, gc=False):
    ids: list[VectorId]
    if_version: list[int] | None


class _UpdateHeader(_Header, gc=False):
    ids: list[VectorId]
    patches: list[bytes]
    merge: bool
    if_version: list[int] | None


class _DeleteWhereHeader(_Header, gc=False):
    filter: bytes


class _SealHeader(_Header, gc=False):
    compact: bool


_ENCODER = msgspec.msgpack.Encoder()
_WRITE = msgspec.msgpack.Decoder(_WriteHeader)
_PLACED_WRITE = msgspec.msgpack.Decoder(_PlacedWriteHeader)
_DELETE = msgspec.msgpack.Decoder(_DeleteHeader)
_UPDATE = msgspec.msgpack.Decoder(_UpdateHeader)
_DELETE_WHERE = msgspec.msgpack.Decoder(_DeleteWhereHeader)
_SEAL = msgspec.msgpack.Decoder(_SealHeader)
_BARRIER = msgspec.msgpack.Decoder(_Header)


def encode(entry: Entry) -> bytes:
    """The entry as one byte string. Raises INVALID_ID when an id is no valid Unicode text."""
    return b"".join(encode_parts(entry))


def encode_parts(entry: Entry) -> list[Buffer]:
    """The entry as pieces to be written one after the other; the vectors are a view of the caller's array, not a copy."""
    try:
        kind, header = _header_of(entry)
        header_bytes = _ENCODER.encode(header)
    except UnicodeEncodeError as error:
        raise JadeError(
            ErrorCode.INVALID_ID,
            f"the id {error.object!r} holds a lone surrogate, which is not Unicode text; "
            "decode ids without 'surrogateescape'",
        ) from error
    version = _PLAIN
    tail: list[Buffer] = []
    if entry.seen is not None:
        version, tail = _WITH_SEEN, [_SEEN.pack(entry.seen)]
    if not isinstance(entry.operation, Write):
        return [_PREFIX.pack(version, kind, _NO_VECTORS, 0, 0, len(header_bytes)), header_bytes, *tail]
    rows, dtype_number = _on_disk(entry.operation.vectors)
    count, width = rows.shape
    prefix = _PREFIX.pack(version, kind, dtype_number, width, count, len(header_bytes))
    if rows.size == 0:
        return [prefix, header_bytes, *tail]
    return [prefix, rows.reshape(-1).view(np.uint8).data, header_bytes, *tail]


def decode(data: Buffer) -> Entry:
    """The entry in `data`, which must hold exactly one. Vectors are a read-only view of `data`: keep it unchanged.

    Raises FORMAT_TOO_NEW for a format version or kind this program does not know, CORRUPT for anything malformed.
    """
    if len(data) < _PREFIX.size:
        _corrupt(f"it has {len(data)} bytes, fewer than a prefix")
    version, kind_number, dtype_number, width, count, header_bytes = _PREFIX.unpack_from(data)
    if version not in (_PLAIN, _WITH_SEEN):
        _refuse_version(version)
    seen_bytes = _SEEN.size if version == _WITH_SEEN else 0
    try:
        kind = EntryKind(kind_number)
    except ValueError:
        _refuse_kind(kind_number)
    dtype = _DTYPES.get(dtype_number)
    vectors_bytes = count * width * dtype.itemsize if dtype is not None else 0
    header_start = _PREFIX.size + vectors_bytes
    header_end = header_start + header_bytes
    if header_end + seen_bytes != len(data):
        _corrupt(f"its parts make {header_end + seen_bytes} bytes, but it has {len(data)}")
    if (dtype is None) != (kind not in _WITH_VECTORS) or (dtype is None and (dtype_number or width or count)):
        _corrupt(f"an entry of kind {kind.name} cannot have dtype {dtype_number} and {count} x {width} values")
    rows = None
    if dtype is not None:
        rows = np.ndarray((count, width), dtype, data, _PREFIX.size)
        rows.flags.writeable = False
    seen: int | None = _SEEN.unpack_from(data, header_end)[0] if seen_bytes else None
    return _assemble(kind, rows, memoryview(data)[header_start:header_end], seen)


def _assemble(kind: EntryKind, rows: Rows | None, header_bytes: memoryview, seen: int | None) -> Entry:
    try:
        header, operation = _parse(kind, rows, header_bytes)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JadeError(
            ErrorCode.CORRUPT, f"a log entry is damaged: its {kind.name} header cannot be read ({error})"
        ) from error
    if not 0 <= header.part < header.parts or header.time < 0:
        _corrupt(f"part {header.part} of {header.parts} at time {header.time} is impossible")
    return Entry(operation, HybridTime(header.time), header.node, header.request_id, header.part, header.parts, seen)


def _parse(kind: EntryKind, rows: Rows | None, data: memoryview) -> tuple[_Header, Operation]:
    match kind:
        case EntryKind.WRITE:
            assert rows is not None
            write = _WRITE.decode(data)
            _check_lengths(len(write.ids), rows, write.metadata, write.if_version)
            return write, Write(write.ids, rows, write.metadata, write.if_version)
        case EntryKind.PLACED_WRITE:
            assert rows is not None
            placed = _PLACED_WRITE.decode(data)
            _check_lengths(len(placed.ids), rows, placed.metadata, placed.places)
            return placed, PlacedWrite(placed.ids, rows, placed.metadata, None, placed.places)
        case EntryKind.DELETE:
            delete = _DELETE.decode(data)
            _check_lengths(len(delete.ids), delete.if_version)
            return delete, Delete(delete.ids, delete.if_version)
        case EntryKind.UPDATE:
            update = _UPDATE.decode(data)
            _check_lengths(len(update.ids), update.patches, update.if_version)
            return update, Update(update.ids, update.patches, update.merge, update.if_version)
        case EntryKind.DELETE_WHERE:
            delete_where = _DELETE_WHERE.decode(data)
            return delete_where, DeleteWhere(delete_where.filter)
        case EntryKind.SEAL:
            seal = _SEAL.decode(data)
            return seal, Seal(seal.compact)
        case EntryKind.BARRIER:
            return _BARRIER.decode(data), Barrier()
        case _:
            assert_never(kind)


def _check_lengths(count: int, *lists: Sized | None) -> None:
    for values in lists:
        if values is not None and len(values) != count:
            _corrupt(f"it has {count} ids, but {len(values)} of what belongs to them")


def _header_of(entry: Entry) -> tuple[EntryKind, _Header]:
    assert 0 <= entry.part < entry.parts and entry.time >= 0 and (entry.seen is None or entry.seen >= 0)
    place = (entry.time, entry.node, entry.request_id, entry.part, entry.parts)
    operation = entry.operation
    match operation:
        case PlacedWrite():  # before Write, which it is too
            return EntryKind.PLACED_WRITE, _PlacedWriteHeader(
                *place, operation.ids, operation.metadata, operation.places
            )
        case Write():
            return EntryKind.WRITE, _WriteHeader(*place, operation.ids, operation.metadata, operation.if_version)
        case Delete():
            return EntryKind.DELETE, _DeleteHeader(*place, operation.ids, operation.if_version)
        case Update():
            return EntryKind.UPDATE, _UpdateHeader(
                *place, operation.ids, operation.patches, operation.merge, operation.if_version
            )
        case DeleteWhere():
            return EntryKind.DELETE_WHERE, _DeleteWhereHeader(*place, operation.filter)
        case Seal():
            return EntryKind.SEAL, _SealHeader(*place, operation.compact)
        case Barrier():
            return EntryKind.BARRIER, _Header(*place)
        case _:
            assert_never(operation)


def _on_disk(vectors: Rows) -> tuple[Rows, int]:
    """The vectors C-order and little-endian (no copy where they already are), with the number of their dtype."""
    assert vectors.ndim == 2 and vectors.dtype.kind in "fu", f"float32 or uint8 rows expected, not {vectors.dtype}"
    number = 1 if vectors.dtype.kind == "f" else 2
    assert vectors.dtype.itemsize == _DTYPES[number].itemsize, f"float32 or uint8 expected, not {vectors.dtype}"
    return np.ascontiguousarray(vectors, _DTYPES[number]), number


def _refuse_version(version: int) -> NoReturn:
    if version < _PLAIN:
        _corrupt(f"format version {version} never existed")
    raise JadeError(
        ErrorCode.FORMAT_TOO_NEW,
        f"a log entry has format version {version}, this program reads up to {ENTRY_FORMAT_VERSION}; "
        "open the database with the newer JadeVectorDB that wrote it",
        details={"version": version, "supported": ENTRY_FORMAT_VERSION},
    )


def _refuse_kind(kind_number: int) -> NoReturn:
    if kind_number == 0:
        _corrupt("its kind is 0")
    raise JadeError(
        ErrorCode.FORMAT_TOO_NEW,
        f"a log entry is of kind {kind_number}, which this program does not know; "
        "open the database with the newer JadeVectorDB that wrote it",
        details={"kind": kind_number},
    )


def _corrupt(what: str) -> NoReturn:
    raise JadeError(ErrorCode.CORRUPT, f"a log entry is damaged: {what}")
