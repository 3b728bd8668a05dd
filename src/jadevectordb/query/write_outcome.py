"""What became of a write to a cluster, entry by entry, and what is told of the whole: never more than is known.

appended, applied      counted in the result
refused by a condition VERSION_CONFLICT for the ids of that entry
not appended           the log's error; `details["undecided"]` where it may have been, or may be yet
appended, not applied  it is durable, and will be; no replica said so in time, so the outcome is not known here
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import VectorId
from jadevectordb.model.limits import FAILED_IDS_NAMED_MAX
from jadevectordb.model.operations import Entry, Write
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
    sequence: int = 0
    applied: Applied | None = None
    error: JadeError | None = None


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
    if applied.known or (isinstance(part.entry.operation, Write) and part.entry.operation.if_version is None):
        return applied, None
    return None, JadeError(
        ErrorCode.UNAVAILABLE,
        f"The write is durable and applied (entry {part.sequence} of shard {part.shard}), but what it did is no longer remembered: "
        "read the vectors to see.",
        details={"undecided": True, "durable": {part.shard: part.sequence}},
    )


def unconfirmed(shard: int, sequence: int, by: str) -> JadeError:
    return JadeError(
        ErrorCode.UNAVAILABLE,
        f"The write is durable (entry {sequence} of shard {shard}) and will be applied, but that was not confirmed in time by "
        f"{by}: sending it again with the same request id is safe.",
        details={"undecided": True, "durable": {shard: sequence}},
    )


def result_of(request: WriteRequest) -> WriteResult:
    """What was done; raises when a part of it was not, unless the caller takes failures for an answer."""
    count, duplicate = 0, False
    sequences: dict[int, int] = {}
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
        sequence = applied.sequence if applied is not None and known else part.sequence
        sequences[part.shard] = max(sequences.get(part.shard, 0), sequence)
    result = WriteResult(count, sequences, duplicate, tuple(failures))
    if failures and not (request.partial and sequences):
        raise _failed(result, several=len(request.by_shard) > 1)
    return result


def _failed(result: WriteResult, several: bool) -> JadeError:
    first = result.failures[0].error
    if not several:
        return first
    ids = [name for failure in result.failures for name in failure.ids]
    undecided = any(failure.error.details.get("undecided") for failure in result.failures)
    if result.sequences:
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
            "codes": sorted({str(failure.error.code) for failure in result.failures}),
        },
    )  # fmt: skip
