"""Arguments that commands share, and opening what they name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

import jadevectordb as jade
from jadevectordb.model.database import CATALOG_NAME

_Function = TypeVar("_Function", bound=Callable[..., Any])

TABLE, JSON = "table", "json"

folder_argument = click.argument("folder", type=click.Path(path_type=Path))
name_argument = click.argument("name")


def json_value(kind: type, example: str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback for an option whose value is JSON. kind: the Python type it must have. Wrong values are wrong usage."""

    def decode(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"this is not JSON ({error}): write it as in '{example}'.", ctx, param) from error
        if not isinstance(decoded, kind):
            raise click.BadParameter(f"write it as in '{example}'.", ctx, param)
        return decoded

    return decode


filter_option = click.option(
    "--filter",
    "condition",
    metavar="JSON",
    callback=json_value(dict, '{"pos": "noun"}'),
    help='Only vectors whose metadata match, such as \'{"pos": "noun", "year": {"$gte": 2000}}\'.',
)


def format_option(function: _Function) -> _Function:
    """--format: a table for people, JSON for programs."""
    return click.option(
        "--format",
        "output",
        type=click.Choice([TABLE, JSON]),
        default=TABLE,
        show_default=True,
        help="How to print it.",
    )(function)


@contextmanager
def open_store(folder: Path) -> Iterator[jade.Store]:
    """Open a folder that is a store already: reading from a mistyped folder must not make one. Raises NOT_FOUND."""
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
    with jade.open(folder) as store:
        yield store


@contextmanager
def open_database(folder: Path, name: str) -> Iterator[jade.Database]:
    """Open one database of the folder. Raises NOT_FOUND, UNKNOWN_DATABASE."""
    with open_store(folder) as store:
        check_known(store, name)
        yield store.database(name)


def check_known(store: jade.Store, name: str) -> None:
    """Raises UNKNOWN_DATABASE in the words of the command line."""
    names = store.databases()
    if name not in names:
        raise jade.JadeError(
            jade.ErrorCode.UNKNOWN_DATABASE,
            f"There is no database {name!r} in {store.path} (there are: {', '.join(names) or 'none yet'}). "
            f"Make it with `jade create {store.path} {name} --dimension N`.",
        )
