"""Commands about who asks a server: login, logout, profiles."""

from __future__ import annotations

import sys
from typing import Any

import click

import jadevectordb as jade
from jadevectordb.cli import profiles
from jadevectordb.cli.output import format_option, show_records
from jadevectordb.client import Client
from jadevectordb.client.address import URL_DEFAULT


@click.command()
@click.argument("url", default=URL_DEFAULT)
@click.option("--user", help="Name or e-mail; asked for if neither this nor --with-key is given.")
@click.option("--with-key", is_flag=True, help="Sign in with an API key instead of a password.")
@click.option("--secret-stdin", is_flag=True, help="Read the password or key from standard input, as scripts do.")
@click.option("--profile", default=profiles.DEFAULT, show_default=True, help="Save it under this name.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="Trust this PEM file.")
def login(url: str, user: str | None, with_key: bool, secret_stdin: bool, profile: str, ca: str | None) -> None:
    """Sign in to a server and save it, so that later commands need neither URL nor secret.

    Then `jade status`, or `jade databases @` (or @PROFILE) in place of a folder. Of a password only the session it gives is kept.
    """
    if with_key and user is not None:
        raise click.UsageError("Give one of --user and --with-key.")
    if not with_key and user is None:
        user = click.prompt("User", err=True)
    what = "API key" if with_key else "Password"
    secret = sys.stdin.readline().rstrip("\n") if secret_stdin else click.prompt(what, hide_input=True, err=True)
    who: dict[str, Any] = {"api_key": secret} if with_key else {"user": user, "password": secret}
    with Client(url, verify=ca or True, **who) as client:
        me = client.call("GET", "/v1/auth/me")
        token = client._core.credentials.token or ""
        profiles.save(profile, profiles.Profile(client.url, token, str(me.get("username", "")), ca or ""))
        click.echo(f"signed in to {client.url} as {me.get('username')}; saved as @{profile}")
        if me.get("must_change_password"):
            click.echo("This password must be changed first: jade users change-password", err=True)


@click.command()
@click.option("--profile", default=profiles.DEFAULT, show_default=True)
def logout(profile: str) -> None:
    """End the session of a saved server and forget it. An API key stays valid: revoke it with `jade keys revoke`."""
    saved = profiles.load(profile)
    if saved.secret and not saved.secret.startswith("jadevdb_"):
        try:
            with Client(saved.url, token=saved.secret, verify=saved.ca or True) as client:
                client.call("POST", "/v1/auth/logout")
        except jade.JadeError as error:
            if error.code is not jade.ErrorCode.UNAUTHORIZED:  # over already
                click.echo(f"the session could not be ended: {error.message}", err=True)
    profiles.save(profile, None)
    click.echo(f"forgot @{profile}")


@click.command("profiles")
@format_option
def list_profiles(output: str) -> None:
    """List the saved servers. Their secrets are not shown."""
    saved = [
        {"profile": name, "url": each.url, "user": each.user, "ca": each.ca}
        for name, each in sorted(profiles.load_all().items())
    ]
    show_records(output, saved, ("profile", "url", "user", "ca"), nothing="No saved servers yet: jade login URL")


COMMANDS = (login, logout, list_profiles)
