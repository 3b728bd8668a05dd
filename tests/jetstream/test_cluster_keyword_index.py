"""Keyword indexes, hybrid searches with the parts of their scores, and altering, of a cluster's database: as on one node, bit by bit."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jadevectordb
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.service.bm25 import BUILDING, FAILED, Bm25, Build
from jadevectordb.gateway.service.hybrid import HybridHit, hybrid_search
from jadevectordb.gateway.service.records import Records
from jadevectordb.gateway.service.rerank import Rerank
from jadevectordb.model import filter_parse
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.cluster_world import WAIT_S, Cluster, wait_until
from tests.nats_cluster import NatsCluster

DIMENSION, ROWS = 6, 240
WORDS = ["river", "stone", "cloud", "forest", "night", "copper", "lantern", "garden", "tide", "amber", "winter"]
RNG = random.Random(5)
TEXTS = [" ".join(RNG.choices(WORDS, k=RNG.randint(2, 20))) for _ in range(ROWS)]
VECTORS = np.random.default_rng(3).normal(size=(ROWS, DIMENSION)).astype(np.float32)
IDS = [f"v{n:03}" for n in range(ROWS)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("keyword")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "keyword-tests", nodes=3, shards=3, replication=2)
        yield running
        running.close()
        connection.close()


class Side:
    """One door to a server's keyword indexes."""

    def __init__(self, store: Any, metadata: Any) -> None:
        self.store = store
        self.bm25 = Bm25(store, metadata, SystemClock())
        self.is_clustered = not isinstance(store, jadevectordb.Store)

    def database(self, name: str) -> Any:
        """Once this door has heard of it."""
        wait_until(lambda: name in self.store.databases())
        return self.store.database(name)

    def write(self, name: str, *arguments: Any, of: str = "upsert") -> None:
        level = {"consistency": "strong"} if self.is_clustered else {}
        getattr(self.database(name), of)(*arguments, **level)

    def found(self, name: str, **query: Any) -> list[tuple[Any, ...]]:
        database = self.database(name)
        if isinstance(query.get("node"), dict):
            query["node"] = filter_parse.parse(query["node"], database.config.schema)
        given = {"vector": None, "text": None, "k": 10} | query
        return [_shown(hit) for hit in hybrid_search(database, self.bm25.documents(name), **given)]

    def status(self, name: str) -> tuple[Any, ...]:
        status = self.bm25.status(name, self.database(name), latest=True)
        figures = (
            status.figures
        )  # different terms are counted with those of deleted rows, which each side merges away when it does
        assert figures.terms >= bool(figures.documents)
        return status.status, status.field, figures.documents, figures.tokens, status.vectors, status.texts


def _shown(hit: HybridHit) -> tuple[Any, ...]:
    vector = None if hit.vector_score is None else pytest.approx(hit.vector_score, abs=1e-6)
    return hit.id, hit.score, vector, hit.bm25_score, None if hit.item is None else hit.item.metadata


