"""The metadata store port: small records that change by compare-and-set. SQLite on one node, a replicated store in a cluster.

Contract, the same for every adapter (`tests/contract/test_metadata_store_contract.py`). Keys are any Unicode text up to
STORE_KEY_BYTES_MAX; INVALID_ARGUMENT otherwise. A replicated store raises UNAVAILABLE when too few servers are up; after
`compare_and_set` its `details["undecided"]` says whether the change may have happened, or may happen yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Record:
    value: bytes
    revision: int  # grows with every change of the store; never reused


OnChange: TypeAlias = Callable[[str, Record | None], None]  # the key, and what it holds now; None = deleted


class Watch(Protocol):
    def close(self) -> None:
        """The handler is not called after this returns, unless it is the handler that calls this. Again is fine."""
        ...


class MetadataStore(Protocol):
    def get(self, key: str) -> Record | None: ...

    def list(self, prefix: str) -> dict[str, Record]:
        """All records whose key starts with the prefix, keys in order."""
        ...

    def compare_and_set(self, key: str, value: bytes | None, expected: int) -> int | None:
        """Write (value None: delete) if the record's revision is `expected` (0: must not exist).

        The new revision, or None when the record was changed by someone else. Durable on return.
        """
        ...

    def watch(self, prefix: str, handler: OnChange) -> Watch:
        """Have every change after this call of a key that starts with the prefix told, in order, each once.

        From a thread of the store's own for each watch; the handler may use the store, and should not raise: what it raises is
        reported as a defect, and the next change is told. Only what a record has become counts: of several changes of
        one record that come faster than the handler takes them, or while servers were away, the newest is told,
        the others may be left out. What other processes change is told by a replicated store, not by one in a file.
        """
        ...

    def close(self) -> None:
        """Watches end. Again is fine."""
        ...
