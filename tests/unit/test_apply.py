"""The state machine of a shard: when it freezes, what it remembers, and that clocks and luck have no part in it."""

from __future__ import annotations

import numpy as np
import pytest

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.ids import HybridTime, RequestId, Sequence, VectorId
from jadevectordb.model.limits import FREEZE_BARRIERS_MAX, FREEZE_DEAD_ROWS_MAX, FREEZE_ENTRIES_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Barrier, Delete, Entry, Operation, Outcome, Seal, Update, Write
from jadevectordb.model.schema import parse_schema
from jadevectordb.shard.apply import ShardConfig, ShardState, merge_metadata


class Shard:
    def __init__(self, seal_rows: int) -> None:
        self.state = ShardState(ShardConfig(VectorSpace(Metric.DOT, 1), parse_schema(None), None, seal_rows))
        self.sequence = 0

    def apply(self, operation: Operation, request_id: str = "") -> Outcome:
        self.sequence += 1
        return self.state.apply(
            Sequence(self.sequence), Entry(operation, HybridTime(0), request_id=RequestId(request_id))
        )

    @property
    def freezes(self) -> list[int]:
        return [frozen.sequence for frozen in self.state.frozen]


def write(*ids: str, if_version: list[int] | None = None) -> Write:
    names = [VectorId(i) for i in ids]
    return Write(names, np.ones((len(ids), 1), np.float32), [b"{}"] * len(ids), if_version)


def test_frozen_after_so_many_rows() -> None:
    shard = Shard(seal_rows=4)
    shard.apply(write("a", "b", "c"))
    assert shard.freezes == []
    shard.apply(write("a"))  # dead rows take room too
    assert shard.freezes == [2] and shard.state.growing.count == 0
    shard.apply(write(*map(str, range(50))))
    assert shard.freezes == [2, 3], "an entry is never split over two segments"
    (first, second) = shard.state.frozen
    assert first.view is not None and first.view.row_count == 4 and first.unit == 0
    assert second.view is not None and second.view.row_count == 50 and second.unit == 1
    assert [part.live for part in first.parts] == [3], "the state as it was then"


def test_frozen_after_so_many_entries_however_few_rows() -> None:
    shard = Shard(seal_rows=100)
    shard.apply(write("a"))
    for _ in range(2 * FREEZE_ENTRIES_MAX):
        shard.apply(Delete([VectorId("nobody")]))
    assert shard.freezes == [FREEZE_ENTRIES_MAX, 2 * FREEZE_ENTRIES_MAX]
    assert shard.state.frozen[1].view is None, "nothing arrived, yet the log before it is dispensable"
    assert shard.state.next_unit == 1


def test_barriers_cut_nothing_into_small_segments_and_the_log_may_go_all_the_same() -> None:
    shard = Shard(seal_rows=100)
    for _ in range(FREEZE_ENTRIES_MAX):
        shard.apply(Barrier())
    assert shard.freezes == [FREEZE_ENTRIES_MAX] and shard.state.frozen[0].view is None
    shard.apply(write("a"))
    for _ in range(FREEZE_BARRIERS_MAX - 1):
        shard.apply(Barrier())
    assert len(shard.freezes) == 1 and shard.state.growing.count == 1
    shard.apply(Barrier())
    assert shard.freezes[1:] == [shard.sequence], "what a restart replays is bounded still"


def test_frozen_after_so_many_deaths() -> None:
    shard = Shard(seal_rows=1 << 20)
    ids = [f"{i}" for i in range(4096)]
    while not shard.freezes:
        shard.apply(write(*ids))
    assert (shard.sequence - 1) * 4096 >= FREEZE_DEAD_ROWS_MAX > (shard.sequence - 2) * 4096
    assert shard.state.view().live == 4096


def test_a_refused_entry_leaves_no_trace() -> None:
    shard = Shard(seal_rows=10)
    shard.apply(write("a"))
    for operation in (
        write("x", "a", if_version=[0, 7]),
        write("a", if_version=[0]),
        Delete([VectorId("a"), VectorId("b")], [1, 3]),
        Update([VectorId("a")], [b'{"n":1}'], True, [9]),
    ):
        outcome = shard.apply(operation, "again")
        assert outcome.refusal is not None and outcome.changed == 0
        assert shard.state.view().live == 1 and shard.state.growing.count == 1 and not shard.state.requests
    assert shard.apply(write("a", if_version=[1]), "again").changed == 1, "a refused request may be sent again"
    assert shard.apply(write("a", if_version=[1]), "again").duplicate


def test_request_ids_are_forgotten_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.shard.apply.REQUESTS_REMEMBERED_MAX", 3)
    shard = Shard(seal_rows=100)
    for n in range(4):
        assert not shard.apply(write("a"), f"r{n}").duplicate
    assert shard.apply(write("a"), "r1") == Outcome(2, 1, duplicate=True)
    assert not shard.apply(write("a"), "r0").duplicate, "forgotten"
    assert [key[0] for key in shard.state.requests] == ["r2", "r3", "r0"]


def test_seal_makes_the_plan_settle() -> None:
    shard = Shard(seal_rows=100)
    for n in range(6):
        shard.apply(write(*[f"{n}-{i}" for i in range(3 + n)]))
        shard.apply(Seal())
    assert shard.state.is_settled
    shard.apply(write("x"))
    assert not shard.state.is_settled
    shard.apply(Seal(compact=True))
    assert shard.state.is_settled and len(shard.state.spans) == 1


def test_metadata_is_merged_key_by_key() -> None:
    assert (
        merge_metadata(b'{"a":1,"b":{"c":[1.50, 2]}}', b'{"a":null,"d":"x"}')
        == b'{"a":null,"b":{"c":[1.50, 2]},"d":"x"}'
    )
    assert merge_metadata(b"{}", b"{}") == b"{}"


def test_entries_must_come_in_order() -> None:
    shard = Shard(seal_rows=10)
    with pytest.raises(AssertionError):
        shard.state.apply(Sequence(2), Entry(Barrier(), HybridTime(0)))
