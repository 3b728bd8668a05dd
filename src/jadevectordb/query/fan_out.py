"""Asks questions of a database's shards: directly where this node has all replicas, else node by node.

How one question finds its way is told in `asking`. Who asks waits in a thread (`ask`, `ask_all`), or is in the transport's loop
and is called when the answers are there (`begin`); a coroutine that awaits an `Ask` leaves that to whoever carries it out.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CALLER_GRACE_S, NODE_HERE_US_MAX
from jadevectordb.ports.transport import Transport
from jadevectordb.query.asking import SILENT_FACTOR, SILENT_S_MIN, Asking
from jadevectordb.query.awaiting import GiveUp, Step, Then
from jadevectordb.query.balancer import Balancer
from jadevectordb.query.known_places import KnownPlaces
from jadevectordb.query.question import (
    ELSEWHERE,
    Answered,
    Gathered,
    OnDone,
    OwnReplicas,
    Picture,
    Question,
    as_jade_error,
    asked_of,
    is_late,
)
from jadevectordb.query.routing import route


class FanOut:
    """local: answers for the own node's replicas; None when it has none. here_us: what a search may cost that the caller does himself.

    in_gateway: the same over a transport in the loop that serves clients, where and while there is one.
    """

    def __init__(
        self,
        transport: Transport,
        picture: Picture,
        balancer: Balancer,
        node: str,
        local: OwnReplicas | None,
        here_us: float = NODE_HERE_US_MAX,
        known: KnownPlaces | None = None,
    ) -> None:
        self.transport = transport
        self.picture = picture
        self.balancer = balancer
        self.node = node
        self.local = local
        self.in_gateway: FanOut | None = None
        self._here_us = here_us
        self.known = KnownPlaces() if known is None else known  # what answers have shown so far

    def over(self, transport: Transport, here_us: float) -> FanOut:
        """The same, of the same knowledge of nodes, over another transport."""
        return FanOut(transport, self.picture, self.balancer, self.node, self.local, here_us, self.known)

    def ask(self, question: Question) -> Gathered:
        """Wait for the answers. Raises as `Gathered.checked`. Not to be called in a loop."""
        gathered = self._ask_here(question, _answer_of) or self.ask_all([question])[0]
        return gathered.checked(question)

    def begin(self, question: Question, on_done: OnDone) -> GiveUp | None:
        """Ask from the transport's loop. on_done may be called before this returns; the result gives up."""
        gathered = self._ask_here(question, _answer_at_once)
        if gathered is not None:
            on_done(gathered)
            return None

        def done(gathered: Gathered) -> None:
            self._note(question, gathered)
            on_done(gathered)

        asking = Asking(self, question, done)
        asking.begin()
        return asking.cancel

    def _note(self, question: Question, gathered: Gathered) -> None:
        for one in gathered.answers:
            watermarks = getattr(one.answer, "watermarks", None)  # not every kind of answer shows what is stored
            if watermarks:
                self.known.note(question.database, watermarks)

    def _ask_here(self, question: Question, answer_of: _AnswerOf) -> Gathered | None:
        """The answer when the own replicas are to be asked about all shards and do answer: in this thread, without the loop."""
        local, record = self.local, self.picture.map.databases.get(question.database)
        if local is None or record is None or question.only or not question.shards:
            return None
        first = question.shards[0]
        if first >= len(record.shards) or self.node not in record.shards[first].readable:
            return None
        started_s = self.transport.now_s()
        routes = route(
            record, question.shards, self.picture.is_alive, lambda nodes: self.balancer.order(nodes, started_s), {}
        )
        if routes.homeless or list(routes.by_node) != [self.node]:
            return None
        worker_s = min(question.worker_s, question.timeout_s)
        if question.hedging is not None:  # beyond this, other replicas have their turn
            worker_s = min(worker_s, max(SILENT_S_MIN, SILENT_FACTOR * question.hedging.delay_s))
        call = question.make(asked_of(question, routes.by_node[self.node], self.picture.map.version, worker_s))
        self.balancer.began(self.node)
        seconds: float | None = None
        try:
            answer, error = answer_of(local, call, self._here_us, worker_s)
            if error is not None:
                failure = as_jade_error(error)
                if is_late(failure):
                    self.balancer.suspect(self.node, self.transport.now_s())
                return None if failure.code in ELSEWHERE else Gathered(error=failure, calls=1)
            if answer is None or (question.accept is not None and not question.accept(answer)):
                return None
            seconds = self.transport.now_s() - started_s
        finally:
            self.balancer.ended(self.node, seconds if question.weighed else None)
        if question.hedging is not None:
            question.hedging.answered(seconds)
        gathered = Gathered([Answered(self.node, routes.by_node[self.node], answer, seconds)], calls=1)
        self._note(question, gathered)
        return gathered

    def ask_all(self, questions: Seq[Question]) -> list[Gathered]:
        """All at once; raises nothing that an answer can say."""
        if not questions:
            return []
        done: queue.SimpleQueue[tuple[int, Gathered]] = queue.SimpleQueue()
        askings = [Asking(self, question, _to(done, place)) for place, question in enumerate(questions)]

        def begin() -> None:
            for asking in askings:
                asking.begin()

        self.transport.run(begin)
        results: list[Gathered | None] = [None] * len(questions)
        grace_s = max(question.timeout_s for question in questions) + CALLER_GRACE_S
        try:
            for _ in questions:
                place, gathered = done.get(timeout=grace_s)
                results[place] = gathered
        except queue.Empty:  # the loop hangs: nobody's answer would be heard
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"This node's connections to the others did not move for {grace_s:g} s: its machine is overloaded, or it hangs. "
                "Retry; if it stays so, restart the node.",
            ) from None
        except BaseException:  # an interrupt: nobody waits any more

            def give_up() -> None:
                for asking in askings:
                    asking.cancel()

            self.transport.run(give_up)
            raise
        for question, one in zip(questions, results, strict=True):
            if one is not None:
                self._note(question, one)
        return [gathered for gathered in results if gathered is not None]


