"""Bulk upserts: any number of rows in batches, several on their way at once, with a memory of how far it came.

`Upload` cuts rows into batches and keeps account; it sends nothing. The order of rows with the same id is kept: within a batch
the last one counts, and a batch that shares an id with one on its way waits for it.

The resume file names the run, whose batches carry request ids made of it, and how many rows from the first on are acknowledged
without a gap. What was acknowledged beyond that is sent again after an interruption, under the same request ids. A running hash
of the ids tells whether the rows are the same ones; if not, the upload is refused before anything is sent.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.client.database_calls import DatabaseCalls
from jadevectordb.client.raw import rows_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import BULK_BATCH_BYTES_MAX

RowLike = Sequence[Any] | Mapping[str, Any]
_ROWS_CHECKED = 64  # rows turned into numbers and JSON at a time
_KEYS = ("id", "vector", "metadata")


@dataclass(frozen=True, slots=True)
class BulkReport:
    """rows: read from the iterable and acknowledged, earlier runs included. replaced: of these, not sent, because a later row of
    the same batch has the same id. rows_before: acknowledged by earlier runs. seconds: of this run.
    """

    rows: int
    batches: int
    replaced: int
    rows_before: int
    seconds: float


@dataclass(slots=True)
class Batch:
    """first: place of its first row in the iterable. rows: how many it was cut from; ids may be fewer. digest: of all ids up to
    its end.
    """

    first: int
    rows: int
    ids: list[str]
    vectors: npt.NDArray[np.float32]
    metadata: list[bytes]
    request_id: str
    digest: str


class ResumeState(msgspec.Struct):
    run: str
    database: str
    batch_rows: int
    rows_done: int = 0
    digest: str = ""
    format: int = 1


class Upload:
    """The account of one bulk upsert. Not thread-safe: one thread reads rows and books what was acknowledged."""

    def __init__(
        self,
        rows: Iterable[RowLike],
        calls: DatabaseCalls,
        batch_rows: int,
        resume: Path | None,
        on_rows: Callable[[int], None],
    ) -> None:
        self._rows = iter(rows)
        self._calls = calls
        self._resume = resume
        self._on_rows = on_rows
        self._started = time.perf_counter()
        self._hash = hashlib.blake2b(digest_size=16)
        self._acknowledged: dict[int, Batch] = {}  # beyond the gapless beginning
        self._ids_on_way: dict[str, int] = {}
        self._position = 0
        self.batches = self.replaced = 0
        self.state = _loaded(resume, calls.key, batch_rows) or ResumeState(os.urandom(8).hex(), calls.key, batch_rows)
        self.rows_before = self.state.rows_done

    @property
    def to_skip(self) -> int:
        """Rows that an earlier run has written and that are still to be passed over."""
        return max(0, self.rows_before - self._position)

    def skip(self, count: int) -> None:
        """Pass over so many rows of an earlier run; in the end they must be what they were."""
        for _ in range(count):
            row = next(self._rows, None)
            if row is None:
                raise self._other_rows(f"they end after {self._position}")
            self._add(_parts(row, self._position)[0])
        self._on_rows(count)
        if not self.to_skip and self._hash.hexdigest() != self.state.digest:
            raise self._other_rows("their ids are others")

    def _add(self, vector_id: str) -> None:
        self._hash.update(vector_id.encode(errors="surrogatepass") + b"\0")
        self._position += 1

    def _other_rows(self, why: str) -> JadeError:
        return JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"The upload can't go on: {self._resume} says {self.rows_before} rows were written, but these are not the same rows "
            f"({why}). Give the same rows, or remove the file to begin anew.",
            details={"file": str(self._resume)},
        )

    def batch(self) -> Batch | None:
        """The next batch; None at the end."""
        first = self._position
        ids: list[str] = []
        blocks: list[npt.NDArray[np.float32]] = []
        metadata: list[bytes] = []
        size = 0
        while len(ids) < self.state.batch_rows and size < BULK_BATCH_BYTES_MAX:
            some = self._some(min(_ROWS_CHECKED, self.state.batch_rows - len(ids)))
            if not some:
                break
            names, block, encoded = some
            ids += names
            blocks.append(block)
            metadata += encoded
            size += block.nbytes + sum(map(len, encoded))
        if not ids:
            return None
        vectors = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
        request_id = f"bulk-{self.state.run}-{first}"
        if self._resume is not None:  # rows that were changed before going on are not taken for a repetition
            content = hashlib.blake2b(vectors.data, digest_size=8)
            content.update(b"\0".join(metadata))
            request_id += f"-{self._hash.hexdigest()[:16]}-{content.hexdigest()}"
        batch = Batch(first, len(ids), ids, vectors, metadata, request_id, self._hash.hexdigest())
        _drop_replaced(batch)
        return batch

    def _some(self, count: int) -> tuple[list[str], npt.NDArray[np.float32], list[bytes]] | None:
        """A few rows, checked. Errors name the row's place in the iterable."""
        from jadevectordb.model.schema_encode import encode_metadata  # loads the regular expressions

        first, rows = self._position, []
        for row in self._rows:
            parts = _parts(row, self._position)
            rows.append(parts)
            self._add(parts[0])
            if len(rows) == count:
                break
        if not rows:
            return None
        try:
            vectors = self._matrix([row[1] for row in rows])
            return [row[0] for row in rows], vectors, encode_metadata([row[2] for row in rows])
        except JadeError as error:
            place = first + error.details.get("row", 0)
            raise JadeError(
                error.code, f"Row {place} can't be written: {error.message}", details={"row": place}
            ) from error

    def _matrix(self, vectors: list[Any]) -> npt.NDArray[np.float32]:
        return rows_of(vectors, self._calls.dimension, self._calls.metric)

    # What is on its way

    def must_wait(self, batch: Batch) -> bool:
        """It shares an id with a batch on its way, which must arrive first."""
        return not self._ids_on_way.keys().isdisjoint(batch.ids)

    def sent(self, batch: Batch) -> None:
        for vector_id in batch.ids:
            self._ids_on_way[vector_id] = batch.first

    def acknowledged(self, batch: Batch) -> None:
        for vector_id in batch.ids:
            del self._ids_on_way[vector_id]
        self.batches += 1
        self.replaced += batch.rows - len(batch.ids)
        self._on_rows(batch.rows)
        self._acknowledged[batch.first] = batch
        moved = False
        while (done := self._acknowledged.pop(self.state.rows_done, None)) is not None:
            self.state.rows_done = done.first + done.rows
            self.state.digest = done.digest
            moved = True
        if moved and self._resume is not None:
            _save(self._resume, self.state)

    def failed(self, error: JadeError) -> JadeError:
        """The error with what was done so far."""
        done = self.state.rows_done
        go_on = "" if self._resume is None else f" Call it again with resume={str(self._resume)!r} to go on."
        return JadeError(
            error.code,
            f"{error.message} The first {done} rows were written.{go_on}",
            details={**error.details, "rows_done": done},
        )

    def finish(self) -> None:
        if self._resume is not None:
            self._resume.unlink(missing_ok=True)

    def report(self) -> BulkReport:
        seconds = time.perf_counter() - self._started
        return BulkReport(self.state.rows_done, self.batches, self.replaced, self.rows_before, seconds)


