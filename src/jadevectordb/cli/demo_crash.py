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
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import jadevectordb as jade
from jadevectordb.cli import demo_writer
from jadevectordb.cli.demo_writer import ACKNOWLEDGED, BATCH_ROWS, WRITING

_CHILD_S_MAX = 60.0  # a writer that takes longer is stuck


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
    acknowledged: list[int] = []
    lines: list[str] = []
    write_s: list[float] = []
    begun_s = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        watchdog = threading.Timer(_CHILD_S_MAX, child.terminate)  # SIGTERM: not taken for the planned end
        watchdog.start()
        try:
            for line in child.stdout:
                lines.append(line.strip())
                word, number = line.split()
                if word == ACKNOWLEDGED:
                    acknowledged.append(int(number))
                    write_s.append(time.perf_counter() - begun_s)
                    on_acknowledged(len(acknowledged))
                    continue
                begun_s = time.perf_counter()
                if len(acknowledged) >= batches:
                    # Somewhere within the time a write usually takes
                    time.sleep(random.Random().uniform(0.0, 0.7) * float(np.median(write_s)))
                    os.kill(child.pid, signal.SIGKILL)
                    break
        finally:
            watchdog.cancel()
            child.kill()
        # What it had said and was still in the pipe counts as well: it was acknowledged before the kill reached it
        lines.extend(line.strip() for line in child.stdout if line.endswith("\n"))
        complaint = child.stderr.read()
    said = [line.split() for line in lines]
    acknowledged = [int(number) for word, number in said if word == ACKNOWLEDGED]
    begun = [int(number) for word, number in said if word == WRITING]
    in_flight = begun[-1] if begun and begun[-1] not in acknowledged else None
    unplanned = "" if child.returncode == -signal.SIGKILL else complaint.strip() or f"exit code {child.returncode}"
    return Killed(acknowledged, in_flight, lines[-3:], unplanned)


def recover(folder: Path, acknowledged: set[int], in_flight: int | None) -> Recovered:
    """Open the folder as anyone would, and compare every vector in it with what was sent."""
    started = time.perf_counter()
    with jade.open(folder) as store:
        database = store.database(demo_writer.DATABASE)
        database.search(demo_writer.batch(1)[1][0], k=1)
        seconds = time.perf_counter() - started
        database.verify()
        found: dict[int, dict[str, tuple[dict[str, object], bytes]]] = {}
        for item in database.items():
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


def _sent(number: int) -> dict[str, tuple[dict[str, object], bytes]]:
    ids, vectors, metadata = demo_writer.batch(number)
    assert len(ids) == BATCH_ROWS
    return {name: (data, row.tobytes()) for name, data, row in zip(ids, metadata, vectors, strict=True)}
