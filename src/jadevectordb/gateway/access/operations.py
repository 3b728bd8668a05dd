"""What each operation needs, in one table, and the one decision that reads it.

Every REST route and every RPC names an operation of `OPERATIONS`; nothing is served that does not. `check` is pure: it sees an
operation, who asks and, where there is one, the database, and either returns or raises.

Two things must both allow an operation: the roles of the account, and, for an API key, the permissions it was limited to.
A database that someone may not see does not exist for them (UNKNOWN_DATABASE, never FORBIDDEN).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, assert_never

from jadevectordb.gateway.access.principals import ADMIN, DEVELOPER, Principal
from jadevectordb.model.errors import ErrorCode, JadeError


class Right(StrEnum):
    NONE = "none"  # anybody, without a credential
    SIGNED_IN = "signed in"  # any account; whose things it may touch is decided inside
    READ = "read"
    WRITE = "write"
    DELETE = "delete"  # of vectors
    CREATE = "create"  # databases
    ADMIN = "admin"
    OWN = "own"  # the database: its owner, a grantee with `admin`, or an admin


class Scope(StrEnum):
    SERVER = "server"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Operation:
    """audit_event: recorded under this name when it was done; None: changes nothing, or the service records it itself.

    key_permissions: an API key that is limited needs one of these (or `admin`); empty: any key will do.
    """

    name: str
    right: Right
    scope: Scope = Scope.SERVER
    audit_event: str | None = None
    key_permissions: frozenset[str] = frozenset()


class Owned(Protocol):
    """What `check` reads of a database."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def grants(self) -> Mapping[str, str]: ...


_KEY_PERMISSIONS: Final = {
    Right.NONE: frozenset[str](),
    Right.SIGNED_IN: frozenset[str](),
    Right.READ: frozenset({"read"}),
    Right.WRITE: frozenset({"write"}),
    Right.DELETE: frozenset({"delete", "write"}),  # a program that may replace a vector may take it away
    Right.CREATE: frozenset({"write"}),
    Right.ADMIN: frozenset({"admin"}),
    Right.OWN: frozenset({"admin"}),
}
_GRANT_ALLOWS: Final = {
    "read": frozenset({Right.READ}),
    "write": frozenset({Right.READ, Right.WRITE, Right.DELETE}),
    "admin": frozenset({Right.READ, Right.WRITE, Right.DELETE, Right.OWN}),
}
# An account that must change its password may do only this.
_BEFORE_PASSWORD_CHANGE: Final = frozenset({"password.change", "auth.me", "auth.logout"})


def _table() -> dict[str, Operation]:
    rows: list[Operation] = []

    def add(
        right: Right, names: str, scope: Scope = Scope.SERVER, *, audit: str | None = None, key: str | None = None
    ) -> None:
        permissions = _KEY_PERMISSIONS[right] if key is None else frozenset(key.split())
        rows.extend(Operation(name, right, scope, audit, permissions) for name in names.split())

    add(Right.NONE, "health auth.register auth.login auth.forgot_password auth.reset_password auth.setup documentation")
    add(
        Right.SIGNED_IN, "auth.logout auth.me auth.validate user.read key.list audit.read audit.stats session.list info"
    )
    # A limited key must not make itself a wider one, nor take over its owner's account.
    add(Right.SIGNED_IN, "password.change user.update key.create key.revoke", key="admin")
    add(Right.SIGNED_IN, "rerank embed", key="read write")
    add(Right.READ, "status health.db metrics alert.list performance cluster.read database.list")
    add(Right.WRITE, "alert.acknowledge")
    add(Right.CREATE, "database.create", audit="database_create")
    add(Right.ADMIN, "user.create user.list user.delete user.reset_password config.read log.read")
    add(Right.ADMIN, "alert.create cluster.change", audit="config_change")
    add(Right.ADMIN, "server.shutdown", audit="shutdown")

    database = Scope.DATABASE
    add(
        Right.READ,
        "database.read database.stats vector.read analytics.read analytics.feedback index.read bm25.read",
        database,
    )
    add(Right.READ, "rerank.config.read lifecycle.read conflict.list", database)
    add(Right.READ, "search", database, audit="search")
    add(
        Right.WRITE,
        "database.update database.compact lifecycle.write rerank.config.write",
        database,
        audit="database_update",
    )
    add(Right.WRITE, "vector.write", database, audit="vector_store")
    add(Right.WRITE, "vector.update", database, audit="vector_update")
    add(Right.WRITE, "index.create", database, audit="index_create")
    add(Right.WRITE, "index.write bm25.write", database, audit="index_update")
    add(Right.WRITE, "index.delete", database, audit="index_delete")
    add(Right.DELETE, "vector.delete", database, audit="vector_delete")
    add(Right.OWN, "database.delete", database, audit="database_delete", key="delete")
    add(Right.OWN, "grant.read", database)
    add(Right.OWN, "grant.write", database, audit="config_change")

    table = {row.name: row for row in rows}
    assert len(table) == len(rows), "an operation stands twice in the table"
    return table


