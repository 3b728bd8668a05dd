"""The demo's durability act: a writing process is ended by SIGKILL in the middle of a write, then its folder is opened.

What must hold: a batch whose acknowledgement was seen is there, whole and bit for bit; the batch that was under way is there
whole or not at all; nothing else is there. The folder is killed and continued several times, so later rounds also recover
from an earlier recovery.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import jadevectordb as jade
from jadevectordb.cli import demo_writer
from jadevectordb.cli.demo_writer import ACKNOWLEDGED, BATCH_ROWS, WRITING
from jadevectordb.model.limits import K_MAX

_CHILD_S_MAX = 60.0  # a writer that takes longer is stuck
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Killed:
    """What the writer had said when it died. in_flight: the batch begun and not acknowledged, None between two batches.

    tail: its last lines. unplanned: it ended by itself; what it wrote to stderr.
    """

    acknowledged: list[int]
    in_flight: int | None
    tail: list[str]
    unplanned: str = ""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What is in the folder. missing: acknowledged, and not there whole as it was sent. strange: neither acknowledged nor in
    flight, half-written, or other than sent. in_flight_there: whether the batch in flight is there (whole).

    seconds: from opening the folder to the first search answered.
    """

    batches: int
    vectors: int
    missing: list[int]
    strange: list[int]
    in_flight_there: bool
    seconds: float


def write_and_kill(folder: Path, first: int, batches: int, on_acknowledged: Callable[[int], None]) -> Killed:
    """Let a child process write from batch `first`; after `batches` acknowledgements kill it during the next write."""
    command = [sys.executable, "-m", demo_writer.__name__, str(folder), str(first)]
    said: list[str] = []
    # Its stderr goes to a file and its stdout is not read to the end: helpers it started may hold both a little longer
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as child:
            watchdog = threading.Timer(_CHILD_S_MAX, child.terminate)  # SIGTERM: not taken for the planned end
            watchdog.start()
            try:
                output = _Output(child)
                _kill_while_writing(child, output, said, batches, on_acknowledged)
                child.wait()
                said.extend(output.rest())  # said before the kill reached it, so it counts
            finally:
                watchdog.cancel()
                child.kill()
        complaints.seek(0)
        complaint = complaints.read().decode(errors="replace").strip()
    acknowledged = _numbers(said, ACKNOWLEDGED)
    begun = _numbers(said, WRITING)
    in_flight = begun[-1] if begun and begun[-1] not in acknowledged else None
    unplanned = "" if child.returncode == -signal.SIGKILL else complaint or f"exit code {child.returncode}"
    return Killed(acknowledged, in_flight, said[-3:], unplanned)


def _kill_while_writing(
    child: subprocess.Popen[bytes],
    output: _Output,
    said: list[str],
    batches: int,
    on_acknowledged: Callable[[int], None],
) -> None:
    """Read what the child says into `said`, and kill it when it has begun the write after the last one wanted."""
    write_s: list[float] = []
    begun_s = time.perf_counter()
    for line in output.lines():
        said.append(line)
        if line.startswith(ACKNOWLEDGED):
            write_s.append(time.perf_counter() - begun_s)
            on_acknowledged(min(len(write_s), batches))
            continue
        begun_s = time.perf_counter()
        if len(write_s) >= batches:
            # Somewhere within the time a write usually takes; not late in it, for a busy machine adds some
            time.sleep(random.Random().uniform(0.0, 0.5) * float(np.median(write_s)))
            os.kill(child.pid, signal.SIGKILL)
            return


class _Output:
    """The whole lines a child process has written to its stdout."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        self._pipe = child.stdout.fileno()
        self._unread = b""

    def lines(self) -> Iterator[str]:
        """As they come, until the end."""
        while True:
            yield from self._whole()
            chunk = os.read(self._pipe, _CHUNK_BYTES)
            if not chunk:
                return
            self._unread += chunk

    def rest(self) -> list[str]:
        """What is there now, without waiting."""
        os.set_blocking(self._pipe, False)
        with suppress(BlockingIOError):
            while chunk := os.read(self._pipe, _CHUNK_BYTES):
                self._unread += chunk
        return list(self._whole())

    def _whole(self) -> Iterator[str]:
        while b"\n" in self._unread:
            line, self._unread = self._unread.split(b"\n", 1)
            yield line.decode()


def _numbers(said: list[str], word: str) -> list[int]:
    return [int(line.split()[1]) for line in said if line.split()[0] == word]


def recover(folder: Path, acknowledged: set[int], in_flight: int | None) -> Recovered:
    """Open the folder as anyone would, and compare every vector in it with what was sent."""
    started = time.perf_counter()
    with jade.open(folder) as store:
        database = store.database(demo_writer.DATABASE)
        database.search(demo_writer.batch(1)[1][0], k=1)
        seconds = time.perf_counter() - started
        database.verify()
        found: dict[int, dict[str, tuple[dict[str, object], bytes]]] = {}
        for item in _all_items(database):
            rows = found.setdefault(int(item.metadata["batch"]), {})
            rows[item.id] = (item.metadata, item.vector.tobytes())
        vectors = database.count()
    whole = {number for number, rows in found.items() if rows == _sent(number)}
    allowed = acknowledged | ({in_flight} if in_flight is not None else set())
    strange = {number for number in found if number not in whole or number not in allowed}
    if vectors != sum(len(rows) for rows in found.values()):
        strange.add(0)  # counted and listed differ
    return Recovered(
        len(whole),
        vectors,
        sorted(acknowledged - whole),
        sorted(strange),
        in_flight in whole,
        seconds,
    )


def _all_items(database: jade.Database) -> Iterator[jade.Item]:
    """`Database.items` in large pages."""
    cursor: str | None = None
    while True:
        page = database.scroll(K_MAX, cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


def _sent(number: int) -> dict[str, tuple[dict[str, object], bytes]]:
    ids, vectors, metadata = demo_writer.batch(number)
    assert len(ids) == BATCH_ROWS
    return {name: (data, row.tobytes()) for name, data, row in zip(ids, metadata, vectors, strict=True)}
