"""Names that no other database shall have, borne by at most one database of the whole cluster.

The steps are those of `access.names`. The owner's record is the catalog's, `database/ID`; the claim is `database-name/DIGEST`, because
a name may be longer than a key. A database that was made without asking for that may bear a name too, and has no claim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from jadevectordb.gateway.access.names import HeldError, Names, Standing
from jadevectordb.gateway.access.records import Records
from jadevectordb.gateway.service.directory import DatabaseRecord
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CLAIMS_SEEN_MAX, DATABASE_PENDING_S
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore


class DatabaseNames:
    """Every method may be called from any thread and raises what the store raises. is_there: whether the engine has a database."""

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        is_there: Callable[[str], bool],
        *,
        pending_s: float = DATABASE_PENDING_S,
    ) -> None:
        """pending_s: how long somebody who is still claiming a name keeps it from others."""
        self._store = store
        self._records = Records(store, "database", DatabaseRecord)
        self._names = Names(store, "database-name", self._standing)
        self._clock = clock
        self._is_there = is_there
        self._pending_s = pending_s
        self._seen_s: dict[tuple[str, str], float] = {}  # who was claiming what, when it was in the way first

    def claim(self, name: str, database_id: str) -> None:
        """Step 2; the record claims the name. Raises ALREADY_EXISTS."""
        try:
            self._names.claim(_key(name), database_id)
        except HeldError as held:
            if held.standing is Standing.BEARS or not self._is_overdue(held.owner, name):
                raise _exists(name, held.standing) from None
            self.abandon(held.owner, name)
            try:
                self._names.claim(_key(name), database_id)
            except HeldError as again:
                raise _exists(name, again.standing) from None

    def begin(self, record: DatabaseRecord, revision: int, name: str) -> int:
        """Steps 1 and 2 of a database that exists; the revision of its record now. Raises CONFLICT, ALREADY_EXISTS."""
        claiming = msgspec.structs.replace(record, claiming=name)
        begun = self._store.compare_and_set(f"database/{record.id}", msgspec.json.encode(claiming), revision)
        if begun is None:
            raise changed_meanwhile()
        try:
            self.claim(name, record.id)
        except BaseException:
            self.abandon(record.id, name)
            raise
        return begun

    def settle(self, database_id: str) -> tuple[DatabaseRecord, int]:
        """Step 3 of a new database, which the engine has by now: its record and revision. Raises CONFLICT."""

        def step(current: DatabaseRecord) -> DatabaseRecord:
            return msgspec.structs.replace(current, claiming="", is_new=False)

        settled = self._records.change(database_id, step)
        stored = self._store.get(f"database/{database_id}")
        if settled is None or stored is None:
            raise JadeError(
                ErrorCode.CONFLICT, "Creating the database took so long that its name was given to another: try again."
            )
        return msgspec.json.decode(stored.value, type=DatabaseRecord), stored.revision

    def abandon(self, database_id: str, name: str) -> None:
        """Undo step 1, whoever took it, and free the name: the record of a database that is being made goes, any other stays."""

        def step(current: DatabaseRecord) -> DatabaseRecord | None:
            if current.is_new:
                return None
            return msgspec.structs.replace(current, claiming="") if current.claiming == name else current

        self._records.change(database_id, step)
        self.release(name, database_id)

    def release(self, name: str, database_id: str) -> None:
        """Free a name that the database bears no longer."""
        self._names.release(_key(name), database_id)

    def _is_overdue(self, owner: str, name: str) -> bool:
        now_s = self._clock.monotonic_s()
        if len(self._seen_s) >= CLAIMS_SEEN_MAX:
            self._seen_s.pop(next(iter(self._seen_s)))
        return now_s - self._seen_s.setdefault((owner, name), now_s) >= self._pending_s

    def _standing(self, owner: str, digest: str) -> Standing:
        record = self._records.get(owner)
        if record is None:
            return Standing.NEITHER
        if _key(record.name) == digest and (not record.is_new or self._is_there(owner)):
            return Standing.BEARS
        return Standing.CLAIMING if record.claiming and _key(record.claiming) == digest else Standing.NEITHER


def _key(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def changed_meanwhile() -> JadeError:
    return JadeError(ErrorCode.CONFLICT, "The database was changed by someone else at this moment: try again.")


def _exists(name: str, standing: Standing) -> JadeError:
    """elsewhere: another node has made it, or is about to: this one has not heard of it yet."""
    if standing is Standing.CLAIMING:
        return made_elsewhere(name)
    return JadeError(
        ErrorCode.ALREADY_EXISTS,
        f"A database named {name!r} exists: choose another name.",
        details={"name": name, "elsewhere": True},
    )


def made_elsewhere(name: str) -> JadeError:
    return JadeError(
        ErrorCode.ALREADY_EXISTS,
        f"A database named {name!r} is being created by another node at this moment: choose another name.",
        details={"name": name, "elsewhere": True},
    )
