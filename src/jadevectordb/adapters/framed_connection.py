"""One connection between two nodes, as both ends see it: frames, the greeting, pings, and bounds on what waits to be sent.

Whether the other side is alive is judged by bytes: after a second without any it is pinged, after three it is given up. Looks
are counted, not seconds: if this process was stopped for a while, that is one look, and not the other side's silence.
A side that takes bytes slowly is not silent: while more waits to be sent than NODE_UNSENT_BYTES_HIGH, each look at which it took
some counts as a sign of life. Meanwhile no further calls of it are begun or read, so what it asks for can't pile up here. Answers
are always read, or two nodes that both wait for the other to read would wait for ever.

A write to a socket costs more than all else that a call does here, so small frames of one round of the loop go out as one.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import cast

from jadevectordb.adapters import framed_wire as wire
from jadevectordb.adapters.framed_greeting import GREETING_BYTES_MAX, NONCE_BYTES, Greeting, NodeIdentity, Side
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    NODE_BEAT_S,
    NODE_BEATS_IDLE_MAX,
    NODE_BEATS_SILENT_MAX,
    NODE_CONNECT_S_MAX,
    NODE_FRAME_BYTES_MAX,
    NODE_GREETING_S_MAX,
    NODE_UNSENT_BYTES_HIGH,
    NODE_UNSENT_BYTES_MAX,
)

_CHOKED_LOOK_S = 0.01  # how often a side that reads slowly is looked at
_TOGETHER_BYTES_MAX = 1 << 17  # small frames that go out as one


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the other side is waited for. beats_silent: looks without a byte, NODE_BEAT_S apart, until it is given up."""

    connect_s: float = NODE_CONNECT_S_MAX
    greeting_s: float = NODE_GREETING_S_MAX
    beats_silent: int = NODE_BEATS_SILENT_MAX


PATIENCE = Patience()


