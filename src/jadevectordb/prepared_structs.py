"""Makes every record type ready for decoding before threads use it.

msgspec works out how a Struct is decoded when that is first asked for, and shows what it has so far to other threads meanwhile: when
two threads are the first to decode one type, the second may follow a pointer that is not there yet, and the process dies. So who
starts threads, or hands objects to those of others, calls this first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec

_ONE_AT_A_TIME = threading.Lock()


def prepare_structs() -> None:
    """Of all Struct types of this package that are imported by now. Again is cheap."""
    with _ONE_AT_A_TIME:
        for kind in _kinds(msgspec.Struct):
            if kind.__module__.startswith("jadevectordb."):
                msgspec.json.Decoder(kind)


def _kinds(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)
