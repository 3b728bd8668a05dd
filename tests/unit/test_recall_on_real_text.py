"""Recall of the shipped data through the public API: as asked for, never much below, with and without filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld

DATA = Path(__file__).parents[2] / "data" / "wordnet"
K = 10
BELOW, ABOVE = 0.005, 0.03  # how far the measured recall may lie from the target


class Words:
    def __init__(self, store: jade.Store, db: jade.Database) -> None:
        self.store, self.db = store, db
        self.vectors = np.load(DATA / "wordnet_vectors.f16.npy").astype(np.float32)
        self.queries = np.load(DATA / "wordnet_queries.f16.npy").astype(np.float32)
        self.truth = np.load(DATA / "wordnet_top10.i32.npy")
        lines = (DATA / "wordnet_glosses.jsonl").read_bytes().splitlines()
        self.documents: list[dict[str, Any]] = [msgspec.json.decode(line) for line in lines]
        self.ids = [document["id"] for document in self.documents]

    def recall(self, truth: list[set[str]], **options: Any) -> float:
        found = 0
        for query, expected in zip(self.queries, truth, strict=True):
            found += len(expected & set(self.db.search(query, k=K, **options).ids))
        return found / sum(map(len, truth))

    def nearest(self, keep: Callable[[dict[str, Any]], bool]) -> list[set[str]]:
        """Brute force over the rows kept."""
        rows = np.array([keep(document) for document in self.documents]).nonzero()[0]
        scores: npt.NDArray[np.float64] = self.queries.astype(np.float64) @ self.vectors[rows].astype(np.float64).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        return [{self.ids[rows[i]] for i in row} for row in best]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Words]:
    with jade.Store(tmp_path_factory.mktemp("words"), RealWorld(InlineCompute)) as store:
        made = Words(store, store.create_database("words", 384))
        metadata = [{key: document[key] for key in ("pos", "topic", "gloss_length")} for document in made.documents]
        for start in range(0, len(made.ids), 3000):
            stretch = slice(start, start + 3000)
            made.db.upsert(made.ids[stretch], made.vectors[stretch], metadata[stretch])
        made.db.wait_indexed(120)
        assert [s.index for s in made.db.stats().segments if s.live] == ["IVF"]
        yield made


@pytest.mark.parametrize("target", [0.90, 0.95, 0.99])
def test_recall_is_as_asked_for(words: Words, target: float) -> None:
    truth = [{words.ids[i] for i in row} for row in words.truth.tolist()]
    measured = words.recall(truth, recall=target)
    assert target - BELOW <= measured <= min(1.0, target + ABOVE), measured


def test_recall_of_one_is_exact(words: Words) -> None:
    for query, row in zip(words.queries, words.truth.tolist(), strict=True):
        hits = words.db.search(query, k=K, recall=1.0)
        exact = words.vectors[row].astype(np.float64) @ query.astype(np.float64)
        exact /= np.linalg.norm(words.vectors[row], axis=1) * np.linalg.norm(query)
        np.testing.assert_allclose(
            hits.scores, np.sort(exact)[::-1], atol=2e-4
        )  # the truth was made without normalising
        assert len(set(hits.ids) & {words.ids[i] for i in row}) >= K - 1, "ties apart"


@pytest.mark.parametrize("target", [0.90, 0.95, 0.99])
@pytest.mark.parametrize(("field", "value"), [("pos", "noun"), ("topic", "noun.animal"), ("pos", "adv")])
def test_recall_under_filters(words: Words, target: float, field: str, value: str) -> None:
    measured = words.recall(words.nearest(lambda d: d[field] == value), recall=target, filter={field: value})
    assert measured >= target - BELOW, measured


def test_recall_with_tombstones_and_rows_not_sealed(words: Words, tmp_path: Path) -> None:
    """A quarter of the vectors written again, a third of all deleted, nothing merged yet."""
    words.store.snapshot(tmp_path / "copy")
    with jade.Store(tmp_path / "copy", RealWorld(InlineCompute)) as store:
        copy = Words(store, store.database("words"))
        assert copy.db.update_metadata(copy.ids[:3000], {"again": True}).count == 3000
        assert copy.db.delete(copy.ids[::3]).count == 4000
        truth = copy.nearest(lambda document: int(document["id"].removeprefix("wn-")) % 3 != 0)
        assert copy.db.stats().dead_rows == 7000
        for target in (0.90, 0.95, 0.99):
            measured = copy.recall(truth, recall=target)
            assert measured >= target - BELOW, (target, measured)
        assert copy.recall(truth, recall=1.0) >= 0.999, "ties apart"
