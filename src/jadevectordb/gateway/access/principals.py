"""Who asks: the one value that authentication makes and every decision about rights reads."""

from __future__ import annotations

from typing import Literal

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError

ADMIN = "admin"
DEVELOPER = "developer"
ROLES = (ADMIN, DEVELOPER, "user", "viewer", "tester")
REGISTERED_ROLES = (DEVELOPER, "user")  # of an account somebody made for themselves
CREATED_ROLES = ("user",)  # of an account an admin made without naming roles
PERMISSIONS = ("read", "write", "delete", "admin")  # what an API key may be limited to; `admin` includes the others

_PERMISSION_OF_ACTION = {
    **dict.fromkeys(("read", "get", "list", "search", "query", "view", "execute", "export"), "read"),
    **dict.fromkeys(("write", "create", "insert", "update", "upsert", "store", "add", "import", "build"), "write"),
    **dict.fromkeys(("delete", "remove"), "delete"),
    **dict.fromkeys(("admin", "manage", "all", "*"), "admin"),
}


class Principal(msgspec.Struct, frozen=True):
    """Who asks, as of one request.

    roles: in open mode `admin` is among them whatever the account says. permissions: what an API key is limited to; None = all
    that its owner may. credential_id: of the session or key, "" when there is none.
    """

    user_id: str
    username: str
    roles: tuple[str, ...] = ()
    permissions: frozenset[str] | None = None
    kind: Literal["session", "key", "password", "open", "anonymous"] = "anonymous"
    credential_id: str = ""
    must_change_password: bool = False

    @property
    def is_admin(self) -> bool:
        """The account is an admin's: it sees every database. A limited key of it may still be unable to change anything."""
        return ADMIN in self.roles

    @property
    def may_administer(self) -> bool:
        """An admin whose credential was not limited to less."""
        return ADMIN in self.roles and self.permits(ADMIN)

    @property
    def is_anonymous(self) -> bool:
        return self.kind == "anonymous"

    def permits(self, permission: str) -> bool:
        """Whether the credential, whatever its owner may, was made for this."""
        return self.permissions is None or permission in self.permissions or ADMIN in self.permissions


ANONYMOUS = Principal("", "")
BUILT_IN_ID = "user_dev"  # the admin `dev` of open mode: it is in no store and has no password
BUILT_IN_NAME = "dev"
OPEN = Principal(BUILT_IN_ID, BUILT_IN_NAME, (ADMIN,), kind="open")


def parse_roles(given: object) -> tuple[str, ...]:
    """Role names from a list or one string; `role_admin` means `admin`; each once, in order. Raises INVALID_ARGUMENT."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"roles must be a list of role names, of {', '.join(ROLES)}.")
    roles = [name.strip().lower().removeprefix("role_") for name in names]
    for role, name in zip(roles, names, strict=True):
        if role not in ROLES:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"Unknown role {name!r:.60}: use {', '.join(ROLES)}.")
    return tuple(dict.fromkeys(roles))


def parse_permissions(given: object) -> frozenset[str] | None:
    """What a key is limited to, from words like `read` or `vectors:write`; None when none is given: no limit.

    Raises INVALID_ARGUMENT for a word nobody knows: a key must never turn out wider or narrower than it reads.
    """
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple | frozenset | set) or not all(isinstance(name, str) for name in names):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"permissions must be a list of words, of {', '.join(PERMISSIONS)}."
        )
    found = set()
    for name in names:
        permission = _PERMISSION_OF_ACTION.get(name.strip().lower().rpartition(":")[2])
        if permission is None:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"Unknown permission {name!r:.60}: use {', '.join(PERMISSIONS)}, or resource:action such as vectors:read.",
            )
        found.add(permission)
    return frozenset(found) or None
