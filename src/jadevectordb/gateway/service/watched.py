"""What telemetry needs of a database and of a search it is told about: small shapes, so that it knows neither catalog nor REST."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy.typing as npt

from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.model.errors import JadeError
from jadevectordb.model.filters import Filter, to_json
from jadevectordb.model.limits import SLOW_QUERY_TEXT_MAX
from jadevectordb.shard.view import DatabaseView

FilterLike = Filter | Mapping[str, Any] | None


class Named(Protocol):
    @property
    def name(self) -> str: ...


class WatchedDatabase(Protocol):
    """`service.catalog.Entry` is one. id: unique; names need not be."""

    @property
    def id(self) -> str: ...
    @property
    def record(self) -> Named: ...
    @property
    def handle(self) -> AnyDatabase: ...


class ScoredHit(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def score(self) -> float: ...


Hits = Sequence[ScoredHit]


@dataclass(frozen=True, slots=True)
class ObservedSearch:
    """A search that was answered. options: further arguments of `Database.search`, as they were given.

    view: what it saw, kept where the same question is asked again.
    """

    database: WatchedDatabase
    vector: npt.ArrayLike | None
    k: int | None
    filter: FilterLike
    recall: float
    hits: Hits
    seconds: float
    request_id: str
    options: Mapping[str, Any]
    view: DatabaseView | None = None

    def with_view(self, view: DatabaseView) -> ObservedSearch:
        return replace(self, view=view)


def filter_text(value: FilterLike) -> str:
    """The filter as text for people, cut to a bound; "" for none."""
    if value is None or value == {}:
        return ""
    try:
        text = to_json(value).decode() if isinstance(value, Filter) else str(value)  # a dict as it was sent
    except (JadeError, TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= SLOW_QUERY_TEXT_MAX else text[:SLOW_QUERY_TEXT_MAX] + "…"


class DutyCycle:
    """Keeps background work to a share of the time and a number a second. Used by one thread; others may ask `is_due`.

    share: of the wall time, so that work which takes long comes seldom. per_s_max: pieces a second, however short.
    """

    def __init__(self, share: float, per_s_max: float, monotonic_s: Callable[[], float]) -> None:
        assert 0 < share <= 1
        assert per_s_max > 0
        self._share = share
        self._gap_s_min = 1 / per_s_max
        self._monotonic_s = monotonic_s
        self._free_at_s = float("-inf")

    def is_due(self) -> bool:
        return self._monotonic_s() >= self._free_at_s

    def spent(self, started_s: float) -> None:
        """A piece of work that began at `started_s` has just ended."""
        now = self._monotonic_s()
        took = now - started_s
        self._free_at_s = max(now + took * (1 / self._share - 1), started_s + self._gap_s_min)

    @property
    def wait_s(self) -> float:
        """Seconds until work is due; 0 when it is."""
        return max(0.0, self._free_at_s - self._monotonic_s())
