"""Long work in steps, for callers that may lose interest: before every step `wanted` is asked, and may raise to end it there."""

from __future__ import annotations

from collections.abc import Callable

import numpy.typing as npt

from jadevectordb.gateway.embedded.arguments import count_of, recall_of
from jadevectordb.gateway.embedded.database import Database, FilterLike
from jadevectordb.gateway.embedded.hits import Hits
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.ports.clock import Clock
from jadevectordb.query import executor
from jadevectordb.query.plan import SearchRequest

Wanted = Callable[[], None]
_STEP_S = 0.25


def search_batch(
    database: Database, vectors: npt.ArrayLike, k: int, filter: FilterLike, recall: float, wanted: Wanted
) -> list[Hits]:
    """`Database.search_batch`, a query a step, all over the same view."""
    opened = database._use()
    k, recall = count_of(k, "k"), recall_of(recall)
    node, view = database._parse(filter), opened.view
    results = []
    for query in database._space.prepare_queries(vectors):
        wanted()
        request = SearchRequest(query, k, recall, node)
        results.append(Hits(database._hits(executor.search(view, request, None, None), request)))
    return results


def wait_indexed(database: Database, timeout_s: float, wanted: Wanted) -> None:
    """`Database.wait_indexed`, a fraction of a second a step."""
    opened = database._use()
    if not all(replica.is_settled for replica in opened.replicas):
        database._writer.seal(compact=False)
    _wait(opened, timeout_s, wanted)


def compact(database: Database, timeout_s: float, wanted: Wanted) -> None:
    """`Database.compact`, a fraction of a second a step. What was begun goes on when nobody waits for it any more."""
    opened = database._use()
    database._writer.seal(compact=True)
    _wait(opened, timeout_s, wanted)


def _wait(opened: OpenDatabase, timeout_s: float, wanted: Wanted) -> None:
    clock: Clock = opened.clock
    until_s = clock.monotonic_s() + timeout_s
    while True:
        wanted()
        left_s = until_s - clock.monotonic_s()
        try:
            return opened.maintenance.wait_settled(max(0.0, min(_STEP_S, left_s)))
        except JadeError as error:
            if error.code is not ErrorCode.TIMEOUT:
                raise
            if left_s <= _STEP_S:
                raise JadeError(
                    ErrorCode.TIMEOUT, f"Indexing was not complete after {timeout_s} s; it goes on in the background."
                ) from None
