"""Import: a file of any format into a database, in bounded memory, going on after a crash where it was.

Rows are sent in order, a batch at a time; a batch is acknowledged as a whole. A row replaces an earlier one with the same id, in
the database or in the file, so an import may be repeated, and the last row of an id wins.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, assert_never

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import BATCH_ROWS_MAX, TRANSFER_ERRORS_KEPT_MAX
from jadevectordb.transfer import checkpoint as checkpoints
from jadevectordb.transfer.checkpoint import Checkpoint, Fingerprint
from jadevectordb.transfer.ends import OnProgress, VectorSink
from jadevectordb.transfer.formats import Columns, FileKind, Format, ids_path, kind_of
from jadevectordb.transfer.read_arrays import ArrayReader, NpyBlock, VecsBlock
from jadevectordb.transfer.read_csv import CsvReader
from jadevectordb.transfer.read_jsonl import JsonLinesReader
from jadevectordb.transfer.read_parquet import ParquetReader
from jadevectordb.transfer.rows import BadRow, Reader, RowBatch, keep

OnError: TypeAlias = Literal["stop", "skip"]

_CHECKPOINT_BATCHES = 10  # acknowledged between two checkpoints; these are sent again after a crash
_ROW_ERRORS = frozenset(  # of the sink, that one row can be to blame for
    {
        ErrorCode.DIMENSION_MISMATCH,
        ErrorCode.INVALID_VECTOR,
        ErrorCode.INVALID_ID,
        ErrorCode.INVALID_METADATA,
        ErrorCode.SCHEMA_VIOLATION,
        ErrorCode.REQUEST_TOO_LARGE,
    }
)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, all its runs together where it was interrupted."""

    rows: int  # vectors acknowledged; a file that names an id in several batches counts it in each
    batches: int
    skipped: int  # rows that were not fit
    replaced: int  # rows not sent, because a later row of the same batch has the same id
    rows_before: int  # of `rows`, those of earlier runs
    seconds: float  # of this run
    errors: list[BadRow] = field(default_factory=list)  # the first TRANSFER_ERRORS_KEPT_MAX of those skipped
    ignored: list[str] = field(default_factory=list)  # columns or keys that were not imported


