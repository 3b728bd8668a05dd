"""Who waits for the index does not wait for builds that took their time over a plan of before, wherever he waits."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import numpy as np

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.gateway.cluster.asking import Held, look
from jadevectordb.gateway.embedded.opening import Opening
from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.main import RealWorld
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import NodeId
from jadevectordb.ports.node_calls import Asked, Look


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
        assert begun.wait(60)  # the first 20 rows are frozen, and somebody is at their index
        database.upsert([f"w{n}" for n in range(20)], rows[20:])
        database.wait_indexed(60)
        assert [part.rows for part in database.stats().segments if part.index != "growing"] == [40]
    finally:
        store.close()


def test_who_waits_on_another_node_says_so_with_each_look(tmp_path: Path) -> None:
    begun = threading.Event()
    rows = np.random.default_rng(3).random((40, 8), np.float32)
    store = jade.Store(tmp_path, RealWorld(lambda: _Leisurely(begun)))
    try:
        database = store.create_database("a", dimension=8, seal_rows=20)
        database.upsert([f"v{n}" for n in range(20)], rows[:20])
        assert begun.wait(60)
        database.upsert([f"w{n}" for n in range(20)], rows[20:])
        database.seal(compact=False)
        held = Held((0,), [Opening(database._use(), NodeId("n1"))])

        def looked(hurry_s: float) -> Stats:
            call = Look(asked=Asked(database="a", shards=(0,)), what="stats", hurry_s=hurry_s)
            return msgspec.json.decode(look(held, call, lambda: None).by_shard[0][1], type=Stats)

        assert not looked(0.0).settled  # looking alone changes nothing: it would take for ever
        until = time.monotonic() + 60
        while not looked(1.0).settled:
            assert time.monotonic() < until
        assert [part.rows for part in looked(0.0).segments if part.index != "growing"] == [40]
    finally:
        store.close()
