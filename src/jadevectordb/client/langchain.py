"""`JadeVectorStore`: a LangChain vector store over a database of a server or of a folder.

    from jadevectordb.client.langchain import JadeVectorStore

    database = jade.Client().create_database("notes", 384, schema={"text": "text"}, exist_ok=True)
    store = JadeVectorStore(database, embeddings)
    store.add_documents(documents)
    store.similarity_search("green stone", k=4, filter={"lang": "en"}, hybrid=True)

A document's text lies in its metadata under `text_key`, its own metadata beside it, so that filters name its keys as they are and
a database that was filled by other means can be searched too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jadevectordb.client.stores import AnyDatabase, AnyStore, Found, delete_matching, new_id, search, with_text
from jadevectordb.model.errors import ErrorCode, JadeError

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ImportError as error:
    raise JadeError(
        ErrorCode.NOT_INSTALLED, "JadeVectorStore needs langchain-core: pip install 'jadevectordb[langchain]'."
    ) from error


class JadeVectorStore(VectorStore):
    """database: of `Client` or of `jadevectordb.open`; its dimension is that of the embedding. text_key: where the text lies.

    Searches take `filter` (as the database does) and any option of `Database.search` (recall, threshold, exact, ...); hybrid=True
    also matches the query's words, in a database whose `text_key` is declared as "text". Scores: larger is better.
    """

    def __init__(self, database: AnyDatabase, embedding: Embeddings, *, text_key: str = "text") -> None:
        self.database = database
        self._embedding = embedding
        self._text_key = text_key

    @property
    def embeddings(self) -> Embeddings:
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        database: AnyDatabase | None = None,
        store: AnyStore | None = None,
        name: str = "langchain",
        text_key: str = "text",
        **options: Any,
    ) -> JadeVectorStore:
        """A store with these texts in it: in `database`, or in the database `name` of `store` (a client or an opened folder), made
        when it does not exist, with `options` of `create_database`.
        """
        vectors = embedding.embed_documents(texts)
        if database is None:
            if store is None:
                raise _invalid("from_texts needs database=, or store= with the name of a database to make.")
            dimension = len(vectors[0]) if vectors else len(embedding.embed_query("dimension"))
            options = {"schema": {text_key: "text"}, **options, "exist_ok": True}
            database = store.create_database(name, dimension, **options)
        made = cls(database, embedding, text_key=text_key)
        made._add(texts, vectors, metadatas, ids)
        return made

    # Writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and store; a text whose id is stored already replaces it. The ids, made up where they are None."""
        contents = list(texts)
        return self._add(contents, self._embedding.embed_documents(contents), metadatas, ids)

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        ids = kwargs.get("ids") or [document.id or new_id() for document in documents]
        return self.add_texts([d.page_content for d in documents], [d.metadata for d in documents], ids=ids)

    def _add(
        self,
        texts: list[str],
        vectors: list[list[float]],
        metadatas: Sequence[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
    ) -> list[str]:
        for what, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(texts):
                raise _invalid(f"{len(texts)} texts came with {len(given)} {what}: give one a text.")
        names = [name or new_id() for name in ids] if ids is not None else [new_id() for _ in texts]
        own = metadatas or [{}] * len(texts)
        stored = [with_text(metadata, self._text_key, text) for metadata, text in zip(own, texts, strict=True)]
        last = {name: at for at, name in enumerate(names)}  # of the same id the last text counts
        kept = sorted(last.values())
        if kept:
            self.database.upsert(
                [names[at] for at in kept], np.array([vectors[at] for at in kept]), [stored[at] for at in kept]
            )
        return names

    def delete(self, ids: list[str] | None = None, *, filter: Any = None, **kwargs: Any) -> bool:
        """By id, or by filter; without either, everything. Ids that are not there are passed over."""
        if ids is None and filter is None:
            delete_matching(self.database)
        elif ids:
            self.database.delete(list(dict.fromkeys(ids)))
        elif filter is not None:
            self.database.delete(filter=filter)
        return True

    # Reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return [self._document(item) for item in self.database.get(list(dict.fromkeys(ids))) if item is not None]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """kwargs: filter, hybrid, and options of `Database.search`."""
        if kwargs.pop("hybrid", False):
            kwargs["text"] = query
        hits = search(self.database, self._embedding.embed_query(query), {"k": k, **kwargs})
        return [(self._document(hit), hit.score) for hit in hits]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        return [self._document(hit) for hit in search(self.database, embedding, {"k": k, **kwargs})]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Of the fetch_k nearest, k that are near and unlike each other. lambda_mult: 1 = nearness alone, 0 = unlikeness alone."""
        hits = search(self.database, embedding, {"k": max(k, fetch_k), **kwargs}, with_vectors=True)
        vectors = [hit.vector.tolist() for hit in hits]
        chosen = maximal_marginal_relevance(np.array(embedding), vectors, lambda_mult, k) if vectors else []
        return [self._document(hits[at]) for at in chosen]

    def _document(self, item: Found) -> Document:
        metadata = item.metadata
        return Document(id=item.id, page_content=str(metadata.pop(self._text_key, "")), metadata=metadata)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Scores are similarities already; those of cosine and dot are cut to LangChain's 0 to 1."""
        return lambda score: min(1.0, max(0.0, score))


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
