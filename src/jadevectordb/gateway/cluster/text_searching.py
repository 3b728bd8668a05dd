"""Searches of a cluster's database by words, alone or with a vector, as one node's `Database.search` has them."""

from __future__ import annotations

import numpy.typing as npt

from jadevectordb.gateway.cluster import merging
from jadevectordb.gateway.cluster.reading import ClusterReader, Include, Wanted
from jadevectordb.gateway.cluster.rows import unpacker_of
from jadevectordb.gateway.cluster.searching import ClusterSearches, Options
from jadevectordb.gateway.cluster.words import ClusterWords, Rankings
from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.gateway.embedded.searching import check_text
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.limits import K_MAX
from jadevectordb.query import executor
from jadevectordb.query.plan import Explanation, Match, SearchRequest
from jadevectordb.query.question import Gathered
from jadevectordb.query.write_checks import invalid


class TextSearches:
    """Of one database as it is configured now. Thread-safe."""

    def __init__(
        self, config: DatabaseConfig, reader: ClusterReader, searches: ClusterSearches, words: ClusterWords
    ) -> None:
        self._config = config
        self._reader = reader
        self._searches = searches
        self._words = words
        self._unpacker = unpacker_of(config)

    def search(
        self,
        vector: npt.ArrayLike | None,
        vector_id: str | None,
        text: str,
        fusion: str,
        alpha: float,
        options: Options,
        include: Include,
        explain: bool,
        wanted: Wanted,
    ) -> Hits:
        """options: from `ClusterSearches.options`. Raises what is wrong with the arguments, NOT_FOUND, UNAVAILABLE, TIMEOUT."""
        if vector is not None and vector_id is not None:
            raise invalid("search takes a vector or an id, not both.")
        check_text(self._config, text, fusion, alpha)
        if "threshold" in options or "max_distance" in options:
            raise invalid("threshold and max_distance are about vectors: they can't be combined with text.")
        terms = self._words.terms_of(text)
        if vector_id is not None:
            vector = self._searches.vector_of(vector_id, wanted)
        query = b"" if vector is None else self._searches.query_of(vector)
        one = _OneSearch(self, terms, query, vector_id or "", fusion, float(alpha), options, include, explain, wanted)
        started_s = self._reader.now_s()
        matches = one.run()
        hits = merging.hits_of(matches, self._unpacker)
        missing = () if one.rankings is None else tuple(sorted(one.rankings.gathered.missing))
        if not explain:
            return Hits(hits, missing_shards=missing)
        total_us = (self._reader.now_s() - started_s) * 1e6
        return Hits(hits, one.explanation(total_us), missing)

    def rank(self, one: _OneSearch, depth: int, options: Options) -> Rankings:
        told = {**options, "k": depth}
        return self._words.rank(
            one.terms, one.query, told, one.include, one.wanted, exclude=one.exclude, explain=one.explain
        )


class _OneSearch:
    """One search on its way. rankings: the last ones that were asked for; None when no word of the text is one."""

    def __init__(
        self,
        searches: TextSearches,
        terms: tuple[str, ...],
        query: bytes,
        exclude: str,
        fusion: str,
        alpha: float,
        options: Options,
        include: Include,
        explain: bool,
        wanted: Wanted,
    ) -> None:
        self._searches = searches
        self.terms = terms
        self.query = query
        self.exclude = exclude
        self._fusion = fusion
        self._alpha = alpha
        self._options = options
        self.include: Include = include
        self.explain = explain
        self.wanted = wanted
        self.rankings: Rankings | None = None
        self._depth = 0

    def run(self) -> list[Match]:
        """The best of all nodes, as `executor.search` finds them on one."""
        k, group_by = self._options["k"], self._options.get("group_by")
        assert isinstance(k, int)
        if not self.terms and not self.query:
            return []
        if group_by is None:
            return self._ranked(k)
        assert isinstance(group_by, str)
        group_size = self._options["group_size"]
        assert isinstance(group_size, int)
        # Groups are told apart by metadata
        self.include = ("metadata", "vector") if "vector" in self.include else ("metadata",)
        if not self.query:
            return self._groups_of_words(k, group_by, group_size)
        return executor.grouped(self._ranked, k, group_by, group_size, self._most, None)

    def _ranked(self, depth: int) -> list[Match]:
        """The best of one ranking, or of both fused; at most K_MAX."""
        depth = min(depth, K_MAX)
        options = {name: value for name, value in self._options.items() if name not in ("group_by", "group_size")}
        if not self.query:
            self.rankings = self._searches.rank(self, depth, options)
            return self.rankings.texts(depth)
        self._depth = executor.fusion_depth(depth)
        self.rankings = self._searches.rank(self, self._depth, options)
        how = SearchRequest(
            None, depth, 1.0, fusion=self._fusion, alpha=self._alpha, exclude_id=self.exclude or None
        )  # of which only the fusion is read
        return executor.fused(self.rankings.vectors(self._depth), self.rankings.texts(self._depth), how, depth)

    def _groups_of_words(self, k: int, group_by: str, group_size: int) -> list[Match]:
        for asked in merging.group_counts(k):
            self.rankings = self._searches.rank(self, asked, self._options)
            matches, is_sure = merging.grouped(self.rankings.by_text, asked, k, group_size, group_by, None)
            if is_sure:
                break
        return matches

    def _most(self) -> int:
        assert self.rankings is not None
        return min(K_MAX, self.rankings.live)

    def explanation(self, total_us: float) -> Explanation:
        recall = self._options["recall"]
        assert isinstance(recall, float)
        gathered = Gathered() if self.rankings is None else self.rankings.gathered
        explanation = merging.explanation_of(gathered, recall, total_us)
        explanation.text_terms = list(self.terms)
        if self.query:
            explanation.fusion, explanation.depth = self._fusion, self._depth
        return explanation
