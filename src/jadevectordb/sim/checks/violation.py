"""What a checker found: which promise was broken, in a sentence, and the operations that show it, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from jadevectordb.sim.history import Answer, Event, Fate, Kind, Operation, Seen


class Rule(StrEnum):
    """The promises, named by how they break."""

    NEVER_WRITTEN = "a value that nobody wrote"
    FAILED_SEEN = "a failed write took effect"
    SEEN_TOO_EARLY = "a value was seen before it was written"
    APPLIED_TWICE = "a write was applied twice"
    ONE_PLACE = "two writes share one place in the log"
    VERSION_ORDER = "versions go against time"
    LOST_WRITE = "an acknowledged write was lost"
    STALE_READ = "a stale read"
    RESURRECTED = "an unacknowledged write came back"
    UNDELETED = "a deleted vector came back"
    CONDITION = "a condition was judged wrongly"
    NOT_LINEARIZABLE = "no order explains what was seen"
    SESSION = "a session went backwards"
    TORN_BATCH = "a batch was seen in part"
    MIXED_VIEW = "one view shows two moments"
    OLD_VIEW = "a STRONG read was served from an old view"
    SEARCH_SCORE = "a wrong score"
    SEARCH_FORM = "a malformed search result"
    REPLICAS = "replicas differ"


@dataclass(frozen=True, slots=True)
class Violation:
    """message: one sentence with names, values and times. evidence: the operations that show it, oldest first, a line each."""

    rule: Rule
    message: str
    evidence: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Undecided:
    """The checker gave up here; nothing is claimed about this id."""

    id: str
    reason: str


class Teller:
    """Puts operations into words; times are seconds since the history's first event."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self._start_s = events[0].time_s if events else 0.0

    def began(self, operation: Operation) -> str:
        return f"{operation.call.time_s - self._start_s:.3f}"

    def ended(self, operation: Operation) -> str:
        answer = operation.answer
        return "?" if answer is None else f"{answer.time_s - self._start_s:.3f}"

    def lines(self, operations: Iterable[Operation], *vector_ids: str) -> tuple[str, ...]:
        """One line an operation, oldest first, about these ids only."""
        unique = {operation.name: operation for operation in operations}
        return tuple(self.line(o, *vector_ids) for o in sorted(unique.values(), key=lambda o: o.start))

    def line(self, operation: Operation, *vector_ids: str) -> str:
        call = operation.call
        who = f"{call.process} in session {call.session}" if call.session else call.process
        text = f"[{self.began(operation)}, {self.ended(operation)}] {who}: {call.level} {call.kind} {operation.name}"
        said = self._change(operation, vector_ids) if operation.changes else self._found(operation, vector_ids)
        return f"{text} {said}"

    @staticmethod
    def _change(operation: Operation, vector_ids: tuple[str, ...]) -> str:
        parts = []
        for vector_id, value, expected, shard in operation.targets():
            if vector_id not in vector_ids:
                continue
            what = f'"{vector_id}"' + (f' = "{value}"' if operation.call.kind is Kind.WRITE else "")
            if expected >= 0:
                what += f" if version {expected}"
            fate = operation.fate_of(vector_id)
            what += f" -> {fate}"
            sequence = operation.sequences.get(shard) if shard is not None else None
            if fate is Fate.OK and sequence is not None:
                what += f", version {sequence}"
            parts.append(what)
        others = len(operation.call.ids) - len(parts)
        return ", ".join(parts) + (f" (and {others} more ids)" if others else "") + _why(operation.answer)

    @staticmethod
    def _found(operation: Operation, vector_ids: tuple[str, ...]) -> str:
        if operation.fate is not Fate.OK:
            return f"-> {operation.fate}{_why(operation.answer)}"
        return ", ".join(f"{found(seen)}" for seen in operation.seen if seen.id in vector_ids) or "-> nothing of these"


def found(seen: Seen) -> str:
    """As in `"k" -> "v" (version 7)`."""
    if seen.value is None:
        return f'"{seen.id}" -> absent'
    version = "" if seen.version is None else f" (version {seen.version})"
    return f'"{seen.id}" -> "{seen.value}"{version}'


def named(operation: Operation) -> str:
    """As in `QUORUM write w1:4`."""
    return f"{operation.call.level} {operation.call.kind} {operation.name}"


def _why(answer: Answer | None) -> str:
    if answer is None:
        return " (no answer)"
    if answer.refusal is not None:
        actual = answer.refusal.actual
        return f' (refused: "{answer.refusal.id}" had {"another version" if actual is None else f"version {actual}"})'
    return f" ({answer.error})" if answer.error else ""
