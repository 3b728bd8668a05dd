"""The names of accounts: usernames and e-mail addresses, one space, each borne by at most one account of the whole cluster.

The steps are those of `access.names`. The account is `user/ID`, the claim `name/FOLDED`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

import msgspec

from jadevectordb.gateway.access.account import Account, fold, names_of
from jadevectordb.gateway.access.names import HeldError, Names, Standing
from jadevectordb.gateway.access.records import Records
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CLAIM_PENDING_S
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

logger = logging.getLogger("jadevectordb.access")
_LOOK_S = 0.05


class AccountNames:
    """Every method may be called from any thread and raises what the store raises."""

    def __init__(
        self, records: Records[Account], store: MetadataStore, clock: Clock, *, pending_s: float = CLAIM_PENDING_S
    ) -> None:
        """pending_s: how long somebody who is still claiming a name is waited for before it is taken from them."""
        self._records = records
        self._names = Names(store, "name", self._standing)
        self._clock = clock
        self._pending_s = pending_s
        self._pause = threading.Event()
        self._seen_s: dict[tuple[str, tuple[str, ...]], float] = {}  # who was claiming what when it was first looked at

    def bearer(self, name: str) -> Account | None:
        """The account that bears this folded name."""
        owner = self._names.owner(name)
        account = self._records.get(owner) if owner is not None else None
        return account if account is not None and _bears(account, name) else None

    def refuse_taken(self, user_id: str | None, username: str, email: str) -> None:
        """Raises ALREADY_EXISTS when another account bears one of them."""
        for name in dict.fromkeys((fold(username), fold(email))):
            bearer = self.bearer(name) if name else None
            if bearer is not None and bearer.user_id != user_id:
                raise taken(name == fold(username))

    # Beginning to bear names

    def add(self, account: Account) -> None:
        """Write a new account and have it bear its names, or leave nothing of it. Raises HeldError, CONFLICT."""
        draft = msgspec.structs.replace(account, is_new=True, claiming=names_of(account))
        added = self._records.add(account.user_id, draft)
        assert added, "two users with the same random id"
        try:
            self._claim(draft.claiming, account.user_id)
            committed = self._records.change(account.user_id, lambda current: _committed(current, account))
            if committed is None:
                raise _taken_back()
        except BaseException:
            self._undo(account.user_id, draft.claiming)
            raise

    def replace(self, old: Account, new: Account) -> Account | None:
        """Write what differs between the two, names included; as it is now, None when there is no such account.

        Raises HeldError, CONFLICT; nothing was changed then.
        """
        fresh = tuple(name for name in names_of(new) if name not in names_of(old))
        if fresh and self._begin(old.user_id, fresh) is None:
            return None
        try:
            self._claim(fresh, old.user_id)
            written = self._records.change(old.user_id, lambda current: _changed(current, old, new, fresh))
        except BaseException:
            self._undo(old.user_id, fresh)
            raise
        self.release(name for name in names_of(old) if name not in names_of(new))
        return written

    def _begin(self, user_id: str, fresh: tuple[str, ...]) -> Account | None:
        def step(current: Account) -> Account:
            claiming = tuple(dict.fromkeys((*current.claiming, *fresh)))
            return msgspec.structs.replace(current, claiming=claiming)

        return self._records.change(user_id, step)

    def _claim(self, names: Iterable[str], user_id: str) -> None:
        for name in sorted(names):  # in one order, so that of two who want the same two names one gets both
            self._names.claim(name, user_id)

    def _undo(self, user_id: str, names: tuple[str, ...]) -> None:
        """Take back the first steps as far as the store lets it; what stays is taken back by `heal`, or by who wants the name."""
        try:
            self.fence(user_id, names)
            for name in names:
                self._names.release(name, user_id)
        except JadeError as error:
            logger.warning("names that %s was about to bear are freed later: %s", user_id, error)

    # What others left

    def outlast(self, held: HeldError) -> None:
        """Wait until it is decided whether the holder bears the name; who takes too long does not get it."""
        for _ in range(max(1, int(self._pending_s / _LOOK_S))):
            if self._standing(held.owner, held.name) is not Standing.CLAIMING:
                return
            self._pause.wait(_LOOK_S)
        self.fence(held.owner, (held.name,))

    def fence(self, user_id: str, names: Iterable[str]) -> None:
        """Undo the first step of somebody who is claiming one of these names: whatever they do next, they don't get them."""
        undone = frozenset(names)

        def step(current: Account) -> Account | None:
            if not undone.intersection(current.claiming):
                return current
            if current.is_new:
                return None
            left = tuple(name for name in current.claiming if name not in undone)
            return msgspec.structs.replace(current, claiming=left)

        self._records.change(user_id, step)

    def release(self, names: Iterable[str]) -> None:
        """Free those that nobody bears or is about to bear."""
        for name in names:
            owner = self._names.owner(name)
            if owner is not None:
                self._names.release(name, owner)

    def heal(self) -> None:
        """Finish what others left half-way: claims of nobody, and accounts whose maker died; and claim names that never were.

        Called now and then: somebody still claiming the same at two calls that are `pending_s` apart is taken for dead.
        """
        now_s = self._clock.monotonic_s()
        owners, accounts = self._names.every(), self._records.list()
        claiming = {(account.user_id, account.claiming) for account in accounts.values() if account.claiming}
        self._seen_s = {one: self._seen_s.get(one, now_s) for one in claiming}
        for (user_id, names), since_s in self._seen_s.items():
            if now_s - since_s >= self._pending_s:
                self._undo(user_id, names)
        for name, owner in owners.items():
            if owner not in accounts or not _concerns(accounts[owner], name):
                self._names.release(name, owner)
        for account in accounts.values():
            for name in () if account.is_new else names_of(account):
                if owners.get(name) != account.user_id:
                    self._adopt(account, name)

    def _adopt(self, account: Account, name: str) -> None:
        """A name that its account bears without a claim, from a program that knew none or from a record that was put back."""
        try:
            self._names.claim(name, account.user_id)
        except HeldError as held:
            logger.warning("%s and %s both have the name %r: rename one of them", held.owner, account.user_id, name)

    def _standing(self, owner: str, name: str) -> Standing:
        account = self._records.get(owner)
        if account is None:
            return Standing.NEITHER
        if _bears(account, name):
            return Standing.BEARS
        return Standing.CLAIMING if name in account.claiming else Standing.NEITHER


