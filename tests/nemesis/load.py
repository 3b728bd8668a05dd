"""What clients do all the time: threads, each a client of its own, that write and read with chances drawn from the seed.

Most do everything; some only write and some only read at the levels that one replica can answer, so that how long the cluster gave
no write or no read is not confused with how long a client waited for something else. One uses the library's own client.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from jadevectordb.sim.history import Level
from jadevectordb.sim.recorder import Recorder
from tests.nemesis.client import Client
from tests.nemesis.registers import Registers
from tests.nemesis.user import User

T = TypeVar("T")
_PAUSE_S = 0.03  # between calls, on average
_BATCH_MAX = 8
_WRITE_LEVELS = {Level.QUORUM: 0.6, Level.STRONG: 0.25, Level.EVENTUAL: 0.15}
_READ_LEVELS = {Level.STRONG: 0.5, Level.SESSION: 0.3, Level.EVENTUAL: 0.2}
_SHORT_S = 2.0  # what pure readers wait before they ask another node
_EVERYTHING = {
    "write": 0.28, "write batch": 0.1, "write if": 0.1, "delete": 0.05, "delete batch": 0.02, "delete if": 0.02,
    "read": 0.2, "read batch": 0.08, "search": 0.13, "count": 0.02,
}  # fmt: skip
_WRITES = {"write": 0.8, "delete": 0.2}
_READS = {"read": 0.6, "read batch": 0.1, "search": 0.3}
_ROLES: tuple[tuple[Mapping[str, float], Mapping[Level, float], Mapping[Level, float]], ...] = (
    (_EVERYTHING, _WRITE_LEVELS, _READ_LEVELS),
    (_WRITES, {Level.QUORUM: 1.0}, _READ_LEVELS),
    (_READS, _WRITE_LEVELS, {Level.SESSION: 0.5, Level.EVENTUAL: 0.5}),
    (_EVERYTHING, _WRITE_LEVELS, _READ_LEVELS),
    (_READS, _WRITE_LEVELS, {Level.SESSION: 0.5, Level.EVENTUAL: 0.5}),
    (_EVERYTHING, _WRITE_LEVELS, _READ_LEVELS),
    (_WRITES, {Level.QUORUM: 1.0}, _READ_LEVELS),
)  # clients take them in turn


class Load:
    """Begins when it is made."""

    def __init__(
        self, recorder: Recorder, registers: Registers, rests: Sequence[str], token: str, seed: int, threads: int
    ) -> None:
        self._over, self._readers_over = threading.Event(), threading.Event()
        self.failure: BaseException | None = None  # of a thread: a defect of the workload itself
        self.clients: list[Client] = []
        self.user = User("user", recorder, registers, rests, token, random.Random(f"{seed} user"))
        steps: list[tuple[Callable[[], None], threading.Event]] = [(self.user.step, self._over)]
        for number in range(threads):
            does, write_levels, read_levels = _ROLES[number % len(_ROLES)]
            rng = random.Random(f"{seed} client {number}")
            wait_s = {"timeout_s": _SHORT_S} if does is _READS else {}
            client = Client(f"c{number}", recorder, registers, rests, token, rng, **wait_s)
            self.clients.append(client)
            over = self._readers_over if does is _READS else self._over
            steps.append((_Doing(client, registers, rng, does, write_levels, read_levels).step, over))
        self._threads = [
            (threading.Thread(target=self._run, args=(step, over, random.Random(f"{seed} pauses {n}"))), over)
            for n, (step, over) in enumerate(steps)
        ]
        for thread, _ in self._threads:
            thread.start()

    def _run(self, step: Callable[[], None], over: threading.Event, rng: random.Random) -> None:
        try:
            while not over.is_set():
                step()
                over.wait(rng.expovariate(1 / _PAUSE_S))
        except BaseException as failure:
            self.failure = failure
            raise

    def stop(self) -> None:
        """Every call under way is answered, or given up, on return. Readers go on until the others have ended."""
        for event in (self._over, self._readers_over):
            event.set()
            for thread, over in self._threads:
                if over is event:
                    thread.join()
        for client in self.clients:
            client.close()
        self.user.close()


class _Doing:
    """What one client does."""

    def __init__(
        self,
        client: Client,
        registers: Registers,
        rng: random.Random,
        does: Mapping[str, float],
        write_levels: Mapping[Level, float],
        read_levels: Mapping[Level, float],
    ) -> None:
        self._client = client
        self._registers = registers
        self._rng = rng
        self._does = does
        self._write_levels = write_levels
        self._read_levels = read_levels

    def step(self) -> None:
        client, registers, rng = self._client, self._registers, self._rng
        size = rng.randint(2, _BATCH_MAX)
        match self._drawn(self._does):
            case "write":
                client.write(self._drawn(self._write_levels), registers.to_change(rng, 1))
            case "write batch":
                client.write(self._drawn(self._write_levels), registers.to_change(rng, size))
            case "write if":
                self._look_first(ids := registers.to_change(rng, rng.choice((1, 1, 2))))
                client.write(self._sure_level(), ids, conditional=True)
            case "delete":
                client.delete(self._drawn(self._write_levels), registers.to_change(rng, 1))
            case "delete batch":
                client.delete(self._drawn(self._write_levels), registers.to_change(rng, size))
            case "delete if":
                self._look_first(ids := registers.to_change(rng, rng.choice((1, 1, 2))))
                client.delete(self._sure_level(), ids, conditional=True)
            case "read":
                client.read(self._drawn(self._read_levels), registers.to_read(rng, 1))
            case "read batch":
                client.read(self._drawn(self._read_levels), registers.to_read(rng, size))
            case "search":
                client.search(self._drawn(self._read_levels), rng.choice((1, 5, 20)))
            case "count":
                client.count()

    def _look_first(self, ids: list[str]) -> None:
        """Mostly, so that the condition has a chance; else it goes by what was seen some time ago."""
        if self._rng.random() < 0.8:
            self._client.read(self._drawn(self._read_levels), ids)

    def _sure_level(self) -> Level:
        """Conditions are decided where a write is applied, so EVENTUAL has none."""
        return Level.QUORUM if self._rng.random() < 0.7 else Level.STRONG

    def _drawn(self, chances: Mapping[T, float]) -> T:
        return self._rng.choices(list(chances), list(chances.values()))[0]
