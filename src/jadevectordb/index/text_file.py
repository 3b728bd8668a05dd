"""The text index of a sealed block: one file, mapped into memory, searchable a fraction of a millisecond after opening.

    sections, each at a multiple of 64 bytes
      hashes       uint64 (t,)     xxh3 of each key, ascending: a term is found by bisection. A key is the field's number as
                                   one byte, then the term in UTF-8
      key_starts   uint64 (t+1,)   where each key lies in `keys`
      keys         uint8           all keys, to tell equal hashes apart
      starts       uint64 (t+1,)   where each key's posting lies in `rows` and `frequencies`
      rows         uint32 (p,)     ascending within a posting
      frequencies  uint8, uint16 or uint32 (p,), the smallest that holds the greatest
      lengths      uint32 (fields, rows)
    footer         JSON: format version, fields, row count, of each section name, dtype, offset, length and xxh3
    trailer        24 bytes, little endian: footer length uint64, xxh3 of the footer uint64, magic "JADETEXT"

The footer comes last, so a file that was cut short is never mistaken for a whole one. Opening checks trailer, footer and the
place of every section; `verify` reads everything and checks the sections' sums as well. Numbers are little endian.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.index.text_bm25 import Frequencies, Posting, Scores, TermStats, TextReader
from jadevectordb.model.errors import ErrorCode, JadeError

FILE_NAME = "text.index"
FORMAT_VERSION = 1
_MAGIC = b"JADETEXT"
_TRAILER = struct.Struct("<QQ8s")
_ALIGNMENT_BYTES = 64
_SECTIONS = ("hashes", "key_starts", "keys", "starts", "rows", "frequencies", "lengths")
_DTYPES = ("<u8", "|u1", "<u2", "<u4")


class _Section(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    offset: int  # bytes from the start of the file
    length: int  # elements
    checksum: int  # xxh3 of its bytes


class _Footer(msgspec.Struct, frozen=True):
    version: int
    fields: list[str]
    row_count: int
    sections: list[_Section]


def key_of(field: int, term: str) -> bytes:
    return bytes((field,)) + term.encode()


def hash_of(key: bytes) -> int:
    return xxhash.xxh3_64_intdigest(key)


class TextFileWriter:
    """Writes sections one after the other, then the footer. The file counts only after `finish`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._sections: list[_Section] = []

    def section(self, name: str, dtype: str, chunks: Iterable[npt.NDArray[Any]]) -> None:
        """chunks: arrays that together are the section; each is converted to dtype, and dropped once written."""
        assert name == _SECTIONS[len(self._sections)] and dtype in _DTYPES
        self._offset += self._file.write(bytes(-self._offset % _ALIGNMENT_BYTES))
        offset, length, checksum = self._offset, 0, xxhash.xxh3_64()
        for chunk in chunks:
            data = np.ascontiguousarray(chunk, np.dtype(dtype)).reshape(-1).view(np.uint8).data
            checksum.update(data)
            self._offset += self._file.write(data)
            length += chunk.size
        self._sections.append(_Section(name, dtype, offset, length, checksum.intdigest()))

    def finish(self, fields: tuple[str, ...], row_count: int) -> None:
        assert len(self._sections) == len(_SECTIONS)
        footer = msgspec.json.encode(_Footer(FORMAT_VERSION, list(fields), row_count, self._sections))
        self._file.write(footer)
        self._file.write(_TRAILER.pack(len(footer), hash_of(footer), _MAGIC))
        self._file.flush()
        os.fsync(self._file.fileno())


def open_text(directory: Path, row_count: int) -> TextIndex:
    """The text index that `build_text` left in the directory. row_count: rows of the block, by its own count.

    Raises CORRUPT, naming the file, when it is missing, damaged or of another block; FORMAT_TOO_NEW; IO_ERROR.
    """
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _TRAILER.size:
                raise _corrupt(path, f"it has {size} bytes, too few for a text index")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise _corrupt(path, "it is missing") from error
    except OSError as error:
        raise JadeError(
            ErrorCode.IO_ERROR, f"The text index {path} could not be opened: {error}.", details={"file": str(path)}
        ) from error
    footer = _read_footer(path, mapped)
    if footer.row_count != row_count:
        raise _corrupt(path, f"it is of a block of {footer.row_count} rows, not {row_count}")
    return TextIndex(path, mapped, footer)


