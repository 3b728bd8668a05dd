"""One server process: builds everything from settings, listens, and stops in order.

DATA/          the databases, as `jadevectordb.open` keeps them
DATA/server/   accounts, audit events, recorded searches
DATA/archive/  what retention policies took out
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import secrets
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from jadevectordb.adapters import onnx_text, otlp
from jadevectordb.adapters.file_archive import FileArchive
from jadevectordb.adapters.os_host import OsHost
from jadevectordb.adapters.reset_command import ResetCommand
from jadevectordb.adapters.sqlite_events import SqliteEvents
from jadevectordb.adapters.sqlite_queries import SqliteQueries
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.access.access import Access, AccessSettings
from jadevectordb.gateway.access.operations import check
from jadevectordb.gateway.access.resets import ResetDelivery
from jadevectordb.gateway.rest.app import Application
from jadevectordb.gateway.rest.fast_path import FastProtocol
from jadevectordb.gateway.rest.routes import all_routes
from jadevectordb.gateway.service.alerts import Alerts
from jadevectordb.gateway.service.analytics import Analytics
from jadevectordb.gateway.service.bm25 import Bm25
from jadevectordb.gateway.service.catalog import Catalog
from jadevectordb.gateway.service.embeddings import Embeddings
from jadevectordb.gateway.service.health_checks import database_check, disk_check
from jadevectordb.gateway.service.lifecycle import Lifecycle
from jadevectordb.gateway.service.logs import RecentLogs, start_log
from jadevectordb.gateway.service.rerank import Rerank
from jadevectordb.gateway.service.services import Services
from jadevectordb.gateway.service.telemetry import Telemetry, one_in
from jadevectordb.gateway.service.tracing import UNTRACED, AnyTracing, Tracing
from jadevectordb.main import open as open_store
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.settings.schema import Settings
from jadevectordb.settings.sources import Known

if TYPE_CHECKING:
    from jadevectordb.gateway.rpc.server import RpcServer

logger = logging.getLogger("jadevectordb.server")


class Server:
    """Everything open, not yet listening. `run` listens until asked to stop; `close` ends what was opened, newest first."""

    def __init__(self, known: Known, logs: RecentLogs) -> None:
        self.settings: Settings = known.settings
        self._closers: list[Callable[[], object]] = []
        self._stop_asked_s: float | None = None  # when, on the monotonic clock
        try:
            self.services = self._build(known, logs)
            self.application = Application(self.services, all_routes())
            self._closers.append(self.application.close)
            self.services.telemetry.add_routes(self.application.routes)
            self.rpc: RpcServer | None = None
            if self.settings.server.grpc_port >= 0:
                from jadevectordb.gateway.rpc.server import (
                    RpcServer,
                )  # some 20 MB that a server without it does not need

                self.rpc = RpcServer(self.services)
        except BaseException:
            self.close()
            raise

    def _build(self, known: Known, logs: RecentLogs) -> Services:
        settings, clock = known.settings, SystemClock()
        data = Path(settings.server.data)
        store = open_store(data)
        self._closers.append(store.close)
        own = data / "server"
        own.mkdir(mode=0o700, exist_ok=True)  # password hashes are in it
        metadata = SqliteStore(own / "accounts.sqlite")
        self._closers.append(metadata.close)
        events = SqliteEvents(own / "audit.sqlite")
        self._closers.append(events.close)
        access = Access(metadata, events, clock, AccessSettings.of(settings), deliver_reset=_reset_delivery(settings))
        self._closers.append(access.close)
        catalog = Catalog(store, metadata, clock, check)
        access.accounts.on_delete.append(catalog.reassign_owner)
        bm25 = Bm25(store, metadata, clock)
        analytics = Analytics(
            SqliteQueries(own / "queries.sqlite"), clock, lambda: secrets.token_hex(4),
            days_kept=settings.retention.queries_days,
        )  # fmt: skip
        self._closers.append(analytics.close)
        embeddings = Embeddings(onnx_text.embedders(settings.models.embeddings), clock)
        rerank = Rerank(metadata, onnx_text.cross_encoders(settings.models.reranker), clock)
        host = OsHost(data)
        alerts = Alerts(
            metadata, clock, lambda: secrets.token_hex(8), (disk_check(host), database_check(catalog.every))
        )  # fmt: skip
        self._closers.append(alerts.close)
        lifecycle = Lifecycle(
            catalog.every, metadata, clock, FileArchive(data / "archive"), sweep_s=settings.retention.sweep_s,
            deleted=bm25.forget_vectors,
        )  # fmt: skip
        self._closers.append(lifecycle.close)
        telemetry = Telemetry(
            version=version("jadevectordb"),
            clock=clock,
            host=host,
            databases=catalog.every,
            below=secrets.randbelow,
            slow_query_ms=settings.log.slow_query_ms or None,
            recall_one_in=one_in(settings.telemetry.recall_sample),
            logs=logs,
            tracing=self._tracing(settings),
        )
        self._closers.append(telemetry.close)
        catalog.on_drop += [analytics.forget, rerank.forget, bm25.forget, lifecycle.forget]
        access.start()
        telemetry.start()
        return Services(
            version=version("jadevectordb"), known=known, clock=clock, store=store, metadata=metadata, access=access,
            catalog=catalog, telemetry=telemetry, analytics=analytics, embeddings=embeddings, rerank=rerank, bm25=bm25,
            lifecycle=lifecycle, alerts=alerts, started_s=clock.monotonic_s(),
        )  # fmt: skip

    def _tracing(self, settings: Settings) -> AnyTracing:
        if not settings.telemetry.otlp_endpoint:
            return UNTRACED
        return Tracing(*otlp.open_tracer(settings.telemetry.otlp_endpoint, version("jadevectordb")))

    # Listening

    def run(self, ready: Callable[[Server], None]) -> None:
        """Listen until SIGTERM, SIGINT or a shutdown request; then finish running requests. ready: called once it listens.

        To be called in the main thread. Raises UNAVAILABLE when an address can't be listened on.
        """
        settings = self.settings.server
        listener = _listen(settings.host, settings.port)
        with contextlib.closing(listener):
            self.rest_port: int = listener.getsockname()[1]
            if self.rpc is not None:
                self.services.grpc_port = self.rpc.start()
            web = uvicorn.Server(self._configuration())
            self.services.shut_down = lambda: self._stop(web)
            before = {number: signal.signal(number, self._on_signal(web)) for number in (signal.SIGTERM, signal.SIGINT)}
            gc.collect()
            gc.freeze()  # what is there now stays: no need to look through it again and again
            try:
                with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                    runner.run(self._serve(web, listener, ready))
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    async def _serve(self, web: uvicorn.Server, listener: socket.socket, ready: Callable[[Server], None]) -> None:
        serving = asyncio.create_task(
            web._serve([listener])
        )  # `serve` would take over the signals and raise them again
        while not web.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            ready(self)
        await serving

    def _configuration(self) -> uvicorn.Config:
        settings, tls = self.settings.server, self.settings.tls
        return uvicorn.Config(
            self.application,
            http=FastProtocol,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            limit_concurrency=settings.connections_max,
            backlog=2048,
            ssl_certfile=tls.certificate or None,
            ssl_keyfile=tls.key or None,
            ssl_ca_certs=tls.client_ca or None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls.client_ca else ssl.CERT_NONE,
        )

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.tls.certificate else "http"
        host = self.settings.server.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.rest_port}"

    def _on_signal(self, web: uvicorn.Server) -> Callable[[int, FrameType | None], None]:
        def stop(number: int, frame: FrameType | None) -> None:
            logger.info("asked to stop (%s): finishing running requests", signal.Signals(number).name)
            self._stop(web)

        return stop

    def _stop(self, web: uvicorn.Server) -> None:
        if self._stop_asked_s is None:
            self._stop_asked_s = self.services.clock.monotonic_s()
        web.should_exit = True

    def _grace_s(self) -> float:
        """What REST has left of the time for finishing running requests, for gRPC."""
        if self._stop_asked_s is None:
            return 1.0
        return max(1.0, self.settings.server.drain_s - (self.services.clock.monotonic_s() - self._stop_asked_s))

    def close(self) -> None:
        """Idempotent."""
        rpc = getattr(self, "rpc", None)
        if rpc is not None:
            rpc.stop(self._grace_s())
        while self._closers:
            try:
                self._closers.pop()()
            except Exception:  # one part that fails to end must not keep the others open
                logger.exception("a part of the server failed to close")


def _reset_delivery(settings: Settings) -> Callable[[ResetDelivery], None] | None:
    if not settings.auth.reset_command:
        return None
    command = ResetCommand(settings.auth.reset_command)
    return lambda told: command(
        user_id=told.user_id, username=told.username, email=told.email, token=told.token, expires_ms=told.expires_ms
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            f"Can't listen on {host}:{port} ({error.strerror}): is another server running there? Choose another --port or --host.",
        ) from None
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def run(known: Known) -> None:
    """`jade serve`: log, open, listen, and end in order. The ready line goes to standard output."""
    settings = known.settings
    with start_log(settings.log.level, settings.log.format, settings.log.file) as log:
        server = Server(known, log.recent)
        try:
            server.run(_announce)
        finally:
            stuck = threading.Timer(
                2.0, os._exit, args=(0,)
            )  # a client's thread that never returns must not hold the process
            stuck.daemon = True
            server.close()
            stuck.start()


def _announce(server: Server) -> None:
    parts = [f"REST {server.url}"]
    if server.services.grpc_port:
        parts.append(f"gRPC {server.settings.server.host}:{server.services.grpc_port}")
    parts += [f"console {server.url}/console", f"data {Path(server.settings.server.data).resolve()}"]
    sys.stdout.write(f"JadeVectorDB {server.services.version} is ready: {' · '.join(parts)}\n")
    token = server.services.access.setup_token
    if token is not None:
        body = json.dumps({"token": token, "username": "...", "password": "..."})
        sys.stdout.write(f"No admin yet. Make the first one, once: POST {server.url}/v2/setup {body}\n")
    if server.settings.auth.is_open:
        sys.stdout.write("Open mode: everyone on this machine acts as an admin. For development only.\n")
    sys.stdout.flush()
