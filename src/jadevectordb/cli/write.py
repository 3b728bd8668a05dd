"""Commands that write vectors: put, delete, wait. In a folder or on a server."""

from __future__ import annotations

from typing import Any

import click

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.arguments import filter_option, json_value
from jadevectordb.cli.output import format_option, show_facts
from jadevectordb.cli.places import (
    Place,
    PlaceCommand,
    connection_options,
    is_curl,
    name_argument,
    open_database,
    place_argument,
)


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@click.argument("vector_id", metavar="ID")
@click.option("--vector", metavar="JSON", callback=json_value(list, "[0.1, 0.2]"), help="Its values: a JSON array.")
@click.option("--metadata", metavar="JSON", callback=json_value(dict, '{"pos": "noun"}'), help="A JSON object.")
@click.option("--if-version", type=int, help="Only if its version is this now (0: only if it isn't there).")
@connection_options()
@format_option
def put(
    place: Place,
    name: str,
    vector_id: str,
    vector: list[Any] | None,
    metadata: dict[str, Any] | None,
    if_version: int | None,
    output: str,
) -> None:
    """Store one vector in NAME under ID, in place of what is there.

    Without --vector the stored one stays and only its metadata are replaced. For many vectors: `jade import`.
    """
    if vector is None and metadata is None:
        raise click.UsageError("Say what to store: --vector, --metadata or both.")
    with open_database(place, name, dimension=0 if vector is None else len(vector)) as database:
        if vector is not None:
            result = database.upsert([vector_id], [vector], [metadata], if_version=if_version)
        else:
            assert metadata is not None
            result = database.update_metadata([vector_id], [metadata], merge=False, if_version=if_version)
    if not result.count:
        raise jade.JadeError(
            jade.ErrorCode.NOT_FOUND, f"There is no vector {vector_id!r} in {name}: give its --vector too."
        )
    show_facts(output, {"id": vector_id, "version": result.version}, f"stored {vector_id}, version {result.version}")


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@click.argument("ids", nargs=-1)
@filter_option
@click.option("--yes", is_flag=True, help="Don't ask before deleting by filter.")
@connection_options()
@format_option
def delete(
    place: Place, name: str, ids: tuple[str, ...], condition: dict[str, Any] | None, yes: bool, output: str
) -> None:
    """Delete the vectors IDS of NAME, or all that match a filter. Ids that aren't there are passed over."""
    if bool(ids) == (condition is not None):
        raise click.UsageError("Say what to delete: either IDS or --filter.")
    with open_database(place, name) as database:
        if condition is not None and not yes and not is_curl():
            click.confirm(f"Delete {database.count(condition)} vectors of {name}? This can't be undone.", abort=True)
        result = database.delete(list(dict.fromkeys(ids))) if ids else database.delete(filter=condition)
    show_facts(output, {"deleted": result.count}, f"deleted {result.count} vectors of {name}")


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@click.option("--for", "limit_s", type=float, metavar="SECONDS", help="At most so long; then exit code 1.")
@connection_options(curl=False)
def wait(place: Place, name: str, limit_s: float | None) -> None:
    """Wait until every vector of NAME is in an index. Searches find them without it, only more slowly."""
    with open_database(place, name) as database, terminal.busy("building the index"):
        database.wait_indexed(limit_s)
    click.echo(f"{name} is indexed")


COMMANDS = (put, delete, wait)