@pytest.fixture(scope="module")
def doors(cluster: Cluster) -> list[Side]:
    return [Side(cluster.gateways[name].store, cluster.nodes.store) for name in ("n1", "n2", "n3")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    folder = tmp_path_factory.mktemp("alone")
    metadata = SqliteStore(folder / "accounts.sqlite")
    with jadevectordb.open(folder / "data") as store:
        yield Side(store, metadata)
    metadata.close()


QUERIES: list[dict[str, Any]] = [
    {"text": "copper lantern"},
    {"text": "river", "k": 200},
    {"text": "zeppelin submarine tide"},
    {"text": "amber", "vector": VECTORS[7]},
    {"text": "amber stone", "vector": VECTORS[7], "fusion": "linear", "alpha": 0.4, "recall": 1.0},
    {"text": "submarine", "vector": VECTORS[9], "k": 3, "rrf_k": 5},
    {"vector": VECTORS[3], "recall": 1.0},
    {"text": "submarine garden", "node": {"n": {"$lt": 30}}},
    {"text": "submarine night", "node": {"n": {"$ne": 3}}, "vector": VECTORS[1]},
    {"text": "..."},
]


def _compare(cluster: Cluster, doors: list[Side], alone: Side, name: str) -> None:
    """What one door was told the others hear a moment later: then all of them say what one node says."""
    for door in doors:
        wait_until(lambda: door.database(name).config.schema == alone.database(name).config.schema)  # noqa: B023
        cluster.wait_everywhere(door.database(name))
        wait_until(lambda: door.status(name) == alone.status(name), lambda: (door.status(name), alone.status(name)))  # noqa: B023
        for query in QUERIES:
            if door.bm25.has_text(name, door.database(name)) or "text" not in query:
                expected = alone.found(name, **query)
                wait_until(
                    lambda: door.found(name, **query) == expected,  # noqa: B023
                    lambda: (query, door.found(name, **query), expected),  # noqa: B023
                )


def test_indexes_of_words_are_those_of_one_node(cluster: Cluster, doors: list[Side], alone: Side) -> None:
    """Each step through another door of the cluster, and looked at through all of them."""
    name = "indexed"
    for side in (doors[0], alone):
        side.store.create_database(name, DIMENSION, metric="euclidean")
        side.write(name, IDS, VECTORS, [{"text": text, "n": n} for n, text in enumerate(TEXTS)])
    steps: list[Any] = [
        lambda side: side.bm25.build(name, side.database(name), field="text"),
        lambda side: side.bm25.add(
            name, side.database(name), {"v003": "submarine", "v150": "submarine tide", "loose": "submarine night"}
        ),
        lambda side: side.write(name, IDS[140:160], of="delete"),
        lambda side: side.write(name, IDS[:5], [{"text": "amber zeppelin"}] * 5, of="update_metadata"),
        lambda side: side.bm25.build(name, side.database(name), documents={"a": "amber", "v001": "river zeppelin"}),
        lambda side: side.write(name, ["t"], VECTORS[:1], [{"title": "zeppelin garden", "n": 1}]),
        lambda side: side.bm25.build(name, side.database(name), field="title"),
        lambda side: side.bm25.build(name, side.database(name), documents={"b": "tide"}, keep_documents=True),
    ]
    _compare(cluster, doors, alone, name)
    for turn, step in enumerate(steps):
        for side in (doors[turn % 3], alone):
            step(side)
        _compare(cluster, doors, alone, name)
    doors[1].bm25.forget(name)
    for door in doors:
        wait_until(lambda: door.bm25.documents(name) is None)  # noqa: B023


def test_a_build_that_fails_says_so_everywhere_and_changes_nothing(cluster: Cluster, doors: list[Side]) -> None:
    database = doors[0].store.create_database("failing", 2)
    doors[0].write("failing", ["a"], [[1, 0]], [{"text": 3, "words": "some"}])
    with pytest.raises(JadeError) as refused:
        doors[1].bm25.build("failing", doors[1].database("failing"), field="text")
    assert refused.value.code is ErrorCode.SCHEMA_VIOLATION
    for door in doors:
        wait_until(lambda: door.status("failing")[0] == FAILED)  # noqa: B023
    assert not database.config.schema.fields
    doors[2].bm25.build("failing", doors[2].database("failing"), field="words")
    wait_until(lambda: doors[0].database("failing").config.schema.fields)
    cluster.wait_everywhere(doors[0].database("failing"))
    assert [hit[0] for hit in doors[0].found("failing", text="some")] == ["a"]
    with pytest.raises(JadeError) as typed:
        wait_until(lambda: doors[1].database("failing").config.schema.fields)
        doors[1].database("failing").upsert(["b"], [[1, 0]], [{"words": 5}])
    assert typed.value.code is ErrorCode.SCHEMA_VIOLATION


def test_one_node_builds_at_a_time_and_a_build_of_a_node_that_is_gone_failed(
    cluster: Cluster, doors: list[Side]
) -> None:
    database = doors[0].store.create_database("crossed", 2)
    noted: Records[Build] = Records(cluster.nodes.store, "bm25/", Build, is_shared=True)
    assert noted.put("crossed", Build(BUILDING, "text", node="n2"))
    wait_until(lambda: doors[0].status("crossed")[0] == BUILDING)
    with pytest.raises(JadeError) as refused:
        doors[0].bm25.build("crossed", database, field="text")
    assert refused.value.code is ErrorCode.CONFLICT
    wait_until(lambda: doors[1].status("crossed")[0] == FAILED)  # n2 itself knows that it builds nothing
    assert noted.put("crossed", Build(BUILDING, "text", node="n9"))
    wait_until(lambda: doors[0].status("crossed")[0] == FAILED)
    doors[0].bm25.build("crossed", database, field="text")


def test_rows_written_and_searched_while_a_field_becomes_text(doors: list[Side]) -> None:
    """Neither readers nor writers see an error, and nothing that was written is missing."""
    database = doors[0].store.create_database("meanwhile", 2)
    elsewhere = doors[1].database("meanwhile")
    stop, troubles, written = threading.Event(), [], [0]

    def write() -> None:
        try:
            while not stop.is_set():
                n = written[0]
                elsewhere.upsert([f"k{n}"], [[1, n]], [{"text": f"amber word{n}"}])
                written[0] += 1
        except JadeError as error:
            troubles.append(error)

    def read() -> None:
        try:
            while not stop.is_set():
                elsewhere.search([1, 0], k=5, timeout=WAIT_S)
        except JadeError as error:
            troubles.append(error)

    threads = [threading.Thread(target=work) for work in (write, read)]
    for thread in threads:
        thread.start()
    wait_until(lambda: written[0] > 20)
    status = doors[0].bm25.build("meanwhile", database, field="text")
    stop.set()
    for thread in threads:
        thread.join()
    assert not troubles and status.status == "completed"
    assert len(database.search(text="amber", k=10_000, consistency="strong")) == written[0]
    assert database.count(consistency="strong") == written[0]


def test_index_and_schema_are_altered_and_what_can_not_be_is_said(cluster: Cluster, doors: list[Side]) -> None:
    store = doors[2].store
    database = store.create_database("altered", DIMENSION, seal_rows=64)
    doors[2].write("altered", IDS, VECTORS, [{"n": n, "day": "2024-01-01"} for n in range(ROWS)])
    cluster.wait_everywhere(database)
    before = database.search(VECTORS[0], k=5, recall=1.0).ids
    store.alter_database("altered", index="HNSW", index_parameters={"M": 8})
    database.wait_indexed(180)
    assert database.search(VECTORS[0], k=5, recall=1.0).ids == before
    for name in ("n1", "n3"):
        wait_until(lambda: cluster.database(name, "altered").config == database.config)  # noqa: B023
    for node in cluster.running.values():
        for hosted in node.hosting:
            if hosted.database_id == database.placed.id:
                wait_until(lambda: hosted.readable is not None and hosted.readable.config.index == "HNSW")  # noqa: B023
    store.alter_database("altered", schema={"n": "integer"}, strict=False)
    with pytest.raises(JadeError) as typed:
        database.upsert(["x"], VECTORS[:1], [{"n": "one"}])
    assert typed.value.code is ErrorCode.SCHEMA_VIOLATION
    refusals: list[tuple[dict[str, Any], ErrorCode]] = [
        ({"dimension": 3}, ErrorCode.NOT_IMPLEMENTED),
        ({"schema": {"day": "date"}}, ErrorCode.NOT_IMPLEMENTED),
        ({"schema": {"n": "text"}}, ErrorCode.SCHEMA_VIOLATION),
        ({"index": "BEST"}, ErrorCode.INVALID_ARGUMENT),
    ]
    for changes, code in refusals:
        with pytest.raises(JadeError) as refused:
            store.alter_database("altered", **changes)
        assert refused.value.code is code
    assert dict(database.config.schema.fields) == {"n": "integer"}


def test_a_restarted_node_opens_its_replicas_as_they_are_configured_now(cluster: Cluster, doors: list[Side]) -> None:
    database = doors[0].store.create_database("restarted", 2, replication=3)
    doors[0].write("restarted", ["a", "b"], [[1, 0]] * 2, [{"text": "amber"}, {"text": "river"}])
    cluster.stop("n3")
    try:
        doors[0].bm25.build("restarted", database, field="text")
    finally:
        gateway = cluster.start("n3")
    wait_until(
        lambda: all(
            (held := cluster.running["n3"].hosting.get(database.placed.id, shard)) is not None
            and held.readable is not None
            and held.readable.config.schema.texts == ("text",)
            for shard in range(3)
        )
    )
    wait_until(lambda: gateway.store.find("restarted") is not None)
    again = gateway.store.database("restarted")
    assert again.search(text="amber", consistency="strong", timeout=WAIT_S).ids == ["a"]


def test_how_to_re_rank_is_known_to_all_nodes(cluster: Cluster, tmp_path: Path) -> None:
    first, second = (Rerank(cluster.nodes.store, {}, SystemClock(), is_shared=True) for _ in range(2))
    first.configure("some", {"rerank_weight": 0.25})
    wait_until(lambda: second.config("some").rerank_weight == 0.25)
    second.configure("some", {"batch_size": 7})
    wait_until(lambda: first.config("some").batch_size == 7)
    assert first.config("some").rerank_weight == 0.25
    first.forget("some")
    wait_until(lambda: second.config("some").batch_size == 32)
