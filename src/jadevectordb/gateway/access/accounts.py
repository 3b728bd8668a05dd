"""User accounts: names that are unique, passwords that are hashed, roles, and the rules that keep a server administrable.

Records: `user/ID` is the account; `name/FOLDED` claims a username or e-mail address for one account, so that any of the three
means one account and nobody can register another's address as a name, at whichever node of a cluster; see `account_names`.

Changes run one after the other in this process (`_lock`; hashing, and waiting for other processes, are outside it); the store's
compare-and-set catches anyone else. That an admin is left is `last_admin`'s business.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from jadevectordb.gateway.access import tokens
from jadevectordb.gateway.access.account import BUILT_IN, Account, check_email, check_username, fold, names_of
from jadevectordb.gateway.access.account_names import AccountNames, taken
from jadevectordb.gateway.access.keys import Keys
from jadevectordb.gateway.access.last_admin import LastAdmin
from jadevectordb.gateway.access.names import HeldError
from jadevectordb.gateway.access.passwords import Passwords, check_rules
from jadevectordb.gateway.access.principals import BUILT_IN_ID, BUILT_IN_NAME, CREATED_ROLES, Principal
from jadevectordb.gateway.access.records import Records
from jadevectordb.gateway.access.sessions import Session, Sessions
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ACCOUNTS_MAX, CLAIM_PENDING_S, EMAIL_LENGTH_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

_T = TypeVar("_T")
_ROUNDS = 3  # of outlasting others who want the same name
__all__ = ["BUILT_IN", "Account", "Accounts", "check_email", "check_username", "fold"]


class Accounts:
    """is_open: open mode, where the built-in admin `dev` exists beside the stored accounts.

    on_change: called after every change that may take something away from an account; the gatekeeper forgets what it knew.
    on_delete: (deleted user's id, id of who inherits), before the account goes; the catalog moves databases.
    """

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        random: tokens.RandomBytes,
        passwords: Passwords,
        sessions: Sessions,
        keys: Keys,
        *,
        is_open: bool,
        pending_s: float = CLAIM_PENDING_S,
    ) -> None:
        """pending_s: as `AccountNames`."""
        self._records = Records(store, "user", Account)
        self._names = AccountNames(self._records, store, clock, pending_s=pending_s)
        self._last_admin = LastAdmin(
            store, lambda: frozenset(account.user_id for account in self._every() if account.is_active_admin)
        )
        self._clock = clock
        self._random = random
        self._passwords = passwords
        self._sessions = sessions
        self._keys = keys
        self._is_open = is_open
        self._lock = threading.RLock()
        self.on_change: Callable[[], None] = _nothing
        self.on_delete: list[Callable[[str, str], None]] = []

    # Asking

    def get(self, user_id: str) -> Account | None:
        if user_id == BUILT_IN_ID:
            return BUILT_IN if self._is_open else None
        account = self._records.get(user_id)
        return None if account is None or account.is_new else account

    def find(self, text: str) -> Account | None:
        """By id, username or e-mail address; an id wins."""
        return self.get(text) or self.find_by_name(text)

    def find_by_name(self, text: str) -> Account | None:
        """By username or e-mail address."""
        folded = fold(text) if len(text) <= EMAIL_LENGTH_MAX else ""
        if self._is_open and folded == BUILT_IN_NAME:
            return BUILT_IN
        return self._names.bearer(folded) if folded else None

    def require(self, text: str) -> Account:
        """As `find`. Raises NOT_FOUND."""
        account = self.find(text)
        if account is None:
            raise JadeError(
                ErrorCode.NOT_FOUND, f"User not found: {text!r:.200}. Name a user by id, username or e-mail."
            )
        return account

    def list(self, *, role: str | None = None, is_active: bool | None = None) -> list[Account]:
        """Oldest first."""
        found = [
            account
            for account in self._every()
            if (role is None or role in account.roles) and (is_active is None or account.is_active == is_active)
        ]
        return sorted(found, key=lambda a: (a.created_ms, a.user_id))

    def has_admin(self) -> bool:
        return any(account.is_active_admin for account in self._every())

    def _every(self) -> Iterator[Account]:
        return (account for account in self._records.list().values() if not account.is_new)

    def heal(self) -> None:
        """Finish what processes that died left half-way. Called at the start, and now and then."""
        self._names.heal()

    # Creating, changing, deleting

    def create(
        self,
        username: str,
        password: str,
        *,
        roles: tuple[str, ...] = CREATED_ROLES,
        email: str = "",
        is_active: bool = True,
        must_change_password: bool = False,
    ) -> Account:
        """Raises INVALID_ARGUMENT, ALREADY_EXISTS (name or address taken), and UNAVAILABLE when too many hash at once."""
        check_username(username)
        check_email(email)
        check_rules(password)
        if not roles:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, "An account needs at least one role.")
        self._names.refuse_taken(None, username, email)  # before the costly hash; decided below
        password_hash = self._passwords.hash(password)
        now = self._clock.now_ms()
        account = Account(
            user_id=tokens.new_id(self._random, "user_"), username=username, email=email, roles=roles, is_active=is_active,
            password_hash=password_hash, must_change_password=must_change_password, created_ms=now, updated_ms=now,
        )  # fmt: skip

        def add() -> None:
            with self._lock:
                if len(self._records.list()) >= ACCOUNTS_MAX:
                    raise JadeError(ErrorCode.CONFLICT, f"There are {ACCOUNTS_MAX} accounts already: delete some.")
                self._names.refuse_taken(None, username, email)
                self._names.add(account)

        self._with_names(add, username)
        return account

    def _with_names(self, attempt: Callable[[], _T], username: str) -> _T:
        """What `attempt` returns; again when somebody who was about to bear one of the names is through, or given up on."""
        for _ in range(_ROUNDS):
            try:
                return attempt()
            except HeldError as held:
                raced = held
            self._names.outlast(raced)
        raise taken(raced.name == fold(username))

    def update(
        self,
        user_id: str,
        *,
        by: Principal | None = None,
        username: str | None = None,
        email: str | None = None,
        roles: tuple[str, ...] | None = None,
        is_active: bool | None = None,
        password: str | None = None,
    ) -> Account:
        """Change what is given. A password set for somebody else must be changed by them. Raises NOT_FOUND, CONFLICT, ..."""
        changes: dict[str, Any] = {}
        if username is not None:
            changes["username"] = check_username(username)
        if email is not None:
            changes["email"] = check_email(email)
        if roles is not None:
            if not roles:
                raise JadeError(ErrorCode.INVALID_ARGUMENT, "An account needs at least one role.")
            changes["roles"] = roles
        if is_active is not None:
            changes["is_active"] = is_active
        if password is not None:
            changes["password_hash"] = self._passwords.hash(check_rules(password))
            changes["must_change_password"] = by is None or by.user_id != user_id
        return self._with_names(lambda: self._update(user_id, by, changes), username or "")

    def _update(self, user_id: str, by: Principal | None, changes: dict[str, Any]) -> Account:
        with self._lock:
            old = self._stored(user_id)
            new = msgspec.structs.replace(old, updated_ms=self._clock.now_ms(), **changes)
            if by is not None and by.user_id == user_id and not new.is_active:
                raise JadeError(ErrorCode.CONFLICT, "You can't deactivate the account you are signed in as.")
            with self._keeping_an_admin(old, new):
                self._replace(old, new)
            if new.is_active_admin:
                self._last_admin.stays(user_id)
            if "password_hash" in changes or (old.is_active and not new.is_active):
                keep = by.credential_id if by is not None and by.user_id == user_id and by.kind == "session" else ""
                self._sessions.end_all(user_id, but=keep)
        return new

    def delete(self, user_id: str, *, by: Principal) -> Account:
        """The account, its sessions and keys go, its name is free again; what it owned passes to who deletes it."""
        with self._lock:
            account = self._stored(user_id)
            if by.user_id == user_id:
                raise JadeError(ErrorCode.CONFLICT, "You can't delete the account you are signed in as.")
            with self._keeping_an_admin(account, None):
                for told in self.on_delete:
                    told(user_id, by.user_id)
                self._records.remove(user_id)
            self.on_change()  # from here on its credentials are refused, though they are still being removed
            self._names.release((*names_of(account), *account.claiming))
            self._sessions.end_all(user_id)
            self._keys.remove_all(user_id)
        return account

    # Passwords

    def verify(self, name: str, password: str) -> Account | None:
        """The active account of this name or address with this password. The same time passes whether it exists or not."""
        account = self.find_by_name(name)
        if not self._passwords.verify(None if account is None else account.password_hash, password):
            return None
        assert account is not None
        if not account.is_active:
            return None
        if self._passwords.is_outdated(account.password_hash):
            return self._rehash(account, password)
        return account

    def change_password(self, user_id: str, old: str, new: str, *, by: Principal) -> Account:
        """Raises UNAUTHORIZED when `old` is wrong, INVALID_ARGUMENT when `new` may not be one. The calling session goes on."""
        account = self._stored(user_id)
        check_rules(new)
        if not self._passwords.verify(account.password_hash, old):
            raise JadeError(ErrorCode.UNAUTHORIZED, "Unauthorized: the old password is wrong.")
        if new == old:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, "The new password is the old one: choose another one.")
        keep = by.credential_id if by.user_id == user_id and by.kind == "session" else ""
        return self._set_password(
            account, new, must_change=False, keep_session=keep, expected_hash=account.password_hash
        )

    def reset_password(self, user_id: str, new: str, *, must_change: bool) -> Account:
        """Without the old one: by an admin, or with a reset token. Ends all sessions."""
        check_rules(new)
        return self._set_password(
            self._stored(user_id), new, must_change=must_change, keep_session="", expected_hash=None
        )

    def sign_in(self, name: str, password: str, address: str) -> tuple[str, Session, Account] | None:
        """A new session's token, the session and its account; None when name and password are not those of an active account."""
        verified = self.verify(name, password)
        if verified is None:
            return None
        now = self._clock.now_ms()
        with (
            self._lock
        ):  # a password change or deactivation comes before, and is seen here, or after, and ends this session too
            current = self._records.get(verified.user_id)
            if current is None or not current.is_active or current.password_hash != verified.password_hash:
                return None
            account = self._records.change(current.user_id, lambda a: msgspec.structs.replace(a, last_login_ms=now))
            if account is None:
                return None
            token, session = self._sessions.begin(account.user_id, address)
        return token, session, account

    # Inside

    def _stored(self, user_id: str) -> Account:
        account = self._records.get(user_id)
        if account is None or account.is_new:
            if user_id == BUILT_IN_ID and self._is_open:
                raise JadeError(ErrorCode.CONFLICT, "The account `dev` is built into open mode and can't be changed.")
            raise JadeError(ErrorCode.NOT_FOUND, f"User not found: {user_id!r:.200}.")
        return account

    def _replace(self, old: Account, new: Account) -> None:
        """Write a changed account."""
        self._names.refuse_taken(old.user_id, new.username, new.email)
        written = self._names.replace(old, new)
        self.on_change()
        if written is None:
            raise JadeError(ErrorCode.NOT_FOUND, f"User not found: {new.user_id!r:.200}.")

    def _set_password(
        self, account: Account, new: str, *, must_change: bool, keep_session: str, expected_hash: str | None
    ) -> Account:
        password_hash = self._passwords.hash(new)
        now = self._clock.now_ms()

        def step(current: Account) -> Account:
            if expected_hash is not None and current.password_hash != expected_hash:
                raise JadeError(ErrorCode.CONFLICT, "The password was changed by someone else at this moment.")
            return msgspec.structs.replace(
                current, password_hash=password_hash, must_change_password=must_change, updated_ms=now
            )

        with self._lock:
            changed = self._records.change(account.user_id, step)
            self.on_change()
            if changed is None:
                raise JadeError(ErrorCode.NOT_FOUND, f"User not found: {account.user_id!r:.200}.")
            self._sessions.end_all(account.user_id, but=keep_session)
        return changed

    def _rehash(self, account: Account, password: str) -> Account:
        """Today's cost for a hash made at an older one, unless the password was changed meanwhile."""
        fresh = self._passwords.hash(password)

        def step(current: Account) -> Account:
            same = current.password_hash == account.password_hash
            return msgspec.structs.replace(current, password_hash=fresh) if same else current

        return self._records.change(account.user_id, step) or account

    def _keeping_an_admin(self, old: Account, new: Account | None) -> contextlib.AbstractContextManager[None]:
        """Refuse the change that would leave nobody to administer the server. Open mode has its built-in admin."""
        if self._is_open or not old.is_active_admin or (new is not None and new.is_active_admin):
            return contextlib.nullcontext()
        return self._last_admin.leaving(old.user_id)


def _nothing() -> None:
    pass
