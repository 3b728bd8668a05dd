"""Lines of a text file, plain or gzip, with the place behind each, so that reading can go on there another day."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from jadevectordb.model.errors import ErrorCode
from jadevectordb.model.limits import TRANSFER_LINE_BYTES_MAX
from jadevectordb.transfer.rows import Position, UnfitError, open_failed, unreadable

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_BUFFER_BYTES = 1 << 18


class Line(NamedTuple):
    data: bytes | None  # with its end; None: longer than TRANSFER_LINE_BYTES_MAX, passed over
    number: int  # from 1
    end: int  # offset behind it in the unpacked text


class LineFile:
    """A text file. bytes_done: how much of the file on disk the lines given out so far took, about."""

    def __init__(self, path: Path, compressed: bool) -> None:
        self._path = path
        self._compressed = compressed
        self._raw: BinaryIO | None = None
        try:
            self.bytes_total = path.stat().st_size
        except OSError as error:
            raise open_failed(path, error) from error

    @property
    def bytes_done(self) -> int:
        return 0 if self._raw is None or self._raw.closed else min(self._raw.tell(), self.bytes_total)

    def lines(self, start: Position) -> Iterator[Line]:
        """From start.offset to the end of the file; start.line lines lie before it.

        Raises CORRUPT for a damaged or cut gzip file, IO_ERROR, INVALID_ARGUMENT for UTF-16.
        """
        try:
            with self._path.open("rb", buffering=_BUFFER_BYTES) as raw:
                self._raw = raw
                with closing(cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if self._compressed else raw) as opened:
                    unpacked = (
                        io.BufferedReader(cast(io.RawIOBase, opened), _BUFFER_BYTES) if self._compressed else opened
                    )
                    unpacked.seek(start.offset)
                    yield from self._lines(unpacked, start)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise unreadable(
                self._path, f"the gzip data is cut short or damaged ({error}): get the file anew."
            ) from error
        except OSError as error:
            raise open_failed(self._path, error) from error

    def _lines(self, unpacked: BinaryIO, start: Position) -> Iterator[Line]:
        offset, number = start.offset, start.line
        while data := unpacked.readline(TRANSFER_LINE_BYTES_MAX + 1):
            if offset == 0 and data.startswith(_UTF_16):
                raise unreadable(self._path, "it is UTF-16 text: save it as UTF-8.", ErrorCode.INVALID_ARGUMENT)
            offset += len(data)
            number += 1
            if len(data) > TRANSFER_LINE_BYTES_MAX:
                while data and not data.endswith(b"\n"):
                    data = unpacked.readline(TRANSFER_LINE_BYTES_MAX)
                    offset += len(data)
                yield Line(None, number, offset)
            else:
                yield Line(data.removeprefix(_BYTE_ORDER_MARK) if offset == len(data) else data, number, offset)


def too_long() -> UnfitError:
    return UnfitError("", f"the line is longer than {TRANSFER_LINE_BYTES_MAX} bytes, which is too long for one vector")
