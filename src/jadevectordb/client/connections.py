"""Connections of the synchronous client: plain sockets kept open between calls, as many as there are calls at once, up to a bound."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any

from jadevectordb.client.address import Address
from jadevectordb.client.call import Answer
from jadevectordb.client.core import Timeouts
from jadevectordb.client.http1 import AnswerReader
from jadevectordb.model.errors import ErrorCode, JadeError

_RECEIVE_BYTES = 1 << 16
_SEND_BYTES = 1 << 20  # at once, so that each piece has the read timeout for itself
_JOINED_BYTES_MAX = 1 << 16  # head and body up to this size go out in one packet and one call
_TIMEVAL = struct.Struct("@ll")  # seconds and microseconds, as the kernel takes a timeout
_SURELY_OPEN_S = 1.0  # a connection used this short a time ago is not looked at before it is used again


class Connection:
    """One connection, for one call at a time. is_used: it has carried an answer already."""

    __slots__ = ("_is_tls", "_socket", "_timeout_s", "idle_since", "is_used")

    def __init__(self, address: Address, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        self.is_used = False
        self.idle_since = 0.0
        self._is_tls = tls is not None
        self._timeout_s = -1.0
        try:
            plain = socket.create_connection((address.host, address.port), timeout_s)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            raise connect_error(address, error) from error
        if tls is not None:
            try:
                plain = tls.wrap_socket(plain, server_hostname=address.host)
            except (OSError, ValueError) as error:
                plain.close()
                raise connect_error(address, error) from error
        else:
            plain.settimeout(None)
        self._socket = plain

    def exchange(
        self, head: bytes, body: tuple[bytes | memoryview, ...], read_s: float, deadline: float
    ) -> tuple[Answer, bool]:
        """(answer, whether the connection can be used again). deadline: on the monotonic clock, for all of it.

        Raises UNAVAILABLE, TIMEOUT; details["phase"] says how far it came: "send", or "receive" when an answer had begun.
        """
        reader = AnswerReader()
        is_whole = True
        try:
            self._send(head, body, read_s, deadline)
        except (TimeoutError, BlockingIOError):
            raise timed_out("sending the request") from None
        except OSError as error:
            self._hear_out(error)
            is_whole = False
        try:
            data = b""
            feed, receive = reader.feed, self._socket.recv
            self._wait_at_most(read_s, deadline)
            while True:
                data = receive(_RECEIVE_BYTES)
                if feed(data) if data else reader.end():
                    break
                self._wait_at_most(read_s, deadline)
        except (TimeoutError, BlockingIOError):
            raise timed_out("waiting for the answer") from None
        except OSError as error:
            raise broken(error, reader.started) from error
        self.is_used = True
        return Answer(reader.status, reader.headers, reader.body), reader.keep_alive and is_whole

    def _send(self, head: bytes, body: tuple[bytes | memoryview, ...], read_s: float, deadline: float) -> None:
        self._wait_at_most(read_s, deadline)
        if not body:
            self._socket.sendall(head)
        elif sum(map(len, body)) <= _JOINED_BYTES_MAX:
            self._socket.sendall(b"".join((head, *body)))
        else:
            for piece in (head, *body):
                rest = memoryview(piece)
                while rest:
                    self._wait_at_most(read_s, deadline)
                    rest = rest[self._socket.send(rest[:_SEND_BYTES]) :]

    def _hear_out(self, error: OSError) -> None:
        """Sending failed. A server that refuses a request before it has read it (too large, not allowed) says so first."""
        try:
            if not select.select([self._socket], [], [], 0)[0]:
                raise broken(error, False) from error
        except (OSError, ValueError):
            raise broken(error, False) from error

    def _wait_at_most(self, read_s: float, deadline: float) -> None:
        """The kernel keeps the time: it is told when the time changes, where Python's own timeouts cost a poll for every step."""
        timeout_s = min(read_s, deadline - time.monotonic())
        if timeout_s == self._timeout_s:
            return
        if timeout_s <= 0:
            raise TimeoutError
        if self._is_tls:
            self._socket.settimeout(timeout_s)
        else:
            whole = int(timeout_s)
            value = _TIMEVAL.pack(whole, max(1, int((timeout_s - whole) * 1e6)))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self._timeout_s = timeout_s

    def seems_closed(self) -> bool:
        """The server closed it, or sent something nobody asked for: an idle connection has nothing to read."""
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


