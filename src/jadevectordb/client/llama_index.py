"""`JadeVectorStore`: a LlamaIndex vector store over a database of a server or of a folder.

    from jadevectordb.client.llama_index import JadeVectorStore

    database = jade.Client().create_database("notes", 384, schema={"text": "text"}, exist_ok=True)
    index = VectorStoreIndex.from_vector_store(JadeVectorStore(database))

A node's text lies in its metadata under `text_key`, its own metadata beside it, so that filters name its keys as they are; what
else LlamaIndex knows of it is kept with it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jadevectordb.client.stores import AnyDatabase, Found, delete_matching, matching, search, with_text
from jadevectordb.model.errors import ErrorCode, JadeError

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
    from llama_index.core.schema import BaseNode, MetadataMode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise JadeError(
        ErrorCode.NOT_INSTALLED, "JadeVectorStore needs llama-index-core: pip install 'jadevectordb[llama-index]'."
    ) from error

_MMR_FETCHED = 4  # times the nodes wanted, of which those unlike each other are taken
_NODE_ID = "_node_id"
_NUMBER_LEAST = -1.7976931348623157e308
_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",
    FilterOperator.TEXT_MATCH: "$contains",
    FilterOperator.CONTAINS: "$eq",  # a condition on an array holds when it holds for an element
}


class JadeVectorStore(BasePydanticVectorStore):
    """database: of `Client` or of `jadevectordb.open`; its dimension is that of the embedding. text_key: where the text lies.

    Queries: DEFAULT, MMR; TEXT_SEARCH and HYBRID in a database whose `text_key` is declared as "text". options: of
    `Database.search` for every query (recall, exact, ...), and as keyword arguments for one.
    """

    stores_text: bool = True
    text_key: str = "text"
    _database: Any = PrivateAttr()
    _options: dict[str, Any] = PrivateAttr()

    def __init__(self, database: AnyDatabase, *, text_key: str = "text", **options: Any) -> None:
        super().__init__(text_key=text_key)  # type: ignore[call-arg]  # stores_text keeps its default
        self._database = database
        self._options = options

    @classmethod
    def class_name(cls) -> str:
        return "JadeVectorStore"

    @property
    def client(self) -> AnyDatabase:
        """The database."""
        database: AnyDatabase = self._database
        return database

    # Writing

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings; a node replaces the one stored under its id."""
        last = {node.node_id: node for node in nodes}
        if last:
            vectors = np.array([node.get_embedding() for node in last.values()])
            self._database.upsert(list(last), vectors, [self._stored(node) for node in last.values()])
        return [node.node_id for node in nodes]

    def _stored(self, node: BaseNode) -> dict[str, Any]:
        metadata = node_to_metadata_dict(node, remove_text=True, flat_metadata=False)
        metadata[_NODE_ID] = node.node_id  # where filters reach it
        return with_text(metadata, self.text_key, node.get_content(metadata_mode=MetadataMode.NONE))

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Every node that was made of this document."""
        self._database.delete(filter={"ref_doc_id": ref_doc_id})

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        if node_ids and filters is None:
            self._database.delete(list(dict.fromkeys(node_ids)))
        elif filters is not None:
            delete_matching(self._database, _narrowed(filters, node_ids))

    def clear(self) -> None:
        """Delete every node."""
        delete_matching(self._database)

    # Reading

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        if node_ids is not None and filters is None:
            return [self._node(item) for item in self._database.get(list(dict.fromkeys(node_ids))) if item is not None]
        condition = _narrowed(filters, node_ids)
        return [self._node(item) for items in matching(self._database, condition) for item in items]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """kwargs: options of `Database.search`; mmr_threshold for MMR: 1 = nearness alone, 0 = unlikeness alone."""
        threshold = kwargs.pop("mmr_threshold", query.mmr_threshold)
        options: dict[str, Any] = {**self._options, "k": query.similarity_top_k, **kwargs}
        condition = _conditions(query)
        if condition is not None:
            options["filter"] = condition if options.get("filter") is None else {"$and": [condition, options["filter"]]}
        vector: list[float] | None = query.query_embedding
        match query.mode:
            case VectorStoreQueryMode.DEFAULT:
                pass
            case VectorStoreQueryMode.TEXT_SEARCH | VectorStoreQueryMode.SPARSE:
                vector, options["text"] = None, query.query_str
                options["k"] = query.sparse_top_k or query.similarity_top_k
            case VectorStoreQueryMode.HYBRID | VectorStoreQueryMode.SEMANTIC_HYBRID:
                options["text"] = query.query_str
                options["k"] = query.hybrid_top_k or query.similarity_top_k
                if query.alpha is not None:
                    options |= {"fusion": "weighted", "alpha": query.alpha}
            case VectorStoreQueryMode.MMR:
                return self._query_mmr(vector, options, query.similarity_top_k, threshold)
            case _:
                raise NotImplementedError(f"JadeVectorStore has no query mode {query.mode.value!r}.")
        return self._result(search(self._database, vector, options))

    def _query_mmr(
        self, vector: list[float] | None, options: dict[str, Any], k: int, threshold: float | None
    ) -> VectorStoreQueryResult:
        hits = search(self._database, vector, {**options, "k": _MMR_FETCHED * k}, with_vectors=True)
        if not hits or vector is None:
            return self._result(hits)
        similarities, places = get_top_k_mmr_embeddings(
            vector, [hit.vector.tolist() for hit in hits], similarity_top_k=k, mmr_threshold=threshold
        )
        result = self._result([hits[place] for place in places])
        result.similarities = [float(similarity) for similarity in similarities]
        return result

    def _result(self, hits: Sequence[Any]) -> VectorStoreQueryResult:
        return VectorStoreQueryResult(
            nodes=[self._node(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def _node(self, item: Found) -> BaseNode:
        metadata = dict(item.metadata)
        text = str(metadata.pop(self.text_key, ""))
        if "_node_content" in metadata:
            return metadata_dict_to_node(metadata, text)
        from llama_index.core.schema import TextNode  # a vector that was stored by other means

        return TextNode(id_=item.id, text=text, metadata=metadata)

    # On an event loop: the same in a thread

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        return await asyncio.to_thread(self.query, query, **kwargs)


def _conditions(query: VectorStoreQuery) -> dict[str, Any] | None:
    """The query's filters, documents and nodes as one filter."""
    condition = _narrowed(query.filters, query.node_ids or None)
    if not query.doc_ids:
        return condition
    of_documents = {"ref_doc_id": {"$in": list(query.doc_ids)}}
    return of_documents if condition is None else {"$and": [condition, of_documents]}