class FramedConnection(asyncio.Protocol):
    """Used in the loop only. Its ends say what calls and answers mean: `opened`, `received`, `ended`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, side: Side, identity: NodeIdentity, patience: Patience = PATIENCE
    ) -> None:
        self.loop = loop
        self._patience = patience
        self.greeting = Greeting(side, identity, secrets.token_bytes(NONCE_BYTES))
        self.is_open = False  # greeted, and not ended
        self.remote = "?"  # HOST:PORT of the other end
        self.why_ended: JadeError | None = None  # the first reason
        self._transport: asyncio.Transport
        self._is_ended = False
        self._splitter = wire.Splitter(GREETING_BYTES_MAX)
        self._together: list[bytes] = []  # small frames of this round of the loop,
        self._together_bytes = 0  # and how many bytes they have
        self._held: list[wire.Frame] = []  # read, and to be taken when the other side took what waits for it
        self._looks_silent = 0
        self._unsent_bytes_before = 0
        self._timer: asyncio.TimerHandle | None = None
        self._last_word: asyncio.TimerHandle | None = None

    # --- for its ends to say ------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The other side has proved itself."""
        raise NotImplementedError

    def received(self, number: int, kind: int, code: int, payload: memoryview) -> None:
        """A frame of a call; payload is a view that must not be kept. Raises a JadeError when the frame makes no sense."""
        raise NotImplementedError

    def ended(self, why: JadeError) -> None:
        """Called once, however it ended, opened or not."""
        raise NotImplementedError

    def gone(self) -> None:
        """The socket is closed: after `ended`, at once or when what was written has gone out."""

    @property
    def is_choked(self) -> bool:
        """More waits to be sent than should."""
        return self._unsent_bytes > NODE_UNSENT_BYTES_HIGH

    @property
    def _unsent_bytes(self) -> int:
        return self._together_bytes + self._transport.get_write_buffer_size()

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, buffers: tuple[bytes, ...]) -> None:
        if self._is_ended:
            return
        if len(buffers) == 1:
            if not self._together:
                self.loop.call_soon(self._write_together)
            self._together.append(buffers[0])
            self._together_bytes += len(buffers[0])
            if self._together_bytes <= _TOGETHER_BYTES_MAX:
                return
            self._write_together()
        else:
            self._write_together()
            self._transport.writelines(buffers)
        if self._unsent_bytes > NODE_UNSENT_BYTES_MAX:
            self.fail(_unavailable(f"more than {NODE_UNSENT_BYTES_MAX:,} bytes wait to be sent to it"))

    def _write_together(self) -> None:
        frames = self._together
        if frames:
            self._together, self._together_bytes = [], 0
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def fail(self, why: JadeError) -> None:
        """Give the connection up."""
        self.why_ended = self.why_ended or why
        self._transport.abort()
        self._end()

    def close(self, why: JadeError) -> None:
        """What was written still goes out, if the other side takes it soon."""
        self.why_ended = self.why_ended or why
        self._write_together()
        self._transport.close()
        self._last_word = self.loop.call_later(NODE_GREETING_S_MAX, self._transport.abort)
        self._end()

    def refuse(self, why: JadeError) -> None:
        """Say why, then end: the other side's log shall not have to guess."""
        self.send(wire.pack(0, wire.REFUSAL, 0, wire.failure_payload(why)))
        self.close(why)

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # not by inheritance in uvloop
        name = transport.get_extra_info("peername")
        self.remote = f"{name[0]}:{name[1]}" if name else "?"
        self._timer = self.loop.call_later(self._patience.greeting_s, self._greeting_late)
        self._reply_greeting(self.greeting.begin())

    def data_received(self, data: bytes) -> None:
        self._looks_silent = 0
        try:
            frames = self._splitter.feed(data)
            if self._held:  # TLS hands over what it had decrypted when reading was paused
                self._held += frames
            else:
                self._take(frames)
        except JadeError as error:
            self.refuse(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.why_ended = self.why_ended or _unavailable(str(error) if error else "the other side closed it")
        if self._last_word is not None:
            self._last_word.cancel()
        self._end()
        self.gone()

    # --- the inside ---------------------------------------------------------------------------------------------------

    def _take(self, frames: list[wire.Frame]) -> None:
        for position, (number, kind, code, payload) in enumerate(frames):
            if self._is_ended:
                return
            if not self.is_open:
                self._greet(kind, payload)
            elif kind == wire.CALL and self.is_choked:
                self._held = frames[position:]
                self._transport.pause_reading()
                self.loop.call_later(_CHOKED_LOOK_S, self._go_on)
                return
            elif kind == wire.PING:
                self.send((wire.signal(0, wire.PONG),))
            elif kind == wire.REFUSAL:
                self.fail(wire.failure_error(payload))
            elif kind != wire.PONG:
                self.received(number, kind, code, payload)

    def _go_on(self) -> None:
        if self._is_ended:
            return
        if self.is_choked:
            self.loop.call_later(_CHOKED_LOOK_S, self._go_on)
            return
        frames, self._held = self._held, []
        self._transport.resume_reading()
        try:
            self._take(frames)
        except JadeError as error:
            self.refuse(error)

    def _greet(self, kind: int, payload: memoryview) -> None:
        if kind == wire.REFUSAL:
            try:
                self.greeting.receive(kind, payload)
            except JadeError as error:
                self.fail(error)
            return
        self._reply_greeting(self.greeting.receive(kind, payload))
        if self.greeting.is_done:
            assert self._timer is not None
            self._timer.cancel()
            self._timer = self.loop.call_later(NODE_BEAT_S, self._look)
            self._splitter.payload_bytes_max = NODE_FRAME_BYTES_MAX
            self.is_open = True
            self.opened()

    def _reply_greeting(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            self.send(wire.pack(0, kind, 0, payload))

    def _greeting_late(self) -> None:
        self.fail(_unavailable(f"it was silent for {self._patience.greeting_s:g} s instead of greeting"))

    def _look(self) -> None:
        self._looks_silent += 1
        if self.is_choked:
            unsent_bytes = self._unsent_bytes
            if unsent_bytes < self._unsent_bytes_before:
                self._looks_silent = 0
            self._unsent_bytes_before = unsent_bytes
        if self._looks_silent >= self._patience.beats_silent:
            self.fail(_unavailable(f"it was silent for {self._patience.beats_silent * NODE_BEAT_S:g} s"))
            return
        if self._looks_silent >= NODE_BEATS_IDLE_MAX and not self.is_choked:
            self.send((wire.signal(0, wire.PING),))
        self._timer = self.loop.call_later(NODE_BEAT_S, self._look)

    def _end(self) -> None:
        if self._is_ended:
            return
        self._is_ended, self.is_open = True, False
        self._held.clear()
        self._together.clear()
        self._together_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
        assert self.why_ended is not None
        self.ended(self.why_ended)


def _unavailable(why: str) -> JadeError:
    return JadeError(ErrorCode.UNAVAILABLE, why)
