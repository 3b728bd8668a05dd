"""The compute port: the same tests for work in this process and in a child; and what only the child promises."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import msgspec
import pytest

from jadevectordb.adapters.child_process import ChildProcess
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.compute import Compute

ECHO = "tests.contract.test_compute_contract:echo"
REFUSE = "tests.contract.test_compute_contract:refuse"
WHERE = "tests.contract.test_compute_contract:where"


def echo(payload: bytes) -> bytes:
    return payload[::-1]


def refuse(payload: bytes) -> bytes:
    raise JadeError(ErrorCode.CORRUPT, "The file is damaged.", details={"path": payload.decode()})


def where(payload: bytes) -> bytes:
    """(process, scheduling policy, cores) of whoever runs this."""
    policy, cores = (os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))) if sys.platform == "linux" else (0, [0])
    return msgspec.msgpack.encode((os.getpid(), policy, cores))


@pytest.fixture(params=[InlineCompute, ChildProcess])
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


def test_the_error_of_a_task_comes_back_as_it_was(compute: Compute) -> None:
    with pytest.raises(JadeError) as caught:
        compute.run(REFUSE, b"a/b", hurried=False)
    assert (caught.value.code, caught.value.message) == (ErrorCode.CORRUPT, "The file is damaged.")
    assert caught.value.details == {"path": "a/b"}
    assert compute.run(ECHO, b"on", hurried=True) == b"no"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the idle scheduling class")
def test_unhurried_work_steps_aside_and_hurried_work_after_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    child = ChildProcess()
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
