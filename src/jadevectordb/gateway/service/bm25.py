"""Keyword indexes as existing clients build them, on top of the engine's full-text search.

Building on a metadata field declares the field as text: from then on the engine's own index follows every store, update and
delete, in the same step. Texts that clients hand over without a vector (`documents`) are kept in a database of the server's
own beside it, with vectors of one dimension that nobody searches, and are ranked together with the rest (`text_ranking`).

What a build was told is kept in the metadata store under `bm25/DATABASE`; every count is read from the indexes themselves.

In a cluster any node builds, one at a time, and all know of it by that record; texts without vectors are on all their replicas when a
call returns, so that whichever node is searched next finds them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any

import msgspec
import numpy as np

from jadevectordb.gateway.cluster import words
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.service.handles import AnyDatabase, AnyStore
from jadevectordb.gateway.service.records import Records
from jadevectordb.gateway.service.text_ranking import OF_VECTOR, TextFigures, figures_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import DOCUMENT_TEXT_BYTES_MAX, DOCUMENTS_PER_REQUEST_MAX
from jadevectordb.model.schema import FieldType, Schema, parse_schema
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.query.levels import ReadLevel

_PREFIX = "bm25/"
_COMPANION = "_texts-"  # + the database's engine name; names with an underscore are the server's own
DEFAULT_FIELD = "text"
_BATCH = 1000
NONE, BUILDING, COMPLETED, FAILED = "none", "building", "completed", "failed"


class Build(msgspec.Struct, frozen=True):
    """The last build. declared: the field became a text field by it, so another build may take that back.

    node: of a cluster, which builds; absent in what older versions wrote, and on a single node.
    """

    status: str
    field: str
    declared: bool = False
    started_ms: int = 0
    duration_ms: float = 0.0
    error: str = ""
    node: str = ""


class Status(msgspec.Struct, frozen=True):
    status: str
    field: str
    figures: TextFigures
    vectors: int  # in the database
    texts: int  # without a vector
    duration_ms: float
    error: str


class Bm25:
    """Thread-safe. Databases are named by their id, which is their name in the engine."""

    def __init__(self, store: AnyStore, metadata: MetadataStore, clock: Clock) -> None:
        self._store = store
        self._metadata = metadata
        self._clock = clock
        self._locks: dict[str, threading.Lock] = {}  # one build of a database at a time; reading never waits
        self._cluster = store if isinstance(store, ClusterStore) else None
        self._node = "" if self._cluster is None else self._cluster.fan_out.node
        self._builds: Records[Build] = Records(metadata, _PREFIX, Build, is_shared=self._cluster is not None)
        self._building: set[str] = set()  # by this process, now
        self._companions: dict[str, AnyDatabase] = {}  # on one node
        self._remove_unowned()

    def _remove_unowned(self) -> None:
        """Texts whose database was dropped just before a crash."""
        known = set(self._store.databases())
        for name in known:
            owner = name.removeprefix(_COMPANION)
            if owner == name:
                continue
            if owner in known:
                if self._cluster is None:
                    self._companions[owner] = self._store.database(name)
            elif self._cluster is None or not self._cluster.is_stored(owner):
                with contextlib.suppress(JadeError):
                    self._store.drop_database(name)

    # Reading

    def documents(self, database: str) -> AnyDatabase | None:
        """The database of texts without vectors; None when none were given."""
        if self._cluster is not None:
            return self._cluster.find(_COMPANION + database)
        return self._companions.get(database)

    def has_text(self, database: str, handle: AnyDatabase) -> bool:
        """Whether anything can be found by words."""
        return bool(handle.config.schema.texts) or self.documents(database) is not None

    def text_field(self, database: str, handle: AnyDatabase) -> str:
        """The field whose text stands for a vector where one is needed, as in re-ranking."""
        build, texts = self._builds.get(database), handle.config.schema.texts
        if build is not None and build.field in texts:
            return build.field
        return texts[0] if texts else DEFAULT_FIELD

    def status(self, database: str, handle: AnyDatabase, *, latest: bool = False) -> Status:
        """latest: of a cluster, with everything that was written before. Raises what reading raises."""
        build = self._builds.get(database) or Build(NONE, "")
        if build.status == BUILDING and not self._is_building(database, build):
            error = "The server stopped during the build: build again."
            build = msgspec.structs.replace(build, status=FAILED, error=error)
        status = build.status
        if status == NONE and self.has_text(database, handle):
            status = COMPLETED  # the field was declared when the database was created
        companion = self.documents(database)
        return Status(
            status=status,
            field=self.text_field(database, handle) if status != NONE else "",
            figures=_figures_of(handle, companion, latest=latest),
            vectors=handle.count(**_latest(handle, latest)),
            texts=0 if companion is None else companion.count(**_latest(companion, latest)),
            duration_ms=build.duration_ms,
            error=build.error,
        )

    def _is_building(self, database: str, build: Build) -> bool:
        if self._cluster is None or build.node == self._node:
            return database in self._building
        return self._cluster.mirror.is_alive(build.node)

    # Building

    def build(
        self,
        database: str,
        handle: AnyDatabase,
        *,
        field: str | None = None,
        documents: Mapping[str, str] | None = None,
        keep_documents: bool = False,
    ) -> Status:
        """Index a metadata field of every vector, or texts by id instead of it; returns when searches find them.

        field: None with documents = no field; None without them = the field of the last build. documents: replace those
        given before unless keep_documents. Raises SCHEMA_VIOLATION when some vector has another type of value in the field,
        INVALID_ARGUMENT, and what writing raises; the status then says `failed` and why. CONFLICT while another node builds.
        """
        with self._lock_of(database):
            last = self._builds.get(database)
            if (
                last is not None
                and last.status == BUILDING
                and last.node != self._node
                and self._is_building(database, last)
            ):
                raise _crossed(f"Node {last.node!r} builds the index of this database at this moment")
            self._building.add(database)
            try:
                self._build(database, handle, field, documents, keep_documents, last)
            finally:
                self._building.discard(database)
            return self.status(database, handle, latest=True)

    def _build(
        self,
        database: str,
        handle: AnyDatabase,
        field: str | None,
        documents: Mapping[str, str] | None,
        keep_documents: bool,
        last: Build | None,
    ) -> None:
        if field is None and documents is None:
            field = last.field if last is not None and last.field else self.text_field(database, handle)
        started, started_s = self._clock.now_ms(), self._clock.monotonic_s()
        kept = last is not None and last.declared
        self._note(database, Build(BUILDING, field or "", kept, started))
        try:
            declared = self._declare(database, handle, field, last)
            self._align(database, handle)
            if documents is not None:
                self._write(database, handle, documents, replace=not keep_documents)
        except JadeError as error:
            duration_ms = (self._clock.monotonic_s() - started_s) * 1000
            self._note(database, Build(FAILED, field or "", kept, started, duration_ms, error.message))
            raise
        duration_ms = (self._clock.monotonic_s() - started_s) * 1000
        self._note(database, Build(COMPLETED, field or "", declared, started, duration_ms))

    def add(self, database: str, handle: AnyDatabase, documents: Mapping[str, str]) -> Status:
        """Add texts by id, or replace those of the same ids; an id needs no vector. Without an index this begins one."""
        with self._lock_of(database):
            started, started_s = self._clock.now_ms(), self._clock.monotonic_s()
            self._write(database, handle, documents, replace=False)
            if self._builds.get(database) is None:
                duration_ms = (self._clock.monotonic_s() - started_s) * 1000
                field = self.text_field(database, handle) if handle.config.schema.texts else ""
                self._note(database, Build(COMPLETED, field, False, started, duration_ms))
            return self.status(database, handle, latest=True)

    def forget_vectors(self, database: str, ids: Seq[str]) -> None:
        """Vectors were deleted: texts under their ids go too. Not needed for them not to be found."""
        companion = self.documents(database)
        if companion is not None and ids:
            companion.delete(list(ids), **_on_all(companion))

    def forget(self, database: str) -> None:
        """A database was dropped."""
        with self._lock_of(database):
            companion = self.documents(database)
            self._companions.pop(database, None)
            if companion is not None:
                try:
                    self._store.drop_database(companion.name)
                except JadeError:
                    if self._cluster is None:
                        raise  # of a cluster every node is told: another was quicker, or a later start removes it
            self._builds.remove(database)
        self._locks.pop(database, None)

    def close(self) -> None:
        """Databases are closed by the store."""

    # Steps

    def _lock_of(self, database: str) -> threading.Lock:
        return self._locks.setdefault(database, threading.Lock())

    def _declare(self, database: str, handle: AnyDatabase, field: str | None, last: Build | None) -> bool:
        """Make the schema fit: the field is text, and one that only the last build made text is what it was. Whether we declared it."""
        schema = handle.config.schema
        fields = dict(schema.fields)
        if last is not None and last.declared and last.field != field:
            fields.pop(last.field, None)
        ours = last is not None and last.declared and last.field == field
        if field is not None and fields.get(field) not in (FieldType.TEXT, FieldType.TEXTS):
            if field in fields:
                raise JadeError(
                    ErrorCode.INVALID_ARGUMENT,
                    f"The field {field!r} is declared as {fields[field]}: a BM25 index needs a field of text.",
                    details={"field": field},
                )
            fields |= parse_schema({field: FieldType.TEXT}).fields  # raises for what can't be a field's path
            ours = True
        if fields != schema.fields:
            self._store.alter_database(database, schema=Schema(fields, schema.strict))
        return ours

    def _align(self, database: str, handle: AnyDatabase) -> None:
        """Texts without vectors have the same fields as the rest: only then are their scores of one scale.

        Repeatable: what a crash left under another field is moved by the next build.
        """
        companion = self.documents(database)
        if companion is None:
            return
        wanted = _fields_of(handle)
        if companion.config.schema != wanted:
            companion = self._store.alter_database(companion.name, schema=wanted)
        field = wanted.texts[0]
        moved = {item.id: _text_of(item) for item in _items(companion) if field not in item.metadata}
        self._upsert(companion, handle, moved)

    def _companion_of(self, database: str, handle: AnyDatabase) -> AnyDatabase:
        companion = self.documents(database)
        if companion is None:
            name, schema, language = _COMPANION + database, _fields_of(handle), handle.config.text_language
            try:
                companion = self._store.create_database(
                    name, 1, metric="dot", index="FLAT", schema=schema, text_language=language, exist_ok=True
                )
            except JadeError as error:
                if self._cluster is None or error.code is not ErrorCode.ALREADY_EXISTS:
                    raise
                raise _crossed("Another node takes the first texts of this database") from error
            if self._cluster is None:
                self._companions[database] = companion
        return companion

    def _write(self, database: str, handle: AnyDatabase, documents: Mapping[str, str], *, replace: bool) -> None:
        if len(documents) > DOCUMENTS_PER_REQUEST_MAX:
            raise JadeError(
                ErrorCode.REQUEST_TOO_LARGE,
                f"{len(documents)} documents are too many at once: send at most {DOCUMENTS_PER_REQUEST_MAX}.",
            )
        for name, text in documents.items():
            if len(text.encode("utf-8", "replace")) > DOCUMENT_TEXT_BYTES_MAX:
                raise JadeError(
                    ErrorCode.REQUEST_TOO_LARGE,
                    f"The text of document {name!r:.100} has more than {DOCUMENT_TEXT_BYTES_MAX} bytes: split it.",
                    details={"id": name},
                )
        companion = self._companion_of(database, handle)
        self._upsert(companion, handle, documents)
        self._remove_orphans(companion, handle)
        if replace:  # last, so that a crash leaves too many rather than too few
            gone = [item.id for item in _items(companion) if item.id not in documents]
            for start in range(0, len(gone), _BATCH):
                companion.delete(gone[start : start + _BATCH], **_on_all(companion))

    def _upsert(self, companion: AnyDatabase, handle: AnyDatabase, documents: Mapping[str, str]) -> None:
        field = companion.config.schema.texts[0]
        names = list(documents)
        for start in range(0, len(names), _BATCH):
            some = names[start : start + _BATCH]
            metadata: list[dict[str, Any]] = [{field: documents[name]} for name in some]
            for one, has_vector in zip(metadata, handle.exists(some, **_latest(handle)), strict=True):
                if has_vector:
                    one[OF_VECTOR] = True
            companion.upsert(some, np.zeros((len(some), 1), np.float32), metadata, **_on_all(companion))

    def _remove_orphans(self, companion: AnyDatabase, handle: AnyDatabase) -> None:
        """Texts of vectors that were deleted are not found any more; here their space is given back."""
        marked = [item.id for item in _items(companion, {OF_VECTOR: True})]
        for start in range(0, len(marked), _BATCH):
            some = marked[start : start + _BATCH]
            gone = [
                name
                for name, has_vector in zip(some, handle.exists(some, **_latest(handle)), strict=True)
                if not has_vector
            ]
            if gone:
                companion.delete(gone, **_on_all(companion))

    def _note(self, database: str, build: Build) -> None:
        """Raises CONFLICT when another node noted a build meanwhile."""
        if not self._builds.put(database, msgspec.structs.replace(build, node=self._node)):
            raise _crossed("Another node began to build the index of this database")


def _crossed(what: str) -> JadeError:
    return JadeError(ErrorCode.CONFLICT, f"{what}: try again when it is through.")


def _latest(handle: AnyDatabase, latest: bool = True) -> dict[str, Any]:
    """For reads that decide what is written next: of a cluster, they see everything that was acknowledged before."""
    return {"consistency": "strong"} if latest and isinstance(handle, ClusterDatabase) else {}


def _on_all(handle: AnyDatabase) -> dict[str, Any]:
    """For writes: of a cluster, on every replica."""
    return {"consistency": "strong"} if isinstance(handle, ClusterDatabase) else {}


def _items(handle: AnyDatabase, condition: dict[str, Any] | None = None) -> Iterator[Item]:
    return handle.items(condition, **_latest(handle))


def _figures_of(handle: AnyDatabase, companion: AnyDatabase | None, *, latest: bool) -> TextFigures:
    both = [one for one in (handle, companion) if one is not None]
    if isinstance(handle, ClusterDatabase):
        level = ReadLevel.STRONG if latest else ReadLevel.SESSION
        found = words.figures_of([one.words for one in both if isinstance(one, ClusterDatabase)], level)
        return TextFigures(found.documents, found.tokens, found.terms)
    return figures_of([one._use().view for one in both if isinstance(one, Database)])


def _fields_of(handle: AnyDatabase) -> Schema:
    return Schema(dict.fromkeys(handle.config.schema.texts or (DEFAULT_FIELD,), FieldType.TEXT))


def _text_of(item: Item) -> str:
    """The text of a companion's record: its one field, whatever that was called when it was written."""
    return str(next(iter(item.metadata.values()), ""))
