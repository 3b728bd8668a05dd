"""Who waits for the index does not wait for builds that took their time over a plan of before."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld
from jadevectordb.model.errors import ErrorCode, JadeError


class _Leisurely(InlineCompute):
    """Unhurried work takes for ever, or until it is interrupted."""

    def __init__(self, begun: threading.Event) -> None:
        self._begun = begun
        self._interrupted = threading.Event()

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        if hurried:
            return super().run(task, payload, hurried=True)
        self._begun.set()
        self._interrupted.wait()
        raise JadeError(ErrorCode.CANCELLED, "interrupted")

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._interrupted.set()


def test_waiting_interrupts_a_build_that_the_wanted_plan_does_without(tmp_path: Path) -> None:
    begun = threading.Event()
    rows = np.random.default_rng(3).random((40, 8), np.float32)
    store = jade.Store(tmp_path, RealWorld(lambda: _Leisurely(begun)))
    try:
        database = store.create_database("a", dimension=8, seal_rows=20)
        database.upsert([f"v{n}" for n in range(20)], rows[:20])
        assert begun.wait(30)  # the first 20 rows are frozen, and somebody is at their index
        database.upsert([f"w{n}" for n in range(20)], rows[20:])
        database.wait_indexed(60)
        assert [part.rows for part in database.stats().segments if part.index != "growing"] == [40]
    finally:
        store.close()
