"""Frames as bytes: how the entries of one append lie in a log file, and how damage to them is told from an unfinished write.

A log file is a header and then frames, each 64-byte aligned. A frame is what one `append` wrote, all of it or nothing:

    header   64 bytes   magic, format version, number, own offset, length, committed end, hash of the table, hash of this header
    table    40 bytes an entry: shard, sequence, time, length, hash
    entries  each 16-byte aligned (`log.entry`)

Hashes are xxh3-64. An entry's hash is in the table, the table's hash in the header, so callers hash their own entries in
parallel and only the table and the header wait for the frame's place in the file. Header and table are hashed with the
file's random salt as the seed: bytes that look like a frame, whether left from another file, moved from elsewhere in this
one, or sent by a user as metadata, do not pass.

`committed` is the end of what was known to be durable in this file when the frame was written. It is what makes recovery
exact: a frame that is damaged and lies below the committed end of any later frame had been acknowledged, so it is
corruption; one that no later frame vouches for may be the rest of a write that a power cut tore apart.

All numbers little-endian. This module only turns values into bytes and back; files are the adapter's business.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import NamedTuple

import xxhash

from jadevectordb.log.entry import Buffer, encode_parts
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.operations import Entry

FORMAT_VERSION = 1  # of files, frames and the committed record
FRAME_ALIGNMENT = 64
ENTRY_ALIGNMENT = 16
FRAME_MAGIC = b"jFrm"
_FILE_MAGIC = b"JADE log"
_COMMITTED_MAGIC = b"JADE end"

_PREAMBLE = struct.Struct(
    "<8sIIQQ"
)  # magic, format version, header bytes, salt, hash; the same in every version to come
_FILE_BODY = struct.Struct("<QQQII")  # first frame, previous file's first frame and end, shards, unused
_FILE_SHARD = struct.Struct("<IIQ")  # shard, unused, next sequence
_FRAME = struct.Struct("<4sHHIIQQQQQQ")
_ROW = struct.Struct("<IIQQQQ")  # shard, unused, sequence, time, length, hash
_HASH = struct.Struct("<Q")
_COMMITTED = struct.Struct("<8sIIQQQQ")  # magic, format version, unused, first file, last file, committed end, hash

PREAMBLE_BYTES = _PREAMBLE.size
FRAME_HEADER_BYTES = _FRAME.size
ROW_BYTES = _ROW.size
COMMITTED_BYTES = _COMMITTED.size
assert FRAME_HEADER_BYTES == FRAME_ALIGNMENT


class DamageError(Exception):
    """Bytes that are not what was written. The adapter knows the file and turns this into CORRUPT or a torn tail."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset  # in the file
        self.reason = reason


def _round_up(value: int, alignment: int) -> int:
    return (value + alignment - 1) // alignment * alignment


def _refuse_version(version: int, what: str) -> None:
    if version > FORMAT_VERSION:
        raise JadeError(
            ErrorCode.FORMAT_TOO_NEW,
            f"{what} has format version {version}, this program reads up to {FORMAT_VERSION}; "
            "open the database with the newer JadeVectorDB that wrote it",
            details={"version": version, "supported": FORMAT_VERSION},
        )


# --- file header ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What stands at a log file's start: enough to know every shard's position without reading any earlier file."""

    salt: int  # random, of this file alone
    first_frame: int
    previous_first: int  # first frame of the file before; 0 = this is the first file ever
    previous_end: int  # bytes of the file before; it was closed before this one was begun
    next_sequences: dict[ShardId, Sequence]  # of each shard with entries before this file; any other begins at 1

    def encode(self) -> bytes:
        shards = b"".join(_FILE_SHARD.pack(s, 0, n) for s, n in sorted(self.next_sequences.items()))
        body = _FILE_BODY.pack(self.first_frame, self.previous_first, self.previous_end, len(self.next_sequences), 0)
        size = _round_up(PREAMBLE_BYTES + len(body) + len(shards) + _HASH.size, FRAME_ALIGNMENT)
        start = _PREAMBLE.pack(_FILE_MAGIC, FORMAT_VERSION, size, self.salt, 0)[: -_HASH.size]
        head = start + _HASH.pack(xxhash.xxh3_64_intdigest(start)) + body + shards
        head = head.ljust(size - _HASH.size, b"\0")
        return head + _HASH.pack(xxhash.xxh3_64_intdigest(head, self.salt))


