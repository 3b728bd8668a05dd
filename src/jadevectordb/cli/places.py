"""Where the databases are that a command is about: a folder, a server by its URL, or a server that was saved by `jade login`.

jade search ./data words --id w1
jade search http://127.0.0.1:8080 words --id w1        the same, of a server
jade search @prod words --id w1                        of a saved one; @ alone is the one saved as "default"
jade search --url http://127.0.0.1:8080 words --id w1  an option may stand for the argument
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

import jadevectordb as jade
from jadevectordb.cli import profiles
from jadevectordb.client import Client
from jadevectordb.client import Database as RemoteDatabase
from jadevectordb.client.address import URL_DEFAULT
from jadevectordb.client.core import KEY_VARIABLE, URL_VARIABLE
from jadevectordb.model.database import CATALOG_NAME

if TYPE_CHECKING:  # naming the store's class would load the engine, for which `jade --help` need not wait
    AnyStore: TypeAlias = jade.Store | Client
    AnyDatabase: TypeAlias = jade.Database | RemoteDatabase
_Function = TypeVar("_Function", bound=Callable[..., Any])
_META = "jadevectordb.connection"  # where a command's connection options are kept


@dataclass(frozen=True, slots=True)
class Place:
    """text: as it was written. Either a folder, or the URL or profile of a server."""

    text: str
    folder: Path | None = None
    url: str = ""
    profile: str = ""

    @classmethod
    def of(cls, text: str) -> Place:
        if text.startswith(("http://", "https://")):
            return cls(text, url=text)
        if text.startswith("@"):
            return cls(text, profile=text[1:] or profiles.DEFAULT)
        return cls(text, folder=Path(text))

    def __str__(self) -> str:
        return self.text


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # not generic in older versions
    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        return value if isinstance(value, Place) else Place.of(value)


place_argument = click.argument("place", type=PlaceType(), metavar="FOLDER|URL")
name_argument = click.argument("name")


class PlaceCommand(click.Command):
    """A command whose first argument is a place; --url or --profile may stand for it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest, place = _without_place_options(args)
        return super().parse_args(ctx, [place, *rest] if place else args)


def _without_place_options(args: list[str]) -> tuple[list[str], str]:
    """The other arguments, and the place that an option names."""
    rest: list[str] = []
    place, at = "", 0
    while at < len(args):
        name, equals, value = args[at].partition("=")
        if name in ("--url", "--profile") and (equals or at + 1 < len(args)):
            if not equals:
                at += 1
                value = args[at]
            place = value if name == "--url" else f"@{value}"
        elif args[at] == "--":
            return rest + args[at:], place
        else:
            rest.append(args[at])
        at += 1
    return rest, place


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    assert param.name is not None
    ctx.meta.setdefault(_META, {})[param.name] = value


