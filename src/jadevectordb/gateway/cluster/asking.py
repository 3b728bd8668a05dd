"""What a node does with one question about its replicas, once they have applied what they must have: search, get, scroll, count, look.

Functions over replicas and a call; when, in which thread and for whom is `answering`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from itertools import islice
from typing import Any, assert_never

import msgspec
import numpy as np

from jadevectordb.gateway.embedded.arguments import count_of, group_into, names_of, overrides_of, place_of
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.embedded.opening import Opening
from jadevectordb.gateway.embedded.searching import request_of
from jadevectordb.gateway.embedded.stats import stats_of
from jadevectordb.index.api import RECALL_DEFAULT
from jadevectordb.model import filters
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import HURRY_S_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows
from jadevectordb.model.schema import parse_schema
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.shard_log import ShardLog
from jadevectordb.ports.node_calls import (
    Aged,
    CheckSchema,
    Count,
    Counted,
    Found,
    Get,
    Items,
    Look,
    Looked,
    LookedAt,
    Scroll,
    Search,
)
from jadevectordb.query import executor, merge, scan
from jadevectordb.query.aged import written_up_to
from jadevectordb.query.plan import Explanation, Match, SearchRequest
from jadevectordb.query.schema_check import check_stored
from jadevectordb.shard.view import DatabaseView, ShardView

_OPTIONS = frozenset(
    ("k", "recall", "filter", "threshold", "max_distance", "exact", "nprobe", "candidates", "ef_search", "group_by", "group_size")
)  # fmt: skip
CheckWanted = Callable[[], None]  # raises CANCELLED when nobody waits for the answer any more


class Held:
    """The replicas asked, as of now. openings: one a shard, in the order of `shards`."""

    def __init__(self, shards: Seq[int], openings: Seq[Opening]) -> None:
        self.shards = shards
        self.openings = openings
        self.views: list[ShardView] = [opening.view.shards[0] for opening in openings]

    @property
    def one(self) -> Opening:
        """They are configured alike: any can say what the database is."""
        return self.openings[0]

    @property
    def view(self) -> DatabaseView:
        return DatabaseView.of(tuple(self.views))

    @property
    def watermarks(self) -> list[tuple[int, int]]:
        return [(shard, int(view.watermark)) for shard, view in zip(self.shards, self.views, strict=True)]

    def cost_us(self) -> float:
        return sum(opening.search_cost_us() for opening in self.openings)


def search(held: Held, call: Search, check_wanted: CheckWanted) -> Found:
    """The best of all the shards. Raises what is wrong with the request, CORRUPT, CANCELLED."""
    started = time.perf_counter()
    opening = held.one
    request = search_request(opening, call)
    explanation = Explanation(request.recall) if call.explain else None
    matches = _matches(held, request, explanation, check_wanted, distinct=call.distinct)
    hits = opening.hits(matches, request)
    elapsed_us = (time.perf_counter() - started) * 1e6
    if explanation is not None:
        explanation.total_us = elapsed_us
    include = call.include
    return Found(
        ids=[hit.id for hit in hits],
        scores=[hit.score for hit in hits],
        versions=[hit.version for hit in hits],
        metadata=[hit.metadata_json for hit in hits] if "metadata" in include else [],
        vectors=rows_of(hits) if "vector" in include else b"",
        watermarks=held.watermarks,
        explanation=b"" if explanation is None else msgspec.json.encode(explanation.as_dict()),
        search_us=elapsed_us,
    )


def _matches(
    held: Held,
    request: SearchRequest,
    explanation: Explanation | None,
    check_wanted: CheckWanted,
    *,
    distinct: bool,
) -> list[Match]:
    if len(held.views) == 1 or request.group_by is not None:  # groups are chosen among the rows of all shards
        check_wanted()
        return executor.search(held.view, request, None, explanation)
    ranked = []
    for view in held.views:
        check_wanted()
        found = executor.search(DatabaseView.of((view,)), request, None, explanation)
        if found:
            ranked.append(found)
    if distinct:
        ranked = merge.newest(ranked)
    return merge.best(ranked, request.k) if ranked else []


def search_request(opening: Opening, call: Search) -> SearchRequest:
    """The request that a call makes, checked. Raises what is wrong with it."""
    dtype = np.uint8 if opening.config.metric is Metric.HAMMING else np.dtype("<f4")
    return request_of_options(opening, np.frombuffer(call.query, dtype), call.options)


def request_of_options(opening: Opening, query: Rows | None, given: Mapping[str, object]) -> SearchRequest:
    """query: None of a search by words alone."""
    options: dict[str, Any] = dict(given)
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"This node does not know the search options {sorted(unknown)}: update it."
        )
    recall = options.get("recall", RECALL_DEFAULT)
    request = request_of(
        opening,
        query,
        text=None if query is not None else "",
        k=options.get("k", 10),
        filter=filter_of(opening, options.get("filter")),
        recall=recall,
        threshold=options.get("threshold"),
        max_distance=options.get("max_distance"),
    )
    by_hand = [options.get(name) for name in ("nprobe", "candidates", "ef_search")]
    if options.get("exact") or any(value is not None for value in by_hand):
        request.overrides = overrides_of(bool(options.get("exact")), *by_hand)
    elif request.recall == RECALL_DEFAULT:
        request.overrides = opening.overrides
    if options.get("group_by") is not None:
        group_into(request, options["group_by"], options.get("group_size") or 1)
    return request


def filter_of(opening: Opening, value: object) -> Filter | None:
    """A filter as it travels: bytes as `filters.to_json` wrote them, or a dict as a client would send."""
    if value is None or value == b"":
        return None
    if isinstance(value, bytes):
        return filters.from_json(value)
    return opening.parse(value)  # type: ignore[arg-type]  # anything else is refused there


def get(held: Held, call: Get, check_wanted: CheckWanted) -> Items:
    names = names_of(call.ids)
    found: list[Item] = []
    for opening, view in zip(held.openings, held.views, strict=True):
        check_wanted()
        located = zip(names, view.locate(names), strict=True)
        found += [Item(name, at[0].reader, at[1], opening.unpacker) for name, at in located if at is not None]
    items = _items(held, found, vectors=call.vectors)
    items.departed, items.forgotten = _departed(held, names, call.departed_since)
    return items


def _departed(held: Held, names: Seq[str], since: int) -> tuple[list[tuple[str, int, int]], int]:
    """What left these shards for others: of these ids the latest departure from any, and of all others those after `since`."""
    told: dict[str, tuple[str, int, int]] = {}
    for departures in (view.departures for view in held.views if not view.departures.is_empty):
        latest = [(name, *left) for name in names if (left := departures.latest(name)) is not None]
        for one in (*latest, *(departures.since(since) if since >= 0 else ())):
            if one[0] not in told or told[one[0]][1] < one[1]:
                told[one[0]] = one
    return list(told.values()), max(view.departures.forgotten for view in held.views)


def scroll(held: Held, call: Scroll, check_wanted: CheckWanted) -> Items:
    limit = count_of(call.limit, "limit")
    check_wanted()
    after = place_of(call.after or None)
    found = scan.page(held.view, filter_of(held.one, call.filter), after, limit)
    return _items(held, held.one.items(found), vectors=call.vectors)


def count(held: Held, call: Count, check_wanted: CheckWanted) -> Counted:
    check_wanted()
    return Counted(count=scan.count(held.view, filter_of(held.one, call.filter)), watermarks=held.watermarks)


def check_schema(held: Held, call: CheckSchema, check_wanted: CheckWanted) -> Counted:
    """Raises SCHEMA_VIOLATION naming a vector that does not fit."""
    schema = parse_schema(call.fields, strict=call.strict)
    for view in held.views:
        check_wanted()
        check_stored(DatabaseView.of((view,)), schema, None)
    return Counted(count=held.view.live, watermarks=held.watermarks)


def aged(held: Held, call: Aged, check_wanted: CheckWanted) -> Items:
    check_wanted()
    found = islice(written_up_to(held.view, [call.up_to] * len(held.views)), count_of(call.limit, "limit"))
    unpacker = held.one.unpacker
    items = [Item(reader.id_of(row), reader, row, unpacker) for reader, row in found]
    return _items(held, items, vectors=True)


def look(held: Held, call: Look, check_wanted: CheckWanted) -> Looked:
    by_shard = []
    for shard, opening in zip(held.shards, held.openings, strict=True):
        check_wanted()
        database = opening.database
        if call.hurry_s > 0:
            database.maintenance.hurry(min(call.hurry_s, HURRY_S_MAX))
        by_shard.append((shard, msgspec.json.encode(_seen(database, call.what))))
    return Looked(by_shard=by_shard)


def _seen(database: OpenDatabase, what: LookedAt) -> object:
    match what:
        case "stats":
            return stats_of(database)
        case "digest":
            return database.replicas[0].digest()
        case "verify":
            return _damage_in(database)
        case "log_end":
            assert isinstance(database.log, ShardLog), "a replica follows a replicated log"
            return int(database.log.end())
        case "conflicts":
            return database.replicas[0].conflicts()
        case unknown:
            assert_never(unknown)


def _damage_in(database: OpenDatabase) -> str:
    """An answer, not an error: an asker would go elsewhere with it. Who hosts the replica sees `damage`, and replaces it."""
    try:
        database.verify()
    except JadeError as error:
        if error.code is not ErrorCode.CORRUPT:
            raise
        database.damage = error
        return error.message
    return ""


def _items(held: Held, found: list[Item], *, vectors: bool) -> Items:
    return Items(
        ids=[item.id for item in found],
        versions=[item.version for item in found],
        metadata=[item.metadata_json for item in found],
        vectors=rows_of(found) if vectors else b"",
        watermarks=held.watermarks,
    )


def rows_of(items: Iterable[Item]) -> bytes:
    return b"".join(np.ascontiguousarray(item.vector).tobytes() for item in items)