def file_header_bytes(preamble: Buffer) -> int:
    """The whole header's length, from its first `PREAMBLE_BYTES`. Raises DamageError, or FORMAT_TOO_NEW."""
    if len(preamble) < PREAMBLE_BYTES:
        raise DamageError(0, f"the file has {len(preamble)} bytes, fewer than a header")
    magic, version, size, _salt, hash_ = _PREAMBLE.unpack_from(preamble)
    if magic != _FILE_MAGIC or hash_ != xxhash.xxh3_64_intdigest(bytes(preamble[: PREAMBLE_BYTES - _HASH.size])):
        raise DamageError(0, "the file's header does not match its checksum")
    _refuse_version(version, "the log file")
    return int(size)


def parse_file_header(data: Buffer) -> FileHeader:
    """data: exactly `file_header_bytes`. Raises DamageError."""
    size, salt = _PREAMBLE.unpack_from(data)[2:4]
    if len(data) != size or xxhash.xxh3_64_intdigest(bytes(data[: -_HASH.size]), salt) != _hash_at(
        data, size - _HASH.size
    ):
        raise DamageError(0, "the file's header does not match its checksum")
    first_frame, previous_first, previous_end, count, _ = _FILE_BODY.unpack_from(data, PREAMBLE_BYTES)
    at = PREAMBLE_BYTES + _FILE_BODY.size
    next_sequences = {}
    for shard, _, following in _FILE_SHARD.iter_unpack(data[at : at + count * _FILE_SHARD.size]):
        next_sequences[ShardId(shard)] = Sequence(following)
    return FileHeader(salt, first_frame, previous_first, previous_end, next_sequences)


def _hash_at(data: Buffer, at: int) -> int:
    return int(_HASH.unpack_from(data, at)[0])


# --- frames -----------------------------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    """One entry ready for a frame: everything that does not depend on the frame's place."""

    shard: ShardId
    entry: Entry
    parts: list[Buffer]
    length: int
    hash: int


def encode_entry(shard: ShardId, entry: Entry) -> Encoded:
    parts = encode_parts(entry)
    hasher = xxhash.xxh3_64()
    length = 0
    for part in parts:
        hasher.update(part)
        length += len(part)
    return Encoded(shard, entry, parts, length, hasher.intdigest())


class FrameHeader(NamedTuple):
    number: int
    offset: int
    length: int  # of the whole frame, padding included
    committed: int
    entry_count: int
    table_hash: int


class Row(NamedTuple):
    """One entry's line in a frame's table."""

    shard: ShardId
    sequence: Sequence
    time: HybridTime
    start: int  # from the frame's first byte
    length: int
    hash: int


def frame_bytes(encoded: Seq[Encoded]) -> int:
    """The length of the frame that holds these entries."""
    size = _table_end(len(encoded))
    for one in encoded:
        size += _round_up(one.length, ENTRY_ALIGNMENT)
    return _round_up(size, FRAME_ALIGNMENT)


def _table_end(count: int) -> int:
    return FRAME_HEADER_BYTES + _round_up(count * ROW_BYTES, ENTRY_ALIGNMENT)


def frame_pieces(
    encoded: Seq[Encoded], sequences: Seq[Sequence], *, salt: int, number: int, offset: int, committed: int
) -> list[Buffer]:
    """The frame as pieces to be written one after the other at `offset`; `frame_bytes(encoded)` long, nothing copied."""
    table = b"".join(
        _ROW.pack(one.shard, 0, sequence, one.entry.time, one.length, one.hash)
        for one, sequence in zip(encoded, sequences, strict=True)
    )
    head = _FRAME.pack(
        FRAME_MAGIC,
        FORMAT_VERSION,
        0,
        len(encoded),
        0,
        number,
        offset,
        frame_bytes(encoded),
        committed,
        xxhash.xxh3_64_intdigest(table, salt),
        0,
    )[: -_HASH.size]
    head += _HASH.pack(xxhash.xxh3_64_intdigest(head, salt))
    size = _table_end(len(encoded))
    pieces: list[Buffer] = [(head + table).ljust(size, b"\0")]
    for one in encoded:
        pieces.extend(one.parts)
        padding = -one.length % ENTRY_ALIGNMENT
        if padding:
            pieces.append(bytes(padding))
        size += one.length + padding
    if size % FRAME_ALIGNMENT:
        pieces.append(bytes(-size % FRAME_ALIGNMENT))
    return pieces


