"""Which shard a vector belongs to: its id's hash decides, so every node and client routes alike without asking."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def shards_of(hashes: npt.NDArray[np.uint64], shard_count: int) -> npt.NDArray[np.int64]:
    """Shard of each hash: ranges of equal width over the upper 32 bits of the hash (Lemire's multiply-shift).

    hashes: uint64 (n), xxh3-64 of the ids. Result: int64 (n), 0..shard_count-1.
    """
    upper = (hashes >> np.uint64(32)).astype(np.uint64)
    return ((upper * np.uint64(shard_count)) >> np.uint64(32)).astype(np.int64)
