"""Long work in steps, for callers that may lose interest: before every step `wanted` is asked, and may raise to end it there."""

from __future__ import annotations

from collections.abc import Callable

import numpy.typing as npt

from jadevectordb.gateway.embedded.arguments import count_of, recall_of
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.gateway.embedded.opening import FilterLike
from jadevectordb.index.api import RECALL_DEFAULT
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.query import executor
from jadevectordb.query.plan import SearchRequest

Wanted = Callable[[], None]
_STEP_S = 0.25


def search_batch(
    database: Database, vectors: npt.ArrayLike, k: int, filter: FilterLike, recall: float, wanted: Wanted
) -> list[Hits]:
    """`Database.search_batch`, a query a step, all over the same view."""
    opening = database._now()
    k, recall = count_of(k, "k"), recall_of(recall)
    node, view = opening.parse(filter), opening.view
    overrides = opening.overrides if recall == RECALL_DEFAULT else None
    results = []
    for query in opening.space.prepare_queries(vectors):
        wanted()
        request = SearchRequest(query, k, recall, node, overrides)
        results.append(Hits(opening.hits(executor.search(view, request, None, None), request)))
    return results


def wait_indexed(database: Database, timeout_s: float, wanted: Wanted) -> None:
    """`Database.wait_indexed`, a fraction of a second a step."""
    database._seal(compact=False)
    _wait(database, timeout_s, wanted)


def compact(database: Database, timeout_s: float, wanted: Wanted) -> None:
    """`Database.compact`, a fraction of a second a step. What was begun goes on when nobody waits for it any more."""
    database._seal(compact=True)
    _wait(database, timeout_s, wanted)


def _wait(database: Database, timeout_s: float, wanted: Wanted) -> None:
    clock: Clock = database._use().clock
    until_s = clock.monotonic_s() + timeout_s
    while True:
        wanted()
        left_s = until_s - clock.monotonic_s()
        try:
            return database._wait_settled(max(0.0, min(_STEP_S, left_s)))
        except JadeError as error:
            if error.code is not ErrorCode.TIMEOUT:
                raise
            if left_s <= _STEP_S:
                raise JadeError(
                    ErrorCode.TIMEOUT, f"Indexing was not complete after {timeout_s} s; it goes on in the background."
                ) from None
