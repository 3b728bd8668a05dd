"""Reads of a cluster's database: which shards must be asked, what they must have seen, and one answer from many.

Every read is a `Question` to the fan-out. What it must have seen comes from its level: nothing (EVENTUAL), what the caller has seen
(SESSION), or a barrier in the log (STRONG). Whatever its level, the caller has then seen what the answers saw: a later read of the
session, and a later step of the same read, is answered from no less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.cluster.rows import Fetched, FetchedRows, unpacker_of
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.embedded.stats import Stats
from jadevectordb.model import filters
from jadevectordb.model.errors import JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import LOOK_WORKER_S_MAX, NODE_ANSWER_BYTES, READ_S_MAX, READ_WORKER_S_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.model.schema import Schema
from jadevectordb.ports.node_calls import (
    Aged,
    Asked,
    CheckSchema,
    Count,
    Counted,
    Found,
    FoundWords,
    Get,
    Items,
    Look,
    Looked,
    LookedAt,
    Scroll,
    Search,
)
from jadevectordb.query.awaiting import Waits
from jadevectordb.query.barriers import Barriers
from jadevectordb.query.fan_out import Ask, FanOut
from jadevectordb.query.hedging import Hedging
from jadevectordb.query.levels import ReadLevel
from jadevectordb.query.question import Answered, Gathered, Question
from jadevectordb.query.seen import SeenSequences
from jadevectordb.query.write_checks import invalid
from jadevectordb.segment.records import hash_ids
from jadevectordb.shard.conflicts import ConflictReport
from jadevectordb.topology.cells import Visit
from jadevectordb.topology.placed import PlacedDatabase
from jadevectordb.topology.sharding import shards_of, shards_of_ids

Include = tuple[Literal["metadata", "vector"], ...]
_SEARCHES_AT_ONCE = 16  # of a batch
_NO_SEQUENCES: Mapping[int, int] = {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a caller wants a read. seen: what SESSION must see; raised by every answer."""

    level: ReadLevel = ReadLevel.SESSION
    seen: SeenSequences = field(default_factory=SeenSequences)
    allow_partial: bool = False
    timeout_s: float = READ_S_MAX


