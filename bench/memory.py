"""Memory of a server as it grows: proportional set size (PSS) of all its processes after 100,000 vectors and after all of them.

    .venv/bin/python bench/memory.py [--first 100000]

PSS counts a page that several processes share once, and counts pages of mapped files that are in memory, which the system may
drop when it needs the room. Beside it: the part that is private to the processes. Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import jadevectordb as jade
from datasets import glove
from serving import start

MIB = 1 << 20


def processes_of(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += processes_of(int(child))
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """(PSS, its private part) in bytes of a process and its children."""
    total = private = 0
    for process in processes_of(pid):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        values = {name: int(value.split()[0]) << 10 for name, _, value in (line.partition(":") for line in lines[1:])}
        total += values["Pss"]
        private += values["Pss_Anon"]
    return total, private


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--first", type=int, default=100_000)
    first: int = arguments.parse_args().first
    if sys.platform != "linux":
        sys.exit("This reads /proc: Linux only.")
    data = glove(None)
    rows = data.train
    seen: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        process, rest, _ = start(Path(folder))
        try:
            empty, _ = memory_of(process.pid)
            print(f"empty server: {empty / MIB:.0f} MiB")
            with jade.Client(f"http://{rest}") as client:
                database = client.create_database("bench", dimension=rows.shape[1])
                for until in (first, len(rows)):
                    for at in range(seen[-1][0] if seen else 0, until, 1000):
                        ids = range(at, min(at + 1000, until))
                        database.upsert([str(i) for i in ids], rows[ids.start : ids.stop])
                    database.wait_indexed(600)
                    for query in data.queries:
                        database.search(query, k=10)
                    total, private = memory_of(process.pid)
                    seen.append((until, total))
                    print(f"{until} vectors, searched: {total / MIB:.0f} MiB, {private / MIB:.0f} of them private")
        finally:
            process.terminate()
            process.wait()
    (few, less), (many, more) = seen
    print(f"growth: {(more - less) / (many - few):.0f} bytes a vector")


if __name__ == "__main__":
    main()
