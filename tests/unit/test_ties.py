"""Equal scores come in the order of ids, also where they straddle the k-th place, however rows lie in segments and shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld

ROWS, DIMENSION = 3000, 16


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "hamming"])
def test_the_smallest_ids_win(tmp_path: Path, metric: str) -> None:
    generator = np.random.default_rng(4)
    if metric == "hamming":
        base: Any = generator.integers(0, 2, (300, DIMENSION)).astype(np.uint8)
    else:
        base = generator.standard_normal((300, DIMENSION)).astype(np.float32)
    rows = base[generator.permutation(ROWS) % 300]
    rows[:700] = base[0]  # one tie far longer than any buffer
    order = generator.permutation(ROWS)  # ids in another order than rows
    ids = [f"{n:05}" for n in order]
    metadata = [{"even": int(n) % 2 == 0} for n in order]
    answers = []
    with jade.Store(tmp_path, RealWorld(InlineCompute)) as store:
        for name, shards, seal_rows, build in (
            ("one", 1, 8192, True),
            ("many", 3, 150, False),
            ("built", 2, 400, True),
        ):
            db = store.create_database(name, DIMENSION, metric, shards, seal_rows=seal_rows, index="FLAT")
            for start in range(0, ROWS, 100):
                db.upsert(ids[start : start + 100], rows[start : start + 100], metadata[start : start + 100])
            if build:
                db.wait_indexed(60)
            answer = []
            for query in base[:6]:
                for k in (1, 10, 64, 650, 705):
                    for condition in (None, {"even": True}):
                        hits = db.search(query, k=k, filter=condition, recall=1.0)
                        assert len(hits) == k or condition is not None
                        places = [(-hit.score, hit.id) for hit in hits]
                        assert places == sorted(places)
                        answer.append(list(zip(hits.ids, hits.scores, strict=True)))
                batch = db.search_batch(np.stack([query] * 20), k=10, recall=1.0)
                assert all(found.ids == db.search(query, k=10, recall=1.0).ids for found in batch)
            answers.append(answer)
    assert answers[1] == answers[0] and answers[2] == answers[0]
    first = answers[0][2]
    assert [name for name, _ in first[:10]] == sorted(
        i for i, row in zip(ids, rows, strict=True) if (row == base[0]).all()
    )[:10]
