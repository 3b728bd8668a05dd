"""Reads of a database whose vectors decide their shard: each id may be in any of them, and may go from one to another while it is read.

All shards follow one log, so every view of a shard stands at a sequence of the same count, and versions of one id compare across
shards. A row that is alive in some shard's view is what the id was at that sequence. An id that no view shows needs care: its
row may have left one shard before that shard was looked at, and reached another after. Shards tell what left them
(`shard.departures`), and:

    shown by a view            that; of several the newest
    left for another shard     that shard is asked, once it has applied the move
    shown by none              it is not stored, once that is certain (`query.absence`)

The read is of the moment of its barrier at STRONG, of what was seen at SESSION. At EVENTUAL the first answers count. A count adds up what
each shard has at its own moment: exact when nothing moves meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import NoReturn

import msgspec
import numpy as np

from jadevectordb.gateway.cluster.reading import ClusterReader, Include, Wanted, pieces_of
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.index.space import VectorSpace
from jadevectordb.model import filters
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import K_MAX
from jadevectordb.ports.node_calls import Asked, Get, Items, Scroll, Search
from jadevectordb.query.absence import to_be_seen
from jadevectordb.query.barriers import Barriers
from jadevectordb.query.fan_out import FanOut
from jadevectordb.query.levels import ReadLevel
from jadevectordb.query.question import Gathered, Question
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.cells import CellMap, Visit
from jadevectordb.topology.placed import PlacedDatabase

_TRIES = 6  # each needs another move at the wrong moment
_QUESTIONS_AT_ONCE = 16
_SPARE_HITS = 8  # beside the k: rows that turn out to be older ones of ids that moved
_PLAIN = frozenset({"k", "recall", "threshold"})  # options of a search that few shards can answer


class MovingReader(ClusterReader):
    """As `ClusterReader`. cells: of the database. Thread-safe."""

    def __init__(self, placed: PlacedDatabase, fan_out: FanOut, barriers: Barriers, cells: CellMap) -> None:
        super().__init__(placed, fan_out, barriers)
        self._cells = cells
        self._space = VectorSpace(placed.config.metric, placed.config.dimension)

    # Searching

    def visit(self, query: bytes, options: Mapping[str, object]) -> Visit:
        """The shards that a search has to visit."""
        recall, k = options.get("recall"), options.get("k")
        assert isinstance(recall, float)
        others = sorted(options.keys() - _PLAIN)
        if not isinstance(k, int):
            return Visit(self._shards, recall, 0, "all within a distance are wanted")
        if others:
            return Visit(self._shards, recall, 0, f"{others[0]} takes all shards")
        if recall >= 1.0:
            return Visit(self._shards, recall, 0, "recall 1 takes all")
        return self._cells.visit(self._space.prepare_query(np.frombuffer(query, "<f4")), k, recall)

    async def search(
        self, query: bytes, options: dict[str, object], include: Include, explain: bool, wanted: Wanted
    ) -> Gathered:
        visit = self.visit(query, options)
        make = _search_call(query, _told(options, visit), include, explain)
        return await self._search(visit.shards, make, wanted)

    def search_each(
        self, queries: Iterable[bytes], options: dict[str, object], include: Include, wanted: Wanted
    ) -> list[Gathered]:
        at_least = self._at_least(self._shards, wanted)
        questions = []
        for query in queries:
            visit = self.visit(query, options)
            make = _search_call(query, _told(options, visit), include)
            questions.append(self._question(visit.shards, make, wanted, self._search_hedging, at_least))
        return self._some_at_once(questions, wanted)

    def _at_least(self, shards: Iterable[int], wanted: Wanted) -> Mapping[int, int]:
        """What a session has seen of one shard it has seen of all: they follow one log, and an older row in another is not the id's."""
        if wanted.level is ReadLevel.SESSION and wanted.seen:
            return dict.fromkeys(shards, max(wanted.seen.values()))
        return super()._at_least(shards, wanted)

    def _some_at_once(self, questions: list[Question], wanted: Wanted) -> list[Gathered]:
        found = []
        for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
            found += self._answers(questions[start : start + _QUESTIONS_AT_ONCE], wanted)
        return found

    # By words: counts over all shards would have to be of one moment

    def ask(self, *call: object) -> NoReturn:
        raise _no_words()

    def ask_about(self, *call: object) -> NoReturn:
        raise _no_words()

    # By id

    def find(self, names: Seq[str], wanted: Wanted, *, vectors: bool = True) -> list[Item | None]:
        found: dict[str, Item] = {}
        for some in pieces_of(list(dict.fromkeys(names)), max(1, self._vector_rows // 2) if vectors else len(names)):
            self._find(some, wanted, vectors, found)
        return [found.get(name) for name in names]

    def _find(self, names: list[str], wanted: Wanted, vectors: bool, found: dict[str, Item]) -> None:
        at_least = dict(self._at_least(self._shards, wanted))
        for _ in range(_TRIES):
            answers = self._get(names, wanted, at_least, vectors)
            for answer in answers:
                self._keep(answer, found)
            names = [name for name in names if name not in found]
            if not names or wanted.level is ReadLevel.EVENTUAL:
                return
            more = to_be_seen(
                names,
                [one for answer in answers for one in answer.departed],
                max(answer.forgotten for answer in answers),
                {shard: sequence for answer in answers for shard, sequence in answer.watermarks},
                min(at_least.get(shard, 0) for shard in self._shards),
            )
            if not more:
                return
            at_least |= {shard: max(sequence, at_least.get(shard, 0)) for shard, sequence in more.items()}
        raise _moving(names[0])

    def _get(self, names: Seq[str], wanted: Wanted, at_least: Mapping[int, int], vectors: bool) -> list[Items]:
        ids = tuple(names)

        def make(asked: Asked) -> Get:
            return Get(asked=asked, ids=ids, vectors=vectors)

        hedging = self._row_hedging if len(ids) < 100 else None
        gathered = self._answer(self._question(self._shards, make, wanted, hedging, at_least), wanted)
        return [one.answer for one in gathered.answers]

    def _keep(self, answer: Items, found: dict[str, Item]) -> None:
        """The newest row of each id."""
        rows = self.rows_of(answer)
        for row, name in enumerate(answer.ids):
            if name not in found or found[name].version < answer.versions[row]:
                found[name] = Item(name, rows, row, self._unpacker)

    # All of them

    def scroll(self, limit: int, after: str, node: Filter | None, wanted: Wanted, *, vectors: bool) -> list[Item]:
        del vectors  # each shard may answer with the whole page: vectors are fetched for those that are kept
        at_least = dict(self._at_least(self._shards, wanted))
        for _ in range(_TRIES):
            items, watermarks = self._page(limit, after, node, wanted, at_least)
            if wanted.level is ReadLevel.EVENTUAL or not self._has_lost(items, limit, after, watermarks, wanted):
                return items
            at_least = dict.fromkeys(self._shards, max(watermarks.values()))
        raise _moving("of this page")

    def _page(
        self, limit: int, after: str, node: Filter | None, wanted: Wanted, at_least: Mapping[int, int]
    ) -> tuple[list[Item], dict[int, int]]:
        """The next items, and the earliest sequence at which each shard was seen."""
        condition = b"" if node is None else filters.to_json(node)
        items: list[Item] = []
        watermarks: dict[int, int] = {}
        while True:
            answers = self._pages_of_shards(limit, after, condition, wanted, at_least)
            newest: dict[str, Item] = {}
            for answer in answers:
                self._keep(answer, newest)
                for shard, sequence in answer.watermarks:
                    watermarks[shard] = min(sequence, watermarks.get(shard, sequence))
            # Beyond where a shard's full page ends, that shard may have more
            ends = [_place(answer.ids[-1]) for answer in answers if len(answer.ids) == limit]
            end = min(ends, default=None)
            ordered = sorted((_place(name), item) for name, item in newest.items())
            items += [item for place, item in ordered if end is None or place <= end]
            if end is None or len(items) >= limit:
                return items[:limit], watermarks
            after = end[1]

    def _pages_of_shards(
        self, limit: int, after: str, condition: bytes, wanted: Wanted, at_least: Mapping[int, int]
    ) -> list[Items]:
        def make(asked: Asked) -> Scroll:
            return Scroll(asked=asked, after=after, limit=limit, filter=condition)

        questions = [self._question((shard,), make, wanted, None, at_least) for shard in self._shards]
        return [one.answer for gathered in self._some_at_once(questions, wanted) for one in gathered.answers]

    def _has_lost(
        self, items: list[Item], limit: int, after: str, watermarks: Mapping[int, int], wanted: Wanted
    ) -> bool:
        """Whether something between the page's ends may have left one shard before it was seen, and reached another after."""
        earliest = min(watermarks.values())
        ahead = tuple(shard for shard, sequence in watermarks.items() if sequence > earliest)
        if not ahead:
            return False

        def make(asked: Asked) -> Get:
            return Get(asked=asked, ids=(), vectors=False, departed_since=earliest)

        answers: list[Items] = [
            one.answer for one in self._fan_out.ask(self._question(ahead, make, wanted, None, watermarks)).answers
        ]
        if max(answer.forgotten for answer in answers) > earliest:
            return True
        shown = {item.id for item in items}
        first = _place(after) if after else None
        last = _place(items[-1].id) if len(items) == limit else None
        return any(
            sequence > watermarks[shard]
            and name not in shown
            and (first is None or _place(name) > first)
            and (last is None or _place(name) < last)
            for answer in answers
            for name, sequence, shard in answer.departed
        )


def _place(name: str) -> tuple[int, str]:
    return int(hash_ids([name])[0]), name


def _told(options: dict[str, object], visit: Visit) -> dict[str, object]:
    told = {**options, "recall": visit.recall}
    k = options.get("k")
    if isinstance(k, int) and "group_by" not in options:
        told["k"] = min(K_MAX, k + _SPARE_HITS)
    return told


def _search_call(
    query: bytes, options: dict[str, object], include: Include, explain: bool = False
) -> Callable[[Asked], msgspec.Struct]:
    return lambda asked: Search(
        asked=asked, query=query, options=options, include=include, explain=explain, distinct=True
    )


def _no_words() -> JadeError:
    return JadeError(
        ErrorCode.NOT_IMPLEMENTED,
        "Searching by words is not offered where vectors decide their shard: use a database that is sharded by hash for it.",
    )


def _moving(what: str) -> JadeError:
    return JadeError(
        ErrorCode.UNAVAILABLE,
        f"Vectors ({what[:80]!r}) move between shards faster than they can be read: retry in a moment, or read at EVENTUAL.",
    )
