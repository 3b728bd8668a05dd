"""A name has one bearer, whichever gateway gave it and wherever it died: the same over every metadata store."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.access_world import PASSWORD
from tests.names_world import Killed, Steps, account_of, bearers, check_names, die, gateway
from tests.nats_cluster import NatsCluster

from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.access.accounts import Accounts
from jadevectordb.gateway.access.principals import OPEN
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import MetadataStore

Opener = Callable[[], MetadataStore]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsConnection]:
    with NatsCluster(tmp_path_factory.mktemp("nats")) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        yield connection
        connection.close()


@pytest.fixture(params=["sqlite", "kv"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """A store that was never used, at every call."""
    stores: list[MetadataStore] = []
    number = itertools.count()

    def open_one() -> MetadataStore:
        name = f"{tmp_path}/{next(number)}"
        if request.param == "sqlite":
            stores.append(SqliteStore(tmp_path / f"{len(stores)}.db"))
        else:
            connection: NatsConnection = request.getfixturevalue("connection")
            stores.append(KvStore(connection, hashlib.md5(name.encode()).hexdigest(), replicas=1))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def create(accounts: Accounts) -> None:
    accounts.create("Alice", PASSWORD, email="alice@example.com")


def rename(accounts: Accounts) -> None:
    found = accounts.find_by_name("bob") or account_of(accounts, "alice")  # another has renamed it
    accounts.update(found.user_id, username="Alice", email="alice@example.com")


def remove(accounts: Accounts) -> None:
    accounts.delete(account_of(accounts, "bob").user_id, by=OPEN)


def with_bob(store: MetadataStore) -> None:
    gateway(store).create("bob", PASSWORD, email="bob@example.com")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("doing", [create, rename, remove])
def test_killed_at_any_step_leaves_every_name_borne_once_or_free(
    opened: Opener, doing: Callable[[Accounts], None], after: bool
) -> None:
    for at in itertools.count():
        store = opened()
        with_bob(store)
        steps = Steps(store, at, die, after=after)
        try:
            doing(gateway(steps))
        except Killed:
            died = True
        else:
            died = False
        others = gateway(store)
        for name in ("alice", "bob"):
            found = others.find_by_name(name)
            if found is None:  # free, now, for whoever asks
                others.create(name, PASSWORD)
            else:
                with pytest.raises(JadeError) as caught:
                    others.create(name, PASSWORD)
                assert caught.value.code is ErrorCode.ALREADY_EXISTS
            assert len(bearers(others, name)) == 1
        check_names(store)
        if not died:
            assert at >= 2
            return


@pytest.mark.parametrize("rival", [create, rename])
@pytest.mark.parametrize("doing", [create, rename])
def test_whoever_is_slow_at_any_step_two_never_bear_one_name(
    opened: Opener, doing: Callable[[Accounts], None], rival: Callable[[Accounts], None]
) -> None:
    for at in itertools.count():
        store = opened()
        with_bob(store)
        codes: list[ErrorCode] = []

        def meanwhile(store: MetadataStore = store, codes: list[ErrorCode] = codes) -> None:
            try:
                rival(gateway(store))
            except JadeError as error:
                codes.append(error.code)

        steps = Steps(store, at, meanwhile)
        try:
            doing(gateway(steps))
        except JadeError as error:
            codes.append(error.code)
        others = gateway(store)
        assert len(bearers(others, "alice")) == 1
        if doing is not rival:  # two accounts: one of the two was told that it can't have the name
            assert len(codes) == (1 if steps.changes > at else 0), codes
            assert set(codes) <= {ErrorCode.ALREADY_EXISTS, ErrorCode.CONFLICT}
        check_names(store)
        if steps.changes <= at:
            return


def test_gateways_creating_one_user_at_the_same_moment_make_one(opened: Opener) -> None:
    store = opened()
    gateways = [gateway(store, pending_s=60.0) for _ in range(3)]  # one that a busy machine stops is not dead
    for turn in range(6):
        start, made, codes = threading.Barrier(3), [], []

        def register(
            number: int,
            turn: int = turn,
            start: threading.Barrier = start,
            made: list[str] = made,
            codes: list[ErrorCode] = codes,
        ) -> None:
            names = [f"user{turn}", f"{turn}@example.com"]
            start.wait()
            try:
                made.append(gateways[number].create(names[0], PASSWORD, email=names[1]).user_id)
            except JadeError as error:
                codes.append(error.code)

        threads = [threading.Thread(target=register, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1 and codes == [ErrorCode.ALREADY_EXISTS] * 2, (made, codes)
        assert bearers(gateways[0], f"user{turn}") == made
    check_names(store)


def test_accounts_without_claims_keep_their_names(opened: Opener) -> None:
    store = opened()
    with_bob(store)
    for key, record in store.list("name/").items():
        assert store.compare_and_set(key, None, record.revision)
    accounts = gateway(store)
    accounts.heal()
    assert account_of(accounts, "bob") == account_of(accounts, "bob@example.com")
    with pytest.raises(JadeError):
        accounts.create("BOB", PASSWORD)
    check_names(store)


def test_an_account_of_yesterday_is_read_and_renamed(opened: Opener) -> None:
    store = opened()
    assert store.compare_and_set("user/user_old", b'{"user_id":"user_old","username":"Old","roles":["admin"]}', 0)
    assert store.compare_and_set("name/old", b'{"user_id":"user_old"}', 0)
    accounts = gateway(store)
    assert accounts.has_admin()
    assert accounts.update("user_old", username="New").username == "New"
    assert accounts.find("old") is None and account_of(accounts, "new").user_id == "user_old"
    check_names(store)


def depose(accounts: Accounts, name: str) -> None:
    accounts.update(account_of(accounts, name).user_id, roles=("user",))


def dismiss(accounts: Accounts, name: str) -> None:
    accounts.delete(account_of(accounts, name).user_id, by=OPEN)


def with_admins(store: MetadataStore) -> None:
    for name in ("ada", "bob"):
        gateway(store).create(name, PASSWORD, roles=("admin",))


@pytest.mark.parametrize("doing", [depose, dismiss])
def test_gateways_that_take_away_the_two_last_admins_leave_one(
    opened: Opener, doing: Callable[[Accounts, str], None]
) -> None:
    for at in itertools.count():
        store = opened()
        with_admins(store)
        codes: list[ErrorCode] = []

        def meanwhile(store: MetadataStore = store, codes: list[ErrorCode] = codes) -> None:
            try:
                doing(gateway(store), "bob")
            except JadeError as error:
                codes.append(error.code)

        steps = Steps(store, at, meanwhile)
        try:
            doing(gateway(steps), "ada")
        except JadeError as error:
            codes.append(error.code)
        assert gateway(store).has_admin()
        if steps.changes <= at:
            assert codes == []
            return
        assert codes == [ErrorCode.CONFLICT]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_admin_whose_change_was_cut_off_is_not_the_one_that_is_relied_on(opened: Opener, after: bool) -> None:
    for at in itertools.count():
        store = opened()
        with_admins(store)
        try:
            depose(gateway(Steps(store, at, die, after=after)), "ada")
        except Killed:
            died = True
        else:
            died = False
        others = gateway(store)
        with pytest.raises(JadeError) if at or after or not died else contextlib.nullcontext():
            depose(others, "bob")
        assert others.has_admin()
        if account_of(others, "ada").is_active_admin:  # whoever looks after it again makes it count
            others.update(account_of(others, "ada").user_id, roles=("admin", "user"))
        else:
            others.update(account_of(others, "ada").user_id, roles=("admin",))
        if account_of(others, "bob").is_active_admin:
            depose(others, "bob")
        assert [one.username for one in others.list() if one.is_active_admin] == ["ada"]
        if not died:
            return
