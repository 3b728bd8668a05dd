"""Reads that wait without holding a thread: one code path for callers in a thread and for an event loop.

A read of a cluster is written as a coroutine that awaits a `Step` wherever it needs something from elsewhere: answers of other nodes,
mostly. `waited` carries it out in the calling thread; an `Underway` carries it out in a loop, from callback to callback, without
a task, a thread or an event loop's own futures. What the coroutine decides is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast

from jadevectordb.model.errors import ErrorCode, JadeError

R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")
Then: TypeAlias = Callable[[Any, BaseException | None], None]  # the result, or the error
GiveUp: TypeAlias = Callable[[], None]


class Step(Generic[R]):
    """Something that takes a while."""

    def __await__(self) -> Generator[Step[R], R, R]:
        return (yield self)

    def wait(self) -> R:
        """Do it in the calling thread, which may be kept waiting."""
        raise NotImplementedError

    def begin(self, then: Then) -> GiveUp | None:
        """Begin it in the loop, which must not be kept waiting; `then` is called there, once, perhaps before this returns.

        The result ends it: `then` is not called after that.
        """
        raise NotImplementedError


class Waits(Step[R]):
    """Work that only knows how to wait: in a loop, whoever runs that has to find a thread for it."""

    def __init__(self, work: Callable[[], R]) -> None:
        self.wait = work  # type: ignore[method-assign]


def waited(work: Coroutine[Any, Any, T]) -> T:
    """Carry it out in this thread. Raises what it raises."""
    try:
        step = work.send(None)
        while True:
            try:
                result = step.wait()
            except BaseException as error:
                step = work.throw(error)
            else:
                step = work.send(result)
    except StopIteration as done:
        return cast(T, done.value)


def waiting(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The same for callers in a thread."""

    @wraps(work)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        return waited(work(*arguments, **named))

    return call


class Underway:
    """A coroutine that is carried out in a loop. All of it is to be called there.

    on_done: called once with what it returned or raised. in_thread: has `Waits` done elsewhere, and `then` called in the loop.
    """

    __slots__ = ("_give_up", "_in_thread", "_on_done", "_place", "_work")

    def __init__(
        self, work: Coroutine[Any, Any, Any], on_done: Then, in_thread: Callable[[Callable[[], Any], Then], None]
    ) -> None:
        self._work = work
        self._on_done = on_done
        self._in_thread = in_thread
        self._place = 0  # counts steps: what comes for an earlier one is void
        self._give_up: GiveUp | None = None

    def begin(self) -> None:
        self._go(None, None)

    def cancel(self) -> None:
        """Nobody wants the result any more: the step that is under way is given up, and the coroutine sees CANCELLED.

        One that has not begun never does, and on_done is not called.
        """
        if self._place < 0:
            return
        if self._place == 0:  # it has not begun, and nobody is to be told
            self._place = -1
            self._work.close()
            return
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()
        self._go(None, JadeError(ErrorCode.CANCELLED, "Nobody waits for the answer any more."))

    def _go(self, result: Any, error: BaseException | None) -> None:
        """On from the step that is under way, as far as possible at once."""
        outcome: tuple[Any, BaseException | None] | None = (result, error)
        while outcome is not None:
            self._give_up = None
            self._place += 1
            result, error = outcome
            try:
                step = self._work.send(result) if error is None else self._work.throw(error)
            except StopIteration as done:
                self._end(done.value, None)
                return
            except BaseException as raised:
                self._end(None, raised)
                return
            outcome = self._begin(step)

    def _begin(self, step: Step[Any]) -> tuple[Any, BaseException | None] | None:
        """The outcome, when it is there at once."""
        place, is_inside = self._place, True
        at_once: list[tuple[Any, BaseException | None]] = []

        def then(result: Any, error: BaseException | None) -> None:
            if is_inside:
                at_once.append((result, error))
            elif place == self._place:
                self._go(result, error)

        if isinstance(step, Waits):
            self._in_thread(step.wait, then)
        else:
            try:
                self._give_up = step.begin(then)
            except BaseException as refused:
                return None, refused
        is_inside = False
        return at_once[0] if at_once else None

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._place = -1
        self._on_done(result, error)
