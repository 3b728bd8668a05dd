"""The compute port in a child process: heavy work at low priority, outside this process's interpreter lock.

The child is a plain Python, so it never imports the caller's main module. It is started at the first task and kept while
tasks come; some seconds after the last it is ended, as an idle interpreter with its libraries takes 100 MB. It also ends with
its standard input, and watches its parent, so that it does not outlive a killed one.

An unhurried task runs on one core and, on Linux, only when nothing else wants that core: a merely nice process still gets whole
time slices of 4 ms, which a search on the same core then waits for. A process can't leave that class without special
rights, so a hurried task after an unhurried one gets a new child.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import msgspec

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError

_LENGTH = struct.Struct("<Q")
_NICENESS = 10
_WATCH_S = 0.5
_IDLE_S = 10.0
_PR_SET_PDEATHSIG = 1
_SERVE = "import sys; from jadevectordb.adapters.child_process import serve; serve(int(sys.argv[1]))"


class _Task(msgspec.Struct, frozen=True):
    task: str
    payload: bytes
    hurried: bool


class _Result(msgspec.Struct, frozen=True):
    value: bytes = b""
    code: str = ""
    message: str = ""
    details: dict[str, str] = {}


class ChildProcess:
    """One child, one task at a time. `run` is called from one thread, `close` from any. idle_s: after so long without a task it goes."""

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._idle: threading.Timer | None = None  # runs while the child waits for a task
        self._lock = threading.Lock()  # guards the fields below
        self._child: subprocess.Popen[bytes] | None = None
        self._running = False
        self._interrupted = False
        self._closed = False
        self._hurried = True  # False once the child has been given an unhurried task

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        if hurried and not self._hurried:
            self._discard()
        child = self._begin()
        self._hurried = hurried
        try:
            answer = _ask(child, msgspec.msgpack.encode(_Task(task, payload, hurried)))
        finally:
            closed, interrupted = self._end()
        if interrupted or closed or answer is None:
            self._discard()
        if answer is None:
            if interrupted:
                raise JadeError(ErrorCode.CANCELLED, "The task was interrupted: its result is wanted no more.")
            if closed:
                raise JadeError(
                    ErrorCode.CLOSED, "The database was closed while an index was built; it is built at the next open."
                )
            raise JadeError(
                ErrorCode.IO_ERROR,
                "The background process that builds indexes ended unexpectedly (out of memory?); the build is tried again.",
            )
        result = msgspec.msgpack.decode(answer, type=_Result)
        if result.code:
            raise JadeError(ErrorCode(result.code), result.message, details=result.details)
        return result.value

    def _begin(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "The database is closed.")
            self._cancel_idle()
            if self._child is None:
                self._child = _start()
            self._running, self._interrupted = True, False
            return self._child

    def _end(self) -> tuple[bool, bool]:
        """Whether the child was closed, and whether the task was interrupted."""
        with self._lock:
            self._running = False
            if not self._closed:
                self._idle = idle = threading.Timer(self._idle_s, self._retire)
                idle.daemon, idle.name = True, "jade-build-idle"
                idle.start()
            return self._closed, self._interrupted

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _retire(self) -> None:
        """End the child unless it was given a task, or was ended, since this thread's wait began."""
        with self._lock:
            if self._idle is not threading.current_thread():
                return
            self._idle = None
            child, self._child = self._child, None
        _end(child)

    def interrupt(self) -> None:
        with self._lock:
            if self._running and self._child is not None:
                self._interrupted = True
                self._child.kill()  # the waiting `run` sees the end of the stream

    def rest(self) -> None:
        with self._lock:
            if self._running:
                return
            self._cancel_idle()
            child, self._child = self._child, None
        _end(child)
        _return_free_memory()

    def _discard(self) -> None:
        with self._lock:
            self._cancel_idle()
            child, self._child = self._child, None
        _end(child)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            child, running = self._child, self._running
        if child is not None and running:
            child.kill()  # the waiting `run` sees the end of the stream and cleans up
        else:
            self._discard()


def _return_free_memory() -> None:
    """Give pages that the C library holds free back to the system: after a load there are tens of megabytes of them."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)


def _end(child: subprocess.Popen[bytes] | None) -> None:
    if child is None:
        return
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        assert stream is not None
        with contextlib.suppress(OSError):  # what was still buffered for a dead child
            stream.close()


def _start() -> subprocess.Popen[bytes]:
    package_root = str(Path(__file__).parents[2])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        # -P: a file in the current folder must not shadow a library module
        [sys.executable, "-P", "-c", _SERVE, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=search_path),
        start_new_session=True,  # an interrupt at the terminal is the parent's to handle
    )


def _ask(child: subprocess.Popen[bytes], message: bytes) -> bytes | None:
    assert child.stdin is not None and child.stdout is not None
    try:
        _send(child.stdin, message)
        return _receive(child.stdout)
    except OSError:
        return None


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(_LENGTH.pack(len(message)) + message)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    message = stream.read(length)
    return message if len(message) == length else None


def _perform(request: bytes) -> _Result:
    wanted = msgspec.msgpack.decode(request, type=_Task)
    if not wanted.hurried:
        _step_aside()
    module, _, function = wanted.task.partition(":")
    try:
        return _Result(value=getattr(importlib.import_module(module), function)(wanted.payload))
    except JadeError as error:
        details = {key: str(value) for key, value in error.details.items()}
        return _Result(code=error.code, message=error.message, details=details)
    except OSError as error:
        told = disk_error(error, "build an index", Path(error.filename or "."))
        return _Result(code=told.code, message=told.message, details={"path": str(error.filename)})
    except MemoryError:
        return _Result(code=ErrorCode.IO_ERROR, message="Building an index needs more memory than there is.")


def _step_aside() -> None:
    """Run only where and when nothing else wants to. Where the system has no such class, the niceness has to do."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            for thread in os.listdir("/proc/self/task"):
                os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
                os.sched_setaffinity(int(thread), {max(os.sched_getaffinity(0))})


def _end_with_parent(parent: int) -> None:
    """Linux kills this process at once with the parent's thread that started it; elsewhere looking now and then has to do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this process got so far; a task may be in the pipe all the same
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


def serve(parent: int) -> None:
    """The child's side: perform tasks from standard input until it ends. parent: the process that started this one."""
    os.nice(_NICENESS)
    _end_with_parent(parent)
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get into the answers
    with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
        while (request := _receive(stdin)) is not None:
            _send(stdout, msgspec.msgpack.encode(_perform(request)))
