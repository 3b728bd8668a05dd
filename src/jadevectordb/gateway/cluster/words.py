"""Rankings by words (BM25), and by a vector beside them, over all shards of a cluster's database, with the scores of one node.

A score needs counts over all shards: in how many rows a term occurs, how long texts are. Each node answers what it counted, and
ranks when it is told the sum (`ports/node_calls.SearchWords`):

    one node has all shards   one question: its own counts are those of the whole
    the sum is remembered     one question: it is given along, and each answer says what it counted now; where the sum of
                              that is another, the question is asked again with it
    else                      two: counts first, then rankings

So the first two answer exactly what one node with the same rows would; after the last step rows may have changed since they were
counted, by as much as was written in these milliseconds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec
import numpy as np

from jadevectordb.gateway.cluster.asking_words import stats_of, totals_of
from jadevectordb.gateway.cluster.reading import ClusterReader, Include, Wanted
from jadevectordb.index.text import Analyzer, TermStats, TextConfig
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.limits import NODE_ANSWER_BYTES, TERM_COUNTS_REMEMBERED_MAX
from jadevectordb.ports.node_calls import Asked, FoundWords, Judge, Judged, LookAtText, SearchWords, TextFigures
from jadevectordb.query import merge
from jadevectordb.query.hedging import Hedging
from jadevectordb.query.levels import ReadLevel
from jadevectordb.query.plan import Match
from jadevectordb.query.question import Gathered

_MS = 0.001
Options = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rankings:
    """by_vector: scores are similarities. stats: what by_text was scored with. live: vectors there are.

    Each is a list for each node that answered, best first, equal scores by id.
    """

    gathered: Gathered
    by_vector: list[list[Match]]
    by_text: list[list[Match]]
    stats: TermStats
    live: int

    def vectors(self, k: int) -> list[Match]:
        return merge.best(self.by_vector, k) if self.by_vector else []

    def texts(self, k: int) -> list[Match]:
        return merge.best(self.by_text, k) if self.by_text else []


@dataclass(frozen=True, slots=True)
class Score:
    """similarity: None without a query vector."""

    similarity: float | None
    text: float


@dataclass(frozen=True, slots=True)
class Figures:
    """documents: with a term in them. tokens: their terms, repeats counted. terms: different ones, deleted rows' included."""

    documents: int
    tokens: int
    terms: int


class ClusterWords:
    """Of one database as it is configured now. Thread-safe."""

    def __init__(self, config: DatabaseConfig, reader: ClusterReader) -> None:
        self._fields = config.schema.texts
        self._language = config.text_language
        self._shards = config.shards
        self._reader = reader
        self._counting, self._ranking, self._judging = Hedging(), Hedging(), Hedging()
        self._remembered = _Remembered()

    @property
    def fields(self) -> tuple[str, ...]:
        return self._fields

    def terms_of(self, text: str) -> tuple[str, ...]:
        """Raises INVALID_ARGUMENT for a text with too many different words."""
        return tuple(_analyzer(self._language).query_terms(text))

    def count(self, terms: Seq[str], wanted: Wanted) -> TermStats:
        """Over all shards. Raises as every read does."""
        if not self._fields:
            return TermStats.of_nothing(terms, 0)
        call = self._call(terms, {"k": 0}, b"", "", (), explain=False)
        gathered = self._reader.ask(_given(call, None), wanted, self._counting, self._reader.at_least(wanted))
        return self._sum(terms, gathered)

    def rank(
        self,
        terms: Seq[str],
        query: bytes,
        options: Options,
        include: Include,
        wanted: Wanted,
        *,
        stats: TermStats | None = None,
        exclude: str = "",
        explain: bool = False,
    ) -> Rankings:
        """The best options["k"] of each ranking. query: b"" = words alone. stats: counted before, by which to score, and by no others.

        Raises what is wrong with the request, UNAVAILABLE, TIMEOUT.
        """
        if not self._fields:  # texts that lie elsewhere are looked for
            terms, stats = (), None
        call = self._call(terms, options, query, exclude, include, explain=explain)
        floor = self._reader.at_least(wanted)
        nothing = TermStats.of_nothing((), len(self._fields))  # is known of no terms
        given = (stats or self._remembered.get(terms, floor)) if terms else nothing
        until_s = self._reader.now_s() + wanted.timeout_s
        calls = hedges = 0
        for is_last in (False, True):
            hedging = self._counting if given is None else self._ranking
            left = replace(wanted, timeout_s=max(_MS, until_s - self._reader.now_s()))
            gathered = self._reader.ask(_given(call, given), left, hedging, floor)
            gathered.calls, gathered.hedges = calls, hedges = calls + gathered.calls, hedges + gathered.hedges
            counted = self._sum(terms, gathered)
            if stats is None and not gathered.missing:
                self._remembered.keep(counted, _watermarks(gathered))
            is_scored = all(one.answer.is_scored for one in gathered.answers)
            if is_scored and (is_last or stats is not None or given in (None, counted)):
                return self._rankings(gathered, given or counted)
            given = stats or counted
        raise AssertionError("who is given counts ranks with them")

    def judge(
        self, ids: Seq[str], terms: Seq[str], stats: TermStats | None, query: bytes, wanted: Wanted
    ) -> dict[str, Score]:
        """The exact scores of those of the ids (distinct) that are there."""
        totals = None if stats is None else totals_of(stats)
        names, words, fields = tuple(ids), tuple(terms), self._fields

        def make(asked: Asked) -> Judge:
            return Judge(asked=asked, ids=names, terms=words, fields=fields, totals=totals, query=query)

        scores = {}
        for answered in self._reader.ask_about(ids, make, wanted, self._judging):
            judged: Judged = answered.answer
            similarities: Seq[float | None] = judged.similarities or [None] * len(judged.ids)
            for name, similarity, text in zip(judged.ids, similarities, judged.text_scores, strict=True):
                scores[name] = Score(similarity, text)
        return scores

    def look(self, part: int, parts: int, wanted: Wanted) -> list[TextFigures]:
        """Figures of the text indexes, one a node asked. part, parts: as in `LookAtText`."""

        def make(asked: Asked) -> LookAtText:
            return LookAtText(asked=asked, part=part, parts=parts)

        return [one.answer for one in self._reader.ask(make, wanted, None, self._reader.at_least(wanted)).answers]

    def _call(
        self, terms: Seq[str], options: Options, query: bytes, exclude: str, include: Include, *, explain: bool
    ) -> SearchWords:
        """Of no shards yet."""
        return SearchWords(
            asked=_NOBODY,
            terms=tuple(terms),
            fields=self._fields,
            shards_all=self._shards,
            options=dict(options),
            query=query,
            exclude=exclude,
            include=include,
            explain=explain,
        )

    def _sum(self, terms: Seq[str], gathered: Gathered) -> TermStats:
        total = TermStats.of_nothing(terms, len(self._fields))
        for one in gathered.answers:
            total += stats_of(one.answer.totals)
        return total

    def _rankings(self, gathered: Gathered, stats: TermStats) -> Rankings:
        by_vector, by_text, live = [], [], 0
        for one in gathered.answers:
            answer: FoundWords = one.answer
            live += answer.live
            rows, ids = self._reader.rows_of(answer), answer.ids
            if answer.by_vector:
                places = zip(answer.by_vector, answer.similarities, strict=True)
                by_vector.append(merge.order([(score, ids[at], rows, at) for at, score in places]))
            if answer.by_text:
                places = zip(answer.by_text, answer.text_scores, strict=True)
                by_text.append(merge.order([(score, ids[at], rows, at) for at, score in places]))
        return Rankings(gathered, by_vector, by_text, stats, live)


