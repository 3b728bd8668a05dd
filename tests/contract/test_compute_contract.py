"""The compute port: the same tests for work in this process and in a child; and what only the child promises."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from jadevectordb.adapters.child_process import ChildProcess
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.shared_compute import SharedCompute
from jadevectordb.ports.compute import Compute

ECHO = "tests.contract.test_compute_contract:echo"
REFUSE = "tests.contract.test_compute_contract:refuse"
HANG = "tests.contract.test_compute_contract:hang"
WHERE = "tests.contract.test_compute_contract:where"


def echo(payload: bytes) -> bytes:
    return payload[::-1]


def refuse(payload: bytes) -> bytes:
    raise JadeError(ErrorCode.CORRUPT, "The file is damaged.", details={"path": payload.decode()})


def hang(payload: bytes) -> bytes:
    """Says that it has begun by opening and closing a pipe, then never ends."""
    Path(payload.decode()).write_bytes(b"")
    threading.Event().wait()
    raise AssertionError("unreachable")


def where(payload: bytes) -> bytes:
    """(process, scheduling policy, cores) of whoever runs this."""
    policy, cores = (os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))) if sys.platform == "linux" else (0, [0])
    return msgspec.msgpack.encode((os.getpid(), policy, cores))


def shared() -> Compute:
    return SharedCompute(InlineCompute()).share()


@pytest.fixture(params=[InlineCompute, ChildProcess, shared])
def compute(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compute]:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    make: Callable[[], Compute] = request.param
    made = make()
    yield made
    made.close()


@pytest.mark.parametrize("hurried", [True, False])
def test_a_task_gets_its_bytes_and_gives_its_result(compute: Compute, hurried: bool) -> None:
    assert [compute.run(ECHO, bytes([n, 0, 255]), hurried=hurried) for n in range(3)] == [
        bytes([255, 0, n]) for n in range(3)
    ]


def test_after_a_rest_work_goes_on(compute: Compute) -> None:
    compute.rest()
    for _ in range(2):
        assert compute.run(ECHO, b"ab", hurried=True) == b"ba"
        compute.rest()


def test_the_error_of_a_task_comes_back_as_it_was(compute: Compute) -> None:
    with pytest.raises(JadeError) as caught:
        compute.run(REFUSE, b"a/b", hurried=False)
    assert (caught.value.code, caught.value.message) == (ErrorCode.CORRUPT, "The file is damaged.")
    assert caught.value.details == {"path": "a/b"}
    assert compute.run(ECHO, b"on", hurried=True) == b"no"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the idle scheduling class")
def test_unhurried_work_steps_aside_and_hurried_work_after_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    child = ChildProcess(idle_s=600)
    try:
        runs = [
            msgspec.msgpack.decode(child.run(WHERE, b"", hurried=hurried)) for hurried in (True, False, False, True)
        ]
    finally:
        child.close()
    processes, policies, cores = zip(*runs, strict=True)
    every_core = sorted(os.sched_getaffinity(0))
    assert policies == (os.SCHED_OTHER, os.SCHED_IDLE, os.SCHED_IDLE, os.SCHED_OTHER)
    assert list(cores) == [every_core, every_core[-1:], every_core[-1:], every_core]
    assert processes[0] == processes[1] == processes[2] != processes[3]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when another process has ended")
def test_a_child_without_work_ends_and_the_next_task_gets_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    child = ChildProcess(idle_s=0.2)
    try:
        seen = []
        for _ in range(2):
            process, *_ = msgspec.msgpack.decode(child.run(WHERE, b"", hurried=True))
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                ended = os.pidfd_open(process)
                assert select.select([ended], [], [], 60)[0], "the child did not end"
                os.close(ended)
            seen.append(process)
        assert seen[0] != seen[1]
        assert child.run(ECHO, b"on", hurried=False) == b"no"
    finally:
        child.close()
    for thread in threading.enumerate():
        if thread.name == "jade-build-idle":
            thread.join(60)
            assert not thread.is_alive(), "closing must not leave a thread that waits"


def test_a_child_that_gets_tasks_in_time_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    child = ChildProcess(idle_s=600)
    try:
        assert len({msgspec.msgpack.decode(child.run(WHERE, b"", hurried=True))[0] for _ in range(5)}) == 1
    finally:
        child.close()


def test_interrupting_where_nothing_runs_does_nothing(compute: Compute) -> None:
    compute.interrupt()
    assert compute.run(ECHO, b"on", hurried=True) == b"no"
    compute.interrupt()
    assert compute.run(ECHO, b"on", hurried=False) == b"no"


def test_a_task_that_is_interrupted_is_cut_off_and_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    child = ChildProcess()
    caught: list[JadeError] = []

    def run() -> None:
        try:
            child.run(HANG, str(begun).encode(), hurried=False)
        except JadeError as error:
            caught.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    try:
        begun.read_bytes()  # returns when the task has said that it runs
        child.interrupt()
        worker.join(60)
        assert [error.code for error in caught] == [ErrorCode.CANCELLED]
        assert child.run(ECHO, b"on", hurried=True) == b"no"
    finally:
        child.close()
        worker.join(60)


class ClosedWhenItAnswered(ChildProcess):
    """Somebody closes it between the child's answer and the end of the task."""

    def _end(self) -> tuple[bool, bool]:
        self.close()
        return super()._end()


def test_a_child_that_is_closed_just_when_it_answered_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    child = ClosedWhenItAnswered()
    assert child.run(ECHO, b"abc", hurried=True) == b"cba"  # unclosed pipes would be a warning, which is an error here
    assert child._child is None
