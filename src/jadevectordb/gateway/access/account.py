"""What an account is, and which names it may bear."""

from __future__ import annotations

import re
import unicodedata

import msgspec

from jadevectordb.gateway.access.principals import ADMIN, BUILT_IN_ID, BUILT_IN_NAME, CREATED_ROLES
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import EMAIL_LENGTH_MAX, USERNAME_LENGTH_MAX

_RESERVED = frozenset({"system", "anonymous", BUILT_IN_NAME})  # would be mistaken for somebody else in the audit log

_ID_SHAPE = re.compile(r"user_([a-z2-7]{16}|dev)")  # would be mistaken for somebody's id


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """password_hash: Argon2id. Times in ms since 1970.

    claiming: folded names it is about to bear. is_new: it is being made, and nobody yet. Records from before these fields have
    neither. The steps: `access.names`.
    """

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
    claiming: tuple[str, ...] = ()
    is_new: bool = False

    def __repr__(self) -> str:  # the hash must not get into a log by accident
        return f"Account(user_id={self.user_id!r}, username={self.username!r}, roles={self.roles!r})"

    @property
    def is_active_admin(self) -> bool:
        return self.is_active and ADMIN in self.roles


BUILT_IN = Account(user_id=BUILT_IN_ID, username=BUILT_IN_NAME, roles=(ADMIN,))


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


def names_of(account: Account) -> tuple[str, ...]:
    """The folded names an account is found by."""
    return tuple(dict.fromkeys(name for name in (fold(account.username), fold(account.email)) if name))
