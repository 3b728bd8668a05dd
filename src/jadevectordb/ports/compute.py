"""Heavy work as a port: it may run in another process, at low priority, so that searching and writing go on beside it."""

from __future__ import annotations

from typing import Protocol


class Compute(Protocol):
    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        """Call the function `task` ("package.module:function", bytes to bytes) and wait for its result.

        hurried: somebody waits for it; otherwise it takes only what the machine has to spare.

        Raises the JadeError the task raised; IO_ERROR when the worker died; CANCELLED when it was interrupted.
        """
        ...

    def interrupt(self) -> None:
        """The result of the task under way, if any, is wanted no more: where it can be cut off, its `run` raises CANCELLED."""
        ...

    def rest(self) -> None:
        """Nothing more is expected for a while: give back memory. The next task may start more slowly."""
        ...

    def close(self) -> None:
        """Stop whatever runs; a waiting `run` raises CLOSED."""
        ...
