"""Long waits in steps, for callers that may lose interest: before every step `wanted` is asked, and may raise to end it there."""

from __future__ import annotations

from collections.abc import Callable

from jadevectordb.gateway.embedded.database import Database
from jadevectordb.model.errors import ErrorCode, JadeError

Wanted = Callable[[], None]
_STEP_S = 0.25


def wait_indexed(database: Database, timeout_s: float, wanted: Wanted) -> None:
    """`Database.wait_indexed`, a fraction of a second a step."""
    database._openings.seal(compact=False)
    _wait(database, timeout_s, wanted)


def compact(database: Database, timeout_s: float, wanted: Wanted) -> None:
    """`Database.compact`, a fraction of a second a step. What was begun goes on when nobody waits for it any more."""
    database._openings.seal(compact=True)
    _wait(database, timeout_s, wanted)


def _wait(database: Database, timeout_s: float, wanted: Wanted) -> None:
    clock = database._use().clock
    until_s = clock.monotonic_s() + timeout_s
    while True:
        wanted()
        left_s = until_s - clock.monotonic_s()
        try:
            return database._openings.wait_settled(max(0.0, min(_STEP_S, left_s)))
        except JadeError as error:
            if error.code is not ErrorCode.TIMEOUT:
                raise
            if left_s <= _STEP_S:
                raise JadeError(
                    ErrorCode.TIMEOUT, f"Indexing was not complete after {timeout_s:g} s; it goes on in the background."
                ) from None