def connection_options(curl: bool = True) -> Callable[[_Function], _Function]:
    """--url, --profile, --api-key, --ca, --timeout and --curl: kept for `open_store` and `open_client`."""
    options = [
        click.option(
            "--url", metavar="URL", expose_value=False, callback=_keep, help="Of a server, in place of a folder."
        ),
        click.option(
            "--profile", metavar="PROFILE", expose_value=False, callback=_keep, help="A server saved by `jade login`."
        ),
        click.option(
            "--api-key",
            metavar="KEY",
            expose_value=False,
            callback=_keep,
            help=f"Who asks the server: an API key or session token; else ${KEY_VARIABLE}.",
        ),
        click.option(
            "--ca",
            type=click.Path(exists=True, dir_okay=False),
            expose_value=False,
            callback=_keep,
            help="Trust the authorities of this PEM file.",
        ),
        click.option(
            "--timeout", type=float, metavar="SECONDS", expose_value=False, callback=_keep, help="For one request."
        ),
    ]
    if curl:
        options.append(
            click.option(
                "--curl",
                is_flag=True,
                expose_value=False,
                callback=_keep,
                help="Print the request to the server as a curl command instead of sending it.",
            )
        )

    def add(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _connection() -> dict[str, Any]:
    found: dict[str, Any] = click.get_current_context().meta.get(_META, {})
    return found


def names_server() -> bool:
    """Whether an option or the environment names a server."""
    return option_names_server() or bool(os.environ.get(URL_VARIABLE))


def option_names_server() -> bool:
    given = _connection()
    return bool(given.get("url") or given.get("profile"))


def timeout_given() -> float | None:
    """Seconds for one request, where an option says so."""
    given: float | None = _connection().get("timeout")
    return given


def is_curl() -> bool:
    return bool(_connection().get("curl"))


def open_client(place: Place | None = None, dimension: int = 1) -> Client:
    """A client of the server that the place, the options, the environment or the default profile name.

    dimension: of vectors that the command sends, where it only prints its request.
    """
    given = _connection()
    if place is None and given.get("url"):
        place = Place.of(given["url"])
        if place.folder is not None:  # no URL: what is wrong with it is said, no other server asked
            place = Place(place.text, url=place.text)
    name = place.profile if place is not None else given.get("profile")
    if place is None and not name and not os.environ.get(URL_VARIABLE) and profiles.DEFAULT in profiles.load_all():
        name = profiles.DEFAULT
    profile = profiles.load(name) if name else profiles.Profile("")
    url = profile.url or (place.url if place is not None else "") or os.environ.get(URL_VARIABLE) or URL_DEFAULT
    secret = given.get("api_key") or profile.secret or os.environ.get(KEY_VARIABLE) or None
    settings: dict[str, Any] = {"url": url, "api_key": secret, "timeout": given.get("timeout")}
    ca = given.get("ca") or profile.ca
    if ca:
        settings["verify"] = ca
    if given.get("curl"):
        from jadevectordb.cli.curl import CurlClient

        return CurlClient(dimension=dimension, has_credential=secret is not None, **settings)
    return Client(**settings)


@contextmanager
def open_store(place: Place, *, make: bool = False, dimension: int = 1) -> Iterator[AnyStore]:
    """The databases of a place. make: a folder that is none yet becomes one; else reading from a mistyped folder would make
    one. Raises NOT_FOUND.
    """
    if place.folder is None:
        with open_client(place, dimension) as client:
            yield client
        return
    if is_curl():
        raise click.UsageError("--curl shows a request to a server: give a URL instead of a folder.")
    with jade.open(place.folder) if make else open_folder(place.folder) as store:
        yield store


@contextmanager
def open_folder(folder: Path) -> Iterator[jade.Store]:
    """A folder that is a store already. Raises NOT_FOUND, also for a server: what works on files needs the folder."""
    if str(folder).startswith(("http:/", "https:/", "@")):
        raise jade.JadeError(
            jade.ErrorCode.INVALID_ARGUMENT,
            f"This works on the files of a folder of databases, not on a server ({folder}).",
        )
    _check_store(folder)
    with jade.open(folder) as store:
        yield store


def _check_store(folder: Path) -> None:
    try:
        known = (folder / CATALOG_NAME).exists() or any(folder.glob("db-*"))
    except OSError as error:
        raise jade.JadeError(jade.ErrorCode.IO_ERROR, f"{folder} can't be read ({error.strerror}).") from error
    if not known:
        raise jade.JadeError(
            jade.ErrorCode.NOT_FOUND,
            f"{folder} holds no databases: name a folder that does, or make one with "
            f"`jade create {folder} NAME --dimension N`.",
        )


@contextmanager
def open_database(place: Place, name: str, dimension: int = 1) -> Iterator[AnyDatabase]:
    """One database of a place. Raises NOT_FOUND, UNKNOWN_DATABASE."""
    with open_store(place, dimension=dimension) as store:
        check_known(store, name)
        yield store.database(name)


def check_known(store: AnyStore, name: str) -> None:
    """Raises UNKNOWN_DATABASE in the words of the command line. A server says it itself."""
    if isinstance(store, Client):
        return
    names = store.databases()
    if name not in names:
        raise jade.JadeError(
            jade.ErrorCode.UNKNOWN_DATABASE,
            f"There is no database {name!r} in {store.path} (there are: {', '.join(names) or 'none yet'}). "
            f"Make it with `jade create {store.path} {name} --dimension N`.",
        )
