"""Asks the shards of a database something, whichever replicas answer: one call a node, second calls, other replicas, deadlines.

An `Asking` is one question on its way. All of it happens in the transport's loop, one callback at a time, so it needs no lock and
has no thread. Its life:

    place -> a call to each node chosen -> an answer counts for all shards of the call -> done when every shard has one
                    |    no answer after the hedging delay: the same shards of another replica; the first answer wins
                    |    an error that another replica need not have: its shards are placed again, on nodes not yet tried
                    |    nobody left to try: a pause, then all again (a replica may be starting, the map may be newer)
                    the deadline: what is missing is named

The own node's replicas are asked directly, in the same form. Retries are bounded by replicas, rounds and the deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, Protocol

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ASK_ROUNDS_MAX
from jadevectordb.ports.transport import Answerer, Pending, Transport
from jadevectordb.query.balancer import Balancer
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
from jadevectordb.topology.cluster_map import DatabaseRecord

_PAUSE_S_MIN, _PAUSE_S_MAX = 0.02, 0.5  # before everyone is asked once more
SILENT_S_MIN, SILENT_FACTOR = 0.25, 10.0  # silence of so long, and so many hedging delays, makes a node suspect
_HEDGE_AGAIN_S = 0.05  # between looks whether a second call may be made now


class Asker(Protocol):
    """Who asks, and what with; `FanOut` is one."""

    @property
    def transport(self) -> Transport: ...
    @property
    def picture(self) -> Picture: ...
    @property
    def balancer(self) -> Balancer: ...
    @property
    def node(self) -> str: ...
    @property
    def local(self) -> OwnReplicas | None: ...


class _Slot:
    """Shards that one node is asked about, and the calls that may answer for them: the first, and perhaps a second one."""

    __slots__ = ("attempts", "done", "hedge", "shards")

    def __init__(self, shards: tuple[int, ...]) -> None:
        self.shards = shards
        self.attempts: list[_Attempt] = []
        self.hedge: Pending | None = None
        self.done = False


class _Attempt:
    __slots__ = ("node", "over", "pending", "slot", "started_s", "timer")

    def __init__(self, slot: _Slot, node: str, started_s: float) -> None:
        self.slot = slot
        self.node = node
        self.started_s = started_s
        self.over = False
        self.pending: Pending | None = None
        self.timer: Pending | None = None


class Asking:
    """One question on its way. Everything here is called in the transport's loop."""

    def __init__(self, fan_out: Asker, question: Question, on_done: OnDone) -> None:
        self._fan_out = fan_out
        self._transport = fan_out.transport
        self._question = question
        self._on_done = on_done
        self._gathered = Gathered()
        self._slots: list[_Slot] = []
        self._left = set(question.shards)
        self._tried: dict[int, set[str]] = {}
        self._errors: dict[int, JadeError] = {}
        self._poor: dict[int, Answered] = {}  # answers that do not count unless nobody has a better one
        self._rounds = 0
        self._finished = False
        self._timers: list[Pending] = []
        self._until_s = 0.0

    def begin(self) -> None:
        if not self._left:
            self._finish()
            return
        self._until_s = self._transport.now_s() + self._question.timeout_s
        self._timers.append(self._transport.after(self._question.timeout_s, self._out_of_time))
        self._place(self._question.shards)

    # Choosing nodes

    def _record(self) -> DatabaseRecord | None:
        return self._fan_out.picture.map.databases.get(self._question.database)

    def _order(self, nodes: Collection[str]) -> list[str]:
        return self._fan_out.balancer.order(nodes, self._transport.now_s())

    def _place(self, shards: Collection[int]) -> None:
        """Ask somebody about these shards, or, when nobody is left to ask, everybody once more after a pause."""
        record, only = self._record(), self._question.only
        homeless: Collection[int] = shards
        if only:
            if self._rounds and not self._fan_out.picture.is_alive(only):
                self._out_of_time()  # it is for the caller to judge what that means
                return
            homeless = [number for number in shards if only in self._tried.get(number, ())]
            here = tuple(number for number in shards if number not in homeless)
            by_node = {only: here} if here else {}
        elif record is None:
            by_node = {}
        else:
            routes = route(record, shards, self._fan_out.picture.is_alive, self._order, self._tried)
            by_node, homeless = routes.by_node, routes.homeless
        # The own replicas last: they may be searched at once, while the others are on their way
        own, placed = self._fan_out.node, []
        for node, numbers in sorted(by_node.items(), key=lambda item: item[0] == own):
            slot = _Slot(numbers)
            self._slots.append(slot)
            placed.append(slot)
            self._open(slot, node)
            if self._finished:
                return
        self._hedge_later(placed)
        if homeless:
            self._again_later(homeless)

    def _again_later(self, shards: Collection[int]) -> None:
        gave_poor = [number for number in shards if number in self._poor]
        if gave_poor:
            self._settle_for_poor(shards)
            return
        self._rounds += 1
        if self._question.allow_partial or self._rounds > ASK_ROUNDS_MAX:
            for number in shards:
                self._lose(number)
            if not self._left:
                self._finish()
            return
        pause_s = min(_PAUSE_S_MAX, _PAUSE_S_MIN * 2.0 ** min(self._rounds - 1, 10))

        def again() -> None:
            if not self._finished:
                for number in shards:
                    self._tried.pop(number, None)
                self._place(shards)

        self._timers.append(self._transport.after(pause_s, again))

    def _settle_for_poor(self, shards: Collection[int]) -> None:
        for number in shards:
            poor = self._poor.get(number)
            if poor is None:
                self._lose(number)
            else:
                self._gathered.answers.append(poor)
            self._left.discard(number)
        if not self._left:
            self._finish()

    def _lose(self, number: int) -> None:
        self._gathered.missing[number] = self._errors.get(number) or JadeError(
            ErrorCode.UNAVAILABLE, f"No node has a replica of shard {number} that can be asked now."
        )
        self._left.discard(number)

    # Calls

    def _open(self, slot: _Slot, node: str) -> None:
        question, fan_out = self._question, self._fan_out
        now_s = self._transport.now_s()
        attempt = _Attempt(slot, node, now_s)
        slot.attempts.append(attempt)
        for number in slot.shards:
            self._tried.setdefault(number, set()).add(node)
        worker_s = max(0.001, min(question.worker_s, self._until_s - now_s))
        call = question.make(asked_of(question, slot.shards, fan_out.picture.map.version, worker_s))
        fan_out.balancer.began(node)
        self._gathered.calls += 1
        if len(slot.attempts) == 1 and question.hedging is not None and not question.only:
            question.hedging.asked()
        if node == fan_out.node and fan_out.local is not None:
            self._open_local(attempt, fan_out.local, call, worker_s)
            return
        record = fan_out.picture.node(node)
        if record is None:
            error = JadeError(ErrorCode.UNAVAILABLE, f"Node {node} has not said where it listens.")
            self._transport.run(lambda: self._answered(attempt, None, error))
            return
        attempt.pending = self._transport.begin(
            record.peer, call, worker_s, lambda answer, error: self._answered(attempt, answer, error)
        )

    def _open_local(self, attempt: _Attempt, local: Answerer, call: msgspec.Struct, worker_s: float) -> None:
        """The own replicas may answer at once, in this thread, or later from one of theirs."""
        at_once: list[tuple[Any, Exception | None]] = []
        here, is_inside = threading.get_ident(), True

        def reply(answer: Any, error: Exception | None) -> None:
            if is_inside and threading.get_ident() == here:
                at_once.append((answer, error))
            else:
                self._transport.run(lambda: self._answered(attempt, answer, error))

        try:
            give_up = local.answer(call, reply)
        except JadeError as error:
            at_once.append((None, error))
            give_up = None
        is_inside = False
        if at_once:
            self._answered(attempt, *at_once[0])
            return
        late = JadeError(ErrorCode.TIMEOUT, f"This node's replicas did not answer within {worker_s:g} s.")
        attempt.pending = _GivenUp(give_up)
        attempt.timer = self._transport.after(worker_s, lambda: self._answered(attempt, None, late))

    def _hedge_later(self, slots: list[_Slot]) -> None:
        """One timer for all of them: they were asked at the same moment."""
        hedging = self._question.hedging
        if hedging is not None and not self._question.only and not all(slot.done for slot in slots):

            def look() -> None:
                for slot in slots:
                    self._hedge(slot)

            self._timers.append(self._transport.after(hedging.delay_s, look))

    def _hedge(self, slot: _Slot) -> None:
        """The first call is late: ask another replica too, if that is allowed now."""
        hedging, balancer = self._question.hedging, self._fan_out.balancer
        if self._finished or slot.done or len(slot.attempts) != 1 or hedging is None:
            return
        first, now_s = slot.attempts[0], self._transport.now_s()
        if now_s - first.started_s >= max(SILENT_S_MIN, SILENT_FACTOR * hedging.delay_s):
            balancer.suspect(first.node, now_s)
        other = self._another(slot)
        if other is None:
            return
        # A node that is silent towards everybody costs no budget, unless all are, which is load and no reason to make more
        is_stuck = balancer.is_suspected(first.node, now_s) and not balancer.is_suspected(other, now_s)
        if is_stuck or hedging.take():
            self._gathered.hedges += 1
            self._open(slot, other)
        else:
            slot.hedge = self._transport.after(max(_HEDGE_AGAIN_S, hedging.delay_s), lambda: self._hedge(slot))

    def _another(self, slot: _Slot) -> str | None:
        """A live node that has all shards of the slot and was not asked."""
        record = self._record()
        if record is None:
            return None
        routes = route(record, slot.shards, self._fan_out.picture.is_alive, self._order, self._tried)
        nodes = list(routes.by_node)
        single = len(nodes) == 1 and not routes.homeless and self._fan_out.picture.is_alive(nodes[0])
        return nodes[0] if single else None

    # Answers

    def _answered(self, attempt: _Attempt, answer: Any, error: Exception | None) -> None:
        if attempt.over:
            return
        slot, question, balancer = attempt.slot, self._question, self._fan_out.balancer
        seconds = self._transport.now_s() - attempt.started_s
        if error is not None:
            self._end(attempt, None)
            self._failed(attempt, as_jade_error(error))
            return
        self._end(attempt, seconds if question.weighed else None)
        if question.hedging is not None:
            question.hedging.answered(seconds)
        answered = Answered(attempt.node, slot.shards, answer, seconds)
        if question.accept is not None and not question.accept(answer):
            for number in slot.shards:
                self._poor.setdefault(number, answered)
            self._replace(slot)
            return
        self._close(slot, balancer)
        self._gathered.answers.append(answered)
        self._left.difference_update(slot.shards)
        if not self._left:
            self._finish()

    def _failed(self, attempt: _Attempt, error: JadeError) -> None:
        if error.code not in ELSEWHERE:
            self._gathered.error = error
            self._finish()
            return
        if is_late(error):
            self._fan_out.balancer.suspect(attempt.node, self._transport.now_s())
        for number in attempt.slot.shards:
            self._errors[number] = error
        self._replace(attempt.slot)

    def _replace(self, slot: _Slot) -> None:
        """Other nodes for a slot of which no call is under way any more."""
        if not slot.done and all(other.over for other in slot.attempts):
            self._close(slot, self._fan_out.balancer)
            self._place(slot.shards)

    def _close(self, slot: _Slot, balancer: Balancer) -> None:
        slot.done = True
        if slot.hedge is not None:
            slot.hedge.cancel()
        for attempt in slot.attempts:
            if not attempt.over:
                self._end(attempt, None)
                if attempt.pending is not None:
                    attempt.pending.cancel()
        self._slots.remove(slot)

    def _end(self, attempt: _Attempt, seconds: float | None) -> None:
        attempt.over = True
        if attempt.timer is not None:
            attempt.timer.cancel()
        self._fan_out.balancer.ended(attempt.node, seconds)

    # The end

    def _out_of_time(self) -> None:
        for number in sorted(self._left):
            poor = self._poor.get(number)
            if poor is not None:
                self._gathered.answers.append(poor)
                self._left.discard(number)
                continue
            nodes = ", ".join(sorted(self._tried.get(number, ()))) or "nobody"
            self._errors.setdefault(
                number,
                JadeError(
                    ErrorCode.TIMEOUT,
                    f"Shard {number} did not answer within {self._question.timeout_s:g} s (asked: {nodes}).",
                ),
            )
            self._lose(number)
        self._finish()

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self._on_done = lambda _gathered: None
        self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        for slot in list(self._slots):
            self._close(slot, self._fan_out.balancer)
        for timer in self._timers:
            timer.cancel()
        self._on_done(self._gathered)


class _GivenUp:
    """A call to the own replicas, as a `Pending`."""

    __slots__ = ("_give_up",)

    def __init__(self, give_up: Callable[[], None] | None) -> None:
        self._give_up = give_up

    def cancel(self) -> None:
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()
