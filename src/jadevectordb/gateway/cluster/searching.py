"""Searches of a cluster's database: what is asked for, checked; the nodes' rankings, made one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.cluster import merging
from jadevectordb.gateway.cluster.reading import ClusterReader, Include, Wanted, query_bytes
from jadevectordb.gateway.cluster.rows import unpacker_of
from jadevectordb.gateway.embedded.arguments import count_of, names_of, number_of, overrides_of, recall_of
from jadevectordb.gateway.embedded.hits import Hits, Item
from jadevectordb.gateway.embedded.opening import FilterLike
from jadevectordb.index.space import VectorSpace
from jadevectordb.model import filter_parse, filters
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import K_MAX
from jadevectordb.query import merge
from jadevectordb.query.awaiting import Waits
from jadevectordb.query.plan import Match
from jadevectordb.query.question import Gathered
from jadevectordb.query.write_checks import invalid
from jadevectordb.segment.reader import SegmentReader
from jadevectordb.topology.placed import PlacedDatabase
from jadevectordb.topology.sharding import shares_one_log

Options = dict[str, object]  # of a search, as they travel; `k` and `recall` are always there


class ClusterSearches:
    """Of one database. Thread-safe."""

    def __init__(self, placed: PlacedDatabase, reader: ClusterReader) -> None:
        self._config = placed.config
        self._space = VectorSpace(placed.config.metric, placed.config.dimension)
        self._unpacker = unpacker_of(placed.config)
        self._reader = reader
        self._ids_move = shares_one_log(placed.sharding)

    def parse(self, value: FilterLike) -> Filter | None:
        return None if value is None else filter_parse.parse(value, self._config.schema)

    def options(
        self,
        k: int | None,
        filter: FilterLike,
        recall: float,
        threshold: float | None,
        max_distance: float | None,
        exact: bool,
        nprobe: int | None,
        candidates: int | None,
        ef_search: int | None,
        group_by: str | None,
        group_size: int,
    ) -> Options:
        """What the nodes are told, checked as far as the configuration tells. Raises INVALID_ARGUMENT, INVALID_FILTER."""
        if k is None and max_distance is None:
            raise invalid("k=None (all hits) goes with max_distance.")
        if threshold is not None and max_distance is not None:
            raise invalid("threshold and max_distance say the same thing: give one of them.")
        options: Options = {"k": None if k is None else count_of(k, "k"), "recall": recall_of(recall)}
        node = self.parse(filter)
        if node is not None:
            options["filter"] = filters.to_json(node)
        for name, value in (("threshold", threshold), ("max_distance", max_distance)):
            if value is not None:
                options[name] = number_of(value, name)
        if exact or nprobe is not None or candidates is not None or ef_search is not None:
            overrides_of(exact, nprobe, candidates, ef_search)
            by_hand = {"exact": exact, "nprobe": nprobe, "candidates": candidates, "ef_search": ef_search}
            options.update({name: value for name, value in by_hand.items() if value})
        if group_by is not None:
            if k is None:
                raise invalid("group_by needs k, the number of groups.")
            if not isinstance(group_by, str) or not group_by:
                raise invalid(
                    f"group_by names a metadata field, or a path such as 'author.name'; got {group_by!r:.80}."
                )
            options["group_by"], options["group_size"] = group_by, count_of(group_size, "group_size")
        return options

    async def search(
        self,
        vector: npt.ArrayLike | None,
        vector_id: str | None,
        options: Options,
        include: Include,
        explain: bool,
        wanted: Wanted,
    ) -> Hits:
        """By a vector, or by the one stored under an id, which is left out. options: from `options`."""
        if (vector is None) == (vector_id is None):
            raise invalid("search takes a vector or an id, one of them.")
        if vector_id is not None:
            name = vector_id
            vector = await Waits(lambda: self.vector_of(name, wanted))
        assert vector is not None
        started_s = self._reader.now_s()
        query = self.query_of(vector)
        if "group_by" in options:
            gathered, matches = await self._groups(query, options, include, explain, vector_id, wanted)
        else:
            k = options["k"]
            assert k is None or isinstance(k, int)
            told = options if vector_id is None or k is None else {**options, "k": min(K_MAX, k + 1)}
            gathered = await self._reader.search(query, told, include, explain, wanted)
            matches = merging.best(self._ranked(gathered), k, vector_id)
        hits, missing = merging.hits_of(matches, self._unpacker), tuple(sorted(gathered.missing))
        if not explain:
            return Hits(hits, missing_shards=missing)
        recall = options["recall"]
        assert isinstance(recall, float)
        total_us = (self._reader.now_s() - started_s) * 1e6
        explanation = merging.explanation_of(gathered, recall, total_us)
        explanation.visit = self._reader.visit(query, options)
        return Hits(hits, explanation, missing)

    def search_each(self, vectors: npt.ArrayLike, options: Options, include: Include, wanted: Wanted) -> list[Hits]:
        """For each row of vectors (m, dimension)."""
        self._space.prepare_queries(vectors)
        rows = np.asarray(vectors)
        rows = rows.reshape(1, -1) if rows.ndim == 1 else rows
        queries = [query_bytes(row, self._config.metric) for row in rows]
        k = options["k"]
        assert isinstance(k, int)
        return [
            Hits(merging.hits_of(merging.best(self._ranked(one), k, None), self._unpacker))
            for one in self._reader.search_each(queries, options, include, wanted)
        ]

    async def _groups(
        self, query: bytes, options: Options, include: Include, explain: bool, exclude: str | None, wanted: Wanted
    ) -> tuple[Gathered, list[Match]]:
        k, group_size, group_by = options["k"], options["group_size"], options["group_by"]
        assert isinstance(k, int) and isinstance(group_size, int) and isinstance(group_by, str)
        include = ("metadata", "vector") if "vector" in include else ("metadata",)  # groups are told apart by it
        extra = exclude is not None
        for asked in merging.group_counts(k + extra):
            told = {**options, "k": asked, "group_size": min(K_MAX, group_size + extra)}
            gathered = await self._reader.search(query, told, include, explain, wanted)
            lists = self._ranked(gathered)
            matches, is_sure = merging.grouped(lists, asked, k, group_size, group_by, exclude)
            if is_sure:
                break
        return gathered, matches

    def _ranked(self, gathered: Gathered) -> list[list[Match]]:
        lists = merging.ranked(gathered.answers, self._reader.rows_of)
        return merge.newest(lists) if self._ids_move else lists

    def query_of(self, vector: npt.ArrayLike) -> bytes:
        """A vector as it travels. Raises DIMENSION_MISMATCH, INVALID_VECTOR."""
        given = np.asarray(vector)
        if given.ndim == 2 and len(given) == 1:
            given = given[0]
        self._space.prepare_query(given)
        return query_bytes(given, self._config.metric)

    def public_score(self, similarity: float) -> float:
        return self._space.public_score(similarity)

    def item(self, vector_id: str, rows: SegmentReader, row: int) -> Item:
        return Item(vector_id, rows, row, self._unpacker)

    def vector_of(self, vector_id: str, wanted: Wanted) -> npt.ArrayLike:
        """Raises NOT_FOUND, INVALID_ARGUMENT."""
        if not isinstance(vector_id, str):
            raise invalid(f"id must be one string, got {vector_id!r:.80}.")
        item = self._reader.find(names_of(vector_id), wanted)[0]
        if item is None:
            raise JadeError(
                ErrorCode.NOT_FOUND, f"There is no vector {vector_id!r} in {self._config.name!r} to search by."
            )
        return item.vector


def not_yet(what: str) -> JadeError:
    return JadeError(ErrorCode.NOT_IMPLEMENTED, f"A cluster does not offer {what} yet; a single node does.")
