"""Commands that look after the data: verify, snapshot, compact."""

from __future__ import annotations

from pathlib import Path

import click

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.places import (
    Place,
    PlaceCommand,
    check_known,
    connection_options,
    name_argument,
    open_database,
    open_folder,
    place_argument,
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name", required=False)
def verify(folder: Path, name: str | None) -> None:
    """Read every file and compare checksums.

    Of NAME, or of every database in FOLDER.
    """
    damaged = []
    with open_folder(folder) as store:
        if name is not None:
            check_known(store, name)
        for each in [name] if name is not None else store.databases():
            try:
                database = store.database(each)
                database.verify()
            except jade.JadeError as error:
                click.echo(f"error: {each}: {error.message}", err=True)
                damaged.append(each)
            else:
                stats = database.stats()
                click.echo(
                    f"{each}: {stats.rows} vectors, {terminal.bytes_text(stats.disk_bytes)}, all checksums are right"
                )
    if damaged:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def snapshot(folder: Path, target: Path) -> None:
    """Copy all databases of FOLDER to a new folder.

    TARGET is then a folder like any other. Files are shared by hard links where the file system can.
    """
    with open_folder(folder) as store:
        store.snapshot(target)
        click.echo(f"copied {', '.join(store.databases()) or 'no databases'} to {target}")


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@connection_options()
def compact(place: Place, name: str) -> None:
    """Merge segments and clear dead rows away.

    Leaves NAME with one segment a shard and a fresh index.
    """
    with open_database(place, name) as database:
        before = database.stats()
        with terminal.busy(f"compacting {name}"):
            database.compact()
        after = database.stats()
    click.echo(
        f"{name}: {after.rows} vectors, {before.dead_rows} dead rows cleared away, "
        f"disk {terminal.bytes_text(before.disk_bytes)} before, {terminal.bytes_text(after.disk_bytes)} now"
    )


COMMANDS = (verify, snapshot, compact)