def _read_footer(path: Path, mapped: mmap.mmap) -> _Footer:
    length, checksum, magic = _TRAILER.unpack(mapped[-_TRAILER.size :])
    end = len(mapped) - _TRAILER.size
    if magic != _MAGIC or length > end:
        raise _corrupt(path, "its end is missing or overwritten")
    raw = mapped[end - length : end]
    if hash_of(raw) != checksum:
        raise _corrupt(path, "its footer does not match its checksum")
    version = msgspec.json.decode(raw)["version"]
    if version > FORMAT_VERSION:
        raise JadeError(
            ErrorCode.FORMAT_TOO_NEW,
            f"The text index {path} has format {version}, this program reads up to {FORMAT_VERSION}: use a newer one.",
            details={"file": str(path), "version": version},
        )
    return msgspec.json.decode(raw, type=_Footer)


class TextIndex(TextReader):
    """A sealed block's postings, mapped. Immutable and safe for any number of threads; the file may be deleted meanwhile."""

    def __init__(self, path: Path, mapped: mmap.mmap, footer: _Footer) -> None:
        super().__init__(tuple(footer.fields), footer.row_count)
        self._path = path
        self._sections = footer.sections
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        for name, section in zip(_SECTIONS, footer.sections, strict=True):
            dtype = np.dtype(section.dtype)
            if section.name != name or section.offset + section.length * dtype.itemsize > len(mapped):
                raise _corrupt(path, f"its section '{section.name}' is not where it should be")
            self._arrays[name] = np.frombuffer(mapped, dtype, section.length, section.offset)
        self._hashes: npt.NDArray[np.uint64] = self._arrays["hashes"]
        self._key_starts: npt.NDArray[np.uint64] = self._arrays["key_starts"]
        self._keys: npt.NDArray[np.uint8] = self._arrays["keys"]
        self._starts: npt.NDArray[np.uint64] = self._arrays["starts"]
        self._rows: npt.NDArray[np.uint32] = self._arrays["rows"]
        self._frequencies: Frequencies = self._arrays["frequencies"]
        self._lengths: npt.NDArray[np.uint32] = self._arrays["lengths"].reshape(len(self.fields), self.row_count)

    @property
    def term_count(self) -> int:
        """Different terms, those of different fields counted apart."""
        return len(self._hashes)

    @property
    def bytes_on_disk(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    def posting(self, field: int, term: str) -> Posting | None:
        key = key_of(field, term)
        wanted = np.uint64(hash_of(key))
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            if self._keys[int(self._key_starts[at]) : int(self._key_starts[at + 1])].tobytes() == key:
                return self._posting_at(at)
            at += 1
        return None

    def lengths(self, field: int) -> npt.NDArray[np.uint32]:
        lengths: npt.NDArray[np.uint32] = self._lengths[field]
        return lengths

    def term_hashes(self) -> npt.NDArray[np.uint64]:
        return self._hashes

    def stats(self, terms: Sequence[str], live: Bitmap | None = None) -> TermStats:
        try:
            stats = super().stats(terms, live)
        except IndexError as error:
            raise _corrupt(self._path, "a posting names a row outside of the block") from error
        for frequencies, documents in zip(stats.document_frequency, stats.document_count, strict=True):
            if max(frequencies, default=0) > documents:
                raise _corrupt(self._path, "its postings and its lengths disagree")
        return stats

    def search(
        self,
        terms: Sequence[str],
        k: int,
        global_stats: TermStats,
        allow: Bitmap | None = None,
        boosts: Mapping[str, float] | None = None,
    ) -> tuple[Scores, RowArray]:
        try:
            return super().search(terms, k, global_stats, allow, boosts)
        except IndexError as error:
            raise _corrupt(self._path, "a posting names a row outside of the block") from error

    def _posting_at(self, at: int) -> Posting:
        start, end = int(self._starts[at]), int(self._starts[at + 1])
        # Rows are used as positions without a look at each: the last one, their greatest in a sound file, stands for all,
        # and numpy checks bounds itself.
        inside = start < end <= len(self._rows) and end - start <= self.row_count
        if not inside or self._rows[end - 1] >= self.row_count:
            raise _corrupt(self._path, f"its posting {at} points outside of it")
        return Posting(self._rows[start:end], self._frequencies[start:end])

    def verify(self) -> None:
        """Read every section and compare it with its checksum. Raises CORRUPT naming the file and the section."""
        for section in self._sections:
            if xxhash.xxh3_64_intdigest(self._arrays[section.name].data) != section.checksum:
                raise _corrupt(self._path, f"its section '{section.name}' does not match its checksum")


def _corrupt(path: Path, why: str) -> JadeError:
    return JadeError(
        ErrorCode.CORRUPT,
        f"The text index {path} is damaged: {why}. It can be rebuilt from the records, or restored from a snapshot.",
        details={"file": str(path)},
    )
