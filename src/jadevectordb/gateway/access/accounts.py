"""User accounts: names that are unique, passwords that are hashed, roles, and the rules that keep a server administrable.

Records: `user/ID` is the account; `name/FOLDED` claims a username or e-mail address for one account, so that any of the three
means one account and nobody can register another's address as a name. A claim counts only while its account bears that name: what
a crash between two writes leaves behind is taken over, and nobody is locked out. The name is claimed before the account is
written and freed after it is gone, so that two accounts never share one.

Changes run one after the other in this process (`_lock`; hashing is outside it), which is what "never remove the last admin"
needs; the store's compare-and-set catches anyone else.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec

from jadevectordb.gateway.access import tokens
from jadevectordb.gateway.access.keys import Keys
from jadevectordb.gateway.access.passwords import Passwords, check_rules
from jadevectordb.gateway.access.principals import (
    ADMIN,
    BUILT_IN_ID,
    BUILT_IN_NAME,
    CREATED_ROLES,
    Principal,
)
from jadevectordb.gateway.access.records import Records
from jadevectordb.gateway.access.sessions import Session, Sessions
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ACCOUNTS_MAX, EMAIL_LENGTH_MAX, USERNAME_LENGTH_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

_RESERVED = frozenset({"system", "anonymous", BUILT_IN_NAME})  # would be mistaken for somebody else in the audit log

_ID_SHAPE = re.compile(r"user_([a-z2-7]{16}|dev)")  # would be mistaken for somebody's id


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """password_hash: Argon2id. Times in ms since 1970."""

    user_id: str
    username: str
    email: str = ""
    roles: tuple[str, ...] = CREATED_ROLES
    is_active: bool = True
    password_hash: str = ""
    must_change_password: bool = False
    created_ms: int = 0
    updated_ms: int = 0
    last_login_ms: int | None = None

    def __repr__(self) -> str:  # the hash must not get into a log by accident
        return f"Account(user_id={self.user_id!r}, username={self.username!r}, roles={self.roles!r})"

    @property
    def is_active_admin(self) -> bool:
        return self.is_active and ADMIN in self.roles


class _Claim(msgspec.Struct, frozen=True):
    user_id: str


BUILT_IN = Account(user_id=BUILT_IN_ID, username=BUILT_IN_NAME, roles=(ADMIN,))


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
    ) -> None:
        self._records = Records(store, "user", Account)
        self._claims = Records(store, "name", _Claim)
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
        return self._records.get(user_id)

    def find(self, text: str) -> Account | None:
        """By id, username or e-mail address; an id wins."""
        return self.get(text) or self.find_by_name(text)

    def find_by_name(self, text: str) -> Account | None:
        """By username or e-mail address."""
        folded = fold(text) if len(text) <= EMAIL_LENGTH_MAX else ""
        if self._is_open and folded == BUILT_IN_NAME:
            return BUILT_IN
        claim = self._claims.get(folded) if folded else None
        account = self._records.get(claim.user_id) if claim is not None else None
        return account if account is not None and folded in _names(account) else None

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
            for account in self._records.list().values()
            if (role is None or role in account.roles) and (is_active is None or account.is_active == is_active)
        ]
        return sorted(found, key=lambda a: (a.created_ms, a.user_id))

    def has_admin(self) -> bool:
        return any(account.is_active_admin for account in self._records.list().values())

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
        self._refuse_taken(None, username, email)  # before the costly hash; decided below, under the lock
        password_hash = self._passwords.hash(password)
        now = self._clock.now_ms()
        account = Account(
            user_id=tokens.new_id(self._random, "user_"), username=username, email=email, roles=roles, is_active=is_active,
            password_hash=password_hash, must_change_password=must_change_password, created_ms=now, updated_ms=now,
        )  # fmt: skip
        with self._lock:
            if len(self._records.list()) >= ACCOUNTS_MAX:
                raise JadeError(ErrorCode.CONFLICT, f"There are {ACCOUNTS_MAX} accounts already: delete some.")
            self._claim(account)
            added = self._records.add(account.user_id, account)
            assert added, "two users with the same random id"
        return account

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
        with self._lock:
            old = self._stored(user_id)
            new = msgspec.structs.replace(old, updated_ms=self._clock.now_ms(), **changes)
            if by is not None and by.user_id == user_id and not new.is_active:
                raise JadeError(ErrorCode.CONFLICT, "You can't deactivate the account you are signed in as.")
            self._keep_an_admin(old, new)
            self._replace(old, new)
            if password is not None or (old.is_active and not new.is_active):
                keep = by.credential_id if by is not None and by.user_id == user_id and by.kind == "session" else ""
                self._sessions.end_all(user_id, but=keep)
        return new

    def delete(self, user_id: str, *, by: Principal) -> Account:
        """The account, its sessions and keys go, its name is free again; what it owned passes to who deletes it."""
        with self._lock:
            account = self._stored(user_id)
            if by.user_id == user_id:
                raise JadeError(ErrorCode.CONFLICT, "You can't delete the account you are signed in as.")
            self._keep_an_admin(account, None)
            for told in self.on_delete:
                told(user_id, by.user_id)
            self._records.remove(user_id)
            self.on_change()  # from here on its credentials are refused, though they are still being removed
            for name in _names(account):
                self._release(name, user_id)
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
        if account is None:
            if user_id == BUILT_IN_ID and self._is_open:
                raise JadeError(ErrorCode.CONFLICT, "The account `dev` is built into open mode and can't be changed.")
            raise JadeError(ErrorCode.NOT_FOUND, f"User not found: {user_id!r:.200}.")
        return account

    def _replace(self, old: Account, new: Account) -> None:
        """Write a changed account; its names first, so that no moment has two accounts of one name."""
        fresh = [name for name in _names(new) if name not in _names(old)]
        self._refuse_taken(old.user_id, new.username, new.email)
        for name in fresh:
            self._claim_name(name, new.user_id)

        def step(current: Account) -> Account:
            changed = {f: getattr(new, f) for f in Account.__struct_fields__ if getattr(new, f) != getattr(old, f)}
            return msgspec.structs.replace(current, **changed)

        written = self._records.change(new.user_id, step)
        self.on_change()
        if written is None:
            raise JadeError(ErrorCode.NOT_FOUND, f"User not found: {new.user_id!r:.200}.")
        for name in _names(old):
            if name not in _names(new):
                self._release(name, old.user_id)

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

    def _keep_an_admin(self, old: Account, new: Account | None) -> None:
        """Refuse the change that would leave nobody to administer the server. Open mode has its built-in admin."""
        if self._is_open or not old.is_active_admin or (new is not None and new.is_active_admin):
            return
        if not any(a.is_active_admin for a in self._records.list().values() if a.user_id != old.user_id):
            raise JadeError(
                ErrorCode.CONFLICT,
                "This is the last active admin: make another account an admin first, then try again.",
            )

    def _refuse_taken(self, user_id: str | None, username: str, email: str) -> None:
        for name in dict.fromkeys((fold(username), fold(email))):
            holder = self._holder(name) if name else None
            if holder is not None and holder != user_id:
                raise _taken(name == fold(username))

    def _holder(self, name: str) -> str | None:
        """The id of the account that bears this name."""
        claim = self._claims.get(name)
        account = self._records.get(claim.user_id) if claim is not None else None
        return account.user_id if account is not None and name in _names(account) else None

    def _claim(self, account: Account) -> None:
        self._refuse_taken(account.user_id, account.username, account.email)
        for name in _names(account):
            self._claim_name(name, account.user_id)

    def _claim_name(self, name: str, user_id: str) -> None:
        """Take a name that nobody bears. The caller has looked and holds the lock; what is left of a crash is replaced."""
        claim = _Claim(user_id)
        if self._claims.add(name, claim):
            return
        if self._claims.change(name, lambda _: claim) is None and not self._claims.add(name, claim):
            raise _taken(True)

    def _release(self, name: str, user_id: str) -> None:
        self._claims.change(name, lambda claim: None if claim.user_id == user_id else claim)


def fold(name: str) -> str:
    """What makes two names one: case and the way letters are composed do not count."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def check_username(username: str) -> str:
    """Raises INVALID_ARGUMENT."""
    if not 1 <= len(username) <= USERNAME_LENGTH_MAX or username != username.strip() or not _is_printable(username):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"username must be 1 to {USERNAME_LENGTH_MAX} characters, without control characters or spaces around it.",
        )
    folded = fold(username)
    if folded in _RESERVED or not folded or _ID_SHAPE.fullmatch(folded):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"The username {username!r} is reserved: choose another one.")
    return username


def check_email(email: str) -> str:
    """ "" is none. Only what can't be an address is refused. Raises INVALID_ARGUMENT."""
    local, _, domain = email.rpartition("@")
    if email and not (
        local and domain and len(email) <= EMAIL_LENGTH_MAX and email == email.strip() and _is_printable(email)
    ):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"email is not an address like name@example.com: {email!r:.80}.")
    return email


def _is_printable(text: str) -> bool:
    """No control characters, no surrogates, nothing that reorders text or is invisible."""
    return all(unicodedata.category(c) not in ("Cc", "Cs", "Cf", "Zl", "Zp") for c in text)


def _names(account: Account) -> tuple[str, ...]:
    """The folded names an account is found by."""
    return tuple(dict.fromkeys(name for name in (fold(account.username), fold(account.email)) if name))


def _taken(is_username: bool) -> JadeError:
    what = "username" if is_username else "e-mail address"
    return JadeError(ErrorCode.ALREADY_EXISTS, f"This {what} is taken: choose another one.")


def _nothing() -> None:
    pass
