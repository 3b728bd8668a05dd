"""A program that uses the cluster through the library's own client: what it does is recorded like everything else, and what it had to
wait for, and every error that reached it, is told apart: with one node gone at a time there should be none.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from jadevectordb.client.sync import Client as LibraryClient
from jadevectordb.client.values import WriteResult
from jadevectordb.model.errors import JadeError
from jadevectordb.sim.history import Level, Seen
from jadevectordb.sim.recorder import Recorder
from tests.nemesis.client import sequences_in
from tests.nemesis.cluster import DATABASE, DIMENSION
from tests.nemesis.registers import Registers, vector_of

T = TypeVar("T")
TIMEOUT_S = 20.0


class User:
    """One thread's. took_s: of each call that was answered, by kind. errors: that reached it, with the moment."""

    def __init__(
        self, name: str, recorder: Recorder, registers: Registers, rests: Sequence[str], token: str, rng: random.Random
    ) -> None:
        self.name = name
        self.took_s: dict[str, list[float]] = {"write": [], "read": []}
        self.errors: list[tuple[float, str]] = []
        self._recorder = recorder
        self._registers = registers
        self._rng = rng
        self._written = 0
        self._client = LibraryClient(rests, token=token, timeout=TIMEOUT_S)
        self._database = self._client.database(DATABASE)

    def step(self) -> None:
        chance = self._rng.random()
        if chance < 0.4:
            self._write(self._registers.to_change(self._rng, self._rng.choice((1, 1, 4))))
        elif chance < 0.5:
            self._delete(self._registers.to_change(self._rng, 1))
        elif chance < 0.8:
            self._read(self._registers.to_read(self._rng, 2))
        else:
            self._search()

    def _write(self, ids: list[str]) -> None:
        values = [self._new_value() for _ in ids]
        op = self._recorder.write(
            self.name, Level.QUORUM, ids, values, shards=self._registers.shards_of(ids), session=self.name,
            token=self._token(ids),
        )  # fmt: skip
        vectors = np.stack([vector_of(i, v) for i, v in zip(ids, values, strict=True)])
        done = self._timed("write", op, lambda: self._database.upsert(ids, vectors, [{"v": v} for v in values]))
        if done is not None:
            self._recorder.ok(op, sequences=self._written_at(ids, done))

    def _delete(self, ids: list[str]) -> None:
        op = self._recorder.delete(
            self.name,
            Level.QUORUM,
            ids,
            shards=self._registers.shards_of(ids),
            session=self.name,
            token=self._token(ids),
        )
        done = self._timed("write", op, lambda: self._database.delete(ids))
        if done is not None:
            self._recorder.ok(op, sequences=self._written_at(ids, done))

    def _read(self, ids: list[str]) -> None:
        op = self._recorder.read(
            self.name,
            Level.SESSION,
            ids,
            shards=self._registers.shards_of(ids),
            session=self.name,
            token=self._token(ids),
        )
        items = self._timed("read", op, lambda: self._database.get(ids, include=("metadata",)))
        if items is not None:
            seen = [
                Seen(i) if item is None else Seen(i, item.metadata["v"], item.version)
                for i, item in zip(ids, items, strict=True)
            ]
            self._recorder.ok(op, seen=seen)

    def _search(self) -> None:
        query = [self._rng.gauss(0.0, 1.0) for _ in range(DIMENSION)]
        op = self._recorder.search(self.name, Level.SESSION, query, 5, session=self.name, token=self._token())
        hits = self._timed("read", op, lambda: self._database.search(query, k=5, include=("metadata", "version")))
        if hits is not None:
            self._recorder.ok(op, seen=[Seen(hit.id, hit.metadata["v"], hit.version, hit.score) for hit in hits])

    def _timed(self, kind: str, op: str, call: Callable[[], T]) -> T | None:
        began_s = time.monotonic()
        try:
            answer = call()
        except JadeError as error:
            # Of several tries inside, the last one's error says nothing of the others
            self._recorder.unknown(op, str(error.code))
            self.errors.append((time.monotonic(), f"{kind}: {error}"))
            return None
        self.took_s[kind].append(time.monotonic() - began_s)
        return answer

    def _new_value(self) -> str:
        self._written += 1
        return f"{self.name}.{self._written}"

    def _written_at(self, ids: list[str], done: WriteResult) -> dict[int, int]:
        """Of the session that the answer brought, which stands for all before it too, what is of the shards that were written."""
        sequences = self._registers.told(sequences_in(done.session), ids)
        return {shard: sequences[shard] for shard in self._registers.shards_of(ids) if shard in sequences}

    def _token(self, ids: list[str] | None = None) -> dict[int, int]:
        return self._registers.told(sequences_in(self._database.session), ids)

    def close(self) -> None:
        self._client.close()
