"""Accounts: names, roles, passwords, who may not go, and what is left after a crash or a race."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import argon2
import pytest
from tests.access_world import CHEAP, HOME, PASSWORD, World, refused

from jadevectordb.gateway.access.accounts import fold
from jadevectordb.gateway.access.passwords import HashCost, Passwords
from jadevectordb.gateway.access.principals import OPEN, Principal
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import PASSWORD_LENGTH_MAX


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_one_account_is_found_by_id_name_and_address_in_any_case(world: World) -> None:
    accounts = world.access.accounts
    user_id = world.user("Alice", email="Alice@Example.com")
    assert user_id.startswith("user_")
    for text in (user_id, "Alice", "ALICE", "alice@example.com", " alice "):
        found = accounts.find(text)
        assert found is not None and found.user_id == user_id, text
    for text in ("", "al", "user_", "a" * 10_000, "\ud800", "%", "alice/", "user/" + user_id):
        assert accounts.find(text) is None, text
    with refused(ErrorCode.NOT_FOUND):
        accounts.require("nobody")


def test_names_and_addresses_are_one_space(world: World) -> None:
    accounts = world.access.accounts
    world.user("alice", email="alice@example.com")
    for taken in ({"username": "ALICE"}, {"username": "alice@Example.com"}, {"username": "x", "email": "ALICE@example.com"},
                  {"username": "ａｌｉｃｅ"}):  # fmt: skip
        with refused(ErrorCode.ALREADY_EXISTS):
            accounts.create(taken["username"], PASSWORD, email=taken.get("email", ""))
    world.user("bob@example.com", email="bob@example.com")  # the same name twice in one account
    with refused(ErrorCode.ALREADY_EXISTS):
        accounts.update(accounts.require("bob@example.com").user_id, email="alice@example.com")
    assert len(accounts.list()) == 2


@pytest.mark.parametrize(
    "name",
    [
        "",
        " a",
        "a ",
        "a\nb",
        "a\u202eb",
        "a\u200bb",
        "x" * 129,
        "\ud800",
        "dev",
        "System",
        "user_aaaaaaaaaaaaaaaa",
        "user_dev",
    ],
)
def test_names_that_can_not_be(world: World, name: str) -> None:
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.accounts.create(name, PASSWORD)


@pytest.mark.parametrize("name", ["a", "x" * 128, "Zoë", "user_1700000000", "a@b", "名前", "o'neil; --", "a/b", "50%"])
def test_names_that_can_be(world: World, name: str) -> None:
    world.user(name)
    assert world.access.accounts.require(name).username == name
    assert world.works(world.sign_in(name))


@pytest.mark.parametrize("email", ["a", "@b", "a@", "a b@\n", "x" * 300 + "@b"])
def test_addresses_that_can_not_be(world: World, email: str) -> None:
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.user("alice", email=email)


@pytest.mark.parametrize("password", ["", "1234567", "x" * (PASSWORD_LENGTH_MAX + 1)])
def test_passwords_that_can_not_be(world: World, password: str) -> None:
    with refused(ErrorCode.INVALID_ARGUMENT) as caught:
        world.user("alice", password=password)
    assert not password or password not in str(caught.value)


def test_renaming_frees_the_old_name(world: World) -> None:
    accounts = world.access.accounts
    user_id = world.user("alice", email="a@example.com")
    accounts.update(user_id, username="Alicia", email="b@example.com")
    assert accounts.find("alice") is None and accounts.find("a@example.com") is None
    assert accounts.require("alicia").email == "b@example.com"
    world.user("alice", email="a@example.com")
    accounts.update(user_id, username="ALICIA")  # its own name in another case
    accounts.update(user_id, email="")
    assert accounts.require("alicia").username == "ALICIA"
    assert accounts.find("b@example.com") is None


def test_lists_by_role_and_state(world: World) -> None:
    accounts = world.access.accounts
    a, b, c = world.user("a", "admin"), world.user("b", "developer", "user"), world.user("c", is_active=False)
    assert {x.user_id for x in accounts.list()} == {a, b, c}
    assert [x.user_id for x in accounts.list(role="developer")] == [b]
    assert [x.user_id for x in accounts.list(role="user", is_active=False)] == [c]
    assert accounts.list(role="tester") == []


def test_the_last_active_admin_stays(world: World) -> None:
    accounts = world.access.accounts
    root = world.admin("root")
    other = world.admin("other")
    accounts.update(other.user_id, roles=("user",))
    for change in ({"roles": ("developer",)}, {"is_active": False}):
        with refused(ErrorCode.CONFLICT):
            accounts.update(root.user_id, **change)  # type: ignore[arg-type]
    with refused(ErrorCode.CONFLICT):
        accounts.delete(root.user_id, by=other)
    accounts.update(root.user_id, email="root@example.com", roles=("admin", "user"))
    accounts.update(other.user_id, roles=("admin",), is_active=False)  # an inactive one is no help
    with refused(ErrorCode.CONFLICT):
        accounts.update(root.user_id, roles=("user",))
    accounts.update(other.user_id, is_active=True)
    accounts.delete(root.user_id, by=other)


def test_two_admins_deposing_each_other_leave_one(world: World) -> None:
    accounts = world.access.accounts
    for round_ in range(5):
        pair = [world.admin(f"left{round_}"), world.admin(f"right{round_}")]
        for account in accounts.list(role="admin"):
            if account.user_id not in (pair[0].user_id, pair[1].user_id):
                accounts.update(account.user_id, roles=("user",))
        barrier, refusals = threading.Barrier(2), []

        def depose(
            victim: Principal, by: Principal, barrier: threading.Barrier = barrier, refusals: list[str] = refusals
        ) -> None:
            barrier.wait()
            try:
                accounts.update(victim.user_id, by=by, is_active=False)
            except JadeError as error:
                refusals.append(error.code)

        threads = [threading.Thread(target=depose, args=args) for args in ((pair[0], pair[1]), (pair[1], pair[0]))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refusals == [ErrorCode.CONFLICT]
        assert len([a for a in accounts.list(role="admin") if a.is_active]) == 1


def test_nobody_removes_the_account_they_are_signed_in_as(world: World) -> None:
    accounts = world.access.accounts
    root, _ = world.admin("root"), world.admin("other")
    with refused(ErrorCode.CONFLICT):
        accounts.delete(root.user_id, by=root)
    with refused(ErrorCode.CONFLICT):
        accounts.update(root.user_id, by=root, is_active=False)


def test_deleting_takes_everything_along_and_passes_databases_on(world: World) -> None:
    root = world.admin()
    told: list[tuple[str, str]] = []
    world.access.accounts.on_delete.append(lambda old, new: told.append((old, new)))
    user_id = world.user("alice", email="a@example.com")
    token = world.sign_in("alice")
    key, _ = world.access.keys.create(user_id)
    assert world.works(token) and world.works(key)
    world.access.maintain()
    world.access.accounts.delete(user_id, by=root)
    world.access.usage.forget(user_id)
    assert told == [(user_id, root.user_id)]
    assert not world.works(token) and not world.works(key)
    left = [name for name in world.store.list("") if user_id in name or "alice" in name or "a@example.com" in name]
    assert left == []
    again = world.user("alice", email="a@example.com")
    assert again != user_id
    with refused(ErrorCode.NOT_FOUND):
        world.access.accounts.delete(user_id, by=root)


def test_a_password_change_ends_the_other_sessions(world: World) -> None:
    user_id = world.user("alice")
    here, there = world.sign_in("alice"), world.sign_in("alice")
    key, _ = world.access.keys.create(user_id)
    me = world.who(here)
    accounts = world.access.accounts
    with refused(ErrorCode.UNAUTHORIZED):
        accounts.change_password(user_id, "wrong one!", "new password", by=me)
    with refused(ErrorCode.INVALID_ARGUMENT):
        accounts.change_password(user_id, PASSWORD, "short", by=me)
    with refused(ErrorCode.INVALID_ARGUMENT):
        accounts.change_password(user_id, PASSWORD, PASSWORD, by=me)
    assert world.works(there)
    accounts.change_password(user_id, PASSWORD, "new password", by=me)
    assert world.works(here) and not world.works(there) and world.works(key)
    with refused(ErrorCode.UNAUTHORIZED):
        world.sign_in("alice")
    assert world.works(world.sign_in("alice", "new password"))


def test_a_password_set_by_an_admin_must_be_changed(world: World) -> None:
    root, user_id = world.admin(), world.user("alice")
    token = world.sign_in("alice")
    world.access.accounts.reset_password(user_id, "from the admin", must_change=True)
    assert not world.works(token)
    token = world.sign_in("alice", "from the admin")
    assert world.who(token).must_change_password
    world.access.accounts.change_password(user_id, "from the admin", "my own choice", by=world.who(token))
    assert not world.who(token).must_change_password
    world.access.accounts.update(user_id, by=root, password="from the admin")
    assert world.who(world.sign_in("alice", "from the admin")).must_change_password
    world.access.accounts.update(root.user_id, by=root, password="for myself")
    assert not world.who(world.sign_in("root", "for myself")).must_change_password


def test_an_inactive_account_is_refused_and_can_come_back(world: World) -> None:
    root, user_id = world.admin(), world.user("alice")
    token = world.sign_in("alice")
    key, _ = world.access.keys.create(user_id)
    assert world.works(key)
    world.access.accounts.update(user_id, by=root, is_active=False)
    assert not world.works(token) and not world.works(key)
    with refused(ErrorCode.UNAUTHORIZED):
        world.sign_in("alice")
    world.access.accounts.update(user_id, by=root, is_active=True)
    assert not world.works(token)  # its session ended
    assert world.works(key) and world.works(world.sign_in("alice"))


def test_everything_survives_a_restart(world: World) -> None:
    user_id = world.user("alice", "developer", email="a@example.com")
    token = world.sign_in("alice")
    key, made = world.access.keys.create(user_id, description="nightly", permissions=("read",), valid_days=1)
    gone, revoked = world.access.keys.create(user_id)
    world.access.keys.revoke(revoked)
    before = world.access.accounts.get(user_id)
    for _ in range(3):
        world.who(key)
    world.restart()
    assert world.access.accounts.get(user_id) == before
    assert before is not None and before.last_login_ms == world.clock.ms
    assert world.works(token) and world.works(key) and not world.works(gone)
    assert world.access.usage.of_user(user_id)[made.key_id].count == 4
    assert [e.kind for e in world.events.query(limit=9)] == ["login"]
    world.clock.move(86_400)
    assert not world.works(token) and not world.works(key)


def test_threads_registering_one_name_get_one_account(world: World) -> None:
    for round_ in range(4):
        barrier, made, codes = threading.Barrier(4), [], []

        def register(
            n: int,
            barrier: threading.Barrier = barrier,
            round_: int = round_,
            made: list[str] = made,
            codes: list[str] = codes,
        ) -> None:
            barrier.wait()
            try:
                name = f"{'Twin' if n % 2 else 'twin'}{round_}"
                made.append(world.access.accounts.create(name, PASSWORD, email=f"{n}-{round_}@x.y").user_id)
            except JadeError as error:
                codes.append(error.code)

        threads = [threading.Thread(target=register, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1 and codes == [ErrorCode.ALREADY_EXISTS] * 3
        assert [a.user_id for a in world.access.accounts.list() if fold(a.username) == f"twin{round_}"] == made
    assert len(world.access.accounts.list()) == 4


def test_a_name_claimed_by_a_crash_is_free(world: World) -> None:
    assert world.store.compare_and_set("name/alice", b'{"user_id":"user_gone"}', 0)
    assert world.access.accounts.find("alice") is None
    assert world.access.accounts.require(world.user("alice")).username == "alice"
    world.restart()
    assert world.access.accounts.find("alice") is not None


def test_registering_gives_no_rights_beyond_a_developers(world: World) -> None:
    register = world.access.register
    account, refusals = register("alice", PASSWORD, email="", wanted=(), client=HOME)
    assert account.roles == ("developer", "user") and refusals == ()
    account, refusals = register("bob", PASSWORD, email="", wanted=("admin", "tester"), client=HOME)
    assert account.roles == ("tester",) and refusals == ("admin",)
    account, refusals = register("carol", PASSWORD, email="", wanted=("admin",), client=HOME)
    assert account.roles == ("developer", "user") and refusals == ("admin",)
    with refused(ErrorCode.ALREADY_EXISTS):
        register("Admin", PASSWORD, email="", wanted=(), client=HOME)
    world.restart(registration=False)
    with refused(ErrorCode.FORBIDDEN):
        world.access.register("dora", PASSWORD, email="", wanted=(), client=HOME)


def test_the_first_admin_from_its_configured_password(tmp_path: Path) -> None:
    world = World(tmp_path, admin_password="from the environment")
    assert world.access.setup_token is None
    assert not world.who(world.sign_in("admin", "from the environment")).must_change_password
    world.access.accounts.update(world.access.accounts.require("admin").user_id, password="another password")
    world.restart()  # once: the configured password does not come back
    with refused(ErrorCode.UNAUTHORIZED):
        world.sign_in("admin", "from the environment")
    world.close()


def test_an_account_named_admin_that_is_none_is_not_made_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.gateway.access.access._FIRST_ADMIN_S_MAX", 0.1)  # nobody is about to make it
    world = World(tmp_path)
    world.user("admin", "user")
    with refused(ErrorCode.CONFLICT):
        world.restart(admin_password="from the environment")
    world.store.close()
    world.events.close()


def test_setting_up_works_once_and_only_with_the_token(world: World) -> None:
    token = world.access.setup_token
    assert token is not None and token.startswith("jadesetup_")
    with refused(ErrorCode.UNAUTHORIZED):
        world.access.set_up(token + "x", "root", PASSWORD, HOME)
    with refused(ErrorCode.INVALID_ARGUMENT):
        world.access.set_up(token, "root", "short", HOME)
    account = world.access.set_up(token, "root", PASSWORD, HOME)
    assert account.roles == ("admin",) and world.access.setup_token is None
    with refused(ErrorCode.CONFLICT):
        world.access.set_up(token, "second", PASSWORD, HOME)
    world.restart()
    assert world.access.setup_token is None
    assert token not in repr(list(world.events.query(limit=99)))


def test_guessing_the_setup_token_is_limited(world: World) -> None:
    codes = []
    for _ in range(20):
        try:
            world.access.set_up("jadesetup_guess", "root", PASSWORD, HOME)
        except JadeError as error:
            codes.append(error.code)
    assert codes == [ErrorCode.UNAUTHORIZED] * 10 + [ErrorCode.RATE_LIMITED] * 10


def test_open_mode_has_an_admin_that_is_in_no_store(tmp_path: Path) -> None:
    world = World(tmp_path, is_open=True)
    accounts = world.access.accounts
    assert world.access.setup_token is None
    assert accounts.require("dev").user_id == "user_dev" and accounts.list() == []
    for call in (
        lambda: accounts.delete("user_dev", by=OPEN),
        lambda: accounts.update("user_dev", is_active=False),
        lambda: accounts.change_password("user_dev", "", "long enough", by=OPEN),
    ):
        with refused(ErrorCode.CONFLICT):
            call()
    with refused(ErrorCode.UNAUTHORIZED):
        world.access.sign_in("dev", "", HOME)
    alice = world.user("alice", "admin")  # the only stored admin may go: `dev` is there
    accounts.update(alice, by=OPEN, is_active=False)
    accounts.delete(alice, by=OPEN)
    key, _ = world.access.keys.create("user_dev")
    assert world.who(key).is_admin
    world.restart(is_open=False)
    assert not world.works(key)  # nothing of open mode is worth anything without it
    assert world.access.accounts.find("dev") is None
    world.close()


def test_hashes_are_argon2id_of_rfc_9106_by_default() -> None:
    passwords = Passwords(HashCost(), bytes)
    made = passwords.hash("correct horse")
    assert made.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords.verify(made, "correct horse") and not passwords.verify(made, "correct horsf")
    assert not passwords.is_outdated(made)


def test_passwords_match_exactly(world: World) -> None:
    passwords = world.access.passwords
    made = passwords.hash("Zoe\u0308s password")
    assert passwords.verify(made, "Zo\u00ebs password")  # composed otherwise, the same letters
    for wrong in ("zoës password", "Zoes password", "Zoës password ", "", "\ud800"):
        assert not passwords.verify(made, wrong)
    longest = "x" * PASSWORD_LENGTH_MAX
    made = passwords.hash(longest)
    assert passwords.verify(made, longest) and not passwords.verify(made, longest + "x")
    assert not passwords.verify(None, "anything") and not passwords.verify("not a hash", "anything")
    assert len({passwords.one_time() for _ in range(50)}) == 50


def test_an_old_hash_is_renewed_at_the_next_sign_in(world: World) -> None:
    user_id = world.user("alice")
    before = world.access.accounts.get(user_id)
    world.restart(hash_cost=HashCost(passes=2, memory_kib=8, lanes=1))
    token = world.sign_in("alice")
    after = world.access.accounts.get(user_id)
    assert before is not None and after is not None
    assert "t=1" in before.password_hash and "t=2" in after.password_hash
    assert world.works(token) and world.works(world.sign_in("alice"))


def test_too_many_sign_ins_at_once_are_told_to_come_back() -> None:
    passwords = Passwords(CHEAP, bytes)
    made = passwords.hash(PASSWORD)
    turns = [passwords._turn() for _ in range(18)]
    for turn in turns:
        assert turn._line.acquire(blocking=False)
    with refused(ErrorCode.UNAVAILABLE):
        passwords.verify(made, PASSWORD)
    for turn in turns:
        turn._line.release()
    assert passwords.verify(made, PASSWORD)


class Counted:
    """A hasher that keeps the parameters of the hashes it compared with."""

    def __init__(self, hasher: argon2.PasswordHasher) -> None:
        self.hasher = hasher
        self.costs: list[argon2.Parameters] = []

    def verify(self, hash_: str, password: bytes) -> bool:
        self.costs.append(argon2.extract_parameters(hash_))
        return self.hasher.verify(hash_, password)


def test_an_unknown_name_costs_as_much_as_a_wrong_password(world: World) -> None:
    """Counted, not timed: one hash of the same cost is computed either way."""
    world.user("alice")
    world.user("off", is_active=False)
    passwords = world.access.passwords
    passwords._hasher = counted = Counted(passwords._hasher)  # type: ignore[assignment]
    names = ("alice", "off", "nobody", "x" * 5000, "")
    for name in names:
        assert world.access.accounts.verify(name, "wrong password") is None
    assert len(counted.costs) == len(names) and counted.costs.count(counted.costs[0]) == len(names)


def test_no_secret_is_stored_or_shown(world: World) -> None:
    user_id = world.user("alice")
    token = world.sign_in("alice")
    key, made = world.access.keys.create(user_id)
    world.works(token), world.works(key)
    stored = b"".join(r.value for r in world.store.list("").values()).decode() + " ".join(world.store.list(""))
    stored += repr(world.events.query(limit=99)) + repr(world.access.accounts.list()) + repr(made)
    for secret in (token, key, PASSWORD, token[9:40], key[12:40]):
        assert secret not in stored
    account = world.access.accounts.get(user_id)
    assert account is not None and "argon2" not in repr(account)
