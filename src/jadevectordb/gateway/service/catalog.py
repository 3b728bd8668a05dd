"""The databases of a server: each has an id, a name people gave it, an owner, and grants, beside the engine's own settings.

The engine knows a database by its id. Names need not be unique: the id is the identity. Where they shall be (`create_unique`),
a name is claimed as accounts claim theirs, so that of several nodes one gets it. Databases whose engine name begins
with an underscore are the server's own and are not shown. Records live in the metadata store, changed by compare-and-set.

In a cluster that store is shared, and other nodes create, change and drop databases too: a thread follows them.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from jadevectordb.gateway.access.operations import Operation, is_visible
from jadevectordb.gateway.access.principals import Principal
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.gateway.service.database_names import DatabaseNames, changed_meanwhile, made_elsewhere
from jadevectordb.gateway.service.database_news import DatabaseNews
from jadevectordb.gateway.service.directory import Check, DatabaseRecord, Directory, Entry, unknown
from jadevectordb.gateway.service.handles import AnyStore
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import DATABASE_PENDING_S
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record, Watch

logger = logging.getLogger("jadevectordb.catalog")
_PREFIX = "database/"
NAME_LENGTH_MAX = 255
DESCRIPTION_LENGTH_MAX = 1000
_DAMAGE = frozenset({ErrorCode.CORRUPT, ErrorCode.FORMAT_TOO_NEW, ErrorCode.LOG_TRUNCATED})
_RETRY_S = 1.0  # before other nodes' changes are looked for again, when the metadata store could not be asked
GRANT_RIGHTS = ("read", "write", "admin")
_LOOK_S = 0.1
_T = TypeVar("_T")
__all__ = ["Catalog", "Check", "DatabaseRecord", "Directory", "Entry", "check_name", "has_control"]


class Catalog(Directory):
    """The databases of a store, with their records in the metadata store."""

    def __init__(self, store: AnyStore, metadata: MetadataStore, clock: Clock, check: Check) -> None:
        super().__init__(check)
        self._store = store
        self._metadata = metadata
        self._clock = clock
        self._lock = threading.Lock()  # for changes; readers use the dict as it is and never wait
        self._news = DatabaseNews(store, metadata) if isinstance(store, ClusterStore) else None
        self._names = DatabaseNames(metadata, clock, lambda database_id: database_id in store.databases())
        self.on_publish: Callable[[], None] = lambda: None  # called after a change, before anyone is told of it
        self.on_drop: list[Callable[[str], None]] = []  # told the id of every database that goes
        if isinstance(store, ClusterStore):
            self._follow(store)
        else:
            self._load()

    def _load(self) -> None:
        records = self._metadata.list(_PREFIX)
        entries = {}
        for name in self._store.databases():
            if name.startswith("_"):
                continue
            stored = records.get(_PREFIX + name)
            if stored is None:  # made by a program that opened the folder itself
                created, revision = self._store.describe(name).created_ms, 0
                record = DatabaseRecord(id=name, name=name, created_ms=created, updated_ms=created)
            else:
                record, revision = msgspec.json.decode(stored.value, type=DatabaseRecord), stored.revision
                if record.is_new:  # a crash between the last two steps of creating it
                    with contextlib.suppress(JadeError):
                        record, revision = self._names.settle(name)
            try:
                entries[name] = Entry(record, self._store.database(name), revision)
            except JadeError as error:
                if error.code not in _DAMAGE:
                    raise
                logger.error("database %r (%s) can't be opened, the others are served: %s", record.name, name, error)
                self._damaged[name] = (record, error)
        for key, stored in records.items():
            if key.removeprefix(_PREFIX) not in entries.keys() | self._damaged.keys():
                # A crash between the two steps of dropping or creating. On a full disk it is done at a later start
                with contextlib.suppress(JadeError):
                    self._metadata.compare_and_set(key, None, stored.revision)
        self._publish(entries)

    def _publish(self, entries: dict[str, Entry]) -> None:
        super()._publish(entries)
        self.on_publish()

    # Following other nodes

    def _follow(self, store: ClusterStore) -> None:
        """Have the databases as the cluster has them, now and from now on, until the store is closed."""
        changed = threading.Event()
        store.on_change.append(changed.set)
        watch = self._metadata.watch(_PREFIX, lambda _key, _record: changed.set())
        try:
            self._catch_up()
        except BaseException:
            watch.close()
            raise
        follower = threading.Thread(target=self._keep_up, args=(changed, watch), name="jade-catalog", daemon=True)
        follower.start()

    def _keep_up(self, changed: threading.Event, watch: Watch) -> None:
        wait_s: float | None = None
        with contextlib.closing(watch):
            while True:
                changed.wait(wait_s)
                changed.clear()
                try:
                    gone = self._catch_up()
                except JadeError as error:
                    if error.code is ErrorCode.CLOSED:
                        return
                    logger.warning("what other nodes changed of the databases is not known here yet: %s", error)
                    wait_s = _RETRY_S
                    continue
                wait_s = None
                self._tell_all_dropped(gone)

    def _tell_all_dropped(self, gone: list[str]) -> None:
        for database_id in gone:
            try:
                self._tell_dropped(database_id)
            except JadeError as error:  # of what is left of it in the metadata store, which is away: following goes on
                logger.warning("what belonged to the dropped database %s stays: %s", database_id, error)

    def _catch_up(self) -> list[str]:
        """Hold what there is now; ids of those that went. Raises UNAVAILABLE, CLOSED."""
        with self._lock:
            records = self._metadata.list(_PREFIX)
            # A record whose database is not there belongs to one that is being created or dropped at this moment
            entries = {name: self._entry_of(name, records) for name in self._store.databases() if name[:1] != "_"}
            kept = {name: entry for name, entry in entries.items() if entry is not None}
            gone = [name for name in self._entries if name not in kept]
            if kept != self._entries:
                self._publish(kept)
            return gone

    def _entry_of(self, name: str, records: Mapping[str, Record]) -> Entry | None:
        """The entry held already when nothing of it has changed; None when the database went while it was looked at."""
        try:
            handle = self._store.database(name)
        except JadeError as error:
            if error.code is not ErrorCode.UNKNOWN_DATABASE:
                raise
            return None
        stored, known = records.get(_PREFIX + name), self._entries.get(name)
        revision = 0 if stored is None else stored.revision
        if known is not None and known.handle is handle and known.revision == revision:
            return known
        if stored is None:
            created = handle.config.created_ms
            record = DatabaseRecord(id=name, name=name, created_ms=created, updated_ms=created)
        else:
            record = msgspec.json.decode(stored.value, type=DatabaseRecord)
        return Entry(record, handle, revision)

    def resolve(self, text: str, principal: Principal, operation: Operation) -> Entry:
        """As `Directory.resolve`. In a cluster nobody is told that there is no such database because this node has not heard of it yet:
        the metadata store is asked first, so this may wait. Raises UNAVAILABLE when that can't be.
        """
        try:
            return super().resolve(text, principal, operation)
        except JadeError as error:
            if error.code is not ErrorCode.UNKNOWN_DATABASE or self._news is None:
                raise
        self._hear_out(self._news)
        return super().resolve(text, principal, operation)

    def _hear_out(self, news: DatabaseNews) -> None:
        """Hold what every node had made and dropped before now. Raises UNAVAILABLE, CLOSED."""
        news.await_all({entry.id for entry in self.every() if entry.revision})
        self._tell_all_dropped(self._catch_up())

    # Changing

    def create(
        self,
        name: str,
        dimension: int,
        owner: str,
        *,
        description: str = "",
        index_type: str = "",
        properties: dict[str, Any] | None = None,
        **options: Any,
    ) -> Entry:
        """options: of `Store.create_database`. Others may have the name already: see `create_unique`."""
        check_name(name, description)
        with self._lock:
            return self._create(
                dimension, options, name=name, description=description, owner=owner, index_type=index_type,
                properties=properties or {},
            )  # fmt: skip

    def create_unique(
        self,
        name: str,
        dimension: int,
        principal: Principal,
        *,
        exist_ok: bool = False,
        description: str = "",
        index_type: str = "",
        **options: Any,
    ) -> tuple[Entry, bool]:
        """A database whose name no other has, and whether it was made now.

        exist_ok: when the principal sees one of this name with these options, that one, also when another node is making it at
        this moment. options: as for `create`, of the types that `DatabaseConfig` has. Raises ALREADY_EXISTS.
        """
        check_name(name, description)
        wanted = {"dimension": dimension, **options}
        if self._news is not None and (name in self._named or name in self._entries):
            self._hear_out(self._news)  # another node may have dropped it

        def attempt(*, is_last: bool) -> tuple[Entry, bool]:
            with self._lock:
                existing = self._existing(name, principal, wanted) if exist_ok else None
                if (
                    existing is not None and existing.record.is_new and is_last
                ):  # who made it died before he could say so
                    self._names.settle(existing.id)
                    return existing, False
                if existing is not None and not existing.record.is_new:
                    return existing, False
                if existing is not None:
                    raise made_elsewhere(name)
                self._check_unused(name)
                made = self._create(
                    dimension, options, name=name, description=description, owner=principal.user_id, index_type=index_type,
                    claiming=name, is_new=True,
                )  # fmt: skip
                return made, True

        pause = threading.Event()
        for _ in range(int(DATABASE_PENDING_S / _LOOK_S) if exist_ok else 0):
            try:
                return attempt(is_last=False)
            except JadeError as error:
                if error.code is not ErrorCode.ALREADY_EXISTS or not error.details.get("elsewhere"):
                    raise
            pause.wait(_LOOK_S)  # until this node has heard of it, or it turns out that it could not be made
        return attempt(is_last=True)

    def _existing(self, name: str, principal: Principal, wanted: Mapping[str, Any]) -> Entry | None:
        """The visible database of this name. Raises ALREADY_EXISTS when it is not as wanted, or not the only one."""
        named = [e for e in self._named.get(name, ()) if is_visible(principal, e.record)]
        if not named:
            return None
        config = named[0].handle.config
        different = [setting for setting, value in wanted.items() if value != getattr(config, setting)]
        if len(named) > 1 or different:
            raise JadeError(
                ErrorCode.ALREADY_EXISTS,
                f"A database named {name!r} exists with other settings ({', '.join(different) or 'several of them'}).",
                details={"different": different},
            )
        return named[0]

    def _check_unused(self, name: str, but: str = "") -> None:
        """Raises ALREADY_EXISTS when a database has the name, or has it for its id. but: the id of the one that may."""
        known = [e.record for e in self._entries.values()] + [record for record, _ in self._damaged.values()]
        if any(name in (record.name, record.id) for record in known if record.id != but):
            raise JadeError(
                ErrorCode.ALREADY_EXISTS,
                f"A database named {name!r} exists: choose another name.",
                details={"name": name},
            )

    def _create(self, dimension: int, options: dict[str, Any], **fields: Any) -> Entry:
        """fields: of the record. The lock is held."""
        database_id = f"db_{secrets.token_hex(8)}"
        now = self._clock.now_ms()
        record = DatabaseRecord(id=database_id, created_ms=now, updated_ms=now, **fields)
        # The record first: what a crash leaves between the two is a record of nothing, which the next start removes. The
        # other way round it would be a database without name and owner.
        revision = self._metadata.compare_and_set(_PREFIX + database_id, msgspec.json.encode(record), 0)
        assert revision is not None, "nobody else makes this id"
        try:
            if record.claiming:
                self._names.claim(record.claiming, database_id)
            handle = self._store.create_database(database_id, dimension, **options)
            if record.claiming:
                record, revision = self._names.settle(database_id)
        except BaseException:
            self._uncreate(database_id, record.claiming)
            raise
        entry = Entry(record, handle, revision)
        self._publish({**self._entries, database_id: entry})
        return entry

    def _uncreate(self, database_id: str, name: str) -> None:
        """Leave nothing of a database whose creation failed, as far as the stores let it: the next start removes the rest.

        name: that no other shall have, "" when others may.
        """
        with contextlib.suppress(JadeError):
            if database_id in self._store.databases():
                if not name:
                    return  # it may be whole, and is found by its record
                self._store.drop_database(database_id)
            self._remove_record(database_id)
            if name:
                self._names.release(name, database_id)

    def _remove_record(self, database_id: str) -> None:
        stored = self._metadata.get(_PREFIX + database_id)
        if stored is not None:
            self._metadata.compare_and_set(_PREFIX + database_id, None, stored.revision)

    def update(self, database_id: str, *, unique: bool = False, **changes: Any) -> Entry:
        """Change fields of the record. unique: a new name must be one that no other database has.

        Raises ALREADY_EXISTS, INVALID_ARGUMENT, and UNKNOWN_DATABASE when it was dropped meanwhile.
        """
        with self._lock:
            entry = self._held(database_id)
            record = self._changed(entry.record, changes, unique)
            try:
                revision = entry.revision
                if unique and record.name != entry.record.name:
                    revision = self._names.begin(entry.record, revision, record.name)
                written = self._metadata.compare_and_set(_PREFIX + database_id, msgspec.json.encode(record), revision)
                if written is None:
                    raise changed_meanwhile()
            except BaseException:
                self._take_back(entry, record.name)
                raise
            changed = Entry(record, entry.handle, written)
            self._publish({**self._entries, database_id: changed})
            if record.name != entry.record.name:
                with contextlib.suppress(JadeError):  # a claim that stays is found to be nobody's
                    self._names.release(entry.record.name, database_id)
            return changed

    def _take_back(self, entry: Entry, name: str) -> None:
        """After an update that failed: no name is claimed any more, and what is held of the database is what is stored."""
        with contextlib.suppress(JadeError):
            self._names.abandon(entry.id, name)
            stored = self._metadata.get(_PREFIX + entry.id)
            if stored is not None:
                record = msgspec.json.decode(stored.value, type=DatabaseRecord)
                self._publish({**self._entries, entry.id: Entry(record, entry.handle, stored.revision)})

    def alter(self, database_id: str, engine: Mapping[str, Any], *, unique: bool = False, **changes: Any) -> Entry:
        """As `update`, after changing what the engine does with it.

        engine: of `Store.alter_database`: index, index_parameters, schema, dimension; may be empty.
        """
        if engine:
            with self._lock:  # what the record can't be changed to is refused before the engine has changed
                self._changed(self._held(database_id).record, changes, unique)
            # Without the lock: it may read every row. Who takes the name meanwhile has it, and the update below is refused
            self._store.alter_database(database_id, **engine)
        return self.update(database_id, unique=unique, **changes)

    def _held(self, database_id: str) -> Entry:
        entry = self._entries.get(database_id)
        if entry is None:
            raise unknown(database_id, 0)
        return entry

    def _changed(self, record: DatabaseRecord, changes: dict[str, Any], unique: bool) -> DatabaseRecord:
        """The lock is held."""
        changed = msgspec.structs.replace(record, updated_ms=self._clock.now_ms(), claiming="", is_new=False, **changes)
        check_name(changed.name, changed.description)
        if unique and "name" in changes:
            self._check_unused(changed.name, but=record.id)
        return changed

    def drop(self, database_id: str) -> None:
        """Delete the database and its data."""
        with self._lock:
            self._drop(self._held(database_id))
        self._tell_dropped(database_id)

    def _drop(self, entry: Entry) -> None:
        """The lock is held."""
        self._publish({name: e for name, e in self._entries.items() if name != entry.id})
        try:
            self._store.drop_database(entry.id)
        except BaseException:  # a full disk: it stays, and goes on being served
            self._publish({**self._entries, entry.id: entry})
            self._refresh(entry)
            raise
        self._remove_record(entry.id)
        with contextlib.suppress(JadeError):
            self._names.release(entry.record.name, entry.id)

    def _tell_dropped(self, database_id: str) -> None:
        for told in list(self.on_drop):
            told(database_id)

    # Under way

    def explain(self, error: JadeError, entry: Entry | None) -> JadeError:
        """As `Directory.explain`: an operation that found the database closed met its dropping or altering."""
        if error.code is not ErrorCode.CLOSED or entry is None:
            return error
        with self._lock:
            current = self._entries.get(entry.id)
            if current is None:
                return unknown(entry.record.name, 0)
            try:
                self._refresh(current)
            except JadeError as trouble:  # the server stops, or the disk does not let it be opened
                return trouble
        return JadeError(ErrorCode.UNAVAILABLE, "The database was being changed at this moment: retry.")

    def of_each(self, entries: Iterable[Entry], look: Callable[[Entry], _T]) -> list[_T]:
        """What `look` sees of each database; one that was dropped while the others were looked at is left out."""
        seen: list[_T] = []
        for entry in entries:
            try:
                seen.append(look(entry))
            except JadeError as raised:
                error = self.explain(raised, entry)
                if error.code is not ErrorCode.UNKNOWN_DATABASE:
                    raise error from raised
        return seen

    def _refresh(self, entry: Entry) -> None:
        """Hold the handle that the store has now: it opens a database anew whose dropping or altering failed half-way."""
        handle = self._store.database(entry.id)
        if handle is not entry.handle:
            self._publish({**self._entries, entry.id: Entry(entry.record, handle, entry.revision)})

    def reassign_owner(self, old: str, new: str) -> None:
        """Databases of a deleted user pass to another; its grants go."""
        for entry in self.every():
            grants = {user: right for user, right in entry.record.grants.items() if user != old}
            if entry.record.owner == old:
                self.update(entry.id, owner=new, grants=grants)
            elif grants != entry.record.grants:
                self.update(entry.id, grants=grants)


def check_name(name: str, description: str) -> None:
    """Raises INVALID_ARGUMENT."""
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_LENGTH_MAX or has_control(name):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"name must be 1 to {NAME_LENGTH_MAX} characters without control characters."
        )
    if not isinstance(description, str) or len(description) > DESCRIPTION_LENGTH_MAX:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"description must be at most {DESCRIPTION_LENGTH_MAX} characters.")


def has_control(text: Iterable[str]) -> bool:
    return any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) <= 0xDFFF for c in text)
