"""Alerts: one for a condition while it lasts, quiet once acknowledged, kept over a restart, bounded in number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.insight_world import Numbers, Place, SetClock, metadata_at, open_at

from jadevectordb.gateway.service.alerts import Alerts, AlertType, Condition
from jadevectordb.gateway.service.health_checks import database_check, disk_check
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ALERTS_KEPT_MAX
from jadevectordb.ports.host import HostReading

GIB = 1 << 30


class Troubles:
    def __init__(self) -> None:
        self.now: list[Condition] = []

    def __call__(self) -> Iterator[Condition]:
        return iter(self.now)


def _alerts(folder: Path, clock: SetClock, *checks: Troubles) -> Alerts:
    return Alerts(metadata_at(folder), clock, Numbers(), checks, background=False)


def test_people_raise_and_acknowledge(tmp_path: Path) -> None:
    clock = SetClock()
    alerts = _alerts(tmp_path, clock)
    first = alerts.create("error", "the disk sounds odd")
    clock.ms += 5
    second = alerts.create("INFO", "a new disk is ordered")
    assert [a.id for a in alerts.list()] == [second.id, first.id]
    clock.ms += 5
    done = alerts.acknowledge(first.id, "user_1")
    assert (done.acknowledged, done.acknowledged_by, done.acknowledged_ms) == (True, "user_1", clock.ms)
    clock.ms += 5
    assert alerts.acknowledge(first.id, "user_2") == done
    assert alerts.list(type="error") == [done]
    assert alerts.list(acknowledged=False) == [second]
    assert alerts.list(type="error", acknowledged=False) == []
    again = _alerts(tmp_path, clock)
    assert again.list() == [second, done]
    for call in (
        lambda: alerts.create("fatal", "x"),
        lambda: alerts.create("error", "  "),
        lambda: alerts.create("error", "x" * 2001),
        lambda: alerts.list(type="loud"),
    ):
        with pytest.raises(JadeError) as caught:
            call()
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(JadeError) as caught:
        alerts.acknowledge("alert_none", "user_1")
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_a_condition_has_one_alert_until_it_ends_and_comes_back(tmp_path: Path) -> None:
    clock, troubles = SetClock(), Troubles()
    alerts = _alerts(tmp_path, clock, troubles)
    alerts.check()
    assert alerts.list() == []
    troubles.now = [Condition("disk", AlertType.WARNING, "9 % free")]
    alerts.check()
    troubles.now = [Condition("disk", AlertType.WARNING, "8 % free")]
    alerts.check()
    (alert,) = alerts.list()
    assert (alert.message, alert.condition, alert.ended_ms) == ("9 % free", "disk", None)
    alerts.acknowledge(alert.id, "u")
    alerts = _alerts(tmp_path, clock, troubles)  # a restart does not raise it again
    alerts.check()
    assert len(alerts.list()) == 1
    troubles.now = []
    clock.ms += 7
    alerts.check()
    assert alerts.list()[0].ended_ms == clock.ms
    troubles.now = [Condition("disk", AlertType.WARNING, "5 % free")]
    clock.ms += 7
    alerts._unique = lambda: "later"
    alerts.check()
    assert [a.message for a in alerts.list()] == ["5 % free", "9 % free"]


def test_the_number_of_alerts_is_bounded_and_what_is_done_goes_first(tmp_path: Path) -> None:
    alerts = _alerts(tmp_path, SetClock())
    kept = alerts.create("info", "open")
    done = alerts.create("info", "done")
    alerts.acknowledge(done.id, "u")
    for number in range(ALERTS_KEPT_MAX - 1):
        alerts.create("info", f"later {number}")
    ids = {a.id for a in alerts.list()}
    assert len(ids) == ALERTS_KEPT_MAX
    assert kept.id in ids
    assert done.id not in ids


class SetHost:
    def __init__(self, total: int | None, free: int | None) -> None:
        nothing = HostReading(None, None, None, None, None, None, 0.0, None, None, 2)
        self.reading = replace(nothing, disk_total_bytes=total, disk_available_bytes=free)

    def read(self) -> HostReading:
        return self.reading


@pytest.mark.parametrize(
    ("total", "free", "expected"),
    [
        (100 * GIB, 50 * GIB, []),
        (1000 * GIB, 20 * GIB, []),  # a small share of a large disk is still much
        (100 * GIB, 9 * GIB, ["disk-low"]),
        (100 * GIB, GIB // 2, ["disk-critical"]),
        (10 * GIB, 2 * GIB, []),
        (None, None, []),
    ],
)
def test_the_disk(total: int | None, free: int | None, expected: list[str]) -> None:
    assert [condition.key for condition in disk_check(SetHost(total, free))()] == expected


def test_a_damaged_database_raises_an_alert(tmp_path: Path) -> None:
    store = open_at(tmp_path / "data", SetClock())
    sound, damaged = store.create_database("sound", 2), store.create_database("db_1", 2)
    damaged.upsert(["a"], np.ones((1, 2)))
    alerts = Alerts(
        metadata_at(tmp_path),
        SetClock(),
        Numbers(),
        (database_check(lambda: [Place(sound), Place(damaged)]),),
        background=False,
    )
    alerts.check()
    assert alerts.list() == []
    damaged._use().damage = JadeError(ErrorCode.CORRUPT, "the file vectors is damaged")
    alerts.check()
    (alert,) = alerts.list()
    assert (alert.type, alert.condition) == (AlertType.ERROR, "damage/db_1")
    assert "the file vectors is damaged" in alert.message
    store.close()
    alerts.check()
    alerts.close()
    alerts.close()


def test_nodes_of_a_cluster_share_alerts_and_each_ends_its_own(tmp_path: Path) -> None:
    """Two processes over one store: both list and acknowledge all, neither ends what it does not see."""
    clock, unique = SetClock(), Numbers()
    metadata = metadata_at(tmp_path)
    disks, shared = {name: Troubles() for name in ("n1", "n2")}, Troubles()
    speaker = "n1"
    nodes = {
        name: Alerts(
            metadata, clock, unique, (shared,), own_checks=(disks[name],), node=name,
            is_speaker=lambda name=name: speaker == name, background=False,
        )
        for name in disks
    }  # fmt: skip

    def check() -> None:
        for node in nodes.values():
            node.check()

    disk = Condition("disk-low", AlertType.WARNING, "little room")
    disks["n1"].now = disks["n2"].now = [disk]
    shared.now = [Condition("damage/db_1", AlertType.ERROR, "damaged")]
    check()
    check()
    assert sorted(alert.message for alert in nodes["n2"].list()) == [
        "Node n1: little room", "Node n2: little room", "damaged",
    ]  # fmt: skip
    disks["n1"].now = []
    speaker = "n2"
    check()
    ended = [alert.message for alert in nodes["n1"].list() if alert.ended_ms is not None]
    assert ended == ["Node n1: little room"] and len(nodes["n1"].list()) == 3
    (damaged,) = nodes["n1"].list("error")
    assert nodes["n1"].acknowledge(damaged.id, "one").acknowledged_by == "one"
    assert nodes["n2"].acknowledge(damaged.id, "two").acknowledged_by == "one"
    raised = nodes["n2"].create("info", "said by a person")
    assert nodes["n1"].acknowledge(raised.id, "one").message == "said by a person"
    shared.now = []
    check()
    assert nodes["n1"].list("error")[0].ended_ms == clock.ms
