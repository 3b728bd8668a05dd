"""What a node finds out about the cluster's nats-servers before it relies on them: whose they are, and why they can't be used.

A node that can't start has a person waiting for the reason: so each server is asked by itself, and named with what it said.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from jadevectordb.adapters.jetstream_api import ApiError, Deadline, ask, get_message
from jadevectordb.adapters.kv_record import decode_record
from jadevectordb.adapters.nats_config import Credentials, TlsFiles
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.nats_server import NatsServer
from jadevectordb.adapters.store_keys import subject_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock

logger = logging.getLogger("jadevectordb.cluster")
_REFUSAL_S = 2.5  # an attempt to connect takes at most two,
_REFUSAL_S_MAX = 10.0  # but on a busy machine nothing may have been heard by then
_REFUSAL_LOOK_S = 0.2
_NAMES_S = 10.0
_TELL_S = 5.0  # between two lines about what a starting node waits for
_BUCKET = "KV_"


@dataclass(frozen=True, slots=True)
class Reach:
    """How nats-servers are connected to. credentials: None = the URLs hold what is needed."""

    clock: Clock
    credentials: Credentials | None
    tls: TlsFiles | None

    def connect(self, servers: Seq[str], name: str) -> NatsConnection:
        """As `NatsConnection`: goes on in the background."""
        return NatsConnection(servers, self.clock, credentials=self.credentials, tls=self.tls, name=name)

    def await_usable(
        self, connection: NatsConnection, own: NatsServer | None, servers: Seq[str], wait_s: float
    ) -> None:
        """Until the connection is there, and the own server, if any, is one of enough. servers: all of them.

        Raises UNAVAILABLE naming those that can't be used, and why.
        """
        until_s = self.clock.monotonic_s() + wait_s

        def left_s() -> float:
            return max(0.0, until_s - self.clock.monotonic_s())

        logger.info("waiting for the nats-servers of the cluster")
        while not _await_connected(connection, min(_TELL_S, left_s())):
            logger.info("not connected yet: %s", connection.state.refusal)
            if not left_s():
                raise self._unusable("none of them answers", servers, wait_s)
        if own is not None:
            try:
                own.wait_ready(left_s())
            except JadeError as error:
                raise self._unusable(str(error.details.get("reason", error.message)), servers, wait_s) from error

    def _unusable(self, reason: str, servers: Seq[str], wait_s: float) -> JadeError:
        refusals = self.refusals(servers)
        told = "; ".join(refusals) or f"{reason}, though all answer: their ports for each other may be wrong"
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"The cluster's nats-servers could not be used within {wait_s:g} s ({told}). Start the other nodes, and give all nodes "
            "the same cluster.name, cluster.join, cluster.nats_nodes and secret.",
            details={"refusals": refusals},
        )

    def refusals(self, servers: Seq[str]) -> list[str]:
        """Each of these that can't be used now, with the reason; passwords in URLs are left out."""
        connections = [self.connect([server], "looking") for server in servers]
        try:
            began_s = self.clock.monotonic_s()
            told = []
            for server, connection in zip(servers, connections, strict=True):
                if not self._connects(connection, began_s):
                    told.append(f"{_address_of(server)}: {_explained(connection.state.refusal)}")
            return told
        finally:
            for connection in connections:
                connection.close()

    def _connects(self, connection: NatsConnection, began_s: float) -> bool:
        """Whether it does, or something was heard that stands against it, or nothing for long."""
        is_there = _await_connected(connection, max(0.0, began_s + _REFUSAL_S - self.clock.monotonic_s()))
        while not is_there and not connection.state.refusal:
            left_s = began_s + _REFUSAL_S_MAX - self.clock.monotonic_s()
            if left_s <= 0:
                break
            is_there = _await_connected(connection, min(_REFUSAL_LOOK_S, left_s))
        return is_there

    def record_kept(self, servers: Seq[str], bucket: str, key: str, wait_s: float) -> bytes | None:
        """A record of the metadata store that these servers keep; None when there is none, or nobody says in time."""
        connection = self.connect(servers, "looking")

        async def read() -> bytes | None:
            deadline = Deadline(connection, wait_s)
            stored = await get_message(
                connection, _BUCKET + bucket, deadline, subject=f"$KV.{bucket}.{subject_of(key)}"
            )
            found = None if stored is None else decode_record(key, stored.data or b"")
            return None if found is None or isinstance(found, JadeError) else found.value

        try:
            return connection.call(read(), wait_s)
        except (ApiError, JadeError):
            return None
        finally:
            connection.close()


def _await_connected(connection: NatsConnection, wait_s: float) -> bool:
    """Wait for it; whether it came. Raises CLOSED."""

    async def wait() -> bool:
        try:
            await asyncio.wait_for(connection.connected(), wait_s)
        except TimeoutError:
            return False
        return True

    return connection.call(wait(), wait_s)


def refuse_other_buckets(connection: NatsConnection, bucket: str) -> None:
    """Servers that nodes run keep one cluster: with another name this node would quietly begin a second one on them.

    bucket: of the metadata store. Raises CONFLICT, UNAVAILABLE.
    """

    async def read() -> list[str]:
        answer = await ask(connection, "STREAM.NAMES", {"subject": "$KV.>"}, Deadline(connection, _NAMES_S))
        return [str(name).removeprefix(_BUCKET) for name in answer.get("streams") or []]

    there = connection.call(read(), _NAMES_S)
    if there and bucket not in there:
        raise JadeError(
            ErrorCode.CONFLICT,
            f"The nats-server at {_address_of(connection.state.server)} keeps {', '.join(sorted(there))}, not {bucket}: it is of a cluster "
            "with another name. Give this node that cluster.name, or the addresses of its own cluster.",
            details={"found": sorted(there)},
        )


def _address_of(server: str) -> str:
    return server.rpartition("://")[2].rpartition("@")[2]


def _explained(refusal: str) -> str:
    reason = refusal.partition("://")[2].partition(": ")[2] or refusal
    if "Authorization Violation" in reason:
        return "it does not take the secret that this node was given"
    if not reason or "TimeoutError" in reason:
        return "no nats-server answers there"
    return re.sub(r"^(nats: |\[Errno -?\d+\] )", "", reason)
