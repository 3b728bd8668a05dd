"""A question to the shards of a database, what is known of the cluster to ask it, and what was answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Asked
from jadevectordb.ports.transport import Answerer
from jadevectordb.query.hedging import Hedging
from jadevectordb.topology.cluster_map import ClusterMap, NodeRecord

# What one replica may have and another not; everything else is the question's own fault, or everyone's
ELSEWHERE = frozenset(
    {
        ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.STALE_MAP, ErrorCode.CLOSED, ErrorCode.CORRUPT,
        ErrorCode.LOG_TRUNCATED, ErrorCode.IO_ERROR, ErrorCode.LOCKED, ErrorCode.INTERNAL_ERROR, ErrorCode.CANCELLED,
        ErrorCode.NOT_IMPLEMENTED,  # by a node of an older version, while nodes are being updated
    }
)  # fmt: skip


class Picture(Protocol):
    """What this node knows of the cluster now."""

    @property
    def map(self) -> ClusterMap: ...
    def node(self, name: str) -> NodeRecord | None: ...
    def is_alive(self, name: str) -> bool:
        """As far as this node can tell; a moment late both ways."""
        ...


class OwnReplicas(Answerer, Protocol):
    """What answers for the replicas of the node that asks; any thread may ask."""

    def answer_here(self, call: msgspec.Struct, limit_us: float) -> Any | None:
        """The answer, when it can be had in the calling thread within about so long; None: ask by `answer`.

        Raises what the answer says instead.
        """
        ...

    def applied(self, database: str) -> Mapping[int, tuple[int, int]]:
        """By shard that is open here: the place of its log up to which it is applied, and the newest hybrid time in it."""
        ...


@dataclass(slots=True)
class Question:
    """make: the call, from what all calls carry. at_least: sequences by shard that the answer must have seen.

    worker_s: how long one node may take. only: the one node to ask, "" = any replica. weighed: whether the time an answer takes says
    how busy a node is. accept: whether an answer counts; the others are taken when nobody has a better one.
    """

    database: str
    shards: tuple[int, ...]
    make: Callable[[Asked], msgspec.Struct]
    timeout_s: float
    worker_s: float
    at_least: Mapping[int, int] = field(default_factory=dict)
    allow_partial: bool = False
    hedging: Hedging | None = None
    only: str = ""
    weighed: bool = True
    accept: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    node: str
    shards: tuple[int, ...]
    answer: Any
    seconds: float


@dataclass(slots=True)
class Gathered:
    """answers: each shard is in at most one. missing: why no answer came for a shard. error: of the question itself."""

    answers: list[Answered] = field(default_factory=list)
    missing: dict[int, JadeError] = field(default_factory=dict)
    error: JadeError | None = None
    calls: int = 0
    hedges: int = 0

    def checked(self, question: Question) -> Gathered:
        """Raises when there is no answer, or a part of it and that is not enough."""
        if self.error is not None:
            raise self.error
        if self.missing and not (question.allow_partial and self.answers):
            raise _unanswered(self.missing)
        return self


OnDone = Callable[[Gathered], None]


def asked_of(question: Question, shards: tuple[int, ...], map_version: int, worker_s: float) -> Asked:
    return Asked(
        database=question.database,
        shards=shards,
        map_version=map_version,
        at_least=tuple((number, question.at_least[number]) for number in shards if number in question.at_least),
        wait_s=worker_s * 0.9,  # so that it is the other side that says what it waited for
    )


def as_jade_error(error: Exception) -> JadeError:
    if isinstance(error, JadeError):
        return error
    return JadeError(ErrorCode.INTERNAL_ERROR, f"A node failed to answer: {error!r}.")


def is_late(error: JadeError) -> bool:
    """Whether the node is slow, silent or behind its log, so that others are better asked first for a while."""
    return error.code is ErrorCode.TIMEOUT or "sent" in error.details or "behind" in error.details


def _unanswered(missing: Mapping[int, JadeError]) -> JadeError:
    """One error for all shards that did not answer."""
    shards = sorted(missing)
    reasons = list(dict.fromkeys(missing[number].message for number in shards))
    timed_out = all(error.code is ErrorCode.TIMEOUT for error in missing.values())
    named = ", ".join(map(str, shards[:20])) + (" and more" if len(shards) > 20 else "")
    return JadeError(
        ErrorCode.TIMEOUT if timed_out else ErrorCode.UNAVAILABLE,
        f"No answer from shard{'s' * (len(shards) > 1)} {named}: {' '.join(reasons[:3])} Retry in a moment, or take the answer "
        "of the others with allow_partial where that is enough.",
        details={"shards": shards, "codes": sorted({str(error.code) for error in missing.values()})},
    )
