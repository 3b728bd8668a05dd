"""Supervision of one nats-server: configured, started, watched, started again when it dies, and stopped so that nobody waits.

    start()       ends what a dead parent left behind, checks ports, starts the child, checks what really runs
    wait_ready()  the servers have a leader and enough of them are at hand to decide anything
    dies          started again, at once at first, later with growing pauses; `health` says why and how often
    stop()        leaderships handed over, then SIGTERM: writers elsewhere wait about 30 ms

A thread of its own starts the child and lives as long as it: the child is tied to that thread's life (`nats_child`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from jadevectordb.adapters.log_copies import LogCopies
from jadevectordb.adapters.nats_child import END_S_MAX, end_child, end_left_behind, start_child
from jadevectordb.adapters.nats_config import VERSION_MIN, Address, NatsServerConfig, find_binary
from jadevectordb.adapters.nats_handover import hand_over
from jadevectordb.adapters.nats_monitor import ServerFacts, check_facts, meta_group, server_facts
from jadevectordb.adapters.os_disk import disk_error, make_directory
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import LOG_REPLICAS, NATS_PAYLOAD_BYTES_MAX, NATS_RESTART_S_MAX, NATS_RESTART_S_MIN
from jadevectordb.ports.clock import Clock

_LOOK_S = 0.05
_READY_LOOK_S = 0.1
_START_S_MAX = 120.0  # a large store is looked through before the server listens
_LIVED_LONG_S = 60.0  # dying after so long is not counted with the deaths before
_DEATHS_FAILING = 4  # in a row, each soon after its start
_WATCH_S = 3.0
_COPIES_LOOK_S = 0.5
_UNFIT_MAX = 2  # looks at a server without JetStream before it is started anew
_SILENT_MAX = 3  # looks without an answer, of up to five seconds each, before that is told
_LOG_TAIL_BYTES = 16 << 10


class ServerState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    DOWN = "down"  # died or could not be started; tried again soon
    FAILING = "failing"  # the same, again and again: a person must look
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """reason: what stands against `ready`, for people; "" when nothing does. since_s: the clock's, of the last change of state."""

    state: ServerState
    ready: bool
    reason: str
    since_s: float
    starts: int
    deaths: int
    pid: int | None
    version: str
    leader: str  # of the servers' own group, "" = none known


