"""What the vector stores for LangChain and LlamaIndex share: any database, of a server or of a folder, used in one way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from jadevectordb.client.sync import Database as RemoteDatabase
from jadevectordb.model.errors import ErrorCode, JadeError

PAGE_ROWS = 1000


class Found(Protocol):
    """An item or a hit, of either kind of database."""

    @property
    def id(self) -> str: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def vector(self) -> npt.NDArray[Any]: ...


class FoundHit(Found, Protocol):
    @property
    def score(self) -> float: ...


class AnyDatabase(Protocol):
    """`jadevectordb.open(...).database(...)` or `Client(...).database(...)`."""

    @property
    def name(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def metric(self) -> str: ...
    def upsert(self, ids: Iterable[str], vectors: npt.ArrayLike, metadata: Any = None) -> Any: ...
    def get(self, ids: Any) -> Any: ...
    def delete(self, ids: Any = None, *, filter: Any = None) -> Any: ...
    def scroll(self, limit: int = 1000, cursor: str | None = None, filter: Any = None) -> Any: ...
    def search(self, vector: npt.ArrayLike | None = None, **options: Any) -> Any: ...


class AnyStore(Protocol):
    """`jadevectordb.open(...)` or `Client(...)`."""

    def create_database(self, name: str, dimension: int, metric: str = "cosine", **options: Any) -> AnyDatabase: ...


def search(
    database: AnyDatabase, vector: npt.ArrayLike | None, options: Mapping[str, Any], *, with_vectors: bool = False
) -> Sequence[FoundHit]:
    """with_vectors: the hits' vectors will be looked at; a server has to be asked for them, a folder reads them when they are."""
    if with_vectors and isinstance(database, RemoteDatabase):
        options = {**options, "include": ("metadata", "vector")}
    hits: Sequence[FoundHit] = database.search(vector, **options)
    return hits


def matching(database: AnyDatabase, filter: Any = None) -> Iterator[Sequence[Found]]:
    """Every item that matches, with its metadata, a page at a time."""
    options: dict[str, Any] = {"include": ("metadata",)} if isinstance(database, RemoteDatabase) else {}
    cursor: str | None = None
    while True:
        page = database.scroll(PAGE_ROWS, cursor, filter, **options)
        if page.items:
            yield page.items
        cursor = page.cursor
        if cursor is None:
            return


def delete_matching(database: AnyDatabase, filter: Any = None) -> None:
    """Every vector that is there, or matches, when its page is read."""
    for items in matching(database, filter):
        database.delete([item.id for item in items])


def with_text(metadata: Mapping[str, Any], text_key: str, text: str) -> dict[str, Any]:
    """The metadata that is stored: the document's own beside its text. Raises INVALID_ARGUMENT when the text's place is taken."""
    if text_key in metadata:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"The metadata has a key {text_key!r}, where the document's text goes: choose another text_key for the store.",
        )
    return {**metadata, text_key: text}


def new_id() -> str:
    return os.urandom(16).hex()
