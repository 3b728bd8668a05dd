"""Hybrid search against its definition; keyword indexes over metadata and over texts without vectors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.insight_world import SetClock, metadata_at, open_at

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.gateway.service.bm25 import COMPLETED, FAILED, NONE, Bm25
from jadevectordb.gateway.service.hybrid import HybridHit, hybrid_search
from jadevectordb.model import filter_parse
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter

WORDS = [
    "river",
    "stone",
    "cloud",
    "forest",
    "night",
    "copper",
    "lantern",
    "whisper",
    "garden",
    "tide",
    "amber",
    "winter",
]


class World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SetClock()
        self.open()

    def open(self) -> None:
        self.store: Store = open_at(self.folder / "data", self.clock)
        self.metadata: SqliteStore = metadata_at(self.folder)
        self.bm25 = Bm25(self.store, self.metadata, self.clock)

    def close(self) -> None:
        self.store.close()
        self.metadata.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def _texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 25))) for _ in range(count)]


def _filled(world: World, count: int, metric: str = "cosine", **options: object) -> tuple[Database, np.ndarray]:
    database = world.store.create_database("db_1", 16, metric=metric, **options)  # type: ignore[arg-type]
    vectors = np.random.default_rng(3).normal(size=(count, 16)).astype(np.float32)
    metadata = [{"text": text, "n": n} for n, text in enumerate(_texts(count, 5))]
    database.upsert([f"v{n:04}" for n in range(count)], vectors, metadata)
    return database, vectors


def _vector_scores(database: Database, query: np.ndarray) -> dict[str, float]:
    return {hit.id: hit.score for hit in database.search(query, k=10_000, recall=1.0)}


def _text_scores(database: Database, text: str) -> dict[str, float]:
    return {hit.id: hit.score for hit in database.search(text=text, k=10_000)}


def _ranking(scores: dict[str, float], depth: int) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:depth]


def _scaled(ranking: list[tuple[str, float]]) -> dict[str, float]:
    least, most = min(s for _, s in ranking), max(s for _, s in ranking)
    return {name: (score - least) / (most - least) if most > least else 1.0 for name, score in ranking}


def _expected(
    vector: list[tuple[str, float]], text: list[tuple[str, float]], fusion: str, alpha: float
) -> dict[str, float]:
    fused: dict[str, float] = {}
    if fusion == "rrf":
        for ranking in (vector, text):
            for place, (name, _) in enumerate(ranking, start=1):
                fused[name] = fused.get(name, 0.0) + 1 / (60 + place)
        return fused
    for share, ranking in ((alpha, vector), (1 - alpha, text)):
        for name, score in _scaled(ranking).items():
            fused[name] = fused.get(name, 0.0) + share * score
    return fused


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize(("fusion", "alpha"), [("rrf", 0.7), ("linear", 0.7), ("linear", 0.0), ("linear", 1.0)])
def test_fusion_is_its_definition_and_every_part_is_exact(world: World, metric: str, fusion: str, alpha: float) -> None:
    database, _ = _filled(world, 400, metric, schema={"text": "text"})
    rng = np.random.default_rng(9)
    for text in ("copper lantern", "winter", "stone stone tide"):
        query = rng.normal(size=16).astype(np.float32)
        by_vector, by_text = _vector_scores(database, query), _text_scores(database, text)
        expected = _expected(_ranking(by_vector, 100), _ranking(by_text, 100), fusion, alpha)
        hits = hybrid_search(database, None, vector=query, text=text, k=25, fusion=fusion, alpha=alpha, recall=1.0)
        scores = sorted(expected.values(), reverse=True)[:25]
        assert [hit.score for hit in hits] == pytest.approx(scores, rel=1e-5, abs=1e-7)
        for hit in hits:
            assert hit.score == pytest.approx(expected[hit.id], rel=1e-4, abs=1e-6)
            assert hit.vector_score == pytest.approx(by_vector[hit.id], rel=1e-5, abs=1e-6)
            assert hit.bm25_score == pytest.approx(by_text.get(hit.id, 0.0), rel=1e-6)


def test_a_filter_restricts_before_the_best_are_taken(world: World) -> None:
    database, vectors = _filled(world, 500, schema={"text": "text"})
    node = filter_parse.parse({"n": {"$gte": 490}}, database.config.schema)
    hits = hybrid_search(database, None, vector=vectors[0], text="river", k=10, node=node)
    assert len(hits) == 10
    assert all(hit.item is not None and hit.item.metadata["n"] >= 490 for hit in hits)


def test_one_side_alone(world: World) -> None:
    database, vectors = _filled(world, 50, schema={"text": "text"})
    by_text = hybrid_search(database, None, vector=None, text="garden", k=5)
    assert [hit.id for hit in by_text] == database.search(text="garden", k=5).ids
    assert all(hit.vector_score is None and hit.bm25_score > 0 for hit in by_text)
    by_vector = hybrid_search(database, None, vector=vectors[7], text=None, k=5)
    assert by_vector[0].id == "v0007"
    assert by_vector[0].vector_score == pytest.approx(1.0)
    for wrong in (
        {},
        {"vector": vectors[0], "alpha": 2.0},
        {"vector": vectors[0], "fusion": "best"},
        {"text": "x", "rrf_k": -1},
    ):
        arguments = {"vector": None, "text": None, "k": 3, **wrong}
        with pytest.raises(JadeError) as caught:
            hybrid_search(database, None, **arguments)  # type: ignore[arg-type]
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT


# Keyword indexes


def _found(world: World, database: Database, text: str, k: int = 10, node: Filter | None = None) -> list[HybridHit]:
    return hybrid_search(database, world.bm25.documents("db_1"), vector=None, text=text, k=k, node=node)


def test_building_on_a_field_finds_what_is_there_and_follows_what_comes(world: World) -> None:
    database, vectors = _filled(world, 200)
    assert world.bm25.status("db_1", database).status == NONE
    assert not world.bm25.has_text("db_1", database)
    status = world.bm25.build("db_1", database, field="text")
    assert (status.status, status.field, status.figures.documents) == (COMPLETED, "text", 200)
    assert status.figures.terms == len(WORDS)
    assert status.figures.tokens == sum(len(text.split()) for text in _texts(200, 5))
    assert _found(world, database, "amber")
    database.upsert(["new"], vectors[:1], [{"text": "zeppelin over amber fields"}])
    assert [hit.id for hit in _found(world, database, "zeppelin")] == ["new"]
    database.update_metadata("new", {"text": "balloon"})
    assert _found(world, database, "zeppelin") == []
    database.delete("new")
    assert _found(world, database, "balloon") == []
    assert world.bm25.status("db_1", database).figures.documents == 200


def test_an_index_survives_a_restart(world: World) -> None:
    database, _ = _filled(world, 30)
    world.bm25.build("db_1", database, field="text")
    world.bm25.add("db_1", database, {"loose": "a kaleidoscope of rivers"})
    before = [(hit.id, hit.score) for hit in _found(world, database, "river kaleidoscope")]
    world.close()
    world.open()
    database = world.store.database("db_1")
    assert world.bm25.status("db_1", database).status == COMPLETED
    assert [(hit.id, hit.score) for hit in _found(world, database, "river kaleidoscope")] == before
    assert before[0][0] == "loose"


def test_texts_without_vectors_score_as_if_they_were_in_the_database(world: World) -> None:
    """The same texts, all beside vectors in one database, or split between vectors and documents: equal to the last bit."""
    texts = {f"d{n:03}": text for n, text in enumerate(_texts(300, 11))}
    names = list(texts)
    whole = world.store.create_database("whole", 2, schema={"text": "text"})
    whole.upsert(names, np.ones((300, 2)), [{"text": texts[name]} for name in names])
    split = world.store.create_database("db_1", 2)
    split.upsert(names[:120], np.ones((120, 2)), [{"text": texts[name]} for name in names[:120]])
    world.bm25.build("db_1", split, field="text")
    world.bm25.add("db_1", split, {name: texts[name] for name in names[120:]})
    for text in ("copper", "river stone", "whisper tide garden amber"):
        expected = [(hit.id, hit.score) for hit in whole.search(text=text, k=40)]
        assert [(hit.id, hit.bm25_score) for hit in _found(world, split, text, 40)] == expected
    assert world.bm25.status("db_1", split).figures.documents == 300


def test_a_document_may_belong_to_a_vector_and_filters_see_that_vectors_metadata(world: World) -> None:
    database, _ = _filled(world, 40)
    world.bm25.add("db_1", database, {"v0003": "submarine", "v0020": "submarine", "loose": "submarine"})
    node = filter_parse.parse({"n": {"$lt": 10}}, database.config.schema)
    hits = _found(world, database, "submarine", node=node)
    assert [hit.id for hit in hits] == ["v0003"]
    assert hits[0].item is not None
    assert hits[0].item.metadata["n"] == 3
    everything = {hit.id: hit.item is not None for hit in _found(world, database, "submarine")}
    assert everything == {"v0003": True, "v0020": True, "loose": False}
    negated = filter_parse.parse({"n": {"$ne": 3}}, database.config.schema)
    assert {hit.id for hit in _found(world, database, "submarine", node=negated)} == {"v0020", "loose"}


def test_a_filter_over_many_documents_still_fills_k(world: World) -> None:
    database, _ = _filled(world, 300)
    world.bm25.add("db_1", database, {f"v{n:04}": "submarine" for n in range(300)})
    node = filter_parse.parse({"n": {"$gte": 295}}, database.config.schema)
    assert [hit.id for hit in _found(world, database, "submarine", k=5, node=node)] == [
        f"v{n:04}" for n in range(295, 300)
    ]


def test_deleting_a_vector_takes_its_document_along(world: World) -> None:
    database, _ = _filled(world, 10)
    world.bm25.add("db_1", database, {"v0001": "submarine", "other": "submarine"})
    database.delete("v0001")
    assert [hit.id for hit in _found(world, database, "submarine")] == ["other"]
    world.bm25.add("db_1", database, {"third": "submarine"})
    assert world.bm25.status("db_1", database).figures.documents == 2
    world.bm25.forget_vectors("db_1", ["third"])
    assert world.bm25.status("db_1", database).texts == 1


def test_builds_with_documents_replace_or_keep_those_before(world: World) -> None:
    database, _ = _filled(world, 10)
    world.bm25.build("db_1", database, field="text")
    world.bm25.build("db_1", database, documents={"a": "alpha", "b": "beta"})
    assert database.config.schema.texts == ()  # the field was text only because a build made it so
    assert _found(world, database, "river stone cloud") == []
    world.bm25.build("db_1", database, documents={"b": "gamma"}, keep_documents=True)
    assert [hit.id for hit in _found(world, database, "alpha")] == ["a"]
    world.bm25.build("db_1", database, documents={"c": "gamma"})
    assert [hit.id for hit in _found(world, database, "gamma alpha beta")] == ["c"]
    status = world.bm25.build("db_1", database, field="text")  # documents stay beside a field
    assert status.figures.documents == 11
    assert [hit.id for hit in _found(world, database, "gamma")] == ["c"]
    database.upsert(["t"], np.ones((1, 16)), [{"title": "zeppelin"}])
    status = world.bm25.build("db_1", database, field="title")
    assert database.config.schema.texts == ("title",)
    assert (status.field, status.figures.documents) == ("title", 2)
    assert [hit.id for hit in _found(world, database, "gamma zeppelin")] == ["c", "t"]


def test_a_field_that_cannot_be_text_fails_and_says_so(world: World) -> None:
    database, vectors = _filled(world, 10)
    with pytest.raises(JadeError) as caught:
        world.bm25.build("db_1", database, field="n")
    assert caught.value.code is ErrorCode.SCHEMA_VIOLATION
    status = world.bm25.status("db_1", database)
    assert status.status == FAILED
    assert status.error
    database.upsert(["free"], vectors[:1], [{"n": "nothing was declared"}])
    for path in ("$x", "x" * 600):
        with pytest.raises(JadeError) as caught:
            world.bm25.build("db_1", database, field=path)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    declared = world.store.create_database("db_2", 2, schema={"year": "integer"})
    with pytest.raises(JadeError) as caught:
        world.bm25.build("db_2", declared, field="year")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_declared_text_field_is_an_index_already(world: World) -> None:
    database, _ = _filled(world, 10, schema={"text": "text"})
    status = world.bm25.status("db_1", database)
    assert (status.status, status.field, status.figures.documents) == (COMPLETED, "text", 10)
    world.bm25.build("db_1", database, documents={"a": "alpha"})
    assert database.config.schema.texts == ("text",)  # not ours to take back


def test_dropping_a_database_drops_its_documents_even_after_a_crash(world: World) -> None:
    database, _ = _filled(world, 3)
    world.bm25.add("db_1", database, {"a": "alpha"})
    world.store.drop_database("db_1")
    assert len(world.store.databases()) == 1
    world.close()
    world.open()
    assert world.store.databases() == []
    database, _ = _filled(world, 3)
    world.bm25.add("db_1", database, {"a": "alpha"})
    world.bm25.forget("db_1")
    assert world.store.databases() == ["db_1"]
    assert world.bm25.documents("db_1") is None
