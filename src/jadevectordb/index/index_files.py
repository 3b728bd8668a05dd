"""The files of an index in its directory: `index.json`, which names the others with size and checksum, and the others.

`index.json` is one line of checksum and one of JSON. A file that is missing, damaged, of another size, or made for other
rows is refused at opening with an error that names it: a flipped bit in a row number would otherwise make a kernel read
foreign memory. Files are written here and made durable by whoever owns the directory.
"""

from __future__ import annotations

import errno
import mmap
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind

META_NAME = "index.json"
FORMAT_VERSION = 1


class FileRecord(msgspec.Struct, frozen=True):
    bytes: int
    xxh3: str  # 64-bit digest, hexadecimal


class IndexMeta(msgspec.Struct, frozen=True):
    """What `index.json` says. body: the index kind's own parameters and calibration."""

    format: int
    kind: IndexKind  # what it is
    metric: str
    dimension: int
    row_count: int
    files: dict[str, FileRecord]
    body: msgspec.Raw


def write_array(values: npt.NDArray[Any], path: Path) -> None:
    """Write the bare values of a C-order array. Raises DISK_FULL or IO_ERROR."""
    _write(path, np.ascontiguousarray(values).tobytes())


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        code = ErrorCode.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorCode.IO_ERROR
        sentence = f"The index file {path} could not be written ({error.strerror}): make room or check the folder, then try again."
        raise JadeError(code, sentence, details={"file": str(path)}) from error


def write_meta(
    directory: Path, kind: IndexKind, space: VectorSpace, *, row_count: int, names: list[str], body: Any
) -> list[str]:
    """Record the files already written under `names`; returns all names, `index.json` last."""
    files = {name: _record(directory / name) for name in names}
    meta = IndexMeta(
        FORMAT_VERSION,
        kind,
        space.metric.value,
        space.dimension,
        row_count,
        files,
        msgspec.Raw(msgspec.json.encode(body)),
    )
    line = msgspec.json.encode(meta)
    _write(directory / META_NAME, xxhash.xxh3_64_hexdigest(line).encode() + b"\n" + line + b"\n")
    return [*names, META_NAME]


def read_meta(directory: Path, space: VectorSpace, row_count: int) -> IndexMeta:
    """The checked `index.json`, its files checked against it. Raises CORRUPT or FORMAT_TOO_NEW naming the file."""
    path = directory / META_NAME
    try:
        parts = path.read_bytes().split(b"\n")
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")
    if len(parts) != 3 or parts[2] or xxhash.xxh3_64_hexdigest(parts[1]).encode() != parts[0]:
        refuse(path, "does not match its checksum")
    try:
        version = msgspec.json.decode(parts[1], type=dict[str, Any])["format"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise JadeError(
                ErrorCode.FORMAT_TOO_NEW,
                f"The index file {path} has format {version}; this version reads up to {FORMAT_VERSION}: upgrade, or rebuild the index.",
                details={"file": str(path), "format": version},
            )
        meta = msgspec.json.decode(parts[1], type=IndexMeta)
    except (msgspec.DecodeError, KeyError) as error:
        refuse(path, f"is not an index description ({error})")
    made_for = (meta.metric, meta.dimension, meta.row_count)
    asked = (space.metric.value, space.dimension, row_count)
    if made_for != asked:
        refuse(path, f"was made for (metric, dimension, rows) {made_for}, not for {asked}")
    for name, record in meta.files.items():
        _check(directory / name, record)
    return meta


def refuse(path: Path, why: str) -> NoReturn:
    raise JadeError(
        ErrorCode.CORRUPT,
        f"The index file {path} {why}: rebuild the index of this segment.",
        details={"file": str(path)},
    )


def _check(path: Path, record: FileRecord) -> None:
    try:
        actual = _record(path)
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")
    if actual.bytes != record.bytes:
        refuse(path, f"has {actual.bytes} bytes instead of {record.bytes}")
    if actual.xxh3 != record.xxh3:
        refuse(path, "does not match its checksum")


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        if size == 0:
            return FileRecord(0, xxhash.xxh3_64_hexdigest(b""))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return FileRecord(size, xxhash.xxh3_64_hexdigest(view))
