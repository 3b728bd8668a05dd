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

import queue
import threading
from collections.abc import Callable, Collection, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ASK_ROUNDS_MAX, CALLER_GRACE_S
from jadevectordb.ports.node_calls import Asked
from jadevectordb.ports.transport import Answerer, Pending, Transport
from jadevectordb.query.balancer import Balancer
from jadevectordb.query.hedging import Hedging
from jadevectordb.query.routing import route
from jadevectordb.topology.cluster_map import ClusterMap, DatabaseRecord, NodeRecord

_PAUSE_S_MIN, _PAUSE_S_MAX = 0.02, 0.5  # before everyone is asked once more
_SILENT_S_MIN, _SILENT_FACTOR = 0.25, 10.0  # silence of so long, and so many hedging delays, makes a node suspect
_HEDGE_AGAIN_S = 0.05  # between looks whether a second call may be made now
# What one replica may have and another not; everything else is the question's own fault, or everyone's
_ELSEWHERE = frozenset(
    {
        ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.STALE_MAP, ErrorCode.CLOSED, ErrorCode.CORRUPT,
        ErrorCode.LOG_TRUNCATED, ErrorCode.IO_ERROR, ErrorCode.LOCKED, ErrorCode.INTERNAL_ERROR, ErrorCode.CANCELLED,
    }
)  # fmt: skip


class Picture(Protocol):
    """What this node knows of the cluster now."""

    @property
    def map(self) -> ClusterMap: ...
    def node(self, name: str) -> NodeRecord | None: ...
    def is_alive(self, name: str) -> bool:
        """As far as this node can tell; a moment late both ways."""
        ...


class OwnReplicas(Answerer, Protocol):
    """What answers for the replicas of the node that asks; any thread may ask."""

    def answer_here(self, call: msgspec.Struct) -> Any | None:
        """The answer, when it can be had in the calling thread soon; None: ask by `answer`. Raises what the answer says instead."""
        ...


@dataclass(slots=True)
class Question:
    """make: the call, from what all calls carry. at_least: sequences by shard that the answer must have seen.

    worker_s: how long one node may take. only: the one node to ask, "" = any replica. weighed: whether the time an answer takes says
    how busy a node is. accept: whether an answer counts; the others are taken when nobody has a better one.
    """

    database: str
    shards: tuple[int, ...]
    make: Callable[[Asked], msgspec.Struct]
    timeout_s: float
    worker_s: float
    at_least: Mapping[int, int] = field(default_factory=dict)
    allow_partial: bool = False
    hedging: Hedging | None = None
    only: str = ""
    weighed: bool = True
    accept: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    node: str
    shards: tuple[int, ...]
    answer: Any
    seconds: float


@dataclass(slots=True)
class Gathered:
    """answers: each shard is in at most one. missing: why no answer came for a shard. error: of the question itself."""

    answers: list[Answered] = field(default_factory=list)
    missing: dict[int, JadeError] = field(default_factory=dict)
    error: JadeError | None = None
    calls: int = 0
    hedges: int = 0

    def checked(self, question: Question) -> Gathered:
        """Raises when there is no answer, or a part of it and that is not enough."""
        if self.error is not None:
            raise self.error
        if self.missing and not (question.allow_partial and self.answers):
            raise _unanswered(self.missing)
        return self


OnDone = Callable[[Gathered], None]


class FanOut:
    """local: answers for the own node's replicas; None when it has none."""

    def __init__(
        self, transport: Transport, picture: Picture, balancer: Balancer, node: str, local: OwnReplicas | None
    ) -> None:
        self.transport = transport
        self.picture = picture
        self.balancer = balancer
        self.node = node
        self.local = local

    def ask(self, question: Question) -> Gathered:
        """Wait for the answers. Raises as `Gathered.checked`. Not to be called in the loop."""
        gathered = self._ask_here(question) or self.ask_all([question])[0]
        return gathered.checked(question)

    def _ask_here(self, question: Question) -> Gathered | None:
        """The answer when the own replicas are to be asked about all shards and do answer: in this thread, without the loop."""
        local, record = self.local, self.picture.map.databases.get(question.database)
        if local is None or record is None or question.only or not question.shards:
            return None
        started_s = self.transport.now_s()
        routes = route(
            record, question.shards, self.picture.is_alive, lambda nodes: self.balancer.order(nodes, started_s), {}
        )
        if routes.homeless or list(routes.by_node) != [self.node]:
            return None
        worker_s = min(question.worker_s, question.timeout_s)
        if question.hedging is not None:  # beyond this, other replicas have their turn
            worker_s = min(worker_s, max(_SILENT_S_MIN, _SILENT_FACTOR * question.hedging.delay_s))
        call = question.make(_asked(question, routes.by_node[self.node], self.picture.map.version, worker_s))
        self.balancer.began(self.node)
        seconds: float | None = None
        try:
            answer, error = _answer_of(local, call, worker_s)
            if error is not None:
                failure = _as_jade_error(error)
                return None if failure.code in _ELSEWHERE else Gathered(error=failure, calls=1)
            if question.accept is not None and not question.accept(answer):
                return None
            seconds = self.transport.now_s() - started_s
        finally:
            self.balancer.ended(self.node, seconds if question.weighed else None)
        if question.hedging is not None:
            question.hedging.answered(seconds)
        return Gathered([Answered(self.node, routes.by_node[self.node], answer, seconds)], calls=1)

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
                ErrorCode.UNAVAILABLE, "This node's connections to the others do not move: restart the node."
            ) from None
        except BaseException:  # an interrupt: nobody waits any more

            def give_up() -> None:
                for asking in askings:
                    asking.cancel()

            self.transport.run(give_up)
            raise
        return [gathered for gathered in results if gathered is not None]


