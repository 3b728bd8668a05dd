"""A database as a Python program sees it: numpy in, hits out. Every method may be called from many threads at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any, overload

import numpy.typing as npt

from jadevectordb.gateway.embedded.arguments import (
    count_of,
    group_into,
    names_of,
    overrides_of,
    place_of,
    recall_of,
    timeout_of,
)
from jadevectordb.gateway.embedded.hits import Group, Hits, Item, Page
from jadevectordb.gateway.embedded.opening import FilterLike, Opening
from jadevectordb.gateway.embedded.openings import Openings
from jadevectordb.gateway.embedded.searching import groups_of, hits_of, hits_of_each, request_of
from jadevectordb.gateway.embedded.stats import Stats, stats_of
from jadevectordb.index.api import RECALL_DEFAULT
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import JadeError
from jadevectordb.model.ids import NodeId
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.readable import ReadableDatabase
from jadevectordb.query import scan
from jadevectordb.query.plan import SearchRequest
from jadevectordb.query.write_checks import check_ids, invalid
from jadevectordb.query.writer import WriteResult

MetadataLike = Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any]  # bytes: a JSON object


class Database:
    """Made by `Store.create_database` and `Store.database`."""

    def __init__(self, opened: ReadableDatabase, node: NodeId) -> None:
        self._openings = Openings(opened, node)

    # What it is

    @property
    def name(self) -> str:
        return self._openings.config.name

    @property
    def dimension(self) -> int:
        return self._openings.config.dimension

    @property
    def metric(self) -> str:
        return str(self._openings.config.metric)

    @property
    def config(self) -> DatabaseConfig:
        return self._openings.config

    def __repr__(self) -> str:
        state = "closed" if self._openings.current is None else f"{self.count()} vectors"
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
        with self._openings.writing() as opening:
            return opening.writer.upsert(ids, vectors, metadata, if_version, request_id)

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
        with self._openings.writing() as opening:
            return opening.writer.update(names, metadata, merge, if_version, request_id)

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
            with self._openings.writing() as opening:
                return opening.writer.delete([ids] if isinstance(ids, str) else ids, if_version, request_id)
        if if_version is not None:
            raise invalid("if_version goes with ids, not with a filter.")
        with self._openings.writing() as opening:
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
        items = self._now().find(names_of(ids))
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
        items = opening.items(found)
        return Page(items, items[-1].id if len(items) == limit else None)

    def by_id(self, limit: int, offset: int = 0) -> tuple[list[Item], int]:
        """(items in order of their ids from the offset-th on, how many vectors there are), both of one moment.

        Reads every id: for showing numbered pages to people. `scroll` is for reading everything.
        """
        opening = self._now()
        view = opening.view
        limit = count_of(limit, "limit")
        return opening.items(scan.by_id(view, offset, limit)), view.live

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
            request = request_of(
                opening, vector, vector_id=id, k=k, filter=filter, recall=recall, text=text, fusion=fusion, alpha=alpha,
                threshold=threshold, max_distance=max_distance,
            )  # fmt: skip
        if exact or nprobe is not None or candidates is not None or ef_search is not None:
            request.overrides = overrides_of(exact, nprobe, candidates, ef_search)
        elif request.recall == RECALL_DEFAULT:
            request.overrides = opening.overrides
        if group_by is not None:
            group_into(request, group_by, group_size)
        return hits_of(opening, request, explain)

    def search_batch(
        self,
        vectors: npt.ArrayLike,
        *,
        k: int = 10,
        filter: FilterLike = None,
        recall: float = 0.95,
    ) -> list[Hits]:
        """`search` for each row of vectors (m, dimension), all over the same view of the data."""
        return hits_of_each(self._now(), vectors, k, filter, recall)

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
        request = request_of(opening, vector, vector_id=id, k=k, filter=filter, recall=recall, text=text)
        group_into(request, group_by, group_size)
        if request.recall == RECALL_DEFAULT:
            request.overrides = opening.overrides
        return groups_of(opening, request, group_by)

    def explain(self, vector: npt.ArrayLike | None = None, **options: Any) -> dict[str, Any]:
        """What `search` with the same arguments does: per segment the strategy, matches, candidates and times."""
        explanation = self.search(vector, **options, explain=True).explanation
        assert explanation is not None
        return explanation.as_dict()

    # Looking after it

    def stats(self) -> Stats:
        """Rows, segments, bytes in memory and on disk, watermarks: what is true now."""
        return stats_of(self._use())

    @property
    def trouble(self) -> str:
        """Why background work can't go on, "" when it can; damage found in the files counts."""
        opening = self._openings.current
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
        self.wait_settled(self.seal(compact=False), limit_s)

    def compact(self, timeout: float | None = None) -> None:
        """Merge every shard into one segment without dead rows, and wait for it."""
        limit_s = timeout_of(timeout)
        self.wait_settled(self.seal(compact=True), limit_s)

    def verify(self) -> None:
        """Read every file and compare checksums. Raises CORRUPT naming the first damaged file."""
        self._openings.verify()

    def digest(self) -> list[str]:
        """A fingerprint of each shard's contents: equal for databases that applied the same writes."""
        return [replica.digest() for replica in self._use().replicas]

    # For those who look inside

    is_clustered = False  # reads and writes take no consistency: each sees every write that was answered

    def background_trouble(self) -> JadeError | None:
        """Why background work can't go on. Raises the damage found in the files."""
        return self._use().maintenance.trouble

    def seal(self, *, compact: bool) -> Mapping[int, int]:
        """Ask for what is growing to be sealed, or for one segment a shard; what to give to `wait_settled`."""
        self._openings.seal(compact=compact)
        return {}  # a write is applied when it returns

    def wait_settled(self, sequences: Mapping[int, int], limit_s: float | None) -> None:
        """Until background work has nothing to do. Raises TIMEOUT after limit_s seconds, and what keeps it from going on."""
        self._openings.wait_settled(limit_s)

    def _now(self) -> Opening:
        return self._openings.now()

    def _use(self) -> OpenDatabase:
        return self._now().database
