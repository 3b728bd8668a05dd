"""Altering a database of a cluster while it is used: readers and writers notice nothing, nodes that were away come back to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.cluster_world import WAIT_S, Cluster, wait_until
from tests.nats_cluster import NatsCluster

NODES, SHARDS, DIMENSION, ROWS = ("n1", "n2", "n3"), 2, 16, 400
VECTORS = np.random.default_rng(9).standard_normal((ROWS, DIMENSION), dtype=np.float32)
IDS = [f"v{n}" for n in range(ROWS)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "alter-tests", nodes=3, shards=SHARDS, replication=3)
        yield running
        running.close()
        connection.close()


def made(cluster: Cluster, name: str) -> ClusterDatabase:
    database = cluster.gateways["n1"].store.create_database(name, DIMENSION, schema={"n": "integer"})
    database.upsert(IDS, VECTORS, [{"n": n, "word": f"w{n % 9}"} for n in range(ROWS)], consistency="strong")
    cluster.wait_everywhere(database)  # so that reads without a session find it all
    return database


def configs(cluster: Cluster, database: ClusterDatabase) -> list[tuple[str, dict[str, str], bool]]:
    """Index and declared fields of every replica that can be read, as it was opened."""
    found = []
    for node in cluster.running.values():
        for shard in range(SHARDS):
            hosted = node.hosting.get(database.placed.id, shard)
            if hosted is not None and hosted.readable is not None:
                config = hosted.readable.config
                fields = {path: str(declared) for path, declared in config.schema.fields.items()}
                found.append((str(config.index), fields, config.schema.strict))
    return found


def test_readers_and_writers_go_on_while_it_is_altered(cluster: Cluster) -> None:
    database = made(cluster, "used")
    errors: list[BaseException] = []
    counts = dict.fromkeys((*NODES, "writer"), 0)
    over = threading.Event()

    def read(node: str) -> None:
        mine = cluster.gateways[node].store.database("used")
        try:
            while not over.is_set():
                at = counts[node] % ROWS
                assert mine.search(VECTORS[at], k=1, timeout=WAIT_S)[0].id == IDS[at]
                counts[node] += 1
        except BaseException as error:
            errors.append(error)

    def write() -> None:
        mine = cluster.gateways["n2"].store.database("used")
        try:
            while not over.is_set():
                number = counts["writer"]
                assert mine.upsert([f"new{number}"], -VECTORS[:1], [{"n": number, "word": "new"}]).count == 1
                counts["writer"] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(node,)) for node in NODES] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    store = cluster.gateways["n3"].store
    for changes in (
        {"index": "HNSW"},
        {"schema": {"n": "integer", "word": "text"}},
        {"strict": True},
        {"schema": {"n": "integer", "word": "string"}, "strict": False, "index": "IVF"},
    ):
        before = dict(counts)
        store.alter_database("used", **changes)  # type: ignore[arg-type]
        wait_until(lambda before=before: bool(errors) or all(counts[one] > before[one] + 3 for one in counts))
    over.set()
    for thread in threads:
        thread.join()
    assert not errors, errors
    wait_until(lambda: configs(cluster, database) == [("IVF", {"n": "integer", "word": "string"}, False)] * 6)
    assert database.count(consistency="strong") == ROWS + counts["writer"]
    cluster.check_replicas(database)


def test_what_is_stored_must_fit_and_gateways_check_by_the_new_fields(cluster: Cluster) -> None:
    database = made(cluster, "narrow")
    store = cluster.gateways["n2"].store
    with pytest.raises(JadeError) as caught:
        store.alter_database("narrow", schema={"n": "string"})
    assert caught.value.code is ErrorCode.SCHEMA_VIOLATION
    assert configs(cluster, database) == [("AUTO", {"n": "integer"}, False)] * 6
    store.alter_database("narrow", schema={"n": "integer", "word": "string"}, strict=True)
    for node in NODES:
        mine = cluster.gateways[node].store.database("narrow")
        wait_until(lambda mine=mine: mine.config.schema.strict)
        for wrong in ({"word": 7}, {"other": 1}):
            with pytest.raises(JadeError) as caught:
                mine.upsert(["v1"], VECTORS[:1], [wrong])
            assert caught.value.code is ErrorCode.SCHEMA_VIOLATION
    cluster.check_replicas(database)


def test_two_nodes_that_alter_at_once_do_it_one_after_the_other(cluster: Cluster) -> None:
    database = made(cluster, "twice")
    wanted = {"n1": "HNSW", "n2": "FLAT", "n3": "IVF"}
    start, results = threading.Barrier(3), dict[str, str]()

    def change(node: str) -> None:
        start.wait()
        try:
            cluster.gateways[node].store.alter_database("twice", index=wanted[node])
            results[node] = "done"
        except JadeError as error:
            results[node] = str(error.code)

    threads = [threading.Thread(target=change, args=(node,)) for node in NODES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results.values()) <= {"done", "CONFLICT"} and "done" in results.values()
    done = {wanted[node] for node, result in results.items() if result == "done"}
    wait_until(lambda: len({index for index, _, _ in configs(cluster, database)}) == 1)
    wait_until(lambda: {index for index, _, _ in configs(cluster, database)} == {str(database.config.index)})
    assert str(database.config.index) in done


def test_a_node_that_was_away_comes_back_to_what_was_altered(cluster: Cluster) -> None:
    database = made(cluster, "away")
    cluster.stop("n3")
    cluster.gateways["n1"].store.alter_database("away", index="HNSW", schema={"n": "integer", "word": "text"})
    database.upsert(["late"], VECTORS[:1], [{"n": 1, "word": "late"}])
    cluster.start("n3")
    fields = {"n": "integer", "word": "text"}
    wait_until(lambda: configs(cluster, database) == [("HNSW", fields, False)] * 6)
    cluster.check_replicas(database)
    mine = cluster.gateways["n3"].store.database("away")
    assert [hit.id for hit in mine.search(text="late", k=1, consistency="strong")] == ["late"]
