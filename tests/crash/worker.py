"""The process that is killed: it performs operations that its parent sends, and dies where it was told to.

To die at a chosen place it wraps the system calls that change files. A call counts when the place asked for (appending,
sealing, merging, ...) is on its stack; at the n-th one the process sends SIGKILL to itself, before or after the call, or in the
middle of a write. Which place it was, is its last word to the parent.
"""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from jadevectordb import main
from jadevectordb.adapters.child_process import ChildProcess
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.main import RealWorld
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.segment import builder
from jadevectordb.shard import maintenance
from jadevectordb.shard.replica import Replica
from tests.crash.stream import LASTING, create, perform, schemas, watermarks

_PLACES: dict[CodeType, str] = {
    LocalLog.append.__code__: "append",
    LocalLog.truncate.__code__: "truncate",
    Replica.write_frozen.__code__: "seal",
    Replica.install.__code__: "merge",
    builder.build.__code__: "build",
    Store.snapshot.__code__: "snapshot",
    Store.create_database.__code__: "create",
    Store.drop_database.__code__: "drop",
    Store.alter_database.__code__: "alter",
    OpenDatabase.__init__.__code__: "open",
    Store.__init__.__code__: "open",
    Store.close.__code__: "close",
}
PLACES = tuple(dict.fromkeys(_PLACES.values()))
_CALLS = (
    "fsync", "fdatasync", "pwrite", "pwritev", "ftruncate", "open",
    "rename", "replace", "link", "unlink", "rmdir", "mkdir",
)  # fmt: skip


class Death(NamedTuple):
    """place: "" means that the parent decides. steps: calls that are survived there."""

    place: str = ""
    steps: int = 0
    real_builders: bool = False


def small_log(directory: Path) -> LocalLog:
    return LocalLog(directory, file_bytes=60_000, rotate_bytes_min=6_000)


def make_everything_small() -> None:
    """In this process: log files, and the size from which a segment goes the way of large ones."""
    main.LocalLog = small_log  # type: ignore[misc, assignment]
    maintenance.LARGE_ROWS = 400  # type: ignore[misc]
    maintenance._LARGE_PLAN_REST_S = 0.01  # type: ignore[misc]


def open_store(folder: Path, *, real_builders: bool = False) -> Store:
    """real_builders: build in child processes, as a program does; else in this process, so that dying takes the build along."""
    return Store(folder, RealWorld(ChildProcess if real_builders else InlineCompute))


def place_of_caller() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        place = _PLACES.get(frame.f_code)
        if place is not None:
            return place
        frame = frame.f_back  # type: ignore[assignment]
    return ""


class _Executioner:
    def __init__(self, death: Death, last_words: Connection) -> None:
        self._death = death
        self._last_words = last_words
        self._steps = death.steps
        self._lock = threading.Lock()
        self._half = random.Random(death.steps).random() < 0.5

    def attach(self) -> None:
        for name in _CALLS:
            setattr(os, name, self._wrapped(getattr(os, name), name))
        io.open = self._wrapped(io.open, "open")

    def _wrapped(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if place_of_caller() != self._death.place:
                return call(*arguments, **named)
            if self._due():
                if name == "pwritev" and self._half:
                    data = b"".join(arguments[1])
                    os.pwrite(arguments[0], data[: len(data) // 2], arguments[2])
                self._die(f"{name} (before)")
            answer = call(*arguments, **named)
            if self._due():
                self._die(f"{name} (after)")
            return answer

        return wrapped

    def _due(self) -> bool:
        with self._lock:
            self._steps -= 1
            return self._steps == -1

    def _die(self, where: str) -> None:
        self._last_words.send_bytes(f"{self._death.place}: {where}".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def run(orders: Connection, last_words: Connection, folder: Path, death: Death) -> None:
    """Open the store, say how far each database is, then answer one operation after the other, until None or death."""
    make_everything_small()
    if death.place:
        _Executioner(death, last_words).attach()
    store = open_store(folder, real_builders=death.real_builders)
    for name in LASTING:
        create(store, name)
    orders.send((watermarks(store), schemas(store)))
    while (op := orders.recv()) is not None:
        if op.kind == "reopen":
            store.close()
            store = open_store(folder, real_builders=death.real_builders)
        result = perform(store, op)
        orders.send(result)
    store.close()
    orders.send("closed")
