"""Running a bulk upsert: batches sent by threads, a bounded number at once, with a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from jadevectordb.client.bulk import Batch, RowLike, Upload
from jadevectordb.client.database_calls import DatabaseCalls
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import BATCH_ROWS_MAX, BULK_PARALLEL_MAX


@contextmanager
def opened(
    rows: Iterable[RowLike],
    calls: DatabaseCalls,
    batch_rows: int,
    parallel: int,
    progress: bool,
    resume: str | Path | None,
) -> Iterator[Upload]:
    """An upload with its progress bar. Raises INVALID_ARGUMENT."""
    for name, value, most in (("batch_rows", batch_rows, BATCH_ROWS_MAX), ("parallel", parallel, BULK_PARALLEL_MAX)):
        if type(value) is not int or not 1 <= value <= most:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT, f"{name} must be an integer from 1 to {most}, got {value!r:.40}."
            )
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, "rows must be an iterable of (id, vector) or (id, vector, metadata)."
        )
    total = len(rows) if isinstance(rows, Sized) else None
    with _bar(calls.info.name, total, progress) as on_rows:
        yield Upload(rows, calls, batch_rows, None if resume is None else Path(resume), on_rows)


def run_in_threads(upload: Upload, upsert: Callable[..., object], parallel: int) -> None:
    """Send batches with so many threads; the caller's thread reads rows. At an error nothing more is sent, and what is on its way
    is waited for and booked.
    """

    def send(batch: Batch) -> None:
        upsert(batch.ids, batch.vectors, batch.metadata, request_id=batch.request_id)

    on_way: dict[Future[None], Batch] = {}

    def settle(has_room: Callable[[], bool]) -> None:
        while on_way and not has_room():
            for future in wait(on_way, return_when=FIRST_COMPLETED).done:
                batch = on_way.pop(future)
                future.result()
                upload.acknowledged(batch)

    if upload.to_skip:
        upload.skip(upload.to_skip)
    with ThreadPoolExecutor(parallel, thread_name_prefix="jade-upsert") as threads:
        try:
            while (batch := upload.batch()) is not None:
                following = batch
                settle(lambda: len(on_way) < parallel and not upload.must_wait(following))  # noqa: B023 - called at once
                upload.sent(batch)
                on_way[threads.submit(send, batch)] = batch
            settle(lambda: False)
        except BaseException as error:
            for future, batch in on_way.items():
                if future.exception() is None:
                    upload.acknowledged(batch)
            if isinstance(error, JadeError):
                raise upload.failed(error) from error
            raise
    upload.finish()


@contextmanager
def _bar(title: str, total: int | None, progress: bool) -> Iterator[Callable[[int], None]]:
    """A callback that is told how many rows more are done; it moves a bar where there is a terminal and rich."""
    shown = None
    if progress:
        try:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
        except ImportError:
            pass
        else:
            console = Console(stderr=True)
            if console.is_terminal:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
                shown = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
    if shown is None:
        yield lambda rows: None
        return
    with shown:
        task = shown.add_task(title, total=total)
        yield lambda rows: shown.advance(task, rows)
