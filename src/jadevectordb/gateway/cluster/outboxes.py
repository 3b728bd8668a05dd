"""The outboxes of a gateway: for each database that it took writes at EVENTUAL for, what is to be published to the logs yet.

They outlast the process: what a stop or a crash left is published by the next start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.log import Log
from jadevectordb.query.cluster_writer import AppendOnly, GatewayTime
from jadevectordb.query.outbox import Outbox, OutboxFigures
from jadevectordb.topology.placed import PlacedDatabase

logger = logging.getLogger("jadevectordb.clusterstore")
_DRAIN_S = 5.0  # for writes at EVENTUAL, when the node stops


class OutboxFolders(Protocol):
    """Where this node keeps writes at EVENTUAL until they are published: a log of its own for each database."""

    def known(self) -> list[str]:
        """Ids of databases that have one."""
        ...

    def open(self, database: str) -> Log: ...
    def remove(self, database: str) -> None:
        """Of a database that is no more; its log is closed."""
        ...


class Outboxes:
    """Thread-safe. folders: None = this node takes no writes at EVENTUAL. open_log: the logs of a database with this id."""

    def __init__(
        self,
        folders: OutboxFolders | None,
        mirror: ClusterMirror,
        open_log: Callable[[str], AppendOnly],
        clock: Clock,
        time: GatewayTime,
    ) -> None:
        self._folders = folders
        self._mirror = mirror
        self._open_log = open_log
        self._clock = clock
        self._time = time
        self._lock = threading.Lock()
        self._opened: dict[str, Outbox] = {}  # by id
        self._closed = False

    def reopen(self) -> None:
        """Go on publishing what is left from before."""
        for database_id in [] if self._folders is None else self._folders.known():
            placed = self._mirror.placed().get(database_id)
            if placed is not None:
                self.of(placed)
            else:
                logger.warning("database %s was dropped: what this node was to publish to it is removed", database_id)
                assert self._folders is not None
                self._folders.remove(database_id)

    def of(self, placed: PlacedDatabase) -> Outbox:
        """Of this database, opened at its first use. Raises NOT_IMPLEMENTED, CLOSED."""
        if self._folders is None:
            raise JadeError(
                ErrorCode.NOT_IMPLEMENTED,
                "This node keeps no outbox, so it takes no writes at EVENTUAL: write at QUORUM.",
            )
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "This node is stopping: ask another one.")
            outbox = self._opened.get(placed.id)
            if outbox is None:
                log = self._folders.open(placed.id)
                outbox = Outbox(log, placed.config.shards, self._open_log(placed.id).append, self._clock)
                # What this node takes from now on comes after what it took before a restart, whatever its clock says
                self._time.observe(outbox.newest_time)
                self._opened[placed.id] = outbox
            return outbox

    def end(self, database_id: str) -> None:
        """The database was dropped."""
        with self._lock:
            outbox = self._opened.pop(database_id, None)
        if outbox is None:
            return
        outbox.close()
        assert self._folders is not None
        try:
            self._folders.remove(database_id)
        except (JadeError, OSError) as error:
            logger.warning("the outbox of the dropped database %s stays on the disk: %s", database_id, error)

    def figures(self) -> dict[str, OutboxFigures]:
        """Of each database that this node took writes at EVENTUAL for, by id."""
        with self._lock:
            opened = dict(self._opened)
        return {database_id: outbox.figures() for database_id, outbox in opened.items()}

    def close(self) -> None:
        """What waits gets a moment to be published, and stays for the next start else. Idempotent."""
        with self._lock:
            self._closed = True
            opened, self._opened = list(self._opened.values()), {}
        until_s = self._clock.monotonic_s() + _DRAIN_S
        for outbox in opened:
            outbox.wait_published(max(0.0, until_s - self._clock.monotonic_s()))
            outbox.close()
