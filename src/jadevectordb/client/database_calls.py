"""The calls on one database: arguments checked and turned into requests, answers into values. No connection is needed for either.

What both shells offer is written down here once, docstrings included: `sync.Database` and `aio.AsyncDatabase` take these methods
over and run the calls they make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.client.arguments import (
    FilterLike,
    Include,
    MetadataLike,
    Versions,
    effort_text,
    encoded,
    encoded_metadata,
    given,
    integer,
    invalid,
    limits_text,
    listed,
    names_of,
    number,
    parts_of,
    unusual,
    versions_of,
    wire_filter,
    with_filter,
)
from jadevectordb.client.call import JSON, Call, encode, read_as
from jadevectordb.client.raw import RAW, framed, query_of, rows_of, unframed
from jadevectordb.client.values import (
    Conflicts,
    DatabaseInfo,
    Explanation,
    Hit,
    Hits,
    Item,
    Page,
    Stats,
    WriteResult,
    attach_vectors,
)
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CLIENT_TARGET_LENGTH_MAX, K_MAX
from jadevectordb.model.metric import Metric

T = TypeVar("T")
EVERYTHING = ("metadata", "vector")
_METADATA = ("metadata",)


class _HitsAnswer(msgspec.Struct):
    hits: list[Hit]
    explanation: Explanation | None = None
    missing_shards: tuple[int, ...] = ()


class _BatchAnswer(msgspec.Struct):
    results: list[_HitsAnswer]


class _ItemsAnswer(msgspec.Struct):
    vectors: list[Item | None]


class _ExistsAnswer(msgspec.Struct):
    exists: list[bool]


class _CountAnswer(msgspec.Struct):
    count: int


_read_hits = msgspec.json.Decoder(_HitsAnswer).decode
_read_batch = msgspec.json.Decoder(_BatchAnswer).decode
_read_items = msgspec.json.Decoder(_ItemsAnswer).decode
_read_page = msgspec.json.Decoder(Page).decode
_read_exists = msgspec.json.Decoder(_ExistsAnswer).decode
_read_count = msgspec.json.Decoder(_CountAnswer).decode
_read_write = read_as(WriteResult)
_WRITE_LEVELS = ("", "quorum", "strong", "eventual")
_READ_LEVELS = ("", "session", "strong", "eventual")
_read_stats = read_as(Stats)
_read_conflicts = read_as(Conflicts)
_read_info = read_as(DatabaseInfo)


class DatabaseCalls:
    """Makes the calls on one database. new_request_id: a fresh name for every write, so that a write may be tried again."""

    def __init__(self, info: DatabaseInfo, new_request_id: Callable[[], str]) -> None:
        self.info = info
        self.dimension = info.dimension
        self.metric = info.metric
        self.key = info.id
        self._is_bits = info.metric == Metric.HAMMING
        self._path = f"/v2/databases/{quote(info.id, safe='')}"
        self._search = f"{self._path}/search?k="
        self._new_request_id = new_request_id

    # Writing

    def upsert(
        self,
        ids: Iterable[str],
        vectors: npt.ArrayLike,
        metadata: MetadataLike | None = None,
        if_version: Versions = None,
        request_id: str = "",
        *,
        consistency: str = "",
    ) -> Call[WriteResult]:
        """Insert or replace vectors: one durable batch, all of it or nothing, visible to every search once this returns.

        ids: distinct strings of 1 to 512 characters. vectors: (n, dimension), any numeric dtype, kept as float32 exactly as
        sent (0 and 1 under hamming). metadata: one JSON-like dict a vector, or None; it replaces what was stored.
        if_version: the version each vector must have now (0: must not exist), one for all or one an id (None: any).
        request_id: a retry with the same id is applied once; without one the client makes one up, for retries of its own.
        consistency: of a write to a cluster: quorum (its default), strong or eventual; a single node has but one.
        Raises DIMENSION_MISMATCH, INVALID_VECTOR, INVALID_ID, DUPLICATE_ID, INVALID_METADATA, SCHEMA_VIOLATION,
        VERSION_CONFLICT, REQUEST_TOO_LARGE, DISK_FULL; in every case nothing of the batch is stored.
        """
        names = names_of(ids, is_write=True)
        rows = rows_of(vectors, self.dimension, self.metric)
        if len(rows) != len(names):
            raise invalid(f"{len(names)} ids came with {len(rows)} vectors: give one vector an id.")
        header: dict[str, Any] = {"ids": names}
        if metadata is not None:
            header["metadata"] = encoded_metadata(metadata, names)
        body = framed(self._write_header(header, names, if_version, request_id), rows)
        return self._write("/vectors", body, RAW, consistency)

    def update_metadata(
        self,
        ids: str | Iterable[str],
        metadata: MetadataLike,
        *,
        merge: bool = True,
        if_version: Versions = None,
        request_id: str = "",
        consistency: str = "",
    ) -> Call[WriteResult]:
        """Change metadata and keep the vectors. merge: top-level keys given replace those stored; else all is replaced.

        metadata: one dict for all ids, or one an id. Ids that don't exist are skipped; `count` in the result says how many were
        changed.
        """
        names = names_of([ids] if isinstance(ids, str) else ids, is_write=True)
        if isinstance(metadata, Mapping):
            patch: Any = encoded_metadata([metadata], ["all"])[0]
        else:
            patch = encoded_metadata(metadata, names)
        header = {"ids": names, "metadata": patch, "merge": merge}
        body = (self._write_header(header, names, if_version, request_id),)
        return self._write("/vectors/metadata", body, JSON, consistency)

    def delete(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        filter: FilterLike = None,
        if_version: Versions = None,
        request_id: str = "",
        consistency: str = "",
    ) -> Call[WriteResult]:
        """Delete by id or by filter; `count` in the result says how many there were. Ids that don't exist are skipped."""
        if (ids is None) == (filter is None):
            raise invalid("delete takes either ids or a filter.")
        if ids is not None:
            names = names_of([ids] if isinstance(ids, str) else ids, is_write=True)
            body = (self._write_header({"ids": names}, names, if_version, request_id),)
            return self._write("/vectors/delete", body, JSON, consistency)
        if if_version is not None:
            raise invalid("if_version goes with ids, not with a filter.")
        document = wire_filter(filter)
        if document is None:
            raise invalid("An empty filter would delete everything: drop the database instead, or name what to delete.")
        body = (self._write_header({"filter": document}, [], None, request_id),)
        return self._write("/vectors/delete", body, JSON, consistency)

    def _write(
        self, path: str, body: tuple[bytes | memoryview, ...], content_type: str, consistency: str
    ) -> Call[WriteResult]:
        if consistency not in _WRITE_LEVELS:
            raise invalid(f"consistency of a write must be quorum, strong or eventual, got {consistency!r:.80}.")
        return Call(
            "POST", self._path + path, _read_write,
            body=body, content_type=content_type, database=self.key, consistency=consistency,
        )  # fmt: skip

    def _write_header(self, header: dict[str, Any], names: list[str], if_version: Versions, request_id: str) -> bytes:
        if if_version is not None:
            header["if_version"] = versions_of(if_version, len(names))
        if not isinstance(request_id, str):
            raise invalid(f"request_id must be a string, got {request_id!r:.80}.")
        header["request_id"] = request_id or self._new_request_id()
        return encoded(header)

    # Reading by id

    def get(self, ids: Iterable[str], include: Include = EVERYTHING, consistency: str = "") -> Call[list[Item | None]]:
        """One item an id, None where there is none. include: of metadata, vector, what to send along. consistency: see `search`."""
        names = names_of(ids)
        body = {"ids": names, "include": parts_of(include)}

        def read(answer: bytes | bytearray) -> list[Item | None]:
            if "vector" not in include:
                return _read_items(answer).vectors
            header, rows = unframed(answer, self.dimension)
            items = _read_items(header).vectors
            self._attach([item for item in items if item is not None], rows)
            return items

        return self._read("/vectors/get", body, read, consistency, "vector" in include)

    def exists(self, ids: Iterable[str], consistency: str = "") -> Call[list[bool]]:
        """Whether each id is stored."""
        body = {"ids": names_of(ids)}
        return self._read("/vectors/exists", body, lambda answer: _read_exists(answer).exists, consistency)

    def count(self, filter: FilterLike = None, consistency: str = "") -> Call[int]:
        """Exactly how many vectors there are, or match."""
        return self._read("/count", with_filter({}, filter), lambda answer: _read_count(answer).count, consistency)

    def scroll(
        self,
        limit: int = 1000,
        cursor: str | None = None,
        filter: FilterLike = None,
        include: Include = EVERYTHING,
        consistency: str = "",
    ) -> Call[Page]:
        """All vectors, a page at a time. The order is fixed by the ids alone, so pages never overlap and never skip a vector
        that is there throughout, whatever is written meanwhile.
        """
        body = with_filter({"limit": integer(limit, "limit"), "include": parts_of(include)}, filter)
        if cursor is not None:
            body["cursor"] = cursor

        def read(answer: bytes | bytearray) -> Page:
            if "vector" not in include:
                return _read_page(answer)
            header, rows = unframed(answer, self.dimension)
            page = _read_page(header)
            self._attach(page.items, rows)
            return page

        return self._read("/vectors/scroll", body, read, consistency, "vector" in include)

    # Searching

    def search(
        self,
        vector: npt.ArrayLike | None = None,
        *,
        id: str | None = None,
        k: int | None = 10,
        filter: FilterLike = None,
        recall: float = 0.95,
        text: str | None = None,
        fusion: str = "rrf",
        alpha: float = 0.5,
        threshold: float | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        nprobe: int | None = None,
        candidates: int | None = None,
        ef_search: int | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        explain: bool = False,
        include: Include = _METADATA,
        consistency: str = "",
        allow_partial: bool = False,
    ) -> Call[Hits]:
        """The k stored vectors most like `vector` (or like the one stored under `id`, itself left out), best first.

        vector: (dimension,). filter: only vectors whose metadata match, decided before the best k are taken. recall: share
        of the true best k to find on average, 0 < recall <= 1; 1.0 is exact. text: words for a full-text search (BM25) over
        the declared text fields; with a vector too, both rankings are fused (fusion "rrf" or "weighted"; alpha: the vector's
        share). threshold: only hits whose score is at least this. max_distance: every hit within this distance, exactly
        (k=None: all of them). group_by: at most group_size hits for each value of that metadata field, k groups. exact,
        nprobe, candidates, ef_search: for experts, instead of recall. explain: the result's `explanation` says what was
        done. include: of metadata, vector, version, what to send along with each hit. Equal scores are ordered by id.

        Of a cluster: consistency: session (its default: what this client wrote or was shown is seen), strong (everything
        acknowledged before it began) or eventual; a single node has but one. allow_partial: rather than fail, leave out shards that
        nobody answers for; the result's `missing_shards` names them.
        """
        has_vectors = include is not _METADATA and "vector" in include
        simple = (
            id is None and text is None and group_by is None and k is not None and not explain and vector is not None
        )
        if simple and filter is None and threshold is None and max_distance is None:
            # The common search, kept short
            target = f"{self._search}{integer(k, 'k')}&recall={number(recall, 'recall')}"
        elif simple:
            target = f"{self._search}{integer(k, 'k')}&recall={number(recall, 'recall')}" + limits_text(
                filter, threshold, max_distance
            )
        if simple and include is not _METADATA:
            target += f"&include={','.join(parts_of(include))}"
        if simple and (exact or nprobe is not None or candidates is not None or ef_search is not None):
            target += effort_text(exact, nprobe, candidates, ef_search)
        if simple and allow_partial:
            target += "&allow_partial=true"
        if simple and len(target) <= CLIENT_TARGET_LENGTH_MAX:
            if consistency not in _READ_LEVELS:
                raise _no_level(consistency)
            query = query_of(vector, self.dimension, self.metric)  # type: ignore[arg-type]  # not None: simple
            return Call(
                "POST",
                target,
                self._read_hits_with_vectors if has_vectors else _hits,
                body=(query,),
                content_type=RAW,
                accept=RAW if has_vectors else "",
                database=self.key,
                consistency=consistency,
            )
        body = with_filter({"recall": number(recall, "recall"), "include": parts_of(include)}, filter)
        if vector is not None:
            body["vector"] = listed(vector, self.dimension, self.metric)
        if k is None and max_distance is None:
            raise invalid("k=None (all hits) goes with max_distance.")
        body["k"] = K_MAX if k is None else integer(k, "k")
        body |= given(id=id, text=text, threshold=threshold, max_distance=max_distance, group_by=group_by)
        body |= given(nprobe=nprobe, candidates=candidates, ef_search=ef_search)
        body |= unusual(fusion=(fusion, "rrf"), alpha=(alpha, 0.5), group_size=(group_size, 1))
        body |= unusual(exact=(exact, False), explain=(explain, False), allow_partial=(allow_partial, False))
        read = self._read_hits_with_vectors if has_vectors else _hits
        return self._read("/search", body, read if k is not None else _all_of(read), consistency, has_vectors)

    def search_batch(
        self,
        vectors: npt.ArrayLike,
        *,
        k: int = 10,
        filter: FilterLike = None,
        recall: float = 0.95,
        include: Include = _METADATA,
        consistency: str = "",
    ) -> Call[list[Hits]]:
        """`search` for each row of vectors (m, dimension), all over the same view of the data on a single node."""
        rows = rows_of(vectors, self.dimension, self.metric)
        has_vectors = "vector" in include
        target = f"{self._path}/search/batch?k={integer(k, 'k')}&recall={number(recall, 'recall')}"
        target += f"&include={','.join(parts_of(include))}" + limits_text(filter, None, None)

        def read(answer: bytes | bytearray) -> list[Hits]:
            if not has_vectors:
                return [Hits(each.hits) for each in _read_batch(answer).results]
            header, stored = unframed(answer, self.dimension)
            results = [Hits(each.hits) for each in _read_batch(header).results]
            self._attach([hit for hits in results for hit in hits], stored)
            return results

        accept = RAW if has_vectors else ""
        if len(target) > CLIENT_TARGET_LENGTH_MAX:
            body = with_filter({"k": k, "recall": recall, "include": parts_of(include)}, filter)
            return self._read("/search/batch", {**body, "vectors": rows.tolist()}, read, consistency, has_vectors)
        if consistency not in _READ_LEVELS:
            raise _no_level(consistency)
        raw = (rows.reshape(-1).data.cast("B") if rows.size else b"",)
        return Call(
            "POST", target, read,
            body=raw, content_type=RAW, accept=accept, database=self.key, consistency=consistency,
        )  # fmt: skip

    # Looking after it

    def stats(self) -> Call[Stats]:
        """Rows, segments, bytes in memory and on disk, watermarks: what is true now."""
        return Call("GET", f"{self._path}/stats", _read_stats, database=self.key)

    def conflicts(self) -> Call[Conflicts]:
        """Writes at EVENTUAL that did not know of another write of the same vector, and which of the two counts."""
        return Call("GET", f"{self._path}/conflicts", _read_conflicts, database=self.key)

    def describe(self) -> Call[DatabaseInfo]:
        """How it was made, and how many vectors it has now."""
        return Call("GET", self._path, _read_info, database=self.key)

    def wait_step(self, what: str, step_s: float) -> Call[None]:
        """One step of waiting (wait-indexed, compact): the server answers TIMEOUT when it needs longer."""
        body = (encode({"timeout_s": step_s}),)
        return Call("POST", f"{self._path}/{what}", _nothing, body=body, database=self.key, wait_s=step_s)

    def _read(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[bytes | bytearray], T],
        consistency: str,
        raw: bool = False,
    ) -> Call[T]:
        if consistency not in _READ_LEVELS:
            raise _no_level(consistency)
        return Call(
            "POST", self._path + path, read,
            body=(encoded(body),), accept=RAW if raw else "", database=self.key, consistency=consistency,
        )  # fmt: skip

    def _read_hits_with_vectors(self, answer: bytes | bytearray) -> Hits:
        header, rows = unframed(answer, self.dimension)
        hits = _hits(header)
        self._attach(hits, rows)
        return hits

    def _attach(self, items: list[Any], rows: npt.NDArray[np.float32]) -> None:
        if len(items) != len(rows):
            raise JadeError(
                ErrorCode.IO_ERROR, f"An answer of {len(items)} vectors came with {len(rows)} rows of values."
            )
        attach_vectors(items, rows, self._is_bits)


def _no_level(consistency: object) -> JadeError:
    return invalid(f"consistency of a read must be session, strong or eventual, got {consistency!r:.80}.")


def _hits(answer: bytes | bytearray) -> Hits:
    found = _read_hits(answer)
    return Hits(found.hits, found.explanation, found.missing_shards)


def _all_of(read: Callable[[bytes | bytearray], Hits]) -> Callable[[bytes | bytearray], Hits]:
    """Hits that should be all there are: as many as an answer can hold may be too few, and are not passed off as all."""

    def checked(answer: bytes | bytearray) -> Hits:
        hits = read(answer)
        if len(hits) >= K_MAX:
            raise JadeError(
                ErrorCode.REQUEST_TOO_LARGE,
                f"At least {K_MAX} vectors are within max_distance, more than one answer holds: give k, or a smaller distance.",
            )
        return hits

    return checked


def _nothing(answer: bytes | bytearray) -> None:
    msgspec.json.decode(answer)
