"""Commands about which databases there are: databases, create, drop, stats. In a folder or on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.arguments import json_value
from jadevectordb.cli.output import TABLE, format_option, show_facts, show_plain, show_records
from jadevectordb.cli.places import (
    Place,
    PlaceCommand,
    check_known,
    connection_options,
    is_curl,
    name_argument,
    open_store,
    place_argument,
)
from jadevectordb.client import Client
from jadevectordb.client import Stats as RemoteStats
from jadevectordb.model.limits import DIMENSION_MAX, SHARDS_MAX

if TYPE_CHECKING:
    from jadevectordb.cli.places import AnyStore


@click.command("databases", cls=PlaceCommand)
@place_argument
@connection_options()
@format_option
def list_databases(place: Place, output: str) -> None:
    """List the databases of a folder or server."""
    with open_store(place) as store:
        found = _rows(store)
    columns = ("name", "vectors", "dimension", "metric", "index", "shards")
    numbers = ("vectors", "dimension", "shards")
    show_records(output, found, columns, right=numbers, nothing=f"No databases in {place} yet.")


def _rows(store: AnyStore) -> list[dict[str, Any]]:
    """Of a server also who they belong to: there, names need not be unique."""
    if isinstance(store, Client):
        names = (
            "name",
            "vectors",
            "dimension",
            "metric",
            "index",
            "shards",
            "id",
            "owner",
            "description",
            "created_at",
        )
        return [{name: getattr(info, name) for name in names} for info in store.describe_all()]
    rows = []
    for name in store.databases():
        config = store.describe(name)
        rows.append(
            {
                "name": name,
                "vectors": store.database(name).count(),
                "dimension": config.dimension,
                "metric": str(config.metric),
                "index": str(config.index),
                "shards": config.shards,
            }
        )
    return rows


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@click.option(
    "--dimension", type=click.IntRange(1, DIMENSION_MAX), required=True, help="Values of a vector (bits under hamming)."
)
@click.option(
    "--metric",
    type=click.Choice([str(m) for m in jade.Metric], case_sensitive=False),
    default=str(jade.Metric.COSINE),
    show_default=True,
)
@click.option(
    "--index",
    type=click.Choice([str(k) for k in jade.IndexKind], case_sensitive=False),
    default=str(jade.IndexKind.AUTO),
    show_default=True,
)
@click.option(
    "--shards", type=click.IntRange(1, SHARDS_MAX), default=1, show_default=True, help="Parts to split it into."
)
@click.option(
    "--schema",
    metavar="JSON",
    callback=json_value(dict, '{"year": "integer", "body": "text"}'),
    help='Metadata fields with their types, such as \'{"year": "integer", "body": "text"}\'.',
)
@click.option("--strict", is_flag=True, help="Refuse metadata fields that the schema doesn't declare.")
@connection_options()
@format_option
def create(
    place: Place,
    name: str,
    dimension: int,
    metric: str,
    index: str,
    shards: int,
    schema: dict[str, Any] | None,
    strict: bool,
    output: str,
) -> None:
    """Make the database NAME, and the folder if need be."""
    with open_store(place, make=True) as store:
        if not isinstance(store, Client) and name in store.databases():
            raise jade.JadeError(
                jade.ErrorCode.ALREADY_EXISTS,
                f"There is a database {name!r} in {place} already: choose another name, or drop it first with "
                f"`jade drop {place} {name}`.",
            )
        made = store.create_database(name, dimension, metric, shards, index, schema, strict=strict)
        facts = {"name": made.name, "dimension": made.dimension, "metric": made.metric}
        if isinstance(store, Client):
            facts["id"] = made.id  # type: ignore[union-attr]  # a client makes databases of its own kind
        show_facts(output, facts, f"made {name}: dimension {made.dimension}, {made.metric}")


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
@connection_options()
def drop(place: Place, name: str, yes: bool) -> None:
    """Delete the database NAME with everything in it."""
    with open_store(place) as store:
        check_known(store, name)
        if not yes and not is_curl():
            click.confirm(f"Delete {name} in {place} and everything in it? This can't be undone.", abort=True)
        store.drop_database(name)
    click.echo(f"dropped {name}")


@click.command(cls=PlaceCommand)
@place_argument
@click.argument("name", required=False)
@connection_options()
@format_option
def stats(place: Place, name: str | None, output: str) -> None:
    """Print rows, segments and bytes, in memory and on disk.

    Of NAME, or of every database.
    """
    with open_store(place) as store:
        if name is not None:
            check_known(store, name)
        found = [_stats(store, each) for each in ([name] if name is not None else store.databases())]
    if output != TABLE:
        plain = [each.as_dict() for each, _ in found]
        flat = [{key: value for key, value in each.items() if key != "segments"} for each in plain]
        show_plain(output, plain if name is None else plain[0], flat)
        return
    if not found:
        click.echo(f"No databases in {place} yet.")
    for each, (title, dimension, metric) in found:
        _show(each, title, dimension, metric)


def _stats(store: AnyStore, name: str) -> tuple[jade.Stats | RemoteStats, tuple[str, int, str]]:
    database = store.database(name)
    return database.stats(), (database.name, database.dimension, database.metric)


def _show(stats: jade.Stats | RemoteStats, name: str, dimension: int, metric: str) -> None:
    console = terminal.console()
    facts = [
        ("vectors", f"{stats.rows} ({stats.indexed_rows} indexed, {stats.dead_rows} dead rows to clear away)"),
        ("dimension", f"{dimension}, {metric}"),
        ("memory", f"{terminal.bytes_text(stats.memory_bytes)} beyond the page cache"),
        ("disk", f"{terminal.bytes_text(stats.disk_bytes)}, of which {terminal.bytes_text(stats.log_bytes)} log"),
        ("watermarks", " ".join(map(str, stats.watermarks))),
    ]
    if stats.trouble:
        facts.append(("trouble", stats.trouble))
    console.print(terminal.table((name, ""), facts))
    numbers = ("shard", "rows", "live", "memory", "disk")
    rows = (
        (
            s.shard,
            s.name,
            s.index,
            s.rows,
            s.live,
            terminal.bytes_text(s.memory_bytes),
            terminal.bytes_text(s.disk_bytes),
        )
        for s in stats.segments
    )
    console.print(terminal.table(("shard", "segment", "index", "rows", "live", "memory", "disk"), rows, right=numbers))


COMMANDS = (list_databases, create, drop, stats)
