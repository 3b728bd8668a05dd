"""Databases of a cluster through its gateways: what one node's `Database` answers, over shards on several nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jadevectordb
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.access.operations import OPERATIONS, check
from jadevectordb.gateway.access.principals import ADMIN, Principal
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.catalog import Catalog, DatabaseRecord, Entry
from jadevectordb.gateway.service.sessions import reading, writing
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import F
from jadevectordb.ports.metadata_store import MetadataStore, OnChange, Watch
from jadevectordb.query.seen import SeenSequences
from tests.cluster_world import Cluster, wait_until
from tests.nats_cluster import NatsCluster

DIMENSION, ROWS = 16, 600
INDEXED_S = 180.0
RNG = np.random.default_rng(7)
VECTORS = RNG.standard_normal((ROWS, DIMENSION), dtype=np.float32)
IDS = [f"v{n}" for n in range(ROWS)]
METADATA = [{"n": n, "group": n % 7, "name": f"name {n}"} for n in range(ROWS)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "database-tests", nodes=3, shards=4, replication=2)
        yield running
        running.close()
        connection.close()


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> ClusterDatabase:
    database = cluster.gateways["n1"].store.create_database("filled", DIMENSION)
    assert database.upsert(IDS, VECTORS, METADATA).count == ROWS
    cluster.wait_everywhere(database)  # so that reads without a session find it all
    return database


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[jadevectordb.Database]:
    with jadevectordb.open(tmp_path_factory.mktemp("alone")) as store:
        database = store.create_database("filled", DIMENSION, shards=4)
        database.upsert(IDS, VECTORS, METADATA)
        yield database


@pytest.fixture(params=["n1", "n2", "n3"])
def anywhere(request: pytest.FixtureRequest, cluster: Cluster, filled: ClusterDatabase) -> ClusterDatabase:
    return cluster.database(request.param, "filled")


QUESTIONS: list[dict[str, Any]] = [
    {"k": 10},
    {"k": 1},
    {"k": ROWS},
    {"k": 10, "filter": {"group": 3}},
    {"k": 10, "filter": (F("n") < 100) & ~F("name").contains("9")},
    {"k": 10, "filter": {"group": 99}},
    {"k": 20, "threshold": 0.3},
    {"k": None, "max_distance": 0.8},
    {"k": 5, "exact": True},
    {"k": 5, "recall": 1.0},
    {"k": 4, "group_by": "group"},
    {"k": 3, "group_by": "group", "group_size": 5},
    {"k": 7, "group_by": "group", "group_size": 90},
    {"k": 3, "group_by": "nothing"},
]


@pytest.mark.parametrize("options", QUESTIONS)
def test_a_search_answers_as_on_one_node(
    anywhere: ClusterDatabase, alone: jadevectordb.Database, options: dict[str, Any]
) -> None:
    for query in VECTORS[:3]:
        found, expected = anywhere.search(query, consistency="strong", **options), alone.search(query, **options)
        assert found.ids == expected.ids
        assert np.allclose(found.scores, expected.scores, atol=1e-6)
        assert [hit.metadata for hit in found] == [hit.metadata for hit in expected]


@pytest.mark.parametrize(
    "options", [{"k": 5}, {"k": None, "max_distance": 0.7}, {"k": 3, "group_by": "group", "group_size": 2}]
)
def test_a_search_by_id_leaves_that_vector_out(
    anywhere: ClusterDatabase, alone: jadevectordb.Database, options: dict[str, Any]
) -> None:
    assert anywhere.search(id="v5", **options).ids == alone.search(id="v5", **options).ids


def test_what_was_not_sent_along_is_fetched(anywhere: ClusterDatabase) -> None:
    hits = anywhere.search(VECTORS[0], k=20, include=())
    for hit in hits:
        assert np.array_equal(hit.vector, VECTORS[IDS.index(hit.id)])
        assert hit.metadata == METADATA[IDS.index(hit.id)]
    with_all = anywhere.search(VECTORS[0], k=20, include=("metadata", "vector"))
    assert all(np.array_equal(a.vector, b.vector) for a, b in zip(hits, with_all, strict=True))


def test_reading_by_id_counting_and_scrolling(anywhere: ClusterDatabase, alone: jadevectordb.Database) -> None:
    items = anywhere.get(["v3", "nobody", "v599", "v3"])
    assert [None if item is None else item.id for item in items] == ["v3", None, "v599", "v3"]
    assert items[0] is not None and np.array_equal(items[0].vector, VECTORS[3])
    assert anywhere.get("nobody") is None and anywhere.exists("v1") and anywhere.exists(["v1", "x"]) == [True, False]
    assert len(anywhere) == ROWS and anywhere.count({"group": 2}) == alone.count({"group": 2})
    for options in ({"limit": 7}, {"limit": 250, "filter": {"group": 1}}, {"limit": 1000, "vectors": True}):
        plain = {name: value for name, value in options.items() if name != "vectors"}
        cursor, expected_cursor = None, None
        for _ in range(4):
            page = anywhere.scroll(cursor=cursor, **options)
            expected = alone.scroll(cursor=expected_cursor, **plain)
            assert [item.id for item in page.items] == [item.id for item in expected.items]
            cursor, expected_cursor = page.cursor, expected.cursor
            assert cursor == expected_cursor
            if cursor is None:
                break
    assert sorted(item.id for item in anywhere.items()) == sorted(IDS)
    shown, total = anywhere.by_id(10, 20)
    assert ([item.id for item in shown], total) == ([item.id for item in alone.by_id(10, 20)[0]], ROWS)


def test_batches_groups_and_explanations(anywhere: ClusterDatabase, alone: jadevectordb.Database) -> None:
    for found, expected in zip(
        anywhere.search_batch(VECTORS[:40], k=3), alone.search_batch(VECTORS[:40], k=3), strict=True
    ):
        assert found.ids == expected.ids
    groups = anywhere.search_groups(VECTORS[0], group_by="group", group_size=2, k=3)
    expected_groups = alone.search_groups(VECTORS[0], group_by="group", group_size=2, k=3)
    assert [(g.key, [h.id for h in g.hits]) for g in groups] == [
        (g.key, [h.id for h in g.hits]) for g in expected_groups
    ]
    plan = anywhere.explain(VECTORS[0], filter={"group": 1})
    assert sorted(shard for node in plan["nodes"] for shard in node["shards"]) == [0, 1, 2, 3]
    assert plan["matches"] == alone.count({"group": 1}) and plan["missing_shards"] == []


def test_what_is_wrong_is_refused_as_on_one_node(anywhere: ClusterDatabase, alone: jadevectordb.Database) -> None:
    questions: list[Any] = [
        lambda db: db.search(VECTORS[0], k=0),
        lambda db: db.search(VECTORS[0][:3]),
        lambda db: db.search([float("nan")] * DIMENSION),
        lambda db: db.search(VECTORS[0], recall=2.0),
        lambda db: db.search(VECTORS[0], filter={"$what": 1}),
        lambda db: db.search(VECTORS[0], k=None),
        lambda db: db.search(VECTORS[0], threshold=0.1, max_distance=0.1),
        lambda db: db.search(id="nobody"),
        lambda db: db.search(),
        lambda db: db.search(VECTORS[0], nprobe=0),
        lambda db: db.search(VECTORS[0], text="words"),
        lambda db: db.upsert(["a", "a"], VECTORS[:2]),
        lambda db: db.upsert(["a"], VECTORS[:2]),
        lambda db: db.upsert(["a\n"], VECTORS[:1]),
        lambda db: db.delete(),
        lambda db: db.delete(filter={}),
        lambda db: db.scroll(0),
    ]
    for ask in questions:
        with pytest.raises(JadeError) as here:
            ask(anywhere)
        with pytest.raises(JadeError) as there:
            ask(alone)
        assert here.value.code == there.value.code


@pytest.mark.parametrize(
    "ask",
    [
        lambda db: db.upsert(IDS[:50], VECTORS[:50], atomic=True),
        lambda db: db.delete(filter={"n": 1}, atomic=True),
    ],
)
def test_what_a_cluster_can_not_do_is_said(filled: ClusterDatabase, ask: Any) -> None:
    with pytest.raises(JadeError) as refused:
        ask(filled)
    assert refused.value.code is ErrorCode.NOT_IMPLEMENTED


@pytest.mark.parametrize("level", ["sometimes", "quorum", 3])
def test_an_unknown_consistency_is_refused(filled: ClusterDatabase, level: Any) -> None:
    with pytest.raises(JadeError) as refused:
        filled.count(consistency=level)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_writes_are_seen_elsewhere_by_session_and_by_strong_reads(cluster: Cluster) -> None:
    mine = cluster.gateways["n1"].store.create_database("sessions", 4)
    other, third = (cluster.database(name, "sessions") for name in ("n2", "n3"))
    for n in range(60):
        written = mine.upsert([f"k{n}"], [[1.0, n, 0.0, 0.0]], [{"n": n}])
        assert other.get(f"k{n}", seen=SeenSequences(written.sequences)) is not None
        assert third.get(f"k{n}", consistency="strong") is not None
        assert third.count(seen=SeenSequences(written.sequences)) >= 1
    assert other.count(consistency="strong") == 60


def test_conditions_hold_or_name_what_stood_against_them(cluster: Cluster) -> None:
    database = cluster.gateways["n2"].store.create_database("conditions", 2)
    first = database.upsert(["a"], [[1, 0]], if_version=0)
    with pytest.raises(JadeError) as refused:
        database.upsert(["a"], [[0, 1]], if_version=0)
    assert refused.value.code is ErrorCode.VERSION_CONFLICT
    assert refused.value.details["actual"] == first.version
    assert database.upsert(["a"], [[0, 1]], if_version=first.version).count == 1
    ids = [f"c{n}" for n in range(40)]  # in all shards
    database.upsert([ids[0]], [[1, 0]])
    with pytest.raises(JadeError) as partly:
        database.upsert(ids, [[1, 1]] * 40, if_version=0)
    told = partly.value.details
    assert partly.value.code is ErrorCode.VERSION_CONFLICT and not told["undecided"]
    assert ids[0] in told["failed_ids"] and told["written"] + told["failed"] == 40 and told["written"] > 0
    assert database.count(consistency="strong") == told["written"] + 2
    items = [item for item in database.get(ids, consistency="strong") if item is not None]
    wrong = items[0].id
    versions = [item.version + (item.id == wrong) for item in items]
    result = database.delete([item.id for item in items], if_version=versions, allow_partial=True)
    assert len(result.failures) == 1 and wrong in result.failures[0].ids
    assert result.count == len(items) - len(result.failures[0].ids)


def test_a_request_that_is_sent_again_is_done_once(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("again", 2)
    first = database.upsert(["a", "b", "c"], [[1, 0]] * 3, request_id="r1")
    second = cluster.database("n3", "again").upsert(["a", "b", "c"], [[1, 0]] * 3, request_id="r1")
    assert (first.sequences, first.count) == (second.sequences, second.count)
    database.upsert(["a"], [[0, 1]])
    database.upsert(["a", "b", "c"], [[1, 0]] * 3, request_id="r1")
    item = database.get("a", consistency="strong")
    assert item is not None and item.vector.tolist() == [0, 1]


def test_metadata_is_changed_and_vectors_are_deleted(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("changes", 2)
    database.upsert(["a", "b", "c"], [[1, 0]] * 3, [{"x": 1}, {"x": 2}, {"x": 3}])
    changed = database.update_metadata(["a", "nobody"], {"y": True})
    assert changed.count == 1
    assert database.get("a", seen=SeenSequences(changed.sequences)).metadata == {"x": 1, "y": True}  # type: ignore[union-attr]
    large = {"text": "t" * 600_000}
    database.update_metadata("b", large)
    cluster.wait_everywhere(database)  # how much is stored is asked of any replica
    with pytest.raises(JadeError) as refused:
        database.update_metadata("b", {"more": "t" * 600_000})
    assert refused.value.code is ErrorCode.INVALID_METADATA
    assert database.delete(filter={"x": {"$gte": 2}}).count == 2
    assert database.delete(["a", "nobody"], consistency="strong").count == 1
    assert database.count(consistency="strong") == 0


def test_a_strong_write_is_on_every_live_replica(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("everywhere", 2, replication=3)
    cluster.wait_everywhere(database)
    mirror = cluster.gateways["n1"].mirror

    def written_while_all_live() -> bool:
        """False when a node seemed dead, of which nothing is promised then."""
        are_alive = len(mirror.alive()) == 3
        result = database.upsert([f"e{n}" for n in range(50)], [[1, 0]] * 50, consistency="strong")
        behind = [
            (node.name, shard)
            for node in cluster.running.values()
            for shard, sequence in result.sequences.items()
            if node.hosted(database.placed.id, shard).watermark < sequence
        ]
        if not are_alive or len(mirror.alive()) < 3:
            return False
        assert not behind
        return True

    wait_until(written_while_all_live)


def test_eventual_writes_are_published_and_counted(cluster: Cluster) -> None:
    gateway = cluster.gateways["n1"]
    database = gateway.store.create_database("later", 2)
    for n in range(30):
        result = database.upsert([f"l{n}", f"m{n}"], [[1, 0]] * 2, consistency="eventual")
        assert (result.count, result.sequences) == (2, {})
    wait_until(lambda: gateway.store.outbox_figures()[database.placed.id].entries == 0)
    figures = gateway.store.outbox_figures()[database.placed.id]
    assert (figures.lag_s, figures.trouble, figures.refused) == (0.0, "", 0) and figures.published >= 30
    assert database.count(consistency="strong") == 60
    with pytest.raises(JadeError) as refused:
        database.upsert(["x"], [[1, 0]], if_version=0, consistency="eventual")
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_indexes_are_built_on_all_replicas(cluster: Cluster) -> None:
    database = cluster.gateways["n3"].store.create_database("indexed", DIMENSION, seal_rows=64)
    database.upsert(IDS, VECTORS, METADATA)
    database.delete(IDS[:100])
    cluster.wait_everywhere(database)
    database.wait_indexed(INDEXED_S)

    def is_indexed() -> bool:
        stats = database.stats()
        return (stats.rows, stats.indexed_rows, stats.shards, stats.trouble) == (500, 500, 4, "")

    wait_until(is_indexed, database.stats)
    stats = database.stats()
    assert {segment.shard for segment in stats.segments} == {0, 1, 2, 3} and database.index_in_use == "FLAT"
    database.compact(INDEXED_S)
    wait_until(lambda: database.stats().dead_rows == 0)
    cluster.wait_everywhere(database)
    assert database.digest() == cluster.database("n1", "indexed").digest()


def test_packed_bits_travel(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("bits", 12, metric="hamming")
    bits = RNG.integers(0, 2, (30, 12), dtype=np.uint8)
    database.upsert([f"b{n}" for n in range(30)], bits)
    other = cluster.database("n2", "bits")
    item = other.get("b3", consistency="strong")
    assert item is not None and item.vector.tolist() == bits[3].tolist()
    hits = other.search(bits[4], k=1, include=("vector",), consistency="strong")
    assert hits[0].score == 1.0 and hits[0].vector.tolist() == bits[4].tolist()


def test_ranges_of_ids_lie_together(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("ranges", 2, shards=3, sharding="range", bounds=["b", "c"])
    names = [f"{letter}{n}" for letter in "abc" for n in range(20)]
    assert set(database.upsert(names, [[1, 0]] * 60).sequences) == {0, 1, 2}
    assert set(database.upsert(["a-new"], [[1, 0]]).sequences) == {0}
    cluster.wait_everywhere(database)
    assert sorted(item.id for item in database.items()) == sorted([*names, "a-new"])
    pages = [database.scroll(7)]
    while pages[-1].cursor is not None:
        pages.append(database.scroll(7, pages[-1].cursor))
    assert sum(len(page.items) for page in pages) == 61


def test_databases_come_and_go_for_everyone(cluster: Cluster) -> None:
    first, second = cluster.gateways["n1"].store, cluster.gateways["n2"].store
    made = first.create_database("brief", 2)
    wait_until(lambda: "brief" in second.databases())
    held = second.database("brief")
    assert second.database("brief") is held and held.placed == made.placed
    with pytest.raises(JadeError) as taken:
        second.create_database("brief", 3)
    assert taken.value.code is ErrorCode.ALREADY_EXISTS
    assert second.create_database("brief", 2, exist_ok=True) is held
    made.upsert(["a"], [[1, 0]], consistency="eventual")
    second.drop_database("brief")
    wait_until(lambda: "brief" not in first.databases())
    for handle in (made, held):
        wait_until(lambda: _refused_as(handle) is ErrorCode.CLOSED)  # noqa: B023
    for node in cluster.running.values():
        wait_until(lambda: not any(r.database == made.placed.id for r in node.hosting.reports()))  # noqa: B023
    again = first.create_database("brief", 2)
    assert again.count() == 0 and again.placed.id != made.placed.id


def _refused_as(database: ClusterDatabase) -> ErrorCode | None:
    """What a read is told; one that was under way when the database went may have found nobody to ask any more."""
    try:
        database.count(timeout=1.0)
    except JadeError as error:
        return error.code
    return None


def test_catalogs_of_all_nodes_agree(cluster: Cluster) -> None:
    clock = SystemClock()
    catalogs = [Catalog(cluster.gateways[name].store, cluster.nodes.store, clock, check) for name in ("n1", "n2")]
    dropped: list[str] = []
    catalogs[1].on_drop.append(dropped.append)
    made = catalogs[0].create("shared", 2, "owner", description="first")
    entry = wait_until(lambda: catalogs[1].find(made.id))
    assert entry.record == made.record
    entry.handle.upsert(["a"], [[1, 0]])
    catalogs[1].update(made.id, name="renamed", grants={"u2": "read"})
    wait_until(lambda: (found := catalogs[0].find(made.id)) is not None and found.record.name == "renamed")
    catalogs[0].drop(made.id)
    wait_until(lambda: catalogs[1].find(made.id) is None)
    wait_until(lambda: dropped == [made.id])


class Untold:
    """The cluster's metadata store for somebody whom nobody tells of changes: he has to ask."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self.get, self.list, self.compare_and_set, self.close = (
            store.get,
            store.list,
            store.compare_and_set,
            store.close,
        )

    def watch(self, _prefix: str, handler: OnChange) -> Watch:
        return self._store.watch("nothing lies here/", handler)