_AnswerOf = Callable[[OwnReplicas, msgspec.Struct, float, float], tuple[Any, Exception | None]]


def _answer_at_once(
    local: OwnReplicas, call: msgspec.Struct, here_us: float, _worker_s: float
) -> tuple[Any, Exception | None]:
    """The answer of the own replicas if it can be had at once, or why there is none; neither: it can't."""
    try:
        return local.answer_here(call, here_us), None
    except JadeError as error:
        return None, error


def _answer_of(
    local: OwnReplicas, call: msgspec.Struct, here_us: float, worker_s: float
) -> tuple[Any, Exception | None]:
    """The answer of the own replicas, or why there is none within the time."""
    answer, refused = _answer_at_once(local, call, here_us, worker_s)
    if answer is not None or refused is not None:
        return answer, refused
    done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
    give_up = local.answer(call, lambda answer, error: done.put((answer, error)))
    try:
        return done.get(timeout=worker_s)
    except queue.Empty:
        if give_up is not None:
            give_up()
        return None, JadeError(ErrorCode.TIMEOUT, f"This node's replicas did not answer within {worker_s:g} s.")


def _to(done: queue.SimpleQueue[tuple[int, Gathered]], place: int) -> OnDone:
    return lambda gathered: done.put((place, gathered))


class Ask(Step[Gathered]):
    """A question that a coroutine awaits; its answers, checked."""

    __slots__ = ("_fan_out", "_question")

    def __init__(self, fan_out: FanOut, question: Question) -> None:
        self._fan_out = fan_out
        self._question = question

    def wait(self) -> Gathered:
        return self._fan_out.ask(self._question)

    def begin(self, then: Then) -> GiveUp | None:
        question, here = self._question, self._fan_out.in_gateway
        if here is None:
            raise JadeError(ErrorCode.CLOSED, "This node is stopping.")

        def on_done(gathered: Gathered) -> None:
            try:
                gathered.checked(question)
            except JadeError as error:
                then(None, error)
            else:
                then(gathered, None)

        return here.begin(question, on_done)
