"""What clients do all the time: threads, each a client of its own, that write and read with chances drawn from the seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import TypeVar

from jadevectordb.sim.history import Level
from jadevectordb.sim.recorder import Recorder
from tests.nemesis.client import Client
from tests.nemesis.registers import Registers

T = TypeVar("T")
_PAUSE_S = 0.03  # between calls, on average
_BATCH_MAX = 8
_WRITE_LEVELS = {Level.QUORUM: 0.6, Level.STRONG: 0.25, Level.EVENTUAL: 0.15}
_READ_LEVELS = {Level.STRONG: 0.45, Level.SESSION: 0.35, Level.EVENTUAL: 0.2}
_DOES = {
    "write": 0.28, "write batch": 0.1, "write if": 0.1, "delete": 0.05, "delete batch": 0.02, "delete if": 0.02,
    "read": 0.2, "read batch": 0.08, "search": 0.13, "count": 0.02,
}  # fmt: skip


class Load:
    """Begins when it is made."""

    def __init__(
        self, recorder: Recorder, registers: Registers, rests: Sequence[str], token: str, seed: int, threads: int
    ) -> None:
        self._registers = registers
        self._over = threading.Event()
        self.failure: BaseException | None = None  # of a thread: a defect of the workload itself
        self.clients = [
            Client(f"c{n}", recorder, registers, rests, token, random.Random(f"{seed} client {n}"))
            for n in range(threads)
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(client, random.Random(f"{seed} load {n}")), name=client.name)
            for n, client in enumerate(self.clients)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, client: Client, rng: random.Random) -> None:
        try:
            while not self._over.is_set():
                self._step(client, rng)
                self._over.wait(rng.expovariate(1 / _PAUSE_S))
        except BaseException as failure:
            self.failure = failure
            raise

    def _step(self, client: Client, rng: random.Random) -> None:
        registers = self._registers
        size = rng.randint(2, _BATCH_MAX)
        match _drawn(rng, _DOES):
            case "write":
                client.write(_drawn(rng, _WRITE_LEVELS), registers.to_change(rng, 1))
            case "write batch":
                client.write(_drawn(rng, _WRITE_LEVELS), registers.to_change(rng, size))
            case "write if":
                self._conditional(client, rng, client.write)
            case "delete":
                client.delete(_drawn(rng, _WRITE_LEVELS), registers.to_change(rng, 1))
            case "delete batch":
                client.delete(_drawn(rng, _WRITE_LEVELS), registers.to_change(rng, size))
            case "delete if":
                self._conditional(client, rng, client.delete)
            case "read":
                client.read(_drawn(rng, _READ_LEVELS), registers.to_read(rng, 1))
            case "read batch":
                client.read(_drawn(rng, _READ_LEVELS), registers.to_read(rng, size))
            case "search":
                client.search(_drawn(rng, _READ_LEVELS), rng.choice((1, 5, 20)))
            case "count":
                client.count()

    def _conditional(self, client: Client, rng: random.Random, change: object) -> None:
        """Look first, mostly, so that the condition has a chance; else go by what was seen some time ago."""
        ids = self._registers.to_change(rng, 1 if rng.random() < 0.7 else 2)
        if rng.random() < 0.8:
            client.read(_drawn(rng, _READ_LEVELS), ids)
        assert callable(change)
        change(Level.QUORUM if rng.random() < 0.7 else Level.STRONG, ids, conditional=True)

    def stop(self) -> None:
        """Every call under way is answered, or given up, on return."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        for client in self.clients:
            client.close()


def _drawn(rng: random.Random, chances: dict[T, float]) -> T:
    return rng.choices(list(chances), list(chances.values()))[0]
