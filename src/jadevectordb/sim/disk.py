"""The disk of a simulated machine, and what lies on it: replicas, a node's small files, the outbox.

A write is in memory until it is synced; a loss of power leaves what was synced, a killed process everything. Each sync takes time,
more on a slow disk. Contents are objects, not bytes: how segments, checkpoints and log files survive crashes as bytes is
tested on real files elsewhere.

`replica_folders`, `snapshot_shelf`, the checkpoint of `shard.replica` and the maintenance threads work on files, so these have
stand-ins here, which are put in their place while a simulation runs. A checkpoint is the engine's own `Frozen`: the state at a
freeze, with its parts in memory. Everything above, from `OpenDatabase` on, and the state machine itself are the real ones.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.node import agent, hosted_shard, hosting, open_database, replica_loading
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.snapshot_copy import not_far_enough
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.log import Delivered, Frame, Log
from jadevectordb.ports.node_calls import SnapshotBegin, SnapshotEnd, SnapshotOffer, SnapshotRead
from jadevectordb.ports.transport import Transport
from jadevectordb.shard.apply import Frozen, ShardConfig, ShardState
from jadevectordb.shard.replica import Replica
from jadevectordb.sim.loop import Loop, Process
from jadevectordb.sim.threads import SimThreading

_NAME = re.compile(r"(\d{4})-(\d{6})(\.part)?")
_CHECKPOINT = "checkpoint"


class Disk:
    """Of one machine. process: whoever runs there now. slow_s: what each sync takes more."""

    def __init__(self, loop: Loop, machine: str) -> None:
        self._loop = loop
        self.machine = machine
        self.slow_s = 0.0
        self._now: dict[str, Any] = {}
        self._synced: dict[str, Any] = {}

    def at(self, path: str) -> SimPath:
        return SimPath(self, path)

    def write(self, path: str, value: Any) -> None:
        self._now[path] = value

    def read(self, path: str) -> Any:
        """None when it is not there."""
        return self._now.get(path)

    def under(self, path: str) -> list[str]:
        return sorted(one for one in self._now if one.startswith(path + "/"))

    def remove(self, path: str) -> None:
        """It and all below; lasting only once the change is synced."""
        for one in [path, *self.under(path)]:
            self._now.pop(one, None)

    def sync(self, path: str) -> None:
        """This path and all below are as durable as they are now. In a fiber; takes time."""
        before = {one: self._now[one] for one in [path, *self.under(path)] if one in self._now}
        self._loop.sleep(self._loop.random.uniform(0.0002, 0.002) + self.slow_s)
        for one in [one for one in self._synced if (one == path or one.startswith(path + "/")) and one not in before]:
            if one not in self._now:
                del self._synced[one]
        self._synced.update(before)

    def move(self, source: str, target: str) -> None:
        """A rename: at once and durable, or not at all (the folder is synced by who renames, without a step between)."""
        for one in [source, *self.under(source)]:
            if one in self._now:
                self._now[target + one[len(source) :]] = self._now.pop(one)
            if one in self._synced:
                self._synced[target + one[len(source) :]] = self._synced.pop(one)

    def lose_power(self) -> None:
        self._now = dict(self._synced)


@dataclass(frozen=True, slots=True)
class SimPath:
    """As much of a `Path` as the node's code uses of the folders it is given."""

    disk: Disk
    path: str

    def __truediv__(self, name: str) -> SimPath:
        return SimPath(self.disk, f"{self.path}/{name}")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> SimPath:
        return SimPath(self.disk, self.path.rpartition("/")[0])

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        del parents, exist_ok  # a folder is there when something is in it

    def read_bytes(self) -> bytes:
        found = self.disk.read(self.path)
        if found is None:
            raise FileNotFoundError(self.path)
        assert isinstance(found, bytes)
        return found

    def __str__(self) -> str:
        return f"{self.disk.machine}:{self.path}"


def sync_folder(path: SimPath) -> None:
    path.disk.sync(path.path)


