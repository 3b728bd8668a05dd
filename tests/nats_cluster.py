"""Real nats-servers for tests: one or three of them in a temporary folder, on ports that were free a moment ago.

    with NatsCluster(tmp_path, servers=3) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)

They are supervised as in production (`NatsServer`); `kill` ends one as `kill -9` does and keeps it down until `restart`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from types import TracebackType

from jadevectordb.adapters.nats_config import Address, Credentials, NatsServerConfig, TlsFiles
from jadevectordb.adapters.nats_server import NatsServer
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.cli.local_cluster import free_ports

SECRET = "a secret of tests"
READY_S = 90.0


def server_configs(
    folder: Path, servers: int, *, secret: str = SECRET, tls: TlsFiles | None = None
) -> list[NatsServerConfig]:
    ports = free_ports(3 * servers)
    routes = tuple(Address("127.0.0.1", ports[3 * n + 1]) for n in range(servers))
    return [
        NatsServerConfig(
            name=f"n{n + 1}",
            cluster="tests",
            directory=folder / f"n{n + 1}",
            client=Address("127.0.0.1", ports[3 * n]),
            routes_listen=routes[n],
            monitoring=Address("127.0.0.1", ports[3 * n + 2]),
            routes=routes,
            credentials=Credentials(secret),
            servers=servers,
            tls=tls,
        )
        for n in range(servers)
    ]


class NatsCluster:
    def __init__(self, folder: Path, servers: int = 1, tls: TlsFiles | None = None) -> None:
        self.configs = server_configs(folder, servers, tls=tls)
        self.credentials = Credentials(SECRET)
        self.urls = [config.client_url() for config in self.configs]
        self.names = [config.name for config in self.configs]
        self.servers: dict[str, NatsServer] = {}

    def start(self) -> NatsCluster:
        try:
            for name in self.names:
                self.restart(name, wait=False)
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def wait_ready(self) -> None:
        for server in self.servers.values():
            server.wait_ready(READY_S)

    def restart(self, name: str, *, wait: bool = True) -> None:
        """Start a server that does not run."""
        assert name not in self.servers
        server = NatsServer(self.configs[self.names.index(name)], SystemClock())
        server.start()
        self.servers[name] = server
        if wait:
            server.wait_ready(READY_S)

    def kill(self, name: str) -> None:
        """As kill -9 of the server and its supervisor: it stays down."""
        server = self.servers.pop(name)
        pid = server.health().pid
        server._stopping.set()  # no new start; a planned stop would hand over first
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert server._thread is not None
        server._thread.join()

    def stop(self, name: str) -> list[str]:
        """A planned stop."""
        return self.servers.pop(name).stop()

    def close(self) -> None:
        for name in list(self.servers):
            self.kill(name)

    def __enter__(self) -> NatsCluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
