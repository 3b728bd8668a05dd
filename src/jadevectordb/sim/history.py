"""What clients of a cluster did and saw, in the order in which it happened: the evidence that the checkers judge.

A history is a list of events: a client calls (`Invocation`), it is answered (`Answer`), a fault begins or ends, everything
comes to rest. The position of an event in that list is the only clock that judgements use: an operation happened before another
if its answer stands before the other's invocation. Seconds are for people and for the lengths of outages.

What a write did is one of three things, and telling them apart is what a history is for:
- OK: it was acknowledged. From its answer on nobody who is promised the newest state may miss it.
- FAILED: it certainly did nothing, and never will.
- UNKNOWN: a timeout, a lost connection, a client that died. It may have taken effect, may take effect later, once, or never.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, TypeAlias

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError

NEVER: Final = sys.maxsize  # the position of what did not happen
UNCONDITIONAL: Final = -1  # in `if_version`


class Kind(StrEnum):
    WRITE = "write"
    DELETE = "delete"
    READ = "read"
    SEARCH = "search"


class Level(StrEnum):
    """What a write waits for, or a read is served from."""

    STRONG = "STRONG"
    QUORUM = "QUORUM"  # writes
    SESSION = "SESSION"  # reads
    EVENTUAL = "EVENTUAL"


class Fate(StrEnum):
    """What became of an operation, as far as its client can know."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a read found under one id, or one hit of a search. value: None = there is no such vector. score: of a hit."""

    id: str
    value: str | None = None
    version: int | None = None
    score: float | None = None