def _bears(account: Account, name: str) -> bool:
    return not account.is_new and name in names_of(account)


def _concerns(account: Account, name: str) -> bool:
    return name in account.claiming or name in names_of(account)


def _committed(current: Account, account: Account) -> Account:
    """Step 3 of a new account."""
    if not current.is_new or not set(names_of(account)) <= set(current.claiming):
        raise _taken_back()
    return account


def _changed(current: Account, old: Account, new: Account, fresh: tuple[str, ...]) -> Account:
    """Step 3 of an account that is changed: what differs between old and new, on top of what others changed meanwhile."""
    if not set(fresh) <= {*current.claiming, *names_of(current)}:
        raise _taken_back()
    changed = {f: getattr(new, f) for f in Account.__struct_fields__ if getattr(new, f) != getattr(old, f)}
    left = tuple(name for name in current.claiming if name not in fresh)
    return msgspec.structs.replace(current, **{**changed, "claiming": left})


def taken(is_username: bool) -> JadeError:
    what = "username" if is_username else "e-mail address"
    return JadeError(ErrorCode.ALREADY_EXISTS, f"This {what} is taken: choose another one.")


def _taken_back() -> JadeError:
    return JadeError(
        ErrorCode.CONFLICT, "Writing the account took so long that its names were given to others; nothing was changed."
    )