def _narrowed(filters: MetadataFilters | None, node_ids: list[str] | None) -> dict[str, Any] | None:
    """Filters and nodes as one filter. Vectors that were stored by other means have no node id in their metadata."""
    condition = None if filters is None else filter_of(filters)
    if node_ids is None:
        return condition
    of_nodes = {_NODE_ID: {"$in": list(node_ids)}}
    return of_nodes if condition is None else {"$and": [condition, of_nodes]}


def filter_of(filters: MetadataFilters) -> dict[str, Any] | None:
    """LlamaIndex's filters as a filter of the database; None for an empty one."""
    parts = []
    for each in filters.filters:
        part = filter_of(each) if isinstance(each, MetadataFilters) else _condition(each)
        if part is not None:
            parts.append(part)
    if not parts:
        return None
    match filters.condition:
        case FilterCondition.OR:
            return {"$or": parts}
        case FilterCondition.NOT:
            return {"$nor": parts}
        case _:
            return {"$and": parts}


def _condition(condition: MetadataFilter) -> dict[str, Any]:
    key, value, operator = condition.key, condition.value, condition.operator
    if operator in _OPERATORS:
        return {key: {_OPERATORS[operator]: value}}
    match operator:
        case FilterOperator.ALL:
            return {"$and": [{key: {"$eq": one}} for one in (value if isinstance(value, list) else [value])]}
        case FilterOperator.TEXT_MATCH_INSENSITIVE:
            return {key: {"$regex": f"(?i){re.escape(str(value))}"}}
        case FilterOperator.IS_EMPTY:  # missing, null, or an array with nothing in it: no value of any kind
            return {"$nor": [{key: {"$regex": ""}}, {key: {"$gte": _NUMBER_LEAST}}, {key: {"$in": [True, False]}}]}
        case _:
            raise NotImplementedError(f"JadeVectorStore has no filter operator {operator.value!r}.")
