"""A database of a cluster as handlers see it: the same calls as `Database`, over all its shards wherever they are.

Beside them: `consistency` on reads (session, strong, eventual) and writes (quorum, strong, eventual), `seen` (what the session has
seen, which a read raises), `allow_partial` and `timeout` on reads. What a cluster can't do yet raises NOT_IMPLEMENTED and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any, overload

import msgspec
import numpy.typing as npt

from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.reading import ClusterReader, Include, Wanted
from jadevectordb.gateway.cluster.searching import ClusterSearches, not_yet
from jadevectordb.gateway.cluster.tended import TendedDatabase
from jadevectordb.gateway.cluster.text_searching import TextSearches
from jadevectordb.gateway.cluster.words import ClusterWords
from jadevectordb.gateway.embedded.arguments import (
    count_of,
    names_of,
    place_of,
)
from jadevectordb.gateway.embedded.database import MetadataLike
from jadevectordb.gateway.embedded.hits import Group, Hits, Item, Page
from jadevectordb.gateway.embedded.opening import FilterLike
from jadevectordb.model.database import same_config
from jadevectordb.model.limits import BY_ID_ROWS_MAX, READ_S_MAX
from jadevectordb.query import executor
from jadevectordb.query.awaiting import Waits, waiting
from jadevectordb.query.cluster_writer import ClusterWriter
from jadevectordb.query.levels import write_level
from jadevectordb.query.seen import SeenSequences
from jadevectordb.query.write_checks import check_ids, invalid
from jadevectordb.query.writer import WriteResult
from jadevectordb.segment.reader import SegmentReader
from jadevectordb.topology.placed import PlacedDatabase

_NOTHING_SEEN: Mapping[int, int] = {}


class ClusterDatabase(TendedDatabase):
    """Made by `ClusterStore`. Every method may be called from many threads at once."""

    is_clustered = True  # what tells handlers that reads and writes take a consistency

    def __init__(
        self, placed: PlacedDatabase, mirror: ClusterMirror, reader: ClusterReader, writer: ClusterWriter
    ) -> None:
        super().__init__(placed, mirror, reader, writer)
        self._searches = ClusterSearches(placed, reader)
        self.words = ClusterWords(placed.config, reader)
        self._text_searches = TextSearches(placed.config, reader, self._searches, self.words)

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
        *,
        consistency: str = "quorum",
        atomic: bool = False,
        allow_partial: bool = False,
        seen: Mapping[int, int] = _NOTHING_SEEN,
    ) -> WriteResult:
        """As `Database.upsert`, all or nothing within each shard.

        When some shards' part failed and others' not, this raises with `details` naming the ids that failed; allow_partial: the result's
        `failures` do. atomic: refused when the vectors lie in several shards. seen: the sequences of a session token: what a write at
        EVENTUAL came after, beside what this node knows itself.
        """
        self._check_open()
        level = write_level(consistency)
        return self._writer.upsert(
            ids,
            vectors,
            metadata,
            if_version,
            request_id,
            level,
            atomic=atomic,
            partial=allow_partial,
            seen=seen,
        )

    def update_metadata(
        self,
        ids: str | Iterable[str],
        metadata: MetadataLike,
        *,
        merge: bool = True,
        if_version: Seq[int | None] | int | None = None,
        request_id: str = "",
        consistency: str = "quorum",
        atomic: bool = False,
        allow_partial: bool = False,
        seen: Mapping[int, int] = _NOTHING_SEEN,
    ) -> WriteResult:
        """As `Database.update_metadata`, with the options of `upsert`."""
        self._check_open()
        level = write_level(consistency)
        names = check_ids([ids] if isinstance(ids, str) else ids)
        if isinstance(metadata, Mapping):
            metadata = [metadata] * len(names)
        return self._writer.update(
            names,
            metadata,
            merge,
            if_version,
            request_id,
            level,
            atomic=atomic,
            partial=allow_partial,
            seen=seen,
        )

    def delete(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        filter: FilterLike = None,
        if_version: Seq[int | None] | int | None = None,
        request_id: str = "",
        consistency: str = "quorum",
        atomic: bool = False,
        allow_partial: bool = False,
        seen: Mapping[int, int] = _NOTHING_SEEN,
    ) -> WriteResult:
        """As `Database.delete`, with the options of `upsert`. By a filter each shard decides for itself at its place in its log."""
        self._check_open()
        level = write_level(consistency)
        if (ids is None) == (filter is None):
            raise invalid("delete takes either ids or a filter.")
        if ids is not None:
            names = [ids] if isinstance(ids, str) else ids
            return self._writer.delete(
                names, if_version, request_id, level, atomic=atomic, partial=allow_partial, seen=seen
            )
        if if_version is not None:
            raise invalid("if_version goes with ids, not with a filter.")
        node = self._searches.parse(filter)
        if node is None:
            raise invalid("An empty filter would delete everything: drop the database instead, or name what to delete.")
        if atomic and self.config.shards > 1:
            raise not_yet("deleting by a filter in all shards at one moment")
        return self._writer.delete_where(node, request_id, level, seen)

    # Reading by id

    @overload
    def get(  # type: ignore[overload-overlap]  # a str is no list of ids here
        self, ids: str, *, consistency: str = ..., seen: SeenSequences | None = ..., timeout: float = ...
    ) -> Item | None: ...
    @overload
    def get(
        self, ids: Iterable[str], *, consistency: str = ..., seen: SeenSequences | None = ..., timeout: float = ...
    ) -> list[Item | None]: ...
    def get(
        self,
        ids: str | Iterable[str],
        *,
        consistency: str = "session",
        seen: SeenSequences | None = None,
        timeout: float = READ_S_MAX,
    ) -> Item | list[Item | None] | None:
        """One item (None when there is none), or a list as long as the ids given."""
        wanted = self.wanted(consistency, seen, timeout)
        items = self._reader.find(names_of(ids), wanted)
        return items[0] if isinstance(ids, str) else items

    @overload
    def exists(  # type: ignore[overload-overlap]  # a str is no list of ids here
        self, ids: str, *, consistency: str = ..., seen: SeenSequences | None = ..., timeout: float = ...
    ) -> bool: ...
    @overload
    def exists(
        self, ids: Iterable[str], *, consistency: str = ..., seen: SeenSequences | None = ..., timeout: float = ...
    ) -> list[bool]: ...
    def exists(
        self,
        ids: str | Iterable[str],
        *,
        consistency: str = "session",
        seen: SeenSequences | None = None,
        timeout: float = READ_S_MAX,
    ) -> bool | list[bool]:
        """Whether each id is stored."""
        wanted = self.wanted(consistency, seen, timeout)
        found = [item is not None for item in self._reader.find(names_of(ids), wanted, vectors=False)]
        return found[0] if isinstance(ids, str) else found

    def count(
        self,
        filter: FilterLike = None,
        *,
        consistency: str = "session",
        seen: SeenSequences | None = None,
        allow_partial: bool = False,
        timeout: float = READ_S_MAX,
    ) -> int:
        """Exactly how many vectors there are, or match, in each shard at some moment of the call."""
        wanted = self.wanted(consistency, seen, timeout, allow_partial)
        return self._reader.count(self._searches.parse(filter), wanted)

    def scroll(
        self,
        limit: int = 1000,
        cursor: str | None = None,
        filter: FilterLike = None,
        *,
        vectors: bool = False,
        consistency: str = "session",
        seen: SeenSequences | None = None,
        timeout: float = READ_S_MAX,
    ) -> Page:
        """As `Database.scroll`. vectors: send them along; without it they are fetched when they are looked at."""
        wanted = self.wanted(consistency, seen, timeout)
        limit = count_of(limit, "limit")
        place_of(cursor)  # raises for what no page gave
        items = self._reader.scroll(limit, cursor or "", self._searches.parse(filter), wanted, vectors=vectors)
        return Page(items, items[-1].id if len(items) == limit else None)

    def by_id(self, limit: int, offset: int = 0, **reading: Any) -> tuple[list[Item], int]:
        """As `Database.by_id`, of databases of up to BY_ID_ROWS_MAX vectors: every vector's id has to come here for it.

        reading: consistency, seen, timeout (of each step).
        """
        reading.setdefault("seen", SeenSequences())
        limit, count = count_of(limit, "limit"), self.count(**reading)
        if count > BY_ID_ROWS_MAX:
            raise not_yet(f"numbered pages over more than {BY_ID_ROWS_MAX:,} vectors (scroll goes through all of them)")
        items = sorted(self.items(**reading), key=lambda item: item.id)
        return items[offset : offset + limit], len(items)

    def items(self, filter: FilterLike = None, **reading: Any) -> Iterator[Item]:
        """Every item that matches, by scrolling. reading: consistency, seen, timeout (of each step)."""
        reading.setdefault("seen", SeenSequences())
        cursor: str | None = None
        while True:
            page = self.scroll(1000, cursor, filter, **reading)
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    # Searching

    async def searching(
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
        include: Include = ("metadata",),
        consistency: str = "session",
        seen: SeenSequences | None = None,
        allow_partial: bool = False,
        timeout: float = READ_S_MAX,
    ) -> Hits:
        """As `Database.search`. include: what comes with the hits; the rest is fetched when it is looked at.

        allow_partial: the answer may lack shards that nobody answers for; its `missing_shards` names them.
        """
        wanted = self.wanted(consistency, seen, timeout, allow_partial)
        options = self._searches.options(
            k, filter, recall, threshold, max_distance, exact, nprobe, candidates, ef_search, group_by, group_size
        )
        if text is not None:
            words = text
            by_words: Waits[Hits] = Waits(
                lambda: self._text_searches.search(vector, id, words, fusion, alpha, options, include, explain, wanted)
            )
            return await by_words
        return await self._searches.search(vector, id, options, include, explain, wanted)

    search = waiting(searching)  # for who may wait in a thread

    @property
    def is_in_gateway(self) -> bool:
        """Whether `searching` can be carried out in the loop that serves clients, without a thread."""
        return self._reader.is_in_gateway

    def search_batch(
        self,
        vectors: npt.ArrayLike,
        *,
        k: int = 10,
        filter: FilterLike = None,
        recall: float = 0.95,
        include: Include = ("metadata",),
        consistency: str = "session",
        seen: SeenSequences | None = None,
        timeout: float = READ_S_MAX,
    ) -> list[Hits]:
        """`search` for each row of vectors (m, dimension)."""
        wanted = self.wanted(consistency, seen, timeout)
        options = self._searches.options(k, filter, recall, None, None, False, None, None, None, None, 1)
        return self._searches.search_each(vectors, options, include, wanted)

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
        **reading: Any,
    ) -> list[Group]:
        """As `Database.search_groups`. reading: include, consistency, seen, allow_partial, timeout."""
        hits = self.search(
            vector,
            id=id,
            k=k,
            filter=filter,
            recall=recall,
            text=text,
            group_by=group_by,
            group_size=group_size,
            **reading,
        )
        group_of = executor.group_reader(group_by)
        groups: dict[str, Group] = {}
        for hit in hits:
            key = group_of((hit.score, hit.id, hit._segment, hit._row))
            assert key is not None
            groups.setdefault(key, Group(msgspec.json.decode(key), [])).hits.append(hit)
        return list(groups.values())

    def explain(self, vector: npt.ArrayLike | None = None, **options: Any) -> dict[str, Any]:
        """What `search` with the same arguments does, node by node."""
        explanation = self.search(vector, **options, explain=True).explanation
        assert explanation is not None
        return explanation.as_dict()

    # For those who look inside

    def reconfigure(self, placed: PlacedDatabase) -> None:
        """The database is configured otherwise from now on. What is under way goes on as it began."""
        if placed == self.placed and same_config(placed.config, self.config):
            return
        self._writer.reconfigure(placed)
        searches = ClusterSearches(placed, self._reader)
        words = ClusterWords(placed.config, self._reader)
        self._searches, self.words = searches, words
        self._text_searches = TextSearches(placed.config, self._reader, searches, words)
        self.placed = placed

    def query_of(self, vector: npt.ArrayLike) -> bytes:
        """A query vector as nodes are asked with it. Raises DIMENSION_MISMATCH, INVALID_VECTOR."""
        return self._searches.query_of(vector)

    def public_score(self, similarity: float) -> float:
        """What callers see of a similarity as nodes tell it."""
        return self._searches.public_score(similarity)

    def item(self, vector_id: str, rows: SegmentReader, row: int) -> Item:
        """A row of an answer as callers see it."""
        return self._searches.item(vector_id, rows, row)

    def items_of(self, names: Seq[str], wanted: Wanted) -> list[Item | None]:
        """As `get`, without vectors until they are looked at."""
        return self._reader.find(names, wanted, vectors=False)
