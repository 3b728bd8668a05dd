"""One node of a simulated cluster, put together from the real parts as `jadevectordb.cluster` does it, in a process of its own.

Only what stands for the world is simulated: clock, network, log, metadata store, disk. A process that can't open, or that ends, is
started again by the world after a while, as a supervisor would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jadevectordb.control.election import Candidate
from jadevectordb.control.elector import Elector
from jadevectordb.control.liveness import Liveness
from jadevectordb.control.loop import MasterLoop, MasterSettings
from jadevectordb.control.mirror import ClusterMirror as NodeMirror
from jadevectordb.gateway.cluster.answering import ShardAnswerer
from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.model.errors import JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.node import membership
from jadevectordb.node.agent import Agent
from jadevectordb.node.hosting import Hosting, active_peers
from jadevectordb.node.replica_opening import HostingWorld
from jadevectordb.sim.disk import Disk, SimLocalLog, write_atomically
from jadevectordb.sim.log import SimLog
from jadevectordb.sim.loop import Loop, Process
from jadevectordb.sim.network import Network
from jadevectordb.sim.requests import Client
from jadevectordb.sim.servers import Servers
from jadevectordb.sim.store import SimStore
from jadevectordb.sim.transport import SimServer, SimTransport
from jadevectordb.topology.cluster_map import NodeRecord

_PORT = 9081
_EPOCH_MS = 1_700_000_000_000


class SimClock:
    """The clock port of one process: its monotonic clock runs at its own rate, its wall clock may be wrong and jump."""

    def __init__(self, loop: Loop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def now_ms(self) -> int:
        return _EPOCH_MS + self._process.wall_ms + int(self._loop.now_s * 1000)

    def monotonic_s(self) -> float:
        return self._process.offset_s + self._process.rate * self._loop.now_s


class _Outboxes:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def known(self) -> list[str]:
        return sorted({path.split("/")[2] for path in self._disk.under("/outbox")})

    def open(self, database: str) -> Any:
        return SimLocalLog(self._disk.at(f"/outbox/{database}"))

    def remove(self, database: str) -> None:
        self._disk.remove(f"/outbox/{database}")


class _Streams:
    """`control.loop.ShardLogs`."""

    def __init__(self, open_log: Callable[[str], SimLog]) -> None:
        self._open_log = open_log

    def create(self, database: str, shards: int) -> None:
        self._open_log(database).ensure_streams([ShardId(number) for number in range(shards)])

    def drop(self, database: str, shards: int) -> None:
        log = self._open_log(database)
        log.ensure_streams([ShardId(number) for number in range(shards)])
        log.drop()

    def truncate(self, database: str, up_to: Mapping[int, int]) -> None:
        self._open_log(database).truncate({ShardId(s): Sequence(n) for s, n in up_to.items()})


class SimNode:
    """One life of a node. `ready`: it has opened and takes part."""

    def __init__(
        self,
        loop: Loop,
        network: Network,
        servers: Servers,
        listeners: dict[str, SimServer],
        disk: Disk,
        process: Process,
        new_id: Callable[[], str],
        settings: MasterSettings,
        zone: str,
    ) -> None:
        self.name = disk.machine
        self.loop = loop
        self.process = process
        self.ready = False
        self.failed = ""
        self._network = network
        self._listeners = listeners
        self._disk = disk
        self._new_id = new_id
        self._settings = settings
        self._zone = zone
        self.incarnation = new_id()
        self.client = Client(loop, servers, self.name, process)
        self.elector: Elector | None = None
        self._candidate: Candidate | None = None
        self.hosting: Hosting | None = None
        self.store: ClusterStore | None = None
        self.server: SimServer | None = None
        loop.spawn(process, self._open, "main")

    def open_log(self, database: str) -> SimLog:
        return SimLog(self.client, database, self._new_id)

    def _open(self) -> None:
        try:
            self._open_parts()
            self._announce()
            self.ready = True
        except JadeError as error:
            self.failed = error.message  # the process ends; the world starts another

    def _open_parts(self) -> None:
        clock = SimClock(self.loop, self.process)
        self._clock = clock
        self.metadata = SimStore(self.client, "meta", self._new_id)
        self.observed = NodeMirror(self.metadata, clock, Liveness())
        self.observed.start()
        self.mirror = ClusterMirror(self.observed, clock)
        transport = SimTransport(self.loop, self._network, self._listeners, self.name, self.process)
        world = HostingWorld(
            clock=clock,
            open_log=self.open_log,
            make_compute=dict,
            write_atomically=write_atomically,  # type: ignore[arg-type]  # of simulated paths
            transport=transport,
            peers=lambda database, shard: active_peers(self.mirror, self.name, database, shard),
            threads=1,
        )
        self.hosting = Hosting(self._disk.at(""), world, self._new_id)  # type: ignore[arg-type]
        answerer = ShardAnswerer(
            self.hosting, clock, node=self.name, incarnation=self.incarnation,
            map_version=lambda: self.mirror.map.version,
        )  # fmt: skip
        self.address = f"{self.name}:{_PORT}"
        self.server = SimServer(
            self._listeners, self.address, self.process, transport.node_loop, answerer, self.loop.found_defect
        )
        self.agent = Agent(
            self.name, self.incarnation, self.metadata, self.hosting, clock,
            write_atomically=write_atomically, displaced=self._displaced,  # type: ignore[arg-type]
        )  # fmt: skip
        self.elector = Elector(
            self.metadata, clock, self.name, self.incarnation, on_gain=lambda _term: self.master.wake()
        )
        self._candidate = self.elector._candidate
        self.master = MasterLoop(
            self.metadata, self.observed, clock, self.elector.term, _Streams(self.open_log), self._settings
        )
        self.store = ClusterStore(
            self.metadata, self.mirror, transport, clock, node=self.name, open_log=self.open_log,
            new_id=self._new_id, local=answerer, outboxes=_Outboxes(self._disk),
        )  # fmt: skip

    def _announce(self) -> None:
        record = NodeRecord(
            id=self.name, incarnation=self.incarnation, peer=self.address, zone=self._zone,
            started_ms=self._clock.now_ms(),
        )  # fmt: skip
        membership.register(self.metadata, record, self._clock, self.loop.sleep, 3.0)
        self.agent.start()
        self.master.start()
        assert self.elector is not None
        self.elector.start()

    def _displaced(self) -> None:
        raise AssertionError(f"{self.name} was displaced, but nobody else runs under its name")

    def term(self) -> int | None:
        """As the node itself would answer at this moment. From the hub."""
        if self._candidate is None or not self.process.alive:
            return None
        return self._candidate.term_if_leader(self._clock.monotonic_s())
