"""Small records of the metadata store under one prefix, held in memory as they are: reading one costs nothing.

On one node this process alone changes them. In a cluster every node does: a watch tells what the others changed, and a change that
crossed another's is refused.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Generic, TypeVar

import msgspec

from jadevectordb.model.errors import JadeError
from jadevectordb.ports.metadata_store import MetadataStore, Record

T = TypeVar("T")


class Records(Generic[T]):
    """Thread-safe. kind: what their JSON is decoded as. is_shared: other processes change them too."""

    def __init__(self, metadata: MetadataStore, prefix: str, kind: type[T], *, is_shared: bool) -> None:
        """Raises what reading the store raises, and msgspec.MsgspecError for a record of a newer version."""
        self._metadata = metadata
        self._prefix = prefix
        self._kind = kind
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, T]] = {}  # revision and value; replaced with every change
        if is_shared:
            metadata.watch(prefix, self._told)  # ends with the store
        for key, record in metadata.list(prefix).items():
            self._take(key, record)

    def _told(self, key: str, record: Record | None) -> None:
        with contextlib.suppress(msgspec.MsgspecError):  # written by a newer version: what was known stays
            self._take(key, record)

    def _take(self, key: str, record: Record | None) -> None:
        name = key.removeprefix(self._prefix)
        found = None if record is None else (record.revision, msgspec.json.decode(record.value, type=self._kind))
        with self._lock:
            known = dict(self._known)
            if found is None:
                known.pop(name, None)
            elif name not in known or known[name][0] < found[0]:
                known[name] = found
            self._known = known

    def get(self, name: str) -> T | None:
        found = self._known.get(name)
        return None if found is None else found[1]

    def items(self) -> dict[str, T]:
        return {name: value for name, (_, value) in self._known.items()}

    def put(self, name: str, value: T) -> bool:
        """Durable on return. False: somebody else changed it meanwhile, and nothing was written; that is known now."""
        key, found = self._prefix + name, self._known.get(name)
        revision = self._metadata.compare_and_set(key, msgspec.json.encode(value), 0 if found is None else found[0])
        if revision is None:
            self._take(key, self._metadata.get(key))
            return False
        with self._lock:
            known = self._known.get(name)
            if known is None or known[0] < revision:
                self._known = {**self._known, name: (revision, value)}
        return True

    def remove(self, name: str) -> None:
        """Whoever removed it before. Raises what writing to the store raises."""
        key = self._prefix + name
        stored = self._metadata.get(key)
        if stored is not None:
            with contextlib.suppress(JadeError):  # of a database that is no more, nobody reads it
                self._metadata.compare_and_set(key, None, stored.revision)
        self._take(key, None)
