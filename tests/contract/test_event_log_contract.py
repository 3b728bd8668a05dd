"""What every adapter of the event log port must do, as one suite. A new adapter adds a line to `ADAPTERS`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jadevectordb.adapters.sqlite_events import SqliteEvents
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import EVENT_BATCH_MAX
from jadevectordb.ports.event_log import Event, EventFilter, EventLog

Opener = Callable[[Path], EventLog]
ADAPTERS: dict[str, Opener] = {"sqlite": lambda folder: SqliteEvents(folder / "events.sqlite")}


@pytest.fixture(params=ADAPTERS)
def opener(request: pytest.FixtureRequest) -> Opener:
    return ADAPTERS[request.param]


@pytest.fixture
def log(opener: Opener, tmp_path: Path) -> Iterator[EventLog]:
    log = opener(tmp_path)
    yield log
    log.close()


def event(n: int, kind: str = "login", user_id: str = "user_a", **more: object) -> Event:
    return Event(id=f"evt_{n}", time_ms=1000 + n, kind=kind, user_id=user_id, **more)  # type: ignore[arg-type]


def ids(events: list[Event]) -> list[str]:
    return [e.id for e in events]


def test_what_was_appended_is_found_whole_and_newest_first(log: EventLog) -> None:
    full = Event(
        id="evt_1", time_ms=5, kind="user_update", user_id="user_b", user="Bö", success=False, address="::1",
        session_id="sess_1", resource="user_c", operation="user.update", details="roles\n'; DROP TABLE event; --",
    )  # fmt: skip
    log.append(full)
    log.append(event(2))
    assert log.query(limit=10) == [event(2), full]
    assert log.query(limit=1) == [event(2)]
    assert log.query(limit=1, offset=1) == [full]
    assert log.query(limit=5, offset=2) == []
    assert list(log.scan()) == [full, event(2)]


def test_every_way_of_asking_agrees_with_a_list(log: EventLog) -> None:
    events = [event(n, kind=["a", "b", "c"][n % 3], user_id=f"user_{n % 2}", success=n % 5 != 0) for n in range(60)]
    for one in events:
        log.append(one)
    for which, passes in [
        (EventFilter(), lambda e: True),
        (EventFilter(kinds=frozenset({"a", "c"})), lambda e: e.kind in "ac"),
        (EventFilter(kinds=frozenset()), lambda e: False),
        (EventFilter(user_id="user_1", success=False), lambda e: e.user_id == "user_1" and not e.success),
        (EventFilter(since_ms=1010, until_ms=1020), lambda e: 1010 <= e.time_ms < 1020),
        (EventFilter(kinds=frozenset({"b"}), user_id="user_0"), lambda e: e.kind == "b" and e.user_id == "user_0"),
        (EventFilter(user_id="user_0", since_ms=1030), lambda e: e.user_id == "user_0" and e.time_ms >= 1030),
    ]:  # fmt: skip
        expected = [e for e in events if passes(e)]
        assert log.query(which, limit=1000) == expected[::-1]
        assert list(log.scan(which)) == expected
        assert log.count(which) == len(expected)
        sums = log.sums(which)
        assert sums.total == len(expected)
        assert sums.by_kind == {k: n for k in "abc" if (n := sum(e.kind == k for e in expected))}
        assert sums.failed == sum(not e.success for e in expected)
        assert (sums.first_ms, sums.last_ms) == (
            min((e.time_ms for e in expected), default=None), max((e.time_ms for e in expected), default=None),
        )  # fmt: skip


def test_reopening_finds_everything(opener: Opener, tmp_path: Path) -> None:
    log = opener(tmp_path)
    for n in range(2 * EVENT_BATCH_MAX + 7):
        log.append(event(n))
    log.close()
    log.close()
    log = opener(tmp_path)
    assert log.count() == 2 * EVENT_BATCH_MAX + 7
    log.append(event(-1))
    assert ids(log.query(limit=2)) == ["evt_-1", f"evt_{2 * EVENT_BATCH_MAX + 6}"]
    log.close()


KILLED = """
import os, sys
from pathlib import Path
from jadevectordb.adapters.sqlite_events import SqliteEvents
from jadevectordb.ports.event_log import Event
log = SqliteEvents(Path(sys.argv[1]) / "events.sqlite")
log.append(Event(id="evt_1", time_ms=1, kind="search"))
log.append(Event(id="evt_2", time_ms=2, kind="login"), at_once=True)
os._exit(9)
"""


def test_what_is_appended_at_once_survives_a_kill_together_with_what_came_before(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == 9
    log = SqliteEvents(tmp_path / "events.sqlite")
    assert ids(log.query(limit=10)) == ["evt_2", "evt_1"]
    log.close()


def test_pruning_by_age_and_by_number(log: EventLog) -> None:
    for n in range(50):
        log.append(event(n))
    assert log.prune(before_ms=1010, rows_max=1000) == 10
    assert log.count() == 40
    assert log.prune(before_ms=0, rows_max=15) == 25
    assert [e.id for e in log.scan()] == [f"evt_{n}" for n in range(35, 50)]
    assert log.prune(before_ms=0, rows_max=15) == 0
    assert log.prune(before_ms=1 << 40, rows_max=15) == 15
    assert log.count() == 0
    log.append(event(99))
    assert ids(log.query(limit=9)) == ["evt_99"]
    assert log.prune(before_ms=0, rows_max=0) == 1


def test_events_of_threads_all_arrive_each_thread_in_order(log: EventLog) -> None:
    def write(thread: int) -> None:
        for n in range(300):
            log.append(event(n, user_id=f"user_{thread}"), at_once=n % 100 == 0)

    threads = [threading.Thread(target=write, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for t in range(4):
        assert [e.id for e in log.scan(EventFilter(user_id=f"user_{t}"))] == [f"evt_{n}" for n in range(300)]


def test_after_close_nothing_but_closing_again(log: EventLog) -> None:
    log.close()
    log.close()
    for call in (lambda: log.append(event(1)), lambda: log.query(limit=1), log.count, log.flush, log.sums):
        with pytest.raises(JadeError) as caught:
            call()
        assert caught.value.code is ErrorCode.CLOSED


def test_trouble_with_the_file_loses_nothing(tmp_path: Path) -> None:
    """Another program holds the write lock: appends go on, and all is written when it lets go."""
    path = tmp_path / "events.sqlite"
    log = SqliteEvents(path)
    log._connection.execute("PRAGMA busy_timeout=1")
    log.append(event(0), at_once=True)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for n in range(1, 6):
        log.append(event(n), at_once=True)
    assert ids(log.query(limit=9)) == ["evt_0"]  # answered without what can't be written
    with pytest.raises(JadeError) as caught:
        log.flush()
    assert caught.value.code is ErrorCode.LOCKED
    other.execute("ROLLBACK")
    other.close()
    assert ids(log.query(limit=9)) == [f"evt_{n}" for n in range(5, -1, -1)]
    assert log.dropped == 0
    log.close()


def test_a_bounded_line_drops_the_oldest_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.adapters.sqlite_events.EVENTS_WAITING_MAX", 4)
    path = tmp_path / "events.sqlite"
    log = SqliteEvents(path)
    log._connection.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for n in range(10):
        log.append(event(n))
    assert log.dropped == 6
    other.execute("ROLLBACK")
    other.close()
    assert ids(log.query(limit=20)) == ["evt_9", "evt_8", "evt_7", "evt_6"]
    log.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to look", bytes(4096)])
def test_a_file_that_is_no_event_log_is_refused_or_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.sqlite"
    path.write_bytes(content)
    if not content:
        SqliteEvents(path).close()
        return
    with pytest.raises(JadeError) as caught:
        SqliteEvents(path)
    assert caught.value.code is ErrorCode.CORRUPT


def test_another_programs_database_and_a_newer_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    with pytest.raises(JadeError) as caught:
        SqliteEvents(path)
    assert caught.value.code is ErrorCode.CORRUPT
    path.unlink()
    SqliteEvents(path).close()
    ours = sqlite3.connect(path)
    ours.execute("PRAGMA user_version=99")
    ours.close()
    with pytest.raises(JadeError) as caught:
        SqliteEvents(path)
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=5))
def test_any_text_comes_back_as_it_was(
    opener: Opener, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    log = opener(tmp_path_factory.mktemp("events"))
    for text in texts:
        log.append(Event(id=text, time_ms=1, kind=text, user_id=text, user=text, details=text, resource=text))
    found = list(log.scan())
    assert [e.details for e in found] == texts
    assert [(e.id, e.kind, e.user_id, e.user, e.resource) for e in found] == [(t,) * 5 for t in texts]
    log.close()
