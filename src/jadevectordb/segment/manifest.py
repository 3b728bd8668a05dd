"""What makes a folder a sealed segment: a manifest that names every file with its size and checksum.

A segment folder is written under its final name and becomes part of the shard only when a checkpoint lists it, so a
half-written folder is never read. Sizes are checked at every open. Checksums are checked at open too while that is
quick (`VERIFY_AT_OPEN_BYTES`, smallest files first), the rest in the background: flipped bits are reported with their file,
never served for long, and never copied into a merged segment, whose checksums would vouch for them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import xxhash

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest"
_CHUNK_BYTES = 1 << 20
T = TypeVar("T")


class FileEntry(msgspec.Struct, frozen=True):
    size: int
    xxh3: str


class Manifest(msgspec.Struct, frozen=True):
    """Spans units first_unit..last_unit inclusive. index_kind: the one asked for; "" while none was built: exact search over the rows."""

    format: int
    first_unit: int
    last_unit: int
    row_count: int
    has_originals: bool
    index_kind: str
    has_columns: bool
    has_text: bool
    files: dict[str, FileEntry]
    index_parameters: dict[str, int] = {}  # set by hand when the index was built


def checksum_of(path: Path) -> FileEntry:
    """Size and xxh3 of a file, read in chunks."""
    digest, size = xxhash.xxh3_64(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size, digest.hexdigest())


def seal_bytes(value: Any) -> bytes:
    """msgpack of the value behind its checksum, so that a flipped bit is found when it is read."""
    body = msgspec.msgpack.encode(value)
    return xxhash.xxh3_64(body).digest() + body


def read_sealed_bytes(path: Path, kind: type[T]) -> T:
    """The value `seal_bytes` wrote. Raises CORRUPT or FORMAT_TOO_NEW naming the file, IO_ERROR when it can't be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise corrupt(path, "is missing") from None
    except OSError as error:
        raise JadeError(ErrorCode.IO_ERROR, f"{path} can't be read: {error.strerror}.") from error
    if len(data) < 8 or xxhash.xxh3_64(data[8:]).digest() != data[:8]:
        raise corrupt(path, "does not match its checksum")
    found = msgspec.msgpack.decode(data[8:])
    if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT_VERSION:
        raise too_new(path, found["format"])
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise corrupt(path, f"has an unexpected content ({error})") from error


def corrupt(path: Path, what: str) -> JadeError:
    return JadeError(
        ErrorCode.CORRUPT,
        f"{path} {what}. The disk or another program changed it: restore the database from a snapshot.",
        details={"file": str(path)},
    )


def too_new(path: Path, version: int) -> JadeError:
    return JadeError(
        ErrorCode.FORMAT_TOO_NEW,
        f"{path} has format {version}, this version reads up to {FORMAT_VERSION}: open it with a newer JadeVectorDB.",
        details={"file": str(path), "format": version, "supported": FORMAT_VERSION},
    )


def check_sizes(directory: Path, manifest: Manifest) -> None:
    """Every file is there with its full length: what makes mapping it safe (a short mapping would end the process)."""
    for name, entry in manifest.files.items():
        path = directory / name
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            raise corrupt(path, "is missing") from None
        if size != entry.size:
            raise corrupt(path, f"has {size} bytes instead of {entry.size}")


def verify(directory: Path, manifest: Manifest) -> None:
    """Read every file and compare checksums. Raises CORRUPT naming the first damaged file."""
    for name in manifest.files:
        verify_file(directory, manifest, name)


def verify_file(directory: Path, manifest: Manifest, name: str) -> None:
    """Read one file and compare its checksum. Raises CORRUPT, and what `disk_error` makes of a file that can't be read."""
    path = directory / name
    try:
        found = checksum_of(path)
    except FileNotFoundError:
        raise corrupt(path, "is missing") from None
    except OSError as error:
        raise disk_error(error, "check a file", path) from error
    if found != manifest.files[name]:
        raise corrupt(path, "does not match its checksum")


def total_bytes(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files.values())