class NatsServer:
    """One supervised server. Methods may be called from any thread."""

    def __init__(
        self,
        config: NatsServerConfig,
        clock: Clock,
        *,
        binary: Path | None = None,
        on_change: Callable[[ServerState, str], None] | None = None,
    ) -> None:
        """on_change: told each new state with its reason, from the supervising thread; must not block or raise."""
        self.config = config
        self.copies = LogCopies(config.monitoring, holds_all=config.servers <= LOG_REPLICAS)
        self._clock = clock
        self._binary = binary
        self._on_change = on_change
        self._lock = threading.Lock()  # guards the fields below
        self._state = ServerState.STOPPED
        self._reason = "it was not started"
        self._since_s = clock.monotonic_s()
        self._child: subprocess.Popen[bytes] | None = None
        self._facts: ServerFacts | None = None
        self._silent_looks = 0  # in a row, at a server that runs
        self._starts = 0
        self._deaths = 0
        self._stopping = threading.Event()
        self._first: JadeError | None = None
        self._began = threading.Event()  # the first start succeeded or failed
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the server and return when it runs and is fit; it may still wait for the others (`wait_ready`).

        Raises NOT_INSTALLED (no nats-server, too old), CONFLICT (a port is taken, it does not sync), UNAVAILABLE (it
        ended at once; its own words), DISK_FULL, READ_ONLY, IO_ERROR.
        """
        assert self._thread is None, "a supervisor is started once"
        self._binary = find_binary(self._binary)
        self._thread = threading.Thread(target=self._supervise, name=f"jade-nats-{self.config.name}", daemon=True)
        self._thread.start()
        self._began.wait()
        if self._first is not None:
            self._thread.join()
            raise JadeError(self._first.code, self._first.message, details=self._first.details)

    def wait_ready(self, deadline_s: float) -> None:
        """Raises UNAVAILABLE with the reason when it is not ready in time."""
        until = self._clock.monotonic_s() + deadline_s
        while True:
            health = self.health()
            if health.ready:
                return
            if self._clock.monotonic_s() >= until or self._stopping.wait(_READY_LOOK_S):
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"the nats-server {self.config.name!r} was not ready within {deadline_s:g} s: {health.reason}",
                    details={"server": self.config.name, "state": str(health.state), "reason": health.reason},
                )

    @property
    def trouble(self) -> str:
        """Why it does not run or is of no use, or what of the log it lacks; "" when all is well. Asks nobody."""
        with self._lock:
            if self._state is not ServerState.RUNNING:
                return f"{self._state}: {self._reason}"
            if self._silent_looks >= _SILENT_MAX and self._child is not None:
                return (
                    f"it runs (process {self._child.pid}) but has not answered {self._silent_looks} times in a row, as one that is "
                    "paused or waits for its disk: until it does, the log is kept by the others alone"
                )
        return self.copies.trouble

    def health(self) -> ServerHealth:
        """What it is and what it says at this moment; asks the server, so it may take up to two seconds."""
        with self._lock:
            state, reason, child, facts = self._state, self._reason, self._child, self._facts
            since_s, starts, deaths = self._since_s, self._starts, self._deaths
        ready, leader = False, ""
        if state is ServerState.RUNNING:
            ready, leader, reason = self._ask_ready()
        pid = child.pid if child is not None else None
        version = facts.version if facts is not None else ""
        return ServerHealth(state, ready, reason, since_s, starts, deaths, pid, version, leader)

    def _ask_ready(self) -> tuple[bool, str, str]:
        try:
            group = meta_group(self.config.monitoring)
        except (OSError, ValueError) as error:
            return False, "", f"it does not answer ({error})"
        if group.is_ready(self.config.name, self.config.servers):
            return True, group.leader, ""
        return False, group.leader, f"it waits for the others: {self.config.servers} servers make the cluster"

    def stop(self) -> list[str]:
        """Hand over what it leads and end it; what was handed over. Again is fine."""
        if self._thread is None or self._stopping.is_set():
            return []
        with self._lock:
            running = self._state is ServerState.RUNNING
        # Without enough of the others nobody could take over, and asking would only take its time
        handed = hand_over(self.config) if running and self.config.servers > 1 and self._ask_ready()[0] else []
        self._stopping.set()
        with self._lock:
            child = self._child
        if child is not None:
            end_child(child)
        self._thread.join(END_S_MAX)
        return handed

    # --- the supervising thread ---------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        deaths_in_a_row = 0
        while not self._stopping.is_set():
            began_s = self._clock.monotonic_s()
            try:
                child = self._begin()
                self._began.set()
                reason = self._watch(child)
            except JadeError as error:
                reason = error.message
                if not self._began.is_set():
                    self._first = error
                    self._set(ServerState.STOPPED, reason)
                    self._began.set()
                    return
            if self._stopping.is_set():
                break
            if self._clock.monotonic_s() - began_s >= _LIVED_LONG_S:
                deaths_in_a_row = 0
            deaths_in_a_row += 1
            with self._lock:
                self._deaths += 1
                self._child = None
            failing = deaths_in_a_row >= _DEATHS_FAILING
            self._set(
                ServerState.FAILING if failing else ServerState.DOWN,
                f"{reason} ({deaths_in_a_row} times in a row; see {self.config.log_path})" if failing else reason,
            )
            self._stopping.wait(min(NATS_RESTART_S_MIN * 2 ** (deaths_in_a_row - 1), NATS_RESTART_S_MAX))
        with self._lock:
            self._child = None
        self._set(ServerState.STOPPED, "it was stopped")

    def _watch(self, child: subprocess.Popen[bytes]) -> str:
        """Return when it has ended, and why. One that gave up JetStream (a disk error) is ended: only a new start brings it back."""
        unfit = 0
        while unfit < _UNFIT_MAX:
            if self._has_ended(child, _WATCH_S):
                return f"it ended with {_how(child.returncode)}{self._last_words()}"
            has_jetstream = self._has_jetstream()
            unfit = unfit + 1 if has_jetstream is False else 0
            with self._lock:
                self._silent_looks = self._silent_looks + 1 if has_jetstream is None else 0
        end_child(child)
        return f"it had switched JetStream off, as it does when its disk is full or fails{self._last_words()}"

    def _has_ended(self, child: subprocess.Popen[bytes], within_s: float) -> bool:
        """Waits for so long; looks at its copies meanwhile, as long as they are not whole."""
        until_s = self._clock.monotonic_s() + within_s
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            try:
                child.wait(left_s if self.copies.is_whole else min(left_s, _COPIES_LOOK_S))
                return True
            except subprocess.TimeoutExpired:
                if not self.copies.is_whole:
                    self.copies.look()
        return False

    def _has_jetstream(self) -> bool | None:
        """None: it does not answer. Too busy for it, or paused, it has given nothing up, and what it holds is whole."""
        try:
            return server_facts(self.config.monitoring).sync_always is not None
        except (OSError, ValueError):
            return None

    def _begin(self) -> subprocess.Popen[bytes]:
        """A running server, checked. Raises JadeError; then no child of ours runs."""
        if self._starts == 0:
            self._set(ServerState.STARTING, "")
        config = self.config
        self._write_config()
        end_left_behind(config.pid_path, config.config_path)
        self._refuse_taken_ports()
        assert self._binary is not None
        try:
            child = start_child(self._binary, config.config_path, config.log_path)
        except OSError as error:
            raise JadeError(ErrorCode.IO_ERROR, f"could not start {self._binary} ({error})") from error
        with self._lock:
            self._child = child
            self._silent_looks = 0
            self._starts += 1
        try:
            facts = self._await_facts(child)
            check_facts(facts, version_min=VERSION_MIN, payload_min=NATS_PAYLOAD_BYTES_MAX)
        except BaseException:
            end_child(child)
            with self._lock:
                self._child = None
            raise
        with self._lock:
            self._facts = facts
        self.copies.begin_anew()
        self._set(ServerState.RUNNING, "")
        return child

    def _write_config(self) -> None:
        path = self.config.config_path
        try:
            make_directory(path.parent)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it holds passwords
            with os.fdopen(fd, "w") as file:
                file.write(self.config.render())
        except OSError as error:
            raise disk_error(error, "write the nats-server's configuration", path) from error

    def _refuse_taken_ports(self) -> None:
        used = [("clients", self.config.client), ("monitoring", self.config.monitoring)]
        if self.config.servers > 1:
            used.append(("other servers", self.config.routes_listen))
        for purpose, address in used:
            _refuse_if_taken(purpose, address)

    def _await_facts(self, child: subprocess.Popen[bytes]) -> ServerFacts:
        """What the server says when it takes clients."""
        until = self._clock.monotonic_s() + _START_S_MAX
        while self._clock.monotonic_s() < until:
            if child.poll() is not None:
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"the nats-server {self.config.name!r} ended at once with {_how(child.returncode)}{self._last_words()}",
                    details={"log": str(self.config.log_path)},
                )
            try:
                facts = server_facts(self.config.monitoring)
                if facts.name == self.config.name and facts.sync_always is not None and _listens(self.config.client):
                    return facts
            except (OSError, ValueError):
                pass
            if self._stopping.wait(_LOOK_S):
                break
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            f"the nats-server {self.config.name!r} did not come up within {_START_S_MAX:g} s{self._last_words()}",
            details={"log": str(self.config.log_path)},
        )

    def _last_words(self) -> str:
        """The last error in its log."""
        try:
            with self.config.log_path.open("rb") as file:
                file.seek(max(0, self.config.log_path.stat().st_size - _LOG_TAIL_BYTES))
                lines = deque(file.read().decode(errors="replace").splitlines(), maxlen=200)
        except OSError:
            return ""
        for line in reversed(lines):
            for mark in ("[FTL] ", "nats-server: ", "[ERR] "):
                if mark in line:
                    return f": {line.partition(mark)[2].strip()}"
        return ""

    def _set(self, state: ServerState, reason: str) -> None:
        with self._lock:
            self._state, self._reason, self._since_s = state, reason, self._clock.monotonic_s()
        if self._on_change is not None:
            self._on_change(state, reason)


def _how(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"status {returncode}"


def _listens(address: Address) -> bool:
    try:
        with socket.create_connection((address.host, address.port), timeout=1.0):
            return True
    except OSError:
        return False


def _refuse_if_taken(purpose: str, address: Address) -> None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise JadeError(
                ErrorCode.CONFLICT,
                f"the nats-server cannot listen for {purpose} at {address} ({error.strerror}); another program may use the "
                "port: end it, or choose another port",
                details={"address": str(address), "purpose": purpose, "errno": error.errno},
            ) from error
