"""Opens a replica in a folder: the engine's database with one shard, following one shard of the replicated log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.hybrid_time import from_ms
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.limits import SNAPSHOTS_COPIED_MAX
from jadevectordb.model.operations import Entry, Seal
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.shard_log import ReplicatedLog, ShardLog
from jadevectordb.node.watermark import RecentOutcomes, Watermark
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.compute import Compute
from jadevectordb.ports.transport import Transport
from jadevectordb.shard.maintenance import Lane
from jadevectordb.shard.replica import WriteAtomically


class HostingWorld:
    """What replicas need of the node they are on.

    open_log: a database's replicated log, by database id; a new object each time, which the replica closes. make_compute: the two
    lanes of one replica's background work, closed by it. peers: addresses (HOST:PORT) of nodes with an active replica.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        open_log: Callable[[str], ReplicatedLog],
        make_compute: Callable[[], Mapping[Lane, Compute]],
        write_atomically: WriteAtomically,
        transport: Transport,
        peers: Callable[[str, int], list[str]],
        threads: int,
    ) -> None:
        self.clock = clock
        self.open_log = open_log
        self.make_compute = make_compute
        self.write_atomically = write_atomically
        self.transport = transport
        self.peers = peers
        self.threads = threads
        self.copies = threading.Semaphore(SNAPSHOTS_COPIED_MAX)

    def ask_for_checkpoints(self, database: str, shard: int) -> None:
        """Have all replicas of the shard write what they have in memory, by an entry of its log. Raises UNAVAILABLE."""
        log = self.open_log(database)
        try:
            log.append([(ShardId(shard), Entry(Seal(), from_ms(self.clock.now_ms())))])
        finally:
            log.close()


class Gate:
    """Holds entries back while the disk is behind, so that rows in memory stay bounded. Called by the follower's thread."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._database: OpenDatabase | None = None
        self._ended = False
        self.stalled = ""  # why entries are held back; "" = they are not

    def __call__(self) -> bool:
        self._ready.wait()  # the first entries may come while the database is still being made
        while not self._ended and self._database is not None:
            try:
                self._database.maintenance.wait_for_room()
                self.stalled = ""
                return True
            except JadeError as error:
                if error.code is ErrorCode.CLOSED:
                    return False
                self.stalled = error.message
        return False

    def open(self, database: OpenDatabase) -> None:
        self._database = database
        self._ready.set()

    def end(self) -> None:
        self._ended = True
        self._ready.set()


@dataclass(frozen=True, slots=True)
class Opened:
    """A replica that is open. `close` ends it, and whoever waits for it is told."""

    database: OpenDatabase
    log: ShardLog
    gate: Gate
    watermark: Watermark
    outcomes: RecentOutcomes

    def close(self) -> None:
        self.gate.end()
        self.database.close()


def open_replica(
    world: HostingWorld,
    database: str,
    shard: int,
    config: DatabaseConfig,
    folder: Path,
    applied: Sequence,
    on_error: Callable[[JadeError], None],
    log_shard: int,
) -> Opened:
    """config: of a database with one shard. log_shard: whose log it follows.

    applied: where the folder's checkpoint stands. on_error: told what ends following.

    Raises CORRUPT (damaged files), FORMAT_TOO_NEW, IO_ERROR, CLOSED.
    """
    gate, watermark, outcomes = Gate(), Watermark(), RecentOutcomes()
    log = ShardLog(world.open_log(database), ShardId(log_shard), applied, admit=gate, on_error=on_error, here=shard)
    compute = world.make_compute()
    try:
        opened = OpenDatabase(
            config,
            folder,
            log=log,
            compute=compute,
            clock=world.clock,
            write_atomically=world.write_atomically,
            threads=world.threads,
            progress=watermark,
            outcomes=outcomes,
        )
    except BaseException:
        gate.end()
        log.close()
        for lane in compute.values():
            lane.close()
        raise
    gate.open(opened)
    return Opened(opened, log, gate, watermark, outcomes)
