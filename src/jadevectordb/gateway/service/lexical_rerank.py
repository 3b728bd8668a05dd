"""The built-in re-ranker: how well a text covers the words of a query, judged among the candidates. Pure and deterministic.

It knows words, not meaning, and its name says so. A score is 0 to 1 and made of three parts, each 0 to 1 itself:

    coverage    the query's terms that the text has, a term weighing as much as it is rare among the candidates
    strength    the same with the share each term reaches of its greatest BM25 weight: repeated, and in a short text, counts more
    proximity   how close together the covered terms stand: 1 when they are neighbours, towards 0 the wider they are spread,
                times coverage; of one term it is coverage itself

    score = 0.5 coverage + 0.3 strength + 0.2 proximity

1 can be approached and is never passed; a text without any term of the query scores 0. Terms are stems, as in full-text search.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import islice

from jadevectordb.index.text import Analyzer
from jadevectordb.model.limits import QUERY_TERMS_MAX, RERANK_TEXT_LENGTH_MAX

NAME = "lexical-bm25-coverage"
_COVERAGE, _STRENGTH, _PROXIMITY = 0.5, 0.3, 0.2
_K1, _B = 1.2, 0.75


@dataclass(frozen=True, slots=True)
class _Document:
    length: int  # terms
    frequencies: dict[str, int]  # of the query's terms
    places: list[tuple[int, str]]  # where they stand, ascending


def lexical_scores(analyzer: Analyzer, query: str, texts: Seq[str]) -> list[float]:
    """A score for each text, 0 to 1. Of a query with more than QUERY_TERMS_MAX different terms the first are used."""
    terms = list(islice(dict.fromkeys(analyzer.terms(query[:RERANK_TEXT_LENGTH_MAX])), QUERY_TERMS_MAX))
    documents = [_read(analyzer, text, frozenset(terms)) for text in texts]
    if not terms or not documents:
        return [0.0] * len(texts)
    weights = _weights(terms, documents)
    total = math.fsum(weights.values())
    average = max(1.0, math.fsum(d.length for d in documents) / len(documents))
    return [_score(document, weights, total, average) for document in documents]


def _read(analyzer: Analyzer, text: str, wanted: frozenset[str]) -> _Document:
    terms = analyzer.terms(text[:RERANK_TEXT_LENGTH_MAX])
    places = [(place, term) for place, term in enumerate(terms) if term in wanted]
    return _Document(len(terms), dict(Counter(term for _, term in places)), places)


def _weights(terms: list[str], documents: list[_Document]) -> dict[str, float]:
    """BM25's rarity, among the candidates; a term that none of them has weighs most and counts against all alike."""
    count = len(documents)
    found = {term: sum(term in d.frequencies for d in documents) for term in terms}
    return {term: math.log(1 + (count - n + 0.5) / (n + 0.5)) for term, n in found.items()}


def _score(document: _Document, weights: dict[str, float], total: float, average: float) -> float:
    if not document.frequencies:
        return 0.0
    held_back = _K1 * (1 - _B + _B * document.length / average)
    coverage = math.fsum(weights[term] for term in document.frequencies) / total
    strength = math.fsum(weights[term] * n / (n + held_back) for term, n in document.frequencies.items()) / total
    proximity = coverage * _closeness(document)
    return min(1.0, _COVERAGE * coverage + _STRENGTH * strength + _PROXIMITY * proximity)


def _closeness(document: _Document) -> float:
    """1 when all different terms stand side by side: their number over the width of the narrowest window that has them all."""
    wanted = len(document.frequencies)
    if wanted == 1:
        return 1.0
    inside: Counter[str] = Counter()
    narrowest, left = document.length, 0
    for place, term in document.places:
        inside[term] += 1
        while len(inside) == wanted:
            start, first = document.places[left]
            narrowest = min(narrowest, place - start + 1)
            inside[first] -= 1
            if not inside[first]:
                del inside[first]
            left += 1
    return wanted / narrowest


def diversified(analyzer: Analyzer, scores: Seq[float], texts: Seq[str], diversity: float, k: int) -> list[int]:
    """Positions of k texts, chosen one after the other: relevant, and unlike those chosen before.

    Maximal marginal relevance (Carbonell & Goldstein 1998): each next one has the greatest
    (1 - diversity) * score - diversity * (greatest likeness to one chosen), likeness being the share of words two texts have in
    common (Jaccard). diversity: 0 = by score alone, 1 = by unlikeness alone. Equal ones keep their order.
    """
    assert 0 <= diversity <= 1 and len(scores) == len(texts)
    words = [frozenset(analyzer.terms(text[:RERANK_TEXT_LENGTH_MAX])) for text in texts]
    left = sorted(range(len(texts)), key=lambda at: (-scores[at], at))
    likeness = dict.fromkeys(left, 0.0)
    chosen: list[int] = []
    while left and len(chosen) < k:
        best = max(left, key=lambda at: (1 - diversity) * scores[at] - diversity * likeness[at])
        left.remove(best)
        chosen.append(best)
        for at in left:
            likeness[at] = max(likeness[at], _jaccard(words[at], words[best]))
    return chosen


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    either = len(a | b)
    return len(a & b) / either if either else 1.0
