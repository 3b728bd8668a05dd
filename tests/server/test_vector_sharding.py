"""A database that is sharded by vector, made over REST by a real node: what it says of itself, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.cli.local_cluster import LocalCluster
from jadevectordb.model.errors import ErrorCode, JadeError

DIMENSION = 12
RNG = np.random.default_rng(4)
CENTRES = RNG.normal(size=(20, DIMENSION)) * 3
SAMPLE = (CENTRES[RNG.integers(0, 20, 600)] + RNG.normal(size=(600, DIMENSION)) * 0.3).astype(np.float32)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[jade.Client]:
    local = LocalCluster.make(tmp_path_factory.mktemp("vectors") / "cluster", 1, None, "open-loopback")
    local.start(local.nodes, lambda _: None)
    with local.client() as made:
        yield made
    local.stop(local.nodes, lambda _: None)


def test_it_is_made_from_a_sample_and_says_which_shards_a_search_visited(client: jade.Client) -> None:
    database = client.create_database("images", DIMENSION, shards=6, sharding="vector", sample=SAMPLE, cells=48)
    assert client.describe("images").sharding == "vector"
    database.upsert([f"v{n}" for n in range(600)], SAMPLE)
    explained = database.explain(SAMPLE[3], k=10)
    assert 0 < len(explained["visited"]["shards"]) < 6 and "of 48 cells" in explained["visited"]["why"]
    assert database.search(SAMPLE[3], k=1).ids == ["v3"]
    assert len(database.explain(SAMPLE[3], k=10, exact=True)["visited"]["shards"]) == 6
    with pytest.raises(JadeError) as refused:
        database.upsert(["v1"], SAMPLE[:1], if_version=0)
    assert refused.value.code is ErrorCode.NOT_IMPLEMENTED


def test_auto_says_why(client: jade.Client) -> None:
    client.create_database("auto", DIMENSION, shards=4, sample=SAMPLE)
    chosen = client.describe("auto")
    assert chosen.sharding == "vector" and "sample was given" in chosen.sharding_reason
    client.create_database("plain", DIMENSION, shards=4)
    plain = client.describe("plain")
    assert plain.sharding == "hash"


@pytest.mark.parametrize(
    ("sharding", "says"),
    [
        ("vector", "finds its cells in a sample"),
        ({"kind": "vector"}, "finds its cells in a sample"),
        ({"kind": "vector", "sample": SAMPLE[:9].tolist()}, "at least 256"),
        ({"kind": "vector", "sample": [[1.0, 2.0]] * 300}, "12"),
        ({"kind": "vector", "sample": [[0.0] * DIMENSION] * 300}, "all zeros"),
        ({"kind": "vector", "sample": [[1.0] * DIMENSION] * 299 + [[1.0]]}, "."),
        ({"kind": "vector", "sample": "many"}, "sample"),
        ({"kind": "vector", "sample": SAMPLE.tolist(), "cells": 0}, "cells"),
        ({"kind": "vector", "sample": SAMPLE.tolist(), "cells": 2}, "cells must be from 4"),
        ({"kind": "hash", "sample": SAMPLE.tolist()}, "belong to sharding by vector"),
        ({"kind": "cells"}, "kind"),
        ({"kind": "vector", "centroids": []}, "centroids"),
        ({}, "kind"),
        (7, "sharding"),
    ],
)
def test_what_is_wrong_is_refused(client: jade.Client, sharding: Any, says: str) -> None:
    body = {"name": "wrong", "dimension": DIMENSION, "shards": 4, "sharding": sharding}
    with pytest.raises(JadeError, match=says) as refused:
        client.call("POST", "/v2/databases", body)
    assert refused.value.code in (
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.DIMENSION_MISMATCH,
        ErrorCode.INVALID_VECTOR,
    )
    assert "wrong" not in client.databases()