OPERATIONS: Final[dict[str, Operation]] = _table()


def check(operation: Operation, principal: Principal, database: Owned | None) -> None:
    """Return when the principal may do it. database: the one it is about, for operations of scope DATABASE; None there asks
    only what does not depend on it, before it is looked for: who is not signed in must not learn which databases exist.

    Raises UNAUTHORIZED (no credential), PASSWORD_CHANGE_REQUIRED, UNKNOWN_DATABASE (not visible), FORBIDDEN.
    """
    if operation.right is Right.NONE:
        return
    if principal.is_anonymous:
        raise JadeError(
            ErrorCode.UNAUTHORIZED,
            "Unauthorized: this needs a credential. Sign in and send Authorization: Bearer <token or API key>.",
        )
    if principal.must_change_password and operation.name not in _BEFORE_PASSWORD_CHANGE:
        raise JadeError(
            ErrorCode.PASSWORD_CHANGE_REQUIRED,
            "The password of this account must be changed first: PUT /v1/users/{your id}/password.",
        )
    if operation.scope is Scope.DATABASE:
        if database is None:
            return
        if not is_visible(principal, database):
            raise JadeError(
                ErrorCode.UNKNOWN_DATABASE,
                f"Database not found: {database.id!r:.200}. GET /v1/databases lists those you may see.",
            )
    if operation.key_permissions and not any(map(principal.permits, operation.key_permissions)):
        needed = " or ".join(sorted(operation.key_permissions))
        raise JadeError(
            ErrorCode.FORBIDDEN, f"This API key is limited: {operation.name} needs a key with the permission {needed}."
        )
    if operation.scope is Scope.DATABASE:
        assert database is not None
        _check_database(operation, principal, database)
    else:
        _check_server(operation, principal)


def is_visible(principal: Principal, database: Owned) -> bool:
    """Its owner, its grantees and admins see a database."""
    if principal.is_anonymous:
        return False
    return principal.is_admin or database.owner == principal.user_id or principal.user_id in database.grants


def _check_server(operation: Operation, principal: Principal) -> None:
    roles = principal.roles
    match operation.right:
        case Right.NONE | Right.SIGNED_IN | Right.READ:
            allowed = True
        case Right.WRITE | Right.DELETE | Right.CREATE:
            allowed = ADMIN in roles or DEVELOPER in roles
        case Right.ADMIN | Right.OWN:
            allowed = ADMIN in roles
        case other:
            assert_never(other)
    if not allowed:
        needed = "the role admin" if operation.right in (Right.ADMIN, Right.OWN) else "the role developer or admin"
        raise JadeError(ErrorCode.FORBIDDEN, f"{operation.name} needs {needed}: ask an admin of this server.")


def _check_database(operation: Operation, principal: Principal, database: Owned) -> None:
    if principal.is_admin:
        return
    if operation.right is not Right.READ and DEVELOPER not in principal.roles:
        raise JadeError(
            ErrorCode.FORBIDDEN,
            f"Your roles allow reading and searching only; {operation.name} needs the role developer or admin.",
        )
    if database.owner == principal.user_id:
        return
    grant = database.grants.get(principal.user_id, "")
    if operation.right not in _GRANT_ALLOWS.get(grant, frozenset()):
        raise JadeError(
            ErrorCode.FORBIDDEN,
            f"You were granted {grant!r} on this database; {operation.name} needs more: ask its owner or an admin.",
        )
