"""From what a caller asks of a search to a checked request, and from the request to what the caller gets.

Apart from `Database` because every call here stays with one opening: nothing changes under it, whatever else goes on.
"""

from __future__ import annotations

import time

import msgspec
import numpy.typing as npt

from jadevectordb.gateway.embedded.arguments import count_of, loosened, names_of, number_of, recall_of
from jadevectordb.gateway.embedded.hits import Group, Hits
from jadevectordb.gateway.embedded.opening import FilterLike, Opening
from jadevectordb.index.api import RECALL_DEFAULT
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query import executor
from jadevectordb.query.plan import Explanation, SearchRequest
from jadevectordb.query.write_checks import invalid

_FUSIONS = ("rrf", "weighted")


def request_of(
    opening: Opening,
    vector: npt.ArrayLike | None,
    *,
    vector_id: str | None = None,
    k: int | None,
    filter: FilterLike,
    recall: float,
    text: str | None = None,
    fusion: str = "rrf",
    alpha: float = 0.5,
    threshold: float | None = None,
    max_distance: float | None = None,
) -> SearchRequest:
    """The arguments as `Database.search` has them, checked. Raises what is wrong with them, and NOT_FOUND for the vector id."""
    if vector is not None and vector_id is not None:
        raise invalid("search takes a vector or an id, not both.")
    if vector is None and vector_id is None and text is None:
        raise invalid("search needs a vector, an id or a text.")
    if k is None and max_distance is None:
        raise invalid("k=None (all hits) goes with max_distance.")
    if k is not None:
        k = count_of(k, "k")
    recall = recall_of(recall)
    if text is not None:
        check_text(opening.config, text, fusion, alpha)
        if threshold is not None or max_distance is not None:
            raise invalid("threshold and max_distance are about vectors: they can't be combined with text.")
    if vector_id is not None:
        vector = _vector_of(opening, vector_id)
    request = SearchRequest(
        None if vector is None else opening.space.prepare_query(vector),
        k,
        recall,
        opening.parse(filter),
        text=text,
        fusion=fusion,
        alpha=alpha,
        exclude_id=vector_id,
    )
    if threshold is not None:
        request.score_min = number_of(threshold, "threshold")
        request.similarity_min = loosened(opening.space.similarity_of_score(request.score_min))
    if max_distance is not None:
        if threshold is not None:
            raise invalid("threshold and max_distance say the same thing: give one of them.")
        request.distance_max = number_of(max_distance, "max_distance")
        request.similarity_min = loosened(opening.space.similarity_of_distance(request.distance_max))
        request.within = True
    return request


def check_text(config: DatabaseConfig, text: str, fusion: str, alpha: float) -> None:
    """Raises UNKNOWN_FIELD, INVALID_ARGUMENT."""
    if not config.schema.texts:
        raise JadeError(
            ErrorCode.UNKNOWN_FIELD,
            f"Database {config.name!r} declares no text field: "
            "create it with schema={'FIELD': 'text'} to search by text.",
        )
    if not isinstance(text, str):
        raise invalid(f"text must be a string, got {type(text).__name__}.")
    if fusion not in _FUSIONS:
        raise invalid(f"Unknown fusion {fusion!r}: use one of {', '.join(_FUSIONS)}.")
    if not 0.0 <= number_of(alpha, "alpha") <= 1.0:
        raise invalid(f"alpha must be 0 to 1 (the vector's share), got {alpha}.")


def _vector_of(opening: Opening, vector_id: str) -> npt.ArrayLike:
    if not isinstance(vector_id, str):
        raise invalid(f"id must be one string, got {vector_id!r:.80}.")
    item = opening.find(names_of(vector_id))[0]
    if item is None:
        name = opening.config.name
        raise JadeError(ErrorCode.NOT_FOUND, f"There is no vector {vector_id!r} in {name!r} to search by.")
    return item.vector


def hits_of(opening: Opening, request: SearchRequest, explain: bool) -> Hits:
    explanation, started = None, 0.0
    if explain:
        explanation, started = Explanation(request.recall), time.perf_counter()
    matches = executor.search(opening.view, request, opening.analyzer, explanation)
    hits = Hits(opening.hits(matches, request), explanation)
    if explanation is not None:
        explanation.total_us = (time.perf_counter() - started) * 1e6
    return hits


def hits_of_each(opening: Opening, vectors: npt.ArrayLike, k: int, filter: FilterLike, recall: float) -> list[Hits]:
    """Hits for each row of vectors (m, dimension), all over the same view."""
    k, recall = count_of(k, "k"), recall_of(recall)
    node, view = opening.parse(filter), opening.view
    overrides = opening.overrides if recall == RECALL_DEFAULT else None
    results = []
    for query in opening.space.prepare_queries(vectors):
        request = SearchRequest(query, k, recall, node, overrides)
        results.append(Hits(opening.hits(executor.search(view, request, None, None), request)))
    return results


def groups_of(opening: Opening, request: SearchRequest, group_by: str) -> list[Group]:
    """The hits of a request that asks for groups by this field, put together; in the order of each group's best hit."""
    matches = executor.search(opening.view, request, opening.analyzer, None)
    group_of = executor.group_reader(group_by)
    groups: dict[str, Group] = {}
    for hit, match in zip(opening.hits(matches, request), matches, strict=True):
        key = group_of(match)
        assert key is not None
        groups.setdefault(key, Group(msgspec.json.decode(key), [])).hits.append(hit)
    return list(groups.values())
