"""A database as a Python program sees it: numpy in, hits out. Every method may be called from many threads at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any, overload

import msgspec
import numpy.typing as npt

from jadevectordb.gateway.embedded.alteration import check_before, prepare
from jadevectordb.gateway.embedded.arguments import (
    count_of,
    group_into,
    loosened,
    names_of,
    number_of,
    overrides_of,
    place_of,
    recall_of,
    timeout_of,
)
from jadevectordb.gateway.embedded.hits import Group, Hits, Item, Page
from jadevectordb.gateway.embedded.opening import FilterLike, Opening
from jadevectordb.gateway.embedded.stats import Stats, stats_of
from jadevectordb.index.api import RECALL_DEFAULT
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import NodeId
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.readable import ReadableDatabase
from jadevectordb.query import executor, scan
from jadevectordb.query.plan import Explanation, SearchRequest
from jadevectordb.query.write_checks import check_ids, invalid
from jadevectordb.query.writer import WriteGate, WriteResult

MetadataLike = Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any]  # bytes: a JSON object
_FUSIONS = ("rrf", "weighted")


class Database:
    """Made by `Store.create_database` and `Store.database`."""

    def __init__(self, opened: ReadableDatabase, node: NodeId) -> None:
        self._opening: Opening | None = Opening(opened, node)
        self._node = node
        self._config = opened.config
        self._changes = WriteGate()  # writers pass together; altering the database passes alone
        self._altering = threading.Lock()  # one alteration at a time

    # What it is

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def dimension(self) -> int:
        return self._config.dimension

    @property
    def metric(self) -> str:
        return str(self._config.metric)

    @property
    def config(self) -> DatabaseConfig:
        return self._config

    def __repr__(self) -> str:
        state = "closed" if self._opening is None else f"{self.count()} vectors"
        return f"<Database {self.name!r}: {state}, dimension {self.dimension}, {self.metric}>"

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, vector_id: str) -> bool:
        return self.exists(vector_id)

    # Writing

    def upsert(
        self,
        ids: Iterable[str],
        vectors: npt.ArrayLike,
        metadata: MetadataLike | None = None,
        if_version: Seq[int | None] | int | None = None,
        request_id: str = "",
    ) -> WriteResult:
        """Insert or replace vectors: one durable batch, all of it or nothing, visible to every search once this returns.

        ids: distinct strings of 1 to 512 characters. vectors: (n, dimension), any numeric dtype, kept as float32 exactly as
        sent (0 and 1 under hamming). metadata: one JSON-like dict a vector, or None; it replaces what was stored.
        if_version: the version each vector must have now (0: must not exist), one for all or one an id (None: any).
        request_id: a retry with the same id is applied once.
        Raises DIMENSION_MISMATCH, INVALID_VECTOR, INVALID_ID, DUPLICATE_ID, INVALID_METADATA, SCHEMA_VIOLATION,
        VERSION_CONFLICT, REQUEST_TOO_LARGE, DISK_FULL; in every case nothing of the batch is stored.
        """
        with self._changes.shared():
            return self._now().writer.upsert(ids, vectors, metadata, if_version, request_id)

    def update_metadata(
        self,
        ids: str | Iterable[str],
        metadata: MetadataLike,
        *,
        merge: bool = True,
        if_version: Seq[int | None] | int | None = None,
        request_id: str = "",
    ) -> WriteResult:
        """Change metadata and keep the vectors. merge: top-level keys given replace those stored; else all is replaced.

        Ids that don't exist are skipped; `count` in the result says how many were changed.
        """
        self._now()
        names = check_ids([ids] if isinstance(ids, str) else ids)
        if isinstance(metadata, Mapping):
            metadata = [metadata] * len(names)
        with self._changes.shared():
            return self._now().writer.update(names, metadata, merge, if_version, request_id)

    def delete(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        filter: FilterLike = None,
        if_version: Seq[int | None] | int | None = None,
        request_id: str = "",
    ) -> WriteResult:
        """Delete by id or by filter; `count` in the result says how many there were. Ids that don't exist are skipped."""
        self._now()
        if (ids is None) == (filter is None):
            raise invalid("delete takes either ids or a filter.")
        if ids is not None:
            with self._changes.shared():
                return self._now().writer.delete([ids] if isinstance(ids, str) else ids, if_version, request_id)
        if if_version is not None:
            raise invalid("if_version goes with ids, not with a filter.")
        with self._changes.shared():
            opening = self._now()
            node = opening.parse(filter)
            if node is None:
                raise invalid(
                    "An empty filter would delete everything: drop the database instead, or name what to delete."
                )
            return opening.writer.delete_where(node, request_id)

    # Reading by id

    @overload
    def get(self, ids: str) -> Item | None: ...  # type: ignore[overload-overlap]  # a str is no list of ids here
    @overload
    def get(self, ids: Iterable[str]) -> list[Item | None]: ...
    def get(self, ids: str | Iterable[str]) -> Item | list[Item | None] | None:
        """One item (None when there is none), or a list as long as the ids given."""
        opening = self._now()
        view = opening.view
        names = names_of(ids)
        items: list[Item | None] = [None] * len(names)
        for shard in view.shards:
            for i, where in enumerate(shard.locate(names)):
                if where is not None:
                    items[i] = Item(names[i], where[0].reader, where[1], opening.unpacker)
        return items[0] if isinstance(ids, str) else items

    @overload
    def exists(self, ids: str) -> bool: ...  # type: ignore[overload-overlap]
    @overload
    def exists(self, ids: Iterable[str]) -> list[bool]: ...
    def exists(self, ids: str | Iterable[str]) -> bool | list[bool]:
        """Whether each id is stored."""
        if isinstance(ids, str):
            return self.get(ids) is not None
        return [item is not None for item in self.get(ids)]

    def count(self, filter: FilterLike = None) -> int:
        """Exactly how many vectors there are, or match."""
        opening = self._now()
        return scan.count(opening.view, opening.parse(filter))

    def scroll(
        self,
        limit: int = 1000,
        cursor: str | None = None,
        filter: FilterLike = None,
    ) -> Page:
        """All vectors, a page at a time. The order is fixed by the ids alone, so pages never overlap and never skip a vector
        that is there throughout, whatever is written meanwhile.
        """
        opening = self._now()
        limit = count_of(limit, "limit")
        found = scan.page(opening.view, opening.parse(filter), place_of(cursor), limit)
        items = [Item(vector_id, part.reader, row, opening.unpacker) for vector_id, part, row in found]
        return Page(items, items[-1].id if len(items) == limit else None)

    def by_id(self, limit: int, offset: int = 0) -> tuple[list[Item], int]:
        """(items in order of their ids from the offset-th on, how many vectors there are), both of one moment.

        Reads every id: for showing numbered pages to people. `scroll` is for reading everything.
        """
        opening = self._now()
        view = opening.view
        limit = count_of(limit, "limit")
        found = scan.by_id(view, offset, limit)
        return [Item(vector_id, part.reader, row, opening.unpacker) for vector_id, part, row in found], view.live

    def items(self, filter: FilterLike = None) -> Iterator[Item]:
        """Every item that matches, by scrolling."""
        cursor: str | None = None
        while True:
            page = self.scroll(1000, cursor, filter)
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

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
    ) -> Hits:
        """The k stored vectors most like `vector` (or like the one stored under `id`, itself left out), best first.

        vector: (dimension,). filter: only vectors whose metadata match, decided before the best k are taken. recall: share
        of the true best k to find on average, 0 < recall <= 1; 1.0 is exact. At 0.95 the index parameters efSearch and nprobe
        count instead, where the database sets them. text: words for a full-text search (BM25) over
        the declared text fields; with a vector too, both rankings are fused (fusion "rrf" or "weighted"; alpha: the vector's
        share). threshold: only hits whose score is at least this. max_distance: every hit within this distance, exactly
        (k=None: all of them). group_by: at most group_size hits for each value of that metadata field, k groups. exact,
        nprobe, candidates, ef_search: for experts, instead of recall. explain: the result's `explanation` says what was
        done. Equal scores are ordered by id.
        """
        opening = self._now()
        if (
            threshold is None
            and max_distance is None
            and text is None
            and id is None
            and k is not None
            and vector is not None
        ):
            # The common search, kept short
            request = SearchRequest(
                opening.space.prepare_query(vector), count_of(k, "k"), recall_of(recall), opening.parse(filter)
            )
        else:
            request = self._request(
                opening, vector, id, k, filter, recall, text, fusion, alpha, threshold, max_distance
            )
        if exact or nprobe is not None or candidates is not None or ef_search is not None:
            request.overrides = overrides_of(exact, nprobe, candidates, ef_search)
        elif request.recall == RECALL_DEFAULT:
            request.overrides = opening.overrides
        if group_by is not None:
            group_into(request, group_by, group_size)
        return self._run(opening, request, explain)

    def _run(self, opening: Opening, request: SearchRequest, explain: bool) -> Hits:
        explanation, started = None, 0.0
        if explain:
            explanation, started = Explanation(request.recall), time.perf_counter()
        matches = executor.search(opening.view, request, opening.analyzer, explanation)
        hits = Hits(opening.hits(matches, request), explanation)
        if explanation is not None:
            explanation.total_us = (time.perf_counter() - started) * 1e6
        return hits

    def search_batch(
        self,
        vectors: npt.ArrayLike,
        *,
        k: int = 10,
        filter: FilterLike = None,
        recall: float = 0.95,
    ) -> list[Hits]:
        """`search` for each row of vectors (m, dimension), all over the same view of the data."""
        opening = self._now()
        k, recall = count_of(k, "k"), recall_of(recall)
        node, view = opening.parse(filter), opening.view
        overrides = opening.overrides if recall == RECALL_DEFAULT else None
        results = []
        for query in opening.space.prepare_queries(vectors):
            request = SearchRequest(query, k, recall, node, overrides)
            results.append(Hits(opening.hits(executor.search(view, request, None, None), request)))
        return results

    def search_groups(
        self,
        vector: npt.ArrayLike | None = None,
        *,
        group_by: str,
        group_size: int = 1,
        id: str | None = None,
        k: int = 10,
        filter: FilterLike = None,
        recall: float = 0.95,
        text: str | None = None,
    ) -> list[Group]:
        """The best k groups: hits that share a value of the metadata field `group_by`, up to group_size each.

        Groups are in the order of their best hit; vectors without the field are left out.
        """
        opening = self._now()
        request = self._request(opening, vector, id, k, filter, recall, text, "rrf", 0.5, None, None)
        group_into(request, group_by, group_size)
        if request.recall == RECALL_DEFAULT:
            request.overrides = opening.overrides
        matches = executor.search(opening.view, request, opening.analyzer, None)
        group_of = executor.group_reader(group_by)
        groups: dict[str, Group] = {}
        for hit, match in zip(opening.hits(matches, request), matches, strict=True):
            key = group_of(match)
            assert key is not None
            groups.setdefault(key, Group(msgspec.json.decode(key), [])).hits.append(hit)
        return list(groups.values())

    def explain(self, vector: npt.ArrayLike | None = None, **options: Any) -> dict[str, Any]:
        """What `search` with the same arguments does: per segment the strategy, matches, candidates and times."""
        explanation = self.search(vector, **options, explain=True).explanation
        assert explanation is not None
        return explanation.as_dict()

    def _request(
        self,
        opening: Opening,
        vector: npt.ArrayLike | None,
        vector_id: str | None,
        k: int | None,
        filter: FilterLike,
        recall: float,
        text: str | None,
        fusion: str,
        alpha: float,
        threshold: float | None,
        max_distance: float | None,
    ) -> SearchRequest:
        if vector is not None and vector_id is not None:
            raise invalid("search takes a vector or an id, not both.")
        if vector is None and vector_id is None and text is None:
            raise invalid("search needs a vector, an id or a text.")
        if k is None and max_distance is None:
            raise invalid("k=None (all hits) goes with max_distance.")
        if k is not None:
            k = count_of(k, "k")
        recall = recall_of(recall)
        if text is not None:
            self._check_text(opening, text, fusion, alpha, threshold, max_distance)
        if vector_id is not None:
            if not isinstance(vector_id, str):
                raise invalid(f"id must be one string, got {vector_id!r:.80}.")
            item = self.get(vector_id)
            if item is None:
                raise JadeError(ErrorCode.NOT_FOUND, f"There is no vector {vector_id!r} in {self.name!r} to search by.")
            vector = item.vector
        request = SearchRequest(
            None if vector is None else opening.space.prepare_query(vector),
            k,
            recall,
            opening.parse(filter),
            text=text,
            fusion=fusion,
            alpha=alpha,
            exclude_id=vector_id,
        )
        if threshold is not None:
            request.score_min = number_of(threshold, "threshold")
            request.similarity_min = loosened(opening.space.similarity_of_score(request.score_min))
        if max_distance is not None:
            if threshold is not None:
                raise invalid("threshold and max_distance say the same thing: give one of them.")
            request.distance_max = number_of(max_distance, "max_distance")
            request.similarity_min = loosened(opening.space.similarity_of_distance(request.distance_max))
            request.within = True
        return request

    def _check_text(
        self,
        opening: Opening,
        text: str,
        fusion: str,
        alpha: float,
        threshold: float | None,
        max_distance: float | None,
    ) -> None:
        if opening.analyzer is None:
            raise JadeError(
                ErrorCode.UNKNOWN_FIELD,
                f"Database {self.name!r} declares no text field: create it with schema={{'FIELD': 'text'}} to search by text.",
            )
        if not isinstance(text, str):
            raise invalid(f"text must be a string, got {type(text).__name__}.")
        if fusion not in _FUSIONS:
            raise invalid(f"Unknown fusion {fusion!r}: use one of {', '.join(_FUSIONS)}.")
        if not 0.0 <= number_of(alpha, "alpha") <= 1.0:
            raise invalid(f"alpha must be 0 to 1 (the vector's share), got {alpha}.")
        if threshold is not None or max_distance is not None:
            raise invalid("threshold and max_distance are about vectors: they can't be combined with text.")

    # Looking after it

    def stats(self) -> Stats:
        """Rows, segments, bytes in memory and on disk, watermarks: what is true now."""
        return stats_of(self._use())

    @property
    def trouble(self) -> str:
        """Why background work can't go on, "" when it can; damage found in the files counts."""
        opening = self._opening
        if opening is None:
            return "closed"
        opened = opening.database
        error = opened.damage or opened.maintenance.trouble
        return "" if error is None else error.message

    @property
    def index_in_use(self) -> str:
        """What most rows are searched with now: the index kind of the largest segment, FLAT while none is built."""
        part = max(self._now().view.parts, key=lambda part: part.live, default=None)
        kind = "" if part is None else part.reader.index_kind
        return kind if kind and kind != "growing" else "FLAT"

    def watermarks(self) -> list[int]:
        """The newest log sequence that searches see, by shard."""
        return [int(shard.watermark) for shard in self._now().view.shards]

    def search_cost_us(self) -> float:
        """About how many microseconds a plain search takes now: ten hits, the default recall, no filter, everything in memory.

        An estimate from the sizes of segments and what their indexes are calibrated to do, not a measurement, made once for
        each state of the data: for deciding where to run a search, not for promising a time.
        """
        return self._now().search_cost_us()

    def wait_indexed(self, timeout: float | None = None) -> None:
        """Seal what is growing and return when every row so far is in an indexed segment. Raises TIMEOUT after `timeout` s.

        Searching and writing go on meanwhile. Not needed for correctness: rows are found as soon as they are written.
        """
        limit_s = timeout_of(timeout)
        self._seal(compact=False)
        self._wait_settled(limit_s)

    def compact(self, timeout: float | None = None) -> None:
        """Merge every shard into one segment without dead rows, and wait for it."""
        limit_s = timeout_of(timeout)
        self._seal(compact=True)
        self._wait_settled(limit_s)

    def _seal(self, *, compact: bool) -> None:
        with self._changes.shared():
            opening = self._now()
            if compact or not all(replica.is_settled for replica in opening.database.replicas):
                opening.writer.seal(compact=compact)

    def _wait_settled(self, limit_s: float | None) -> None:
        clock = self._use().clock
        until = None if limit_s is None else clock.monotonic_s() + limit_s
        while True:
            opening = self._now()
            try:
                left = None if until is None else until - clock.monotonic_s()
                return opening.database.maintenance.wait_settled(left)
            except JadeError as error:
                if error.code is not ErrorCode.CLOSED or not self._was_altered_since(opening):
                    raise

    def verify(self) -> None:
        """Read every file and compare checksums. Raises CORRUPT naming the first damaged file."""
        while True:
            opening = self._now()
            try:
                return opening.database.verify()
            except JadeError:
                if not self._was_altered_since(opening):
                    raise

    def digest(self) -> list[str]:
        """A fingerprint of each shard's contents: equal for databases that applied the same writes."""
        return [replica.digest() for replica in self._use().replicas]

    # Openings

    def _now(self) -> Opening:
        opening = self._opening
        if opening is None:
            raise JadeError(ErrorCode.CLOSED, f"Database {self.name!r} is closed: open its store again.")
        if opening.readable.damage is not None:
            raise opening.readable.damage
        return opening

    def _use(self) -> OpenDatabase:
        return self._now().database

    def _was_altered_since(self, opening: Opening) -> bool:
        """Whether another opening has taken the place of this one; waits for an alteration that is under way."""
        with self._changes.shared():
            return self._opening is not None and self._opening is not opening

    def _alter(self, wanted: DatabaseConfig, swap: Callable[[], None]) -> None:
        """Go over to another configuration. swap: writes it to the catalog, and calls `_reopen`.

        Readers go on with the opening they have, writers wait. Called by one thread at a time.
        """
        checked = check_before(self._now(), wanted)
        with self._changes.alone():
            prepare(self._now(), wanted, checked)
            swap()

    def _reopen(self, open_again: Callable[[], OpenDatabase]) -> None:
        """Close what is open and take what `open_again` returns in its place; what was open stays readable until then."""
        assert self._opening is not None
        self._opening.database.close()
        opened = open_again()
        self._opening, self._config = Opening(opened, self._node), opened.config

    def _close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.database.close()
