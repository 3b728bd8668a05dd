"""`hybrid_search` of a cluster's database: the same rankings and scores, asked of the nodes that have vectors and texts.

As `text_ranking` does on one node: where both databases have the same text fields, counts are added up over both; an id that has a
text on either side is one result, with the better of its scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy.typing as npt

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.reading import Wanted
from jadevectordb.gateway.cluster.words import Rankings, Score
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.service.text_ranking import OF_VECTOR
from jadevectordb.index.text import TermStats
from jadevectordb.model import filters
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import K_MAX
from jadevectordb.query.plan import Match

_DEEPER = 4


@dataclass(frozen=True, slots=True)
class ClusterRankings:
    """by_vector: (id, public score), best first. by_text: (id, BM25 score), best first. items: of those with a vector."""

    by_vector: list[tuple[str, float]]
    by_text: list[tuple[str, float]]
    items: dict[str, Item]


@dataclass(slots=True)
class ClusterHybrid:
    """One query. documents: the database of texts without vectors, when there is one. vector, text: None = not given."""

    database: ClusterDatabase
    documents: ClusterDatabase | None
    vector: npt.ArrayLike | None
    text: str | None
    node: Filter | None
    recall: float
    wanted: Wanted
    _query: bytes = b""
    _terms: tuple[str, ...] = ()
    _stats: TermStats | None = None  # that vectors' texts are scored with,
    _document_stats: TermStats | None = None  # and those of texts without vectors
    _items: dict[str, Item] = field(default_factory=dict)
    _texts: Wanted = field(default_factory=Wanted)  # of the other database a client has seen no sequences

    def rank(self, depth: int) -> ClusterRankings:
        """Both rankings to this depth. Raises what is wrong with the query, UNAVAILABLE, TIMEOUT."""
        self._query = b"" if self.vector is None else self.database.query_of(self.vector)
        self._terms = () if self.text is None else self.database.words.terms_of(self.text)
        self._count()
        by_vector: list[tuple[str, float]] = []
        by_text: list[tuple[str, float]] = []
        if self._query or (self._terms and self.database.words.fields):
            rankings = self._ask(depth)
            if self._stats is None:
                self._stats = rankings.stats
            public = self.database.public_score
            by_vector = [(match[1], public(match[0])) for match in self._kept(rankings.vectors(depth))]
            by_text = [(match[1], match[0]) for match in self._kept(rankings.texts(depth))]
        if self._document_stats is not None:
            by_text = self._with_documents(by_text, depth)
        return ClusterRankings(by_vector, by_text, self._items)

    def _count(self) -> None:
        """Over both databases, where there are both; else ranking counts by itself."""
        if self.documents is None or not self._terms:
            return
        theirs = self.documents.words.count(self._terms, self._texts)
        own = self.database.words.count(self._terms, self.wanted)
        if self.database.words.fields == self.documents.words.fields:
            own = theirs = own + theirs
        self._stats, self._document_stats = own, theirs

    def _ask(self, depth: int) -> Rankings:
        options: dict[str, object] = {"k": depth, "recall": self.recall}
        if self.node is not None:
            options["filter"] = filters.to_json(self.node)
        return self.database.words.rank(
            self._terms, self._query, options, ("metadata",), self.wanted, stats=self._stats
        )

    def _kept(self, found: Seq[Match]) -> Seq[Match]:
        for _, name, rows, row in found:
            if name not in self._items:
                self._items[name] = self.database.item(name, rows, row)
        return found

    # Texts without vectors

    def _with_documents(self, by_text: list[tuple[str, float]], depth: int) -> list[tuple[str, float]]:
        asked = depth
        while True:
            assert self.documents is not None
            told: dict[str, object] = {"k": asked, "recall": self.recall}
            ranked = self.documents.words.rank(
                self._terms, b"", told, ("metadata",), self._texts, stats=self._document_stats
            )
            texts = ranked.texts(asked)
            joined = self._joined(dict(by_text), texts)
            # A text that a filter left out, or that an id has twice, takes no place from others: look deeper
            if len(joined) >= depth or len(texts) < asked or asked >= K_MAX:
                return joined[:depth]
            asked = min(K_MAX, asked * _DEEPER)

    def _joined(self, hits: dict[str, float], texts: Seq[Match]) -> list[tuple[str, float]]:
        self._fetch(match[1] for match in texts)
        for score, name, rows, row in texts:
            if hits.get(name, -1.0) >= score:
                continue
            item = self._items.get(name)
            if item is None and msgspec.json.decode(rows.metadata_of(row)).get(OF_VECTOR):
                continue  # of a vector that is no longer there
            metadata: Mapping[str, Any] = {} if item is None else item.metadata
            if self.node is None or matches(self.node, metadata, self.database.config.schema):
                hits[name] = score
        return sorted(hits.items(), key=lambda hit: (-hit[1], hit[0]))

    def _fetch(self, names: Iterable[str]) -> None:
        """The vectors of these ids, where there are such."""
        missing = [name for name in dict.fromkeys(names) if name not in self._items]
        found = self.database.items_of(missing, self.wanted)
        self._items.update((item.id, item) for item in found if item is not None)

    # What one ranking did not say

    def scores_of(self, without_vector: Seq[str], without_text: Seq[str]) -> tuple[dict[str, float], dict[str, float]]:
        """The exact public vector scores and BM25 scores of ids that one ranking did not reach down to; only of those that have one."""
        asked = list(dict.fromkeys([*without_vector, *without_text]))
        there = [name for name in asked if name in self._items]
        by_vector: dict[str, float] = {}
        by_text: dict[str, float] = {}
        if there:
            terms = self._terms if self.database.words.fields else ()
            judged = self.database.words.judge(there, terms, self._stats, self._query, self.wanted)
            for name, score in judged.items():
                if score.similarity is not None:
                    by_vector[name] = self.database.public_score(score.similarity)
                by_text[name] = score.text
        if self.documents is not None and self._document_stats is not None and without_text:
            texts: Mapping[str, Score] = self.documents.words.judge(
                without_text, self._terms, self._document_stats, b"", self._texts
            )
            for name, score in texts.items():
                by_text[name] = max(by_text.get(name, 0.0), score.text)
        return by_vector, by_text
