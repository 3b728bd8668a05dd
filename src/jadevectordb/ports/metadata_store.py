"""The metadata store port: small records that change by compare-and-set. SQLite on one node, a replicated store in a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    value: bytes
    revision: int  # grows with every change of the store; never reused


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

    def close(self) -> None: ...
