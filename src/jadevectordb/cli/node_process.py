"""Processes that outlive the command that started them: found again by process id and start time, so that nobody else's is ever ended.

A process id alone is given to somebody else once the process is gone; together with the moment it started it names one process for ever.
A nats-server is restarted by its node and so is not written down: it is known by its command line, which names our configuration.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from jadevectordb.adapters.nats_config import BINARY, CONFIG_NAME, PID_NAME

_LOOK_S = 0.05
_PS_S_MAX = 5.0


def start(command: Sequence[str], environment: Mapping[str, str], output: Path) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C at this terminal is not meant for it. output: what it prints is added there."""
    with output.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(environment),
            start_new_session=True,
        )


def release(process: subprocess.Popen[bytes]) -> None:
    """Let it run on after this command; nobody here waits for its end."""
    process.returncode = 0


def started_at(pid: int) -> str:
    """When the process with this id started, in the system's own words; "" when there is none (an ended one counts as none)."""
    try:
        if sys.platform == "linux":
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]
        shown = _ps(pid, "stat=,lstart=")
        return "" if shown.startswith("Z") else shown.partition(" ")[2].strip()
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return ""


def runs(pid: int, started: str) -> bool:
    return pid > 0 and bool(started) and started_at(pid) == started


def signal_it(pid: int, started: str, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; whether it was there."""
    if not runs(pid, started):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int, started: str, wait_s: float) -> bool:
    """Wait for its end; whether it came."""
    ticker = threading.Event()
    for _ in range(max(1, int(wait_s / _LOOK_S))):
        if not runs(pid, started):
            return True
        ticker.wait(_LOOK_S)
    return not runs(pid, started)


def nats_server_of(data: Path) -> tuple[int, str]:
    """(process id, start) of the nats-server that the node with this data folder runs; (0, "") when there is none."""
    folder = data.absolute() / "nats"
    try:
        pid = int((folder / PID_NAME).read_text().strip())
    except (OSError, ValueError):
        return 0, ""
    started = started_at(pid)
    words = _command(pid)
    ours = len(words) >= 3 and Path(words[0]).name == BINARY and words[1:3] == ["-c", str(folder / CONFIG_NAME)]
    return (pid, started) if ours and started else (0, "")


def _command(pid: int) -> list[str]:
    try:
        if sys.platform == "linux":
            return [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
        binary, _, rest = _ps(pid, "command=").partition(" -c ")
        return [binary, "-c", rest]
    except (OSError, subprocess.TimeoutExpired):
        return []


def _ps(pid: int, columns: str) -> str:
    shown = subprocess.run(
        ["/bin/ps", "-o", columns, "-p", str(pid)], capture_output=True, text=True, timeout=_PS_S_MAX, check=False
    )
    return shown.stdout.strip()
