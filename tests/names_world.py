"""Several gateways over one metadata store: accounts and catalogs of their own, and stores that die, or let another act, just
before a chosen change.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from jadevectordb.gateway.access.accounts import Account, Accounts, fold
from jadevectordb.gateway.access.keys import Keys
from jadevectordb.gateway.access.passwords import Passwords
from jadevectordb.gateway.access.sessions import Sessions
from jadevectordb.ports.metadata_store import MetadataStore, OnChange, Record, Watch
from jadevectordb.prepared_structs import prepare_structs
from tests.access_world import CHEAP, MovedClock

PENDING_S = 0.1
_HOUR_MS = 3_600_000


class Killed(BaseException):
    """The process is no more: nothing that it still does reaches the store."""


class Steps:
    """A store whose `at`-th change (from 0) is the moment of `then`, which may raise Killed; everything is refused after that."""

    def __init__(self, store: MetadataStore, at: int, then: Callable[[], None], *, after: bool = False) -> None:
        """after: the change is made first."""
        self._store = store
        self._at = at
        self._then = then
        self._after = after
        self._dead = False
        self.changes = 0

    def get(self, key: str) -> Record | None:
        self._check()
        return self._store.get(key)

    def list(self, prefix: str) -> dict[str, Record]:
        self._check()
        return self._store.list(prefix)

    def compare_and_set(self, key: str, value: bytes | None, expected: int) -> int | None:
        self._check()
        is_now = self.changes == self._at
        self.changes += 1
        if is_now and not self._after:
            self._happen()
        changed = self._store.compare_and_set(key, value, expected)
        if is_now and self._after:
            self._happen()
        return changed

    def _happen(self) -> None:
        try:
            self._then()
        except Killed:
            self._dead = True
            raise

    def _check(self) -> None:
        if self._dead:
            raise Killed

    def watch(self, prefix: str, handler: OnChange) -> Watch:
        return self._store.watch(prefix, handler)

    def close(self) -> None:
        self._store.close()


def die() -> None:
    raise Killed


def gateway(store: MetadataStore, clock: MovedClock | None = None, pending_s: float = PENDING_S) -> Accounts:
    """The accounts as one gateway has them. pending_s: how long another is waited for, of real time."""
    prepare_structs()
    clock = clock or MovedClock()
    random = secrets.token_bytes
    sessions, keys = Sessions(store, clock, random, _HOUR_MS), Keys(store, clock, random)
    return Accounts(
        store, clock, random, Passwords(CHEAP, random), sessions, keys, is_open=False, pending_s=pending_s
    )  # fmt: skip


def bearers(accounts: Accounts, name: str) -> list[str]:
    """Ids of the accounts that say they have this name or address."""
    return [one.user_id for one in accounts.list() if fold(name) in (fold(one.username), fold(one.email))]


def check_names(store: MetadataStore) -> None:
    """After others have healed what was left: every name has one bearer, who is found by it, and nothing else is there."""
    clock = MovedClock()
    accounts = gateway(store, clock)
    accounts.heal()
    clock.move(PENDING_S + 1)
    accounts.heal()
    names = [name for one in accounts.list() for name in {fold(one.username), fold(one.email)} - {""}]
    assert len(names) == len(set(names)), names
    assert set(store.list("name/")) == {f"name/{name}" for name in names}
    for one in accounts.list():
        assert one.claiming == () and not one.is_new
        for name in {one.username, one.email} - {""}:
            assert accounts.find_by_name(name) == one
    assert {f"user/{one.user_id}" for one in accounts.list()} == set(store.list("user/"))


def account_of(accounts: Accounts, name: str) -> Account:
    found = accounts.find_by_name(name)
    assert found is not None, name
    return found
