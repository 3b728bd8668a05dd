"""What a shard remembers of who wrote when: bounded, the same after a checkpoint, and right about what it forgot."""

from __future__ import annotations

import pytest

from jadevectordb.model.ids import HybridTime, NodeId
from jadevectordb.model.operations import Barrier, Entry
from jadevectordb.shard.causality import Causality, Verdict


def entry(time: int, node: str = "a", seen: int | None = None) -> Entry:
    return Entry(Barrier(), HybridTime(time), NodeId(node), seen=seen)


def test_nothing_is_kept_before_the_first_entry_that_says_what_it_had_seen() -> None:
    causality = Causality()
    for place in range(1, 100):
        causality.note(place, entry(place), place - 1)
        causality.note_deleted([place], place)
    assert causality.saved() is None and causality.deletion_of(7) == 0
    late = entry(50, "b", seen=40)
    causality.note(100, late, 99)
    assert causality.saved() is not None
    assert causality.judge(late, 40) is Verdict.SEEN
    assert causality.judge(late, 41) is Verdict.LOST, "not later than all that is not remembered"
    newer = entry(100, "b", seen=40)
    causality.note(101, newer, 99)
    assert causality.judge(newer, 41) is Verdict.WON


@pytest.mark.parametrize("restored_every", [1, 3, 1000])
def test_memory_is_bounded_and_a_checkpoint_changes_nothing(restored_every: int) -> None:
    bounds = {"stamps_max": 8, "deletes_max": 4, "listed_max": 3}
    straight, other = Causality(**bounds), Causality(**bounds)
    for place in range(1, 60):
        late = entry(place * 10, "ab"[place % 2], seen=0)
        verdicts = []
        for causality in (straight, other):
            causality.note(place, late, (place - 1) * 10)
            causality.note_deleted([place * 7], place)
            verdicts.append([causality.judge(late, stands) for stands in range(place)])
            causality.settle(verdicts[-1][-1], f"v{place}", late, place - 1, place * 10, kinds=(False, False))
        assert verdicts[0] == verdicts[1]
        assert straight.saved() == other.saved() and straight.report() == other.report()
        if place % restored_every == 0:
            other = Causality(other.saved(), **bounds)
    saved = straight.saved()
    assert saved is not None
    assert (len(saved.times), len(saved.nodes), len(saved.deleted)) == (8 * 8, 2 * 8, 8 * 4)
    assert [straight.deletion_of(place * 7) for place in (55, 56, 59)] == [0, 56, 59]
    report = straight.report()
    assert len(report.listed) == 3 and report.found == 58, "all are counted, the newest are listed"
    assert [one.id for one in report.listed] == ["v57", "v58", "v59"]


def test_of_equal_times_the_greater_name_counts_on_every_replica() -> None:
    causality = Causality()
    causality.note(1, entry(5, "b", seen=0), 0)
    for node, verdict in (("a", Verdict.LOST), ("c", Verdict.WON)):
        late = entry(5, node, seen=0)
        causality.note(2 if node == "a" else 3, late, 5)
        assert causality.judge(late, 1) is verdict
