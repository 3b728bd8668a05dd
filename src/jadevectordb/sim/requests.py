"""How a process asks the simulated servers: a request on its way, an answer that may not come, and asking again under the same name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.sim.loop import Loop, Process
from jadevectordb.sim.servers import Answer, Server, Servers, Stream

_ANSWER_S = 0.3
_PAUSE_S = (0.05, 0.3)

Handler = Callable[[Server, Answer], None]
NOBODY = object()


@dataclass(frozen=True, slots=True)
class Client:
    """A process on a machine, as the servers' client."""

    loop: Loop
    servers: Servers
    machine: str
    process: Process

    def ask_once(self, server: Server, handler: Handler, wait_s: float) -> Any:
        """The answer; NOBODY when none came in time."""
        network, loop = self.servers.network, self.loop
        fiber = loop.current
        assert fiber is not None
        answers: list[Any] = []
        is_waiting = True

        def reply(answer: Any) -> None:
            def arrives() -> None:
                if is_waiting:
                    answers.append(answer)
                    fiber.wake()

            network.send(server.machine, self.machine, arrives, self.process)

        network.send(self.machine, server.machine, lambda: handler(server, reply), server.process)
        until_s = loop.now_s + wait_s
        while not answers and loop.now_s < until_s:
            fiber.park((until_s - loop.now_s) * self.process.rate + 1e-9)
        is_waiting = False  # what comes now wakes nobody
        return answers[0] if answers else NOBODY

    def ask(self, stream: Stream, handler: Handler, seconds: float, what: str) -> Any:
        """Ask whoever leads until there is an answer; "again" is none. Raises UNAVAILABLE with `undecided`, NOT_FOUND."""
        loop = self.loop
        until_s, wait_s, sent = loop.now_s + seconds, _ANSWER_S, False
        while loop.now_s < until_s:
            if stream.dropped:
                raise JadeError(ErrorCode.NOT_FOUND, f"there is no stream {stream.name}")
            server = stream.reached_by(self.machine)
            if server is not None:
                sent = True
                answer = self.ask_once(server, handler, min(wait_s, until_s - loop.now_s))
                if answer is not NOBODY and answer != "again":
                    return answer
                if answer is NOBODY:
                    wait_s *= 2
            loop.sleep(loop.random.uniform(*_PAUSE_S))
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            f"{what} {stream.name} could not be done within {seconds:g} s; retry",
            details={"undecided": sent},
        )
