"""Imports that are killed with kill -9 again and again, changed files, and the memory a large import takes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import jadevectordb as jade
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.transfer import import_file

ROWS = 3000
AHEAD = 10  # batches

# A database of one file: a line a request, durable before it is acknowledged; a request id it knows changes nothing.
CHILD = """
import json, os, sys
from jadevectordb.transfer import import_file

class FileSink:
    dimension = 4
    def __init__(self, path):
        self.known = set()
        if os.path.exists(path):
            for line in open(path):
                if line.endswith("\\n"):
                    self.known.add(json.loads(line)["request"])
        self.file = open(path, "a")
    def upsert(self, ids, vectors, metadata, *, request_id=""):
        if request_id not in self.known:
            self.known.add(request_id)
            rows = [[i, v, json.loads(m)] for i, v, m in zip(ids, vectors.tolist(), metadata)]
            print("applying", flush=True)
            self.file.write(json.dumps({"request": request_id, "rows": rows}) + "\\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        print("applied", flush=True)

source, log, checkpoint = sys.argv[1:]
report = import_file(FileSink(log), source, batch_rows=50, checkpoint=checkpoint, on_error="skip",
                     on_progress=lambda *now: (print("progress", flush=True), os.read(0, 1)))
print("report", json.dumps([report.rows, report.batches, report.skipped, len(report.errors), report.rows_before]), flush=True)
"""


def make(folder: Path, name: str) -> Path:
    path = folder / name
    vectors = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4)
    if "json" in name:
        rows = [json.dumps({"id": f"v{n}", "vector": vectors[n].tolist(), "metadata": {"n": n}}) for n in range(ROWS)]
        text = "".join(f"{'bad' if n % 1000 == 999 else row}\n" for n, row in enumerate(rows)).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    elif "csv" in name:
        text = "".join(f'v{n},{" ".join(map(str, vectors[n].tolist()))},{n},"a\nb"\n' for n in range(ROWS))
        path.write_text("id,vector,n,t\n" + text)
    elif "parquet" in name:
        table = pyarrow.table(
            {"id": [f"v{n}" for n in range(ROWS)], "vector": vectors.tolist(), "n": list(range(ROWS))}
        )
        parquet.write_table(table, path, row_group_size=730)
    else:
        np.save(path, vectors)
        Path(f"{path}.ids").write_text("".join(f"v{n}\n" for n in range(ROWS)))
    return path


def whole_lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv", "x.parquet", "x.npy"])
def test_no_row_is_lost_or_applied_twice_however_often_the_import_is_killed(tmp_path: Path, name: str) -> None:
    source, log, checkpoint = make(tmp_path, name), tmp_path / "log", tmp_path / "checkpoint"
    log.touch()
    generator = random.Random(name)
    kills = 0
    while True:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(source), str(log), str(checkpoint)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        with child, child.stdout:
            lines_until_the_end = generator.randrange(1, 60) if kills < 3 else 1 << 30
            # It may be some batches ahead of what was read, and never at its end when it is to be killed
            child.stdin.write("." * AHEAD)
            child.stdin.flush()
            for _ in range(lines_until_the_end):
                line = child.stdout.readline()
                if line.startswith("progress"):
                    with contextlib.suppress(BrokenPipeError):  # it has ended
                        child.stdin.write(".")
                        child.stdin.flush()
                if not line or line.startswith("report"):
                    break
            else:
                child.kill()  # kill -9, wherever it is now
                kills += 1
                continue
        if not line.startswith("report"):
            continue
        assert child.returncode == 0
        break
    assert kills >= 2 and not checkpoint.exists()
    rows = [row for request in whole_lines(log) for row in request["rows"]]
    expected = [n for n in range(ROWS) if not ("json" in name and n % 1000 == 999)]
    assert sorted(int(row[0][1:]) for row in rows) == expected, "every row once"
    for row_id, vector, metadata in rows:
        n = int(row_id[1:])
        assert vector == [n * 4.0, n * 4 + 1, n * 4 + 2, n * 4 + 3]
        assert metadata == ({} if "npy" in name else {"n": n, "t": "a\nb"} if "csv" in name else {"n": n})
    skipped = ROWS - len(expected)
    imported, _, report_skipped, errors, before = json.loads(line.split(maxsplit=1)[1])
    assert (imported, report_skipped, errors) == (len(expected), skipped, skipped)
    assert 0 < before <= imported


DATABASE_CHILD = """
import sys
import jadevectordb as jade
from jadevectordb.transfer import import_file

if __name__ == "__main__":
    folder, source = sys.argv[1:]
    with jade.open(folder) as store:
        database = store.database("x") if "x" in store.databases() else store.create_database("x", dimension=4, metric="euclidean")
        report = import_file(database, source, batch_rows=50, checkpoint=folder + "/import.checkpoint",
                             on_progress=lambda *now: print("progress", flush=True))
        print("report", report.rows, flush=True)
"""


def test_a_real_database_killed_while_importing_ends_up_with_every_row_once(tmp_path: Path) -> None:
    source, folder, program = make(tmp_path, "x.parquet"), tmp_path / "store", tmp_path / "child.py"
    program.write_text(DATABASE_CHILD)
    generator = random.Random(3)
    kills = 0
    line = ""
    while not line.startswith("report"):
        with subprocess.Popen([sys.executable, program, folder, source], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(generator.randrange(1, 20) if kills < 3 else 1 << 30):
                line = child.stdout.readline()
                if not line or line.startswith("report"):
                    break
            else:
                child.kill()
                kills += 1
                continue
        assert child.returncode == 0
    assert kills == 3 and line.split() == ["report", str(ROWS)]
    with jade.open(folder) as store:
        database = store.database("x")
        assert database.count() == ROWS
        for item in database.items():
            n = int(item.id[1:])
            assert item.vector.tolist() == [n * 4, n * 4 + 1, n * 4 + 2, n * 4 + 3] and item.metadata == {"n": n}


class Stubborn:
    """Refuses to go on after a number of batches."""

    dimension = 4

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.requests: list[str] = []

    def upsert(self, ids: list[str], vectors: Any, metadata: list[bytes], *, request_id: str = "") -> None:
        if self.left == 0:
            raise JadeError(ErrorCode.DISK_FULL, "No space.")
        self.left -= 1
        self.requests.append(request_id)


def interrupted(source: Path, checkpoint: Path, batches: int = 5) -> Stubborn:
    sink = Stubborn(batches)
    with pytest.raises(JadeError, match="No space"):
        import_file(sink, source, batch_rows=100, checkpoint=checkpoint)
    return sink


def test_an_error_keeps_what_was_acknowledged_and_only_that(tmp_path: Path) -> None:
    source, checkpoint = make(tmp_path, "x.npy"), tmp_path / "checkpoint"
    first = interrupted(source, checkpoint)
    second = Stubborn(100)
    report = import_file(second, source, batch_rows=100, checkpoint=checkpoint)
    assert (report.rows, report.rows_before, report.batches) == (ROWS, 500, 30)
    assert len(first.requests) == 5 and len(second.requests) == 25
    assert not checkpoint.exists()


def test_an_import_of_the_same_file_later_is_another_one(tmp_path: Path) -> None:
    source, checkpoint = make(tmp_path, "x.npy"), tmp_path / "checkpoint"
    first, second, third = Stubborn(100), Stubborn(100), Stubborn(100)
    for sink in (first, second):
        import_file(sink, source, checkpoint=checkpoint)
    interrupted(source, checkpoint)
    assert import_file(third, source, checkpoint=checkpoint, resume=False).rows_before == 0
    assert len({*first.requests, *second.requests, *third.requests}) == 9


def test_an_error_before_anything_was_imported_leaves_nothing_behind(tmp_path: Path) -> None:
    source, checkpoint = make(tmp_path, "x.npy"), tmp_path / "checkpoint"
    interrupted(source, checkpoint, 0)
    assert not checkpoint.exists()


def test_a_changed_file_is_not_gone_on_with(tmp_path: Path) -> None:
    source, checkpoint = make(tmp_path, "x.npy"), tmp_path / "checkpoint"
    ids = Path(f"{source}.ids")
    interrupted(source, checkpoint)

    def must_be_refused(match: str, **options: Any) -> None:
        with pytest.raises(JadeError, match=match) as error:
            import_file(Stubborn(100), source, checkpoint=checkpoint, **options)
        assert error.value.code is ErrorCode.INVALID_ARGUMENT
        assert "resume=False" in str(error.value)

    ids.write_text(ids.read_text().replace("v1", "w1"))
    must_be_refused("file of ids")
    interrupted_at = source.stat()
    content = source.read_bytes()
    source.write_bytes(content + b"x")
    must_be_refused(f"{interrupted_at.st_size} bytes then, {interrupted_at.st_size + 1} now")
    source.write_bytes(content[:-1] + b"\x00")
    must_be_refused("changed since")
    # Even with the old size and time: the beginning of the file is looked at.
    source.write_bytes(content[:200] + b"\x01" + content[201:])
    os.utime(source, ns=(interrupted_at.st_atime_ns, interrupted_at.st_mtime_ns))
    must_be_refused("changed since")


def test_other_columns_are_not_gone_on_with(tmp_path: Path) -> None:
    source, checkpoint = make(tmp_path, "x.jsonl"), tmp_path / "checkpoint"
    interrupted(source, checkpoint)
    with pytest.raises(JadeError, match="other options"):
        import_file(Stubborn(100), source.rename(tmp_path / "x.ndjson"), checkpoint=checkpoint, format="csv")
    # But another batch size, and leaving bad rows out from here on, is fine.
    report = import_file(Stubborn(100), tmp_path / "x.ndjson", checkpoint=checkpoint, batch_rows=70, on_error="skip")
    assert (report.rows, report.rows_before, report.skipped) == (ROWS - 3, 500, 3)


def test_a_checkpoint_that_is_none_is_not_overwritten(tmp_path: Path) -> None:
    source, checkpoint = make(tmp_path, "x.npy"), tmp_path / "checkpoint"
    for content, code in (
        (b"my notes", ErrorCode.CORRUPT),
        (b"{}", ErrorCode.CORRUPT),
        (b'{"format": 1}', ErrorCode.CORRUPT),
        (b'{"format": 99}', ErrorCode.FORMAT_TOO_NEW),
    ):
        checkpoint.write_bytes(content)
        with pytest.raises(JadeError, match="checkpoint") as error:
            import_file(Stubborn(100), source, checkpoint=checkpoint)
        assert error.value.code is code
        assert checkpoint.read_bytes() == content


MEMORY_CHILD = """
import resource, sys
import numpy as np
from jadevectordb.transfer import export_file, import_file

class Discard:
    dimension = 128
    def upsert(self, ids, vectors, metadata, *, request_id=""):
        assert len(ids) == len(vectors)

def peak_mb():
    try:  # of this process alone; ru_maxrss may begin with the parent's
        return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)

small, large = sys.argv[1:]
import_file(Discard(), small)
before = peak_mb()
rows = import_file(Discard(), large).rows
print(rows, peak_mb() - before)
"""


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_array_is_never_in_memory(tmp_path: Path, order: str) -> None:
    """200 MB; of the Fortran order a tenth, for it is read a column at a time."""
    rows = 400_000 if order == "C" else 40_000
    for name, count in (("small.npy", 10), ("large.npy", rows)):
        array = np.lib.format.open_memmap(tmp_path / name, "w+", np.float32, (count, 128), fortran_order=order == "F")
        array[-1] = 1
        array.flush()
    child = subprocess.run(
        [sys.executable, "-c", MEMORY_CHILD, str(tmp_path / "small.npy"), str(tmp_path / "large.npy")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    imported, grown_mb = child.stdout.split()
    assert int(imported) == rows
    assert float(grown_mb) < 50
