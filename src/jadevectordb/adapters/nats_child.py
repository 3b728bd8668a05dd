"""One nats-server as a child process that does not outlive its parent, and the one that a dead parent left behind.

On Linux the kernel tells the child when its parent's thread ends (PR_SET_PDEATHSIG), however that ended: it gets SIGTERM,
hands its leaderships over and goes. The thread that starts it must therefore live as long as it shall: `NatsServer`'s own.
Where the system has no such thing, and for a server that did not go, the pid file is the second line: the next start looks
whether that process is a nats-server with exactly our configuration file, and ends it before starting another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from jadevectordb.adapters.nats_config import BINARY
from jadevectordb.model.errors import ErrorCode, JadeError

_PR_SET_PDEATHSIG = 1
END_S_MAX = 10.0
_LOOK_S = 0.05
# Between fork and exec no Python of ours may run in a process with threads, so a bare interpreter sets it and becomes the server.
_BECOME = f"""
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)})
if os.getppid() != int(sys.argv[1]):
    sys.exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_child(binary: Path, config_path: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start it; what it writes before its own log file is open goes to `log`. The calling thread must outlive it."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), str(binary), "-c", str(config_path)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # an interrupt at the terminal is the parent's to handle
        )


def end_child(child: subprocess.Popen[bytes], wait_s: float = END_S_MAX) -> None:
    """Ask it to go, wait, and make it go."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        child.wait(wait_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_left_behind(pid_path: Path, config_path: Path, wait_s: float = END_S_MAX) -> int | None:
    """End the server that an earlier parent left running on this configuration, if there is one; its process id.

    Raises CONFLICT when it does not go.
    """
    pid = _read_pid(pid_path)
    if pid is None or not _is_ours(pid, config_path):
        return None
    for sign, patience in ((signal.SIGTERM, wait_s), (signal.SIGKILL, wait_s)):
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            return pid
        except PermissionError:
            break
        if _gone(pid, config_path, patience):
            return pid
    raise JadeError(
        ErrorCode.CONFLICT,
        f"a nats-server of an earlier start still runs on {config_path.parent} (process {pid}) and does not end; end it",
        details={"pid": pid, "directory": str(config_path.parent)},
    )


def _read_pid(path: Path) -> int | None:
    try:
        pid = int(path.read_text().strip())
    except (OSError, ValueError):
        return None
    return pid if pid > 1 else None


def _is_ours(pid: int, config_path: Path) -> bool:
    """A process with this id may be anybody's by now: only a nats-server with our configuration file is ours."""
    words = _command(pid)
    return len(words) >= 3 and Path(words[0]).name == BINARY and words[1:3] == ["-c", str(config_path)]


def _command(pid: int) -> list[str]:
    try:
        if sys.platform == "linux":
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if status[0] == "Z":  # ended; somebody has yet to ask how
                return []
            return [part.decode(errors="replace") for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
        shown = subprocess.run(
            ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
        binary, _, rest = shown.stdout.strip().partition(" -c ")
        return [binary, "-c", rest]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return []


def _gone(pid: int, config_path: Path, patience_s: float) -> bool:
    ticker = threading.Event()
    for _ in range(max(1, int(patience_s / _LOOK_S))):
        if not _is_ours(pid, config_path):
            return True
        ticker.wait(_LOOK_S)
    return not _is_ours(pid, config_path)