class Refused(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The condition that did not hold. actual: the version that stood there instead, 0 = no vector, None = not told."""

    id: str
    expected: int
    actual: int | None = None


class Invocation(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="call", omit_defaults=True, gc=False
):
    """A client is about to send this. op: unique in the history. process: who; one process may have several calls under way.

    values: of a write, one an id; no two writes of an id carry the same. if_version: one an id (-1 no condition, 0 must not exist).
    shards: of each id; None = not known: then versions are not compared. one_entry: its ids of one shard travel as one log
    entry, so that they share a version; all of them or none take effect in any case.
    request: of a write or delete, its request id, where it is told. query, k: of a search.
    session, token: the session it belongs to, and the sequences by shard that it carries.
    """

    op: str
    time_s: float
    process: str
    kind: Kind
    level: Level
    ids: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    if_version: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    one_entry: bool = True
    session: str = ""
    token: dict[int, int] = {}
    request: str = ""
    query: tuple[float, ...] = ()
    k: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="answer", omit_defaults=True, gc=False):
    """What came back.

    fates: of ids whose fate is not that of the whole. seen: of a read or search. refusal: the condition that made a write fail.
    sequences: by shard; of a write where its entry stands, of a read the watermark of the view that served it, when told (the
    view's own, not a token that was merged with others).
    """

    op: str
    time_s: float
    fate: Fate
    fates: dict[str, Fate] = {}
    sequences: dict[int, int] = {}
    seen: tuple[Seen, ...] = ()
    refusal: Refused | None = None
    error: str = ""


class FaultBegan(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="fault", gc=False):
    fault: str
    time_s: float
    kind: str  # "kill -9", "pause", "partition", ...
    target: str


class FaultEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="healed", gc=False):
    fault: str
    time_s: float


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="settled", gc=False):
    """Nothing called before is under way any more: outboxes are empty, no message is in flight. What has not taken effect never will."""

    time_s: float


class Conflict(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="conflict", gc=False):
    """The cluster's own list of conflicts says that this EVENTUAL write lost against another one.

    It is named by what it wrote (value), or by its request id, as a delete must be.
    """

    time_s: float
    id: str
    value: str = ""
    request: str = ""


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="replica", gc=False):
    """What one replica says of itself at the end. digest: of its whole contents, equal on every replica with this watermark."""

    time_s: float
    shard: int
    node: str
    watermark: int
    digest: str
    vectors: int


Event: TypeAlias = Invocation | Answer | FaultBegan | FaultEnded | Settled | Conflict | ReplicaReport


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A call with its answer. start < answered; answered = NEVER when no answer came."""

    call: Invocation
    answer: Answer | None
    start: int
    answered: int

    @property
    def name(self) -> str:
        return self.call.op

    @property
    def changes(self) -> bool:
        return self.call.kind in (Kind.WRITE, Kind.DELETE)

    @property
    def fate(self) -> Fate:
        return Fate.UNKNOWN if self.answer is None else self.answer.fate

    @property
    def seen(self) -> tuple[Seen, ...]:
        return self.answer.seen if self.answer is not None and self.answer.fate is Fate.OK else ()

    @property
    def sequences(self) -> dict[int, int]:
        return {} if self.answer is None else self.answer.sequences

    @property
    def refusal(self) -> Refused | None:
        return None if self.answer is None else self.answer.refusal

    def fate_of(self, vector_id: str) -> Fate:
        return Fate.UNKNOWN if self.answer is None else self.answer.fates.get(vector_id, self.answer.fate)

    def before(self, other: Operation) -> bool:
        """Whether it was over when the other began."""
        return self.answered < other.start

    def targets(self) -> Iterator[tuple[str, str | None, int, int | None]]:
        """id, value written (None: deleted), version it is conditional on (-1: none) and shard, of each id of a change."""
        call = self.call
        for place, vector_id in enumerate(call.ids):
            yield (
                vector_id,
                call.values[place] if call.kind is Kind.WRITE else None,
                UNCONDITIONAL if call.if_version is None else call.if_version[place],
                None if call.shards is None else call.shards[place],
            )


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    target: str
    start_s: float
    end_s: float | None  # None = it was never ended


class History:
    """The events and what they add up to. Immutable."""

    def __init__(self, events: Iterable[Event]) -> None:
        """Raises CORRUPT when the events contradict each other, INVALID_ARGUMENT when a write cannot be told from another."""
        self.events: tuple[Event, ...] = tuple(events)
        self.operations: list[Operation] = []  # by start
        self.faults: list[Fault] = []
        self.conflicts: set[tuple[str, str]] = set()  # (id, value)
        self.lost: set[tuple[str, str]] = set()  # (id, request)
        self.replicas: list[ReplicaReport] = []
        self._settled: list[int] = []  # positions
        self._assemble()

    def _assemble(self) -> None:
        calls: dict[str, tuple[Invocation, int]] = {}
        answers: dict[str, tuple[Answer, int]] = {}
        faults: dict[str, tuple[FaultBegan, float | None]] = {}
        newest_s = float("-inf")
        for position, event in enumerate(self.events):
            if event.time_s < newest_s:
                _corrupt(f"event {position} is {newest_s - event.time_s:.6f} s older than the one before it")
            newest_s = event.time_s
            match event:
                case Invocation():
                    if event.op in calls:
                        _corrupt(f"operation {event.op} was called twice")
                    _check_shape(event)
                    calls[event.op] = (event, position)
                case Answer():
                    if event.op not in calls:
                        _corrupt(f"operation {event.op} was answered before it was called")
                    if event.op in answers:
                        _corrupt(f"operation {event.op} was answered twice")
                    answers[event.op] = (event, position)
                case FaultBegan():
                    faults[event.fault] = (event, None)
                case FaultEnded():
                    if event.fault not in faults:
                        _corrupt(f"fault {event.fault} ended before it began")
                    faults[event.fault] = (faults[event.fault][0], event.time_s)
                case Settled():
                    self._settled.append(position)
                case Conflict():
                    if event.value:
                        self.conflicts.add((event.id, event.value))
                    if event.request:
                        self.lost.add((event.id, event.request))
                case ReplicaReport():
                    self.replicas.append(event)
        self.faults = [Fault(began.kind, began.target, began.time_s, end_s) for began, end_s in faults.values()]
        for call, start in calls.values():
            answer, answered = answers.get(call.op, (None, NEVER))
            self.operations.append(Operation(call, answer, start, answered))

    def has_lost(self, vector_id: str, value: str | None, call: Invocation) -> bool:
        """Whether the cluster said that this write or delete (value None) of the vector lost a conflict."""
        named = call.request and (vector_id, call.request) in self.lost
        return bool(named) or (value is not None and (vector_id, value) in self.conflicts)

    @property
    def duration_s(self) -> float:
        return self.events[-1].time_s - self.events[0].time_s if self.events else 0.0

    def settled_after(self, operation: Operation) -> int:
        """The position from which on the operation, whatever became of it, changes nothing any more; NEVER when that is not known."""
        since = operation.start if operation.answered == NEVER else operation.answered
        place = bisect_right(self._settled, since)
        return self._settled[place] if place < len(self._settled) else NEVER


def _check_shape(call: Invocation) -> None:
    expected = {
        "values": len(call.ids) if call.kind is Kind.WRITE else 0,
        "if_version": len(call.ids),
        "shards": len(call.ids),
    }
    for field, length in expected.items():
        given = getattr(call, field)
        if given is not None and len(given) != length:
            _corrupt(f"operation {call.op} has {len(call.ids)} ids and {len(given)} {field}")
    if call.kind in (Kind.WRITE, Kind.DELETE) and len(set(call.ids)) != len(call.ids):
        _corrupt(f"operation {call.op} names an id twice")


def _corrupt(why: str) -> NoReturn:
    raise JadeError(
        ErrorCode.CORRUPT,
        f"This is no history of one run on one clock: {why}. Record it anew.",
    )