def write_atomically(path: SimPath, data: bytes) -> None:
    path.disk.write(path.path, data)
    path.disk.sync(path.path)


# Replicas


@dataclass(frozen=True, slots=True)
class _Applied:
    """What the node's code reads of a checkpoint."""

    applied: int


def read_checkpoint(directory: SimPath) -> _Applied:
    frozen: Frozen | None = directory.disk.read(f"{directory.path}/{_CHECKPOINT}")
    return _Applied(0 if frozen is None else frozen.sequence)


class SimFolders:
    """As `replica_folders.ReplicaFolders`."""

    def __init__(self, base: SimPath, shard: int) -> None:
        self._disk = base.disk
        self._base = base
        self._shard = shard

    def _found(self) -> list[tuple[int, SimPath, bool]]:
        names = {path[len(self._base.path) + 1 :].partition("/")[0] for path in self._disk.under(self._base.path)}
        matches = [match for name in sorted(names) if (match := _NAME.fullmatch(name))]
        return [(int(m[2]), self._base / m[0], bool(m[3])) for m in matches if int(m[1]) == self._shard]

    def _complete(self) -> list[SimPath]:
        return [path for _, path, part in sorted(self._found(), key=lambda one: one[0]) if not part]

    @property
    def current(self) -> SimPath | None:
        found = self._complete()
        return found[-1] if found else None

    @property
    def older(self) -> list[SimPath]:
        return self._complete()[:-1]

    def part(self) -> SimPath:
        number = max((number for number, _, part in self._found() if not part), default=0) + 1
        path = self._base / f"{self._shard:04}-{number:06}.part"
        for _, other, part in self._found():
            if part and other != path:
                self._disk.remove(other.path)
        self._disk.write(f"{path.path}/folder", True)
        return path

    def install(self, part: SimPath) -> SimPath:
        path = SimPath(self._disk, part.path.removesuffix(".part"))
        older = self._complete()
        self._disk.sync(part.path)
        self._disk.move(part.path, path.path)
        for between in older[1:]:
            self._disk.remove(between.path)
        return path

    def drop_older(self) -> None:
        current = self.current
        for _, path, _part in self._found():
            if path != current:
                self._disk.remove(path.path)

    def remove(self) -> None:
        for _, path, _part in self._found():
            self._disk.remove(path.path)
        self._disk.sync(self._base.path)


def replicas_in(folder: SimPath) -> set[tuple[str, int]]:
    found = set()
    for path in folder.disk.under(folder.path):
        database, _, rest = path[len(folder.path) + 1 :].partition("/")
        match = _NAME.fullmatch(rest.partition("/")[0])
        if match:
            found.add((database, int(match[1])))
    return found


class SimReplica(Replica):
    """The real replica, but for its files: its checkpoint lies on a simulated disk, with the parts it names."""

    def __init__(
        self,
        shard: ShardId,
        directory: Any,
        config: ShardConfig,
        index_kind: IndexKind,
        write_atomically: Callable[..., None],
        index_parameters: Any = None,
    ) -> None:
        del index_kind, write_atomically, index_parameters
        self.shard = shard
        self.directory = directory
        self.config = config
        self.lock = threading.Lock()  # nothing blocks while it is held
        self._place: str = f"{directory.path}/{_CHECKPOINT}"
        self._disk: Disk = directory.disk
        self.checkpoint_parts = ()
        frozen: Frozen | None = self._disk.read(self._place)
        self.checkpoint = _Applied(0 if frozen is None else frozen.sequence)  # type: ignore[assignment]
        self.state = state_after(config, frozen)
        self.view = self.state.view()

    def remove_orphans(self) -> None:
        """No folder is left by a write that was cut off."""

    def write_frozen(self) -> bool:
        if not self.state.frozen:
            return False
        frozen = self.state.frozen[0]
        self._disk.write(self._place, frozen)
        self._disk.sync(self._place)
        self.checkpoint = _Applied(frozen.sequence)  # type: ignore[assignment]
        with self.lock:
            self.state.frozen.popleft()
        return True


def state_after(config: ShardConfig, frozen: Frozen | None) -> ShardState:
    """The state that a checkpoint stands for."""
    if frozen is None:
        return ShardState(config)
    return ShardState(
        config,
        parts=frozen.parts,
        spans=frozen.spans,
        next_unit=frozen.unit + (frozen.view is not None),
        applied=frozen.sequence,
        requests=frozen.requests,
        newest_time=frozen.newest_time,
        causal=frozen.causal,
    )


class SimMaintenance:
    """As `shard.maintenance.Maintenance`, without building: frozen states become checkpoints, and the log is told."""

    trouble: JadeError | None = None

    def __init__(
        self,
        replicas: Seq[SimReplica],
        log: Log,
        compute: Mapping[Any, Any],
        clock: Clock,
        on_change: Callable[[], None],
        threads: int,
    ) -> None:
        del compute, clock, threads
        self._replicas = replicas
        self._log = log
        self._on_change = on_change
        threading_here: SimThreading = vars(open_database)["threading"]
        self._wake = threading_here.Condition()
        self._events = 1  # what was frozen while it opened
        self._closing = False
        self._thread = threading_here.Thread(target=self._run, name="jade-write")

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        with self._wake:
            self._events += 1
            self._wake.notify_all()

    def wait_for_room(self) -> None:
        """There is always room: a run writes less than a node holds in memory."""

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._events)
                if self._closing:
                    return
                self._events = 0
            for replica in self._replicas:
                while not self._closing and replica.write_frozen():
                    self._on_change()
                    self._log.truncate({replica.shard: Sequence(replica.checkpoint.applied)})


# Snapshots

_SHELVES: dict[str, dict[str, Frozen | None]] = {}


class SimShelf:
    """As `snapshot_shelf.SnapshotShelf`: it offers the newest checkpoint, as one file whose bytes name it."""

    def __init__(self, folder: SimPath, clock: Clock, unique: Callable[[], str]) -> None:
        del clock
        self._place = folder.disk.machine
        self._unique = unique
        self._kept: dict[str, Frozen | None] = {}

    def begin(self, database: OpenDatabase) -> SnapshotOffer:
        replica = database.replicas[0]
        assert isinstance(replica, SimReplica)
        name = self._unique()
        frozen: Frozen | None = replica._disk.read(replica._place)
        self._kept[name] = frozen
        return SnapshotOffer(
            snapshot=name, applied=0 if frozen is None else frozen.sequence, files=[(_CHECKPOINT, len(name), "")]
        )

    def read(self, snapshot: str, path: str, offset: int, length: int) -> bytes:
        del path, offset, length
        if snapshot not in self._kept:
            raise JadeError(ErrorCode.NOT_FOUND, f"There is no snapshot {snapshot!r} here: begin a new one.")
        _SHELVES.setdefault("taken", {})[snapshot] = self._kept[snapshot]
        return snapshot.encode()

    def end(self, snapshot: str) -> None:
        self._kept.pop(snapshot, None)

    def sweep(self) -> None:
        pass

    def close(self) -> None:
        self._kept.clear()


def copy_snapshot(
    transport: Transport,
    address: str,
    database: str,
    shard: int,
    target: SimPath,
    *,
    applied_min: int,
    check_wanted: Callable[[], None],
) -> Sequence:
    """As `snapshot_copy.copy_snapshot`: the same three calls, and the time that copying takes between them."""
    offer: SnapshotOffer = transport.call(address, SnapshotBegin(database=database, shard=shard), 20.0)
    try:
        if offer.applied < applied_min:
            raise not_far_enough(address, offer, applied_min)
        check_wanted()
        data = transport.call(
            address, SnapshotRead(snapshot=offer.snapshot, path=_CHECKPOINT, offset=0, length=64), 15.0
        )
        frozen = _SHELVES["taken"].pop(bytes(data).decode())
        check_wanted()
        target.disk.remove(target.path)
        target.disk.write(f"{target.path}/folder", True)
        if frozen is not None:
            target.disk.write(f"{target.path}/shard-0000/{_CHECKPOINT}", frozen)
        target.disk.sync(target.path)
    finally:
        with suppress(JadeError):  # it is removed there by itself
            transport.call(address, SnapshotEnd(snapshot=offer.snapshot), 5.0)
    return Sequence(offer.applied)