def _answer_of(local: OwnReplicas, call: msgspec.Struct, worker_s: float) -> tuple[Any, Exception | None]:
    """The answer of the own replicas, or why there is none within the time."""
    try:
        answer = local.answer_here(call)
    except JadeError as error:
        return None, error
    if answer is not None:
        return answer, None
    done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
    give_up = local.answer(call, lambda answer, error: done.put((answer, error)))
    try:
        return done.get(timeout=worker_s)
    except queue.Empty:
        if give_up is not None:
            give_up()
        return None, JadeError(ErrorCode.TIMEOUT, f"This node's replicas did not answer within {worker_s:g} s.")


def _asked(question: Question, shards: tuple[int, ...], map_version: int, worker_s: float) -> Asked:
    return Asked(
        database=question.database,
        shards=shards,
        map_version=map_version,
        at_least=tuple((number, question.at_least[number]) for number in shards if number in question.at_least),
        wait_s=worker_s * 0.9,  # so that it is the other side that says what it waited for
    )


def _to(done: queue.SimpleQueue[tuple[int, Gathered]], place: int) -> OnDone:
    return lambda gathered: done.put((place, gathered))


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

    def __init__(self, fan_out: FanOut, question: Question, on_done: OnDone) -> None:
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
        own = self._fan_out.node
        for node, numbers in sorted(by_node.items(), key=lambda item: item[0] == own):
            slot = _Slot(numbers)
            self._slots.append(slot)
            self._open(slot, node)
            if self._finished:
                return
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
        call = question.make(_asked(question, slot.shards, fan_out.picture.map.version, worker_s))
        fan_out.balancer.began(node)
        self._gathered.calls += 1
        if len(slot.attempts) == 1 and question.hedging is not None and not question.only:
            question.hedging.asked()
            slot.hedge = self._transport.after(question.hedging.delay_s, lambda: self._hedge(slot))
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

    def _hedge(self, slot: _Slot) -> None:
        """The first call is late: ask another replica too, if that is allowed now."""
        hedging, balancer = self._question.hedging, self._fan_out.balancer
        if self._finished or slot.done or len(slot.attempts) != 1 or hedging is None:
            return
        first, now_s = slot.attempts[0], self._transport.now_s()
        if now_s - first.started_s >= max(_SILENT_S_MIN, _SILENT_FACTOR * hedging.delay_s):
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
            self._failed(attempt, _as_jade_error(error))
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
        if error.code not in _ELSEWHERE:
            self._gathered.error = error
            self._finish()
            return
        if error.code is ErrorCode.TIMEOUT or "sent" in error.details:
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


def _as_jade_error(error: Exception) -> JadeError:
    if isinstance(error, JadeError):
        return error
    return JadeError(ErrorCode.INTERNAL_ERROR, f"A node failed to answer: {error!r}.")


def _unanswered(missing: Mapping[int, JadeError]) -> JadeError:
    """One error for all shards that did not answer."""
    shards = sorted(missing)
    reasons = list(dict.fromkeys(missing[number].message for number in shards))
    timed_out = all(error.code is ErrorCode.TIMEOUT for error in missing.values())
    named = ", ".join(map(str, shards[:20])) + (" and more" if len(shards) > 20 else "")
    return JadeError(
        ErrorCode.TIMEOUT if timed_out else ErrorCode.UNAVAILABLE,
        f"No answer from shard{'s' * (len(shards) > 1)} {named}: {' '.join(reasons[:3])} Retry in a moment, or take the answer "
        "of the others with allow_partial where that is enough.",
        details={"shards": shards, "codes": sorted({str(error.code) for error in missing.values()})},
    )
