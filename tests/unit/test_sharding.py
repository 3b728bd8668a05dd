"""Which shard an id belongs to: fixed for ever, even, and by ranges of the hash."""

from __future__ import annotations

import numpy as np

from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.sharding import shards_of


def test_shards_are_ranges_of_the_hash() -> None:
    edges = np.array([0, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    assert shards_of(edges, 4).tolist() == [0, 0, 1, 1, 2, 3]
    assert shards_of(edges, 1).tolist() == [0] * 6
    hashes = np.sort(np.random.default_rng(0).integers(0, 2**64, 5000, np.uint64))
    for count in (2, 3, 7, 1024):
        shards = shards_of(hashes, count)
        assert (np.diff(shards) >= 0).all() and shards.min() >= 0 and shards.max() < count


def test_ids_are_spread_evenly_and_stay_where_they_are() -> None:
    ids = [f"word-{i}" for i in range(30_000)]
    counts = np.bincount(shards_of(hash_ids(ids), 7), minlength=7)
    assert counts.min() > 30_000 / 7 * 0.93 and counts.max() < 30_000 / 7 * 1.07
    # On disk: changing these would lose every stored vector
    assert hash_ids(["", "a", "日本"]).tolist() == [3244421341483603138, 16629034431890738719, 3177284604324879296]
    assert shards_of(hash_ids(["a", "b", "c", "日本"]), 5).tolist() == [4, 1, 2, 0]
