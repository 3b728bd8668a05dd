"""A progress bar for transfers, for whoever sits at a terminal; silent in a pipe, a log or a notebook of a build server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from jadevectordb.transfer.ends import OnProgress


@contextmanager
def progress_bar(title: str, console: Console | None = None) -> Iterator[OnProgress]:
    """A callback for `import_file` and `export_file` that keeps a line on the terminal up to date.

        with progress_bar("words.jsonl") as on_progress:
            import_file(db, "words.jsonl", on_progress=on_progress)

    console: None = the standard error stream. Where that is no terminal, nothing is shown.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _silent
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, rows=0)

        def show(rows: int, bytes_done: int, bytes_total: int | None) -> None:
            progress.update(task, completed=bytes_done, total=bytes_total, rows=rows)

        yield show


def _silent(rows: int, bytes_done: int, bytes_total: int | None) -> None:
    pass
