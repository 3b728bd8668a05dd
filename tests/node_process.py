"""A node that answers, in a process of its own, so that it can be killed and stopped: `python -m tests.node_process [PORT]`.

It prints its address. It answers Ping, counts everything as its process id, never answers a Count of database "hang",
and gives zeros for what is read of a snapshot.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.ports.node_calls import Count, Counted, Ping, Pong, SnapshotRead


class Plain:
    def answer(self, call: Any, reply: Any) -> None:
        if isinstance(call, Ping):
            reply(Pong(node="process", incarnation=str(os.getpid()), map_version=0), None)
        elif isinstance(call, SnapshotRead):
            reply(bytes(call.length), None)
        elif isinstance(call, Count) and call.asked.database != "hang":
            reply(Counted(count=os.getpid()), None)


class NodeProcess:
    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.node_process", str(port)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address, "the node did not start"
        self.pid = self._process.pid

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # it stops a moment after the signal

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None and self._process.stdin is not None
        self._process.stdout.close()
        self._process.stdin.close()


@contextmanager
def node_process(port: int = 0) -> Iterator[NodeProcess]:
    process = NodeProcess(port)
    try:
        yield process
    finally:
        process.kill()


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = FramedServer("127.0.0.1", port, Plain(), NodeIdentity("process", "c1", "secret"))
    print(server.address, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends with who started it
    threading.Event().wait()


if __name__ == "__main__":
    main()
