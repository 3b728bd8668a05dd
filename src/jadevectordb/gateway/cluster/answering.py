"""Answers what other nodes, and this one, ask about the replicas held here.

    refuse   a shard that is not here (STALE_MAP), or not readable now (UNAVAILABLE)
    wait     until the replicas have applied what the asker has seen: no thread waits, and there is a time after which it is refused
    answer   in the calling thread what is over sooner than a change of threads costs, else in a small pool with a bounded queue
    give up  when the asker did: before it begins, and between shards

A replica whose files turn out to be damaged is reported to its host, which replaces it, and the asker is told to ask another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, assert_never

import msgspec

from jadevectordb.gateway.cluster import asking, asking_words
from jadevectordb.gateway.cluster.asking import CheckWanted, Held
from jadevectordb.gateway.cluster.deadlines import Deadlines
from jadevectordb.gateway.cluster.waiting import Waiting
from jadevectordb.gateway.embedded.opening import Opening
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import NodeId
from jadevectordb.model.limits import NODE_INLINE_US_MAX, NODE_SEARCH_THREADS, REQUESTS_WAITING_MAX
from jadevectordb.node.hosted_shard import HostedShard
from jadevectordb.node.hosting import Hosting, Place
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.node_calls import (
    Aged,
    Applied,
    Asked,
    AwaitApplied,
    CheckSchema,
    Count,
    Get,
    Judge,
    Look,
    LookAtText,
    Ping,
    Pong,
    Scroll,
    Search,
    SearchWords,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotRead,
)

Reply: TypeAlias = Callable[[Any, Exception | None], None]
AboutShards: TypeAlias = Search | SearchWords | Judge | Get | Scroll | Aged | Count | CheckSchema | LookAtText | Look
_FILTERED_COST = 2.0  # a filter may cost as much again
_GET_INLINE_MAX = 32  # ids


class ShardAnswerer:
    """node, incarnation, map_version: what a Ping is told."""

    def __init__(
        self,
        hosting: Hosting,
        clock: Clock,
        *,
        node: str,
        incarnation: str,
        map_version: Callable[[], int],
        threads: int = NODE_SEARCH_THREADS,
    ) -> None:
        self._hosting = hosting
        self._node = node
        self._incarnation = incarnation
        self._map_version = map_version
        self._deadlines = Deadlines(clock)
        self._pool = ThreadPoolExecutor(threads, "jade-answer")
        self._lock = threading.Lock()  # guards the next two
        self._queued = 0
        self._openings: dict[Place, Opening] = {}  # of replicas hosted now, and some that were

    def answer(self, call: msgspec.Struct, reply: Reply) -> Callable[[], None] | None:
        """As `Answerer.answer`."""
        try:
            match call:
                case (
                    Search()
                    | SearchWords()
                    | Judge()
                    | Get()
                    | Scroll()
                    | Aged()
                    | Count()
                    | CheckSchema()
                    | LookAtText()
                    | Look()
                ):
                    return _Answering(self, call, reply).begin()
                case AwaitApplied():
                    return self._await_applied(call, reply)
                case Ping():
                    reply(Pong(node=self._node, incarnation=self._incarnation, map_version=self._map_version()), None)
                case SnapshotBegin() | SnapshotRead() | SnapshotEnd():
                    self.submit(lambda: _reply_with(reply, lambda: self._snapshot(call)))
                case _:
                    raise JadeError(
                        ErrorCode.NOT_IMPLEMENTED, f"This node does not answer {type(call).__name__}: update it."
                    )
        except JadeError as error:
            reply(None, error)
        return None

    def answer_here(self, call: msgspec.Struct, limit_us: float) -> Any | None:
        """The answer to a caller on this node, worked out in his own thread, which spares two changes of threads.

        None: ask by `answer`, because it would take longer than limit_us, replicas have to catch up first, or it is no such question.
        Raises what an answer would say instead.
        """
        if not isinstance(call, Search | SearchWords | Judge | Get | Count):
            return None
        return _Answering(self, call, _nobody).here(limit_us)

    def applied(self, database: str) -> dict[int, tuple[int, int]]:
        """As `OwnReplicas.applied`."""
        return {hosted.shard: hosted.known for hosted in self._hosting.of(database)}

    def close(self) -> None:
        """What is being answered is answered, what waits is refused. Again is fine."""
        self._deadlines.close()
        self._pool.shutdown(wait=True, cancel_futures=False)

    # --- for one question -----------------------------------------------------------------------------------------------

    def hosted(self, database: str, shard: int) -> HostedShard:
        """Raises STALE_MAP, UNAVAILABLE."""
        hosted = self._hosting.get(database, shard)
        if hosted is None:
            raise JadeError(
                ErrorCode.STALE_MAP,
                f"Node {self._node!r} holds no replica of shard {shard} of this database: read the cluster map again.",
                details={"shard": shard, "map_version": self._map_version()},
            )
        return hosted

    def opening(self, hosted: HostedShard) -> Opening:
        """Raises UNAVAILABLE when it can't be read now."""
        database = hosted.readable
        if database is None:
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"The replica of shard {hosted.shard} on node {self._node!r} can't be read now ({hosted.report().state.value}): "
                "ask another one.",
                details={"shard": hosted.shard},
            )
        place = hosted.database_id, hosted.shard
        found = self._openings.get(place)
        if found is None or found.readable is not database:
            found = Opening(database, NodeId(self._node))
            with self._lock:
                for other in [other for other in self._openings if self._hosting.get(*other) is None]:
                    del self._openings[other]
                self._openings[place] = found
        return found

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done in the pool. Raises UNAVAILABLE when too much waits, or at the end."""
        with self._lock:
            if self._queued >= REQUESTS_WAITING_MAX:
                raise JadeError(ErrorCode.UNAVAILABLE, f"Node {self._node!r} is too busy: ask another one, or retry.")
            self._queued += 1

        def run() -> None:
            with self._lock:
                self._queued -= 1
            work()

        try:
            self._pool.submit(run)
        except RuntimeError:
            with self._lock:
                self._queued -= 1
            raise JadeError(ErrorCode.UNAVAILABLE, f"Node {self._node!r} is stopping: ask another one.") from None

    def when_applied(
        self, waits: list[tuple[HostedShard, int]], wait_s: float, then: Callable[[JadeError | None], None]
    ) -> Callable[[], None]:
        """Call `then` once: with None when every replica has applied its sequence, with UNAVAILABLE after wait_s."""
        return Waiting(self._deadlines, waits, wait_s, then, self._node).begin()

    # --- other questions ------------------------------------------------------------------------------------------------

    def _await_applied(self, call: AwaitApplied, reply: Reply) -> Callable[[], None]:
        hosted = self.hosted(call.database, call.shard)

        def then(error: JadeError | None) -> None:
            reply(None if error else applied_of(hosted, call.sequence), error)

        return self.when_applied([(hosted, call.sequence)], call.wait_s, then)

    def _snapshot(self, call: SnapshotBegin | SnapshotRead | SnapshotEnd) -> Any:
        shelf = self._hosting.snapshots
        match call:
            case SnapshotBegin():
                hosted = self.hosted(call.database, call.shard)
                try:
                    offer = shelf.begin(self.opening(hosted).database)
                    offer.watermark = hosted.watermark
                    return offer
                except JadeError as error:
                    if error.code is ErrorCode.CORRUPT:
                        hosted.found_damage(error)
                    raise
            case SnapshotRead():
                return shelf.read(call.snapshot, call.path, call.offset, call.length)
            case SnapshotEnd():
                shelf.end(call.snapshot)
                return b""
            case unknown:
                assert_never(unknown)


def applied_of(hosted: HostedShard, sequence: int) -> Applied:
    """What entry `sequence`, which is applied, did."""
    outcome = hosted.outcome_of(sequence)
    if outcome is None:
        return Applied(known=False)
    refusal = outcome.refusal
    return Applied(
        known=True,
        sequence=outcome.sequence,
        changed=outcome.changed,
        duplicate=outcome.duplicate,
        refused_id="" if refusal is None else refusal.id,
        refused_expected=0 if refusal is None else refusal.expected,
        refused_actual=0 if refusal is None else refusal.actual,
        is_refused=refusal is not None,
    )


class _Answering:
    """One question about shards, from its arrival to its reply."""

    def __init__(self, answerer: ShardAnswerer, call: AboutShards, reply: Reply) -> None:
        self._answerer = answerer
        self._call = call
        self._reply = reply
        self._given_up = False
        self._hosted: list[HostedShard] = []

    def begin(self) -> Callable[[], None] | None:
        """What cancels it. Raises what refuses it at once."""
        answerer, asked = self._answerer, self._call.asked
        if not asked.shards:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, "A call must name the shards it is about.")
        self._hosted = [answerer.hosted(asked.database, shard) for shard in asked.shards]
        waits = self._waits(asked)
        if not waits:
            held = self._held()
            if self._is_quick(held):
                self._run(held)
                return None
            answerer.submit(self._run)
            return self._give_up
        cancel = answerer.when_applied(waits, asked.wait_s, self._applied)

        def give_up() -> None:
            self._give_up()
            cancel()

        return give_up

    def here(self, limit_us: float) -> Any | None:
        """The answer, when it can be had in this thread within about so long."""
        asked = self._call.asked
        self._hosted = [self._answerer.hosted(asked.database, shard) for shard in asked.shards]
        if self._waits(asked):
            return None
        held = self._held()
        return self._answer(held) if self._is_quick(held, limit_us) else None

    def _waits(self, asked: Asked) -> list[tuple[HostedShard, int]]:
        if not asked.at_least:
            return []
        wanted = dict(asked.at_least)
        pairs = ((hosted, wanted.get(hosted.shard, 0)) for hosted in self._hosted)
        return [(hosted, sequence) for hosted, sequence in pairs if hosted.watermark < sequence]

    def _held(self) -> Held:
        openings = [self._answerer.opening(hosted) for hosted in self._hosted]
        return Held(self._call.asked.shards, openings)

    def _is_quick(self, held: Held, here_us: float = 0.0) -> bool:
        """Whether it may be answered in the calling thread. here_us: what a caller on this node grants it, else 0."""
        call = self._call
        is_here, limit_us = here_us > 0, here_us or NODE_INLINE_US_MAX
        if isinstance(call, Get):
            return len(call.ids) <= _GET_INLINE_MAX
        if isinstance(call, Judge):
            return is_here
        if isinstance(call, SearchWords):  # rows that nobody has searched by words yet are analysed first
            return is_here and not call.options.get("group_by") and asking_words.cost_us(held, call) < limit_us
        if isinstance(call, Count):
            return not call.filter
        if not isinstance(call, Search) or call.options.get("group_by") or call.options.get("k") is None:
            return False
        cost_us = held.cost_us()
        if call.options.get("filter"):
            cost_us *= _FILTERED_COST
        return cost_us < limit_us and not call.options.get("exact")

    def _applied(self, error: JadeError | None) -> None:
        """In a thread that applies the log: what follows is another's work."""
        try:
            if error is not None:
                raise error
            self._answerer.submit(self._run)
        except JadeError as refused:
            self._reply(None, refused)

    def _give_up(self) -> None:
        self._given_up = True

    def _check_wanted(self) -> None:
        if self._given_up:
            raise JadeError(ErrorCode.CANCELLED, "Nobody waits for the answer any more.")

    def _run(self, held: Held | None = None) -> None:
        _reply_with(self._reply, lambda: self._answer(held or self._held()))

    def _answer(self, held: Held) -> Any:
        check: CheckWanted = self._check_wanted
        try:
            match self._call:
                case Search() as call:
                    return asking.search(held, call, check)
                case SearchWords() as call:
                    return asking_words.search_words(held, call, check)
                case Judge() as call:
                    return asking_words.judge(held, call, check)
                case Get() as call:
                    return asking.get(held, call, check)
                case Scroll() as call:
                    return asking.scroll(held, call, check)
                case Count() as call:
                    return asking.count(held, call, check)
                case Aged() as call:
                    return asking.aged(held, call, check)
                case CheckSchema() as call:
                    return asking.check_schema(held, call, check)
                case LookAtText() as call:
                    return asking_words.look_at_text(held, call, check)
                case Look() as call:
                    return asking.look(held, call, check)
                case unknown:
                    assert_never(unknown)
        except JadeError as error:
            if error.code is ErrorCode.CORRUPT:
                self._tell_damage(held, error)
            raise

    def _tell_damage(self, held: Held, error: JadeError) -> None:
        place = str(error.details.get("file", ""))
        for hosted, opening in zip(self._hosted, held.openings, strict=True):
            if place.startswith(f"{opening.database.directory}/"):
                hosted.found_damage(error)


def _nobody(answer: Any, error: Exception | None) -> None:
    raise AssertionError("who asks in his own thread gets the answer as a result")


def _reply_with(reply: Reply, work: Callable[[], Any]) -> None:
    try:
        answer = work()
    except JadeError as error:
        reply(None, error)
    except Exception as error:  # a defect of this node must not leave the asker waiting
        defect = JadeError(ErrorCode.INTERNAL_ERROR, f"Answering failed on this node: {error!r}.")
        defect.__cause__ = error
        reply(None, defect)
    else:
        reply(answer, None)