def parse_frame_header(data: Buffer, at: int, *, salt: int, offset: int) -> FrameHeader:
    """The frame header at `data[at:]`, which lies at `offset` in the file. Raises DamageError, or FORMAT_TOO_NEW."""
    if len(data) - at < FRAME_HEADER_BYTES:
        raise DamageError(offset, "the file ends within a frame's header")
    magic, version, _, count, _, number, own, length, committed, table_hash, hash_ = _FRAME.unpack_from(data, at)
    if magic != FRAME_MAGIC:
        raise DamageError(offset, "no frame begins here")
    if hash_ != xxhash.xxh3_64_intdigest(bytes(data[at : at + FRAME_HEADER_BYTES - _HASH.size]), salt):
        raise DamageError(offset, "the frame's header does not match its checksum")
    _refuse_version(version, "a log frame")
    if own != offset:
        raise DamageError(offset, f"the frame found here was written at {own}")
    return FrameHeader(number, own, length, committed, count, table_hash)


def table_bytes(header: FrameHeader) -> int:
    """Bytes of header and table: what must be read to know a frame's entries."""
    return _table_end(header.entry_count)


def parse_table(data: Buffer, at: int, header: FrameHeader, *, salt: int) -> list[Row]:
    """The table of the frame whose header lies at `data[at:]`. Raises DamageError."""
    start = at + FRAME_HEADER_BYTES
    table = bytes(data[start : start + header.entry_count * ROW_BYTES])
    if len(table) < header.entry_count * ROW_BYTES:
        raise DamageError(header.offset, "the file ends within a frame's table")
    if xxhash.xxh3_64_intdigest(table, salt) != header.table_hash:
        raise DamageError(header.offset + FRAME_HEADER_BYTES, "the frame's table does not match its checksum")
    rows = []
    place = _table_end(header.entry_count)
    for shard, _, sequence, time, length, hash_ in _ROW.iter_unpack(table):
        rows.append(Row(ShardId(shard), Sequence(sequence), HybridTime(time), place, length, hash_))
        place += _round_up(length, ENTRY_ALIGNMENT)
    return rows


def check_entry(data: Buffer, row: Row, *, offset: int) -> None:
    """data: the entry's bytes, at `offset` in the file. Raises DamageError."""
    if len(data) < row.length:
        raise DamageError(offset, f"the file ends within entry {row.sequence} of shard {row.shard}")
    if xxhash.xxh3_64_intdigest(data) != row.hash:
        raise DamageError(offset, f"entry {row.sequence} of shard {row.shard} does not match its checksum")


# --- the committed record ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Committed:
    """Up to where the log is known to be durable, kept in a file of its own.

    Rewritten after each sync without a sync of its own: it survives the death of the process, and after a power cut it
    may be older than the log, never newer.
    """

    first_file: int  # first frame of the oldest file kept; older ones are being removed
    last_file: int  # first frame of the file that holds the end
    end: int  # in that file, bytes

    def encode(self) -> bytes:
        head = _COMMITTED.pack(_COMMITTED_MAGIC, FORMAT_VERSION, 0, self.first_file, self.last_file, self.end, 0)
        head = head[: -_HASH.size]
        return head + _HASH.pack(xxhash.xxh3_64_intdigest(head))


def parse_committed(data: Buffer) -> Committed | None:
    """None when damaged: the log stands without it. Raises FORMAT_TOO_NEW."""
    if len(data) < COMMITTED_BYTES:
        return None
    magic, version, _, first_file, last_file, end, hash_ = _COMMITTED.unpack_from(data)
    if magic != _COMMITTED_MAGIC or hash_ != xxhash.xxh3_64_intdigest(bytes(data[: COMMITTED_BYTES - _HASH.size])):
        return None
    _refuse_version(version, "the log's committed record")
    return Committed(first_file, last_file, end)
