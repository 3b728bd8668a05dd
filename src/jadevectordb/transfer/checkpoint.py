"""How far an import has come, in a small file, so that it goes on after a crash where it was.

The file says what was acknowledged, never more: it is written after the sink has acknowledged, and replaced as a whole. What was
acknowledged since is sent again after a crash, in the same batches under the same request ids, and the database knows them.
Request ids begin with a number drawn when the import began. So a later import of the same file is another import: it does not
count as a repetition, and puts back what was deleted in between.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import msgspec
import xxhash

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.transfer.rows import BadRow, Position, open_failed, write_failed

FORMAT_VERSION = 1
_HASHED_BYTES = 1 << 16


class Fingerprint(msgspec.Struct, frozen=True):
    """A file as it was when an import began."""

    size: int
    modified_ns: int
    head: str  # xxh3 of its first 64 KB

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        try:
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                return cls(state.st_size, state.st_mtime_ns, xxhash.xxh3_64_hexdigest(file.read(_HASHED_BYTES)))
        except OSError as error:
            raise open_failed(path, error) from error


class Checkpoint(msgspec.Struct):
    """The state of one import. Counts are of everything acknowledged up to `position`."""

    run: str  # drawn when the import began; the beginning of its request ids
    file: Fingerprint
    ids: Fingerprint | None  # of the file of ids, where there is one
    options: str  # what else decides which rows are made of the file
    position: Position = Position()
    rows: int = 0
    batches: int = 0
    skipped: int = 0
    replaced: int = 0
    errors: list[BadRow] = msgspec.field(default_factory=list)
    format: int = FORMAT_VERSION


def begin(file: Fingerprint, ids: Fingerprint | None, options: str) -> Checkpoint:
    return Checkpoint(os.urandom(8).hex(), file, ids, options)


def load(path: Path) -> Checkpoint | None:
    """None when there is none. Raises CORRUPT, FORMAT_TOO_NEW, IO_ERROR."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise open_failed(path, error) from error
    try:
        version = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])["format"]
        if int(bytes(version)) > FORMAT_VERSION:
            raise JadeError(
                ErrorCode.FORMAT_TOO_NEW,
                f"The import checkpoint {path} was written by a newer version: use that, or begin anew with resume=False.",
                details={"file": str(path)},
            )
        return msgspec.json.decode(raw, type=Checkpoint)
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"{path} is not an import checkpoint ({error}): give another path, or begin anew with resume=False.",
            details={"file": str(path)},
        ) from error


def check_same(saved: Checkpoint, now: Checkpoint, source: Path, path: Path) -> None:
    """Raises INVALID_ARGUMENT when what was saved belongs to another file, or to the same one before it was changed."""
    for before, after, what in (
        (saved.file, now.file, str(source)),
        (saved.ids, now.ids, f"the file of ids of {source}"),
    ):
        if before != after:
            sizes = (
                f" ({before.size} bytes then, {after.size} now)"
                if before and after and before.size != after.size
                else ""
            )
            _refuse(path, f"{what} is not the file this import began with, or was changed since{sizes}")
    if saved.options != now.options:
        _refuse(path, f"the import began with other options: {saved.options}, now {now.options}")


def _refuse(path: Path, why: str) -> NoReturn:
    raise JadeError(
        ErrorCode.INVALID_ARGUMENT,
        f"The import cannot go on from {path}: {why}. Begin anew with resume=False: rows imported before are replaced, not doubled.",
        details={"file": str(path)},
    )


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file; durable on return. Raises IO_ERROR, DISK_FULL."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(checkpoint))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise write_failed(path, error) from error


def remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_failed(path, error) from error


def sync_directory(directory: Path) -> None:
    """Make a rename in it durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
