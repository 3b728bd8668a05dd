"""Waits until replicas have applied what a question must have seen, without a thread that waits: each tells when it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jadevectordb.gateway.cluster.deadlines import Deadlines
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.hosted_shard import HostedShard


class Waiting:
    """Until replicas have applied what was asked for, or for so long."""

    def __init__(
        self,
        deadlines: Deadlines,
        waits: list[tuple[HostedShard, int]],
        wait_s: float,
        then: Callable[[JadeError | None], None],
        node: str,
    ) -> None:
        self._deadlines = deadlines
        self._waits = waits
        self._wait_s = wait_s
        self._then = then
        self._node = node
        self._lock = threading.Lock()
        self._left = len(waits)
        self._over = False
        self._cancels: list[Callable[[], None]] = []

    def begin(self) -> Callable[[], None]:
        for hosted, sequence in self._waits:
            cancel = hosted.when_applied(sequence, self._reached)
            if cancel is not None:
                self._keep(cancel)
        if not self._over:
            self._keep(self._deadlines.after(max(0.0, self._wait_s), self._too_late))
        return self.cancel

    def _keep(self, cancel: Callable[[], None]) -> None:
        with self._lock:
            if not self._over:
                self._cancels.append(cancel)
                return
        cancel()

    def _reached(self, error: JadeError | None) -> None:
        with self._lock:
            self._left -= 1
            if error is None and self._left:
                return
        self._finish(error)

    def _too_late(self) -> None:
        behind = [(hosted, sequence) for hosted, sequence in self._waits if hosted.watermark < sequence]
        if not behind:  # reached in this moment
            self._finish(None)
            return
        hosted, sequence = behind[0]
        self._finish(
            JadeError(
                ErrorCode.UNAVAILABLE,
                f"The replica of shard {hosted.shard} on node {self._node!r} is behind: it has applied its log up to entry "
                f"{hosted.watermark}, {sequence} was asked for, and {self._wait_s:g} s did not suffice. Ask another one, or retry.",
                details={"shard": hosted.shard, "watermark": hosted.watermark, "asked": sequence, "behind": True},
            )
        )

    def _finish(self, error: JadeError | None) -> None:
        if self._end():
            self._then(error)

    def cancel(self) -> None:
        self._end()

    def _end(self) -> bool:
        """Whether it was not over before."""
        with self._lock:
            if self._over:
                return False
            self._over = True
            cancels, self._cancels = self._cancels, []
        for cancel in cancels:
            cancel()
        return True
