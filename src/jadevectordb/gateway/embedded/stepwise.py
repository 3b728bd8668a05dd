"""Long waits in steps, for callers that may lose interest: before every step `wanted` is asked, and may raise to end it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock

Wanted = Callable[[], None]
_STEP_S = 0.25


class Settling(Protocol):
    """`Database` and a cluster's database."""

    def seal(self, *, compact: bool) -> Mapping[int, int]: ...
    def wait_settled(self, sequences: Mapping[int, int], limit_s: float | None) -> None: ...


def wait_indexed(database: Settling, clock: Clock, timeout_s: float, wanted: Wanted) -> None:
    """`Database.wait_indexed`, a fraction of a second a step."""
    _wait(database, database.seal(compact=False), clock, timeout_s, wanted)


def compact(database: Settling, clock: Clock, timeout_s: float, wanted: Wanted) -> None:
    """`Database.compact`, a fraction of a second a step. What was begun goes on when nobody waits for it any more."""
    _wait(database, database.seal(compact=True), clock, timeout_s, wanted)


def _wait(database: Settling, sequences: Mapping[int, int], clock: Clock, timeout_s: float, wanted: Wanted) -> None:
    until_s = clock.monotonic_s() + timeout_s
    while True:
        wanted()
        left_s = until_s - clock.monotonic_s()
        try:
            return database.wait_settled(sequences, max(0.0, min(_STEP_S, left_s)))
        except JadeError as error:
            if error.code is not ErrorCode.TIMEOUT:
                raise
            if left_s <= _STEP_S:
                raise JadeError(
                    ErrorCode.TIMEOUT, f"Indexing was not complete after {timeout_s:g} s; it goes on in the background."
                ) from None
