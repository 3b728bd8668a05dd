"""The transport port over the simulated network: connections that keep their order, stall, break and are made anew.

As the real one: one connection a peer and direction; a message that was sent while the way is cut arrives when it is open again,
unless the connection was found dead before; a peer that is silent for `_SILENT_S` is; a process that ends takes its connections
with it. Calls and answers travel as the bytes they are on the real wire. Callbacks run in one fiber, the transport's loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import ANSWERS, Failure
from jadevectordb.ports.transport import Answerer, OnAnswer, Pending
from jadevectordb.sim.loop import Fiber, KilledError, Loop, Process
from jadevectordb.sim.network import Network

_SILENT_S = 3.0
_LOOK_S = 1.0
_CONNECT_S = 1.0
_REFUSED_FOR_S = 0.05
_FRAME_BYTES_MAX = 16 << 20

OnDefect = Callable[[BaseException, str], None]


class NodeLoop:
    """One fiber of a process that runs actions in the order in which they come."""

    def __init__(self, loop: Loop, process: Process, on_defect: OnDefect) -> None:
        self._on_defect = on_defect
        self._process = process
        self._actions: deque[Callable[[], None]] = deque()
        self._idle = False
        self.closed = False
        self.fiber: Fiber = loop.spawn(process, self._run, "transport")

    def post(self, action: Callable[[], None]) -> None:
        self._actions.append(action)
        if self._idle:
            self._idle = False
            self.fiber.wake()

    def _run(self) -> None:
        while not self.closed:
            while self._actions:
                try:
                    self._actions.popleft()()
                except Exception as error:  # of a callback: told, and no other call is harmed
                    self._on_defect(error, f"{self._process.name}: a callback")
            self._idle = True
            self.fiber.park(None)


class _Call:
    def __init__(self, number: int, on_answer: OnAnswer, kind: type[msgspec.Struct]) -> None:
        self.number = number
        self.on_answer = on_answer
        self.kind = kind
        self.connection: _Connection | None = None
        self.over = False

    def cancel(self) -> None:
        if not self.over:
            self.over = True
            if self.connection is not None:
                self.connection.give_up(self)


class _Timer:
    def __init__(self) -> None:
        self.over = False

    def cancel(self) -> None:
        self.over = True


class _Connection:
    """From one transport to one server, as long as it lives. ready: the other side has answered the first time."""

    def __init__(self, client: SimTransport, server: SimServer) -> None:
        self.client = client
        self.server = server
        self.network = client.network
        self.ready = False
        self.dead = False
        self.calls: dict[int, _Call] = {}
        self._answering: dict[int, Callable[[], None] | None] = {}  # at the server: what gives a call up
        self._arrives_s = [0.0, 0.0]  # of the newest message to the server, and back
        self._stalled: list[tuple[bool, Callable[[], None]]] = []
        self._silent_since_s: float | None = None
        self._watched = False

    # Bytes on their way

    def _send(self, back: bool, arrives: Callable[[], None]) -> None:
        source, target = self.client.machine, self.server.machine
        if back:
            source, target = target, source
        if not self.network.is_open(source, target):
            self._stalled.append((back, arrives))
            return
        loop = self.network.loop
        at_s = max(loop.now_s + self.network.way_s(source, target), self._arrives_s[back])
        self._arrives_s[back] = at_s

        def arrive() -> None:
            if self.dead:
                return
            if self.network.is_open(source, target):
                arrives()
            else:
                self._stalled.append((back, arrives))

        loop.after(at_s - loop.now_s, arrive, self.client.process if back else self.server.process)

    def flush(self) -> None:
        """The network has changed."""
        stalled, self._stalled = self._stalled, []
        for back, arrives in stalled:
            self._send(back, arrives)

    # Calls

    def begin(self, call: _Call, data: bytes) -> None:
        call.connection = self
        self.calls[call.number] = call
        self._send(False, lambda: self.server.node_loop.post(lambda: self._arrived(call.number, call.kind, data)))
        self.watch()

    def _arrived(self, number: int, kind: type[msgspec.Struct], data: bytes) -> None:
        """In the server's loop."""
        if self.dead or self.server.closed:
            return
        done = False

        def reply(answer: Any, error: Exception | None) -> None:
            nonlocal done
            if not done:
                done = True
                self._answering.pop(number, None)
                self._send_answer(number, answer, error)

        self._answering[number] = None
        try:
            give_up = self.server.answerer.answer(msgspec.msgpack.decode(data, type=kind), reply)
        except KilledError:
            raise
        except Exception as error:
            reply(None, error)
            return
        if number in self._answering:
            self._answering[number] = give_up

    def _send_answer(self, number: int, answer: Any, error: Exception | None) -> None:
        if self.dead or self.server.closed:
            return
        failure: bytes | None = None
        data = b""
        if error is None:
            is_bytes = isinstance(answer, bytes | bytearray | memoryview)
            data = bytes(answer) if is_bytes else msgspec.msgpack.encode(answer)
        else:
            if not isinstance(error, JadeError):
                self.server.on_defect(error, f"{self.server.machine}: an answer")
                error = JadeError(ErrorCode.INTERNAL_ERROR, "The node failed to answer: its log says more.")
            failure = msgspec.msgpack.encode(
                Failure(code=str(error.code), message=error.message, details=error.details)
            )
        self._send(True, lambda: self.client.node_loop.post(lambda: self._returned(number, data, failure)))

    def _returned(self, number: int, data: bytes, failure: bytes | None) -> None:
        """In the client's loop."""
        call = self.calls.pop(number, None)
        if call is None or call.over:
            return
        call.over = True
        if failure is not None:
            told = msgspec.msgpack.decode(failure, type=Failure)
            call.on_answer(None, JadeError(ErrorCode(told.code), told.message, details=told.details))
            return
        answers = ANSWERS[call.kind]
        call.on_answer(data if answers is None else msgspec.msgpack.decode(data, type=answers), None)

    def give_up(self, call: _Call) -> None:
        self.calls.pop(call.number, None)
        self._send(False, lambda: self.server.node_loop.post(lambda: self._given_up(call.number)))

    def _given_up(self, number: int) -> None:
        action = self._answering.pop(number, None)
        if action is not None:
            action()

    # The end

    def watch(self) -> None:
        """A peer that is silent is found out while somebody waits for it."""
        if self._watched or self.dead:
            return
        self._watched = True

        def look() -> None:
            self._watched = False
            if self.dead or not self.calls:
                self._silent_since_s = None
                return
            loop = self.network.loop
            silent = (
                not self.network.is_joined(self.client.machine, self.server.machine)
                or self.server.process.paused_until_s > loop.now_s
            )
            if not silent:
                self._silent_since_s = None
            elif self._silent_since_s is None:
                self._silent_since_s = loop.now_s
            elif loop.now_s - self._silent_since_s >= _SILENT_S - _LOOK_S:
                self.client.node_loop.post(lambda: self.die("it was silent for too long"))
                return
            self.watch()

        self.network.loop.after(_LOOK_S, look, self.client.process)

    def die(self, why: str, code: ErrorCode = ErrorCode.UNAVAILABLE) -> None:
        """In the client's loop."""
        if self.dead:
            return
        self.dead = True
        self.client.forget(self)
        calls, self.calls = self.calls, {}
        for call in calls.values():
            if not call.over:
                call.over = True
                call.on_answer(None, _lost(self.server.address, why, sent=True, code=code))
        answering, self._answering = self._answering, {}
        for action in answering.values():
            if action is not None and not self.server.closed:
                self.network.loop.after(
                    self.network.way_s(self.client.machine, self.server.machine),
                    lambda action=action: self.server.node_loop.post(action),  # type: ignore[misc]
                    self.server.process,
                )


