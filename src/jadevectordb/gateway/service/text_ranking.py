"""BM25 over two databases as if they were one: the text fields beside the vectors, and texts given without a vector.

Where both have the same fields, document frequencies and lengths are added up over both, so that a score means the same
wherever the text lies. An id that has a text on either side is one result, with the better of its scores.

A text without a vector is found under a filter when the metadata of the vector with its id match; without such a vector it is
judged as empty metadata. A text that was given for a vector that is no longer there (its record is marked `OF_VECTOR`) is not
found any more, whoever deleted the vector.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import msgspec
import numpy as np

from jadevectordb.index.text import Analyzer, TermStats, TextReader
from jadevectordb.model.filter_eval import matches
from jadevectordb.model.filters import Filter
from jadevectordb.model.schema import Schema
from jadevectordb.query import merge
from jadevectordb.query.allowed import allowed_rows
from jadevectordb.query.plan import Match
from jadevectordb.query.words import scores_at
from jadevectordb.segment.reader import SegmentReader
from jadevectordb.shard.view import DatabaseView, Part

_DEEPER = 4
OF_VECTOR = "of_vector"  # in the metadata of a text: there was a vector of this id when it was given
Place = tuple[SegmentReader, int]  # where a vector's record lies


@dataclass(frozen=True, slots=True)
class TextHit:
    """where: the record of the vector of this id; None for a text without one."""

    id: str
    score: float
    where: Place | None


@dataclass(frozen=True, slots=True)
class TextFigures:
    """documents: texts with at least one term, deleted ones left out. tokens: their terms, repeats counted.

    terms: different ones, those of deleted rows not yet reclaimed included.
    """

    documents: int
    tokens: int
    terms: int


class TextRanking:
    """One query over one moment of both databases. documents: None when there are no texts without vectors."""

    def __init__(
        self, text: str, analyzer: Analyzer, vectors: DatabaseView, documents: DatabaseView | None, schema: Schema
    ) -> None:
        """Raises INVALID_ARGUMENT for a text with too many different words."""
        self._schema = schema
        self._vectors = vectors
        self._documents = documents
        self._terms = analyzer.query_terms(text)
        self._vector_parts = _with_text(vectors)
        self._document_parts = [] if documents is None else _with_text(documents)
        self._vector_stats = _sum(self._vector_parts, self._terms)
        self._document_stats = _sum(self._document_parts, self._terms)
        if self._vector_stats is not None and self._document_stats is not None and self._fields_agree():
            self._vector_stats = self._document_stats = self._vector_stats + self._document_stats

    def _fields_agree(self) -> bool:
        return _text_of(self._vector_parts[0]).fields == _text_of(self._document_parts[0]).fields

    def best(self, k: int, node: Filter | None) -> list[TextHit]:
        """The k best ids, best first, equal scores by id."""
        if not self._terms:
            return []
        found = _best(self._vector_parts, self._terms, self._vector_stats, k, node)
        if not self._document_parts:
            return [TextHit(m[1], m[0], (m[2], m[3])) for m in found]
        depth = k
        while True:
            texts = _best(self._document_parts, self._terms, self._document_stats, depth, None)
            hits = self._joined(found, texts, node)
            # A text that a filter left out, or that an id has twice, takes no place from others: look deeper
            if len(hits) >= k or len(texts) < depth:
                return hits[:k]
            depth *= _DEEPER

    def _joined(self, found: list[Match], texts: list[Match], node: Filter | None) -> list[TextHit]:
        hits = {m[1]: TextHit(m[1], m[0], (m[2], m[3])) for m in found}
        places = _locate(self._vectors, [m[1] for m in texts])
        for match, place in zip(texts, places, strict=True):
            known = hits.get(match[1])
            if known is not None and known.score >= match[0]:
                continue
            if place is None and _is_orphan(match):
                continue
            if node is None or self._fits(node, place):
                hits[match[1]] = TextHit(match[1], match[0], place)
        return sorted(hits.values(), key=lambda hit: (-hit.score, hit.id))

    def _fits(self, node: Filter, place: Place | None) -> bool:
        metadata = {} if place is None else msgspec.json.decode(place[0].metadata_of(place[1]))
        return matches(node, metadata, self._schema)

    def scores_of(self, ids: Seq[str], places: Seq[Place | None]) -> list[float]:
        """The exact score of each id (distinct), 0 for one without any of the terms. places: of their vectors, in this view."""
        scores = dict.fromkeys(ids, 0.0)
        if not self._terms:
            return list(scores.values())
        if self._vector_stats is not None:
            self._score(scores, ids, places, self._vector_stats)
        if self._documents is not None and self._document_stats is not None:
            self._score(scores, ids, _locate(self._documents, list(ids)), self._document_stats)
        return list(scores.values())

    def _score(self, scores: dict[str, float], ids: Seq[str], places: Seq[Place | None], stats: TermStats) -> None:
        there = [(name, *place) for name, place in zip(ids, places, strict=True) if place is not None]
        for name, score in scores_at(there, self._terms, stats).items():
            scores[name] = max(scores[name], score)


def figures_of(views: Seq[DatabaseView]) -> TextFigures:
    """What the text indexes of these views hold."""
    documents = tokens = 0
    hashes = [np.empty(0, np.uint64)]
    for view in views:
        for part in _with_text(view):
            stats = _text_of(part).stats((), part.alive)
            documents += max(stats.document_count, default=0)
            tokens += sum(stats.total_length)
            hashes.append(_text_of(part).term_hashes())
    return TextFigures(documents, tokens, len(np.unique(np.concatenate(hashes))))


def _is_orphan(match: Match) -> bool:
    """Of a text whose id has no vector: whether it had one when the text was given."""
    return bool(msgspec.json.decode(match[2].metadata_of(match[3])).get(OF_VECTOR))


def _with_text(view: DatabaseView) -> list[Part]:
    return [part for part in view.parts if part.reader.text is not None]


def _text_of(part: Part) -> TextReader:
    text = part.reader.text
    assert text is not None
    return text


def _sum(parts: list[Part], terms: list[str]) -> TermStats | None:
    total: TermStats | None = None
    for part in parts:
        own = _text_of(part).stats(terms, part.alive)
        total = own if total is None else total + own
    return total


def _best(parts: list[Part], terms: list[str], stats: TermStats | None, k: int, node: Filter | None) -> list[Match]:
    ranked = []
    for part in parts:
        assert stats is not None
        reader = part.reader
        allowed = allowed_rows(part, node)
        if allowed is not None and allowed.count == 0:
            continue
        allow = None if allowed is None else allowed.as_bits(reader.row_count)
        # More than k come only where rows tie with the k-th: ids decide between them
        scores, rows = _text_of(part).search(terms, k, stats, allow)
        names = reader.ids_of(rows.tolist())
        found = [
            (score, name, reader, row) for score, name, row in zip(scores.tolist(), names, rows.tolist(), strict=True)
        ]
        ranked.append(merge.order(found)[:k])
    return merge.best(ranked, k) if ranked else []


def _locate(view: DatabaseView, ids: list[str]) -> list[Place | None]:
    places: list[Place | None] = [None] * len(ids)
    for shard in view.shards:
        for position, where in enumerate(shard.locate(ids)):
            if where is not None:
                places[position] = (where[0].reader, where[1])
    return places
