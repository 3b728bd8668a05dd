"""How the columns of a block lie on disk: one file of arrays, one directory that says what each array is.

`columns.bin` holds numpy arrays one after another, each at a multiple of 64 bytes, so that they are used where they are mapped.
`columns.json` is the directory: its first line is the checksum of the rest. Opening reads the directory alone; an array is compared
with its checksum when it is first used, so a flipped bit is CORRUPT with the name of the file, never a wrong answer, and a segment of
millions of rows still opens in a millisecond. In memory, for rows not yet sealed, the same arrays lie in a bytes object.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError

DATA_NAME: Final = "columns.bin"
DIRECTORY_NAME: Final = "columns.json"
FORMAT_VERSION: Final = 1
_ALIGNMENT: Final = 64


class ArrayRef(msgspec.Struct, frozen=True, array_like=True):
    """An array in the data file. checksum: xxh3-64 of its bytes."""

    offset: int
    dtype: str
    length: int
    checksum: int


class RowSetRef(msgspec.Struct, frozen=True):
    """A set of rows: none, all, a list of uint32, or bits, whichever is smallest."""

    count: int = 0
    rows: ArrayRef | None = None
    bits: ArrayRef | None = None


class PostingsRef(msgspec.Struct, frozen=True):
    """Sorted keys and the rows of each (`postings`)."""

    key_count: int
    ends: ArrayRef  # uint32 (keys + 1,): rows of all keys before this one
    rows: ArrayRef  # uint32: rows of the keys that have few, key after key
    dense: list[int]  # the keys that have many, ascending
    dense_bits: ArrayRef  # uint8: their bitmaps, one after another
    codes: (
        ArrayRef | None
    )  # (n,): each row's key, `key_count` for none; absent when a row has several keys or few rows have one


class NumbersRef(msgspec.Struct, frozen=True):
    values: ArrayRef  # int64 or float64, ascending, each once
    postings: PostingsRef


class StringsRef(msgspec.Struct, frozen=True):
    blob: ArrayRef  # uint8: distinct strings in UTF-8, ascending, one after another
    offsets: ArrayRef  # int64 (terms + 1,)
    postings: PostingsRef
    instants: ArrayRef | None  # int64, ascending: instants of the strings that are dates
    instant_terms: ArrayRef | None  # uint32: the term of each


class ColumnRef(msgspec.Struct, frozen=True):
    """Everything known about one path."""

    present: RowSetRef
    null: RowSetRef = RowSetRef()
    true: RowSetRef = RowSetRef()
    false: RowSetRef = RowSetRef()
    arrays: RowSetRef = RowSetRef()  # rows where the path leads to an array
    mixed: RowSetRef = RowSetRef()  # of those, rows where it leads to a value outside any array too
    long_strings: RowSetRef = RowSetRef()  # rows with a string that was cut
    unsure_numbers: RowSetRef = RowSetRef()  # rows with a number that the column cannot hold exactly
    unsure_strings: RowSetRef = RowSetRef()  # rows with strings that are not in the column
    numbers: NumbersRef | None = None
    strings: StringsRef | None = None


class Directory(msgspec.Struct, frozen=True):
    version: int
    row_count: int
    data_bytes: int
    dates: list[str]  # paths declared as dates when the columns were built
    columns: dict[str, ColumnRef]
    overflow: RowSetRef  # rows that carry a path for which there was no room


class ArrayWriter:
    """Appends arrays to a stream and says where they are."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.position = 0

    def add(self, array: npt.NDArray[Any]) -> ArrayRef:
        data = np.ascontiguousarray(array).view(np.uint8).data
        padding = -self.position % _ALIGNMENT
        self._stream.write(b"\0" * padding)
        offset = self.position + padding
        self._stream.write(data)
        self.position = offset + len(data)
        return ArrayRef(offset, array.dtype.str, len(array), xxhash.xxh3_64_intdigest(data))


class ArrayReader:
    """The arrays of one block. buffer: a mapped file or bytes; arrays are views of it, read-only."""

    def __init__(self, buffer: mmap.mmap | bytes, name: str) -> None:
        self.buffer = buffer
        self._name = name
        self._checked: dict[int, npt.NDArray[Any]] = {}  # by offset; at most one entry an array

    def get(self, ref: ArrayRef) -> npt.NDArray[Any]:
        """The array, compared with its checksum at the first use. Raises CORRUPT."""
        array = self._checked.get(ref.offset)
        if (
            array is None or array.dtype.str != ref.dtype or len(array) != ref.length
        ):  # an empty array shares its offset
            try:
                array = np.empty(0, ref.dtype)
                if ref.length:
                    array = np.frombuffer(self.buffer, ref.dtype, ref.length, ref.offset)
            except (ValueError, TypeError) as error:
                raise corrupt(self._name, f"an array at byte {ref.offset} lies outside the file ({error})") from None
            if xxhash.xxh3_64_intdigest(array.view(np.uint8).data) != ref.checksum:
                raise corrupt(self._name, f"the {array.nbytes} bytes from byte {ref.offset} do not have their checksum")
            self._checked[ref.offset] = array
        return array


def corrupt(name: str, what: str) -> JadeError:
    return JadeError(
        ErrorCode.CORRUPT,
        f"{name} is damaged: {what}; restore the file from a snapshot, or rebuild the segment from its records",
        details={"file": name},
    )


def write_directory(directory: Directory, path: Path) -> None:
    body = msgspec.json.encode(directory)
    path.write_bytes(f"{xxhash.xxh3_64_hexdigest(body)}\n".encode() + body)


def open_files(folder: Path, row_count: int) -> tuple[Directory, ArrayReader]:
    """Map the data file and read its directory. Raises CORRUPT, FORMAT_TOO_NEW, IO_ERROR."""
    directory = _read_directory(folder / DIRECTORY_NAME)
    data = folder / DATA_NAME
    if directory.row_count != row_count:
        raise corrupt(
            str(folder / DIRECTORY_NAME), f"it describes {directory.row_count} rows, the segment has {row_count}"
        )
    try:
        size = data.stat().st_size
        if size != directory.data_bytes:
            raise corrupt(str(data), f"it has {size} bytes, {directory.data_bytes} were written")
        with data.open("rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        raise corrupt(str(data), "it is missing") from None
    except OSError as error:
        raise disk_error(error, "read filter columns", data) from error
    return directory, ArrayReader(buffer, str(data))


def _read_directory(path: Path) -> Directory:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise corrupt(str(path), "it is missing") from None
    except OSError as error:
        raise disk_error(error, "read filter columns", path) from error
    checksum, _, body = content.partition(b"\n")
    if checksum != xxhash.xxh3_64_hexdigest(body).encode():
        raise corrupt(str(path), "its content does not have its checksum")
    try:
        version = msgspec.json.decode(body, type=_Version).version
        if version > FORMAT_VERSION:
            raise JadeError(
                ErrorCode.FORMAT_TOO_NEW,
                f"{path} was written in format {version}, this program reads up to {FORMAT_VERSION}; use a newer version",
                details={"file": str(path), "format": version},
            )
        return msgspec.json.decode(body, type=Directory)
    except msgspec.MsgspecError as error:
        raise corrupt(str(path), f"it is not a directory of columns ({error})") from None


class _Version(msgspec.Struct):
    version: int
