"""The process that the demo kills: writes numbered batches and says when each is acknowledged.

Every value it writes follows from the batch's number, so whoever reads the folder afterwards can tell whether a batch is
there, whole, and bit for bit what was sent. The parent learns of an acknowledgement only by the line printed after `upsert`
returned: that line is the promise that the demo holds the database to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import jadevectordb as jade

DATABASE = "batches"
DIMENSION = 384
BATCH_ROWS = 800  # 1.2 MB: more than one log entry holds, so that half of it could be there
SEAL_ROWS = 4000  # small, so that segments are frozen and built while the killing goes on
BATCHES_MAX = 5000  # a writer that nobody kills ends by itself
WRITING, ACKNOWLEDGED = "writing", "acknowledged"


def batch(number: int) -> tuple[list[str], npt.NDArray[np.float32], list[dict[str, Any]]]:
    """ids, vectors (BATCH_ROWS, DIMENSION) and metadata of a batch: the same at every call."""
    vectors = np.random.default_rng(number).standard_normal((BATCH_ROWS, DIMENSION), np.float32)
    ids = [f"batch-{number}-row-{row}" for row in range(BATCH_ROWS)]
    return ids, vectors, [{"batch": number, "row": row} for row in range(BATCH_ROWS)]


def create(folder: Path) -> None:
    """Make the database the writer writes to."""
    with jade.open(folder) as store:
        store.create_database(
            DATABASE, DIMENSION, schema={"batch": "integer", "row": "integer"}, seal_rows=SEAL_ROWS, exist_ok=True
        )


def write(folder: Path, first: int) -> None:
    """Write batches first, first + 1, ... until killed."""
    with jade.open(folder) as store:
        database = store.database(DATABASE)
        for number in range(first, first + BATCHES_MAX):
            ids, vectors, metadata = batch(number)
            print(WRITING, number, flush=True)
            database.upsert(ids, vectors, metadata)
            print(ACKNOWLEDGED, number, flush=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
