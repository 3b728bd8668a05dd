"""What became of a write to a cluster, entry by entry, and what is told of the whole: never more than is known.

appended, applied      counted in the result
refused by a condition VERSION_CONFLICT for the ids of that entry
not appended           the log's error; `details["undecided"]` where it may have been, or may be yet
appended, not applied  it is durable, and will be; no replica said so in time, so the outcome is not known here

Whatever became of it, a client that was told must not be shown less afterwards: `details["durable"]` of an error says how far the
request stands in each shard's log, as the sequences of a result do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import VectorId
from jadevectordb.model.limits import FAILED_IDS_NAMED_MAX
from jadevectordb.model.operations import Entry, Operation, Seal, Write
from jadevectordb.ports.node_calls import Applied
from jadevectordb.query.levels import WriteLevel
from jadevectordb.query.question import Gathered
from jadevectordb.query.writer import Failed, WriteResult, conflict


@dataclass(slots=True)
class WritePart:
    """One entry of a request."""

    shard: int
    names: list[VectorId]  # that it is about; none for a filter, a seal
    entry: Entry
    sequence: int = 0  # in its shard's log, 0 = not known to be there
    applied: Applied | None = None
    error: JadeError | None = None

    @property
    def known_sequence(self) -> int:
        """Of the entry that decided: an earlier one where this repeats a request."""
        return self.applied.sequence if self.applied is not None and self.applied.known else self.sequence


@dataclass(slots=True)
class WriteRequest:
    parts: list[WritePart]
    level: WriteLevel
    conditional: bool
    until_s: float
    partial: bool = False
    by_shard: dict[int, list[WritePart]] = field(default_factory=dict)


def outcome_of(part: WritePart, found: Gathered) -> tuple[Applied | None, JadeError | None]:
    if found.error is not None:
        return None, found.error
    if found.missing:
        return None, unconfirmed(part.shard, part.sequence, "any replica")
    applied: Applied = found.answers[0].answer
    if applied.known or _is_known_beforehand(part.entry.operation):
        return applied, None
    return None, JadeError(
        ErrorCode.UNAVAILABLE,
        f"The write is durable and applied (entry {part.sequence} of shard {part.shard}), but what it did is no longer remembered: "
        "read the vectors to see.",
        details={"undecided": True, "durable": {part.shard: part.sequence}},
    )


def _is_known_beforehand(operation: Operation) -> bool:
    """What such an entry does needs no replica that remembers it: one that was opened anew since does not."""
    return isinstance(operation, Seal) or (isinstance(operation, Write) and operation.if_version is None)


def unconfirmed(shard: int, sequence: int, by: str) -> JadeError:
    return JadeError(
        ErrorCode.UNAVAILABLE,
        f"The write is durable (entry {sequence} of shard {shard}) and will be applied, but that was not confirmed in time by "
        f"{by}: sending it again with the same request id is safe.",
        details={"undecided": True, "durable": {shard: sequence}},
    )


def sequences_of(request: WriteRequest) -> dict[int, int]:
    """The newest entry of the request in each shard's log, refused and unconfirmed ones too."""
    newest: dict[int, int] = {}
    for part in request.parts:
        if part.known_sequence:
            newest[part.shard] = max(newest.get(part.shard, 0), part.known_sequence)
    return newest


def result_of(request: WriteRequest, sequences: dict[int, int]) -> WriteResult:
    """What was done; raises when a part of it was not, unless the caller takes failures for an answer.

    sequences: of the request, for who wants to see no less afterwards.
    """
    count, duplicate = 0, False
    failures: list[Failed] = []
    for part in request.parts:
        applied, error = part.applied, part.error
        if error is None and applied is not None and applied.is_refused:
            error = conflict(applied.refused_id, applied.refused_expected, applied.refused_actual)
        if error is not None:
            failures.append(Failed(part.names, error))
            continue
        known = applied is not None and applied.known
        count += applied.changed if applied is not None and known else len(part.names)
        duplicate = duplicate or bool(applied is not None and applied.duplicate)
    result = WriteResult(count, sequences, duplicate, tuple(failures))
    in_part = len(failures) < len(request.parts)
    if failures and not (request.partial and in_part):
        raise _failed(result, in_part, several=len(request.by_shard) > 1)
    return result


def _failed(result: WriteResult, in_part: bool, several: bool) -> JadeError:
    first = result.failures[0].error
    durable: Mapping[str, object] = {"durable": result.sequences} if result.sequences else {}
    if not several:
        return JadeError(first.code, first.message, details={**first.details, **durable})
    ids = [name for failure in result.failures for name in failure.ids]
    undecided = any(failure.error.details.get("undecided") for failure in result.failures)
    if in_part:
        why = first.message.replace("nothing was written", "nothing of its shard's part was written")
        says = f"The request was done in part: {result.count} vectors were written, {len(ids)} failed. {why}"
    else:
        says = first.message
    return JadeError(
        first.code,
        says,
        details={
            **first.details, "undecided": undecided, "written": result.count, "failed": len(ids),
            "failed_ids": ids[:FAILED_IDS_NAMED_MAX],
            "codes": sorted({str(failure.error.code) for failure in result.failures}), **durable,
        },
    )  # fmt: skip
