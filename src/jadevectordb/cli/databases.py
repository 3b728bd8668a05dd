"""Commands about which databases there are: databases, create, drop, stats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.arguments import (
    JSON,
    check_known,
    folder_argument,
    format_option,
    json_value,
    name_argument,
    open_store,
)
from jadevectordb.model.limits import DIMENSION_MAX, SHARDS_MAX


@click.command("databases")
@folder_argument
@format_option
def list_databases(folder: Path, output: str) -> None:
    """List the databases of FOLDER."""
    with open_store(folder) as store:
        found = [_row(store, name) for name in store.databases()]
    if output == JSON:
        terminal.print_json(found)
    elif not found:
        click.echo(f"No databases in {folder} yet.")
    else:
        columns = ("name", "vectors", "dimension", "metric", "index", "shards")
        rows = ([row[column] for column in columns] for row in found)
        terminal.console().print(terminal.table(columns, rows, right=("vectors", "dimension", "shards")))


def _row(store: jade.Store, name: str) -> dict[str, object]:
    config = store.describe(name)
    return {
        "name": name,
        "vectors": store.database(name).count(),
        "dimension": config.dimension,
        "metric": str(config.metric),
        "index": str(config.index),
        "shards": config.shards,
    }


@click.command()
@folder_argument
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
def create(
    folder: Path,
    name: str,
    dimension: int,
    metric: str,
    index: str,
    shards: int,
    schema: dict[str, Any] | None,
    strict: bool,
) -> None:
    """Make the database NAME in FOLDER, and FOLDER if need be."""
    with jade.open(folder) as store:
        if name in store.databases():
            raise jade.JadeError(
                jade.ErrorCode.ALREADY_EXISTS,
                f"There is a database {name!r} in {folder} already: choose another name, or drop it first with "
                f"`jade drop {folder} {name}`.",
            )
        made = store.create_database(name, dimension, metric, shards, index, schema, strict=strict)
        click.echo(f"made {name}: dimension {made.dimension}, {made.metric}")


@click.command()
@folder_argument
@name_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
def drop(folder: Path, name: str, yes: bool) -> None:
    """Delete the database NAME with everything in it."""
    with open_store(folder) as store:
        check_known(store, name)
        if not yes:
            click.confirm(f"Delete {name} in {folder} and everything in it? This can't be undone.", abort=True)
        store.drop_database(name)
    click.echo(f"dropped {name}")


@click.command()
@folder_argument
@click.argument("name", required=False)
@format_option
def stats(folder: Path, name: str | None, output: str) -> None:
    """Print rows, segments and bytes, in memory and on disk.

    Of NAME, or of every database in FOLDER.
    """
    with open_store(folder) as store:
        if name is not None:
            check_known(store, name)
        found = [store.database(each).stats() for each in ([name] if name is not None else store.databases())]
    if output == JSON:
        plain = [each.as_dict() for each in found]
        terminal.print_json(plain if name is None else plain[0])
        return
    if not found:
        click.echo(f"No databases in {folder} yet.")
    for each in found:
        _show(each)


def _show(stats: jade.Stats) -> None:
    console = terminal.console()
    facts = [
        ("vectors", f"{stats.rows} ({stats.indexed_rows} indexed, {stats.dead_rows} dead rows to clear away)"),
        ("dimension", f"{stats.dimension}, {stats.metric}"),
        ("memory", f"{terminal.bytes_text(stats.memory_bytes)} beyond the page cache"),
        ("disk", f"{terminal.bytes_text(stats.disk_bytes)}, of which {terminal.bytes_text(stats.log_bytes)} log"),
        ("watermarks", " ".join(map(str, stats.watermarks))),
    ]
    if stats.trouble:
        facts.append(("trouble", stats.trouble))
    console.print(terminal.table((stats.name, ""), facts))
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
