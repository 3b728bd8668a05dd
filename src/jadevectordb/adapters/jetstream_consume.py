"""Reading a stream in order, from the network into a handler, never more ahead than asked for.

A consumer is a cursor that a server keeps for us; it may vanish with that server at any moment. `Consumption` is one consumer
from its creation to its end: it asks for some megabytes at a time (so memory is bounded by what we ask, not by what the
server would like to send), checks that no delivery is missing, and ends with `EndedError` when it hears nothing for
`SILENCE_S`. Whoever uses it then begins another where the last one stopped. Servers send a heartbeat each second while there is
nothing to tell, so a dead one is noticed soon; the default of the client libraries is 18 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from jadevectordb.adapters.jetstream_api import Deadline, ask
from jadevectordb.adapters.nats_connection import Connected, DisconnectedError, NatsConnection

SILENCE_S = 2.5
_HEARTBEAT_S = 1
_EXPIRES_S = 30
_MESSAGES_MAX = 4096  # of one request
_KEPT_IDLE_S = 30  # a consumer that nobody asks any more is forgotten by the servers
_NS = 10**9
_PAYLOAD_SLACK = 9 << 20  # for a message larger than the window

OnMessage = Callable[[int, int, Msg], None]  # sequence in the stream, messages that wait behind it, the message


class EndedError(Exception):
    """This consumer delivers no more: its server is gone, or a delivery was lost."""


class Consumption:
    """One consumer's life. In the loop's thread only."""

    def __init__(self, connection: NatsConnection, stream: str, on_message: OnMessage, *, window_bytes: int) -> None:
        """on_message: called for each message in order; what it raises ends the consumption with it."""
        self._connection = connection
        self._stream = stream
        self._on_message = on_message
        self._window_bytes = window_bytes
        self._delivered = 0  # the consumer's own count
        self._heard_s = 0.0
        self._asked = False  # a request of ours is being served
        self._left = 0  # messages of it still to come at most
        self._oversized = False  # the next message does not fit into the window
        self._failure: BaseException | None = None
        self._stirred = asyncio.Event()
        self._idle = False  # `on_idle` is due
        self._idle_told = False  # since the last delivery
        self._may_ask: Callable[[], bool]
        self._on_idle: Callable[[], Awaitable[None]] | None = None

    async def run(
        self,
        config: dict[str, Any],
        deadline: Deadline,
        may_ask: Callable[[], bool],
        on_idle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Create the consumer and deliver until it ends. may_ask: whether there is room for another window.

        on_idle: awaited when nothing came for a heartbeat although it was asked for: once, and then with each request
        that expires.

        Raises EndedError, ApiError, UNAVAILABLE (it could not be created), and what `on_message` and `on_idle` raised.
        """
        self._may_ask = may_ask
        self._on_idle = on_idle
        connected = await asyncio.wait_for(self._connection.connected(), deadline.left_s(1e6))
        name = secrets.token_hex(12)
        settings = {
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _KEPT_IDLE_S * _NS,
            **config,
        }
        body = {"stream_name": self._stream, "config": settings, "action": "create"}
        await ask(self._connection, f"CONSUMER.CREATE.{self._stream}.{name}", body, deadline)
        inbox = f"_INBOX.{secrets.token_hex(11)}"
        forget = connected.at_end(self.stir)
        try:
            subscription = await connected.subscribe(inbox, self._receive)
            try:
                await self._serve(connected, name, inbox)
            finally:
                with contextlib.suppress(nats.errors.Error, OSError):
                    await subscription.unsubscribe()
        except DisconnectedError as error:
            raise EndedError(str(error)) from error
        finally:
            forget()
            with contextlib.suppress(DisconnectedError):
                await connected.send(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}", b"")

    def stir(self) -> None:
        """There may be room again."""
        self._stirred.set()

    def abandon(self) -> None:
        """End it: another consumer may be on a server with a better copy."""
        self._failure = EndedError("another copy is to be read")
        self.stir()

    async def _serve(self, connected: Connected, name: str, inbox: str) -> None:
        loop = self._connection.loop
        self._heard_s = loop.time()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{name}"
        while True:
            if self._failure is not None:
                raise self._failure
            if connected.ended.is_set():
                raise EndedError("the connection ended")
            if self._idle:
                self._idle, self._idle_told = False, True
                if self._on_idle is not None:
                    await self._on_idle()
                self._heard_s = loop.time()
            if not self._asked and self._may_ask():
                self._asked, self._left = True, _MESSAGES_MAX
                self._heard_s = loop.time()
                await connected.send(subject, self._request(), reply=inbox)
            silent_s = loop.time() - self._heard_s
            if self._asked and silent_s >= SILENCE_S:
                raise EndedError(f"nothing was heard for {SILENCE_S:g} s")
            self._stirred.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), SILENCE_S - silent_s if self._asked else _HEARTBEAT_S)

    def _request(self) -> bytes:
        window = self._window_bytes + (_PAYLOAD_SLACK if self._oversized else 0)
        self._oversized = False
        return json.dumps(
            {
                "batch": _MESSAGES_MAX,
                "max_bytes": window,
                "expires": _EXPIRES_S * _NS,
                "idle_heartbeat": _HEARTBEAT_S * _NS,
            }
        ).encode()

    async def _receive(self, message: Msg) -> None:
        if self._failure is not None:
            return
        self._heard_s = self._connection.loop.time()
        try:
            if message.reply.startswith("$JS.ACK."):
                self._deliver(message)
            else:
                self._hear_status(message)
        except Exception as error:
            self._failure = error
            self.stir()

    def _deliver(self, message: Msg) -> None:
        words = message.reply.split(".")
        at = 5 if len(words) < 12 else 7
        sequence, count, pending = int(words[at]), int(words[at + 1]), int(words[at + 3])
        if count != self._delivered + 1:
            raise EndedError(f"delivery {self._delivered + 1} was lost")
        self._delivered = count
        self._idle = self._idle_told = False
        self._left -= 1
        if self._left == 0:
            self._finish_request()
        self._on_message(sequence, pending, message)

    def _hear_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":  # a heartbeat
            self._is_idle(again=False)
            return
        if status == "408" or (status == "409" and "MaxBytes" in description):
            self._oversized = "MaxBytes" in description and self._left == _MESSAGES_MAX
            self._is_idle(again=status == "408")
            self._finish_request()
            return
        raise EndedError(f"{status} {description}")

    def _is_idle(self, *, again: bool) -> None:
        if again or not self._idle_told:
            self._idle = True
            self.stir()

    def _finish_request(self) -> None:
        self._asked = False
        self.stir()
