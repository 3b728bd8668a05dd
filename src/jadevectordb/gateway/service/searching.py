"""One vector search, whatever the door: options in, hits out, recorded for analytics and metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, UnsetType

from jadevectordb.gateway.access.principals import Principal
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.embedded.hits import Hits, Item
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.gateway.service.numbers import shortest
from jadevectordb.gateway.service.services import Services
from jadevectordb.gateway.service.tracing import traced_search
from jadevectordb.model.errors import JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import K_MAX
from jadevectordb.query.awaiting import waiting

Included = Literal["metadata", "vector", "version"]


class SearchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a search may be told beside its vector, id or text; the names and meaning are those of `Database.search`."""

    k: Annotated[int, Meta(ge=1, le=K_MAX)] = 10
    filter: dict[str, Any] | None = None
    recall: Annotated[float, Meta(gt=0, le=1)] = 0.95
    threshold: float | None = None
    max_distance: float | None = None
    fusion: Literal["rrf", "weighted"] = "rrf"
    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.5
    exact: bool = False
    nprobe: Annotated[int, Meta(ge=1)] | None = None
    candidates: Annotated[int, Meta(ge=1)] | None = None
    ef_search: Annotated[int, Meta(ge=1)] | None = None
    group_by: str | None = None
    group_size: Annotated[int, Meta(ge=1)] = 1
    include: tuple[Included, ...] = ("metadata",)
    explain: bool = False
    allow_partial: bool = False  # of a cluster: an answer may lack shards that nobody answers for, and names them


_OBSERVED = frozenset({"k", "filter", "recall", "include", "seen", "allow_partial", "consistency"})
_PLAINLY: Mapping[str, Any] = {}
_ENGINE_NAMES = tuple(
    name
    for name in SearchOptions.__struct_fields__
    if name not in ("include", "k", "filter", "recall", "allow_partial")
)


def arguments_of(options: SearchOptions) -> dict[str, Any]:
    """The options as keyword arguments of `Database.search`; those with their default value are left out."""
    arguments: dict[str, Any] = {"k": options.k, "recall": options.recall}
    if options.filter:
        arguments["filter"] = options.filter
    for name in _ENGINE_NAMES:
        value = getattr(options, name)
        if value != _DEFAULTS[name]:
            arguments[name] = value
    return arguments


_DEFAULTS = {name: getattr(SearchOptions(), name) for name in _ENGINE_NAMES}


class FoundHit(msgspec.Struct, omit_defaults=True):
    """A hit as JSON. metadata, vector, version: when they were asked for."""

    id: str
    score: float
    metadata: msgspec.Raw | UnsetType = UNSET
    vector: list[float] | UnsetType = UNSET
    version: int | UnsetType = UNSET


def found(hits: Hits, include: tuple[str, ...], vectors: bool = True) -> list[FoundHit]:
    """vectors: False leaves them out although included, for answers that carry them as raw floats."""
    answer = [FoundHit(hit.id, hit.score) for hit in hits]
    if "metadata" in include:
        for plain, hit in zip(answer, hits, strict=True):
            plain.metadata = msgspec.Raw(hit.metadata_json)
    if "vector" in include and vectors and hits:
        for plain, row in zip(answer, as_lists(hits), strict=True):
            plain.vector = row
    if "version" in include:
        for plain, hit in zip(answer, hits, strict=True):
            plain.version = hit.version
    return answer


def as_lists(items: list[Any]) -> list[list[float]]:
    """The vectors of items as numbers in their shortest form."""
    rows = np.stack([item.vector for item in items])
    lists: list[list[float]] = (rows if rows.dtype != np.float32 else shortest(rows)).tolist()
    return lists


def as_list(item: Item) -> list[float]:
    return as_lists([item])[0]


async def searching(
    services: Services,
    entry: Entry,
    principal: Principal,
    vector: npt.NDArray[Any] | None,
    options: SearchOptions,
    *,
    vector_id: str | None = None,
    text: str | None = None,
    node: Filter | None = None,
    reading: Mapping[str, Any] = _PLAINLY,
) -> tuple[Hits, str]:
    """(hits, query id). The search is recorded with its real latency and outcome. Raises what `Database.search` raises.

    It waits (`query.awaiting`) for nothing but other nodes of a cluster. node: a filter already parsed, instead of the one in the
    options. reading: from `sessions`.
    """
    query_id = services.analytics.new_query_id()
    started = time.perf_counter()
    hits: Hits | None = None
    error = ""
    try:
        arguments = arguments_of(options)
        if node is not None:
            arguments["filter"] = node
        if vector_id is not None:
            arguments["id"] = vector_id
        if text is not None:
            arguments["text"] = text
        if reading:
            arguments.update(reading)
        handle, tracing = entry.handle, services.telemetry.tracing
        if isinstance(handle, ClusterDatabase):
            # What is not sent along would be fetched for each answer
            arguments["include"] = tuple(name for name in options.include if name != "version")
            if options.allow_partial:
                arguments["allow_partial"] = True
        if tracing.is_on:
            hits = traced_search(tracing, handle, vector, arguments)
        elif isinstance(handle, ClusterDatabase):
            hits = await handle.searching(vector, **arguments)
        else:
            hits = handle.search(vector, **arguments)
        return hits, query_id
    except JadeError as failure:
        error = str(failure.code)
        raise
    finally:
        seconds = time.perf_counter() - started
        kind = "vector" if text is None else ("bm25" if vector is None and vector_id is None else "hybrid")
        services.analytics.record(
            query_id=query_id,
            database=entry.id,
            user=principal.user_id,
            session=principal.credential_id,
            kind=kind,
            text=text or "",
            k=options.k,
            latency_ms=seconds * 1000,
            results=0 if hits is None else len(hits),
            error=error,
            fusion=options.fusion if kind == "hybrid" else "",
            alpha=options.alpha if kind == "hybrid" else None,
        )
        if hits is not None:
            services.telemetry.observe_search(
                entry, vector, options.k, arguments.get("filter"), options.recall, hits, seconds,
                options={name: value for name, value in arguments.items() if name not in _OBSERVED},
            )  # fmt: skip


search = waiting(searching)  # for who may wait in a thread


async def index_in_use(handle: AnyDatabase) -> str:
    """What most rows are searched with."""
    return await handle.finding_index_in_use() if isinstance(handle, ClusterDatabase) else handle.index_in_use
