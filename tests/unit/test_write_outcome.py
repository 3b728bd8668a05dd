"""What a write to several shards tells when parts of it failed: which ids, whether it may be done yet, how far it stands in the logs."""

from __future__ import annotations

import pytest

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, NodeId, RequestId, VectorId
from jadevectordb.model.operations import Delete, Entry, Seal
from jadevectordb.ports.node_calls import Applied
from jadevectordb.query.levels import WriteLevel
from jadevectordb.query.question import Answered, Gathered
from jadevectordb.query.write_outcome import (
    WritePart,
    WriteRequest,
    outcome_of,
    result_of,
    sequences_of,
    unconfirmed,
)
from jadevectordb.query.writer import WriteResult

ENTRY = Entry(Seal(False), HybridTime(1), NodeId("n1"), RequestId("r"))  # what it holds plays no part here
REFUSED = Applied(known=True, sequence=9, refused_id="c", refused_expected=1, refused_actual=4, is_refused=True)


def part(shard: int, name: str, sequence: int, applied: Applied | None, error: JadeError | None = None) -> WritePart:
    return WritePart(shard, [VectorId(name)], ENTRY, sequence, applied, error)


def written(shard: int, name: str, sequence: int) -> WritePart:
    return part(shard, name, sequence, Applied(known=True, sequence=sequence, changed=1))


def outcome(parts: list[WritePart], *, partial: bool = False) -> WriteResult:
    request = WriteRequest(parts, WriteLevel.QUORUM, False, 0.0, partial)
    for one in parts:
        request.by_shard.setdefault(one.shard, []).append(one)
    return result_of(request, sequences_of(request))


def failure(parts: list[WritePart], *, partial: bool = False) -> JadeError:
    with pytest.raises(JadeError) as caught:
        outcome(parts, partial=partial)
    return caught.value


def test_all_of_it_done() -> None:
    repeated = part(1, "b", 8, Applied(known=True, sequence=3, changed=1, duplicate=True))
    assert outcome([written(0, "a", 5), repeated]) == WriteResult(2, {0: 5, 1: 3}, duplicate=True)


def test_a_part_failed_and_what_stands_in_the_logs_is_told() -> None:
    refused = part(2, "c", 9, REFUSED)
    error = failure([written(0, "a", 5), refused])
    assert error.code is ErrorCode.VERSION_CONFLICT and error.details["failed_ids"] == ["c"]
    assert error.details["written"] == 1 and not error.details["undecided"]
    assert error.details["durable"] == {0: 5, 2: 9}  # refused in the light of what stood before the place 9
    lost = part(1, "b", 0, None, JadeError(ErrorCode.UNAVAILABLE, "no quorum", details={"undecided": True}))
    unsure = part(3, "d", 7, None, unconfirmed(3, 7, "any replica"))
    error = failure([lost, unsure])
    assert error.details["undecided"] and error.details["written"] == 0 and "in part" not in error.message
    assert error.details["durable"] == {3: 7}


def test_of_one_shard_the_error_is_its_own() -> None:
    error = failure([part(2, "c", 9, REFUSED)])
    assert error.details == {"id": "c", "expected": 1, "actual": 4, "durable": {2: 9}}
    missing = JadeError(ErrorCode.UNAVAILABLE, "no quorum")
    assert "durable" not in failure([part(0, "a", 0, None, missing)]).details and not missing.details


def test_what_a_replica_that_was_opened_anew_has_forgotten_matters_where_it_is_not_known_beforehand() -> None:
    forgotten = Gathered([Answered("n1", (1,), Applied(known=False), 0.01)])
    seal = WritePart(1, [], ENTRY, 8)
    assert outcome_of(seal, forgotten) == (Applied(known=False), None)
    seal.applied, _ = outcome_of(seal, forgotten)
    assert outcome([seal]) == WriteResult(0, {1: 8})
    deleted = Entry(Delete(["a"], None), HybridTime(1), NodeId("n1"), RequestId("r"))
    _, error = outcome_of(WritePart(1, [VectorId("a")], deleted, 9), forgotten)
    assert error is not None and "no longer remembered" in error.message and error.details["undecided"]


def test_who_takes_a_part_for_an_answer_gets_one_unless_nothing_was_done() -> None:
    refused = part(2, "c", 9, REFUSED)
    result = outcome([written(0, "a", 5), refused], partial=True)
    assert result.count == 1 and result.sequences == {0: 5, 2: 9} and [one.ids for one in result.failures] == [["c"]]
    assert failure([refused], partial=True).code is ErrorCode.VERSION_CONFLICT
