"""Searches by words, and by words and a vector, of a cluster's database: what one node with the same vectors answers, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jadevectordb
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.seen import SeenSequences
from tests.cluster_world import WAIT_S, Cluster, wait_until
from tests.nats_cluster import NatsCluster

DIMENSION, ROWS = 8, 500
SCHEMA = {"title": "text", "body": "text", "group": "integer"}
WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "frost",
    "grove",
    "heath",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "marsh",
    "north",
    "oasis",
]
RNG = np.random.default_rng(11)
VECTORS = RNG.standard_normal((ROWS, DIMENSION), dtype=np.float32)
IDS = [f"v{n}" for n in range(ROWS)]


def _text(words: int) -> str:
    return " ".join(RNG.choice(WORDS, words, p=_SHARES))


_SHARES = np.arange(len(WORDS), 0, -1) / sum(range(len(WORDS) + 1))
METADATA = [
    {"title": _text(3), "body": _text(int(RNG.integers(0, 30))), "group": n % 6} | ({"odd": True} if n % 2 else {})
    for n in range(ROWS)
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("words")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "words-tests", nodes=3, shards=4, replication=2)
        yield running
        running.close()
        connection.close()


def _fill(database: Any, **level: str) -> None:
    """Rows in sealed segments, deleted and replaced ones among them, and rows that are in memory only."""
    database.upsert(IDS[:350], VECTORS[:350], METADATA[:350], **level)
    database.wait_indexed(180)
    database.delete(IDS[20:60], **level)
    database.upsert(IDS[100:130], VECTORS[200:230], METADATA[200:230], **level)
    database.upsert(IDS[350:], VECTORS[350:], METADATA[350:], **level)
    database.update_metadata(IDS[:10], [{"body": "amber amber oasis"}] * 10, **level)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[jadevectordb.Store]:
    with jadevectordb.open(tmp_path_factory.mktemp("alone")) as store:
        for metric in ("cosine", "euclidean"):
            _fill(store.create_database(metric, DIMENSION, metric=metric, shards=4, schema=SCHEMA))
        yield store


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> None:
    for metric in ("cosine", "euclidean"):
        made = cluster.gateways["n1"].store.create_database(metric, DIMENSION, metric=metric, schema=SCHEMA)
        _fill(made, consistency="strong")
        cluster.wait_everywhere(made)  # so that reads without a session find it all


@pytest.fixture(params=["n1", "n3"])
def gateway(request: pytest.FixtureRequest, cluster: Cluster, filled: None) -> Any:
    return cluster.gateways[request.param].store


TEXTS = ["amber", "frost marsh", "oasis oasis north ember", "nothing here", "", "Amber-FROST, grove!"]
QUESTIONS: list[dict[str, Any]] = [
    {"k": 10},
    {"k": 1},
    {"k": 300},
    {"k": 10, "filter": {"group": 3}},
    {"k": 10, "filter": {"odd": True, "group": {"$lt": 4}}},
    {"k": 10, "filter": {"group": 99}},
    {"k": 4, "group_by": "group"},
    {"k": 3, "group_by": "group", "group_size": 7},
    {"k": 3, "group_by": "nothing"},
    {"k": 20, "include": ("metadata", "vector")},
]


def _same(found: Any, expected: Any) -> None:
    assert found.ids == expected.ids
    assert found.scores == expected.scores
    assert [hit.metadata for hit in found] == [hit.metadata for hit in expected]


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "include"}


@pytest.mark.parametrize("options", QUESTIONS)
def test_searching_by_words_answers_as_one_node(
    gateway: Any, alone: jadevectordb.Store, options: dict[str, Any]
) -> None:
    database, other = gateway.database("cosine"), alone.database("cosine")
    for text in TEXTS:
        for level in ("strong", "session", "eventual"):
            _same(database.search(text=text, consistency=level, **options), other.search(text=text, **_plain(options)))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("options", QUESTIONS)
def test_words_and_a_vector_are_fused_as_on_one_node(
    gateway: Any, alone: jadevectordb.Store, options: dict[str, Any], metric: str
) -> None:
    database, other = gateway.database(metric), alone.database(metric)
    for text in TEXTS[1:5]:
        for how in ({}, {"fusion": "weighted", "alpha": 0.3}, {"alpha": 0.9}):
            _same(
                database.search(VECTORS[3], text=text, exact=True, consistency="strong", **how, **options),
                other.search(VECTORS[3], text=text, exact=True, **how, **_plain(options)),
            )
    by_id = {"id": "v99", "text": "cedar", "exact": True}
    _same(database.search(**by_id, **options), other.search(**by_id, **_plain(options)))


def test_groups_and_explanations(gateway: Any, alone: jadevectordb.Store) -> None:
    database, other = gateway.database("cosine"), alone.database("cosine")
    for vector in (None, VECTORS[0]):
        groups = database.search_groups(vector, text="amber", group_by="group", group_size=2, k=3)
        expected = other.search_groups(vector, text="amber", group_by="group", group_size=2, k=3)
        assert [(g.key, [h.id for h in g.hits]) for g in groups] == [(g.key, [h.id for h in g.hits]) for g in expected]
    plan = database.explain(VECTORS[0], text="amber frosts", filter={"group": 1})
    told = other.explain(VECTORS[0], text="amber frosts", filter={"group": 1})
    assert sorted(shard for node in plan["nodes"] for shard in node["shards"]) == [0, 1, 2, 3]
    for name in ("text_terms", "fusion", "depth", "matches", "recall"):
        assert plan[name] == told[name]
    assert {segment["strategy"] for segment in plan["segments"]} == {
        segment["strategy"] for segment in told["segments"]
    }
    nothing = database.search(text="...", explain=True)
    assert nothing == [] and nothing.explanation.text_terms == []


def test_what_is_wrong_is_refused_as_on_one_node(gateway: Any, alone: jadevectordb.Store) -> None:
    database, other = gateway.database("cosine"), alone.database("cosine")
    questions: list[Any] = [
        lambda db: db.search(text=3),
        lambda db: db.search(text="a", k=0),
        lambda db: db.search(text="a", k=None),
        lambda db: db.search(text="a", fusion="best"),
        lambda db: db.search(VECTORS[0], text="a", alpha=2),
        lambda db: db.search(text="a", threshold=0.5),
        lambda db: db.search(text="a", max_distance=0.5),
        lambda db: db.search(VECTORS[0], id="v1", text="a"),
        lambda db: db.search(id="nobody", text="a"),
        lambda db: db.search(VECTORS[0][:2], text="a"),
        lambda db: db.search(text=" ".join(f"w{n}" for n in range(99))),
        lambda db: db.search(text="a", filter={"$what": 1}),
        lambda db: db.search(text="a", group_by=""),
    ]
    for ask in questions:
        with pytest.raises(JadeError) as here:
            ask(database)
        with pytest.raises(JadeError) as there:
            ask(other)
        assert here.value.code == there.value.code


def test_without_a_text_field_nothing_is_searched_by_words(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("wordless", 2)
    with pytest.raises(JadeError) as refused:
        database.search(text="words")
    assert refused.value.code is ErrorCode.UNKNOWN_FIELD


def _one(cluster: Cluster, alone: jadevectordb.Store, name: str) -> tuple[ClusterDatabase, Any]:
    made = cluster.gateways["n1"].store.create_database(name, 2, schema={"text": "text"})
    return made, alone.create_database(name, 2, shards=4, schema={"text": "text"})


def test_scores_follow_each_write(cluster: Cluster, alone: jadevectordb.Store) -> None:
    """Counts that a gateway remembers are never what an answer is scored with once they are wrong."""
    database, other = _one(cluster, alone, "following")
    elsewhere = cluster.database("n2", "following")
    for n in range(30):
        for one in (database, other):
            one.upsert([f"k{n}"], [[1, n]], [{"text": f"amber {'frost ' * (n % 4)}word{n}"}])
            if n % 7 == 3:
                one.delete([f"k{n - 2}"])
        for text in ("amber", "frost amber"):
            for asked in (database, elsewhere):
                _same(asked.search(text=text, consistency="strong"), other.search(text=text))
                _same(asked.search([1, 5], text=text, consistency="strong"), other.search([1, 5], text=text))
    for asked in (database, elsewhere):  # nothing is written: the counts are given along, and found to be true
        # More only where an answer was late, and was asked for twice
        wait_until(lambda asked=asked: asked.explain(text="amber")["calls"] <= 3)


_NAMES = st.lists(st.sampled_from([f"h{n}" for n in range(25)]), min_size=1, max_size=6, unique=True)
_BODIES = st.text(alphabet="ab ä", max_size=12)
_STEPS = st.one_of(
    st.tuples(st.just("upsert"), _NAMES, st.lists(_BODIES, min_size=6, max_size=6)),
    st.tuples(st.just("update_metadata"), _NAMES, st.lists(_BODIES, min_size=6, max_size=6)),
    st.tuples(st.just("delete"), _NAMES, st.just([])),
    st.tuples(st.just("seal"), st.just([]), st.just([])),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_STEPS, min_size=1, max_size=8), _BODIES)
def test_any_writes_leave_what_one_node_has(
    cluster: Cluster, alone: jadevectordb.Store, steps: list[tuple[str, list[str], list[str]]], text: str
) -> None:
    databases: list[Any] = [
        cluster.gateways["n1"].store.create_database("any", 2, metric="dot", schema={"text": "text"}, exist_ok=True),
        alone.create_database("any", 2, metric="dot", shards=4, schema={"text": "text"}, exist_ok=True),
    ]
    for database in databases:
        database.delete([f"h{n}" for n in range(25)])
        for step, names, bodies in steps:
            metadata = [{"text": body} for body in bodies[: len(names)]]
            if step == "upsert":
                database.upsert(
                    names, [[len(name), len(body)] for name, body in zip(names, bodies, strict=False)], metadata
                )
            elif step == "seal":
                database.seal(compact=False)
            else:
                getattr(database, step)(names, *([metadata] if step == "update_metadata" else []))
    for asked in (databases[0], cluster.database("n3", "any")):
        for words in ("a", "b ä", text):
            for k in (1, 30):
                _same(asked.search(text=words, k=k, consistency="strong"), databases[1].search(text=words, k=k))
                _same(
                    asked.search([1, 2], text=words, k=k, exact=True, fusion="weighted", consistency="strong"),
                    databases[1].search([1, 2], text=words, k=k, exact=True, fusion="weighted"),
                )


def test_equal_scores_are_in_order_of_id_over_all_shards(cluster: Cluster, alone: jadevectordb.Store) -> None:
    database, other = _one(cluster, alone, "ties")
    names = [f"t{n:03}" for n in RNG.permutation(200)]
    for one in (database, other):
        one.upsert(names, [[1, 0]] * 200, [{"text": "same words"}] * 200)
    for k in (1, 10, 150):
        _same(database.search(text="same", k=k, consistency="strong"), other.search(text="same", k=k))
        assert database.search(text="same", k=k, consistency="strong").ids == sorted(names)[:k]
        _same(database.search([1, 0], text="same", k=k, consistency="strong"), other.search([1, 0], text="same", k=k))


def test_a_session_sees_its_own_writes(cluster: Cluster) -> None:
    mine = cluster.gateways["n1"].store.create_database("own", 2, schema={"text": "text"})
    other = cluster.database("n3", "own")
    for n in range(40):
        written = mine.upsert([f"k{n}"], [[1, n]], [{"text": f"number word{n}"}])
        seen = SeenSequences(written.sequences)
        assert other.search(text=f"word{n}", seen=seen).ids == [f"k{n}"]
        assert other.search([1, 0], text=f"word{n}", k=200, seen=seen).ids.count(f"k{n}") == 1
        assert all(seen[shard] >= sequence for shard, sequence in written.sequences.items())


def test_one_node_away_is_not_noticed_and_two_are_said(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("away", 2, schema={"text": "text"})
    database.upsert([f"k{n}" for n in range(40)], [[1, 0]] * 40, [{"text": f"amber w{n % 5}"} for n in range(40)])
    cluster.wait_everywhere(database)
    before = database.search(text="amber w3", k=40, consistency="strong")
    cluster.stop("n3")
    try:
        _same(database.search(text="amber w3", k=40), before)
        cluster.stop("n2")
        try:
            record = cluster.gateways["n1"].mirror.map.databases[database.placed.id]
            here = {shard.number for shard in record.shards if shard.on("n1")}
            away = sorted({0, 1, 2, 3} - here)
            if away:
                with pytest.raises(JadeError) as refused:
                    database.search(text="amber", timeout=2.0)
                assert refused.value.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT)
                # This node's own shards too may be late once
                some = database.search(text="amber w3", k=40, allow_partial=True, timeout=2.0)
                while list(some.missing_shards) != away:
                    assert set(some.missing_shards) > set(away)
                    some = database.search(text="amber w3", k=40, allow_partial=True, timeout=2.0)
                assert set(some.ids) < set(before.ids) or not here
        finally:
            cluster.start("n2")
    finally:
        cluster.start("n3")
    wait_until(lambda: database.search(text="amber w3", k=40, timeout=WAIT_S).ids == before.ids)
