"""What the audit log records and how it is asked; forgotten passwords."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.access_world import HOME, PASSWORD, World, refused

from jadevectordb.gateway.access.audit import CLASSES, EVENTS, which
from jadevectordb.gateway.access.principals import ANONYMOUS, Principal
from jadevectordb.gateway.access.resets import ResetDelivery
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import RESET_VALID_S
from jadevectordb.ports.event_log import EVERY_EVENT, EventFilter

ALICE = Principal("user_alice", "alice", ("user",), None, "session", "sess_1")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def kinds(world: World, which_: EventFilter = EVERY_EVENT) -> list[str]:
    return [event.kind for event in world.access.audit.query(which_, limit=1000, offset=0)]


def test_an_event_says_who_what_where_and_whether(world: World) -> None:
    world.access.audit.record(
        "database_delete", ALICE, HOME, success=False, details="d" * 5000, resource="db_1", operation="database.delete"
    )
    (event,) = world.access.audit.query(EVERY_EVENT, limit=10, offset=0)
    assert event.id.startswith("evt_") and event.time_ms == world.clock.ms
    assert (event.user_id, event.user, event.session_id, event.address) == ("user_alice", "alice", "sess_1", HOME)
    assert (event.resource, event.operation, event.success, len(event.details)) == (
        "db_1",
        "database.delete",
        False,
        1000,
    )


def test_every_kind_can_be_recorded_and_asked_for(world: World) -> None:
    for kind in EVENTS:
        world.access.audit.record(kind, ALICE, HOME)
    assert kinds(world) == [kind for kind in reversed(EVENTS) if kind != "search"]  # analytics has the searches
    for kind in EVENTS:
        assert kinds(world, which(kind, None)) == [kind] * (kind != "search")
        assert which(kind.upper(), "user_alice").kinds == {kind}
    for name in CLASSES:
        assert set(kinds(world, which(name, None))) <= CLASSES[name][0]
        assert which(name.lower(), None) == which(name, None)
    assert set(kinds(world, which("DATA_DELETION", None))) == {"vector_delete", "index_delete", "database_delete"}
    assert kinds(world, which("AUTHENTICATION_SUCCESS", "user_nobody")) == []
    with refused(ErrorCode.INVALID_ARGUMENT):
        which("LOGINS", None)
    with pytest.raises(AssertionError):
        world.access.audit.record("made_up", ALICE, HOME)


def test_searches_are_recorded_where_the_operator_wants_it(tmp_path: Path) -> None:
    world = World(tmp_path, audit_searches=True)
    world.access.audit.record("search", ALICE, HOME)
    assert kinds(world) == ["search"]
    world.close()


def test_old_events_go(world: World) -> None:
    world.access.audit.record("login", ALICE, HOME)
    world.clock.move(200 * 86_400)
    world.access.audit.record("logout", ALICE, HOME)
    world.clock.move(200 * 86_400)
    world.access.maintain()
    assert kinds(world) == ["logout"]


def test_signing_in_and_out_is_recorded_for_whom_it_concerns(world: World) -> None:
    user_id = world.user("alice")
    token = world.sign_in("alice")
    for name, password in (("alice", "my secret mistake"), ("hunter2 typed as a name", PASSWORD)):
        with refused(ErrorCode.UNAUTHORIZED):
            world.sign_in(name, password)
    world.access.sign_out(world.who(token), HOME)
    events = world.access.audit.query(EVERY_EVENT, limit=10, offset=0)
    assert [(e.kind, e.user_id, e.user, e.success) for e in events] == [
        ("logout", user_id, "alice", True),
        ("login_failed", "", "", False),
        ("login_failed", user_id, "alice", False),
        ("login", user_id, "alice", True),
    ]
    assert events[0].session_id == events[3].session_id != ""
    assert "hunter2" not in repr(events) and "mistake" not in repr(events)
    assert len(kinds(world, which(None, user_id))) == 3


def test_recording_after_the_end_is_no_error(world: World) -> None:
    world.events.close()
    world.access.audit.record("logout", ALICE, HOME)


class Postbox:
    """Where reset tokens are delivered to."""

    def __init__(self) -> None:
        self.letters: queue.Queue[ResetDelivery] = queue.Queue()

    def __call__(self, delivery: ResetDelivery) -> None:
        self.letters.put(delivery)
        if delivery.username == "unlucky":
            raise JadeError(ErrorCode.IO_ERROR, "no mail today")

    def next(self) -> ResetDelivery:
        return self.letters.get(timeout=60)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[tuple[World, Postbox]]:
    box = Postbox()
    world = World(tmp_path, deliver=box)
    yield world, box
    world.close()


def test_a_reset_token_reaches_its_owner_and_works_once(post: tuple[World, Postbox]) -> None:
    world, box = post
    user_id = world.user("alice", email="a@example.com")
    session = world.sign_in("alice")
    world.access.resets.ask("alice", "")
    letter = box.next()
    assert (letter.user_id, letter.username, letter.email) == (user_id, "alice", "a@example.com")
    assert letter.token not in repr(letter)
    for token, user in (
        (letter.token + "x", None),
        (letter.token, "user_other"),
        ("jadereset_", None),
        ("", None),
        (session, None),
    ):
        with refused(ErrorCode.INVALID_ARGUMENT):
            world.access.resets.finish(token, "brand new one", user)
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.resets.finish(letter.token, "short")
    world.access.resets.finish(letter.token, "brand new one", user_id)
    assert not world.works(session)
    assert not world.who(world.sign_in("alice", "brand new one")).must_change_password
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.resets.finish(letter.token, "once more please")


def test_a_reset_token_lives_a_quarter_of_an_hour_and_only_the_newest_counts(post: tuple[World, Postbox]) -> None:
    world, box = post
    world.user("alice", email="a@example.com")
    letters = []
    for _ in range(2):
        world.access.resets.ask("", "A@example.com")
        letters.append(box.next())
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.resets.finish(letters[0].token, "brand new one")
    world.clock.move(RESET_VALID_S)
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.resets.finish(letters[1].token, "brand new one")
    world.sign_in("alice")


def test_nobody_gets_a_letter_who_should_not(post: tuple[World, Postbox]) -> None:
    world, box = post
    world.user("alice", email="a@example.com")
    world.user("off", is_active=False)
    world.user("unlucky")
    for username, email in (
        ("nobody", ""),
        ("off", ""),
        ("alice", "other@example.com"),
        ("", "nobody@x.y"),
        ("unlucky", ""),
    ):
        world.access.resets.ask(username, email)
    world.access.resets.ask("alice", "a@example.com")
    assert [box.next().username, box.next().username] == ["unlucky", "alice"]  # and the failure before stopped nothing
    assert box.letters.empty()


def test_a_letter_is_worth_nothing_once_its_owner_is_gone(post: tuple[World, Postbox]) -> None:
    world, box = post
    root = world.admin()
    user_id = world.user("alice")
    world.access.resets.ask("alice", "")
    token = box.next().token
    world.access.accounts.update(user_id, is_active=False)
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.resets.finish(token, "brand new one")
    world.access.accounts.update(user_id, is_active=True)
    world.access.resets.ask("alice", "")
    token = box.next().token
    world.access.accounts.delete(user_id, by=root)
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.resets.finish(token, "brand new one")


def test_without_a_delivery_nothing_is_made(world: World) -> None:
    world.user("alice")
    world.access.resets.ask("alice", "")
    assert world.store.list("reset/") == {}
    assert ANONYMOUS.is_anonymous
