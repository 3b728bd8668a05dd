"""A cluster as it should be, in a hundred lines: shard logs, clients whose operations overlap at random, and what each may see.

It produces correct histories of every kind that the checkers know: an operation is called, has its effect at some later moment,
and is answered after that; EVENTUAL and unanswered writes have it any time later, unanswered ones perhaps never. Reads are served
from a view that their level allows. What the checkers say about such a history is known beforehand: nothing.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.metric import Metric
from jadevectordb.sim.checkers import Vectors
from jadevectordb.sim.checks.searches import similarity
from jadevectordb.sim.history import UNCONDITIONAL, History, Level, Refused, Seen
from jadevectordb.sim.recorder import Recorder

DIMENSION = 4
SPACE = VectorSpace(Metric.COSINE, DIMENSION)


class StepClock:
    """Each reading is a millisecond later, so that every event has a time of its own."""

    def __init__(self) -> None:
        self.now_ms = 0

    def __call__(self) -> float:
        self.now_ms += 1
        return self.now_ms / 1000


def vector_of(vector_id: str, value: str) -> npt.NDArray[np.float32]:
    digest = blake2b(f"{vector_id}/{value}".encode(), digest_size=4 * DIMENSION).digest()
    return (np.frombuffer(digest, np.uint32) / np.float64(1 << 32) - 0.5).astype(np.float32)


VECTORS = Vectors(SPACE, vector_of)


@dataclass
class Shard:
    """versions: of each id what it became and when, None = deleted. views: the places of the log that a reader can stand at."""

    versions: dict[str, list[tuple[int, str | None]]] = field(default_factory=dict)
    end: int = 0
    views: list[int] = field(default_factory=lambda: [0])

    def at(self, vector_id: str, watermark: int) -> tuple[int, str | None]:
        changes = [c for c in self.versions.get(vector_id, ()) if c[0] <= watermark]
        return changes[-1] if changes else (0, None)


@dataclass
class Change:
    op: str
    level: Level
    ids: list[str]
    values: list[str | None]
    expected: list[int]
    one_entry: bool
    sequences: dict[int, int] = field(default_factory=dict)
    refusal: Refused | None = None


@dataclass
class Client:
    """token: what its session has seen. coming: the rest of the operation under way."""

    name: str
    token: dict[int, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)  # versions it saw, to make conditions of
    coming: Iterator[None] | None = None


class Model:
    def __init__(self, seed: int, *, steps: int = 250, clients: int = 4, ids: int = 6, shards: int = 2) -> None:
        self._random = random.Random(seed)
        self._recorder = Recorder(StepClock(), name="m")
        self._ids = [f"k{n}" for n in range(ids)]
        self._shards = [Shard() for _ in range(shards)]
        self._clients = [Client(f"c{n}") for n in range(clients)]
        self._late: list[Change] = []  # acknowledged at EVENTUAL, not yet in the log
        self._drifting: list[Change] = []  # nobody knows what became of them
        self._steps = steps
        self._written = 0

    def run(self) -> History:
        for step in range(self._steps):
            if step % 60 == 30:
                fault = self._recorder.fault_began("kill -9", f"n{step}")
                self._recorder.fault_ended(fault)
            self._one_step()
        for client in self._clients:
            for _ in client.coming or ():
                pass
        self._settle()
        return self._recorder.history()

    def _shard_of(self, vector_id: str) -> int:
        return int(vector_id[1:]) % len(self._shards)

    def _one_step(self) -> None:
        waiting = self._random.choice([self._late, self._drifting])
        if waiting and self._random.random() < 0.1:
            self._take_effect(waiting.pop(self._random.randrange(len(waiting))))
            return
        client = self._random.choice(self._clients)
        if client.coming is None:
            client.coming = self._random.choice([self._change, self._change, self._read, self._read, self._search])(
                client
            )
        if next(client.coming, self) is self:
            client.coming = None

    def _settle(self) -> None:
        for change in self._late:
            self._take_effect(change)
        for change in self._drifting:
            if self._random.random() < 0.5:
                self._take_effect(change)
        self._recorder.settled()
        for vector_id in self._ids:
            for _ in self._reading(self._clients[0], Level.STRONG, [vector_id]):
                pass
        for number, shard in enumerate(self._shards):
            for node in ("n1", "n2", "n3"):
                self._recorder.replica(number, node, shard.end, f"d{shard.end}", len(shard.versions))

    # Changing

    def _change(self, client: Client) -> Iterator[None]:
        change = self._called(client)
        yield
        ending = self._random.random()
        if ending < 0.12:
            self._drifting.append(change)
            yield
            if self._random.random() < 0.7:
                self._recorder.unknown(change.op, "TIMEOUT")
            return
        if ending < 0.16:
            self._recorder.failed(change.op, "DISK_FULL")
            return
        if change.level is Level.EVENTUAL:
            self._late.append(change)
            self._recorder.ok(change.op)
            return
        self._take_effect(change)
        yield
        if change.refusal is not None:
            self._recorder.failed(change.op, "VERSION_CONFLICT", refusal=change.refusal)
        elif ending < 0.22:
            self._recorder.unknown(change.op, "UNAVAILABLE")
        else:
            self._recorder.ok(change.op, sequences=change.sequences)
            _merge(client.token, change.sequences)

    def _called(self, client: Client) -> Change:
        rnd = self._random
        level = rnd.choice([Level.STRONG, Level.QUORUM, Level.QUORUM, Level.EVENTUAL])
        ids = rnd.sample(self._ids, rnd.choice([1, 1, 2, 4]))
        shards = [self._shard_of(i) for i in ids]
        expected = [UNCONDITIONAL] * len(ids)
        if rnd.random() < 0.25 and level is not Level.EVENTUAL:
            ids, shards, expected = ids[:1], shards[:1], [rnd.choice([0, client.known.get(ids[0], 0)])]
        about = {"shards": shards, "if_version": expected, "session": client.name, "token": client.token}
        if rnd.random() < 0.25:
            op = self._recorder.delete(client.name, level, ids, **about)  # type: ignore[arg-type]
            return Change(op, level, ids, [None] * len(ids), expected, True)
        self._written += 1
        values = [f"v{self._written}"] * len(ids)
        one_entry = rnd.random() < 0.8
        op = self._recorder.write(client.name, level, ids, values, one_entry=one_entry, **about)  # type: ignore[arg-type]
        return Change(op, level, ids, list(values), expected, one_entry)

    def _take_effect(self, change: Change) -> None:
        for vector_id, expected in zip(change.ids, change.expected, strict=True):
            shard = self._shards[self._shard_of(vector_id)]
            version, value = shard.at(vector_id, shard.end)
            actual = 0 if value is None else version
            if expected not in (UNCONDITIONAL, actual):
                change.refusal = Refused(vector_id, expected, actual)
                return
        loses = change.level is Level.EVENTUAL and len(change.ids) == 1 and self._random.random() < 0.1
        for number, shard in enumerate(self._shards):
            mine = [(i, v) for i, v in zip(change.ids, change.values, strict=True) if self._shard_of(i) == number]
            for place, (vector_id, value) in enumerate(mine):
                shard.end += place == 0 or not change.one_entry
                if not loses:
                    shard.versions.setdefault(vector_id, []).append((shard.end, value))
                elif value is not None:
                    self._recorder.conflict(vector_id, value)
                else:
                    shard.versions.setdefault(vector_id, []).append((shard.end, value))
            if mine:
                shard.views.append(shard.end)
                change.sequences[number] = shard.end

    # Reading

    def _read(self, client: Client) -> Iterator[None]:
        level = self._random.choice([Level.STRONG, Level.SESSION, Level.EVENTUAL])
        return self._reading(client, level, self._random.sample(self._ids, self._random.randint(1, len(self._ids))))

    def _reading(self, client: Client, level: Level, ids: list[str]) -> Iterator[None]:
        op = self._recorder.read(client.name, level, ids, session=client.name, token=client.token)
        floors = dict(client.token)
        yield
        if self._random.random() < 0.05:
            self._recorder.failed(op, "UNAVAILABLE")
            return
        at = self._views({self._shard_of(i) for i in ids}, level, floors)
        yield
        seen = []
        for vector_id in ids:
            version, value = self._shards[self._shard_of(vector_id)].at(vector_id, at[self._shard_of(vector_id)])
            seen.append(Seen(vector_id, value, None if value is None else version))
            client.known[vector_id] = 0 if value is None else version
        self._recorder.ok(op, sequences=at, seen=seen)
        _merge(client.token, at)

    def _search(self, client: Client) -> Iterator[None]:
        level = self._random.choice([Level.STRONG, Level.SESSION, Level.EVENTUAL])
        query = [self._random.uniform(-1, 1) for _ in range(DIMENSION)]
        op = self._recorder.search(client.name, level, query, 3, session=client.name, token=client.token)
        floors = dict(client.token)
        yield
        at = self._views(set(range(len(self._shards))), level, floors)
        yield
        prepared = SPACE.prepare_query(np.array(query, np.float32))
        hits = []
        for vector_id in self._ids:
            version, value = self._shards[self._shard_of(vector_id)].at(vector_id, at[self._shard_of(vector_id)])
            if value is not None:
                row = SPACE.search_rows(vector_of(vector_id, value).reshape(1, -1))[0]
                hits.append(Seen(vector_id, value, version, similarity(Metric.COSINE, prepared, row)))
        hits.sort(key=lambda hit: (-(hit.score or 0.0), hit.id))
        self._recorder.ok(op, sequences=at, seen=hits[:3])
        _merge(client.token, at)

    def _views(self, shards: set[int], level: Level, floors: dict[int, int]) -> dict[int, int]:
        """Where a read may stand now: at the end, at its token or later, anywhere."""
        at = {}
        for number in shards:
            views = self._shards[number].views
            low = {Level.STRONG: len(views) - 1, Level.SESSION: bisect_left(views, floors.get(number, 0))}.get(level, 0)
            at[number] = views[self._random.randint(low, len(views) - 1)]
        return at


def _merge(token: dict[int, int], sequences: dict[int, int]) -> None:
    for shard, sequence in sequences.items():
        token[shard] = max(token.get(shard, 0), sequence)


def model_history(seed: int, steps: int = 250) -> History:
    return Model(seed, steps=steps).run()
