"""`make bench`: every speed and memory promise of the engine, measured in one run on this machine.

    python bench/run.py [--quick] [--only search,recall,filters,writing,million] [--out bench/out/results.json]

One thread, CPU seconds of that thread, rivals interleaved in the same run: compare ratios. --quick leaves out 340k beside
HNSW (its build alone takes minutes) and takes 200k instead of a million generated rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", str(os.cpu_count() or 1))

import datasets
import sections

OUT = Path(__file__).parent / "out"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--only", default="search,recall,filters,writing,million")
    options.add_argument("--out", type=Path, default=OUT / "results.json")
    chosen = options.parse_args()
    wanted = set(chosen.only.split(","))
    threads = os.cpu_count() or 1
    scratch = Path(tempfile.mkdtemp(prefix="jade-bench-", dir=OUT.parent))
    report: dict[str, list[dict[str, Any]]] = {}

    def show(section: str, rows: list[dict[str, Any]]) -> None:
        report.setdefault(section, []).extend(rows)
        print(f"\n## {section}")
        for row in rows:
            print("  " + "   ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
        chosen.out.parent.mkdir(exist_ok=True)
        chosen.out.write_text(json.dumps(report, indent=1))

    print(f"{platform.processor() or platform.machine()}, {threads} cores, Python {platform.python_version()}")
    try:
        if wanted & {"search", "recall", "writing", "filters"}:
            _glove(wanted, chosen.quick, threads, scratch, show)
        if wanted & {"search", "recall"}:
            data = datasets.wordnet()
            store, database, ingest = sections.load(scratch / "store", data)
            show("ingest", [ingest])
            if "search" in wanted:
                show("search", sections.searching(database, data, threads, rivals=True))
            if "recall" in wanted:
                show("recall", sections.promised_recall(database, data))
            store.close()
        if "million" in wanted:
            _million(chosen.quick, scratch, show)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _glove(wanted: set[str], quick: bool, threads: int, scratch: Path, show: Any) -> None:
    for size in (100_000, None):
        data = datasets.glove(size)
        store, database, ingest = sections.load(scratch / "store", data)
        show("ingest", [ingest])
        if "search" in wanted:
            show("search", sections.searching(database, data, threads, rivals=not (quick and size is None)))
        if "recall" in wanted:
            show("recall", sections.promised_recall(database, data))
        if "writing" in wanted and size is None:
            show("search while writing", sections.while_writing(database, data, data.train[:100_000]))
        store.close()
        if size is None:
            show("open", sections.opening(scratch / "store", data))
            if "filters" in wanted:
                show("filters", sections.filters(scratch / "filtered", data))


def _million(quick: bool, scratch: Path, show: Any) -> None:
    data = datasets.million(200_000 if quick else 1_000_000)
    store, database, ingest = sections.load(scratch / "store", data)
    show("ingest", [ingest])
    show("latency", sections.latency(database, data))
    store.close()
    show("open", sections.opening(scratch / "store", data))


if __name__ == "__main__":
    main()