class SimServer:
    """Where a process answers. The network's `listeners` know it by its address."""

    def __init__(
        self,
        listeners: dict[str, SimServer],
        address: str,
        process: Process,
        node_loop: NodeLoop,
        answerer: Answerer,
        on_defect: OnDefect,
    ) -> None:
        self.address = address
        self.machine = address.rpartition(":")[0]
        self.process = process
        self.node_loop = node_loop
        self.answerer = answerer
        self.on_defect = on_defect
        self.closed = False
        self.connections: list[_Connection] = []
        self._listeners = listeners
        listeners[address] = self

    def close(self) -> None:
        """It listens no more, and its connections end. Also what becomes of it when its process is killed."""
        if self.closed:
            return
        self.closed = True
        if self._listeners.get(self.address) is self:
            del self._listeners[self.address]
        for connection in self.connections:
            client, network = connection.client, connection.network
            if self.process.alive:
                for action in list(connection._answering.values()):
                    if action is not None:
                        self.node_loop.post(action)
                connection._answering.clear()

            def end(connection: _Connection = connection, client: SimTransport = client) -> None:
                client.node_loop.post(lambda: connection.die("the other side ended"))

            network.send(self.machine, client.machine, end, client.process)


class SimTransport:
    """The transport port of one process."""

    def __init__(
        self,
        loop: Loop,
        network: Network,
        listeners: dict[str, SimServer],
        machine: str,
        process: Process,
        on_defect: OnDefect | None = None,
    ) -> None:
        self._loop = loop
        self.network = network
        self.machine = machine
        self.process = process
        self._listeners = listeners
        self._on_defect = on_defect or loop.found_defect
        self.node_loop = NodeLoop(loop, process, self._on_defect)
        self._connections: dict[str, _Connection] = {}
        self._connecting: dict[str, list[tuple[_Call, bytes]]] = {}
        self._refused_until_s: dict[str, float] = {}
        self._number = 0
        self._closed = False
        network.on_change.append(self._network_changed)

    def _network_changed(self) -> None:
        for connection in list(self._connections.values()):
            connection.flush()

    # The port

    def begin(self, address: str, call: msgspec.Struct, timeout_s: float, on_answer: OnAnswer) -> Pending:
        self._number += 1
        made = _Call(self._number, on_answer, type(call))
        data = msgspec.msgpack.encode(call)
        if self._closed:
            self._fail(made, _closed())
        elif len(data) > _FRAME_BYTES_MAX:
            self._fail(made, JadeError(ErrorCode.REQUEST_TOO_LARGE, f"A call of {len(data)} bytes is too large."))
        else:
            self.after(timeout_s, lambda: self._out_of_time(address, made, timeout_s))
            self._dispatch(address, made, data)
        return made

    def _dispatch(self, address: str, call: _Call, data: bytes) -> None:
        connection = self._connections.get(address)
        if connection is not None:
            connection.begin(call, data)
        elif self._loop.now_s < self._refused_until_s.get(address, 0.0):
            self._fail(call, _lost(address, "no connection could be made a short while ago", sent=False))
        elif address in self._connecting:
            self._connecting[address].append((call, data))
        else:
            self._connecting[address] = [(call, data)]
            self._connect(address)

    def _fail(self, call: _Call, error: JadeError) -> None:
        def fail() -> None:
            if not call.over:
                call.over = True
                call.on_answer(None, error)

        self.node_loop.post(fail)

    def _connect(self, address: str) -> None:
        machine = address.rpartition(":")[0]
        network, loop = self.network, self._loop
        if not network.is_joined(self.machine, machine):
            loop.after(_CONNECT_S, lambda: self.node_loop.post(lambda: self._connected(address, None)), self.process)
            return
        both_ways_s = network.way_s(self.machine, machine) + network.way_s(machine, self.machine)

        def there() -> None:
            server = self._listeners.get(address)
            if server is not None and server.process.paused_until_s > loop.now_s:
                server = None  # nobody shakes hands
            self.node_loop.post(lambda: self._connected(address, server))

        loop.after(both_ways_s, there, self.process)

    def _connected(self, address: str, server: SimServer | None) -> None:
        waiting = self._connecting.pop(address, [])
        if server is None or server.closed or self._closed:
            self._refused_until_s[address] = self._loop.now_s + _REFUSED_FOR_S
            for call, _ in waiting:
                if not call.over:
                    call.over = True
                    call.on_answer(None, _lost(address, "nobody answers there", sent=False))
            return
        connection = self._connections[address] = _Connection(self, server)
        server.connections.append(connection)
        for call, data in waiting:
            if not call.over:
                connection.begin(call, data)

    def _out_of_time(self, address: str, call: _Call, timeout_s: float) -> None:
        if call.over:
            return
        sent = call.connection is not None
        call.cancel()
        call.on_answer(
            None,
            JadeError(ErrorCode.TIMEOUT, f"{address} did not answer within {timeout_s:g} s.", details={"sent": sent}),
        )

    def forget(self, connection: _Connection) -> None:
        if self._connections.get(connection.server.address) is connection:
            del self._connections[connection.server.address]
        if connection in connection.server.connections:
            connection.server.connections.remove(connection)

    def after(self, delay_s: float, action: Callable[[], None]) -> Pending:
        timer = _Timer()
        due_s = self.now_s() + delay_s

        def fire() -> None:
            if timer.over or self._closed:
                return
            left_s = due_s - self.now_s()
            if left_s > 0:  # rounding
                self._loop.after(left_s / self.process.rate + 1e-9, lambda: self.node_loop.post(fire), self.process)
                return
            timer.over = True
            action()

        self._loop.after(delay_s / self.process.rate, lambda: self.node_loop.post(fire), self.process)
        return timer

    def run(self, action: Callable[[], None]) -> None:
        if self._closed:
            raise _closed()
        self.node_loop.post(action)

    def now_s(self) -> float:
        return self.process.offset_s + self.process.rate * self._loop.now_s

    def call(self, address: str, call: msgspec.Struct, timeout_s: float) -> Any:
        fiber = self._loop.current
        assert fiber is not None and fiber is not self.node_loop.fiber, "not from the loop"
        done: list[tuple[Any, Exception | None]] = []

        def on_answer(answer: Any, error: Exception | None) -> None:
            done.append((answer, error))
            fiber.wake()

        def begin() -> None:
            self.begin(address, call, timeout_s, on_answer)

        self.run(begin)
        while not done:
            fiber.park(None)
        answer, error = done[0]
        if error is not None:
            raise error
        return answer

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.network.on_change.remove(self._network_changed)

        def end() -> None:
            for connection in list(self._connections.values()):
                connection.die("this node stops", ErrorCode.CLOSED)
            for waiting in self._connecting.values():
                for call, _ in waiting:
                    self._fail(call, _closed())

        self.node_loop.post(end)


def _lost(address: str, why: str, *, sent: bool, code: ErrorCode = ErrorCode.UNAVAILABLE) -> JadeError:
    return JadeError(code, f"The call to {address} failed: {why}.", details={"sent": sent})


def _closed() -> JadeError:
    return JadeError(ErrorCode.CLOSED, "This node's connections are closed.", details={"sent": False})
