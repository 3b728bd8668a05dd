"""Group commit by itself: order, sharing and failing, with a commit that only notes what it was given."""

from __future__ import annotations

import threading

import pytest

from jadevectordb.adapters.local_log_group import GroupCommit, PendingFrame
from jadevectordb.log.frame import encode_entry
from jadevectordb.model.operations import Barrier, Entry


def pending(number: int) -> PendingFrame:
    return PendingFrame([encode_entry(number, Entry(Barrier(), number))])


def number_of(frame: PendingFrame) -> int:
    return frame.encoded[0].shard


class Bench:
    """Runs frames from a thread each; commits wait for `go`."""

    def __init__(self, group_bytes_max: int = 1 << 20) -> None:
        self.groups: list[list[int]] = []
        self.delivered: list[int] = []
        self.errors: dict[int, BaseException] = {}
        self.go = threading.Event()
        self.fail_commit: set[int] = set()
        self.fail_deliver: set[int] = set()
        self.group = GroupCommit(self.commit, self.deliver, group_bytes_max)

    def commit(self, frames: list[PendingFrame]) -> None:
        assert self.go.wait(60)
        numbers = [number_of(frame) for frame in frames]
        if self.fail_commit & set(numbers):
            raise RuntimeError(f"commit of {numbers}")
        self.groups.append(numbers)

    def deliver(self, frame: PendingFrame) -> None:
        if number_of(frame) in self.fail_deliver:
            raise RuntimeError(f"delivery of {number_of(frame)}")
        self.delivered.append(number_of(frame))

    def run(self, number: int) -> None:
        try:
            self.group.run(pending(number))
        except RuntimeError as error:
            self.errors[number] = error

    def run_queued(self, count: int) -> None:
        """Frame 0 leads and is held up until the others stand behind it in order."""
        threads = [threading.Thread(target=self.run, args=(number,)) for number in range(count)]
        for place, thread in enumerate(threads):
            thread.start()
            while not self.group._has_leader or len(self.group._queue) != place:
                thread.join(0.001)
        self.go.set()
        for thread in threads:
            thread.join()
        assert not self.group._has_leader and not self.group._queue and not self.group.delivering.locked()


def test_who_waits_is_committed_together_and_in_order() -> None:
    bench = Bench()
    bench.run_queued(10)
    assert bench.groups == [[0], list(range(1, 10))]
    assert bench.delivered == list(range(10)) and bench.errors == {}


def test_a_group_is_bounded() -> None:
    bench = Bench(group_bytes_max=3 * pending(0).size)
    bench.run_queued(9)
    assert bench.groups == [[0], [1, 2, 3], [4, 5, 6], [7, 8]]
    assert bench.delivered == list(range(9))


def test_a_frame_above_the_bound_goes_alone() -> None:
    bench = Bench(group_bytes_max=1)
    bench.run_queued(4)
    assert bench.groups == [[0], [1], [2], [3]]


def test_a_commit_that_fails_fails_its_group_only() -> None:
    bench = Bench(group_bytes_max=2 * pending(0).size)
    bench.fail_commit = {2}
    bench.run_queued(6)
    assert bench.groups == [[0], [3, 4], [5]]
    assert sorted(bench.errors) == [1, 2] and bench.delivered == [0, 3, 4, 5]


def test_a_delivery_that_fails_fails_the_rest_of_its_group() -> None:
    bench = Bench(group_bytes_max=3 * pending(0).size)
    bench.fail_deliver = {2}
    bench.run_queued(6)
    assert sorted(bench.errors) == [2, 3] and bench.delivered == [0, 1, 4, 5]


def test_the_lead_is_handed_on_only_with_the_turn_to_deliver_in_hand() -> None:
    """Else the next leader could commit and deliver before the first has delivered."""
    bench = Bench()
    real = bench.group.delivering
    still_leading = []

    class Watched:
        def acquire(self) -> None:
            queue = bench.group._queue
            still_leading.append(bench.group._has_leader and all(f.turn is not None and f.turn.locked() for f in queue))
            real.acquire()

        def release(self) -> None:
            real.release()

        def locked(self) -> bool:
            return real.locked()

    bench.group.delivering = Watched()  # type: ignore[assignment]
    bench.run_queued(5)
    assert still_leading == [True, True]


def test_a_lone_caller_sees_its_error() -> None:
    bench = Bench()
    bench.go.set()
    bench.fail_commit = {0}
    with pytest.raises(RuntimeError, match="commit of"):
        bench.group.run(pending(0))
    bench.fail_commit = set()
    bench.group.run(pending(1))
    assert bench.delivered == [1]
