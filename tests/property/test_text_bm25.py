"""BM25 over any split into blocks against a plain Python oracle: same rows, same order, and the same scores to the last bit."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jadevectordb.index import bitmap
from jadevectordb.index.text import Analyzer, GrowingText, TextConfig, TextReader, build_text, open_text
from jadevectordb.model.errors import JadeError

CONFIG = TextConfig(("title", "body.text"), language="none")
WORDS = ["a", "b", "c", "d", "rare", "common"]
texts = st.lists(st.sampled_from([*WORDS, "common", "common"]), max_size=8).map(" ".join)
documents = st.fixed_dictionaries(
    {}, optional={"title": texts, "body": st.fixed_dictionaries({"text": texts}), "n": st.integers()}
)


@st.composite
def corpora(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.lists(documents, min_size=1, max_size=40))
    count = len(rows)
    return {
        "rows": rows,
        "cuts": sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=4))}),
        "growing": draw(st.sets(st.integers(0, 4))),
        "dead": draw(st.sets(st.integers(0, count - 1))),
        "kept": draw(st.none() | st.sets(st.integers(0, count - 1))),
        "query": draw(st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=5)),
        "k": draw(st.integers(1, 50)),
        "boosts": draw(st.none() | st.just({"title": 3.0}) | st.just({"body.text": 0.0})),
    }


def oracle(corpus: dict[str, Any]) -> list[tuple[float, int]]:
    live = [row for row in range(len(corpus["rows"])) if row not in corpus["dead"]]
    fields: list[dict[int, Counter[str]]] = [{}, {}]
    for row in live:
        document = corpus["rows"][row]
        fields[0][row] = Counter(document.get("title", "").split())
        fields[1][row] = Counter(document.get("body", {}).get("text", "").split())
    scores: dict[int, float] = {}
    boosts = corpus["boosts"] or {}
    for name, field in zip(CONFIG.fields, fields, strict=True):
        lengths = {row: sum(counts.values()) for row, counts in field.items()}
        documents_with_text = sum(1 for length in lengths.values() if length)
        if boosts.get(name, 1.0) == 0 or not documents_with_text:
            continue
        average = sum(lengths.values()) / documents_with_text
        for term, repeats in sorted(Counter(corpus["query"]).items()):
            frequency = sum(1 for counts in field.values() if term in counts)
            rarity = math.log(1 + (documents_with_text - frequency + 0.5) / (frequency + 0.5))
            for row, counts in field.items():
                if term in counts and (corpus["kept"] is None or row in corpus["kept"]):
                    held_back = counts[term] + 1.2 * (1 - 0.75 + 0.75 * lengths[row] / average)
                    score = boosts.get(name, 1.0) * repeats * rarity * counts[term] * 2.2 / held_back
                    scores[row] = scores.get(row, 0.0) + score
    return sorted(((score, row) for row, score in scores.items()), key=lambda hit: (-np.float32(hit[0]), hit[1]))


def bits_of(rows: set[int], start: int, end: int) -> bitmap.Bitmap:
    return bitmap.from_rows(np.array([row - start for row in rows if start <= row < end], np.int64), end - start)


def hits_over(corpus: dict[str, Any], cuts: list[int], growing: set[int]) -> list[tuple[float, int]]:
    """All hits of all blocks between the cuts, those with a number in `growing` unsealed."""
    raw = [json.dumps(row).encode() for row in corpus["rows"]]
    alive = set(range(len(raw))) - corpus["dead"]
    kept = alive if corpus["kept"] is None else alive & corpus["kept"]
    blocks: list[tuple[int, int, TextReader]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (start, end) in enumerate(pairwise(cuts)):
            if number in growing:
                reader = GrowingText(CONFIG).reader(raw[start:], end - start)  # sees more rows than it may use
            else:
                directory = Path(folder, str(number))
                directory.mkdir()
                assert build_text(iter(raw[start:end]), CONFIG, directory) == ["text.index"]
                reader = open_text(directory, end - start)
            blocks.append((start, end, reader))
        terms = Analyzer(CONFIG).query_terms(" ".join(corpus["query"]))
        stats = reduce(add, [reader.stats(terms, bits_of(alive, start, end)) for start, end, reader in blocks])
        hits: list[tuple[float, int]] = []
        for start, end, reader in blocks:
            allow = bits_of(kept, start, end)
            scores, rows = reader.search(terms, corpus["k"], stats, allow, corpus["boosts"])
            assert scores.dtype == np.float32 and rows.dtype == np.int64
            hits += [(float(score), row + start) for score, row in zip(scores, rows.tolist(), strict=True)]
    return sorted(hits, key=lambda hit: (-hit[0], hit[1]))[: corpus["k"]]


@settings(max_examples=150, deadline=None)
@given(corpora())
def test_a_split_changes_nothing_and_the_oracle_agrees(corpus: dict[str, Any]) -> None:
    whole = hits_over(corpus, [0, len(corpus["rows"])], set())
    assert hits_over(corpus, corpus["cuts"], corpus["growing"]) == whole, "to the bit"
    expected = oracle(corpus)[: corpus["k"]]
    np.testing.assert_allclose([hit[0] for hit in whole], [hit[0] for hit in expected], rtol=1e-6)
    if len({round(hit[0], 5) for hit in expected}) == len(expected):  # else rounding decides between near-equal ones
        assert [hit[1] for hit in whole] == [hit[1] for hit in expected]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 10, 400]), st.booleans())
def test_the_ways_to_add_up_agree_to_the_bit(seed: int, k: int, deleted: bool) -> None:
    """Large enough for every way: rows looked up one by one, sums by row, sums over all rows; few and many hits."""
    generator = np.random.default_rng(seed)
    count = 3000
    words = np.array([f"w{n}" for n in range(200)])
    skewed = np.minimum(generator.geometric(0.05, (count, 6)) - 1, 199)
    raw = [json.dumps({"title": " ".join(row)}).encode() for row in words[skewed].tolist()]
    reader = GrowingText(CONFIG).reader(raw, count)
    live = bitmap.from_mask(generator.random(count) < generator.choice([0.1, 0.9, 0.99])) if deleted else None
    terms = [f"w{n}" for n in generator.integers(0, 60, generator.integers(1, 5)).tolist()]
    stats = reader.stats(terms, live)
    mask = (
        np.ones(count, np.bool_) if live is None else np.unpackbits(live, count=count, bitorder="little").astype(bool)
    )
    for field in range(2):
        for at, term in enumerate(stats.terms):
            posting = reader.posting(field, term)
            assert stats.document_frequency[field][at] == (0 if posting is None else int(mask[posting.rows].sum()))
    scores, rows = reader.search(terms, count, stats, live)
    best, best_rows = reader.search(terms, k, stats, live)
    end = int((scores >= scores[:k][-1]).sum()) if len(scores) else 0  # ties of the k-th are given whole
    assert best.tolist() == scores[:end].tolist() and best_rows.tolist() == rows[:end].tolist()
    for part in (0.5, 0.05, 0.002):
        few = bitmap.from_mask(mask & (generator.random(count) < part))
        some, some_rows = reader.search(terms, count, stats, few)
        inside = bitmap.contains(few, rows)
        assert some.tolist() == scores[inside].tolist() and some_rows.tolist() == rows[inside].tolist()


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_can_be_analysed(text: str) -> None:
    analyzer = Analyzer(TextConfig(("t",)))
    terms = analyzer.terms(text)
    assert all(term and len(term.encode()) <= 300 for term in terms)
    try:
        assert analyzer.query_terms(text) == terms
    except JadeError:
        assert len(set(terms)) > 64
