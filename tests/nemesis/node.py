"""One node of a cluster under test: a `jade serve` process, the nats-server that it keeps, and what can be done to both."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

READY_S = 120.0
STOP_S = 60.0
_LOOK_S = 0.05


class NodeDidNot(Exception):
    """A node did not do within its time what it must."""


class Node:
    """place: 0-based. Not thread-safe: one thread breaks and mends."""

    def __init__(self, place: int, name: str, config: Path, data: Path, prefix: list[str], rest: str) -> None:
        self.place = place
        self.name = name
        self.rest = rest
        self.data = data
        self.log_path = config.with_suffix(".log")
        self._command = [*prefix, sys.executable, "-m", "jadevectordb", "serve", "--config", str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        self._out = config.with_suffix(".out")

    def start(self) -> None:
        """Begin to start it; `wait_ready` waits."""
        assert not self.is_running
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JADEVECTORDB_")}
        with self._out.open("wb") as out, self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=out, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )

    def wait_ready(self, limit_s: float = READY_S) -> float:
        """How long it took from now on. Raises NodeDidNot."""
        began_s = time.monotonic()
        while not self.is_ready():
            if time.monotonic() - began_s > limit_s:
                raise NodeDidNot(
                    f"{self.name} was not ready within {limit_s:g} s; its log ends with:\n{self.log_end()}"
                )
            time.sleep(_LOOK_S)
        return time.monotonic() - began_s

    def is_ready(self) -> bool:
        """Raises NodeDidNot when it has ended."""
        if b"REST http" in self._out.read_bytes():
            return True
        if not self.is_running:
            raise NodeDidNot(
                f"{self.name} ended by itself with code {self.exit_code}; its log ends with:\n{self.log_end()}"
            )
        return False

    def log_end(self, size: int = 3000) -> str:
        return self.log_path.read_text("utf-8", "replace")[-size:]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    # Its processes

    def nats_pids(self) -> list[int]:
        """Of its nats-servers: one, or none for a moment after it was killed."""
        mark = str(self.data).encode() + b"/"
        return [pid for pid, command in _commands() if b"nats-server" in command[0] and any(mark in c for c in command)]

    def _own_pids(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid]

    def _pids(self, what: str) -> list[int]:
        match what:
            case "node":
                return self._own_pids()
            case "nats":
                return self.nats_pids()
            case "machine":
                return self._own_pids() + self.nats_pids()
        raise AssertionError(what)

    # What is done to it. what: "node", "nats" or "machine" (both)

    def kill(self, what: str) -> None:
        for pid in self._pids(what):
            _send(pid, signal.SIGKILL)
        if what != "nats":
            assert self._process is not None
            self._process.wait()

    def pause(self, what: str) -> list[int]:
        """What was paused, for `resume`."""
        pids = self._pids(what)
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        return pids

    def resume(self, pids: list[int]) -> None:
        for pid in pids:
            _send(pid, signal.SIGCONT)

    def stop(self) -> float:
        """As an administrator does; how long it took. Raises NodeDidNot."""
        assert self._process is not None
        began_s = time.monotonic()
        self._process.terminate()
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise NodeDidNot(
                f"{self.name} had not stopped {STOP_S:g} s after it was asked to:\n{self.log_end()}"
            ) from None
        if code not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
            raise NodeDidNot(f"{self.name} stopped with code {code}; its log ends with:\n{self.log_end()}")
        return time.monotonic() - began_s

    def end(self) -> None:
        """Whatever it is in the middle of."""
        if self._process is not None and self._process.poll() is None:
            _send(self._process.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait()
        for pid in self.nats_pids():
            _send(pid, signal.SIGCONT)
            _send(pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _commands() -> list[tuple[int, list[bytes]]]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found.append((int(name), Path("/proc", name, "cmdline").read_bytes().split(b"\0")))
    return found
