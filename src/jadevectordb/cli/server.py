"""Commands about a server itself: health, status, users, keys, audit, sessions, grants.

The server is named by --url or --profile, else $JADEVECTORDB_URL, else the profile "default", else http://127.0.0.1:8080.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from jadevectordb.cli.output import TABLE, format_option, show_facts, show_plain, show_records
from jadevectordb.cli.places import connection_options, is_curl, open_client

_Function = TypeVar("_Function", bound=Callable[..., Any])
_ROLES = ("admin", "developer", "user", "viewer", "tester")
_RIGHTS = ("read", "write", "admin")


def _asks(function: _Function) -> _Function:
    """The options of every command here."""
    return connection_options()(format_option(function))


def _call(method: str, path: str, body: Any = None, **query: Any) -> Any:
    with open_client() as client:
        return client.call(method, path, body, query)


def _segment(text: str) -> str:
    return quote(text, safe="")


# The server


@click.command()
@_asks
def health(output: str) -> None:
    """Whether the server serves. Exit code 1 when it doesn't, or is not well."""
    answer = _call("GET", "/health")
    checks = answer.get("checks", {})
    facts = {"status": answer["status"], "version": answer.get("version"), **checks}
    show_facts(output, answer if output != TABLE else facts)
    if answer["status"] != "healthy":
        raise click.exceptions.Exit(1)


@click.command()
@_asks
def status(output: str) -> None:
    """Version, uptime, databases, load of the server."""
    answer = _call("GET", "/status")
    facts = {name: value for name, value in answer.items() if not isinstance(value, dict)}
    for group in ("performance", "system", "checks"):
        facts |= {name: _rounded(value) for name, value in (answer.get(group) or {}).items()}
    show_facts(output, answer if output != TABLE else facts)


