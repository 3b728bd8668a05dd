"""The compute port in the calling thread: no process to start, for tests, short scripts and where none may be started."""

from __future__ import annotations

import importlib


class InlineCompute:
    """A task that was begun is finished: `interrupt` and `close` have nothing to stop."""

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        del hurried
        module, _, function = task.partition(":")
        result: bytes = getattr(importlib.import_module(module), function)(payload)
        return result

    def interrupt(self) -> None:
        pass

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass
