"""The background work of one database on one node: write frozen rows, trim the log, build towards the plan, check files.

One thread writes frozen rows (quick, bounds memory and the log's reach), one builds small segments, one builds large ones, so
that fresh rows get their index while a large merge runs. Building itself happens behind the compute port.

Nothing here changes what the database says: every step may fail, be cut off or be repeated. A failure is kept as `trouble`,
shown in the statistics, told to writers that wait, and the step is tried again.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence as LogSequence
from jadevectordb.model.ids import ShardId
from jadevectordb.model.limits import SEAL_ROWS, UNWRITTEN_BYTES_MAX, WRITER_WAIT_S_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.compute import Compute
from jadevectordb.ports.log import Log
from jadevectordb.shard.replica import PlannedBuild, Replica

BUILD_TASK = "jadevectordb.segment.builder:build_encoded"
LARGE_ROWS = 4 * SEAL_ROWS
_HURRY_ROWS = 16 * SEAL_ROWS  # rows without their index from which building is worth slowing searches down
_RETRY_S = 1.0
_IDLE_S = 30.0  # only a safety net: every event wakes the threads
# While rows stream in, the plan for large segments changes with every freeze: building each would be work thrown away.
_LARGE_PLAN_REST_S = 0.5
_LARGE_PLAN_WAIT_S_MAX = 5.0


class Lane(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """hurried: somebody waited for it, or for many rows, when it began."""

    replica: Replica
    build: PlannedBuild
    hurried: bool

    def overlaps(self, replica: Replica, build: PlannedBuild) -> bool:
        mine, span = self.build.span, build.span
        return self.replica is replica and mine.first <= span.last and span.first <= mine.last


class Maintenance:
    """on_change: called after the visible state changed (a segment was swapped), to publish a new view.

    compute: one a lane, used by that lane's thread only. threads: how many cores a build may use.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        log: Log,
        compute: dict[Lane, Compute],
        clock: Clock,
        on_change: Callable[[], None],
        threads: int,
    ) -> None:
        self._replicas = replicas
        self._log = log
        self._compute = compute
        self._clock = clock
        self._on_change = on_change
        self._threads = threads
        lock = threading.Lock()
        self._wake = threading.Condition(lock)  # for the threads here: there may be work
        self._progress = threading.Condition(lock)  # for callers that wait for these threads
        self._closing = False
        self._events = 0  # counts what the threads should look at, so that none is missed between looking and waiting
        self._hurry = 0  # callers waiting for the plan to be reached
        self._hurried_until_s = float("-inf")  # the same of callers elsewhere, who say so now and then
        self._building: dict[Lane, _UnderWay] = {}
        self._plans: dict[ShardId, tuple[object, float, float]] = {}  # plan seen, since when, first unmet since when
        self._troubles: dict[str, JadeError] = {}  # why a thread can't go on, by its name
        self._failed_at = -1  # the newest value of `_events` that a failed step began with
        self._workers = [
            self._thread("jade-write", self._write_step),
            *(self._thread(f"jade-build-{lane.value}", self._build_step_of(lane)) for lane in Lane),
        ]

    def _thread(self, name: str, step: Callable[[], bool]) -> threading.Thread:
        return threading.Thread(target=self._loop, args=(name, step), name=name, daemon=True)

    @property
    def trouble(self) -> JadeError | None:
        """Why some background work can't go on now; None when all goes well."""
        return next(iter(list(self._troubles.values())), None)

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Stop after the step at hand; builds are cut off. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            self._progress.notify_all()
        for compute in self._compute.values():
            compute.close()
        for worker in self._workers:
            if worker.is_alive():
                worker.join()

    def notify(self) -> None:
        """Something was frozen: look for work."""
        with self._wake:
            self._events += 1
            self._wake.notify_all()

    # For writers and waiters

    def wait_for_room(self) -> None:
        """Return when frozen rows in memory are within bounds. Raises the trouble that keeps them from being written, or TIMEOUT."""
        if self._unwritten_bytes() <= UNWRITTEN_BYTES_MAX:
            return
        until = self._clock.monotonic_s() + WRITER_WAIT_S_MAX
        with self._wake:
            self._events += 1
            self._wake.notify_all()
            asked = self._events
            while self._unwritten_bytes() > UNWRITTEN_BYTES_MAX:
                self._raise_trouble_since(asked)
                if self._closing:
                    raise JadeError(ErrorCode.CLOSED, "The database was closed while a writer waited.")
                left = until - self._clock.monotonic_s()
                if left <= 0:
                    raise JadeError(
                        ErrorCode.TIMEOUT,
                        f"The disk did not take the rows written so far within {WRITER_WAIT_S_MAX:.0f} s: retry, or write more slowly.",
                    )
                self._progress.wait(min(left, _RETRY_S))

    @property
    def is_settled(self) -> bool:
        """Whether every frozen row is in an indexed segment as planned, now."""
        return self._settled()

    def wait_settled(self, timeout_s: float | None) -> None:
        """Return when every frozen row is in an indexed segment as planned. Raises TIMEOUT, or the trouble in the way."""
        self._wait(self._settled, timeout_s, "Indexing")

    def hurry(self, for_s: float) -> None:
        """Somebody waits elsewhere until this is settled: for so long build as if he waited here."""
        with self._wake:
            now_s = self._clock.monotonic_s()
            was_hurried = now_s < self._hurried_until_s
            if self._settled():
                self._hurried_until_s = float("-inf")
                return
            self._hurried_until_s = now_s + for_s
            self._interrupt_outdated()
            if not was_hurried:
                self._events += 1
                self._wake.notify_all()

    def _is_hurried(self) -> bool:
        return self._hurry > 0 or self._clock.monotonic_s() < self._hurried_until_s

    def wait_written(self, timeout_s: float | None) -> None:
        """Return when a checkpoint holds every frozen row. Raises TIMEOUT, or the trouble in the way."""
        self._wait(self._written, timeout_s, "Writing rows to disk")

    def _wait(self, done: Callable[[], bool], timeout_s: float | None, what: str) -> None:
        until = None if timeout_s is None else self._clock.monotonic_s() + timeout_s
        with self._wake:
            self._hurry += 1
            self._events += 1
            asked = self._events
            self._wake.notify_all()
            try:
                while not done():
                    self._raise_trouble_since(asked)
                    self._interrupt_outdated()
                    if self._closing:
                        raise JadeError(
                            ErrorCode.CLOSED, "The database was closed while its background work was waited for."
                        )
                    left = _RETRY_S if until is None else until - self._clock.monotonic_s()
                    if left <= 0:
                        raise JadeError(
                            ErrorCode.TIMEOUT,
                            f"{what} was not complete after {timeout_s} s; it goes on in the background.",
                        )
                    self._progress.wait(min(left, _RETRY_S))
                # All work is done, so nothing stands in its way, though a thread that failed may not have looked again yet
                self._troubles.clear()
            finally:
                self._hurry -= 1
        for compute in self._compute.values():  # loading is over
            compute.rest()

    def _interrupt_outdated(self) -> None:
        """Cut off builds that take their time and are for a plan of before: those waited for may need the same rows."""
        for lane, busy in self._building.items():
            if busy.hurried or busy.replica.state.frozen:  # frozen: the plan of all rows is not known yet
                continue
            if all(busy.build.span != wanted.span for wanted in busy.replica.planned_builds()):
                self._compute[lane].interrupt()

    def _raise_trouble_since(self, asked: int) -> None:
        """Raise the trouble if a step that began after the caller asked ended in it: an older one may be over."""
        trouble = self.trouble
        if trouble is not None and self._failed_at >= asked:
            # An error object each: they are raised in different threads
            raise JadeError(trouble.code, trouble.message, details=trouble.details) from trouble

    def _unwritten_bytes(self) -> int:
        return sum(replica.unwritten_bytes for replica in self._replicas)

    def _written(self) -> bool:
        return not any(r.state.frozen for r in self._replicas)

    def _settled(self) -> bool:
        return not self._building and not any(r.state.frozen or r.planned_builds() for r in self._replicas)

    # The threads

    def _loop(self, name: str, step: Callable[[], bool]) -> None:
        while True:
            with self._wake:
                if self._closing:
                    return
                seen = self._events
            try:
                worked = step()
                pause = 0.0 if worked else _IDLE_S
                self._troubles.pop(name, None)
            except JadeError as error:
                if error.code is ErrorCode.CLOSED:  # what it was doing was cut off by our own closing
                    return
                # Damage does not go away: looking for it again every second would only keep the disk busy.
                self._troubles[name], pause = error, _IDLE_S if error.code is ErrorCode.CORRUPT else _RETRY_S
            except OSError as error:
                self._troubles[name], pause = (
                    disk_error(error, "write segments", self._replicas[0].directory.parent),
                    _RETRY_S,
                )
            except Exception as error:  # a defect must not end the thread in silence: waiters would wait for ever
                message = f"Background work failed: {error!r}. What was written is safe; please report this."
                defect = JadeError(ErrorCode.IO_ERROR, message)
                defect.__cause__ = error
                self._troubles[name], pause = defect, _RETRY_S
            with self._wake:
                if name in self._troubles:
                    self._failed_at = max(self._failed_at, seen)
                self._progress.notify_all()
                if not pause:
                    # Only work done wakes the other threads: waking them after every look would keep all looking forever.
                    self._events += 1
                    self._wake.notify_all()
                elif self._events == seen and not self._closing:  # else something happened while the step looked
                    self._wake.wait(min(pause, self._rest_s()))

    def _rest_s(self) -> float:
        return _LARGE_PLAN_REST_S if self._plans else _IDLE_S

    def _write_step(self) -> bool:
        worked = False
        for replica in self._replicas:
            if replica.state.frozen:
                worked = replica.write_frozen() or worked
        if worked:
            self._on_change()
            self._log.truncate({r.shard: LogSequence(r.checkpoint.applied) for r in self._replicas})
        return worked

    def _build_step_of(self, lane: Lane) -> Callable[[], bool]:
        return lambda: self._build_step(lane)

    def _build_step(self, lane: Lane) -> bool:
        with self._wake:
            chosen = self._choose(lane)
            if chosen is None:
                return False
            self._building[lane] = chosen
        try:
            self._build(lane, chosen)
        except JadeError as error:
            if error.code is not ErrorCode.CANCELLED:
                raise
        finally:
            with self._wake:
                del self._building[lane]
        self._on_change()
        return True

    def _choose(self, lane: Lane) -> _UnderWay | None:
        now = self._clock.monotonic_s()
        for replica in self._replicas:
            builds = replica.planned_builds()
            large = [b for b in builds if b.rows > LARGE_ROWS]
            rested = self._large_plan_rested(replica.shard, [b.span for b in large], now)
            # While rows are on their way to the disk the plan is not the one that the waiting callers will have
            rested = rested or (self._is_hurried() and not replica.state.frozen)
            for build in builds:
                if (build.rows > LARGE_ROWS) != (lane is Lane.LARGE) or not (lane is Lane.SMALL or rested):
                    continue
                if not any(busy.overlaps(replica, build) for busy in self._building.values()):
                    return _UnderWay(replica, build, self._is_hurried() or self._rows_to_build() >= _HURRY_ROWS)
        return None

    def _large_plan_rested(self, shard: ShardId, plan: list[object], now: float) -> bool:
        if not plan:
            self._plans.pop(shard, None)
            return False
        seen = self._plans.get(shard)
        if seen is None:
            self._plans[shard] = (plan, now, now)
            return False
        if seen[0] != plan:
            seen = self._plans[shard] = (plan, now, seen[2])
        return now - seen[1] >= _LARGE_PLAN_REST_S or now - seen[2] >= _LARGE_PLAN_WAIT_S_MAX

    def _rows_to_build(self) -> int:
        return sum(part.live for r in self._replicas for part in r.checkpoint_parts if not part.reader.index_kind)

    def _build(self, lane: Lane, chosen: _UnderWay) -> None:
        replica, build, hurried = chosen.replica, chosen.build, chosen.hurried
        if build.rows == 0:
            replica.install(build, None)
            return
        job = replica.job_of(build, self._threads if lane is Lane.LARGE and hurried else 1)
        target = Path(job.target)
        try:
            self._compute[lane].run(BUILD_TASK, msgspec.msgpack.encode(job), hurried=hurried)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        replica.install(build, target)
