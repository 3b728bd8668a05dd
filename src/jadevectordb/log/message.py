"""One entry as one message of a replicated log: the entry's bytes behind a header that tells damage and misplacement.

    header   32 bytes   magic, format version, shard, length of the entry, unused, hash
    entry               `log.entry`, aligned as in a file

The hash is xxh3-64 over the header before it and the entry, seeded with the stream's name: a message that was stored for
another stream does not pass. The place in the stream is the servers' to keep and the reader's to check: sequences are dense.
"""

from __future__ import annotations

import struct

import xxhash

from jadevectordb.log.entry import Buffer, decode, encode_parts
from jadevectordb.log.frame import DamageError
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import ShardId
from jadevectordb.model.operations import Entry

FORMAT_VERSION = 1
_MAGIC = b"jMsg"
_HEAD = struct.Struct("<4sHHIIQ")  # magic, format version, unused, shard, length, unused
_HASH = struct.Struct("<Q")
HEADER_BYTES = _HEAD.size + _HASH.size
assert HEADER_BYTES == 32


def stream_seed(stream: str) -> int:
    """What the hashes of this stream's messages are seeded with."""
    return xxhash.xxh3_64_intdigest(stream.encode())


def encode_message(shard: ShardId, entry: Entry, seed: int) -> bytes:
    """Raises INVALID_ID when an id is no valid Unicode text."""
    parts = encode_parts(entry)
    length = sum(len(part) for part in parts)
    head = _HEAD.pack(_MAGIC, FORMAT_VERSION, 0, shard, length, 0)
    hasher = xxhash.xxh3_64(head, seed)
    for part in parts:
        hasher.update(part)
    return b"".join([head, _HASH.pack(hasher.intdigest()), *parts])


def decode_message(data: bytes, shard: ShardId, seed: int) -> Entry:
    """The entry; its vectors are a view of `data`. Raises DamageError, or FORMAT_TOO_NEW."""
    if len(data) < HEADER_BYTES:
        raise DamageError(0, f"it has {len(data)} bytes, fewer than a header")
    magic, version, _, own_shard, length, _ = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise DamageError(0, "it does not begin as an entry does")
    if version > FORMAT_VERSION:
        raise JadeError(
            ErrorCode.FORMAT_TOO_NEW,
            f"a message of the log has format version {version}, this program reads up to {FORMAT_VERSION}; "
            "use the newer JadeVectorDB that wrote it",
            details={"version": version, "supported": FORMAT_VERSION},
        )
    view = memoryview(data)
    hasher = xxhash.xxh3_64(view[: _HEAD.size], seed)
    hasher.update(view[HEADER_BYTES:])
    if _HASH.unpack_from(data, _HEAD.size)[0] != hasher.intdigest():
        raise DamageError(0, "it does not match its checksum")
    if length != len(data) - HEADER_BYTES:
        raise DamageError(0, f"{length} bytes were written, {len(data) - HEADER_BYTES} are there")
    if own_shard != shard:
        raise DamageError(0, f"it was written for shard {own_shard}")
    entry: Buffer = view[HEADER_BYTES:]
    return decode(entry)
