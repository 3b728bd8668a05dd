"""The LlamaIndex vector store with that library's own nodes, filters, indexes and queries, over a folder and over a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from tests.serving import ServerProcess, serving

import jadevectordb as jade
from jadevectordb.client.llama_index import JadeVectorStore

Op = FilterOperator


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("llama") / "data") as running:
        yield running


@pytest.fixture(params=["folder", "server"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "folder":
        with jade.open(tmp_path / "store") as opened:
            yield opened.create_database("notes", 3, schema={"text": "text"})
    else:
        with jade.Client(request.getfixturevalue("server").url) as client:
            yield client.create_database("notes", 3, schema={"text": "text"})
            client.drop_database("notes")


def node(name: str, content: str, vector: list[float], document: str, **metadata: Any) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=name, text=content, embedding=vector, metadata=metadata, relationships=source)


NODES = [
    node("a", "green jade stone", [1.0, 0.0, 0.0], "d1", year=2001, lang="en", tags=["x", "y"]),
    node("b", "carved jade dragon", [0.9, 0.1, 0.0], "d1", year=2005, lang="en", tags=["y"]),
    node("c", "a river in spring", [0.0, 1.0, 0.0], "d2", year=2010, lang="de", tags=[]),
    node("d", "Mountain path", [0.0, 0.0, 1.0], "d3", year=2015, lang="fr"),
]


@pytest.fixture()
def store(database: Any) -> JadeVectorStore:
    made = JadeVectorStore(database, recall=1.0)
    assert made.add(NODES) == ["a", "b", "c", "d"]
    return made


def found(store: JadeVectorStore, *filters: MetadataFilter, condition: FilterCondition = FilterCondition.AND) -> str:
    chosen = MetadataFilters(filters=list(filters), condition=condition)
    result = store.query(VectorStoreQuery([1.0, 1.0, 1.0], similarity_top_k=9, filters=chosen))
    assert sorted(result.ids or []) == sorted(n.node_id for n in store.get_nodes(filters=chosen))
    return "".join(sorted(result.ids or []))


def test_nodes_come_back_as_they_were(store: JadeVectorStore) -> None:
    result = store.query(VectorStoreQuery([1.0, 0.05, 0.0], similarity_top_k=2))
    assert result.ids == ["a", "b"]
    assert result.similarities is not None and result.similarities[0] > result.similarities[1] > 0.9
    first = (result.nodes or [])[0]
    assert isinstance(first, TextNode)
    assert (first.text, first.metadata, first.ref_doc_id) == (NODES[0].text, NODES[0].metadata, "d1")
    assert [n.node_id for n in store.get_nodes(["c", "nobody", "a"])] == ["c", "a"]
    assert store.query(VectorStoreQuery([0.0, 0.0, 1.0], similarity_top_k=9, doc_ids=["d1", "d2"])).ids is not None
    assert set(store.query(VectorStoreQuery([0.0, 0.0, 1.0], similarity_top_k=9, doc_ids=["d1"])).ids or []) == {
        "a",
        "b",
    }
    assert store.query(VectorStoreQuery([0.0, 0.0, 1.0], similarity_top_k=9, node_ids=["c"])).ids == ["c"]


@pytest.mark.parametrize(
    ("key", "operator", "value", "expected"),
    [
        ("lang", Op.EQ, "en", "ab"),
        ("lang", Op.NE, "en", "cd"),
        ("year", Op.GT, 2005, "cd"),
        ("year", Op.GTE, 2005, "bcd"),
        ("year", Op.LT, 2005, "a"),
        ("year", Op.LTE, 2005, "ab"),
        ("lang", Op.IN, ["de", "fr"], "cd"),
        ("lang", Op.NIN, ["de", "fr"], "ab"),
        ("tags", Op.ANY, ["x", "z"], "a"),
        ("tags", Op.ALL, ["x", "y"], "a"),
        ("tags", Op.CONTAINS, "y", "ab"),
        ("text", Op.TEXT_MATCH, "jade", "ab"),
        ("text", Op.TEXT_MATCH_INSENSITIVE, "MOUNTAIN", "d"),
        ("tags", Op.IS_EMPTY, None, "cd"),
    ],
)
def test_filters(store: JadeVectorStore, key: str, operator: FilterOperator, value: Any, expected: str) -> None:
    assert found(store, MetadataFilter(key=key, operator=operator, value=value)) == expected


def test_conditions(store: JadeVectorStore) -> None:
    english = MetadataFilter(key="lang", value="en")
    late = MetadataFilter(key="year", operator=Op.GT, value=2001)
    assert found(store, english, late) == "b"
    assert found(store, english, late, condition=FilterCondition.OR) == "abcd"
    assert found(store, english, condition=FilterCondition.NOT) == "cd"
    nested = MetadataFilters(filters=[english, MetadataFilters(filters=[late], condition=FilterCondition.NOT)])
    assert store.query(VectorStoreQuery([1.0, 0.0, 0.0], similarity_top_k=9, filters=nested)).ids == ["a"]
    assert len(store.get_nodes(filters=MetadataFilters(filters=[]))) == 4


def test_modes(store: JadeVectorStore) -> None:
    def ask(mode: VectorStoreQueryMode, **options: Any) -> list[str]:
        query = VectorStoreQuery([0.0, 0.0, 1.0], similarity_top_k=2, query_str="jade dragon", mode=mode, **options)
        return list(store.query(query).ids or [])

    assert ask(VectorStoreQueryMode.TEXT_SEARCH) == ["b", "a"]
    assert ask(VectorStoreQueryMode.HYBRID, alpha=0.0)[0] == "b"
    assert ask(VectorStoreQueryMode.HYBRID, alpha=1.0)[0] == "d"
    assert set(ask(VectorStoreQueryMode.HYBRID)) <= {"a", "b", "d"}
    with pytest.raises(NotImplementedError, match="svm"):
        ask(VectorStoreQueryMode.SVM)
    query = VectorStoreQuery([1.0, 0.0, 0.0], similarity_top_k=2, mode=VectorStoreQueryMode.MMR)
    assert store.query(query, mmr_threshold=1.0).ids == ["a", "b"]
    assert (store.query(query, mmr_threshold=0.1).ids or [])[0] == "a"
    assert (store.query(query, mmr_threshold=0.1).ids or [])[1] in ("c", "d")


def test_deleting(store: JadeVectorStore) -> None:
    store.delete("d1")
    assert sorted(n.node_id for n in store.get_nodes()) == ["c", "d"]
    store.delete_nodes(["c"], MetadataFilters(filters=[MetadataFilter(key="lang", value="fr")]))
    assert len(store.get_nodes()) == 2
    store.delete_nodes(["c", "nobody"])
    assert [n.node_id for n in store.get_nodes()] == ["d"]
    store.clear()
    assert store.get_nodes() == []


def test_what_was_stored_by_other_means_is_found(database: Any) -> None:
    database.upsert(["raw"], [[0.0, 1.0, 0.0]], [{"text": "plain", "n": 1}])
    (only,) = JadeVectorStore(database).query(VectorStoreQuery([0.0, 1.0, 0.0], similarity_top_k=1)).nodes or []
    assert (only.node_id, only.get_content(), only.metadata) == ("raw", "plain", {"n": 1})
    with pytest.raises(jade.JadeError, match="text_key"):
        JadeVectorStore(database).add([node("x", "t", [1.0, 0.0, 0.0], "d", text="taken")])


def test_under_an_index(database: Any) -> None:
    """Documents through the library's own index: insert, retrieve, retrieve on an event loop, delete."""
    store = JadeVectorStore(database)
    embedding = MockEmbedding(embed_dim=3)
    documents = [Document(text=f"text {i}", doc_id=f"doc-{i}", metadata={"i": i}) for i in range(5)]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=embedding)
    wanted = MetadataFilters(filters=[MetadataFilter(key="i", operator=Op.GTE, value=3)])
    retriever = index.as_retriever(similarity_top_k=5, filters=wanted)
    assert {hit.node.metadata["i"] for hit in retriever.retrieve("anything")} == {3, 4}
    assert {hit.node.metadata["i"] for hit in asyncio.run(retriever.aretrieve("anything"))} == {3, 4}
    index.delete_ref_doc("doc-4")
    assert {hit.node.get_content() for hit in retriever.retrieve("anything")} == {"text 3"}
    again = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    assert len(again.as_retriever(similarity_top_k=9).retrieve("anything")) == 4
