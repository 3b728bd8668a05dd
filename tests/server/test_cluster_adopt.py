"""A single node's folder is taken into a cluster: everything there, compared, again without harm; what can't be says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.cli.cluster_adopt import adopt
from jadevectordb.cli.local_cluster import LocalCluster
from jadevectordb.model.errors import ErrorCode, JadeError


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    local = LocalCluster.make(tmp_path_factory.mktemp("adopt") / "cluster", 1, None, "open-loopback")
    local.start(local.nodes, lambda _: None)
    yield local
    local.stop(local.nodes, lambda _: None)


def rows_of(count: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(count, 12)).astype(np.float32)


def test_databases_of_a_folder_are_in_the_cluster_bit_for_bit(cluster: LocalCluster, tmp_path: Path) -> None:
    rows = rows_of(1500)
    with jade.open(tmp_path) as store:
        books = store.create_database(
            "books", dimension=12, metric="euclidean", schema={"n": "integer", "title": "text"}
        )
        metadata = [{"n": i, "deep": {"x": [i]}, "title": f"volume v{i}"} for i in range(1500)]
        books.upsert([f"b{i}" for i in range(1500)], rows, metadata)
        books.delete(["b3"])
        store.create_database("empty", dimension=3)
    with cluster.client() as client:
        for _ in range(2):  # the second time nothing is missing
            done = list(adopt(tmp_path, client, replication=None, shards=3, progress=False))
            assert {one.name: (one.vectors, one.left) for one in done} == {"books": (1499, []), "empty": (0, [])}
        there = client.database("books")
        assert there.count(consistency="strong") == 1499 and there.get("b3", consistency="strong") is None
        item = there.get("b7")
        assert item is not None and item.metadata == {"n": 7, "deep": {"x": [7]}, "title": "volume v7"}
        assert np.array_equal(item.vector, rows[7])
        assert there.search(rows[8], k=1).ids == ["b8"]
        assert there.search(text="v9", k=1).ids == ["b9"]


def test_taking_it_in_again_brings_what_the_folder_holds_now(cluster: LocalCluster, tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        store.create_database("notes", dimension=12).upsert(["a"], rows_of(1), [{"n": 1}])
    with cluster.client() as client:
        list(adopt(tmp_path, client, replication=None, shards=1, progress=False))
        target = client.database("notes")
        target.upsert(["a"], rows_of(2)[1:], [{"n": 2}])
        with jade.open(tmp_path) as store:
            store.database("notes").upsert(["b"], rows_of(1), [{"n": 3}])
        list(adopt(tmp_path, client, replication=None, shards=1, progress=False))
        item = target.get("a", consistency="strong")
        assert item is not None and item.metadata == {"n": 1}
        assert target.count(consistency="strong") == 2


def test_a_folder_in_use_or_without_databases_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    with cluster.client() as client:
        with pytest.raises(JadeError) as caught:
            list(adopt(tmp_path, client, replication=None, shards=None, progress=False))
        assert caught.value.code is ErrorCode.NOT_FOUND
        with jade.open(tmp_path / "used") as store:
            store.create_database("x", dimension=2)
            with pytest.raises(JadeError) as caught:
                list(adopt(tmp_path / "used", client, replication=None, shards=None, progress=False))
            assert caught.value.code is ErrorCode.LOCKED
