"""The two ends of a transfer, as little of them as is needed: any database, local or remote, can be either.

Both are protocols, so that nothing here knows a database, and a test can stand in with a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]  # (n, dimension), C-order


class VectorSink(Protocol):
    """Where an import writes to."""

    @property
    def dimension(self) -> int: ...

    def upsert(self, ids: list[str], vectors: Vectors, metadata: list[bytes], *, request_id: str = "") -> object:
        """Insert or replace, all rows or none; durable on return. ids are distinct; metadata: one JSON object a row, UTF-8.

        A request id that was applied before changes nothing. Raises JadeError.
        """
        ...


class Item(Protocol):
    """One vector of a page."""

    @property
    def id(self) -> str: ...
    @property
    def vector(self) -> Any: ...  # (dimension,), numbers that float32 holds; read when looked at
    @property
    def metadata(self) -> Mapping[str, Any] | None: ...


class Page(Protocol):
    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def cursor(self) -> str | None: ...  # of the next page; None after the last


class VectorSource(Protocol):
    """Where an export reads from."""

    @property
    def dimension(self) -> int: ...

    def scroll(self, limit: int, cursor: str | None, filter: Any) -> Page:
        """A page of at most `limit` vectors in a stable order."""
        ...


class OnProgress(Protocol):
    def __call__(self, rows: int, bytes_done: int, bytes_total: int | None) -> None:
        """Called after every batch. bytes: of the file as it lies on disk; the total is None while it is not known."""
        ...
