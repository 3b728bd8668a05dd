"""Wrong histories, each written by hand, and what the report says of them word for word; and right ones that look wrong."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.history_model import StepClock

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.metric import Metric
from jadevectordb.sim.checkers import Vectors, check
from jadevectordb.sim.checks.violation import Rule, Violation
from jadevectordb.sim.history import Fate, Level, Refused, Seen
from jadevectordb.sim.recorder import Recorder
from jadevectordb.sim.report import Report


class Tale:
    """A history told one operation after the other; every event takes a millisecond. Ids are in shard 0, beginning with "z" in 1."""

    def __init__(self) -> None:
        self.recorder = Recorder(StepClock(), name="h")

    def call_write(
        self, ids: Seq[str] | str, value: str, level: Level = Level.QUORUM, process: str = "a", **more: Any
    ) -> str:
        ids = [ids] if isinstance(ids, str) else ids
        return self.recorder.write(
            process, level, ids, [value] * len(ids), shards=_shards(ids), session=process, **more
        )

    def write(self, ids: Seq[str] | str, value: str, version: int | None = None, **more: Any) -> str:
        op = self.call_write(ids, value, **more)
        self.recorder.ok(op, sequences=None if version is None else dict.fromkeys(_shards(_listed(ids)), version))
        return op

    def delete(self, ids: Seq[str] | str, version: int | None = None, level: Level = Level.QUORUM, **more: Any) -> str:
        op = self.recorder.delete("a", level, _listed(ids), shards=_shards(_listed(ids)), session="a", **more)
        self.recorder.ok(op, sequences=None if version is None else dict.fromkeys(_shards(_listed(ids)), version))
        return op

    def call_read(self, ids: Seq[str] | str, level: Level = Level.STRONG, process: str = "b", **more: Any) -> str:
        return self.recorder.read(process, level, _listed(ids), session=process, **more)

    def read(
        self, *seen: Seen, level: Level = Level.STRONG, process: str = "b", at: int | None = None, **more: Any
    ) -> str:
        op = self.call_read([s.id for s in seen], level, process, **more)
        self.recorder.ok(op, seen=seen, sequences=None if at is None else {0: at})
        return op

    def report(self, **more: Any) -> Report:
        return check(self.recorder.history(), **more)

    def violation(self, **more: Any) -> Violation:
        """The only one."""
        report = self.report(**more)
        assert len(report.violations) == 1, report.text()
        return report.violations[0]

    def violations(self) -> dict[Rule, str]:
        return {v.rule: v.message for v in self.report().violations}


def _listed(ids: Seq[str] | str) -> list[str]:
    return [ids] if isinstance(ids, str) else list(ids)


def _shards(ids: Seq[str]) -> list[int]:
    return [int(i.startswith("z")) for i in ids]


@pytest.fixture
def tale() -> Tale:
    return Tale()


# Values and places


def test_a_value_that_nobody_wrote(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.read(Seen("k", "v9", 1))
    assert tale.violation().message == '"k": STRONG read h:2 saw "v9", which nobody wrote to it.'


def test_a_value_of_another_id(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("j", "v2", 2)
    tale.read(Seen("k", "v2", 2), level=Level.EVENTUAL)
    found = tale.violation()
    assert found.rule is Rule.NEVER_WRITTEN
    assert (
        found.message == '"k": EVENTUAL read h:4 saw "v2", which nobody wrote to it; QUORUM write h:2 wrote it to "j".'
    )


def test_a_failed_write_is_seen(tale: Tale) -> None:
    op = tale.call_write("k", "v1")
    tale.recorder.failed(op, "DISK_FULL")
    tale.read(Seen("k", "v1", 1), level=Level.EVENTUAL)
    found = tale.violation()
    assert found.rule is Rule.FAILED_SEEN
    assert found.message == '"k": EVENTUAL read h:2 saw "v1", but QUORUM write h:0 of it had failed for certain.'
    assert found.evidence == (
        '[0.000, 0.001] a in session a: QUORUM write h:0 "k" = "v1" -> failed (DISK_FULL)',
        '[0.002, 0.003] b in session b: EVENTUAL read h:2 "k" -> "v1" (version 1)',
    )


def test_a_value_is_seen_before_it_is_written(tale: Tale) -> None:
    tale.read(Seen("k", "v1", 1), level=Level.EVENTUAL)
    tale.write("k", "v1", 1)
    assert tale.violation().message == (
        '"k": EVENTUAL read h:0 saw "v1" and ended at 0.001 s, but QUORUM write h:2 of it began at 0.002 s.'
    )


def test_a_write_is_applied_twice(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.read(Seen("k", "v1", 7), level=Level.EVENTUAL)
    found = tale.violation()
    assert found.rule is Rule.APPLIED_TWICE
    assert found.message == (
        '"k": EVENTUAL read h:2 saw "v1" with version 7, but QUORUM write h:0 of it has version 1: it was applied twice.'
    )


def test_a_write_is_applied_twice_and_no_version_is_told(tale: Tale) -> None:
    tale.write("k", "v1")
    tale.write("k", "v2")
    tale.read(Seen("k", "v2"))
    tale.read(Seen("k", "v1"))
    found = tale.violation()
    assert found.rule is Rule.STALE_READ
    assert found.message == (
        '"k": STRONG read h:6 at 0.006 s found "v1", although QUORUM write h:2 wrote "v2", acknowledged at 0.003 s.'
    )


def test_two_writes_have_one_place(tale: Tale) -> None:
    tale.write("k", "v1", 3)
    tale.write("j", "v2", 3)
    assert tale.violations() == {Rule.ONE_PLACE: "Shard 0: QUORUM write h:0 and QUORUM write h:2 both have version 3."}


def test_versions_of_one_id_go_against_time(tale: Tale) -> None:
    tale.write("k", "v1", 5)
    tale.write("k", "v2", 4)
    assert tale.violation().message == (
        '"k": QUORUM write h:2 got version 4, though it began at 0.002 s, after QUORUM write h:0 with version 5 had taken effect.'
    )


def test_versions_of_two_ids_go_against_time(tale: Tale) -> None:
    tale.write("k", "v1", 5)
    tale.write("j", "v2", 4)
    tale.write("z", "v3", 1)  # another shard counts for itself
    assert tale.violation().message == (
        "Shard 0: QUORUM write h:2 got version 4, though it began at 0.002 s, after QUORUM write h:0 with version 5 had taken "
        "effect."
    )


def test_writes_that_cannot_be_told_apart_are_no_history(tale: Tale) -> None:
    tale.write("k", "same", 1)
    tale.write("k", "same", 2)
    with pytest.raises(JadeError, match="give each write a value of its own") as raised:
        tale.report()
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


# Registers


def test_an_acknowledged_write_is_lost(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.read(Seen("k"))
    found = tale.violation()
    assert found.rule is Rule.LOST_WRITE
    assert found.message == (
        '"k": STRONG read h:2 at 0.002 s found nothing, although QUORUM write h:0 wrote "v1" as version 1, acknowledged at '
        "0.001 s, and no delete explains it."
    )
    assert found.evidence == (
        '[0.000, 0.001] a in session a: QUORUM write h:0 "k" = "v1" -> ok, version 1',
        '[0.002, 0.003] b in session b: STRONG read h:2 "k" -> absent',
    )


def test_the_last_acknowledged_write_is_lost_and_the_one_before_is_left(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.read(Seen("k", "v1", 1))
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v1", 1))
    found = tale.violation()
    assert found.rule is Rule.LOST_WRITE
    assert found.message == (
        '"k": STRONG read h:6 at 0.006 s found "v1", although QUORUM write h:4 wrote "v2" as version 2, acknowledged at 0.005 s, '
        "and no read ever found that."
    )
    assert len(found.evidence) == 3  # the first read adds nothing


def test_a_stale_read(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v1", 1))
    tale.read(Seen("k", "v2", 2))
    found = tale.violation()
    assert found.rule is Rule.STALE_READ
    assert found.message == (
        '"k": STRONG read h:4 at 0.004 s found "v1", although QUORUM write h:2 wrote "v2" as version 2, acknowledged at 0.003 s.'
    )


def test_a_read_goes_behind_another_while_the_write_is_under_way(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    write = tale.call_write("k", "v2")
    tale.read(Seen("k", "v2", 2))
    tale.read(Seen("k", "v1", 1))
    tale.recorder.ok(write, sequences={0: 2})
    found = tale.violation()
    assert found.rule is Rule.STALE_READ
    assert found.message == (
        '"k": STRONG read h:5 at 0.005 s found "v1", although STRONG read h:3 had found "v2" by 0.004 s.'
    )


def test_an_unacknowledged_write_is_resurrected(tale: Tale) -> None:
    lost = tale.call_write("k", "v1")
    tale.recorder.unknown(lost, "TIMEOUT")
    tale.read(Seen("k", "v1", 1))
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v2", 2))
    tale.read(Seen("k", "v1", 1))
    found = tale.violation()
    assert found.rule is Rule.RESURRECTED
    assert found.message == (
        '"k": STRONG read h:8 at 0.008 s found "v1", although QUORUM write h:4 wrote "v2" as version 2, acknowledged at 0.005 s; '
        "QUORUM write h:0 of it was never acknowledged."
    )


def test_a_write_without_an_answer_comes_after_all_had_come_to_rest(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.call_write("k", "v2")
    tale.recorder.settled()
    tale.read(Seen("k", "v1", 1))
    tale.read(Seen("k", "v2", 2))
    found = tale.violation()
    assert found.rule is Rule.STALE_READ
    assert found.message == (
        '"k": STRONG read h:4 at 0.004 s found "v1", although QUORUM write h:2 wrote "v2" as version 2, after which all came to '
        "rest (STRONG read h:6 proves that it took effect)."
    )
    assert len(found.evidence) == 4


def test_a_deleted_vector_comes_back(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.delete("k", 2)
    tale.read(Seen("k"))
    tale.read(Seen("k", "v1", 1))
    found = tale.violation()
    assert found.rule is Rule.UNDELETED
    assert found.message == (
        '"k": STRONG read h:6 at 0.006 s found "v1", although QUORUM delete h:2 deleted it as version 2, acknowledged at 0.003 s.'
    )


def test_a_search_finds_what_was_deleted_before_it_began(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.delete("k", 2)
    search = tale.recorder.search("b", Level.STRONG, [1.0, 0.0], 5)
    tale.recorder.ok(search, seen=[Seen("k", "v1", 1, 0.5)])
    found = tale.violation()
    assert found.rule is Rule.UNDELETED
    assert found.message == (
        '"k": STRONG search h:4 at 0.004 s found "v1", although QUORUM delete h:2 deleted it as version 2, acknowledged at '
        "0.003 s."
    )


def test_a_condition_succeeds_against_a_version_that_was_gone(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    tale.write("k", "v3", 3, if_version=[1])
    found = tale.violation()
    assert found.rule is Rule.CONDITION
    assert found.message == '"k": QUORUM write h:4 succeeded on condition of "v1", which did not stand then.'


def test_two_conditions_succeed_against_one_version(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    first, second = tale.call_write("k", "v2", if_version=[1]), tale.call_write("k", "v3", if_version=[1], process="c")
    tale.recorder.ok(first, sequences={0: 2})
    tale.recorder.ok(second, sequences={0: 3})
    assert tale.violation().message == '"k": QUORUM write h:3 succeeded on condition of "v1", which did not stand then.'


def test_a_condition_is_refused_because_of_what_did_not_stand_yet(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    refused = tale.call_write("k", "v2", if_version=[1])
    tale.recorder.failed(refused, "VERSION_CONFLICT", refusal=Refused("k", 1, 0))
    assert tale.violation().message == '"k": QUORUM write h:2 was refused because of nothing, which did not stand then.'


def test_a_condition_is_refused_because_of_the_very_version_it_asked_for(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    refused = tale.call_write("k", "v2", if_version=[1])
    tale.recorder.failed(refused, "VERSION_CONFLICT", refusal=Refused("k", 1, 1))
    assert tale.violation().message == (
        '"k": QUORUM write h:2 was refused because of version 1, which is the one it asked for.'
    )


def test_a_condition_names_a_version_that_no_write_had(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 9, if_version=[4])
    assert (
        tale.violation().message == '"k": QUORUM write h:2 succeeded against version 4, which no write of it ever had.'
    )


def test_an_eventual_write_never_arrives(tale: Tale) -> None:
    tale.write("k", "v1", level=Level.EVENTUAL)
    tale.recorder.settled()
    tale.read(Seen("k"))
    assert tale.violation().message == (
        '"k": STRONG read h:3 at 0.003 s found nothing, although EVENTUAL write h:0 wrote "v1", acknowledged at 0.001 s, after '
        "which all came to rest, and no delete explains it."
    )


def test_what_a_session_saw_is_in_the_log_and_stays(tale: Tale) -> None:
    """A SESSION read shows an unacknowledged write: then it is durable, and a STRONG read after that must find it."""
    tale.call_write("k", "v1")
    tale.read(Seen("k", "v1", 1), level=Level.SESSION)
    tale.read(Seen("k"), process="c")
    found = tale.violation()
    assert len(found.evidence) == 3
    assert found.message == (
        '"k": STRONG read h:3 at 0.003 s found nothing, although SESSION read h:1 had found "v1" by 0.002 s, and no delete '
        "explains it."
    )


# What looks wrong and is not


def test_unknown_writes_may_come_late_and_once(tale: Tale) -> None:
    late = tale.call_write("k", "v1")
    tale.recorder.unknown(late, "TIMEOUT")
    tale.write("k", "v2", 1)
    tale.read(Seen("k", "v2", 1))
    tale.read(Seen("k", "v1", 2))
    assert tale.report().verdict == "passed"


def test_unknown_deletes_explain_absence(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    op = tale.recorder.delete("c", Level.QUORUM, ["k"], shards=[0])
    tale.recorder.unknown(op, "UNAVAILABLE")
    tale.read(Seen("k", "v1", 1))
    tale.read(Seen("k"))
    assert tale.report().verdict == "passed"


def test_an_eventual_write_that_lost_a_conflict_is_not_lost(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", level=Level.EVENTUAL)
    tale.recorder.conflict("k", "v2")
    tale.recorder.settled()
    tale.read(Seen("k", "v1", 1))
    assert tale.report().verdict == "passed"


def test_eventual_reads_may_be_old(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v1", 1), level=Level.EVENTUAL, at=1)
    tale.read(Seen("k"), level=Level.EVENTUAL, at=0)
    assert tale.report().verdict == "passed"


def test_a_batch_over_two_shards_may_fail_in_one(tale: Tale) -> None:
    op = tale.call_write(["k", "z"], "v1")
    tale.recorder.ok(op, sequences={0: 1}, fates={"z": Fate.FAILED})
    tale.read(Seen("k", "v1", 1), Seen("z"))
    assert tale.report().verdict == "passed"


# Sessions


def test_a_session_does_not_see_its_own_write(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v1", 1), level=Level.SESSION, process="a")
    found = tale.violation()
    assert found.rule is Rule.SESSION
    assert found.message == (
        '"k": session a saw "k" -> "v1" (version 1) by SESSION read h:4 at 0.004 s, which is older than its own QUORUM write h:2 '
        "(version 2), over at 0.003 s."
    )


def test_a_session_goes_back(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v2", 2), level=Level.SESSION)
    tale.read(Seen("k", "v1", 1), level=Level.SESSION)
    tale.read(Seen("k", "v1", 1), level=Level.SESSION, process="c")  # has seen nothing yet
    assert tale.violation().message == (
        '"k": session b saw "k" -> "v1" (version 1) by SESSION read h:6 at 0.006 s, which is older than what was seen by SESSION '
        "read h:4 (version 2), over at 0.005 s."
    )


def test_a_session_goes_back_behind_a_delete(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.delete("k", 2)
    tale.read(Seen("k"), level=Level.SESSION, process="a")
    tale.read(Seen("k", "v1", 1), level=Level.SESSION, process="a")
    assert tale.violation().message == (
        '"k": session a saw "k" -> "v1" (version 1) by SESSION read h:6 at 0.006 s, which is older than its own QUORUM delete h:2 '
        "(absent since 2), over at 0.003 s."
    )


def test_a_session_goes_back_behind_what_an_eventual_read_showed(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v2", 2), level=Level.EVENTUAL)
    tale.read(Seen("k", "v1", 1), level=Level.EVENTUAL)  # is promised nothing, and takes nothing back
    tale.read(Seen("k", "v1", 1), level=Level.SESSION)
    found = tale.violation()
    assert found.rule is Rule.SESSION
    assert found.message == (
        '"k": session b saw "k" -> "v1" (version 1) by SESSION read h:8 at 0.008 s, which is older than what was seen by EVENTUAL '
        "read h:4 (version 2), over at 0.005 s."
    )


def test_that_an_eventual_read_found_nothing_tells_of_a_delete_only_where_its_place_is_known(tale: Tale) -> None:
    """Nothing is there after the delete, and before the first write."""
    tale.write("k", "v1", 1)
    tale.read(Seen("k", "v1", 1), level=Level.SESSION)
    tale.delete("k", 2)
    tale.read(Seen("k"), level=Level.EVENTUAL)
    tale.read(Seen("k", "v1", 1), level=Level.SESSION)
    assert tale.report().verdict == "passed"
    tale.read(Seen("k"), level=Level.EVENTUAL, at=0)  # served from before everything
    tale.read(Seen("k", "v1", 1), level=Level.SESSION)
    assert tale.report().verdict == "passed"
    tale.read(Seen("k"), level=Level.EVENTUAL, at=2)
    tale.read(Seen("k", "v1", 1), level=Level.SESSION)
    assert tale.violation().message.endswith("what was seen by EVENTUAL read h:14 (absent since 2), over at 0.015 s.")


def test_overlapping_reads_of_a_session_may_answer_in_any_order(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    first = tale.call_read("k", Level.SESSION)
    tale.read(Seen("k", "v2", 2), level=Level.SESSION)
    tale.recorder.ok(first, seen=[Seen("k", "v1", 1)])
    assert tale.report().verdict == "passed"


def test_a_read_is_served_from_behind_its_token(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("k", "v2", 2)
    tale.read(Seen("k", "v1", 1), level=Level.SESSION, process="c", token={0: 2}, at=1)
    assert [v.message for v in tale.report().violations] == [
        "Shard 0: SESSION read h:4 asked for at least 2 and was served by a view at 1.",
        '"k": SESSION read h:4 carried sequence 2 of its shard and saw "k" -> "v1" (version 1), but it became "v2" at 2 by QUORUM '
        "write h:2.",
    ]


# Views


def test_a_batch_is_seen_in_part(tale: Tale) -> None:
    tale.write(["j", "k"], "v1", 1)
    tale.write(["j", "k"], "v2", 2)
    tale.read(Seen("j", "v2", 2), Seen("k", "v1", 1), level=Level.EVENTUAL)
    found = tale.violation()
    assert found.rule is Rule.TORN_BATCH
    assert found.message == (
        'EVENTUAL read h:4 saw "k" -> "v1" (version 1) without "v2" of QUORUM write h:2 (version 2), though it shows '
        '"j" -> "v2" (version 2) of the same batch from the same view of shard 0.'
    )


def test_a_batch_that_nobody_acknowledged_is_seen_in_part(tale: Tale) -> None:
    tale.call_write(["j", "k"], "v1")
    tale.read(Seen("j", "v1", 1), Seen("k"), level=Level.EVENTUAL)
    found = tale.violation()
    assert found.rule is Rule.TORN_BATCH
    assert found.message == (
        'EVENTUAL read h:1 saw "k" -> absent without "v1" of QUORUM write h:0 (version 1), though it shows "j" -> "v1" '
        "(version 1) of the same batch from the same view of shard 0."
    )


def test_a_batch_over_two_shards_may_be_seen_in_part(tale: Tale) -> None:
    tale.write(["j", "z"], "v1", 1)
    tale.read(Seen("j", "v1", 1), Seen("z"), level=Level.EVENTUAL)
    assert tale.report().verdict == "passed"


def test_a_view_mixes_two_moments(tale: Tale) -> None:
    tale.write("j", "v1", 1)
    tale.write("k", "v2", 2)
    tale.read(Seen("j"), Seen("k", "v2", 2), level=Level.EVENTUAL)
    found = tale.violation()
    assert found.rule is Rule.MIXED_VIEW
    assert found.message == (
        'EVENTUAL read h:4 saw "j" -> absent without "v1" of QUORUM write h:0 (version 1), though it shows "k" -> "v2" '
        "(version 2) from the same view of shard 0."
    )


def test_a_strong_read_did_not_ask_how_far_the_log_is(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.write("j", "v2", 2)
    tale.read(Seen("k", "v1", 1), at=1)
    assert tale.violation().message == (
        "Shard 0: STRONG read h:4 was served by a view at 1, though it began at 0.004 s, after QUORUM write h:2 with version 2 had "
        "taken effect."
    )


# Searches and replicas

UNIT = {("k", "v1"): [1.0, 0.0], ("j", "v2"): [0.0, 1.0]}


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.DOT, Metric.EUCLIDEAN])
def test_scores_are_recomputed(tale: Tale, metric: Metric) -> None:
    space = VectorSpace(metric, 2)
    vectors = Vectors(space, lambda i, v: np.array(UNIT[i, v], np.float32))
    right = space.public_score({Metric.EUCLIDEAN: 0.0}.get(metric, 1.0))
    tale.write("k", "v1", 1)
    for score in (right, right * (1 - 1e-7), right * 0.99):
        op = tale.recorder.search("b", Level.STRONG, [1.0, 0.0], 5)
        tale.recorder.ok(op, seen=[Seen("k", "v1", 1, score)])
    assert tale.violation(vectors=vectors).message == (
        f'"k": STRONG search h:6 gave "v1" the score {right * 0.99:.6g}, its vector has {right:.6g}.'
    )


@pytest.mark.parametrize(
    ("hits", "what"),
    [
        ([Seen("k", "v1", 1, 0.5), Seen("j", "v2", 2, 0.4), Seen("i", "v3", 3, 0.3)], "has 3 hits, 2 were asked for"),
        ([Seen("k", "v1", 1, 0.5), Seen("k", "v1", 1, 0.5)], 'has "k" twice'),
        ([Seen("k", "v1", 1, 0.4), Seen("j", "v2", 2, 0.5)], "is not in the order of its scores"),
    ],
)
def test_malformed_results(tale: Tale, hits: list[Seen], what: str) -> None:
    tale.write("k", "v1", 1)
    tale.write("j", "v2", 2)
    tale.write("i", "v3", 3)
    op = tale.recorder.search("b", Level.EVENTUAL, [1.0, 0.0], 2)
    tale.recorder.ok(op, seen=hits)
    assert tale.violation().message == f"The answer of EVENTUAL search h:6 {what}."


def test_replicas_differ(tale: Tale) -> None:
    tale.recorder.replica(0, "n1", 9, "aa", 3)
    tale.recorder.replica(0, "n2", 9, "bb", 3)
    tale.recorder.replica(0, "n3", 8, "cc", 3)
    tale.recorder.replica(1, "n1", 5, "dd", 3)
    assert [v.message for v in tale.report(replicas_expected=3).violations] == [
        "Shard 0: n3 did not catch up with watermark 9.",
        "Shard 0: n1, n2 all applied 9 entries and differ in contents.",
        "Shard 1: 1 replicas reported, 3 were expected.",
    ]


# What the report claims


def test_too_many_concurrent_operations_are_undecided(tale: Tale) -> None:
    writes = [tale.call_write("k", f"v{n}", process=f"p{n}") for n in range(8)]
    reads = [tale.call_read("k", process=f"p{n}") for n in range(8)]
    for write in writes:
        tale.recorder.ok(write)
    for n, read in enumerate(reads):
        tale.recorder.ok(read, seen=[Seen("k", f"v{n}")])
    report = tale.report(configurations_max=20)
    assert report.verdict == "undecided"
    assert report.undecided[0].reason == (
        'undecided: too many concurrent operations on "k": 16 were open at once, and more than 20 orders of them had to be told '
        "apart."
    )
    assert report.undecided[0].reason in report.text()
    assert tale.report().verdict == "passed"


def test_what_nobody_looked_at_is_said(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    tale.read(Seen("k", "v1"), level=Level.EVENTUAL)
    report = tale.report()
    assert report.coverage.ids_unread_at_end == 1
    assert "1 ids were not read at STRONG after their last acknowledged write" in report.text()
    assert "the history does not say that all came to rest" in report.text()


def test_outages_and_counts(tale: Tale) -> None:
    tale.write("k", "v1", 1)
    fault = tale.recorder.fault_began("kill -9", "n1")  # at 3 ms
    for n in range(3):
        tale.recorder.failed(tale.call_write("k", f"w{n}"), "UNAVAILABLE")
    tale.recorder.unknown(tale.call_read("k"), "TIMEOUT")
    tale.write("k", "v2", 2)  # acknowledged at 13 ms
    tale.recorder.fault_ended(fault)
    tale.read(Seen("k", "v2", 2))  # at 16 ms
    report = tale.report()
    (outage,) = report.outages
    assert (outage.kind, outage.target, outage.reads_failed) == ("kill -9", "n1", 1)
    assert outage.write_gap_s == pytest.approx(0.010)
    assert outage.read_gap_s == pytest.approx(0.013)
    assert report.outage_percentiles["kill -9"]["write_gap_s"].max == outage.write_gap_s
    document = msgspec.json.decode(report.json())
    assert document["verdict"] == "passed"
    assert document["counts"] == [
        {"kind": "read", "level": "STRONG", "ok": 1, "failed": 0, "unknown": 1},
        {"kind": "write", "level": "QUORUM", "ok": 2, "failed": 3, "unknown": 0},
    ]


def test_the_smallest_part_of_a_long_history_is_shown(tale: Tale) -> None:
    for n in range(300):
        tale.write("k", f"v{n}", n + 1)
        tale.read(Seen("k", f"v{n}" if n != 200 else "v120", n + 1 if n != 200 else 121))
    report = tale.report()
    stale = next(v for v in report.violations if v.rule is Rule.STALE_READ or v.rule is Rule.LOST_WRITE)
    assert len(stale.evidence) == 3
    assert '"v120"' in stale.message
