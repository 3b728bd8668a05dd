"""One address that this node asks: its connection, made at the first call and made again when it is lost.

While an attempt is under way that may well succeed (the first, or the one right after a connection that had worked), calls wait
for it. Once an attempt failed, calls fail at once with the reason until a later attempt succeeds: who asks can turn to another
replica without waiting. Attempts go on in the background as long as somebody asked within the last minute.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from jadevectordb.adapters.framed_calls import AskedCall, AskingConnection
from jadevectordb.adapters.framed_connection import PATIENCE, Patience
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    NODE_CALLS_MAX,
    NODE_PEER_IDLE_S_MAX,
    NODE_RECONNECT_S_MAX,
    NODE_RECONNECT_S_MIN,
)

logger = logging.getLogger("jadevectordb.nodes")


@dataclass(frozen=True, slots=True)
class PeerState:
    """An address as diagnostics show it.

    node: who is there, "" = not known. refusal: why there is no connection. connections: made so far. calls: under way.
    """

    address: str
    node: str
    connected: bool
    refusal: str
    connections: int
    calls: int


class Peer:
    """Used in the loop only, but for `state`."""

    def __init__(
        self,
        address: str,
        loop: asyncio.AbstractEventLoop,
        identity: NodeIdentity,
        tls: ssl.SSLContext | None,
        now_s: Callable[[], float],
        patience: Patience = PATIENCE,
    ) -> None:
        """address: HOST:PORT, an IPv6 host in brackets. Raises INVALID_ARGUMENT."""
        self.address = address
        self._host, self._port = host_and_port(address)
        self._loop = loop
        self._identity = identity
        self._tls = tls
        self._now_s = now_s
        self._patience = patience
        self._asked_s = now_s()  # when somebody last asked
        self.connection: AskingConnection | None = None  # open
        self._waiting: list[AskedCall] = []  # for the attempt under way, at most NODE_CALLS_MAX
        self._refusal: JadeError | None = None  # of the last attempt, until one succeeds
        self._node = ""
        self._connections = 0

    def ask(self, asked: AskedCall) -> None:
        """Send it, now or once connected. Raises what `AskingConnection.ask` raises, and UNAVAILABLE."""
        self._asked_s = self._now_s()
        if self.connection is not None:
            self.connection.ask(asked)
        elif self._refusal is not None:
            raise self._unreachable(self._refusal)
        else:
            if len(self._waiting) >= NODE_CALLS_MAX:
                self._waiting = [waiting for waiting in self._waiting if waiting.on_answer is not None]
            if len(self._waiting) >= NODE_CALLS_MAX:
                raise self._unreachable(JadeError(ErrorCode.UNAVAILABLE, f"{NODE_CALLS_MAX} calls wait for it already"))
            self._waiting.append(asked)

    def state(self) -> PeerState:
        connection, refusal = self.connection, self._refusal
        return PeerState(
            address=self.address,
            node=self._node,
            connected=connection is not None,
            refusal=refusal.message if refusal is not None and connection is None else "",
            connections=self._connections,
            calls=connection.calls_under_way if connection is not None else 0,
        )

    async def keep(self) -> None:
        """Keep a connection until nobody has asked for a while."""
        pause_s = NODE_RECONNECT_S_MIN
        while True:
            began_s = self._now_s()
            ended = await self._attempt()
            if ended is not None:
                why = await ended
                if self._now_s() - began_s > NODE_RECONNECT_S_MAX:  # it had worked: calls may wait for the next attempt
                    pause_s = NODE_RECONNECT_S_MIN
                    continue
                self._refuse(why)
            if self._now_s() - self._asked_s > NODE_PEER_IDLE_S_MAX:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, NODE_RECONNECT_S_MAX)

    def end(self, why: JadeError) -> None:
        """What waits and what is under way gets the error."""
        self._refusal = why
        if self.connection is not None:
            self.connection.fail(why)
        self._fail_waiting()

    async def _attempt(self) -> asyncio.Future[JadeError] | None:
        """An open connection, as a future of why it ended; None when there is none, `_refusal` says why."""
        opened: asyncio.Future[None] = self._loop.create_future()
        ended: asyncio.Future[JadeError] = self._loop.create_future()

        def on_open() -> None:
            if not opened.done():
                opened.set_result(None)

        def on_end(why: JadeError) -> None:
            self.connection = None  # nobody shall ask through it before `keep` wakes up
            if not ended.done():
                ended.set_result(why)

        connection = AskingConnection(self._loop, self._identity, on_open, on_end, self._patience)
        connect_s = self._patience.connect_s
        try:
            async with asyncio.timeout(connect_s):
                await self._loop.create_connection(
                    lambda: connection,
                    self._host,
                    self._port,
                    ssl=self._tls,
                    ssl_handshake_timeout=connect_s if self._tls else None,
                    ssl_shutdown_timeout=connect_s if self._tls else None,
                )
        except TimeoutError:
            self._refuse(JadeError(ErrorCode.UNAVAILABLE, f"connecting took longer than {connect_s:g} s"))
            return None
        except (OSError, ssl.SSLError) as error:
            self._refuse(JadeError(ErrorCode.UNAVAILABLE, str(error) or repr(error)))
            return None
        try:
            await asyncio.wait((opened, ended), return_when=asyncio.FIRST_COMPLETED)  # the greeting has a deadline
        except asyncio.CancelledError:
            connection.fail(closed())
            raise
        if ended.done():
            self._refuse(ended.result())
            return None
        self._use(connection)
        return ended

    def _use(self, connection: AskingConnection) -> None:
        self.connection = connection
        self._node = connection.greeting.other_node
        self._connections += 1
        self._refusal = None
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            if asked.on_answer is None:
                continue
            try:
                connection.ask(asked)
            except JadeError as error:
                asked.finish(None, error)

    def _refuse(self, why: JadeError) -> None:
        if why.code is not ErrorCode.UNAVAILABLE and (self._refusal is None or self._refusal.message != why.message):
            logger.warning("no connection to the node at %s: %s", self.address, why.message)  # somebody must look at it
        self._refusal = why
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        assert self._refusal is not None
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.finish(None, self._unreachable(self._refusal))

    def _unreachable(self, why: JadeError) -> JadeError:
        if why.code is ErrorCode.CLOSED:
            return why
        who = f"node {self._node} ({self.address})" if self._node else f"the node at {self.address}"
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"{who} can't be reached: {why.message}",
            details={"sent": False, "address": self.address, "cause": why.code.value},
        )


def host_and_port(address: str) -> tuple[str, int]:
    """Raises INVALID_ARGUMENT."""
    host, _, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"{address!r} is no address of a node; HOST:PORT is")
    return host, int(port)


def closed() -> JadeError:
    return JadeError(ErrorCode.CLOSED, "the connections between nodes are closed: this node is stopping")