def empty(folder: SimPath) -> None:
    folder.disk.remove(folder.path)
    folder.disk.write(f"{folder.path}/folder", True)


# The outbox's log


class SimLocalLog:
    """The log of one node alone on a simulated disk, as much as an outbox uses: a frame is durable when `append` returns."""

    def __init__(self, path: SimPath) -> None:
        self._disk = path.disk
        self._path = path.path
        self._handler: Callable[[Frame], None] = lambda _frame: None
        self._lasts: dict[int, int] = {}
        self._number = 0
        for name in self._disk.under(self._path):
            if name.endswith("/lasts"):
                continue
            self._number = max(self._number, int(name.rpartition("/")[2]))
            for one in self._disk.read(name):
                self._lasts[one.shard] = max(self._lasts.get(one.shard, 0), one.sequence)

    def _frames(self) -> list[tuple[str, Frame]]:
        return [(name, self._disk.read(name)) for name in self._disk.under(self._path)]

    def append(self, entries: Seq[tuple[ShardId, Any]]) -> list[Sequence]:
        frame: Frame = []
        for shard, entry in entries:
            self._lasts[shard] = sequence = self._lasts.get(shard, 0) + 1
            frame.append(Delivered(shard, Sequence(sequence), entry))
        self._number += 1
        name = f"{self._path}/{self._number:09}"
        self._disk.write(name, frame)
        self._disk.sync(name)
        self._handler(frame)
        return [one.sequence for one in frame]

    def subscribe(self, handler: Callable[[Frame], None]) -> None:
        self._handler = handler

    def read(self, from_frame_of: dict[ShardId, Sequence]) -> Iterator[Frame]:
        del from_frame_of  # all that is kept
        return iter([frame for _, frame in self._frames()])

    def first(self, shard: ShardId) -> Sequence:
        kept = [one.sequence for _, frame in self._frames() for one in frame if one.shard == shard]
        return min(kept, default=Sequence(self._lasts.get(shard, 0) + 1))

    def truncate(self, up_to: dict[ShardId, Sequence]) -> None:
        for name, frame in self._frames():
            if all(one.sequence <= up_to.get(one.shard, 0) for one in frame):
                self._disk.remove(name)

    def close(self) -> None:
        pass


@contextmanager
def on_simulated_disks() -> Iterator[None]:
    """While this lasts, the node's modules that work on files work on simulated disks."""
    stand_ins: list[tuple[Any, str, Any]] = [
        (agent, "sync_folder", sync_folder),
        (hosted_shard, "ReplicaFolders", SimFolders),
        (hosted_shard, "read_checkpoint", read_checkpoint),
        (hosting, "ReplicaFolders", SimFolders),
        (hosting, "replicas_in", replicas_in),
        (hosting, "SnapshotShelf", SimShelf),
        (open_database, "Replica", SimReplica),
        (open_database, "Maintenance", SimMaintenance),
        (replica_loading, "copy_snapshot", copy_snapshot),
        (replica_loading, "_empty", empty),
    ]
    replaced = [(module, name, getattr(module, name)) for module, name, _ in stand_ins]
    try:
        for module, name, value in stand_ins:
            setattr(module, name, value)
        yield
    finally:
        _SHELVES.clear()
        for module, name, value in replaced:
            setattr(module, name, value)


__all__ = ["Disk", "Process", "SimLocalLog", "SimPath", "on_simulated_disks", "write_atomically"]
