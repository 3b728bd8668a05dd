"""Commands that move vectors between files and databases: import, export."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.arguments import filter_option
from jadevectordb.cli.output import format_option, show_facts
from jadevectordb.cli.places import (
    Place,
    PlaceCommand,
    connection_options,
    name_argument,
    open_database,
    place_argument,
)
from jadevectordb.client import Database as RemoteDatabase
from jadevectordb.model.limits import BATCH_ROWS_MAX

if TYPE_CHECKING:
    from jadevectordb.cli.places import AnyDatabase

_FORMATS = click.Choice(["jsonl", "csv", "parquet", "npy", "fvecs", "bvecs", "ivecs"])
_SHOWN_ERRORS_MAX = 5
_OPTION_OF = {  # what an error calls an argument of the library, and the option it is here
    "on_error='skip'": "--on-error skip",
    "resume=False": "--restart",
    "format= one of": "--file-format, one of",
}

file_format_option = click.option("--file-format", type=_FORMATS, help="If the file's name doesn't tell.")


@click.command("import", cls=PlaceCommand)
@place_argument
@name_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@file_format_option
@click.option("--id-column", default="id", show_default=True, help="Column or key of the id.")
@click.option("--vector-column", default="vector", show_default=True, help="Column or key of the vector.")
@click.option(
    "--metadata-column", default="metadata", show_default=True, help="Of metadata; without it, all other columns are."
)
@click.option("--delimiter", help="Between the cells of CSV.")
@click.option(
    "--ids",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For .npy and the like: a text file with an id a line. Otherwise FILE.ids, or row numbers.",
)
@click.option("--batch-rows", type=click.IntRange(1, BATCH_ROWS_MAX), default=1000, show_default=True)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a row that can't be stored: stop, or leave it out and report it.",
)
@click.option("--restart", is_flag=True, help="Begin anew where an earlier import of FILE was interrupted.")
@click.option("--no-wait", is_flag=True, help="Don't wait for the index; it is built when the folder is open next.")
@connection_options(curl=False)
@format_option
def import_command(
    place: Place,
    name: str,
    file: Path,
    file_format: str | None,
    id_column: str,
    vector_column: str,
    metadata_column: str,
    delimiter: str | None,
    ids: Path | None,
    batch_rows: int,
    on_error: Literal["stop", "skip"],
    restart: bool,
    no_wait: bool,
    output: str,
) -> None:
    """Write the vectors of FILE to the database NAME.

    FILE: JSON Lines or CSV (also .gz), Parquet, .npy, .fvecs, .bvecs, .ivecs. A vector replaces the one stored under its id.
    An import that was interrupted goes on where it was when it is called again.
    """
    from jadevectordb.transfer import Columns, VectorSink, import_file
    from jadevectordb.transfer.progress import progress_bar

    columns = Columns(id=id_column, vector=vector_column, metadata=metadata_column, delimiter=delimiter)
    with _in_options(), open_database(place, name) as database:
        with progress_bar(file.name) as on_progress:
            report = import_file(
                cast(VectorSink, database),
                file,
                format=file_format,
                columns=columns,
                ids=ids,
                batch_rows=batch_rows,
                checkpoint=_checkpoint(place, database, file),
                resume=not restart,
                on_error=on_error,
                on_progress=on_progress,
            )
        if not no_wait:
            with terminal.busy("building the index"):
                database.wait_indexed()
    for bad in report.errors[:_SHOWN_ERRORS_MAX]:
        click.echo(f"left out: {bad}", err=True)
    if report.skipped > _SHOWN_ERRORS_MAX:
        click.echo(f"left out: {report.skipped - _SHOWN_ERRORS_MAX} more", err=True)
    if report.ignored:
        click.echo(f"not imported: {', '.join(report.ignored)}", err=True)
    before = f" ({report.rows_before} of them by an earlier run)" if report.rows_before else ""
    skipped = f", {report.skipped} left out" if report.skipped else ""
    facts = {
        "rows": report.rows,
        "rows_before": report.rows_before,
        "skipped": report.skipped,
        "replaced": report.replaced,
        "seconds": report.seconds,
        "ignored": report.ignored,
    }
    show_facts(output, facts, f"imported {report.rows} vectors{before} in {report.seconds:.1f} s{skipped}")


@contextmanager
def _in_options() -> Iterator[None]:
    """Errors that say what to do with an argument name the option instead."""
    try:
        yield
    except jade.JadeError as error:
        message = error.message
        for argument, option in _OPTION_OF.items():
            message = message.replace(argument, option)
        raise jade.JadeError(error.code, message, details=error.details) from error


def _checkpoint(place: Place, database: AnyDatabase, file: Path) -> Path:
    """Where the progress of importing this file is kept: in the database's folder, so that it goes when the database is
    dropped; for a server in the user's state folder, under the database's id.
    """
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    if not isinstance(database, RemoteDatabase):
        assert place.folder is not None
        return place.folder / database.config.folder / f"import-{digest}.json"
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "jadevectordb"
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise jade.JadeError(jade.ErrorCode.IO_ERROR, f"{state} can't be made ({error.strerror}).") from error
    return state / f"import-{database.id}-{digest}.json"


@click.command("export", cls=PlaceCommand)
@place_argument
@name_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@file_format_option
@filter_option
@click.option("--no-vectors", is_flag=True, help="Ids and metadata alone.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@connection_options(curl=False)
@format_option
def export_command(
    place: Place,
    name: str,
    file: Path,
    file_format: str | None,
    condition: dict[str, Any] | None,
    no_vectors: bool,
    overwrite: bool,
    output: str,
) -> None:
    """Write the database NAME to FILE.

    FILE: JSON Lines or CSV (also .gz), Parquet, .npy, .fvecs. It appears when it is complete.
    """
    from jadevectordb.transfer import export_file
    from jadevectordb.transfer.progress import progress_bar

    if file.exists() and not overwrite:
        raise jade.JadeError(jade.ErrorCode.ALREADY_EXISTS, f"{file} is there already: add --overwrite to replace it.")
    with _in_options(), open_database(place, name) as database, progress_bar(file.name) as on_progress:
        report = export_file(
            database,
            file,
            format=file_format,
            filter=condition,
            include_vectors=not no_vectors,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    if report.metadata_left_out:
        click.echo(
            f"left out: the metadata of {report.metadata_left_out} vectors, which this format can't carry", err=True
        )
    files = [str(written) for written in report.files]
    facts = {
        "rows": report.rows,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "files": files,
        "metadata_left_out": report.metadata_left_out,
    }
    size = terminal.bytes_text(report.bytes)
    show_facts(output, facts, f"exported {report.rows} vectors to {', '.join(files)}, {size} in {report.seconds:.1f} s")


COMMANDS = (import_command, export_command)
