"""What a node does with a question that has words: counts them in its replicas, ranks with the counts of all, scores single ids.

Functions over replicas and a call, as in `asking`.
"""

from __future__ import annotations

import time

import msgspec
import numpy as np

from jadevectordb.gateway.cluster.asking import CheckWanted, Held, request_of_options, rows_of
from jadevectordb.gateway.embedded.arguments import names_of
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.index.text import TermStats
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows
from jadevectordb.ports.node_calls import FoundWords, Judge, Judged, LookAtText, SearchWords, TextFigures, Totals
from jadevectordb.query import executor
from jadevectordb.query.plan import Explanation, Match
from jadevectordb.query.words import Words, scores_at

_US_A_SHARD = 60.0  # a search by words over nothing,
_US_A_ROW = 0.02  # and for each row and term at most, as every row may have every term


def cost_us(held: Held, call: SearchWords) -> float:
    """About what a search takes at most, its rows being analysed."""
    live = sum(view.live for view in held.views)
    by_vector = held.cost_us() if call.query else 0.0
    return by_vector + _US_A_SHARD * len(held.views) + _US_A_ROW * live * len(call.terms)


def search_words(held: Held, call: SearchWords, check_wanted: CheckWanted) -> FoundWords:
    """Counts, and with them, or with those given, the rankings of all the shards. Raises as `asking.search`, and UNAVAILABLE."""
    started = time.perf_counter()
    _check_fields(held, call)
    check_wanted()
    view = held.view
    words = Words(view, call.terms)
    own = words.counted() or TermStats.of_nothing(call.terms, len(call.fields))
    stats = stats_of(call.totals) if call.totals is not None else own
    answer = FoundWords(totals=totals_of(own), live=view.live, watermarks=held.watermarks)
    if call.options.get("k") == 0 or (call.totals is None and call.shards_all != len(held.views)):
        return answer
    check_wanted()
    request = request_of_options(held.one, _query(held, call.query), call.options)
    request.exclude_id = call.exclude or None
    explanation = Explanation(request.recall) if call.explain else None
    k = request.k
    assert k is not None

    def best(depth: int) -> list[Match]:
        return words.best(stats, request.filter, depth, explanation)

    by_vector = executor.nearest(view, request, k, explanation) if request.query is not None else []
    check_wanted()
    if request.group_by is None:
        by_text = best(k)
    else:
        most = view.live
        by_text = executor.grouped(best, k, request.group_by, request.group_size, lambda: most, explanation)
    _tell(answer, held, call, by_vector, by_text)
    answer.search_us = (time.perf_counter() - started) * 1e6
    if explanation is not None:
        explanation.total_us = answer.search_us
        answer.explanation = msgspec.json.encode(explanation.as_dict())
    return answer


def _tell(answer: FoundWords, held: Held, call: SearchWords, by_vector: list[Match], by_text: list[Match]) -> None:
    places: dict[str, int] = {}
    items: list[Item] = []
    for _, name, reader, row in (*by_vector, *by_text):
        if name not in places:
            places[name] = len(items)
            items.append(Item(name, reader, row, held.one.unpacker))
    answer.is_scored = True
    answer.ids = list(places)
    answer.versions = [item.version for item in items]
    answer.metadata = [item.metadata_json for item in items] if "metadata" in call.include else []
    answer.vectors = rows_of(items) if "vector" in call.include else b""
    answer.by_vector, answer.similarities = [places[match[1]] for match in by_vector], [match[0] for match in by_vector]
    answer.by_text, answer.text_scores = [places[match[1]] for match in by_text], [match[0] for match in by_text]


def judge(held: Held, call: Judge, check_wanted: CheckWanted) -> Judged:
    """The exact scores of the ids that are here."""
    _check_fields(held, call)
    names = names_of(call.ids)
    places = []
    for view in held.views:
        check_wanted()
        located = zip(names, view.locate(names), strict=True)
        places += [(name, at[0].reader, at[1]) for name, at in located if at is not None]
    query = _query(held, call.query)
    prepared: Rows | None = None if query is None else held.one.space.prepare_query(query)
    by_vector = {} if prepared is None else executor.similarities_at(prepared, places)
    by_text = scores_at(places, call.terms, stats_of(call.totals)) if call.terms and call.totals is not None else {}
    ids = [name for name, _, _ in places]
    return Judged(
        ids=ids,
        similarities=[by_vector[name] for name in ids] if prepared is not None else [],
        text_scores=[by_text.get(name, 0.0) for name in ids],
        watermarks=held.watermarks,
    )


def look_at_text(held: Held, call: LookAtText, check_wanted: CheckWanted) -> TextFigures:
    """What the text indexes of the shards hold."""
    documents = tokens = 0
    hashes = [np.empty(0, np.uint64)]
    for part in held.view.parts:
        check_wanted()
        reader = part.reader.text
        if reader is not None:
            stats = reader.stats((), part.alive)
            documents += max(stats.document_count, default=0)
            tokens += sum(stats.total_length)
            hashes.append(reader.term_hashes())
    terms = np.unique(np.concatenate(hashes))
    sent = terms[terms % np.uint64(call.parts) == call.part] if call.parts else terms[:0]
    return TextFigures(
        documents=documents,
        tokens=tokens,
        terms=len(terms),
        hashes=sent.astype("<u8").tobytes(),
        watermarks=held.watermarks,
    )


def _check_fields(held: Held, call: SearchWords | Judge) -> None:
    """Counts are by field: they add only where all have the same ones."""
    for shard, opening in zip(held.shards, held.openings, strict=True):
        if call.terms and opening.config.schema.texts != call.fields:
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"The replica of shard {shard} has the text fields {list(opening.config.schema.texts)}, asked for are "
                f"{list(call.fields)}: the schema is being changed, retry in a moment.",
                details={"shard": shard},
            )


def _query(held: Held, query: bytes) -> Rows | None:
    if not query:
        return None
    return np.frombuffer(query, np.uint8 if held.one.config.metric is Metric.HAMMING else np.dtype("<f4"))


def stats_of(totals: Totals) -> TermStats:
    """Raises INVALID_ARGUMENT for counts that can't be."""
    shape = len(totals.document_frequency), len(totals.total_length), len(totals.document_count)
    if len(set(shape)) != 1 or any(len(field) != len(totals.terms) for field in totals.document_frequency):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, "The counts of a query's terms do not fit each other.")
    return TermStats(totals.terms, totals.document_frequency, totals.document_count, totals.total_length)


def totals_of(stats: TermStats) -> Totals:
    return Totals(
        terms=stats.terms,
        document_frequency=stats.document_frequency,
        document_count=stats.document_count,
        total_length=stats.total_length,
    )
