"""A search by words over one view: first counted over all its rows, then scored with the counts (`index.text_bm25`).

The two steps are apart because the view may be a part of a whole: of a cluster's database each node counts what it has, and
scores with the sum over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from itertools import repeat
from time import perf_counter_ns

import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.index.api import Plan
from jadevectordb.index.text import TermStats, TextReader
from jadevectordb.model.errors import JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.query import merge
from jadevectordb.query.allowed import allowed_rows
from jadevectordb.query.noting import note
from jadevectordb.query.plan import Explanation, Match
from jadevectordb.segment.reader import SegmentReader
from jadevectordb.shard.view import DatabaseView, Part

_TEXT_PLAN = Plan("text", "postings of the words", 0)


class Words:
    """One query over one view of a database with text fields. terms: as the analyzer made them, repeats kept."""

    def __init__(self, view: DatabaseView, terms: Seq[str]) -> None:
        self._terms = terms
        # Asked for once: a reader of growing rows remembers what it copied of them
        self._parts = [(part, _text_of(part)) for part in view.parts] if terms else []

    def counted(self) -> TermStats | None:
        """Over all rows of the view; None for a view of nothing, or without terms. Raises CORRUPT."""
        total: TermStats | None = None
        for part, reader in self._parts:
            own = _stats(part, reader, self._terms)
            total = own if total is None else total + own
        return total

    def best(self, stats: TermStats | None, node: Filter | None, k: int, explain: Explanation | None) -> list[Match]:
        """The k best that match, best first, equal scores by id. stats: those of the whole that this view is, or is a part of."""
        ranked = []
        for part, reader in self._parts:
            assert stats is not None
            started = perf_counter_ns()
            allowed = allowed_rows(part, node)
            filtered = perf_counter_ns()
            if allowed is not None and allowed.count == 0:
                continue
            allow = None if allowed is None else allowed.as_bits(part.reader.row_count)
            score_array, row_array = reader.search(self._terms, k, stats, allow)
            if explain is not None:
                note(explain, part, allowed, started, filtered, _TEXT_PLAN)
            scores, rows = score_array.tolist(), row_array.tolist()
            id_of = part.reader.id_of
            if len(rows) > k:
                scores, rows = merge.cut_tie(scores, rows, k, id_of)
            ranked.append(merge.order(list(zip(scores, map(id_of, rows), repeat(part.reader), rows))))
        return merge.best(ranked, k) if ranked else []


def scores_at(places: Iterable[tuple[str, SegmentReader, int]], terms: Seq[str], stats: TermStats) -> dict[str, float]:
    """The exact score of each id that lies at one of these places (id, segment, row) and has any of the terms."""
    by_reader: dict[int, tuple[SegmentReader, dict[int, str]]] = {}
    for name, reader, row in places:
        by_reader.setdefault(id(reader), (reader, {}))[1][row] = name
    scores: dict[str, float] = {}
    for reader, names in by_reader.values():
        text = reader.text
        if text is None:
            continue
        allow = bitmap.from_rows(np.fromiter(sorted(names), np.int64), reader.row_count)
        found, rows = text.search(terms, len(names), stats, allow)
        scores.update((names[row], score) for score, row in zip(found.tolist(), rows.tolist(), strict=True))
    return scores


def _text_of(part: Part) -> TextReader:
    reader = part.reader.text
    assert reader is not None, "a database with text fields has a text index in every segment"
    return reader


def _stats(part: Part, reader: TextReader, terms: Seq[str]) -> TermStats:
    try:
        return reader.stats(terms, part.alive)
    except JadeError as error:  # rows without a text index are read here for the first time
        raise part.reader.blame(error) from error
