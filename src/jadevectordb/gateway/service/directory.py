"""Which databases there are, and finding one of them for somebody: what every process of a server can do.

`Catalog` changes them, in the process that writes; `processes` shows them to those that read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jadevectordb.gateway.access.operations import Operation, is_visible
from jadevectordb.gateway.access.principals import Principal
from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.model.errors import ErrorCode, JadeError

Check = Callable[[Operation, Principal, "DatabaseRecord | None"], None]


class DatabaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the server knows of a database beyond the engine. owner: a user id, "" = nobody (admins only).

    grants: user id -> read, write or admin. index_type: as the client asked for it. properties: what clients sent along
    (sharding, replication, ...), kept and given back. claiming: a name that no other shall have, and that it is about to
    bear; is_new: as long as the database is being made under it. The steps: `access.names`.
    """

    id: str
    name: str
    description: str = ""
    owner: str = ""
    grants: dict[str, str] = {}
    created_ms: int = 0
    updated_ms: int = 0
    index_type: str = ""
    properties: dict[str, Any] = {}
    claiming: str = ""
    is_new: bool = False


class Entry:
    """A database as handlers use it: its record and the engine's handle."""

    __slots__ = ("handle", "record", "revision")

    def __init__(self, record: DatabaseRecord, handle: AnyDatabase, revision: int) -> None:
        self.record = record
        self.handle = handle
        self.revision = revision

    @property
    def id(self) -> str:
        return self.record.id


class Directory:
    """Which databases there are, and finding one of them for somebody.

    check: the pure decision whether a principal may do an operation on a database; see `access.operations`.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._entries: dict[str, Entry] = {}  # by id; replaced when it changes, never edited
        self._named: dict[str, list[Entry]] = {}  # by name
        self._damaged: dict[str, tuple[DatabaseRecord, JadeError]] = {}  # by id: those that can't be opened, and why

    def _publish(self, entries: dict[str, Entry]) -> None:
        named: dict[str, list[Entry]] = {}
        for entry in entries.values():
            named.setdefault(entry.record.name, []).append(entry)
        self._entries, self._named = entries, named

    # Reading

    def resolve(self, text: str, principal: Principal, operation: Operation) -> Entry:
        """By id, or by a name that only one visible database has. Raises what the check raises, or UNKNOWN_DATABASE."""
        self._check(operation, principal, None)  # who is not signed in does not learn which databases exist
        entry = self._entries.get(text)
        if entry is not None:
            self._check(operation, principal, entry.record)
            return entry
        named = [e for e in self._named.get(text, ()) if is_visible(principal, e.record)]
        if not named:
            self._refuse_damaged(text, principal, operation)
        if len(named) != 1:
            raise unknown(text, len(named))
        self._check(operation, principal, named[0].record)
        return named[0]

    def _refuse_damaged(self, text: str, principal: Principal, operation: Operation) -> None:
        for record, error in self._damaged.values():
            if text == record.id or (text == record.name and is_visible(principal, record)):
                self._check(operation, principal, record)
                raise JadeError(error.code, error.message, details=error.details)

    def damaged(self) -> list[tuple[DatabaseRecord, JadeError]]:
        """Databases that could not be opened when the server started, and why."""
        return list(self._damaged.values())

    def peek(self, text: str) -> Entry | None:
        """By id, or by a name that only one database has, whoever asks: for guessing what a request will cost."""
        entry = self._entries.get(text)
        if entry is None:
            named = self._named.get(text, ())
            entry = named[0] if len(named) == 1 else None
        return entry

    def visible(self, principal: Principal) -> list[Entry]:
        """Those the principal may see, oldest first."""
        mine = [e for e in self._entries.values() if is_visible(principal, e.record)]
        return sorted(mine, key=lambda e: (e.record.created_ms, e.id))

    def every(self) -> list[Entry]:
        return list(self._entries.values())

    def find(self, database_id: str) -> Entry | None:
        return self._entries.get(database_id)

    def explain(self, error: JadeError, entry: Entry | None) -> JadeError:
        """What an operation on a database that failed should say."""
        return error


def unknown(text: str, found: int) -> JadeError:
    if found > 1:
        message = f"Database not found: {found} databases are named {text!r:.200}; use the id of the one you mean."
    else:
        message = f"Database not found: {text!r:.200}. GET /v1/databases lists those you may see."
    return JadeError(ErrorCode.UNKNOWN_DATABASE, message)
