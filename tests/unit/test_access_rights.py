"""The table of operations, the one decision that reads it, and how roles and permissions are spelled."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.access_world import refused

from jadevectordb.gateway.access.audit import EVENTS
from jadevectordb.gateway.access.operations import OPERATIONS, Operation, Right, Scope, check, is_visible
from jadevectordb.gateway.access.principals import (
    ANONYMOUS,
    OPEN,
    PERMISSIONS,
    ROLES,
    Principal,
    parse_permissions,
    parse_roles,
)
from jadevectordb.model.errors import ErrorCode, JadeError


@dataclass
class Base:
    id: str = "db_1"
    name: str = "one"
    owner: str = "user_owner"
    grants: dict[str, str] = field(default_factory=lambda: {"user_r": "read", "user_w": "write", "user_a": "admin"})


def person(user_id: str, *roles: str, permissions: set[str] | None = None, **more: object) -> Principal:
    allowed = None if permissions is None else frozenset(permissions)
    return Principal(user_id, user_id, roles, allowed, "session" if permissions is None else "key", "c", **more)  # type: ignore[arg-type]


def outcome(operation: str | Operation, principal: Principal, database: Base | None = None) -> ErrorCode | None:
    wanted = OPERATIONS[operation] if isinstance(operation, str) else operation
    try:
        check(wanted, principal, database if wanted.scope is Scope.DATABASE else None)
    except JadeError as error:
        return error.code
    return None


ADMIN = person("user_root", "admin")
DEVELOPER = person("user_dev1", "developer", "user")
PUBLIC = {
    "health",
    "documentation",
    "auth.register",
    "auth.login",
    "auth.forgot_password",
    "auth.reset_password",
    "auth.setup",
}


def test_only_these_are_open_to_everybody() -> None:
    assert {name for name in OPERATIONS if outcome(name, ANONYMOUS, Base()) is None} == PUBLIC
    assert all(outcome(name, ANONYMOUS, Base()) in (None, ErrorCode.UNAUTHORIZED) for name in OPERATIONS)


def test_an_admin_may_do_everything_and_so_may_dev_in_open_mode() -> None:
    for principal in (ADMIN, OPEN):
        assert [name for name in OPERATIONS if outcome(name, principal, Base()) is not None] == []


def test_what_changes_something_is_audited_under_a_known_name() -> None:
    events = {operation.audit_event for operation in OPERATIONS.values()} - {None}
    assert events <= set(EVENTS)
    audited_inside = {"user.create", "user.delete", "user.reset_password"}
    for operation in OPERATIONS.values():
        changes = operation.right in (Right.WRITE, Right.DELETE, Right.CREATE, Right.OWN, Right.ADMIN)
        reads = operation.name.endswith(".read") or operation.name.endswith(".list")
        acknowledged = operation.name == "alert.acknowledge"
        if changes and not reads and not acknowledged and operation.name not in audited_inside:
            assert operation.audit_event is not None, operation.name


@pytest.mark.parametrize("role", ["user", "viewer", "tester"])
def test_readers_may_only_read_what_is_theirs(role: str) -> None:
    for user_id in ("user_owner", "user_r", "user_w", "user_a"):
        for name, operation in OPERATIONS.items():
            if operation.scope is Scope.DATABASE:
                expected = None if operation.right is Right.READ else ErrorCode.FORBIDDEN
                assert outcome(name, person(user_id, role), Base()) is expected, (user_id, name)
    assert outcome("database.create", person("user_x", role)) is ErrorCode.FORBIDDEN
    assert outcome("alert.acknowledge", person("user_x", role)) is ErrorCode.FORBIDDEN
    assert outcome("status", person("user_x", role)) is None


@pytest.mark.parametrize(
    ("user_id", "rights"),
    [
        ("user_owner", {Right.READ, Right.WRITE, Right.DELETE, Right.OWN}),
        ("user_a", {Right.READ, Right.WRITE, Right.DELETE, Right.OWN}),
        ("user_w", {Right.READ, Right.WRITE, Right.DELETE}),
        ("user_r", {Right.READ}),
    ],
)
def test_developers_may_do_what_they_own_or_were_granted(user_id: str, rights: set[Right]) -> None:
    for name, operation in OPERATIONS.items():
        if operation.scope is Scope.DATABASE:
            expected = None if operation.right in rights else ErrorCode.FORBIDDEN
            assert outcome(name, person(user_id, "developer"), Base()) is expected, name


def test_a_database_one_may_not_see_does_not_exist() -> None:
    for name, operation in OPERATIONS.items():
        if operation.scope is Scope.DATABASE:
            assert outcome(name, DEVELOPER, Base()) is ErrorCode.UNKNOWN_DATABASE, name
            limited = person("user_dev1", "developer", permissions={"read"})
            assert outcome(name, limited, Base()) is ErrorCode.UNKNOWN_DATABASE, name
    assert not is_visible(ANONYMOUS, Base(owner=""))
    assert not is_visible(DEVELOPER, Base(owner=""))
    assert is_visible(ADMIN, Base(owner=""))


def test_before_a_database_is_looked_for_only_the_credential_counts() -> None:
    """Whether a database exists must not show to somebody who is not signed in, nor before a password is changed."""
    for operation in OPERATIONS.values():
        if operation.scope is Scope.DATABASE:
            check(operation, DEVELOPER, None)
            with refused(ErrorCode.UNAUTHORIZED):
                check(operation, ANONYMOUS, None)
            with refused(ErrorCode.PASSWORD_CHANGE_REQUIRED):
                check(operation, person("user_x", "admin", must_change_password=True), None)


def test_server_operations_of_admins_are_for_admins() -> None:
    for name, operation in OPERATIONS.items():
        if operation.right is Right.ADMIN:
            assert outcome(name, DEVELOPER) is ErrorCode.FORBIDDEN, name
    assert outcome("database.create", DEVELOPER) is None


@pytest.mark.parametrize(
    ("permissions", "allowed", "denied"),
    [
        (
            {"read"},
            "search vector.read status auth.me embed",
            "vector.write vector.delete database.create database.delete key.create user.list password.change",
        ),
        (
            {"write"},
            "vector.write vector.delete database.create index.write",
            "search database.delete key.create user.list grant.write",
        ),
        ({"delete"}, "vector.delete database.delete", "vector.write search database.create"),
        ({"read", "write"}, "search vector.write rerank", "user.create key.revoke user.update"),
        ({"admin"}, " ".join(OPERATIONS), ""),
    ],
)
def test_a_limited_key_does_less_than_its_owner(permissions: set[str], allowed: str, denied: str) -> None:
    key = person("user_root", "admin", permissions=permissions)
    assert [name for name in allowed.split() if outcome(name, key, Base()) is not None] == []
    assert [name for name in denied.split() if outcome(name, key, Base()) is not ErrorCode.FORBIDDEN] == []


def test_permissions_never_widen() -> None:
    """Whatever a key was limited to, it may do nothing its owner may not."""
    for size in range(len(PERMISSIONS) + 1):
        for permissions in itertools.combinations(PERMISSIONS, size):
            for roles in ((), ("user",), ("developer",), ("admin",)):
                owner = person("user_w", *roles)
                key = person("user_w", *roles, permissions=set(permissions))
                for name in OPERATIONS:
                    if outcome(name, owner, Base()) is not None:
                        assert outcome(name, key, Base()) is not None, (name, permissions, roles)


def test_before_the_password_is_changed_nothing_else_is_possible() -> None:
    waiting = person("user_root", "admin", must_change_password=True)
    possible = {name for name in OPERATIONS if outcome(name, waiting, Base()) is None}
    assert possible == PUBLIC | {"auth.me", "auth.logout", "password.change"}
    others = {outcome(name, waiting, Base()) for name in OPERATIONS if name not in possible}
    assert others == {ErrorCode.PASSWORD_CHANGE_REQUIRED}


def test_rights_to_administer_are_not_those_of_a_limited_key() -> None:
    assert ADMIN.may_administer
    limited = person("user_root", "admin", permissions={"read", "write"})
    assert limited.is_admin and not limited.may_administer
    assert not DEVELOPER.may_administer


def test_roles_in_every_spelling() -> None:
    assert parse_roles(["role_admin", "User", "user"]) == ("admin", "user")
    assert parse_roles("role_developer") == ("developer",)
    assert parse_roles([]) == ()
    for wrong in (["root"], "", ["admin", 3], 7, {"admin": 1}, ["role_"], [None]):
        with refused(ErrorCode.INVALID_ARGUMENT):
            parse_roles(wrong)
    assert all(parse_roles([role]) == (role,) for role in ROLES)


def test_permissions_in_every_spelling() -> None:
    assert parse_permissions([]) is None
    assert parse_permissions(["read", "vectors:write", "databases:delete"]) == {"read", "write", "delete"}
    assert parse_permissions(["search:execute", "*"]) == {"read", "admin"}
    for wrong in (["reed"], ["vectors:"], [""], 5, [1], ["read "[::-1]]):
        with refused(ErrorCode.INVALID_ARGUMENT):
            parse_permissions(wrong)


@given(st.lists(st.text(max_size=12), max_size=4))
def test_any_words_are_permissions_or_refused(words: list[str]) -> None:
    try:
        found = parse_permissions(words)
    except JadeError as error:
        assert error.code is ErrorCode.INVALID_ARGUMENT
    else:
        assert found is None if not words else found is not None and found <= set(PERMISSIONS)
