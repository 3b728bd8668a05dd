"""Clients of a simulated cluster: they write, read and search through any node at any level, and write down what they saw.

A client is a process on a machine of its own; its calls travel over the network to a node, are done there by the node's
`ClusterDatabase`, as a handler would, and answered. A node that dies or falls silent leaves the outcome unknown; then the same
request is sometimes sent again, elsewhere, under the same request id.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.metric import Metric
from jadevectordb.query.seen import SeenSequences
from jadevectordb.query.writer import WriteResult
from jadevectordb.segment.records import hash_ids
from jadevectordb.sim.checkers import Vectors
from jadevectordb.sim.history import Fate, Level, Seen
from jadevectordb.sim.loop import Loop, Process
from jadevectordb.sim.network import Network
from jadevectordb.sim.node import SimNode
from jadevectordb.sim.recorder import Recorder, fate_of_error
from jadevectordb.topology.sharding import shards_of

DIMENSION = 4
SPACE = VectorSpace(Metric.COSINE, DIMENSION)
MACHINE = "clients"
_SILENT_S = 14.0
_SENT_AGAIN = 0.5

T = TypeVar("T")


def vector_of(vector_id: str, value: str) -> npt.NDArray[np.float32]:
    digest = blake2b(f"{vector_id}/{value}".encode(), digest_size=4 * DIMENSION).digest()
    return (np.frombuffer(digest, np.uint32) / np.float64(1 << 32) - 0.5).astype(np.float32)


VECTORS = Vectors(SPACE, vector_of)
SAMPLE = np.stack([vector_of("sample", str(number)) for number in range(400)])  # of vectors as clients write them


def lost(sent: bool) -> JadeError:
    details = {} if sent else {"undecided": False}
    return JadeError(ErrorCode.UNAVAILABLE, "The node did not answer.", details=details)


class Served(SeenSequences):
    """What a session has seen, which also keeps where each shard of one answer was read, by shard. at: last. first: at first."""

    def __init__(self, token: Mapping[int, int]) -> None:
        super().__init__(token)
        self.at: dict[int, int] = {}
        self.first: dict[int, int] = {}

    def raise_to(self, positions: Iterable[tuple[int, int]]) -> None:
        told = dict(positions)
        self.at.update(told)
        self.first = {**told, **self.first}
        super().raise_to(told.items())


class SimClient:
    """One client with a session. nodes: those that run now."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        network: Network,
        process: Process,
        recorder: Recorder,
        nodes: Callable[[], list[SimNode]],
        database: str,
        shards: int,
        ids: list[str],
        *,
        by_vector: bool = False,
    ) -> None:
        self.name = name
        self._loop = loop
        self._network = network
        self._process = process
        self._recorder = recorder
        self._nodes = nodes
        self._database = database
        self._shards = shards
        self._ids = ids
        self._by_vector = by_vector
        self._rng = random.Random(loop.random.random())
        self._token = SeenSequences()
        self._known: dict[str, int] = {}
        self._written = 0
        self.busy = False

    def run(self, is_over: Callable[[], bool], pause_s: float) -> None:
        while not is_over():
            self.busy = True
            self.step()
            self.busy = False
            self._loop.sleep(self._rng.expovariate(1 / pause_s))

    def step(self) -> None:
        rng = self._rng
        level = rng.choice([Level.QUORUM, Level.QUORUM, Level.QUORUM, Level.STRONG, Level.EVENTUAL])
        reading = rng.choice([Level.STRONG, Level.SESSION, Level.EVENTUAL])
        ids = rng.sample(self._ids, rng.choice([1, 1, 1, 2, 4]))
        match rng.choice(["write"] * 5 + ["if", "delete"] + ["read"] * 4 + ["search"]):
            case "write":
                self.write(level, ids)
            case "if":
                self.write(Level.QUORUM, ids[:1], conditional=not self._by_vector)  # which takes no conditions
            case "delete":
                self.delete(level, ids)
            case "read":
                self.read(reading, ids)
            case "search":
                self.search(reading, rng.choice([1, 3, 20]))

    # What it does

    def _shards_of(self, ids: list[str]) -> list[int]:
        """As the history is told. Where vectors decide, each id may be seen at a moment of its own: as in a shard of its own."""
        if self._by_vector:
            return [self._ids.index(i) for i in ids]
        return [int(shard) for shard in shards_of(hash_ids(ids), self._shards)]

    def _told(self, sequences: Mapping[int, int]) -> dict[int, int]:
        """Sequences as the history is told: of one log for all shards, and so for all ids."""
        if self._by_vector and sequences:
            return dict.fromkeys(range(len(self._ids)), max(sequences.values()))
        return dict(sequences)

    def write(self, level: Level, ids: list[str], *, conditional: bool = False) -> None:
        self._written += 1
        values = [f"{self.name}.{self._written}"] * len(ids)
        expected = [self._known.get(i, 0) for i in ids] if conditional else None
        shards = self._shards_of(ids)
        request = f"{self.name}-{self._written}"
        op = self._recorder.write(
            self.name, level, ids, values,
            if_version=expected, shards=shards, session=self.name, token=self._told(self._token), request=request,
        )  # fmt: skip
        rows = np.stack([vector_of(i, v) for i, v in zip(ids, values, strict=True)])
        metadata = [{"v": v} for v in values]
        seen = dict(self._token)

        def change(database: ClusterDatabase) -> WriteResult:
            return database.upsert(ids, rows, metadata, expected, request, consistency=level.lower(), seen=seen)

        self._change(op, level, change, ids, shards)

    def delete(self, level: Level, ids: list[str]) -> None:
        self._written += 1
        request = f"{self.name}-{self._written}"
        shards = self._shards_of(ids)
        op = self._recorder.delete(
            self.name, level, ids, shards=shards, session=self.name, token=self._told(self._token), request=request
        )
        seen = dict(self._token)

        def change(database: ClusterDatabase) -> WriteResult:
            return database.delete(ids, request_id=request, consistency=level.lower(), seen=seen)

        self._change(op, level, change, ids, shards)

    def _change(
        self, op: str, level: Level, change: Callable[[ClusterDatabase], WriteResult], ids: list[str], shards: list[int]
    ) -> None:
        try:
            result = self._send(change, again=True)
        except JadeError as error:
            details = error.details
            if len(set(shards)) > 1 and "failed_ids" in details and fate_of_error(error) is not Fate.UNKNOWN:
                failed = set(details["failed_ids"])  # the shards that refused did nothing, the others are whole
                self._recorder.ok(op, fates={i: Fate.FAILED for i in ids if i in failed})
            else:
                self._recorder.raised(op, error)
            return
        self._token.raise_to(result.sequences.items())
        self._recorder.ok(op, sequences=self._told(result.sequences))

    def read(self, level: Level, ids: list[str]) -> bool:
        """Whether it was answered."""
        token = dict(self._token) if level is Level.SESSION else {}
        shards, told = self._shards_of(ids), self._told(token)
        op = self._recorder.read(self.name, level, ids, shards=shards, session=self.name, token=told)

        def ask(database: ClusterDatabase) -> tuple[list[tuple[str, int] | None], Served]:
            served = Served(token)
            items = database.get(ids, consistency=level.lower(), seen=served)
            return [None if item is None else (item.metadata["v"], item.version) for item in items], served

        try:
            found, served = self._send(ask)
        except JadeError as error:
            self._recorder.raised(op, error)
            return False
        seen = []
        for vector_id, item in zip(ids, found, strict=True):
            seen.append(Seen(vector_id) if item is None else Seen(vector_id, *item))
            self._known[vector_id] = 0 if item is None else item[1]
        self._saw(op, seen, served)
        return True

    def search(self, level: Level, k: int) -> None:
        query = np.array([self._rng.gauss(0.0, 1.0) for _ in range(DIMENSION)], np.float32)
        token = dict(self._token) if level is Level.SESSION else {}
        values, told = [float(x) for x in query], self._told(token)
        op = self._recorder.search(self.name, level, values, k, session=self.name, token=told)

        def ask(database: ClusterDatabase) -> tuple[list[Seen], Served]:
            served = Served(token)
            hits = database.search(query, k=k, exact=True, consistency=level.lower(), seen=served)
            return [Seen(hit.id, hit.metadata["v"], hit.version, hit.score) for hit in hits], served

        try:
            seen, served = self._send(ask)
        except JadeError as error:
            self._recorder.raised(op, error)
            return
        self._saw(op, seen, served)

    def _saw(self, op: str, seen: list[Seen], served: Served) -> None:
        self._recorder.ok(op, seen=seen, sequences=self._places(seen, served))
        self._token.raise_to(served.items())

    def _places(self, seen: list[Seen], served: Served) -> dict[int, int]:
        """How far the view was that showed what was seen, by shard as the history is told.

        Where vectors decide, an id that was found stood from its version on, to beyond the earliest that any shard was seen at. One that
        was not found was absent at some moment between the earliest and the latest, which nobody knows.
        """
        if not self._by_vector:
            return served.at
        earliest = min(served.first.values(), default=0)
        return {self._ids.index(one.id): max(earliest, one.version) for one in seen if one.version}

    # How it asks

    def _send(self, work: Callable[[ClusterDatabase], T], *, again: bool = False) -> T:
        try:
            return self._once(work)
        except JadeError as error:
            if not again or fate_of_error(error) is not Fate.UNKNOWN or self._rng.random() > _SENT_AGAIN:
                raise
        try:
            return self._once(work)
        except JadeError as error:
            raise JadeError(error.code, error.message, details={"undecided": True}) from error

    def _once(self, work: Callable[[ClusterDatabase], T]) -> T:
        nodes = self._nodes()
        if not nodes:
            raise lost(sent=False)
        node = self._rng.choice(nodes)
        fiber, loop, network = self._loop.current, self._loop, self._network
        assert fiber is not None
        answers: list[tuple[Any, JadeError | None]] = []
        is_waiting = True

        def answered(answer: Any, error: JadeError | None) -> None:
            if is_waiting:
                answers.append((answer, error))
                fiber.wake()

        def handle() -> None:
            answer, failure = None, None
            try:
                assert node.store is not None
                answer = work(node.store.database(self._database))
            except JadeError as error:
                failure = error
            network.send(node.name, MACHINE, lambda: answered(answer, failure), self._process)

        def arrives() -> None:
            loop.spawn(node.process, handle, "handler")

        network.send(MACHINE, node.name, arrives, node.process)
        until_s = loop.now_s + _SILENT_S
        while not answers and loop.now_s < until_s and node.process.alive:
            fiber.park(0.5)
        is_waiting = False
        if not answers:
            raise lost(sent=True)
        answer, error = answers[0]
        if error is not None:
            raise error
        result: T = answer
        return result