class Pool:
    """Connections to one server, for any number of threads. The one used last is used first, so that idle ones stay idle."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, timeouts: Timeouts, connections_max: int) -> None:
        self._address = address
        self._tls = tls
        self._timeouts = timeouts
        self._connections_max = connections_max
        self._begin()

    def _begin(self) -> None:
        self._idle: deque[Connection] = deque()
        self._free: SimpleQueue[None] = SimpleQueue()  # a permit for each connection: quicker than a semaphore
        for _ in range(self._connections_max):
            self._free.put(None)
        self._process = os.getpid()
        self._closed = False

    def exchange(
        self,
        head: bytes,
        body: tuple[bytes | memoryview, ...],
        *,
        careful: bool,
        wait_s: float,
        deadline: float,
        connect_s: float | None = None,
    ) -> Answer:
        """One request and its answer on some connection. careful: a request that must not be sent twice.

        connect_s: how long connecting may take, where that is not as usual.

        When the server has closed a kept connection at the very moment it is used, the request goes out once more on a new one.
        """
        if self._process != os.getpid():
            self._begin()  # after a fork the sockets are the parent's
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "The client is closed: make a new one.")
        try:
            self._free.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise timed_out(f"waiting for one of the client's {self._connections_max} connections", "connect") from None
        try:
            while True:
                connection = self._take(careful, deadline, connect_s or self._timeouts.connect_s)
                was_used = connection.is_used
                keep = False
                try:
                    answer, keep = connection.exchange(head, body, self._timeouts.read_s + wait_s, deadline)
                    return answer
                except JadeError as error:
                    stale = was_used and error.code is ErrorCode.UNAVAILABLE and error.details.get("phase") == "send"
                    if not stale or careful:
                        raise
                finally:
                    if keep and not self._closed:
                        connection.idle_since = time.monotonic()
                        self._idle.append(connection)
                    else:
                        connection.close()
        finally:
            self._free.put(None)

    def _take(self, careful: bool, deadline: float, connect_s: float) -> Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if not careful and time.monotonic() - connection.idle_since < _SURELY_OPEN_S:
                return connection
            if not connection.seems_closed():
                return connection
            connection.close()
        left = deadline - time.monotonic()
        if left <= 0:
            raise timed_out("connecting", "connect")
        return Connection(self._address, self._tls, min(connect_s, left))

    def close(self) -> None:
        self._closed = True
        self.end_idle()

    def end_idle(self) -> None:
        """Close the connections that nobody uses now; there can be new ones."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if self._process == os.getpid():
                connection.close()


def tls_context(address: Address, verify: bool | str | ssl.SSLContext, certificate: Any) -> ssl.SSLContext | None:
    """verify: True = the system's authorities; a path = the file of authorities to trust; False = take any certificate; or a
    context of the caller's own. certificate: a client certificate for servers that ask for one: a file with both parts, or
    (certificate file, key file). Raises INVALID_ARGUMENT.
    """
    if not address.is_tls:
        return None
    if isinstance(verify, ssl.SSLContext):
        return verify
    try:
        context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
        if certificate is not None:
            parts = (certificate,) if isinstance(certificate, str | os.PathLike) else tuple(certificate)
            context.load_cert_chain(*parts)
    except (OSError, ValueError, TypeError) as error:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"The files for TLS can't be used ({error}): check verify= and certificate=."
        ) from error
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def connect_error(address: Address, error: Exception) -> JadeError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"The certificate of {address.url} is not trusted ({error.verify_message}): give the file of its authority as "
            "verify='ca.pem'.",
            details={"phase": "tls"},
        )
    if isinstance(error, ssl.SSLError):
        why = f"TLS failed ({error.reason or error}): does the server speak TLS on this port?"
        return JadeError(ErrorCode.UNAVAILABLE, f"No connection to {address.url}: {why}", details={"phase": "tls"})
    if isinstance(error, TimeoutError):
        return JadeError(
            ErrorCode.TIMEOUT,
            f"No connection to {address.url} in time: is it the right address?",
            details={"phase": "connect"},
        )
    why = getattr(error, "strerror", None) or str(error)
    return JadeError(
        ErrorCode.UNAVAILABLE,
        f"No connection to {address.url} ({why}): is the server running, and is this its address?",
        details={"phase": "connect"},
    )


def broken(error: Exception, answer_began: bool) -> JadeError:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return JadeError(
        ErrorCode.UNAVAILABLE,
        f"The connection broke ({why}) before the answer was complete.",
        details={"phase": "receive" if answer_began else "send"},
    )


def timed_out(doing: str, phase: str = "receive") -> JadeError:
    return JadeError(
        ErrorCode.TIMEOUT,
        f"The time for this call ran out while {doing}: try again, or give the client a longer timeout.",
        details={"phase": phase},
    )
