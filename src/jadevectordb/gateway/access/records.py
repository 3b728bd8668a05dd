"""Typed records in the metadata store: decoded on the way out, changed by compare-and-set until it holds.

A record is a msgspec struct, kept as JSON under `PREFIX/name`. New fields get defaults, so that older records still decode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import STORE_ATTEMPTS_MAX, STORE_KEY_BYTES_MAX
from jadevectordb.ports.metadata_store import MetadataStore, Record

T = TypeVar("T", bound=msgspec.Struct)


class Records(Generic[T]):
    """All records of one type. Every method may be called from any thread and raises what the store raises."""

    def __init__(self, store: MetadataStore, prefix: str, type: type[T]) -> None:
        self._store = store
        self._prefix = f"{prefix}/"
        self._type = type

    def get(self, name: str) -> T | None:
        found = self._store.get(self._prefix + name) if self._can_exist(name) else None
        return None if found is None else self._decoded(name, found)

    def list(self, within: str = "") -> dict[str, T]:
        """By name, those whose name starts with `within`."""
        start = len(self._prefix)
        found = self._store.list(self._prefix + within)
        return {key[start:]: self._decoded(key[start:], record) for key, record in found.items()}

    def add(self, name: str, value: T) -> bool:
        """False when there is a record of that name."""
        return self._store.compare_and_set(self._prefix + name, msgspec.json.encode(value), 0) is not None

    def change(self, name: str, step: Callable[[T], T | None]) -> T | None:
        """Replace the record by what `step` makes of it (None: remove it). The new one; None when there was none or none is left.

        `step` must be pure: it is called again when someone else changed the record meanwhile. What it raises is passed on.
        """
        key = self._prefix + name
        for _ in range(STORE_ATTEMPTS_MAX):
            found = self._store.get(key) if self._can_exist(name) else None
            if found is None:
                return None
            old = self._decoded(name, found)
            new = step(old)
            if new == old:
                return new
            encoded = None if new is None else msgspec.json.encode(new)
            if self._store.compare_and_set(key, encoded, found.revision) is not None:
                return new
        raise JadeError(ErrorCode.CONFLICT, "The record is being changed by others at this moment: try again.")

    def remove(self, name: str) -> T | None:
        """The record that was removed; None when there was none. Of several callers at once, one gets it."""
        key = self._prefix + name
        for _ in range(STORE_ATTEMPTS_MAX):
            found = self._store.get(key) if self._can_exist(name) else None
            if found is None:
                return None
            if self._store.compare_and_set(key, None, found.revision) is not None:
                return self._decoded(name, found)
        raise JadeError(ErrorCode.CONFLICT, "The record is being changed by others at this moment: try again.")

    def _can_exist(self, name: str) -> bool:
        """Names come from clients too: half a surrogate pair, or what is longer than any key, is the name of nothing."""
        if any("\ud800" <= c <= "\udfff" for c in name):
            return False
        return len((self._prefix + name).encode()) <= STORE_KEY_BYTES_MAX

    def _decoded(self, name: str, record: Record) -> T:
        try:
            return msgspec.json.decode(record.value, type=self._type)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JadeError(
                ErrorCode.CORRUPT,
                f"The record {self._prefix}{name} can't be read ({error}): restore the metadata store from a snapshot.",
                details={"record": f"{self._prefix}{name}"},
            ) from None
