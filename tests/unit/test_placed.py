"""What a database of a cluster is created with: sharding by hash or by ranges of ids, checked when it is made."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.schema import Schema
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.placed import (
    PlacedDatabase,
    Sharding,
    check_replication,
    decode_placed,
    encode_placed,
    placed_key,
)
from jadevectordb.topology.sharding import choose, even_bounds, log_of, logs_of, sharding_of, shards_of, shards_of_ids

IDS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8), max_size=40)


def test_auto_is_by_hash() -> None:
    ids = [f"v{n}" for n in range(100)]
    sharding = sharding_of("auto", 4)
    assert sharding == sharding_of("hash", 4) == Sharding("hash")
    assert (shards_of_ids(sharding, 4, ids, hash_ids(ids)) == shards_of(hash_ids(ids), 4)).all()


def test_range_holds_the_ids_from_its_bound_on() -> None:
    sharding = sharding_of("range", 3, ["g", "p"])
    ids = ["", "a", "fzzz", "g", "h", "o", "p", "z", "ü"]
    assert shards_of_ids(sharding, 3, ids, hash_ids(ids)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert shards_of_ids(sharding_of("range", 1), 1, ids, hash_ids(ids)).tolist() == [0] * 9


@given(IDS.filter(lambda ids: len(set(ids)) >= 4), IDS)
def test_even_bounds_are_bounds_and_order_is_kept(sample: list[str], ids: list[str]) -> None:
    sharding = sharding_of("range", 4, even_bounds(sample, 4))
    shards = shards_of_ids(sharding, 4, sorted(ids), hash_ids(sorted(ids)))
    assert shards.dtype == np.int64 and (np.diff(shards) >= 0).all()
    names = sorted(set(sample))
    counts = np.bincount(shards_of_ids(sharding, 4, names, hash_ids(names)), minlength=4)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("strategy", "shards", "bounds", "sentence"),
    [
        ("nearest", 2, [], "use one of auto, hash, range"),
        ("hash", 2, ["a"], "bounds belong to range"),
        ("range", 3, ["a"], "needs 2 bounds, got 1"),
        ("range", 3, "ab", "must be a list of ids"),
        ("range", 2, [1], "must be a list of ids"),
        ("range", 2, [""], "could not be an id"),
        ("range", 2, ["a" * 513], "could not be an id"),
        ("range", 2, ["\ud800"], "could not be an id"),
        ("range", 3, ["b", "a"], "must ascend"),
        ("range", 3, ["a", "a"], "must ascend"),
    ],
)
def test_what_cannot_be_is_refused(strategy: str, shards: int, bounds: list[str], sentence: str) -> None:
    with pytest.raises(JadeError, match=sentence) as caught:
        sharding_of(strategy, shards, bounds)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_shards_that_are_placed_by_vector_share_one_log() -> None:
    vector, spread = sharding_of("vector", 4, cells="12ab"), sharding_of("hash", 4)
    assert (vector.strategy, vector.cells) == ("vector", "12ab")
    assert [log_of(vector, shard) for shard in range(4)] == [0] * 4 and logs_of(vector, 4) == 1
    assert [log_of(spread, shard) for shard in range(4)] == [0, 1, 2, 3] and logs_of(spread, 4) == 4
    with pytest.raises(JadeError, match="belong to range"):
        sharding_of("vector", 2, ["a"])


@pytest.mark.parametrize(
    ("shards", "metric", "sampled", "texts", "expected", "says"),
    [
        (4, Metric.COSINE, True, False, "vector", "need not visit all 4"),
        (3, Metric.COSINE, True, False, "hash", "fewer than 4"),
        (8, Metric.COSINE, False, False, "hash", "no sample"),
        (8, Metric.HAMMING, True, False, "hash", "bits"),
        (8, Metric.DOT, True, True, "hash", "words"),
    ],
)
def test_auto_decides_by_what_is_known_and_says_why(
    shards: int, metric: Metric, sampled: bool, texts: bool, expected: str, says: str
) -> None:
    strategy, why = choose(shards, metric, sampled=sampled, texts=texts)
    assert strategy == expected and says in why


def test_too_small_a_sample_is_refused() -> None:
    with pytest.raises(JadeError, match="as many different ids, got 1"):
        even_bounds(["a", "a"], 2)


@pytest.mark.parametrize("replication", [0, -1, 8, 1.5, True, "3", None])
def test_replication_is_a_small_number(replication: object) -> None:
    with pytest.raises(JadeError, match="replication must be an integer from 1 to 7"):
        check_replication(replication)
    assert check_replication(3) == 3


def test_a_record_is_read_as_it_was_written() -> None:
    config = DatabaseConfig(
        name="words", folder="db-1", dimension=8, metric=Metric.COSINE, shards=3, index=IndexKind.AUTO, schema=Schema()
    )
    placed = PlacedDatabase(
        id="d1", name="words", config=config, replication=3, sharding=sharding_of("range", 3, ["a", "日本"])
    )
    assert decode_placed(encode_placed(placed)) == placed
    assert placed_key("d1") == "cluster/database/d1"
    for damaged in (b"", b"{", b"[]", b"\xff", b'{"id": "d1"}', encode_placed(placed).replace(b"range", b"newer")):
        with pytest.raises(JadeError) as caught:
            decode_placed(damaged)
        assert caught.value.code is ErrorCode.CORRUPT


def test_a_record_of_an_earlier_version_is_read() -> None:
    older = b'{"strategy":"range","bounds":["a"]}'
    assert msgspec.json.decode(older, type=Sharding) == Sharding("range", ("a",))