def _rounded(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


# Users


@click.group()
def users() -> None:
    """Accounts: who may sign in."""


_USER = ("user_id", "username", "email", "roles", "status", "last_login")


@users.command("list")
@click.option("--role", type=click.Choice(_ROLES))
@click.option("--status", "state", type=click.Choice(["active", "inactive"]))
@_asks
def list_users(role: str | None, state: str | None, output: str) -> None:
    """List the accounts (admin)."""
    answer = _call("GET", "/v1/users", role=role, status=state)
    records = [_without_aliases(user) for user in answer["users"]]
    show_records(output, records, _USER, nothing="No such accounts.")


@users.command("show")
@click.argument("user")
@_asks
def show_user(user: str, output: str) -> None:
    """Print one account: by id, name or e-mail."""
    show_facts(output, _without_aliases(_call("GET", f"/v1/users/{_segment(user)}")))


@users.command("create")
@click.argument("username")
@click.option("--role", "roles", type=click.Choice(_ROLES), multiple=True, help="May be given several times.")
@click.option("--email", default="")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking for it.")
@_asks
def create_user(username: str, roles: tuple[str, ...], email: str, password_stdin: bool, output: str) -> None:
    """Make an account (admin)."""
    body: dict[str, Any] = {"username": username, "password": _password(password_stdin)}
    if email:
        body["email"] = email
    if roles:
        body["roles"] = list(roles)
    made = _without_aliases(_call("POST", "/v1/users", body))
    show_facts(output, made, f"made {made['username']} ({made['user_id']}), roles {', '.join(made['roles'])}")


@users.command("update")
@click.argument("user")
@click.option("--role", "roles", type=click.Choice(_ROLES), multiple=True, help="These instead of the present ones.")
@click.option("--email")
@click.option("--active/--inactive", default=None, help="An inactive account can't sign in.")
@_asks
def update_user(user: str, roles: tuple[str, ...], email: str | None, active: bool | None, output: str) -> None:
    """Change roles, e-mail or state of an account (admin)."""
    given = {"roles": list(roles) or None, "email": email, "is_active": active}
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise click.UsageError("Say what to change: --role, --email, --active or --inactive.")
    changed = _without_aliases(_call("PUT", f"/v1/users/{_segment(user)}", body))
    show_facts(
        output, changed, f"changed {changed['username']}: roles {', '.join(changed['roles'])}, {changed['status']}"
    )


@users.command("delete")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Don't ask.")
@_asks
def delete_user(user: str, yes: bool, output: str) -> None:
    """Delete an account with its sessions and keys (admin). Its databases pass to you."""
    if not yes and not is_curl():
        click.confirm(f"Delete the account {user}, its sessions and keys?", abort=True, err=True)
    gone = _call("DELETE", f"/v1/users/{_segment(user)}")
    show_facts(output, gone, f"deleted {gone.get('username', user)}")


@users.command("reset-password")
@click.argument("user")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking for it.")
@_asks
def reset_password(user: str, password_stdin: bool, output: str) -> None:
    """Set another account's password (admin); it must be changed at the next sign-in."""
    done = _call("PUT", f"/v1/admin/users/{_segment(user)}/reset-password", {"new_password": _password(password_stdin)})
    show_facts(output, done, f"reset the password of {user}; it must be changed at the next sign-in")


@users.command("change-password")
@_asks
def change_password(output: str) -> None:
    """Change your own password."""
    if is_curl():
        raise click.UsageError(
            "--curl can't show this: the path holds your user id, which the server has to be asked for."
        )
    with open_client() as client:
        me = client.call("GET", "/v1/auth/me")
        old = click.prompt("Old password", hide_input=True, err=True)
        new = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
        path = f"/v1/users/{_segment(me['user_id'])}/password"
        done = client.call("PUT", path, {"old_password": old, "new_password": new})
    show_facts(output, done, "changed your password")


def _password(from_stdin: bool) -> str:
    if is_curl():
        return "$JADEVECTORDB_PASSWORD"  # never asked for: what is printed holds the variable
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    entered: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return entered


# API keys


@click.group()
def keys() -> None:
    """API keys: for programs."""


@keys.command("list")
@click.option("--user", help="Of this account (admin); else your own.")
@_asks
def list_keys(user: str | None, output: str) -> None:
    """List API keys; their secrets are not kept."""
    found = [_without_aliases(key) for key in _call("GET", "/v1/api-keys", user_id=user)["api_keys"]]
    columns = ("key_id", "description", "key_prefix", "permissions", "status", "expires_at", "last_used_at")
    show_records(output, found, columns, nothing="No API keys yet.")


@keys.command("create")
@click.argument("description")
@click.option("--user", help="For this account (admin); else for yourself.")
@click.option(
    "--permission",
    "permissions",
    type=click.Choice(["read", "write", "delete", "admin"]),
    multiple=True,
    help="May be given several times; without it, all rights of the account.",
)
@click.option("--days", type=click.IntRange(0), default=0, help="How long it is valid; 0 = until it is revoked.")
@_asks
def create_key(description: str, user: str | None, permissions: tuple[str, ...], days: int, output: str) -> None:
    """Make an API key. Its secret is printed once, alone on standard output; nobody can read it again."""
    body: dict[str, Any] = {"description": description, "permissions": list(permissions), "validity_days": days}
    if user:
        body["user_id"] = user
    made = _call("POST", "/v1/api-keys", body)
    if output != TABLE:
        show_plain(output, _without_aliases(made), [_without_aliases(made)])
        return
    click.echo(f"made {made['key_id']} ({description}); this is its secret, keep it now:", err=True)
    click.echo(made["api_key"])


@keys.command("revoke")
@click.argument("key_id")
@_asks
def revoke_key(key_id: str, output: str) -> None:
    """Revoke an API key, at once."""
    show_facts(output, _call("DELETE", f"/v1/api-keys/{_segment(key_id)}"), f"revoked {key_id}")


# Audit, sessions


@click.command()
@click.option("--user", help="Only events of this account.")
@click.option("--event", help="Only events of this kind, such as login_failed or database_delete.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@click.option("--stats", "counts", is_flag=True, help="Counts by kind instead of events.")
@_asks
def audit(user: str | None, event: str | None, limit: int, offset: int, counts: bool, output: str) -> None:
    """Print what was done by whom, newest first: your own events, an admin's view is everyone's."""
    if counts:
        show_facts(output, _call("GET", "/v1/security/audit-stats"))
        return
    answer = _call("GET", "/v1/security/audit-log", user_id=user, event_type=event, limit=limit, offset=offset)
    names = ("timestamp", "event_type", "user", "user_id", "status", "resource", "ip_address", "details")
    records = [{name: each.get(name) for name in names} for each in answer["events"]]
    columns = ("timestamp", "event_type", "user", "status", "resource", "ip_address", "details")
    show_records(output, records, columns, nothing="No such events.")


@click.command()
@click.option("--user", help="Of this account (admin); else your own.")
@_asks
def sessions(user: str | None, output: str) -> None:
    """List who is signed in from where."""
    found = _call("GET", "/v1/security/sessions", user_id=user)["sessions"]
    columns = ("session_id", "user_id", "ip_address", "created_at", "last_activity", "expires_at", "current")
    show_records(output, found, columns, nothing="No sessions.")


# Grants


@click.group()
def grants() -> None:
    """Who may use a database beside its owner."""


@grants.command("list")
@click.argument("database")
@_asks
def list_grants(database: str, output: str) -> None:
    """List the grants of DATABASE."""
    _show_grants(output, _call("GET", f"/v2/databases/{_segment(database)}/grants"))


@grants.command("set")
@click.argument("database")
@click.argument("user")
@click.argument("right", type=click.Choice(_RIGHTS))
@_asks
def set_grant(database: str, user: str, right: str, output: str) -> None:
    """Let USER use DATABASE."""
    path = f"/v2/databases/{_segment(database)}/grants/{_segment(user)}"
    _show_grants(output, _call("PUT", path, {"right": right}))


@grants.command("remove")
@click.argument("database")
@click.argument("user")
@_asks
def remove_grant(database: str, user: str, output: str) -> None:
    """Take USER's grant on DATABASE back."""
    _show_grants(output, _call("DELETE", f"/v2/databases/{_segment(database)}/grants/{_segment(user)}"))


def _show_grants(output: str, answer: dict[str, Any]) -> None:
    records = [{"user_id": user, "right": right} for user, right in answer["grants"].items()]
    show_records(
        output, records, ("user_id", "right"), value=answer["grants"], nothing="Nobody but the owner and admins."
    )


def _without_aliases(record: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that answers repeat in another spelling."""
    twice = {"id", "key", "name"} if any(name in record for name in ("user_id", "key_id")) else set()
    return {
        name: value
        for name, value in record.items()
        if name not in twice and name not in ("message", "success") and not any(c.isupper() for c in name)
    }


COMMANDS = (health, status, users, keys, audit, sessions, grants)