def test_a_node_asks_before_it_says_that_a_database_is_not_there_or_a_name_taken(cluster: Cluster) -> None:
    clock, store, search = SystemClock(), cluster.gateways["n2"].store, OPERATIONS["search"]
    others = list(store.on_change)
    late = Catalog(store, Untold(cluster.nodes.store), clock, check)
    own, store.on_change[:] = [tell for tell in store.on_change if tell not in others], others
    prompt = Catalog(cluster.gateways["n1"].store, cluster.nodes.store, clock, check)
    admin, dropped = Principal("u1", "admin", (ADMIN,), kind="open"), list[str]()
    late.on_drop.append(dropped.append)
    made, _ = prompt.create_unique("news", 2, admin)
    assert late.resolve("news", admin, search).id == made.id
    prompt.drop(made.id)
    again, is_new = late.create_unique("news", 3, admin)
    assert is_new and again.id != made.id and dropped == [made.id]
    late.drop(again.id)
    with pytest.raises(JadeError) as unknown:
        late.resolve("news", admin, search)
    assert unknown.value.code is ErrorCode.UNKNOWN_DATABASE
    store.on_change += own


def test_what_clients_send_reaches_a_cluster(cluster: Cluster, filled: ClusterDatabase) -> None:
    entry = Entry(DatabaseRecord(id="filled", name="filled"), filled, 0)
    assert reading("filled~0.1,3.1", "strong", entry) == {"seen": {0: 1, 3: 1}, "consistency": "strong"}
    assert reading("", "", entry) == {"seen": {}}
    assert writing("eventual", entry) == {"consistency": "eventual"} and writing("", entry) == {}
    assert filled.exists("v1", **reading("filled~0.1", "", entry))
    with pytest.raises(JadeError) as refused:
        filled.exists("v1", **reading("filled~9.1", "", entry))
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(JadeError) as behind:
        filled.exists("v1", seen=SeenSequences(dict.fromkeys(range(4), 10_000)), timeout=0.3)
    assert behind.value.retryable
