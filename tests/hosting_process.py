"""A node with replicas in a process of its own, so that it can be killed: `python -m tests.hosting_process NAME FOLDER BUCKET URL PEERS`.

It prints its address, and runs until its standard input ends.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from jadevectordb.adapters.nats_config import Credentials
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from tests.hosting_world import Nodes
from tests.nats_cluster import SECRET


class HostingProcess:
    def __init__(self, nodes: Nodes, name: str, bucket: str, url: str) -> None:
        arguments = [name, str(nodes.folder), bucket, url, json.dumps(nodes.addresses)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hosting_process", *arguments],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address, "the process has ended"
        nodes.addresses[name] = self.address

    def kill(self) -> None:
        """As kill -9."""
        self._process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._end()

    def _end(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def main() -> None:
    name, folder, bucket, url, peers = sys.argv[1:]
    connection = NatsConnection([url], SystemClock(), credentials=Credentials(SECRET))
    nodes = Nodes(connection, Path(folder), bucket)
    nodes.addresses.update(json.loads(peers))
    node = nodes.start(name)
    print(node.server.address, flush=True)
    sys.stdin.read()
    nodes.close()
    connection.close()


if __name__ == "__main__":
    main()
