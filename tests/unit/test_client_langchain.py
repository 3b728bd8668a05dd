"""The LangChain vector store passes that library's own suite, over a folder and over a server, and does what it says beyond it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from tests.serving import ServerProcess, serving

import jadevectordb as jade
from jadevectordb.client.langchain import JadeVectorStore

DIMENSION = 6

for _test in list(
    vars(VectorStoreIntegrationTests).values()
):  # the suite leaves it to its users to bring an event loop
    if inspect.iscoroutinefunction(_test):
        pytest.mark.asyncio(_test)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("langchain") / "data") as running:
        yield running


class TestOverAFolder(VectorStoreIntegrationTests):
    @pytest.fixture()
    def vectorstore(self, tmp_path: Path) -> Iterator[JadeVectorStore]:  # type: ignore[override]
        with jade.open(tmp_path / "store") as store:
            yield JadeVectorStore(store.create_database("notes", DIMENSION), self.get_embeddings())


class TestOverAServer(VectorStoreIntegrationTests):
    @pytest.fixture()
    def vectorstore(self, server: ServerProcess) -> Iterator[JadeVectorStore]:  # type: ignore[override]
        with jade.Client(server.url) as client:
            yield JadeVectorStore(client.create_database("notes", DIMENSION), self.get_embeddings())
            client.drop_database("notes")


@pytest.fixture(params=["folder", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "folder":
        with jade.open(tmp_path / "store") as opened:
            yield opened
    else:
        with jade.Client(request.getfixturevalue("server").url) as client:
            yield client
            for name in client.databases():
                client.drop_database(name)


EMBEDDING = DeterministicFakeEmbedding(size=DIMENSION)
TEXTS = ["green jade stone", "a river in spring", "carved jade dragon", "mountain path"]


@pytest.fixture()
def notes(store: Any) -> JadeVectorStore:
    metadatas = [{"n": i, "kind": "stone" if "jade" in text else "place"} for i, text in enumerate(TEXTS)]
    return JadeVectorStore.from_texts(TEXTS, EMBEDDING, metadatas, ids=list("abcd"), store=store, name="notes")


def test_filters_scores_and_options(notes: JadeVectorStore) -> None:
    (best, score), *others = notes.similarity_search_with_score(TEXTS[2], k=3)
    assert (best.id, best.metadata, best.page_content) == ("c", {"n": 2, "kind": "stone"}, TEXTS[2])
    assert score == pytest.approx(1.0, abs=1e-5)
    assert all(other <= score for _, other in others)
    places = notes.similarity_search("jade", k=4, filter={"kind": "place", "n": {"$gt": 1}}, recall=1.0)
    assert [place.id for place in places] == ["d"]
    by_words = notes.similarity_search("carved dragon", k=4, hybrid=True, fusion="weighted", alpha=0.0)
    assert by_words[0].id == "c"
    assert notes.similarity_search_by_vector(EMBEDDING.embed_query(TEXTS[1]), k=1)[0].id == "b"
    scores = [score for _, score in notes.similarity_search_with_relevance_scores("jade", k=4)]
    assert len(scores) == 4 and all(0.0 <= score <= 1.0 for score in scores)


def test_marginal_relevance(notes: JadeVectorStore) -> None:
    near = notes.similarity_search(TEXTS[0], k=2)
    assert [d.id for d in notes.max_marginal_relevance_search(TEXTS[0], k=2, lambda_mult=1.0)] == [d.id for d in near]
    unlike = notes.max_marginal_relevance_search(TEXTS[0], k=2, lambda_mult=0.0)
    assert unlike[0].id == "a" and len({d.id for d in unlike}) == 2
    assert len(notes.max_marginal_relevance_search(TEXTS[0], k=9, filter={"kind": "stone"})) == 2


def test_as_a_retriever(notes: JadeVectorStore) -> None:
    retriever = notes.as_retriever(search_kwargs={"k": 1, "filter": {"kind": "stone"}})
    (found,) = retriever.invoke(TEXTS[0])
    assert found.page_content == TEXTS[0]


def test_deleting(notes: JadeVectorStore) -> None:
    notes.delete(filter={"kind": "place"})
    assert {d.id for d in notes.get_by_ids(list("abcda"))} == {"a", "c"}
    notes.delete()
    assert notes.get_by_ids(list("abcd")) == []


def test_the_last_of_one_id_counts_and_bad_calls_are_refused(notes: JadeVectorStore) -> None:
    assert notes.add_texts(["one", "two"], ids=["x", "x"]) == ["x", "x"]
    assert [d.page_content for d in notes.get_by_ids(["x"])] == ["two"]
    made = notes.add_documents([Document("three", metadata={"k": [1, {"deep": None}]})])
    assert notes.get_by_ids(made)[0].metadata == {"k": [1, {"deep": None}]}
    with pytest.raises(jade.JadeError, match="text_key"):
        notes.add_texts(["four"], [{"text": "taken"}])
    with pytest.raises(jade.JadeError, match="ids"):
        notes.add_texts(["four"], ids=["a", "b"])
    with pytest.raises(jade.JadeError, match="store="):
        JadeVectorStore.from_texts(["a"], EMBEDDING)
