"""Many replicas share one process for their builds: in turn, hurried ones first, and none waits for one that is closed."""

from __future__ import annotations

import threading

import pytest

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.shared_compute import SharedCompute
from jadevectordb.ports.compute import Compute

WAIT_S = 60.0


class Steps:
    """A compute whose tasks end when the test says so, or when they are interrupted."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.begun: list[bytes] = []
        self._ended: set[bytes] = set()
        self._interrupted = False
        self.rests = 0

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        with self._changed:
            self._interrupted = False
            self.begun.append(payload)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._interrupted or payload in self._ended, WAIT_S)
            if self._interrupted:
                raise JadeError(ErrorCode.CANCELLED, "cut off")
        return payload

    def finish(self, payload: bytes) -> None:
        with self._changed:
            self._ended.add(payload)
            self._changed.notify_all()

    def wait_begun(self, count: int) -> list[bytes]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, WAIT_S)
            return list(self.begun)

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        pass


class Task:
    def __init__(self, share: Compute, payload: bytes, *, hurried: bool = False) -> None:
        self.share = share
        self.result: bytes | JadeError | None = None
        self._thread = threading.Thread(target=self._run, args=(payload, hurried))
        self._thread.start()

    def _run(self, payload: bytes, hurried: bool) -> None:
        try:
            self.result = self.share.run("t", payload, hurried=hurried)
        except JadeError as error:
            self.result = error

    def join(self) -> bytes | ErrorCode | None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        return self.result.code if isinstance(self.result, JadeError) else self.result


def waiting(shared: SharedCompute, count: int) -> None:
    with shared._changed:
        while len(shared._waiting) < count:
            shared._changed.wait(0.01)


def test_hurried_work_goes_first_and_the_rest_in_the_order_it_came() -> None:
    steps = Steps()
    shared = SharedCompute(steps)
    first = Task(shared.share(), b"first", hurried=True)
    steps.wait_begun(1)
    tasks = [first]
    for number, (name, hurried) in enumerate([(b"second", False), (b"third", False), (b"hurried", True)]):
        tasks.append(Task(shared.share(), name, hurried=hurried))
        waiting(shared, number + 1)
    for name in (b"first", b"hurried", b"second", b"third"):
        assert steps.wait_begun(1)[-1] is not None
        steps.finish(name)
    assert [task.join() for task in tasks] == [b"first", b"second", b"third", b"hurried"]
    assert steps.begun == [b"first", b"hurried", b"second", b"third"]


def test_closing_one_that_waits_and_one_that_runs_leaves_the_others_alone() -> None:
    steps = Steps()
    shared = SharedCompute(steps)
    running = Task(shared.share(), b"running")
    steps.wait_begun(1)
    idle = Task(shared.share(), b"waits")
    waiting(shared, 1)
    other = Task(shared.share(), b"other")
    waiting(shared, 2)
    idle.share.close()
    assert idle.join() is ErrorCode.CLOSED
    other.share.interrupt()  # it does not run: nothing is cut off
    running.share.rest()
    assert steps.rests == 0
    running.share.close()
    assert running.join() is ErrorCode.CLOSED
    steps.wait_begun(2)
    steps.finish(b"other")
    assert other.join() == b"other"
    other.share.rest()
    assert steps.rests == 1
    with pytest.raises(JadeError) as raised:
        running.share.run("t", b"again", hurried=False)
    assert raised.value.code is ErrorCode.CLOSED


def test_interrupting_cuts_off_what_runs_for_that_replica() -> None:
    steps = Steps()
    shared = SharedCompute(steps)
    task = Task(shared.share(), b"long")
    steps.wait_begun(1)
    task.share.interrupt()
    assert task.join() is ErrorCode.CANCELLED


def test_hurried_work_of_one_replica_cuts_off_leisurely_work_of_another() -> None:
    steps = Steps()
    shared = SharedCompute(steps)
    leisurely = Task(shared.share(), b"leisurely")
    steps.wait_begun(1)
    hurried = Task(shared.share(), b"hurried", hurried=True)
    assert steps.wait_begun(2)[-1] == b"hurried" and leisurely.join() is ErrorCode.CANCELLED
    late = Task(shared.share(), b"late", hurried=True)  # that one is waited for too: it is left alone
    waiting(shared, 1)
    for name in (b"hurried", b"late"):
        steps.finish(name)
    assert (hurried.join(), late.join()) == (b"hurried", b"late")
