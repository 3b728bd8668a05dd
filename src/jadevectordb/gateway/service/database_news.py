"""What other nodes have made and dropped, asked for when it matters instead of waiting to be told.

A node hears of databases by a watch on the metadata store. That is some milliseconds behind, and seconds while the server that
it listens to is being replaced. Before a node says that a database is not there, or that a name is taken, it asks: so a program
that makes a database on one node and uses it on another at once is never told that there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

import msgspec

from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.gateway.service.directory import DatabaseRecord
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import MetadataStore

_PREFIX = "database/"  # of the catalog's records
_ASK_S_MAX = 3.0  # to wait while somebody else asks
_HEAR_S_MAX = 2.0  # until what is stored has come to this node


class DatabaseNews:
    """Thread-safe. store, metadata: as the catalog has them, the caller's to close."""

    def __init__(self, store: ClusterStore, metadata: MetadataStore) -> None:
        self._store = store
        self._metadata = metadata
        self._asking = threading.Lock()  # without a majority an answer takes seconds, and many may ask

    def await_all(self, held: Collection[str]) -> None:
        """Return when this node's store has come to what was made and dropped before now. held: ids that had a record when last seen.

        A database that is being made or dropped at this moment keeps nobody waiting for long. Raises UNAVAILABLE, CLOSED.
        """
        if not self._asking.acquire(timeout=_ASK_S_MAX):
            raise JadeError(
                ErrorCode.UNAVAILABLE, "Which databases there are could not be asked of the metadata store now: retry.",
                details={"undecided": False},
            )  # fmt: skip
        try:
            records = self._metadata.list(_PREFIX)
            decoded = (msgspec.json.decode(stored.value, type=DatabaseRecord) for stored in records.values())
            made = {record.id for record in decoded if not record.is_new}
            dropped = {name for name in held if _PREFIX + name not in records}

            def has_heard() -> bool:
                here = set(self._store.databases())
                return made <= here and not dropped & here

            self._store.mirror.wait(has_heard, _HEAR_S_MAX)
        finally:
            self._asking.release()