def import_file(
    sink: VectorSink,
    path: str | Path,
    *,
    format: Format | str | None = None,
    columns: Columns | None = None,
    ids: str | Path | None = None,
    batch_rows: int = 1000,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    on_error: OnError = "stop",
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Write every vector of a file to `sink`.

    format: None = by the name, `.gz` behind it for JSON Lines and CSV. columns: names in the file where they are not the usual ones.
    ids: for arrays, a text file with an id a line; None = `<path>.ids` if it is there, else row numbers from 0.
    batch_rows: vectors in a request; one batch is in memory at a time.
    checkpoint: a file to keep progress in, best in the folder of the database it is for. With it, an import that was
    interrupted, even by kill -9, goes on where it was when it is called again (`resume`), and no row is lost or applied twice. It
    is removed at the end. A file that was changed meanwhile is refused. resume=False: begin anew.
    on_error: "stop" raises at the first row that is not fit, nothing of its batch is written; "skip" leaves such rows out and
    reports them. A file that cannot be read on is an error in either case.

    Raises JadeError naming file, line or row, field, and what to do. What was acknowledged before stays.
    """
    started = time.perf_counter()
    if not 1 <= batch_rows <= BATCH_ROWS_MAX:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"batch_rows is {batch_rows}: use 1 to {BATCH_ROWS_MAX}.")
    if on_error not in ("stop", "skip"):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"on_error is {on_error!r}: use 'stop' or 'skip'.")
    path, columns = Path(path), columns or Columns()
    kind = kind_of(path, format, columns)
    ids_file = _ids_file(path, kind, ids)
    state = checkpoints.begin(
        Fingerprint.of(path),
        None if ids_file is None else Fingerprint.of(ids_file),
        f"{kind}, {columns}, dimension {sink.dimension}",
    )
    saved = checkpoints.load(Path(checkpoint)) if checkpoint is not None and resume else None
    if saved is not None and checkpoint is not None:
        checkpoints.check_same(saved, state, path, Path(checkpoint))
        state = saved
    rows_before = state.rows
    reader = _reader(path, kind, columns, ids_file, sink.dimension, batch_rows)
    run = _Run(sink, path, state, None if checkpoint is None else Path(checkpoint), on_error, on_progress)
    run.all_of(reader)
    return ImportReport(
        state.rows,
        state.batches,
        state.skipped,
        state.replaced,
        rows_before,
        time.perf_counter() - started,
        state.errors,
        reader.ignored,
    )


def _ids_file(path: Path, kind: FileKind, ids: str | Path | None) -> Path | None:
    if kind.format in (Format.JSONL, Format.CSV, Format.PARQUET):
        if ids is not None:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"{path} has its ids inside: ids= is for files of vectors alone (.npy, .fvecs).",
            )
        return None
    beside = ids_path(path)
    return Path(ids) if ids is not None else beside if beside.exists() else None


def _reader(path: Path, kind: FileKind, columns: Columns, ids: Path | None, dimension: int, batch_rows: int) -> Reader:
    match kind.format:
        case Format.JSONL:
            return JsonLinesReader(path, kind, columns, dimension, batch_rows)
        case Format.CSV:
            return CsvReader(path, kind, columns, dimension, batch_rows)
        case Format.PARQUET:
            return ParquetReader(path, columns, dimension, batch_rows)
        case Format.NPY:
            return ArrayReader(path, NpyBlock(path), ids, dimension, batch_rows)
        case Format.FVECS | Format.BVECS | Format.IVECS:
            return ArrayReader(path, VecsBlock(path, kind.format, dimension), ids, dimension, batch_rows)
        case _:
            assert_never(kind.format)


@dataclass(slots=True)
class _Run:
    """Sends batches and keeps account."""

    sink: VectorSink
    path: Path
    state: Checkpoint
    checkpoint: Path | None
    on_error: OnError
    on_progress: OnProgress | None

    def all_of(self, reader: Reader) -> None:
        # Before the first batch: a batch acknowledged under a request id that nobody remembers would be sent again under another.
        self._save()
        saved = self.state.position
        try:
            for batch in reader.batches(self.state.position):
                self._take(batch)
                if self.state.batches % _CHECKPOINT_BATCHES == 0:
                    self._save()
                    saved = self.state.position
                if self.on_progress is not None:
                    self.on_progress(self.state.rows, batch.bytes_done, reader.bytes_total)
        except BaseException:
            if self.checkpoint is not None and self.state.position.row == 0:
                checkpoints.remove(self.checkpoint)  # nothing was imported: the file may be corrected and tried again
            elif saved != self.state.position:
                self._save()
            raise
        if self.checkpoint is not None:
            checkpoints.remove(self.checkpoint)

    def _save(self) -> None:
        if self.checkpoint is not None:
            checkpoints.save(self.checkpoint, self.state)

    def _take(self, batch: RowBatch) -> None:
        state = self.state
        if batch.bad and self.on_error == "stop":
            raise self._stopped(batch.bad[0])
        rejected = list(batch.bad)
        replaced = _drop_replaced(batch)
        request_id = f"import-{state.run}-{batch.start.row}-{batch.end.row}"
        sent = self._send(batch, 0, len(batch.ids), request_id, rejected)
        # Only now, all together: an error above leaves the account at the last batch.
        rejected.sort(key=lambda bad: bad.row)
        state.rows += sent
        state.batches += 1
        state.replaced += replaced
        state.skipped += len(rejected)
        state.errors += rejected[: TRANSFER_ERRORS_KEPT_MAX - len(state.errors)]
        state.position = batch.end

    def _send(self, batch: RowBatch, low: int, high: int, request_id: str, rejected: list[BadRow]) -> int:
        """Rows low..high-1 of the batch; how many were acknowledged. A refusal is narrowed down to the rows it is about."""
        if low == high:
            return 0
        try:
            self.sink.upsert(
                batch.ids[low:high], batch.vectors[low:high], batch.metadata[low:high], request_id=request_id
            )
            return high - low
        except JadeError as error:
            if error.code not in _ROW_ERRORS:
                raise
            if self.on_error == "stop":
                raise self._refused(batch, low, high, error) from error
            if high - low == 1:
                rejected.append(BadRow(batch.rows[low], batch.lines[low], "", error.message, error.code))
                return 0
        middle = (low + high) // 2
        return sum(
            self._send(batch, start, end, f"{request_id}-{start}-{end}", rejected)
            for start, end in ((low, middle), (middle, high))
        )

    def _stopped(self, bad: BadRow) -> JadeError:
        return JadeError(
            ErrorCode(bad.code),
            f"{self.path}, {bad}. {self.state.rows} rows before were imported. To leave such rows out: on_error='skip'.",
            details={"file": str(self.path), "row": bad.row, "line": bad.line, "field": bad.field},
        )

    def _refused(self, batch: RowBatch, low: int, high: int, error: JadeError) -> JadeError:
        first, last = batch.rows[low], batch.rows[high - 1]
        return JadeError(
            error.code,
            f"{self.path}, rows {first} to {last} were refused: {error.message} {self.state.rows} rows before were imported. "
            "To leave such rows out: on_error='skip'.",
            details={**error.details, "file": str(self.path), "row_first": first, "row_last": last},
        )


def _drop_replaced(batch: RowBatch) -> int:
    """Of rows with the same id only the last is kept, as if they were sent one by one; how many went."""
    last = {name: at for at, name in enumerate(batch.ids)}
    gone = len(batch.ids) - len(last)
    if gone:
        keep(batch, sorted(last.values()))
    return gone
