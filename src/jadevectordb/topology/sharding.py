"""Which shard a vector belongs to, and which log feeds a shard.

- hash (the default): its id decides, even whatever the ids are.
- range: the ids between two bounds lie together, so one shard can be loaded, watched or moved for one tenant or one day.
- vector: the vector decides (`topology.cells`), so that a search visits the shards that its neighbours lie in. An id that is
  written again with another vector may move to another shard. The logs of two shards cannot order such moves, so all shards of the
  database share one log: every entry is seen by every shard, at one sequence.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence as Seq
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ID_LENGTH_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.topology.placed import Sharding

STRATEGIES: Final = ("auto", "hash", "range", "vector")
AUTO_VECTOR_SHARDS_MIN: Final = 4


def shards_of(hashes: npt.NDArray[np.uint64], shard_count: int) -> npt.NDArray[np.int64]:
    """Shard of each hash: ranges of equal width over the upper 32 bits of the hash (Lemire's multiply-shift).

    hashes: uint64 (n), xxh3-64 of the ids. Result: int64 (n), 0..shard_count-1.
    """
    upper = (hashes >> np.uint64(32)).astype(np.uint64)
    return ((upper * np.uint64(shard_count)) >> np.uint64(32)).astype(np.int64)


def shards_of_ids(
    sharding: Sharding, shard_count: int, ids: Seq[str], hashes: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """int64 (n,): the shard of each id. hashes: uint64 (n), xxh3-64 of the ids. Not for sharding by vector, where ids say nothing."""
    assert sharding.strategy != "vector"
    if sharding.strategy == "hash":
        return shards_of(hashes, shard_count)
    assert len(sharding.bounds) == shard_count - 1
    return np.fromiter((bisect.bisect_right(sharding.bounds, id_) for id_ in ids), np.int64, len(ids))


def shares_one_log(sharding: Sharding) -> bool:
    """Whether all shards are fed by log 0; else each has its own, of its number."""
    return sharding.strategy == "vector"


def log_of(sharding: Sharding, shard: int) -> int:
    """The log that feeds this shard."""
    return 0 if shares_one_log(sharding) else shard


def logs_of(sharding: Sharding, shard_count: int) -> int:
    """How many logs the database has, numbered from 0."""
    return 1 if shares_one_log(sharding) else shard_count


def sharding_of(strategy: str, shard_count: int, bounds: Seq[str] = (), *, cells: str = "") -> Sharding:
    """The sharding of a new database. strategy: "hash", "range" or "vector" ("auto": hash). cells: of "vector". Raises INVALID_ARGUMENT."""
    if strategy not in STRATEGIES:
        raise _invalid(f"Unknown sharding {strategy!r:.80}: use one of {', '.join(STRATEGIES)}.")
    if strategy == "range":
        return Sharding("range", _checked(bounds, shard_count))
    if bounds:
        raise _invalid(f"bounds belong to range sharding; this database is to be sharded by {strategy}.")
    return Sharding("vector", cells=cells) if strategy == "vector" else Sharding()


def choose(shard_count: int, metric: Metric, *, sampled: bool, texts: bool) -> tuple[Literal["hash", "vector"], str]:
    """What "auto" is for a new database, and why. sampled: a sample of its vectors was given. texts: it has fields searched as text."""
    if not sampled:
        return "hash", "hash: no sample of the vectors was given to find cells in"
    if metric is Metric.HAMMING:
        return "hash", "hash: vectors of bits have no cells"
    if texts:
        return "hash", "hash: a search by words visits every shard anyway"
    if shard_count < AUTO_VECTOR_SHARDS_MIN:
        return (
            "hash",
            f"hash: with {shard_count} shards, fewer than {AUTO_VECTOR_SHARDS_MIN}, a search would visit most of them",
        )
    return "vector", f"vector: a sample was given, and a search need not visit all {shard_count} shards"


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