def figures_of(databases: Seq[ClusterWords], level: ReadLevel) -> Figures:
    """What the text indexes of all shards of these databases hold, taken together.

    Different terms are counted exactly: hashes of all of them come here, a part at a time.
    """
    asked = [(words, Wanted(level)) for words in databases]  # what one database has seen says nothing of another
    counted = [one for words, wanted in asked for one in words.look(0, 0, wanted)]
    parts = max(1, -(-max(one.terms for one in counted) * 8 // NODE_ANSWER_BYTES))
    terms = 0
    for part in range(parts):
        hashes = [
            np.frombuffer(one.hashes, "<u8") for words, wanted in asked for one in words.look(part, parts, wanted)
        ]
        terms += len(np.unique(np.concatenate(hashes)))
    return Figures(sum(one.documents for one in counted), sum(one.tokens for one in counted), terms)


class _Remembered:
    """The newest counts of recent queries. Each is checked by the answers it is used for; this only saves a question."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], tuple[TermStats, Mapping[int, int]]] = OrderedDict()
        self._newest: dict[int, int] = {}  # sequences by shard, of any answer

    def get(self, terms: Seq[str], floor: Mapping[int, int]) -> TermStats | None:
        """None when there are none, or they are known to be older than what the asker or anyone else has seen."""
        distinct = tuple(sorted(set(terms)))
        with self._lock:
            found = self._known.get(distinct)
            if found is None:
                return None
            stats, seen = found
            if any(
                seen.get(shard, 0) < sequence for known in (floor, self._newest) for shard, sequence in known.items()
            ):
                del self._known[distinct]
                return None
            self._known.move_to_end(distinct)
            return stats

    def keep(self, stats: TermStats, seen: Mapping[int, int]) -> None:
        with self._lock:
            for shard, sequence in seen.items():
                self._newest[shard] = max(sequence, self._newest.get(shard, 0))
            self._known[stats.terms] = stats, seen
            self._known.move_to_end(stats.terms)
            if len(self._known) > TERM_COUNTS_REMEMBERED_MAX:
                self._known.popitem(last=False)


_NOBODY = Asked(database="", shards=())


def _given(call: SearchWords, stats: TermStats | None) -> Callable[[Asked], msgspec.Struct]:
    totals = None if stats is None else totals_of(stats)
    return lambda asked: msgspec.structs.replace(call, asked=asked, totals=totals)


def _watermarks(gathered: Gathered) -> dict[int, int]:
    return {shard: sequence for one in gathered.answers for shard, sequence in one.answer.watermarks}


@lru_cache(maxsize=32)  # one a language
def _analyzer(language: str) -> Analyzer:
    return Analyzer(TextConfig(("text",), language))
