"""Real servers for tests: a `jade serve` process on loopback, on ports the system picked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_READY_S = 120.0
ADMIN_PASSWORD = "correct horse battery"


class ServerProcess:
    """url: of REST. grpc: host:port. Started and ready when made."""

    def __init__(self, data: Path, *flags: str, auth: str = "open-loopback", env: dict[str, str] | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JADEVECTORDB_")}
        environment |= env or {}
        self.log_path = data.parent / f"{data.name}.log"
        command = [
            sys.executable,
            "-m",
            "jadevectordb",
            "serve",
            "--data",
            str(data),
            "--port",
            "0",
            "--grpc-port",
            "0",
        ]
        command += ["--auth", auth, "--log-file", str(self.log_path), *flags]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        line = self._first_line()
        found = re.search(r"REST (\S+)", line)
        if found is None:
            rest = self.process.communicate(timeout=30)[0]
            raise RuntimeError(f"the server did not start: {line}{rest}")
        self.url = found[1]
        grpc = re.search(r"gRPC (\S+)", line)
        self.grpc = grpc[1] if grpc else ""

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                return self.process.stdout.readline()
        self.kill()
        raise RuntimeError(f"the server was not ready within {_READY_S} s; its log: {self.log()[-3000:]}")

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, token: str = ""
    ) -> tuple[int, Any]:
        """(status, JSON of the answer, or its text)."""
        data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode("utf-8", "replace")

    def stop(self, within_s: float = 60.0) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(within_s)
        finally:
            self._close()
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def serving(
    data: Path, *flags: str, auth: str = "open-loopback", env: dict[str, str] | None = None
) -> Iterator[ServerProcess]:
    server = ServerProcess(data, *flags, auth=auth, env=env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
