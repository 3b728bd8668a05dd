"""Which vectors clients fight over, and what they write into them.

An id is a register: few of them at a time, so that clients meet, and each for a limited number of changes, so that what is to be
decided about it stays small; then another takes its place and the old one is only read now and then. Every value is written once
in the whole run, and the vector stored with it is made from id and value, so that any hit's score can be recomputed later.

Where vectors decide the shard an id moves, and all shards follow one log: each id may be seen at a moment of its own, so the history is
told of a shard for each id, all with the places of that one log.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.placed import Sharding
from jadevectordb.topology.sharding import shards_of_ids
from tests.nemesis.cluster import DIMENSION

_PLACES = 24
_CHANGES_MAX = 40  # of one id


class Registers:
    """Thread-safe. by_vector: whether vectors decide their shard."""

    def __init__(self, shards: int, *, by_vector: bool = False) -> None:
        self.by_vector = by_vector
        self._shards = shards
        self._numbers: dict[str, int] = {}  # of ids as shards of their own
        self._lock = threading.Lock()
        self._generation = [0] * _PLACES
        self._changes = [0] * _PLACES

    def to_change(self, rng: random.Random, count: int) -> list[str]:
        """Distinct ids of now; that they are to be changed is counted."""
        with self._lock:
            places = rng.sample(range(_PLACES), count)
            for place in places:
                if self._changes[place] >= _CHANGES_MAX:
                    self._generation[place] += 1
                    self._changes[place] = 0
                self._changes[place] += 1
            return [f"r{place}.{self._generation[place]}" for place in places]

    def to_read(self, rng: random.Random, count: int) -> list[str]:
        """Mostly those of now, some of before."""
        with self._lock:
            ids = []
            for place in rng.sample(range(_PLACES), count):
                newest = self._generation[place]
                ids.append(f"r{place}.{newest if rng.random() < 0.85 else rng.randint(0, newest)}")
            return ids

    def all(self) -> list[str]:
        with self._lock:
            return [f"r{place}.{g}" for place in range(_PLACES) for g in range(self._generation[place] + 1)]

    def shards_of(self, ids: list[str]) -> list[int]:
        """As the history is told; where ids decide, as the cluster spreads them."""
        if self.by_vector:
            with self._lock:
                return [self._numbers.setdefault(name, len(self._numbers)) for name in ids]
        shards: list[int] = shards_of_ids(Sharding(), self._shards, ids, hash_ids(ids)).tolist()
        return shards

    def told(self, sequences: Mapping[int, int], ids: list[str] | None = None) -> dict[int, int]:
        """Sequences of the cluster's shards as the history is told: of these ids, or of all that were ever named."""
        if not self.by_vector or not sequences:
            return dict(sequences)
        if ids is not None:
            return dict.fromkeys(self.shards_of(ids), max(sequences.values()))
        with self._lock:
            return dict.fromkeys(range(len(self._numbers)), max(sequences.values()))


def sample() -> list[list[float]]:
    """(400, DIMENSION) vectors as clients write them."""
    return [[float(x) for x in vector_of("sample", str(number))] for number in range(400)]


def vector_of(vector_id: str, value: str) -> npt.NDArray[np.float32]:
    """float32 (DIMENSION,)."""
    seed = hashlib.blake2b(f"{vector_id}\0{value}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(seed, "little")).normal(size=DIMENSION).astype(np.float32)
