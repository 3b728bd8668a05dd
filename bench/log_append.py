"""How fast the log takes durable batches: `python bench/log_append.py [--seconds 5] [--folder DIR]`.

Appends batches of 1000 x 100 float32 with small documents. Disks and shared machines are noisy, so one caller is measured
against a floor, the same bytes written and synced in a bare loop, in turns, append by append: the ratio of the medians is
what the log costs. Four callers are measured for throughput, beside one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.os_disk import sync_data
from jadevectordb.log.entry import decode, encode
from jadevectordb.model.operations import Entry, Write

ROWS, DIMENSION = 1000, 100


def batch() -> Entry:
    rng = np.random.default_rng(7)
    documents = [b'{"pos":"noun","n":%d,"title":"a short text"}' % n for n in range(ROWS)]
    vectors = rng.standard_normal((ROWS, DIMENSION), np.float32)
    return Entry(Write([f"vector-{n}" for n in range(ROWS)], vectors, documents), 1)


def in_turns(folder: Path, entry: Entry, data: bytes, seconds: float) -> None:
    """One append, one bare write, and so on; prints the medians of both and their ratio."""
    log = LocalLog(folder / "log")
    fd = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    wall: list[list[float]] = [[], []]
    cpu = [0.0, 0.0]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for place in (0, 1):
            start, cpu_start = time.perf_counter(), time.process_time()
            if place == 0:
                log.append([(0, entry)])
            else:
                os.write(fd, data)
                sync_data(fd)
            wall[place].append((time.perf_counter() - start) * 1000)
            cpu[place] += time.process_time() - cpu_start
    os.close(fd)
    log.close()
    medians = [statistics.median(times) for times in wall]
    for name, times, spent in zip(("LocalLog", "write + fdatasync"), wall, cpu, strict=True):
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"{name:18} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   CPU {spent / len(times) * 1000:5.2f} ms an append")
    print(f"the log costs {medians[0] / medians[1]:.2f} times the bare write\n")


def throughput(folder: Path, entry: Entry, megabytes: float, seconds: float, callers: int) -> None:
    path = folder / f"log-{callers}"
    log = LocalLog(path)
    counts = [0] * callers
    start, cpu = time.perf_counter(), time.process_time()

    def caller(own: int) -> None:
        while time.perf_counter() - start < seconds:
            log.append([(0, entry)])
            counts[own] += 1

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    count = sum(counts)
    log.close()
    shutil.rmtree(path)
    print(
        f"{callers:2} caller(s): {count / elapsed:6.0f} appends/s   {count * megabytes / elapsed:5.0f} MB/s   "
        f"{count * ROWS / elapsed / 1000:5.0f}k vectors/s   {count / log.sync_count:4.1f} appends a sync   "
        f"CPU {cpu / count * 1000:5.2f} ms an append"
    )


def codec_us(entry: Entry) -> tuple[float, float]:
    """Best of several: microseconds to encode and to decode one batch."""
    data = encode(entry)
    best = [1e9, 1e9]
    for _ in range(30):
        for place, run in enumerate((lambda: encode(entry), lambda: decode(data))):
            start = time.perf_counter()
            for _ in range(20):
                run()
            best[place] = min(best[place], (time.perf_counter() - start) / 20 * 1e6)
    return best[0], best[1]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("--seconds", type=float, default=5.0, help="for each measurement")
    arguments.add_argument("--folder", type=Path, help="on the disk to measure; default: the system's temporary folder")
    options = arguments.parse_args()
    entry = batch()
    data = encode(entry)
    megabytes = len(data) / 1e6
    encode_us, decode_us = codec_us(entry)
    print(
        f"a batch of {ROWS} x {DIMENSION}: {megabytes:.2f} MB; encode {encode_us:.0f} us, decode {decode_us:.0f} us\n"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        in_turns(Path(name), entry, data, options.seconds)
        for callers in (1, 4, 1, 4):
            throughput(Path(name), entry, megabytes, options.seconds / 2, callers)


if __name__ == "__main__":
    main()
