"""The demo's acts about searching: load, search by meaning, filter, combine with words, and measure recall and speed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import jadevectordb as jade
from jadevectordb.cli.demo_data import WordNet
from jadevectordb.cli.demo_show import Show

SCHEMA = {"words": "text", "gloss": "text", "pos": "string", "topic": "string", "gloss_length": "integer"}
_BATCH_ROWS = 1000
_TARGETS = (0.90, 0.95, 0.99)
_RECALL_SLACK = 0.03  # three standard errors of a mean over 200 queries of 10: less is chance, more is a broken promise
_PASSES = 5  # over all queries when timing
_SEARCH_PAUSE_S = 0.02  # between two searches while the index is built


def load(show: Show, database: jade.Database, data: WordNet) -> None:
    """Write all definitions, then wait for the index while searching."""
    n = len(data.ids)
    show.act(
        f"Load {n:,} definitions",
        "Every batch is on disk (fsync) and visible to searches when the call returns. Indexing goes on in the background.",
    )
    started = time.perf_counter()
    with show.bar("writing", n) as done:
        for at in range(0, n, _BATCH_ROWS):
            part = slice(at, at + _BATCH_ROWS)
            database.upsert(data.ids[part], data.vectors[part], data.metadata[part])
            done(min(at + _BATCH_ROWS, n))
    nearest = database.search(data.vectors[-1], k=1)
    searchable_s = time.perf_counter() - started
    if database.count() != n or nearest.ids != data.ids[-1:]:
        raise jade.JadeError(jade.ErrorCode.CORRUPT, "What was just written is not found: please report this.")
    with show.busy("building the index; searches are answered meanwhile"):
        meanwhile_ms = _search_until_indexed(database, data)
    indexed_s = time.perf_counter() - started
    stats = database.stats()
    values = data.vectors.shape[1]
    show.facts(
        [
            (
                "durable and searchable",
                f"{searchable_s:.2f} s   {n / searchable_s:,.0f} vectors/s of {values} values, with metadata",
            ),
            ("indexed", f"{indexed_s:.2f} s   {n / indexed_s:,.0f} vectors/s, with columns to filter by and full text"),
            ("searches meanwhile", _meanwhile_text(meanwhile_ms)),
            (
                "memory",
                f"{stats.memory_bytes / n:.0f} bytes a vector beyond the page cache ({4 * values} are its values)",
            ),
        ]
    )


def _search_until_indexed(database: jade.Database, data: WordNet) -> list[float]:
    """Search now and then until everything is indexed; times in ms."""
    times_ms: list[float] = []
    while True:
        try:
            database.wait_indexed(timeout=_SEARCH_PAUSE_S)
            return times_ms
        except jade.JadeError as error:
            if error.code is not jade.ErrorCode.TIMEOUT:
                raise
        query = data.queries[len(times_ms) % len(data.queries)]
        started = time.perf_counter()
        database.search(query, k=10)
        times_ms.append((time.perf_counter() - started) * 1e3)


def _meanwhile_text(times_ms: list[float]) -> str:
    if not times_ms:
        return "none: the index was ready at once"
    p50, p95 = np.percentile(times_ms, [50, 95])
    return f"{len(times_ms)} answered while the index was built, p50 {p50:.2f} ms, p95 {p95:.2f} ms"


def search(show: Show, database: jade.Database, data: WordNet) -> None:
    """Meaning, then meaning with a filter, then meaning with words."""
    show.act(
        "Search by meaning",
        "The questions are definitions held out of the data. What comes back means the same, whatever its words.",
    )
    for words in ("restoration", "rapid", "lasagna, lasagne"):
        at = data.query(words)
        _question(show, data, at)
        show.table(["score", "word", "definition"], _rows(database.search(data.queries[at], k=3)), ["score"])
    _filtered(show, database, data)
    _hybrid(show, database, data)


def _filtered(show: Show, database: jade.Database, data: WordNet) -> None:
    show.act(
        "Search with a filter",
        "A filter is decided before the best are taken, so there are always as many hits as match. The plan says how.",
    )
    at = data.query("flute, flute glass, champagne flute")
    condition: dict[str, Any] = {"topic": "noun.food", "gloss_length": {"$lte": 60}}
    _question(show, data, at, f"filter={condition}")
    hits = database.search(data.queries[at], k=3, filter=condition, explain=True)
    show.table(["score", "word", "definition"], _rows(hits), ["score"])
    _plan(show, hits)
    wide = {"pos": "noun"}
    show.say(f"The same with filter={wide}, which most rows match:")
    _plan(show, database.search(data.queries[at], k=3, filter=wide, explain=True))


def _plan(show: Show, hits: jade.Hits) -> None:
    """What the search did, in its own words, for each segment."""
    assert hits.explanation is not None
    for plan in hits.explanation.as_dict()["segments"]:
        if plan["rows"]:
            show.say(
                f"plan: {plan['matches']:,} of {plan['rows']:,} rows match, so {plan['strategy']} ({plan['reason']}); "
                f"{plan['compared']:,} rows compared exactly; "
                f"filter {plan['filter_us']:.0f} us, search {plan['search_us']:.0f} us",
                style="dim",
            )


def _hybrid(show: Show, database: jade.Database, data: WordNet) -> None:
    show.act(
        "Search by meaning and by words",
        "Full text (BM25) and vectors in one query, both rankings fused: the word steers what the meaning leaves open.",
    )
    at, text = data.query("shower"), "rain"
    _question(show, data, at, f"text={text!r}")
    by_vector = database.search(data.queries[at], k=3)
    by_both = database.search(data.queries[at], k=3, text=text)
    rows = [[str(i + 1), _of(a, 40), _of(b, 40)] for i, (a, b) in enumerate(zip(by_vector, by_both, strict=True))]
    show.table(["", "by meaning alone", f"with the word {text!r}"], rows, [""])


def recall(show: Show, database: jade.Database, data: WordNet) -> bool:
    """Measure recall@10 against the exact truth at each target; whether all were met."""
    m = len(data.queries)
    show.act(
        "Measure recall and speed",
        f"You ask for a recall, the database picks what it takes. {m} held-out queries, one thread, against the exact ten nearest.",
    )
    rows, kept = [], True
    with show.busy("measuring"):
        for target in (*_TARGETS, 1.0):
            found, times_us = _measure(database, data, target)
            kept = kept and found >= target - _RECALL_SLACK
            p50, p95 = np.percentile(times_us, [50, 95])
            name = "exact" if target == 1.0 else f"{target:.2f}"
            rows.append([name, f"{found:.4f}", f"{p50:.0f} us", f"{p95:.0f} us", f"{1e6 / np.mean(times_us):,.0f}"])
    show.table(
        ["asked", "recall@10", "p50", "p95", "searches/s"], rows, ["asked", "recall@10", "p50", "p95", "searches/s"]
    )
    show.verdict(kept, f"every recall asked for was reached, within {_RECALL_SLACK} (the chance of {m} queries)")
    return kept


def _measure(database: jade.Database, data: WordNet, target: float) -> tuple[float, list[float]]:
    """Mean recall@10, and the wall time of each search in microseconds; a first pass is for warming up and not timed."""
    names = [{data.ids[row] for row in nearest} for nearest in data.truth.tolist()]
    found, times_us = 0, []
    for query, nearest in zip(data.queries, names, strict=True):
        found += len(nearest.intersection(database.search(query, k=10, recall=target).ids))
    for _ in range(_PASSES):
        for query in data.queries:
            started = time.perf_counter()
            database.search(query, k=10, recall=target)
            times_us.append((time.perf_counter() - started) * 1e6)
    return found / (10 * len(names)), times_us


def _question(show: Show, data: WordNet, at: int, more: str = "") -> None:
    asked = data.query_metadata[at]
    show.say(f'"{asked["gloss"]}"  ({asked["words"]})' + (f"   {more}" if more else ""), style="bold")


def _rows(hits: jade.Hits) -> list[list[str]]:
    return [[f"{hit.score:.3f}", _words(hit.metadata), hit.metadata["gloss"]] for hit in hits]


def _words(metadata: dict[str, Any], length: int = 26) -> str:
    words = f"{metadata['words']} ({metadata['pos']})"
    return words if len(words) <= length else words.split(",", maxsplit=1)[0] + f" ({metadata['pos']})"


def _of(hit: jade.Hit, length: int) -> str:
    text = f"{hit.metadata['words'].split(',')[0]}: {hit.metadata['gloss']}"
    return text if len(text) <= length else text[: length - 3] + "..."