def _parts(row: RowLike, place: int) -> tuple[str, Any, Any]:
    """(id, vector, metadata) of what a caller gives for a row."""
    if isinstance(row, Mapping):
        unknown = [key for key in row if key not in _KEYS]
        if unknown or "id" not in row or "vector" not in row:
            keys = ", ".join(map(str, row))
            raise _bad_row(place, f"a dict has the keys id, vector and perhaps metadata, this one has {keys:.200}")
        vector_id, vector, metadata = row["id"], row["vector"], row.get("metadata")
    elif isinstance(row, Sequence) and not isinstance(row, str | bytes) and len(row) in (2, 3):
        vector_id, vector, metadata = row[0], row[1], row[2] if len(row) == 3 else None
    else:
        raise _bad_row(place, f"it must be (id, vector), (id, vector, metadata) or a dict, not {type(row).__name__}")
    if not isinstance(vector_id, str):
        raise _bad_row(place, f"its id is a {type(vector_id).__name__}: ids are strings, write str(id)")
    return vector_id, vector, metadata


def _bad_row(place: int, why: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, f"Row {place} can't be written: {why}.", details={"row": place})


def _drop_replaced(batch: Batch) -> None:
    """Of rows with the same id only the last is kept, as if they were sent one by one."""
    last = {vector_id: at for at, vector_id in enumerate(batch.ids)}
    if len(last) < len(batch.ids):
        kept = sorted(last.values())
        batch.ids = [batch.ids[at] for at in kept]
        batch.vectors = np.ascontiguousarray(batch.vectors[kept])
        batch.metadata = [batch.metadata[at] for at in kept]


def _loaded(path: Path | None, database: str, batch_rows: int) -> ResumeState | None:
    if path is None:
        return None
    try:
        state = msgspec.json.decode(path.read_bytes(), type=ResumeState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{path} can't be read as a resume file ({error}): name another file, or remove it.",
        ) from None
    if (state.database, state.batch_rows, state.format) != (database, batch_rows, 1):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{path} belongs to an upload to database {state.database} in batches of {state.batch_rows} rows: go on with the same, "
            "or remove the file to begin anew.",
            details={"file": str(path)},
        )
    return state


def _save(path: Path, state: ResumeState) -> None:
    """Replace the file as a whole, durable on return."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise JadeError(ErrorCode.IO_ERROR, f"The resume file {path} can't be written ({error.strerror}).") from error
