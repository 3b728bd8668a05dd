"""Every setting of a server: name, type, default, and what it means. Names in files: `[section] name = value`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from jadevectordb.settings.cluster import ClusterSettings

Port = Annotated[int, Meta(ge=0, le=65535)]
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"  # address to listen on
    port: Port = 8080  # REST; 0 = any free one
    grpc_port: int = 9080  # gRPC; 0 = any free one, -1 = none
    data: str = "./jade-data"  # folder of the databases
    processes: Annotated[int, Meta(ge=1, le=64)] = 1  # one writes, all answer searches; more than 1: Linux
    threads: Annotated[int, Meta(ge=1, le=256)] = 8  # requests that may wait for disk or run long at once
    body_bytes_max: Annotated[int, Meta(ge=1024)] = 256 << 20  # one request body
    request_timeout_s: Annotated[float, Meta(gt=0)] = 60.0  # for a client to send a request
    keep_alive_s: Annotated[int, Meta(ge=1)] = 75  # an idle connection is closed after this
    connections_max: Annotated[int, Meta(ge=1)] = 10_000
    drain_s: Annotated[float, Meta(gt=0, le=60)] = 8.0  # for requests in flight when stopping
    inline_search_us: Annotated[float, Meta(ge=0)] = 1000.0  # a search predicted to be cheaper runs on the event loop


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: str = "required"  # required | open-loopback
    registration: str = "auto"  # auto (only on loopback) | on | off
    session_hours: Annotated[float, Meta(gt=0)] = 24.0
    admin_password: str = ""  # makes the account `admin` once, when there are no accounts
    reset_command: str = ""  # a program that delivers password resets: it gets a JSON object on standard input
    trusted_proxies: list[str] = []  # addresses whose X-Forwarded-For is believed
    metrics_allow: list[str] = []  # addresses that may read /metrics without a credential

    @property
    def is_open(self) -> bool:
        return self.mode == "open-loopback"


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    requests_per_s: Annotated[float, Meta(ge=0)] = 0.0  # for each principal; 0 = no limit
    burst: Annotated[int, Meta(ge=1)] = 1000
    login_failures_max: Annotated[int, Meta(ge=1)] = 10  # for an account or address, within the window
    login_window_s: Annotated[float, Meta(gt=0)] = 300.0
    registrations_per_hour: Annotated[int, Meta(ge=1)] = 100  # from one address


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: str = ""  # PEM file; turns TLS on for REST and gRPC
    key: str = ""
    client_ca: str = ""  # PEM file; clients must show a certificate it signed (mTLS)


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: str = "info"  # debug | info | warning | error
    format: str = "auto"  # auto (readable on a terminal, else JSON) | json | text
    file: str = ""  # empty = standard error
    slow_query_ms: Annotated[float, Meta(ge=0)] = 100.0


class CorsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    origins: list[str] = []  # web origins that may call from a browser


class TelemetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    otlp_endpoint: str = ""  # OpenTelemetry collector (OTLP over HTTP); empty = no traces
    recall_sample: Annotated[float, Meta(ge=0, le=1)] = 0.001  # share of searches repeated exactly to measure recall


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    embeddings: str = ""  # folder with model.onnx and tokenizer.json
    reranker: str = ""  # folder with model.onnx and tokenizer.json of a cross-encoder


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    audit_days: Annotated[int, Meta(ge=1)] = 365
    queries_days: Annotated[int, Meta(ge=1)] = 30
    sweep_s: Annotated[float, Meta(gt=0)] = 60.0  # how often expired vectors are looked for


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()
    cors: CorsSettings = CorsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    models: ModelSettings = ModelSettings()
    retention: RetentionSettings = RetentionSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def on_loopback(self) -> bool:
        return self.server.host in _LOOPBACK


SECRETS = frozenset({"auth.admin_password", "cluster.secret", "cluster.nats_urls"})
CHOICES = {
    "auth.mode": ("required", "open-loopback"),
    "auth.registration": ("auto", "on", "off"),
    "log.level": ("debug", "info", "warning", "error"),
    "log.format": ("auto", "json", "text"),
}
