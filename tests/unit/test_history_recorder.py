"""A recorder loses nothing that it was told, whoever dies; files of several are one history; what is no history is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.history_model import StepClock, model_history

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.sim.history import Answer, Fate, History, Invocation, Kind, Level, Refused, Seen
from jadevectordb.sim.recorder import Recorder, fate_of_error, read_history

WRITER = """
import sys, time
from pathlib import Path
from jadevectordb.sim.history import Level
from jadevectordb.sim.recorder import Recorder
recorder = Recorder(time.monotonic, Path(sys.argv[1]), name="dying")
n = 0
while True:
    op = recorder.write("p", Level.QUORUM, [f"k{n}"], [f"v{n}"], shards=[0])
    recorder.ok(op, sequences={0: n + 1})
    n += 1
    print(n, flush=True)
"""


def test_a_killed_recorder_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = 0
    while told < 500:
        told = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout.read().splitlines())])
    child.wait()
    child.stdout.close()
    operations = read_history(path).operations
    assert sum(o.fate is Fate.OK for o in operations) >= told


def test_a_file_is_read_while_it_grows_and_half_a_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(StepClock(), path, name="a")
    op = recorder.write("p", Level.QUORUM, ["k"], ["v"], shards=[0])
    assert [o.fate for o in recorder.history().operations] == [Fate.UNKNOWN]
    recorder.ok(op, sequences={0: 1}, seen=())
    assert [o.fate for o in recorder.history().operations] == [Fate.OK]
    recorder.close()
    with path.open("ab") as file:
        file.write(b'{"event":"call","op":"a:2","time')
    assert len(read_history(path).operations) == 1


def test_a_recorder_goes_on_where_a_killed_one_stopped(tmp_path: Path) -> None:
    path, clock = tmp_path / "history.jsonl", StepClock()
    first = Recorder(clock, path, name="a")
    first.read("p", Level.STRONG, ["k"])
    first.close()
    with path.open("ab") as file:
        file.write(b'{"event":"answ')
    second = Recorder(clock, path, name="a")
    second.read("p", Level.STRONG, ["k"])
    second.close()
    assert [o.name for o in read_history(path).operations] == ["a:0", "a:1"]


def test_what_is_read_is_what_was_told(tmp_path: Path) -> None:
    history = model_history(7)
    path = tmp_path / "history.jsonl"
    recorder = Recorder(StepClock(), path)
    for event in history.events:
        recorder._record(lambda _, __, event=event: event)  # type: ignore[misc]
    recorder.close()
    assert read_history(path).events == history.events


def test_files_of_several_recorders_are_one_history(tmp_path: Path) -> None:
    clock = StepClock()
    recorders = [Recorder(clock, tmp_path / f"{name}.jsonl", name=name) for name in "ab"]
    write = recorders[0].write("p", Level.QUORUM, ["k"], ["v"], shards=[0])
    read = recorders[1].read("q", Level.STRONG, ["k"])
    recorders[0].ok(write, sequences={0: 1})
    recorders[1].ok(read, seen=[Seen("k", "v", 1)])
    for recorder in recorders:
        recorder.close()
    history = read_history(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [(type(e).__name__, e.op) for e in history.events if isinstance(e, (Invocation, Answer))] == [
        ("Invocation", "a:0"),
        ("Invocation", "b:0"),
        ("Answer", "a:0"),
        ("Answer", "b:0"),
    ]


def test_threads_record_together(tmp_path: Path) -> None:
    recorder = Recorder(StepClock(), tmp_path / "history.jsonl")

    def work(name: str) -> None:
        for n in range(200):
            op = recorder.write(name, Level.QUORUM, [f"{name}-{n}"], ["v"], shards=[0])
            recorder.ok(op)

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = recorder.history()
    recorder.close()
    assert len(history.operations) == 800
    assert all(o.fate is Fate.OK for o in history.operations)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(StepClock(), path)
    recorder.read("p", Level.STRONG, ["k"])
    recorder.read("p", Level.STRONG, ["k"])
    recorder.close()
    damaged = path.read_bytes().replace(b'"call"', b'"cell"', 1)
    path.write_bytes(damaged)
    with pytest.raises(JadeError, match="Line 1 of the history") as raised:
        read_history(path)
    assert raised.value.code is ErrorCode.CORRUPT


def test_a_closed_recorder_takes_nothing(tmp_path: Path) -> None:
    recorder = Recorder(StepClock(), tmp_path / "history.jsonl")
    recorder.close()
    with pytest.raises(JadeError, match="closed"):
        recorder.settled()


def _call(op: str, time_s: float, **more: object) -> Invocation:
    return Invocation(op=op, time_s=time_s, process="p", kind=Kind.WRITE, level=Level.QUORUM, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([_call("a", 2.0), _call("b", 1.0)], "1.000000 s older"),
        ([_call("a", 1.0), _call("a", 2.0)], "called twice"),
        ([Answer(op="a", time_s=1.0, fate=Fate.OK)], "answered before it was called"),
        ([_call("a", 1.0), *[Answer(op="a", time_s=2.0, fate=Fate.OK)] * 2], "answered twice"),
        ([_call("a", 1.0, ids=("k", "j"), values=("v",))], "2 ids and 1 values"),
        ([_call("a", 1.0, ids=("k", "k"), values=("v", "w"))], "names an id twice"),
    ],
)
def test_what_is_no_history_is_refused(events: list[Invocation | Answer], why: str) -> None:
    with pytest.raises(JadeError, match=why) as raised:
        History(events)
    assert raised.value.code is ErrorCode.CORRUPT


def test_what_an_error_says_about_a_write() -> None:
    assert fate_of_error(JadeError(ErrorCode.TIMEOUT, "")) is Fate.UNKNOWN
    assert fate_of_error(JadeError(ErrorCode.UNAVAILABLE, "")) is Fate.UNKNOWN
    assert fate_of_error(JadeError(ErrorCode.UNAVAILABLE, "", details={"undecided": False})) is Fate.FAILED
    assert fate_of_error(JadeError(ErrorCode.DISK_FULL, "", details={"undecided": True})) is Fate.UNKNOWN
    assert fate_of_error(JadeError(ErrorCode.DIMENSION_MISMATCH, "")) is Fate.FAILED
    recorder = Recorder(StepClock())
    op = recorder.write("p", Level.QUORUM, ["k"], ["v"], if_version=[3], shards=[0])
    conflict = JadeError(ErrorCode.VERSION_CONFLICT, "", details={"id": "k", "expected": 3, "actual": 5})
    recorder.raised(op, conflict)
    assert recorder.history().operations[0].refusal == Refused("k", 3, 5)
