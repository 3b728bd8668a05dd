"""Databases whose vectors decide their shard, over real logs: what moves is found, once, and a search visits few shards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.seen import SeenSequences
from jadevectordb.topology.cells import CELLS_PREFIX
from tests.cluster_world import WAIT_S, Cluster, wait_until
from tests.nats_cluster import NatsCluster

DIMENSION, ROWS, SHARDS = 16, 2000, 6
RNG = np.random.default_rng(11)
CENTRES = RNG.standard_normal((40, DIMENSION)) * 3


def scattered(count: int) -> np.ndarray:
    picked = CENTRES[RNG.integers(0, len(CENTRES), count)]
    return (picked + RNG.standard_normal((count, DIMENSION)) * 0.4).astype(np.float32)


VECTORS = scattered(ROWS)
IDS = [f"v{n}" for n in range(ROWS)]
METADATA = [{"n": n, "group": n % 7} for n in range(ROWS)]
SAMPLE = scattered(1500)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "vector-tests", nodes=3, shards=SHARDS, replication=2)
        yield running
        running.close()
        connection.close()


def made(cluster: Cluster, name: str, metric: str = "cosine", **options: Any) -> ClusterDatabase:
    store = cluster.gateways["n1"].store
    return store.create_database(name, DIMENSION, metric, sharding="vector", sample=SAMPLE, **options)


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> ClusterDatabase:
    database = made(cluster, "filled")
    result = database.upsert(IDS, VECTORS, METADATA)
    assert result.count == ROWS and set(result.sequences) == set(range(SHARDS))
    assert len(set(result.sequences.values())) == 1
    cluster.wait_everywhere(database)  # so that reads without a session find it all
    return database


@pytest.fixture(params=["n1", "n2"])
def anywhere(request: pytest.FixtureRequest, cluster: Cluster, filled: ClusterDatabase) -> ClusterDatabase:
    return cluster.database(request.param, "filled")


def exact(queries: np.ndarray, k: int) -> list[set[str]]:
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    return [{IDS[n] for n in np.argsort(-(units @ query))[:k]} for query in queries]


def test_a_search_visits_few_shards_and_finds_what_is_near(anywhere: ClusterDatabase) -> None:
    queries = scattered(100)
    truth = exact(queries, 10)
    found = [anywhere.search(query, k=10, consistency="strong") for query in queries]
    recall = np.mean([len({hit.id for hit in hits} & near) / 10 for hits, near in zip(found, truth, strict=True)])
    visited = [anywhere.explain(query, k=10)["visited"]["shards"] for query in queries]
    assert recall >= 0.95
    assert np.mean([len(shards) for shards in visited]) < SHARDS / 2
    batch = anywhere.search_batch(queries[:20], k=10, consistency="strong")
    assert [[hit.id for hit in hits] for hits in batch] == [[hit.id for hit in hits] for hits in found[:20]]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"filter": {"group": 3}}, "filter"),
        ({"exact": True}, "exact"),
        ({"recall": 1.0}, "recall 1"),
        ({"k": None, "max_distance": 0.2}, "within a distance"),
        ({"k": 500}, "k is 500"),
        ({"group_by": "group"}, "group_by"),
    ],
)
def test_what_must_be_complete_visits_all_shards(filled: ClusterDatabase, options: dict[str, Any], why: str) -> None:
    query = scattered(1)[0]
    visited = filled.explain(query, consistency="strong", **{"k": 10, **options})["visited"]
    assert visited["shards"] == list(range(SHARDS)) and why in visited["why"]


def test_exact_answers_are_those_of_brute_force(filled: ClusterDatabase) -> None:
    queries = scattered(10)
    for query, near in zip(queries, exact(queries, 10), strict=True):
        assert {hit.id for hit in filled.search(query, k=10, exact=True, consistency="strong")} == near


def test_reading_by_id_counting_and_scrolling(anywhere: ClusterDatabase) -> None:
    item = anywhere.get("v7", consistency="strong")
    assert item is not None and item.metadata["n"] == 7 and np.array_equal(item.vector, VECTORS[7])
    found = anywhere.get(["v1", "none", "v2"], consistency="strong")
    assert [one and one.id for one in found] == ["v1", None, "v2"]
    assert anywhere.exists(["v3", "none"], consistency="strong") == [True, False]
    assert anywhere.count(consistency="strong") == ROWS
    assert anywhere.count({"group": 3}, consistency="strong") == len([n for n in range(ROWS) if n % 7 == 3])
    pages = [anywhere.scroll(300, consistency="strong")]
    while pages[-1].cursor is not None:
        pages.append(anywhere.scroll(300, pages[-1].cursor, vectors=True))
    names = [one.id for page in pages for one in page.items]
    assert sorted(names) == sorted(IDS) and len(pages) == -(-ROWS // 300)
    assert "v7" not in {hit.id for hit in anywhere.search(id="v7", k=3, consistency="strong")}


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
def test_a_vector_that_changes_is_in_one_place_afterwards(cluster: Cluster, metric: str) -> None:
    database = made(cluster, f"moving-{metric}", metric)
    database.upsert(IDS[:400], VECTORS[:400], METADATA[:400])
    moved = scattered(400)
    result = database.upsert(IDS[:400], moved, [{"n": -1}] * 400)
    assert result.count == 400 and database.count(consistency="strong") == 400
    other = cluster.database("n3", f"moving-{metric}")
    for at, item in enumerate(other.get(IDS[:400], seen=SeenSequences(result.sequences))):
        assert item is not None and item.metadata == {"n": -1} and np.array_equal(item.vector, moved[at])
        assert item.version == result.sequences[0]
    hits = other.search(moved[5], k=400, exact=True, consistency="strong")
    assert len({hit.id for hit in hits}) == 400 and all(hit.metadata == {"n": -1} for hit in hits)
    changed = other.update_metadata(IDS[:10], {"more": 1})
    assert changed.count == 10
    assert [item and item.metadata for item in database.get(IDS[:10], consistency="strong")] == [
        {"n": -1, "more": 1}
    ] * 10
    assert other.delete(IDS[:100]).count == 100 and other.delete(IDS[:100]).count == 0
    assert database.exists(IDS[:101], consistency="strong") == [False] * 100 + [True]
    assert other.delete(filter={"n": -1}).count == 300 and database.count(consistency="strong") == 0


def test_a_request_that_is_sent_again_is_done_once(cluster: Cluster) -> None:
    database = made(cluster, "again")
    first = database.upsert(["a", "b"], VECTORS[:2], request_id="r1")
    database.upsert(["a"], VECTORS[5:6])
    second = database.upsert(["a", "b"], VECTORS[:2], request_id="r1")
    assert second.sequences == first.sequences and second.count == 2
    item = database.get("a", consistency="strong")
    assert item is not None and np.array_equal(item.vector, VECTORS[5])


@pytest.mark.parametrize("level", ["quorum", "strong", "eventual"])
def test_all_levels_of_writes(cluster: Cluster, level: str) -> None:
    database = made(cluster, f"level-{level}")
    for at in range(5):
        database.upsert(["a", "b"], VECTORS[at : at + 2], consistency=level, atomic=True)
    wait_until(lambda: _vector(database, "a") == VECTORS[4].tolist())
    assert _vector(database, "b") == VECTORS[5].tolist() and database.count(consistency="strong") == 2


def _vector(database: ClusterDatabase, name: str) -> list[float] | None:
    item = database.get(name, consistency="strong")
    return None if item is None else item.vector.tolist()


def test_conditions_are_refused_with_the_reason(filled: ClusterDatabase) -> None:
    for ask in (
        lambda: filled.upsert(["v1"], VECTORS[:1], if_version=0),
        lambda: filled.delete("v1", if_version=3),
        lambda: filled.update_metadata("v1", {}, if_version=3),
    ):
        with pytest.raises(JadeError, match="none of the shards knows") as refused:
            ask()
        assert refused.value.code is ErrorCode.NOT_IMPLEMENTED
    assert filled.exists("v1", consistency="strong")


def test_racing_writers_and_readers_agree(cluster: Cluster) -> None:
    """Writers move a few ids to and fro through all gateways; reads always find each, and never go back."""
    made(cluster, "racing")
    databases = [cluster.database(name, "racing") for name in ("n1", "n2", "n3")]
    names = [f"r{n}" for n in range(4)]
    databases[0].upsert(names, VECTORS[:4])
    over, wrong = threading.Event(), []
    levels = ("strong", "session")

    def write(database: ClusterDatabase, seed: int) -> None:
        chance = np.random.default_rng(seed)
        for _ in range(60):
            database.upsert(names, VECTORS[chance.integers(0, ROWS, 4)])

    def read(database: ClusterDatabase, level: str) -> None:
        newest, seen = [0] * 4, SeenSequences()
        while not over.is_set():
            items = database.get(names, consistency=level, seen=seen, timeout=WAIT_S)
            page = database.scroll(10, consistency=level, seen=seen, timeout=WAIT_S).items
            versions = [0 if item is None else item.version for item in items]
            if min(versions) == 0 or any(a < b for a, b in zip(versions, newest, strict=True)) or len(page) != 4:
                wrong.append((versions, newest, [item.id for item in page]))
            newest = versions

    writers = [threading.Thread(target=write, args=(one, at)) for at, one in enumerate(databases)]
    readers = [threading.Thread(target=read, args=one) for one in zip(databases, levels, strict=False)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert not wrong
    assert databases[2].count(consistency="strong") == 4
    found = [[item and item.version for item in one.get(names, consistency="strong")] for one in databases]
    assert found[0] == found[1] == found[2]


def test_replicas_agree_and_indexes_are_built(cluster: Cluster) -> None:
    database = made(cluster, "indexed", index="FLAT")
    database.upsert(IDS[:900], VECTORS[:900])
    database.upsert(IDS[:900], scattered(900))
    cluster.wait_everywhere(database)
    database.wait_indexed(180)

    def is_indexed() -> bool:
        stats = database.stats()
        return (stats.rows, stats.indexed_rows, stats.shards, stats.trouble) == (900, 900, SHARDS, "")

    wait_until(is_indexed, database.stats)
    cluster.wait_everywhere(database)
    assert database.digest() == cluster.database("n2", "indexed").digest()


def test_a_node_that_comes_back_catches_up_by_the_shared_log(cluster: Cluster) -> None:
    database = made(cluster, "away")
    database.upsert(IDS[:300], VECTORS[:300])
    cluster.stop("n3")
    database.upsert(IDS[:300], scattered(300))
    last = database.upsert(["last"], VECTORS[:1]).sequences[0]
    gateway = cluster.start("n3")
    wait_until(lambda: "away" in gateway.store.databases())
    wait_until(
        lambda: all(
            one.watermark >= last
            for node in cluster.running.values()
            for one in node.hosting
            if one.database_id == database.placed.id
        )
    )
    assert gateway.store.database("away").count(consistency="strong") == 301


def test_cells_come_and_go_with_the_database(cluster: Cluster) -> None:
    first = made(cluster, "brief")
    store, records = cluster.gateways["n2"].store, cluster.nodes.store
    key = CELLS_PREFIX + first.placed.id
    assert records.get(key) is not None
    wait_until(lambda: "brief" in store.databases())
    again = store.create_database("brief", DIMENSION, sharding="auto", sample=SAMPLE, exist_ok=True)
    assert again.placed == first.placed
    with pytest.raises(JadeError) as taken:
        store.create_database("brief", DIMENSION, sharding="vector", sample=SAMPLE[:700], exist_ok=True)
    assert taken.value.details["different"] == ["sharding"]
    store.drop_database("brief")
    assert records.get(key) is None


def test_auto_says_why(cluster: Cluster) -> None:
    store = cluster.gateways["n1"].store
    vector = store.create_database("auto-sampled", DIMENSION, sample=SAMPLE).placed.sharding
    plain = store.create_database("auto-plain", DIMENSION).placed.sharding
    assert vector.strategy == "vector" and "sample was given" in vector.reason
    assert plain.strategy == "hash" and "no sample" in plain.reason


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sharding": "vector"}, "sample"),
        ({"sharding": "vector", "sample": SAMPLE[:10]}, "at least 256"),
        ({"sharding": "vector", "sample": SAMPLE[:, :3]}, "dimension|values"),
        ({"sharding": "vector", "sample": SAMPLE * np.nan}, "NaN"),
        ({"sharding": "vector", "sample": SAMPLE, "cells": 3}, "cells must be from 6"),
        ({"sharding": "vector", "sample": SAMPLE, "cells": -1}, "cells"),
        ({"sharding": "vector", "sample": SAMPLE, "bounds": ["a"]}, "bounds"),
        ({"sharding": "hash", "sample": SAMPLE}, "belong to sharding by vector"),
        ({"sharding": "vector", "sample": (SAMPLE > 0) * 1, "metric": "hamming"}, "bits have no cells"),
        ({"sharding": "vector", "sample": SAMPLE, "schema": {"title": "text"}}, "text"),
        ({"sharding": "cells"}, "Unknown sharding"),
    ],
)
def test_what_is_wrong_is_refused(cluster: Cluster, options: dict[str, Any], says: str) -> None:
    store = cluster.gateways["n1"].store
    with pytest.raises(JadeError, match=says) as refused:
        store.create_database("wrong", DIMENSION, **options)
    assert refused.value.code in (
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.DIMENSION_MISMATCH,
        ErrorCode.INVALID_VECTOR,
    )
    assert "wrong" not in store.databases()
