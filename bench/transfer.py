"""Import and export rates by format: how many rows a second the files alone allow, without a database behind.

    .venv/bin/python bench/transfer.py [--rows 50000] [--dimension 128]

The sink drops what it gets and the source has everything in memory, so this is the cost of reading, checking and writing files. One
thread, CPU seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from jadevectordb.transfer import export_file, import_file


class Nothing:
    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def upsert(self, ids: list[str], vectors: Any, metadata: list[bytes], *, request_id: str = "") -> None:
        assert len(ids) == len(vectors) == len(metadata)


class Everything:
    def __init__(self, vectors: Any) -> None:
        self.dimension = vectors.shape[1]
        self._items = [
            SimpleNamespace(
                id=f"v{n}", vector=row, metadata={"topic": f"t{n % 20}", "year": 1900 + n % 120, "text": "some words"}
            )
            for n, row in enumerate(vectors)
        ]

    def scroll(self, limit: int, cursor: str | None, filter: Any) -> Any:
        start = int(cursor or 0)
        end = start + limit
        return SimpleNamespace(items=self._items[start:end], cursor=str(end) if end < len(self._items) else None)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=50_000)
    arguments.add_argument("--dimension", type=int, default=128)
    options = arguments.parse_args()
    vectors = np.random.default_rng(1).standard_normal((options.rows, options.dimension)).astype(np.float32)
    source, sink = Everything(vectors), Nothing(options.dimension)
    print(f"{options.rows} x {options.dimension}: rows a CPU-second     export     import        MB")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("x.jsonl", "x.jsonl.gz", "x.csv", "x.parquet", "x.npy", "x.fvecs"):
            path = Path(folder, name)
            start = time.process_time()
            size = export_file(source, path).bytes
            written = time.process_time() - start
            start = time.process_time()
            assert import_file(sink, path).rows == options.rows
            read = time.process_time() - start
            print(f"  {name:<38}{options.rows / written:>10,.0f} {options.rows / read:>10,.0f} {size / 1e6:>9.1f}")


if __name__ == "__main__":
    main()
