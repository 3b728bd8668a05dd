"""Commands that move vectors between files and databases: import, export."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import click

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.arguments import (
    JSON,
    filter_option,
    folder_argument,
    format_option,
    name_argument,
    open_database,
)
from jadevectordb.model.limits import BATCH_ROWS_MAX

_FORMATS = click.Choice(["jsonl", "csv", "parquet", "npy", "fvecs", "bvecs", "ivecs"])
_SHOWN_ERRORS_MAX = 5
_OPTION_OF = {  # what an error calls an argument of the library, and the option it is here
    "on_error='skip'": "--on-error skip",
    "resume=False": "--restart",
    "format= one of": "--file-format, one of",
}

file_format_option = click.option("--file-format", type=_FORMATS, help="If the file's name doesn't tell.")


@click.command("import")
@folder_argument
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
@format_option
def import_command(
    folder: Path,
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
    with _in_options(), open_database(folder, name) as database:
        with progress_bar(file.name) as on_progress:
            report = import_file(
                cast(VectorSink, database),
                file,
                format=file_format,
                columns=columns,
                ids=ids,
                batch_rows=batch_rows,
                checkpoint=_checkpoint(folder / database.config.folder, file),
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
    if output == JSON:
        terminal.print_json(
            {
                "rows": report.rows,
                "rows_before": report.rows_before,
                "skipped": report.skipped,
                "replaced": report.replaced,
                "seconds": report.seconds,
                "ignored": report.ignored,
            }
        )
        return
    before = f" ({report.rows_before} of them by an earlier run)" if report.rows_before else ""
    skipped = f", {report.skipped} left out" if report.skipped else ""
    click.echo(f"imported {report.rows} vectors{before} in {report.seconds:.1f} s{skipped}")


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


def _checkpoint(database_folder: Path, file: Path) -> Path:
    """Where the progress of importing this file is kept: it goes when the database is dropped."""
    return database_folder / f"import-{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]}.json"


@click.command("export")
@folder_argument
@name_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@file_format_option
@filter_option
@click.option("--no-vectors", is_flag=True, help="Ids and metadata alone.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@format_option
def export_command(
    folder: Path,
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
    with _in_options(), open_database(folder, name) as database, progress_bar(file.name) as on_progress:
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
    if output == JSON:
        terminal.print_json(
            {
                "rows": report.rows,
                "bytes": report.bytes,
                "seconds": report.seconds,
                "files": [str(written) for written in report.files],
                "metadata_left_out": report.metadata_left_out,
            }
        )
        return
    files = ", ".join(str(written) for written in report.files)
    click.echo(
        f"exported {report.rows} vectors to {files}, {terminal.bytes_text(report.bytes)} in {report.seconds:.1f} s"
    )


COMMANDS = (import_command, export_command)
