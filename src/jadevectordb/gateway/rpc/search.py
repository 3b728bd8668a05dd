"""SearchService: the hot path. A query travels as packed float32 and is looked at without a copy."""

from __future__ import annotations

from typing import Any

import msgspec

from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.generated import search_pb2 as wire
from jadevectordb.gateway.rpc.generated import types_pb2 as types
from jadevectordb.gateway.rpc.values import add_hits, filter_of, floats_of, invalid, queries_of
from jadevectordb.gateway.service import searching
from jadevectordb.gateway.service.searching import SearchOptions
from jadevectordb.model.filter_parse import parse
from jadevectordb.model.limits import SEARCH_BATCH_MAX

_K = 10
_RECALL = 0.95
_FUSIONS = {wire.FUSION_UNSPECIFIED: "rrf", wire.FUSION_RRF: "rrf", wire.FUSION_WEIGHTED: "weighted"}
# Fields of the message that go to the engine under their own names
_OPTIONS = frozenset(
    {"k", "recall", "threshold", "max_distance", "alpha", "exact", "nprobe", "candidates", "ef_search", "group_by",
     "group_size", "explain"}
)  # fmt: skip


def search(call: Call, request: wire.SearchRequest) -> wire.SearchResponse:
    vector, vector_id, text, session = None, None, None, ""
    selection: types.Selection | None = None
    options: dict[str, Any] = {}
    # One pass over the fields that are there; most of them seldom are
    for field, value in request.ListFields():
        name = field.name
        if name == "vector":
            vector = floats_of(value)
        elif name in _OPTIONS:
            options[name] = value
        elif name == "filter_json":
            options["filter"] = filter_of(value)
        elif name == "include":
            selection = value
        elif name == "session":
            session = value
        elif name == "id":
            vector_id = value
        elif name == "text":
            text = value
        elif name == "fusion":
            options["fusion"] = fusion_of(value)
    hits, _ = searching.search(
        call.services, call.entry, call.principal, vector, SearchOptions(**options), vector_id=vector_id, text=text,
        reading=call.reading(session),
    )  # fmt: skip
    call.did("")
    answer = wire.SearchResponse()
    add_hits(answer, hits, selection)
    if hits.explanation is not None:
        answer.explanation_json = msgspec.json.encode(hits.explanation.as_dict())
    session = call.session
    if session:
        answer.session = session
    return answer


def search_batch(call: Call, request: wire.SearchBatchRequest) -> wire.SearchBatchResponse:
    reading = call.reading(request.session)
    entry = call.entry
    queries = queries_of(request.vectors, entry.handle.dimension)
    if len(queries) > SEARCH_BATCH_MAX:
        raise invalid(f"A batch holds at most {SEARCH_BATCH_MAX} queries, got {len(queries)}.")
    options = SearchOptions(
        k=request.k or _K,
        filter=filter_of(request.filter_json),
        recall=request.recall if request.HasField("recall") else _RECALL,
    )
    node = None if options.filter is None else parse(options.filter, entry.handle.config.schema)
    selection = request.include if request.HasField("include") else None
    answer = wire.SearchBatchResponse()
    for query in queries:
        call.check_wanted()
        hits, _ = searching.search(call.services, entry, call.principal, query, options, node=node, reading=reading)
        add_hits(answer.results.add(), hits, selection)
    answer.session = call.session
    call.did(f"{len(queries)} queries")
    return answer


def fusion_of(number: Any) -> str:
    if number not in _FUSIONS:
        raise invalid(f"fusion has the unknown value {number}: this server knows rrf and weighted.")
    return _FUSIONS[number]
