"""From headers to who asks: every form of credential, what is refused, and that a revocation counts from the next request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.access_world import HOME, PASSWORD, World, basic, refused

from jadevectordb.gateway.access import tokens
from jadevectordb.gateway.access.gatekeeper import _credential
from jadevectordb.gateway.access.principals import ANONYMOUS, OPEN
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CREDENTIALS_REMEMBERED_MAX, KEYS_PER_USER_MAX, SESSIONS_PER_USER_MAX


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_every_form_of_credential(world: World) -> None:
    user_id = world.user("alice", "developer", email="a@example.com")
    token = world.sign_in("alice")
    key, made = world.access.keys.create(user_id, permissions=("read", "vectors:write"))
    ask = world.access.gatekeeper.authenticate
    for header in (f"Bearer {token}", f"bearer {token}", f"BEARER   {token} "):
        principal = ask(header, None, HOME)
        assert (principal.user_id, principal.kind, principal.permissions) == (user_id, "session", None)
    for authorization, api_key in (
        (f"Bearer {key}", None), (f"ApiKey {key}", None), (f"apikey {key}", None), (None, key), ("", key), (basic("alice", key), None),
        (basic("", key), None),
    ):  # fmt: skip
        principal = ask(authorization, api_key, HOME)
        assert (principal.user_id, principal.kind, principal.credential_id) == (user_id, "key", made.key_id)
        assert principal.permissions == {"read", "write"}
    for name in ("alice", "ALICE", "a@example.com"):
        principal = ask(basic(name, PASSWORD), None, HOME)
        assert (principal.user_id, principal.kind, principal.roles) == (user_id, "password", ("developer",))
    assert ask(f"Bearer {token}", "jadevdb_nonsense", HOME).kind == "session"  # Authorization wins
    for authorization, api_key in (
        (None, None),
        ("", ""),
        ("Bearer", None),
        ("Bearer ", None),
        (" ", None),
        (None, " "),
    ):
        assert ask(authorization, api_key, HOME) is ANONYMOUS


def test_what_is_wrong_is_refused(world: World) -> None:
    user_id = world.user("alice")
    token, (key, _) = world.sign_in("alice"), world.access.keys.create(user_id)
    ask = world.access.gatekeeper.authenticate
    cut = [
        f"Bearer {secret}"
        for good in (token, key)
        for secret in (good[:-1], good + "a", good[:20] + "A" * 3 + good[23:])
    ]
    other = [f"Bearer {good[:9]}{'x' * 43}{good[52:]}" for good in (token, key)]
    for header in [
        *cut, *other, "Bearer null", "Bearer undefined", "Bearer jadevdb_", "Bearer jadesess_", "Digest abc", "Basic !!!",
        "Basic " + "YWxpY2U=", basic("alice", "wrong password"), basic("nobody", PASSWORD), basic("alice", ""), token,
        "Bearer " + "x" * 5000, "Bearer \ud800", "Bearer ÿþ", basic("alice", token),
        f"Bearer {tokens.KEY_PREFIX}{'x' * 43}user_{user_id}", f"Bearer {tokens.KEY_PREFIX}{'x' * 43}../{user_id}",
    ]:  # fmt: skip
        for _ in range(2):  # also when it was seen before
            with refused(ErrorCode.UNAUTHORIZED):
                ask(header, None, HOME)
    with refused(ErrorCode.UNAUTHORIZED):
        ask(None, "wrong", HOME)
    assert world.works(token) and world.works(key)


@given(st.text(max_size=60), st.none() | st.text(max_size=60))
def test_any_header_is_a_credential_or_unauthorized(authorization: str, api_key: str | None) -> None:
    try:
        secret, _, name = _credential(authorization, api_key)
    except JadeError as error:
        assert error.code is ErrorCode.UNAUTHORIZED
    else:
        assert isinstance(secret, str) and isinstance(name, str)


def endings(world: World) -> dict[str, Callable[[str], object]]:
    accounts, sessions, keys, root = world.access.accounts, world.access.sessions, world.access.keys, world.admin()

    def revoke_keys(user_id: str) -> None:
        for key in keys.of_user(user_id):
            keys.revoke(key)

    return {
        "signed out": lambda u: [sessions.end(u, s.session_id) for s in sessions.of_user(u)],
        "revoked": revoke_keys,
        "expired": lambda _: world.clock.move(86_400 * 2),
        "deactivated": lambda u: accounts.update(u, is_active=False),
        "deleted": lambda u: accounts.delete(u, by=root),
        "password reset": lambda u: accounts.reset_password(u, "another password", must_change=True),
        "password changed": lambda u: accounts.change_password(u, PASSWORD, "another password", by=root),
    }


@pytest.mark.parametrize(
    ("ending", "survivors"),
    [
        ("signed out", {"key", "password"}), ("revoked", {"session", "password"}), ("expired", {"password"}), ("deactivated", set()),
        ("deleted", set()), ("password reset", {"key"}), ("password changed", {"key"}),
    ],
)  # fmt: skip
def test_what_is_taken_away_is_refused_at_the_next_request(world: World, ending: str, survivors: set[str]) -> None:
    end = endings(world)[ending]
    user_id = world.user("alice")
    key, _ = world.access.keys.create(user_id, valid_days=1)
    headers = {
        "session": f"Bearer {world.sign_in('alice')}",
        "key": f"Bearer {key}",
        "password": basic("alice", PASSWORD),
    }
    ask = world.access.gatekeeper.authenticate
    for kind, header in headers.items():
        assert ask(header, None, HOME).kind == kind
        assert ask(header, None, HOME).kind == kind  # remembered by now
    end(user_id)
    found = set()
    for kind, header in headers.items():
        try:
            ask(header, None, HOME)
        except JadeError as error:
            assert error.code is ErrorCode.UNAUTHORIZED
        else:
            found.add(kind)
    assert found == survivors


def test_a_change_of_roles_counts_from_the_next_request(world: World) -> None:
    world.admin("root")
    user_id = world.user("alice", "admin")
    token = world.sign_in("alice")
    assert world.who(token).is_admin
    world.access.accounts.update(user_id, roles=("viewer",))
    assert world.who(token).roles == ("viewer",)


def test_a_known_credential_needs_no_store(world: World) -> None:
    user_id = world.user("alice")
    headers = [
        f"Bearer {world.sign_in('alice')}",
        basic("alice", PASSWORD),
        f"ApiKey {world.access.keys.create(user_id)[0]}",
    ]
    ask = world.access.gatekeeper.authenticate
    before = [ask(header, None, HOME) for header in headers]
    world.store.close()
    assert [ask(header, None, HOME) for header in headers] == before
    world.access.gatekeeper.forget()
    for header in headers:
        with refused(ErrorCode.CLOSED):
            ask(header, None, HOME)
    world._open()


def test_a_revocation_during_the_look_up_is_not_missed(world: World) -> None:
    """The store is read before the revocation, the answer is remembered after it: it must not be believed again."""
    world.user("alice")
    token = world.sign_in("alice")
    gatekeeper = world.access.gatekeeper
    read, go_on = threading.Event(), threading.Event()
    inner = gatekeeper._sessions

    class Slow:
        def of_token(self, token: str) -> object:
            found = inner.of_token(token)
            read.set()
            go_on.wait(60)
            return found

    gatekeeper._sessions = Slow()  # type: ignore[assignment]
    asking = threading.Thread(target=world.works, args=(token,))
    asking.start()
    assert read.wait(60)
    world.access.sign_out(world.principal_of(token, inner), HOME)
    go_on.set()
    asking.join()
    gatekeeper._sessions = inner
    assert not world.works(token)


def test_open_mode_makes_admins_of_all_and_still_refuses_what_is_wrong(tmp_path: Path) -> None:
    world = World(tmp_path, is_open=True)
    ask = world.access.gatekeeper.authenticate
    assert ask(None, None, "127.0.0.1") is OPEN and ask("", None, "127.0.0.1") is OPEN
    user_id = world.user("alice", "viewer")
    token = world.sign_in("alice")
    principal = world.who(token)
    assert (principal.user_id, principal.roles) == (user_id, ("viewer", "admin"))
    assert world.access.accounts.require("alice").roles == ("viewer",)
    key, _ = world.access.keys.create(user_id, permissions=("read",))
    assert world.who(key).is_admin and not world.who(key).may_administer
    with refused(ErrorCode.UNAUTHORIZED):
        ask("Bearer wrong", None, "127.0.0.1")
    world.restart(is_open=False)
    assert world.who(token).roles == ("viewer",)
    world.close()


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.gateway.access.gatekeeper.CREDENTIALS_REMEMBERED_MAX", 5)
    user_id = world.user("alice")
    keys = [world.access.keys.create(user_id)[0] for _ in range(12)]
    for key in keys * 2:
        assert world.works(key)
    for n in range(50):
        assert not world.works(f"wrong{n}")
    assert len(world.access.gatekeeper._known) <= 5 < CREDENTIALS_REMEMBERED_MAX


def test_tokens_are_plain_text_that_scripts_can_cut_out(world: World) -> None:
    user_id = world.user("alice")
    token, (key, made) = world.sign_in("alice"), world.access.keys.create(user_id)
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert set(token) <= allowed and set(key) <= allowed
    assert key.startswith("jadevdb_") and len(key) >= 8 + 43 and not token.startswith("jadevdb_")
    assert made.shown == key[:12]
    assert made.key_id.startswith("key_") and world.who(token).credential_id.startswith("sess_")


def test_sessions_of_one_user_are_bounded_and_the_oldest_goes(world: World) -> None:
    user_id = world.user("alice")
    begin = world.access.sessions.begin
    made = []
    for _ in range(SESSIONS_PER_USER_MAX + 2):
        world.clock.move(1)
        made.append(begin(user_id, HOME)[0])
    assert not world.works(made[0]) and not world.works(made[1]) and world.works(made[2]) and world.works(made[-1])
    assert len(world.access.sessions.of_user(user_id)) == SESSIONS_PER_USER_MAX
    world.clock.move(86_400)
    assert world.access.sessions.of_user(user_id) == []
    world.access.maintain()
    assert world.store.list("session/") == {}


def test_keys_of_one_user_are_bounded_and_working_ones_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEYS_PER_USER_MAX >= 100
    monkeypatch.setattr("jadevectordb.gateway.access.keys.KEYS_PER_USER_MAX", 4)
    user_id, keys = world.user("alice"), world.access.keys
    made = [keys.create(user_id) for _ in range(4)]
    with refused(ErrorCode.CONFLICT):
        keys.create(user_id)
    keys.revoke(made[1][1])
    last, _ = keys.create(user_id)
    assert [world.works(secret) for secret, _ in made] == [True, False, True, True] and world.works(last)
    assert made[1][1].key_id not in {k.key_id for k in keys.of_user(user_id)}


def test_keys_say_what_they_are(world: World) -> None:
    user_id, keys = world.user("alice"), world.access.keys
    _, key = keys.create(user_id, description="ci", valid_days=90)
    now = world.clock.now_ms()
    assert key.status(now) == "active" and key.status(now + 90 * 86_400_000) == "expired"
    revoked = keys.revoke(key)
    assert revoked is not None and revoked.status(now) == "revoked"
    world.clock.move(5)
    assert keys.revoke(key) == revoked  # again changes nothing
    assert keys.find(key.key_id) == revoked and keys.find(key.key_id, "user_other") is None
    for wrong in ({"valid_days": -1}, {"valid_days": 10**9}, {"permissions": ("fly",)}, {"description": "x" * 501}):
        with refused(ErrorCode.INVALID_ARGUMENT):
            keys.create(user_id, **wrong)  # type: ignore[arg-type]


def test_uses_are_counted_from_many_threads(world: World) -> None:
    user_id = world.user("alice")
    key, made = world.access.keys.create(user_id)

    def use() -> None:
        for _ in range(500):
            world.who(key)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads[:2]:
        thread.join()
    world.access.maintain()
    for thread in threads:
        thread.join()
    used = world.access.usage.of_user(user_id)[made.key_id]
    assert (used.count, used.last_ms) == (2000, world.clock.ms)
    world.access.maintain()
    assert world.access.usage.of_user(user_id)[made.key_id].count == 2000
