"""Full text: our BM25 postings beside tantivy's own index, 200,000 short documents, one thread, one run.

    .venv/bin/python bench/text_bm25.py [--documents 200000] [--words 10]

Documents are drawn from the WordNet definitions shipped with the project: words from their frequency table, so that common and
rare terms are as in real text. Both sides use the same analysis (words, lower case, accents folded, English stems), the same
k = 10, and answer with ids and scores. tantivy takes the rows to leave out (deleted ones) only as a query of its own, so it is
measured without any; our side is measured without, with 10 % of the rows deleted, and under a filter that keeps 10 %.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tantivy

from jadevectordb.index import bitmap
from jadevectordb.index.text import Analyzer, GrowingText, TermStats, TextConfig, build_text, open_text

GLOSSES = Path(__file__).parent.parent / "data" / "wordnet" / "wordnet_glosses.jsonl"
CONFIG = TextConfig(("text",))


def documents(count: int, words: int) -> list[str]:
    frequencies = Counter(
        word for line in GLOSSES.read_text().splitlines() for word in json.loads(line)["gloss"].lower().split()
    )
    names = np.array(list(frequencies))
    weights = np.array(list(frequencies.values()), np.float64)
    drawn = np.random.default_rng(7).choice(len(names), (count, words), p=weights / weights.sum())
    return [" ".join(row) for row in names[drawn].tolist()]


def tantivy_index(texts: list[str], directory: Path) -> tantivy.Index:
    schema = tantivy.SchemaBuilder().add_text_field("text", tokenizer_name="same")
    schema = schema.add_integer_field("row", stored=False, indexed=False, fast=True)
    index = tantivy.Index(schema.build(), str(directory))
    analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(tantivy.Filter.lowercase())
    analyzer = analyzer.filter(tantivy.Filter.ascii_fold()).filter(tantivy.Filter.stemmer("english"))
    index.register_tokenizer("same", analyzer.build())
    writer = index.writer(heap_size=256 << 20, num_threads=1)
    for row, text in enumerate(texts):
        writer.add_document(tantivy.Document(text=[text], row=row))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index


def milliseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 95th percentile, wall clock."""
    for _ in range(3):
        call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return float(np.median(taken)), float(np.percentile(taken, 95))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--documents", type=int, default=200_000)
    arguments.add_argument("--words", type=int, default=10)
    options = arguments.parse_args()
    texts = documents(options.documents, options.words)
    raw = [json.dumps({"text": text, "n": row}).encode() for row, text in enumerate(texts)]
    count = len(texts)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "tantivy")
        ours.mkdir()
        theirs.mkdir()
        wall, cpu = time.perf_counter(), time.process_time()
        build_text(raw, CONFIG, ours)
        built = time.perf_counter() - wall, time.process_time() - cpu
        wall, cpu = time.perf_counter(), time.process_time()
        rival = tantivy_index(texts, theirs)
        rival_built = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"build, {count} documents of {options.words} words: documents/s by wall clock (by CPU-second), MB on disk"
        )
        for name, (by_wall, by_cpu), where in (("ours", built, ours), ("tantivy", rival_built, theirs)):
            size = sum(file.stat().st_size for file in where.iterdir()) / 1e6
            print(f"  {name:<10}{count / by_wall:>9,.0f} ({count / by_cpu:,.0f}){size:>10.1f}")
        opened, _ = milliseconds(lambda: open_text(ours, count), 50)
        print(f"open: {opened:.2f} ms")
        search(texts, raw, ours, rival)


def search(texts: list[str], raw: list[bytes], ours: Path, rival: tantivy.Index) -> None:
    index = open_text(ours, len(texts))
    analyzer = Analyzer(CONFIG)
    searcher = rival.searcher()
    generator = np.random.default_rng(3)
    alive = bitmap.from_mask(generator.random(len(texts)) < 0.9)
    few = bitmap.from_mask(generator.random(len(texts)) < 0.1)

    def one(query: str, live: bitmap.Bitmap | None, allow: bitmap.Bitmap | None) -> object:
        terms = analyzer.query_terms(query)
        stats: TermStats = index.stats(terms, live)
        return index.search(terms, 10, stats, allow)

    def other(query: str) -> object:
        hits = searcher.search(rival.parse_query(query, ["text"]), 10, count=False).hits
        return [(score, address.doc) for score, address in hits]

    frequency = Counter(word for text in texts for word in set(text.split()))
    ranked = [word for word, _ in frequency.most_common() if word.isalpha()]
    rare = min(ranked, key=lambda word: abs(frequency[word] - 20))
    queries = {
        "most common term": ranked[0],
        "common term": ranked[20],
        "rare term": rare,
        "common + rare": f"{ranked[0]} {rare}",
        "4 middling terms": " ".join(ranked[200:800:150]),
        "8 terms, 4 common": " ".join([*ranked[:4], *ranked[200:800:150]]),
    }
    print(
        "\nsearch, k = 10, p50 / p95 ms        matches        ours           10 % deleted     filter of 10 %     tantivy"
    )
    for name, query in queries.items():
        matches = len(index.search(analyzer.terms(query), len(texts), index.stats(analyzer.terms(query)))[0])
        row = [
            milliseconds(lambda q=query: one(q, None, None), 100),
            milliseconds(lambda q=query: one(q, alive, alive), 100),
            milliseconds(lambda q=query: one(q, alive, bitmap.both(few, alive)), 100),
            milliseconds(lambda q=query: other(q), 100),
        ]
        print(f"  {name:<30}{matches:>10,}" + "".join(f"{p50:>10.3f} /{p95:>6.3f}" for p50, p95 in row))
    newest = raw[:20_000]
    growing = GrowingText(CONFIG)
    start = time.perf_counter()
    growing.reader(newest, len(newest)).stats(["a"])
    first = (time.perf_counter() - start) * 1e3
    common, _ = milliseconds(lambda: both_steps(growing, newest, analyzer.terms(ranked[0])), 100)
    print(
        f"\ngrowing, 20,000 rows: first search indexes them in {first:.0f} ms; then the most common term takes {common:.2f} ms"
    )


def both_steps(growing: GrowingText, metadata: list[bytes], terms: list[str]) -> object:
    view = growing.reader(metadata, len(metadata))
    return view.search(terms, 10, view.stats(terms))


if __name__ == "__main__":
    main()
