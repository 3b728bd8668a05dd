"""A writer is killed (SIGKILL) at random moments, over and over on the same log: every acknowledged frame must be there whole.

The writer appends frames of several entries over two shards, from two threads, with small files and truncations on the
way, and prints each frame's sequences once `append` has returned. What was printed was acknowledged.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.log.entry import encode
from jadevectordb.model.operations import Entry, Write

FILE_BYTES = 100_000

WRITER = """
import hashlib, random, sys, threading
from pathlib import Path
import numpy as np
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.log.entry import encode
from jadevectordb.model.operations import Entry, Write

path, seed = Path(sys.argv[1]), int(sys.argv[2])
log = LocalLog(path, file_bytes=100_000, rotate_bytes_min=1)
lock = threading.Lock()
out = sys.stdout

def say(line):
    with lock:
        out.write(line + "\\n")
        out.flush()

def work(name):
    rng = random.Random(seed * 10 + name)
    for n in range(10**9):
        frame = []
        parts = rng.randint(1, 4)
        for part in range(parts):
            rows = rng.choice([1, 3, 60])
            vectors = np.full((rows, 16), n, np.float32)
            write = Write([f"{seed}.{name}.{n}.{r}" for r in range(rows)], vectors, [b"{}"] * rows)
            entry = Entry(write, n, part=part, parts=parts)
            frame.append((rng.randint(0, 1), entry))
        sequences = log.append(frame)
        say(" ".join(f"{s}:{q}:{hashlib.md5(encode(e)).hexdigest()}" for (s, e), q in zip(frame, sequences)))
        if n % 30 == 29:
            up_to = {shard: max(0, log.last(shard) - 300) for shard in (0, 1)}
            say(f"truncate {up_to[0]} {up_to[1]}")
            log.truncate(up_to)

threading.Thread(target=work, args=(1,), daemon=True).start()
work(0)
"""


def run_until_killed(path: Path, seed: int, after_s: float) -> list[str]:
    """What the writer printed, whole lines only, until it was killed `after_s` after its first acknowledgement."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None and writer.stderr is not None
        first = writer.stdout.readline()
        timer = threading.Timer(after_s, writer.kill)
        timer.start()
        lines = (first + writer.stdout.read()).split("\n")
        errors = writer.stderr.read()
        timer.cancel()
        assert writer.wait() == -9, errors
    return lines[:-1]  # what follows the last newline may be half a line


@pytest.mark.parametrize("seed", [random.SystemRandom().randrange(10**6)])
def test_kill_at_random_moments(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    acknowledged: dict[tuple[int, int], str] = {}
    not_needed = {0: 0, 1: 0}
    for kill in range(15):
        for line in run_until_killed(tmp_path / "log", kill, rng.uniform(0, 0.25)):
            if line.startswith("truncate"):
                for shard, sequence in enumerate(line.split()[1:]):
                    not_needed[shard] = max(not_needed[shard], int(sequence))
                continue
            for one in line.split():
                shard, sequence, digest = one.split(":")
                assert acknowledged.setdefault((int(shard), int(sequence)), digest) == digest
        log = LocalLog(tmp_path / "log", file_bytes=FILE_BYTES)
        found = {}
        for frame in log.read({}):
            for one in frame:
                found[one.shard, one.sequence] = hashlib.md5(encode(one.entry)).hexdigest()
            assert_whole([one.entry for one in frame])
        for shard in (0, 1):
            assert log.first(shard) <= not_needed[shard] + 1
            kept = [sequence for s, sequence in sorted(found) if s == shard]
            assert kept == list(range(log.first(shard), log.last(shard) + 1))
        for place, digest in acknowledged.items():
            assert place[1] < log.first(place[0]) or found[place] == digest, place
        log.close()
        acknowledged.update(found)  # a frame that was durable but not yet acknowledged is there from now on
    assert len(acknowledged) > 100


def assert_whole(entries: list[Entry]) -> None:
    """The writer numbers the entries of each frame and says how many they are."""
    assert [(entry.part, entry.parts) for entry in entries] == [(n, len(entries)) for n in range(len(entries))]
    assert len({entry.time for entry in entries}) == 1
    for entry in entries:
        assert isinstance(entry.operation, Write)
        assert (entry.operation.vectors == entry.time).all()
