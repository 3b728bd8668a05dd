"""One opening of a database: its inside, with what calls need of it made once.

A database object outlives its openings: altering it replaces one by the next. A call takes the opening at its start and
stays with it, so that it never sees half of each; a view that a search holds stays readable after its opening was closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jadevectordb.gateway.embedded.hits import Hit, Item, Unpacker
from jadevectordb.index.api import SearchOverrides
from jadevectordb.index.space import VectorSpace
from jadevectordb.model import filter_parse
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.ids import NodeId
from jadevectordb.model.metric import Metric
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.readable import ReadableDatabase
from jadevectordb.query.plan import Match, SearchRequest
from jadevectordb.query.writer import Writer
from jadevectordb.shard.view import DatabaseView, Part

FilterLike = Filter | Mapping[str, Any] | None
_NO_OVERRIDES = SearchOverrides()
_PARTS_LOOKED_AT_MAX = 64
_SEARCH_US = 12.0  # a search over nothing,
_PART_US = 10.0  # and for each part what its index does not count: its call, its hits, the merge


class Opening:
    __slots__ = (
        "_cost",
        "_score_is_similarity",
        "_writer",
        "analyzer",
        "config",
        "overrides",
        "readable",
        "space",
        "unpacker",
    )

    def __init__(self, database: ReadableDatabase, node: NodeId) -> None:
        self.readable = database
        self.config = database.config
        self.space = database.space
        self.analyzer = database.analyzer
        self.unpacker = Unpacker(database.config.metric, database.config.dimension)
        self._writer = Writer(database, node) if isinstance(database, OpenDatabase) else None
        # Under cosine and dot a similarity is its score: the conversion is skipped where every microsecond counts
        self._score_is_similarity = database.config.metric in (Metric.COSINE, Metric.DOT)
        given = database.config.index_parameters
        ef_search, nprobe = given.get("efSearch"), given.get("nprobe")
        # How far to look where a search does not say what it wants; None: as calibrated.
        self.overrides = (
            None if ef_search is None and nprobe is None else SearchOverrides(nprobe=nprobe, ef_search=ef_search)
        )
        self._cost: tuple[DatabaseView, float] | None = None

    @property
    def view(self) -> DatabaseView:
        return self.readable.view

    @property
    def database(self) -> OpenDatabase:
        """Raises READ_ONLY where the database is only followed."""
        if not isinstance(self.readable, OpenDatabase):
            raise _only_followed()
        return self.readable

    @property
    def writer(self) -> Writer:
        """Raises READ_ONLY where the database is only followed."""
        if self._writer is None:
            raise _only_followed()
        return self._writer

    def parse(self, value: FilterLike) -> Filter | None:
        return None if value is None else filter_parse.parse(value, self.config.schema)

    def hits(self, matches: list[Match], request: SearchRequest) -> list[Hit]:
        """What the matches of a request are to a caller."""
        unpacker, public = self.unpacker, self.space.public_score
        if request.similarity_min is not None:
            matches = _within_limits(self.space, matches, request)
        if self._score_is_similarity or request.text is not None:
            return [Hit(score, vector_id, segment, row, unpacker) for score, vector_id, segment, row in matches]
        return [Hit(public(score), vector_id, segment, row, unpacker) for score, vector_id, segment, row in matches]

    def find(self, names: list[str]) -> list[Item | None]:
        """The item stored under each id now, None where there is none."""
        found: list[Item | None] = [None] * len(names)
        for shard in self.view.shards:
            for i, where in enumerate(shard.locate(names)):
                if where is not None:
                    found[i] = Item(names[i], where[0].reader, where[1], self.unpacker)
        return found

    def items(self, found: list[tuple[str, Part, int]]) -> list[Item]:
        """What a scan found, (id, where, row) each, is to a caller."""
        return [Item(vector_id, part.reader, row, self.unpacker) for vector_id, part, row in found]

    def search_cost_us(self) -> float:
        view = self.readable.view
        known = self._cost
        if known is None or known[0] is not view:
            known = self._cost = view, self._estimate_us(view)
        return known[1]

    def _estimate_us(self, view: DatabaseView) -> float:
        parts, overrides = view.parts, self.overrides or _NO_OVERRIDES
        cost_us = _SEARCH_US + _PART_US * len(parts)
        if len(parts) > _PARTS_LOOKED_AT_MAX:  # slow for sure; to say how slow would itself take too long
            return cost_us + _PART_US * len(parts)
        for part in parts:
            cost_us += part.reader.cost_us(overrides, has_dead=part.alive is not None)
        return cost_us


def _only_followed() -> JadeError:
    return JadeError(
        ErrorCode.READ_ONLY, "This process only reads the database: another one writes it and looks after it."
    )


def _within_limits(space: VectorSpace, matches: list[Match], request: SearchRequest) -> list[Match]:
    """The limits as the caller said them: turned into a similarity and back, a hit's own score could miss itself."""
    return [
        match
        for match in matches
        if (request.score_min is None or space.public_score(match[0]) >= request.score_min)
        and (request.distance_max is None or space.distance(match[0]) <= request.distance_max)
    ]