class ClusterReader:
    """Of one database. Thread-safe."""

    def __init__(self, placed: PlacedDatabase, fan_out: FanOut, barriers: Barriers) -> None:
        self._placed = placed
        self._fan_out = fan_out
        self._barriers = barriers
        self._shards = tuple(range(placed.config.shards))
        self._search_hedging, self._row_hedging = Hedging(), Hedging()
        self._unpacker = unpacker_of(placed.config)
        is_packed = placed.config.metric is Metric.HAMMING
        self._row_bytes = placed.config.dimension * (1 if is_packed else 4)
        self._vector_rows = max(1, NODE_ANSWER_BYTES // self._row_bytes)  # whose vectors fit in one answer

    @property
    def node(self) -> str:
        """That of this process."""
        return self._fan_out.node

    def now_s(self) -> float:
        return self._fan_out.transport.now_s()

    @property
    def is_in_gateway(self) -> bool:
        """Whether coroutines of this can be carried out in the loop that serves clients."""
        return self._fan_out.in_gateway is not None

    # Searching

    async def search(
        self,
        query: bytes,
        options: dict[str, object],
        include: Include,
        explain: bool,
        wanted: Wanted,
    ) -> Gathered:
        """Answers are `Found`, one a node. Raises what is wrong with the request, UNAVAILABLE, TIMEOUT."""
        return await self._search(self._shards, _search_call(query, options, include, explain), wanted)

    async def _search(
        self, shards: tuple[int, ...], call: Callable[[Asked], msgspec.Struct], wanted: Wanted
    ) -> Gathered:
        if wanted.level is ReadLevel.STRONG:
            at_least = await Waits(lambda: self._at_least(shards, wanted))
        else:
            at_least = self._at_least(shards, wanted)
        question = self._question(shards, call, wanted, self._search_hedging, at_least)
        return _noted(wanted, await Ask(self._fan_out, question))

    def search_on(
        self, node: str, shard: int, query: bytes, options: dict[str, object], include: Include, wanted: Wanted
    ) -> Gathered:
        """As `search`, of this node's replica of one shard alone."""
        call = _search_call(query, options, include)
        question = self._question(
            (shard,), call, wanted, None, self._at_least((shard,), wanted), only=node, worker_s=wanted.timeout_s
        )
        return self._fan_out.ask(question).checked(question)

    def search_each(
        self, queries: Iterable[bytes], options: dict[str, object], include: Include, wanted: Wanted
    ) -> list[Gathered]:
        """`search` for each query; all see at least the same."""
        at_least = self._at_least(self._shards, wanted)
        questions = [
            self._question(self._shards, _search_call(query, options, include), wanted, self._search_hedging, at_least)
            for query in queries
        ]
        found = []
        for start in range(0, len(questions), _SEARCHES_AT_ONCE):
            some = questions[start : start + _SEARCHES_AT_ONCE]
            found += self._answers(some, wanted)
        return found

    def visit(self, query: bytes, options: Mapping[str, object]) -> Visit | None:
        """Which shards a search visits and why, where that is a question."""
        return None

    def rows_of(self, answer: Found | FoundWords | Items) -> FetchedRows:
        return FetchedRows.of(answer, self._placed.config, self._fetch)

    def at_least(self, wanted: Wanted) -> Mapping[int, int]:
        """Sequences that a read of all shards must have seen, by shard; for reads in several steps, so that all see the same."""
        return self._at_least(self._shards, wanted)

    def ask(
        self,
        make: Callable[[Asked], msgspec.Struct],
        wanted: Wanted,
        hedging: Hedging | None,
        at_least: Mapping[int, int],
    ) -> Gathered:
        """Any question to all shards. Raises as `search`."""
        return self._answer(self._question(self._shards, make, wanted, hedging, at_least), wanted)

    # By id

    def ask_about(
        self, ids: Seq[str], make: Callable[[Asked], msgspec.Struct], wanted: Wanted, hedging: Hedging
    ) -> list[Answered]:
        """A question about ids to the shards they belong to; each node answers for those that it has."""
        return self._ask(tuple(sorted(self._by_shard(ids))), make, wanted, hedging).answers

    def find(self, names: Seq[str], wanted: Wanted, *, vectors: bool = True) -> list[Item | None]:
        """The item under each id, None where there is none (or, with allow_partial, where nobody answered)."""
        found: dict[str, Item] = {}
        for rows in self._rows(names, wanted, vectors=vectors):
            for row, name in enumerate(rows.ids_of(range(rows.row_count))):
                found[name] = Item(name, rows, row, self._unpacker)
        return [found.get(name) for name in names]

    def _rows(self, names: Seq[str], wanted: Wanted, *, vectors: bool) -> list[FetchedRows]:
        """Each id is asked of its own shard; a shard's ids in as many answers as their vectors need."""
        if not names:
            return []
        by_shard = self._by_shard(names)
        at_least = self._at_least(by_shard, wanted)
        questions = [
            self._question(
                (shard,),
                _get_call(tuple(some), vectors),
                wanted,
                self._row_hedging if len(some) < 100 else None,
                at_least,
            )
            for shard, mine in by_shard.items()
            for some in pieces_of(mine, self._vector_rows if vectors else len(mine))
        ]
        return [
            self.rows_of(answered.answer)
            for gathered in self._answers(questions, wanted)
            for answered in gathered.answers
        ]

    def _by_shard(self, names: Seq[str]) -> dict[int, list[str]]:
        distinct = list(dict.fromkeys(names))
        shards = shards_of_ids(self._placed.sharding, len(self._shards), distinct, hash_ids(distinct)).tolist()
        by_shard: dict[int, list[str]] = {}
        for shard, name in zip(shards, distinct, strict=True):
            by_shard.setdefault(shard, []).append(name)
        return by_shard

    def _fetch(self, ids: list[str], positions: Seq[tuple[int, int]]) -> Fetched:
        """What is stored under these ids now, for an answer that left it out. positions: that the answer was computed at."""
        by_id = {}
        for item in self.find(ids, Wanted(seen=SeenSequences(positions))):
            if item is not None:
                by_id[item.id] = (item.version, item.metadata_json, item.vector)
        return Fetched(by_id)

    # All of them

    def scroll(self, limit: int, after: str, node: Filter | None, wanted: Wanted, *, vectors: bool) -> list[Item]:
        """The next items in the order of (hash of the id, id)."""
        if self._placed.sharding.strategy == "hash":
            return self._scroll_in_order(limit, after, node, wanted, vectors)
        answers = self._scroll_some(self._shards, limit, after, node, wanted, vectors)
        items = [item for rows in answers for item in self._items(rows)]
        places = zip(hash_ids([item.id for item in items]).tolist(), items, strict=True)
        return [item for _, item in sorted(places, key=lambda pair: (pair[0], pair[1].id))[:limit]]

    def _scroll_in_order(
        self, limit: int, after: str, node: Filter | None, wanted: Wanted, vectors: bool
    ) -> list[Item]:
        """Sharded by hash, shards follow each other in the order of a scroll: one after the other is asked."""
        first = int(shards_of(hash_ids([after]), len(self._shards))[0]) if after else 0
        items: list[Item] = []
        for shard in self._shards[first:]:
            while len(items) < limit:
                most = min(limit - len(items), self._vector_rows if vectors else limit)
                answers = self._scroll_some((shard,), most, after, node, wanted, vectors)
                got = [item for rows in answers for item in self._items(rows)]
                items += got
                if got:
                    after = got[-1].id
                if len(got) < most:
                    break
            if len(items) == limit:
                break
        return items

    def _scroll_some(
        self, shards: tuple[int, ...], limit: int, after: str, node: Filter | None, wanted: Wanted, vectors: bool
    ) -> list[FetchedRows]:
        condition = b"" if node is None else filters.to_json(node)
        # Over several shards each may answer with the whole page: then vectors are fetched for those that are kept
        with_vectors = vectors and len(shards) == 1

        def make(asked: Asked) -> Scroll:
            return Scroll(asked=asked, after=after, limit=limit, filter=condition, vectors=with_vectors)

        return [self.rows_of(one.answer) for one in self._ask(shards, make, wanted, None).answers]

    def _items(self, rows: FetchedRows) -> list[Item]:
        return [Item(rows.id_of(row), rows, row, self._unpacker) for row in range(rows.row_count)]

    def aged(self, shard: int, up_to: int, limit: int, wanted: Wanted) -> list[Item]:
        """Some vectors of this shard whose version is at most `up_to`, with their vectors."""

        def make(asked: Asked) -> Aged:
            return Aged(asked=asked, up_to=up_to, limit=min(limit, self._vector_rows))

        answers = self._ask((shard,), make, wanted, None).answers
        return [item for one in answers for item in self._items(self.rows_of(one.answer))]

    def count(self, node: Filter | None, wanted: Wanted) -> int:
        condition = b"" if node is None else filters.to_json(node)

        def make(asked: Asked) -> Count:
            return Count(asked=asked, filter=condition)

        answers = self._ask(self._shards, make, wanted, self._row_hedging if node is None else None).answers
        counted: list[Counted] = [one.answer for one in answers]
        return sum(one.count for one in counted)

    # Looking

    def stats(self, wanted: Wanted) -> dict[int, Stats]:
        """Of one replica of each shard."""
        return {
            shard: msgspec.json.decode(value, type=Stats)
            for answered in self._look("stats", self._shards, wanted, READ_WORKER_S_MAX)
            for shard, value in answered.by_shard
        }

    def stats_of_all(
        self, replicas: Iterable[tuple[str, int]], wanted: Wanted, *, hurry_s: float = 0.0
    ) -> dict[tuple[str, int], Stats]:
        """Of these replicas, (node, shard); those that did not answer are left out. hurry_s: as of `Look`."""
        looks = self._looks("stats", replicas, wanted, hurry_s)
        return {place: msgspec.json.decode(value, type=Stats) for place, value in looks}

    def log_ends(self, replicas: Iterable[tuple[str, int]], wanted: Wanted) -> dict[tuple[str, int], int]:
        """Where these replicas, (node, shard), find that their logs end; those that did not answer are left out."""
        looks = self._looks("log_end", replicas, wanted)
        return {place: msgspec.json.decode(value, type=int) for place, value in looks}

    def _looks(
        self,
        what: Literal["stats", "log_end"],
        replicas: Iterable[tuple[str, int]],
        wanted: Wanted,
        hurry_s: float = 0.0,
    ) -> Iterator[tuple[tuple[str, int], bytes]]:
        places = list(replicas)
        questions = [
            self._question((shard,), _look_call(what, hurry_s), wanted, None, _NO_SEQUENCES, only=node)
            for node, shard in places
        ]
        for place, gathered in zip(places, self._fan_out.ask_all(questions), strict=True):
            for one in gathered.answers:
                yield place, one.answer.by_shard[0][1]

    def verify_each(
        self, replicas: Iterable[tuple[str, int]], timeout_s: float
    ) -> dict[tuple[str, int], str | JadeError]:
        """Have these replicas, (node, shard), read all their files: the damage found, "" for none, or why there is no answer."""
        places, wanted = list(replicas), Wanted(ReadLevel.EVENTUAL, timeout_s=timeout_s)
        questions = [
            self._question((shard,), _look_call("verify"), wanted, None, _NO_SEQUENCES, only=node, worker_s=timeout_s)
            for node, shard in places
        ]
        found: dict[tuple[str, int], str | JadeError] = {}
        for place, gathered in zip(places, self._fan_out.ask_all(questions), strict=True):
            if gathered.answers:
                found[place] = msgspec.json.decode(gathered.answers[0].answer.by_shard[0][1], type=str)
            else:
                found[place] = gathered.error or gathered.missing[place[1]]
        return found

    def digests(self, wanted: Wanted) -> list[str]:
        """A fingerprint of each shard's contents, of one replica each."""
        found = {
            shard: msgspec.json.decode(value, type=str)
            for answered in self._look("digest", self._shards, wanted, LOOK_WORKER_S_MAX)
            for shard, value in answered.by_shard
        }
        return [found[shard] for shard in self._shards]

    def conflicts(self, wanted: Wanted) -> dict[int, ConflictReport]:
        """Of one replica of each shard."""
        return {
            shard: msgspec.json.decode(value, type=ConflictReport)
            for answered in self._look("conflicts", self._shards, wanted, READ_WORKER_S_MAX)
            for shard, value in answered.by_shard
        }

    def _look(self, what: LookedAt, shards: tuple[int, ...], wanted: Wanted, worker_s: float) -> list[Looked]:
        at_least = self._at_least(shards, wanted)
        question = self._question(shards, _look_call(what), wanted, None, at_least, worker_s=worker_s)
        return [one.answer for one in self._fan_out.ask(question).answers]

    def check_schema(self, schema: Schema, wanted: Wanted) -> None:
        """Whether what is stored fits these declarations. Raises SCHEMA_VIOLATION naming a vector that does not."""
        fields = {path: str(declared) for path, declared in schema.fields.items()}

        def make(asked: Asked) -> CheckSchema:
            return CheckSchema(asked=asked, fields=fields, strict=schema.strict)

        at_least = self._at_least(self._shards, wanted)
        self._fan_out.ask(self._question(self._shards, make, wanted, None, at_least, worker_s=wanted.timeout_s))

    # Asking

    def _ask(
        self,
        shards: tuple[int, ...],
        make: Callable[[Asked], msgspec.Struct],
        wanted: Wanted,
        hedging: Hedging | None,
    ) -> Gathered:
        return self._answer(self._question(shards, make, wanted, hedging, self._at_least(shards, wanted)), wanted)

    def _answer(self, question: Question, wanted: Wanted) -> Gathered:
        return _noted(wanted, self._fan_out.ask(question))

    def _answers(self, questions: list[Question], wanted: Wanted) -> list[Gathered]:
        gathered = zip(questions, self._fan_out.ask_all(questions), strict=True)
        return [_noted(wanted, one.checked(question)) for question, one in gathered]

    def _question(
        self,
        shards: tuple[int, ...],
        make: Callable[[Asked], msgspec.Struct],
        wanted: Wanted,
        hedging: Hedging | None,
        at_least: Mapping[int, int],
        *,
        only: str = "",
        worker_s: float = READ_WORKER_S_MAX,
    ) -> Question:
        return Question(
            self._placed.id, shards, make, wanted.timeout_s, worker_s, at_least, wanted.allow_partial, hedging, only
        )

    def _at_least(self, shards: Iterable[int], wanted: Wanted) -> Mapping[int, int]:
        match wanted.level:
            case ReadLevel.EVENTUAL:
                return _NO_SEQUENCES
            case ReadLevel.SESSION:
                return wanted.seen
            case ReadLevel.STRONG:
                return self._barriers.sequences(list(shards), wanted.timeout_s)

    def check_seen(self, seen: Mapping[int, int]) -> None:
        """Raises INVALID_ARGUMENT for a token that is of another database."""
        if any(shard not in self._shards for shard in seen):
            raise invalid(
                "The session token names shards that this database does not have: send back what an answer brought."
            )


def _noted(wanted: Wanted, gathered: Gathered) -> Gathered:
    """The answers, which the session has then seen."""
    for one in gathered.answers:
        wanted.seen.raise_to(one.answer.watermarks)
    return gathered


def _search_call(
    query: bytes, options: dict[str, object], include: Include, explain: bool = False
) -> Callable[[Asked], msgspec.Struct]:
    return lambda asked: Search(asked=asked, query=query, options=options, include=include, explain=explain)


def _get_call(ids: tuple[str, ...], vectors: bool) -> Callable[[Asked], msgspec.Struct]:
    return lambda asked: Get(asked=asked, ids=ids, vectors=vectors)


def _look_call(what: LookedAt, hurry_s: float = 0.0) -> Callable[[Asked], msgspec.Struct]:
    return lambda asked: Look(asked=asked, what=what, hurry_s=hurry_s)


def pieces_of(names: list[str], most: int) -> Iterable[list[str]]:
    return (names[start : start + most] for start in range(0, len(names), max(1, most)))


def query_bytes(vector: npt.ArrayLike, metric: Metric) -> bytes:
    """A query that was checked, as it travels."""
    return np.ascontiguousarray(vector, np.uint8 if metric is Metric.HAMMING else np.dtype("<f4")).tobytes()
