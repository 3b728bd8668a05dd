"""Which shard a vector belongs to: its id decides, so every node and client routes alike without asking.

- hash (the default, and what "auto" is): even whatever the ids are.
- range: the ids between two bounds lie together, so one shard can be loaded, watched or moved for one tenant or one day.

There is no sharding by vector, k-means cells of which a query visits few: an id that is written again with another vector
would move to another shard, and the logs of two shards cannot order two such moves without a transaction over both. An id
could then be found twice, or be lost although both writes were acknowledged.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ID_LENGTH_MAX
from jadevectordb.topology.placed import Sharding


def shards_of(hashes: npt.NDArray[np.uint64], shard_count: int) -> npt.NDArray[np.int64]:
    """Shard of each hash: ranges of equal width over the upper 32 bits of the hash (Lemire's multiply-shift).

    hashes: uint64 (n), xxh3-64 of the ids. Result: int64 (n), 0..shard_count-1.
    """
    upper = (hashes >> np.uint64(32)).astype(np.uint64)
    return ((upper * np.uint64(shard_count)) >> np.uint64(32)).astype(np.int64)


def shards_of_ids(
    sharding: Sharding, shard_count: int, ids: Seq[str], hashes: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """int64 (n,): the shard of each id. hashes: uint64 (n), xxh3-64 of the ids."""
    if sharding.strategy == "hash":
        return shards_of(hashes, shard_count)
    assert len(sharding.bounds) == shard_count - 1
    return np.fromiter((bisect.bisect_right(sharding.bounds, id_) for id_ in ids), np.int64, len(ids))


def sharding_of(strategy: str, shard_count: int, bounds: Seq[str] = ()) -> Sharding:
    """The sharding of a new database. strategy: "auto", "hash" or "range". Raises INVALID_ARGUMENT, NOT_IMPLEMENTED."""
    if strategy == "vector":
        raise JadeError(
            ErrorCode.NOT_IMPLEMENTED,
            "Sharding by vector is not offered: a vector that changes would move between shards, which cannot be done "
            "safely without a transaction over both. Use hash or range.",
        )
    if strategy not in ("auto", "hash", "range"):
        raise _invalid(f"Unknown sharding {strategy!r}: use one of auto, hash, range.")
    if strategy != "range":
        if bounds:
            raise _invalid(f"bounds belong to range sharding; this database is to be sharded by {strategy}.")
        return Sharding("hash")
    return Sharding("range", _checked(bounds, shard_count))


def _checked(bounds: Seq[str], shard_count: int) -> tuple[str, ...]:
    if isinstance(bounds, str) or not all(isinstance(bound, str) for bound in bounds):
        raise _invalid("bounds must be a list of ids.")
    if len(bounds) != shard_count - 1:
        raise _invalid(
            f"Range sharding over {shard_count} shards needs {shard_count - 1} bounds, got {len(bounds)}: "
            "shard 0 holds the ids before the first bound, shard n those from bound n on."
        )
    for bound in bounds:
        if not 1 <= len(bound) <= ID_LENGTH_MAX or not _is_text(bound):
            raise _invalid(f"The bound {bound[:50]!r} could not be an id: use 1 to {ID_LENGTH_MAX} characters of text.")
    for low, high in itertools.pairwise(bounds):
        if not low < high:
            raise _invalid(f"bounds must ascend, each once; {high[:50]!r} follows {low[:50]!r}.")
    return tuple(bounds)


def even_bounds(sample: Seq[str], shard_count: int) -> tuple[str, ...]:
    """Bounds that put about as many ids of the sample into each shard. Raises INVALID_ARGUMENT: too few different ids."""
    names = sorted(set(sample))
    if len(names) < shard_count:
        raise _invalid(f"A sample for {shard_count} shards needs as many different ids, got {len(names)}.")
    return tuple(names[len(names) * n // shard_count] for n in range(1, shard_count))


def _is_text(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
