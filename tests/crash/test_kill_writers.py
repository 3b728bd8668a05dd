"""Several threads write at once when the process is killed: every batch is there whole, none older than acknowledged."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.crash import worker

THREADS, ROWS, KILLS, DIMENSION = 4, 24, 10, 6


def vectors_of(thread: int, turn: int) -> np.ndarray:
    return np.random.default_rng([thread, turn]).standard_normal((ROWS, DIMENSION)).astype(np.float32)


def ids_of(thread: int) -> list[str]:
    return [f"{thread}.{row}" for row in range(ROWS)]


def write_forever(acknowledge: Connection, folder: Path, turns: list[int]) -> None:
    """Each thread writes its own rows, over all shards, again and again; `turns`: where each goes on."""
    worker.make_everything_small()
    database = worker.open_store(folder).create_database("d", DIMENSION, shards=3, seal_rows=70, exist_ok=True)
    lock = threading.Lock()

    def write(thread: int) -> None:
        turn = turns[thread]
        while True:
            turn += 1
            database.upsert(ids_of(thread), vectors_of(thread, turn), [{"turn": turn}] * ROWS)
            with lock:
                acknowledge.send((thread, turn))

    for thread in range(THREADS):
        threading.Thread(target=write, args=(thread,)).start()


def test_batches_of_parallel_writers_survive_whole(tmp_path: Path) -> None:
    worker.make_everything_small()
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.crash.worker"])
    chance = random.Random(os.path.basename(__file__))
    turns = [0] * THREADS
    for _ in range(KILLS):
        acknowledged, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=write_forever, args=(theirs, tmp_path, turns))
        process.start()
        theirs.close()
        told = list(turns)
        try:
            for _ in range(chance.randrange(1, 150)):
                thread, turn = acknowledged.recv()
                told[thread] = turn
        finally:
            process.kill()
            process.join()
        try:
            while True:
                thread, turn = acknowledged.recv()
                told[thread] = turn
        except EOFError:
            acknowledged.close()
        with worker.open_store(tmp_path) as store:
            database = store.database("d")
            for thread in range(THREADS):
                found = [
                    item and (item.metadata["turn"], item.vector.tobytes()) for item in database.get(ids_of(thread))
                ]
                turn = found[0][0] if found[0] else 0
                assert turn in (told[thread], told[thread] + 1), f"turn {turn} after {told[thread]} was acknowledged"
                expected = [(turn, row.tobytes()) for row in vectors_of(thread, turn)] if turn else [None] * ROWS
                assert found == expected, "half of a batch"
                turns[thread] = turn
            database.verify()
    assert all(turns)
