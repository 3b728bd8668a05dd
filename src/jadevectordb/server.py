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
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from jadevectordb.adapters import onnx_text, otlp
from jadevectordb.adapters.file_archive import FileArchive
from jadevectordb.adapters.os_host import OsHost
from jadevectordb.adapters.reset_command import ResetCommand
from jadevectordb.adapters.shared_page import SharedPage
from jadevectordb.adapters.sqlite_events import SqliteEvents
from jadevectordb.adapters.sqlite_queries import SqliteQueries
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.access.access import Access, AccessSettings
from jadevectordb.gateway.access.operations import check
from jadevectordb.gateway.access.resets import ResetDelivery
from jadevectordb.gateway.cluster.exposition import eventual
from jadevectordb.gateway.processes.shown import NUMBERS, Shown
from jadevectordb.gateway.rest.app import Application
from jadevectordb.gateway.rest.routes import all_routes
from jadevectordb.gateway.service.alerts import Alerts
from jadevectordb.gateway.service.analytics import Analytics
from jadevectordb.gateway.service.bm25 import Bm25
from jadevectordb.gateway.service.catalog import Catalog
from jadevectordb.gateway.service.embeddings import Embeddings
from jadevectordb.gateway.service.health_checks import database_check, disk_check
from jadevectordb.gateway.service.lifecycle import Lifecycle
from jadevectordb.gateway.service.logs import LogEntry, RecentLogs, start_log
from jadevectordb.gateway.service.rerank import Rerank
from jadevectordb.gateway.service.services import Services
from jadevectordb.gateway.service.telemetry import Telemetry, one_in
from jadevectordb.gateway.service.tracing import UNTRACED, AnyTracing, Tracing
from jadevectordb.listening import check_processes, configuration, listen, listen_first, loop_factory
from jadevectordb.main import RealWorld, open_in
from jadevectordb.prepared_structs import prepare_structs
from jadevectordb.processes import Readers
from jadevectordb.settings.schema import Settings
from jadevectordb.settings.sources import Known

if TYPE_CHECKING:
    from jadevectordb.cluster import ClusterNode
    from jadevectordb.gateway.cluster.store import ClusterStore
    from jadevectordb.gateway.embedded.store import Store
    from jadevectordb.gateway.rpc.server import RpcServer
    from jadevectordb.ports.metadata_store import MetadataStore

logger = logging.getLogger("jadevectordb.server")
_GC_OBJECTS = (
    20_000  # made and not freed since the last look for cycles: a request makes hundreds, and hardly ever a cycle
)


class Server:
    """Everything open, not yet listening. `run` listens until asked to stop; `close` ends what was opened, newest first."""

    def __init__(self, known: Known, logs: RecentLogs, add_entry: Callable[[LogEntry], None] | None = None) -> None:
        """add_entry: where log lines of the other processes go; by default only to `logs`."""
        prepare_structs()
        self.settings: Settings = known.settings
        self._logs = logs
        self._add_entry = logs.add if add_entry is None else add_entry
        self._closers: list[Callable[[], object]] = []
        self._stop_asked_s: float | None = None  # when, on the monotonic clock
        self._readers: Readers | None = None
        self._shown: Shown | None = None
        self.cluster: ClusterNode | None = None
        check_processes(known.settings)
        try:
            if self.settings.server.processes > 1:
                page = SharedPage.create(NUMBERS)
                self._closers.append(page.close)
                self._shown = Shown(page)
                self._readers = Readers(self.settings.server.processes - 1, page, self._shown)
            self.services = self._build(known)
            self.application = Application(self.services, all_routes())
            self._closers.append(self.application.close)
            if self._readers is not None:
                self._closers.append(self._readers.close)
                self._readers.watched_by(self.services.telemetry)
            self.services.telemetry.add_routes(self.application.routes)
            self.rpc: RpcServer | None = None
            if self.settings.server.grpc_port >= 0:
                # Some 20 MB that a server without it does not need
                from jadevectordb.gateway.rpc.server import RpcServer

                self.rpc = RpcServer(self.services)
            prepare_structs()  # what was imported meanwhile, before anybody calls
        except BaseException:
            self.close()
            raise

    def _build(self, known: Known) -> Services:
        settings, clock, shown = known.settings, SystemClock(), self._shown
        data = Path(settings.server.data)
        own = data / "server"
        store: Store | ClusterStore
        metadata: MetadataStore
        if settings.cluster.enabled:
            # Most of what it needs a single node's server can do without
            from jadevectordb.cluster import ClusterNode

            self.cluster = ClusterNode(settings, clock)
            self._closers.append(self.cluster.close)
            store, metadata = self.cluster.store, self.cluster.metadata
            own.mkdir(mode=0o700, exist_ok=True)
        else:
            store = open_in(data, RealWorld(progress_of=None if shown is None else shown.progress_of))
            self._closers.append(store.close)
            own.mkdir(mode=0o700, exist_ok=True)  # password hashes are in it
            metadata = SqliteStore(own / "accounts.sqlite")
            self._closers.append(metadata.close)
        events = SqliteEvents(own / "audit.sqlite")
        self._closers.append(events.close)
        access = Access(metadata, events, clock, AccessSettings.of(settings), deliver_reset=_reset_delivery(settings))
        self._closers.append(access.close)
        catalog = Catalog(store, metadata, clock, check)
        access.accounts.on_delete.append(catalog.reassign_owner)
        if shown is not None:
            shown.every, catalog.on_publish = catalog.every, shown.publish
            access.gatekeeper.on_forget = shown.access_changed
        bm25 = Bm25(store, metadata, clock)
        analytics = Analytics(
            SqliteQueries(own / "queries.sqlite"), clock, lambda: secrets.token_hex(4),
            days_kept=settings.retention.queries_days,
        )  # fmt: skip
        self._closers.append(analytics.close)
        embeddings = Embeddings(onnx_text.embedders(settings.models.embeddings), clock)
        rerank = Rerank(
            metadata, onnx_text.cross_encoders(settings.models.reranker), clock, is_shared=self.cluster is not None
        )  # fmt: skip
        host = OsHost(data)
        alerts = Alerts(
            metadata, clock, lambda: secrets.token_hex(8), (database_check(catalog.every),), own_checks=(disk_check(host),),
            node="" if self.cluster is None else self.cluster.node,
            is_speaker=(lambda: True) if self.cluster is None else self.cluster.is_master,
        )  # fmt: skip
        self._closers.append(alerts.close)
        lifecycle = Lifecycle(
            catalog.every, metadata, clock, FileArchive(data / "archive"), sweep_s=settings.retention.sweep_s,
            deleted=bm25.forget_vectors, clocks=None if self.cluster is None else self.cluster.clocks,
            is_enforcer=(lambda: True) if self.cluster is None else self.cluster.is_master,
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
            logs=self._logs,
            tracing=self._tracing(settings),
        )
        self._closers.append(telemetry.close)
        catalog.on_drop += [analytics.forget, rerank.forget, bm25.forget, lifecycle.forget]
        if self.cluster is not None:
            self.cluster.watch_credentials(access.gatekeeper.forget)
            self.cluster.measured_by(telemetry.performance, telemetry.system_usage)
            telemetry.watch_families(partial(eventual, self.cluster.store, self.cluster.hosting.all))
        access.start()
        telemetry.start()
        return Services(
            version=version("jadevectordb"), known=known, clock=clock, store=store, metadata=metadata, access=access,
            catalog=catalog, telemetry=telemetry, analytics=analytics, embeddings=embeddings, rerank=rerank, bm25=bm25,
            lifecycle=lifecycle, alerts=alerts, started_s=clock.monotonic_s(),
            cluster_view=None if self.cluster is None else self.cluster.view,
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
        listener = (listen if self._readers is None else listen_first)(settings.host, settings.port)
        with contextlib.closing(listener):
            self.rest_port: int = listener.getsockname()[1]
            self.services.rest_port = self.rest_port
            if self.rpc is not None:
                self.services.grpc_port = self.rpc.start()
            if self.cluster is not None:
                self.cluster.announce(rest=self.url, grpc_port=self.services.grpc_port)
            web = uvicorn.Server(configuration(self.settings, self.application))
            self.services.shut_down = lambda: self._stop(web)
            before = {number: signal.signal(number, self._on_signal(web)) for number in (signal.SIGTERM, signal.SIGINT)}
            gc.collect()
            gc.freeze()  # what is there now stays: no need to look through it again and again
            gc.set_threshold(_GC_OBJECTS, 20, 20)
            try:
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    runner.run(self._serve(web, listener, ready))
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    async def _serve(self, web: uvicorn.Server, listener: socket.socket, ready: Callable[[Server], None]) -> None:
        async with contextlib.nullcontext() if self.cluster is None else self.cluster.in_gateway():
            await self._serve_clients(web, listener, ready)

    async def _serve_clients(
        self, web: uvicorn.Server, listener: socket.socket, ready: Callable[[Server], None]
    ) -> None:
        # `serve` would take over the signals and raise them again
        serving = asyncio.create_task(web._serve([listener]))
        while not web.started and not serving.done():
            await asyncio.sleep(0.005)
        if self._readers is not None and not serving.done():
            starting = asyncio.create_task(self._readers.start(self.application, self.rest_port, self._add_entry))
            await asyncio.wait({starting, serving}, return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()  # asked to stop before they were ready
        if not serving.done():
            ready(self)
        if self._readers is not None:
            await _asked_to_stop(web, serving)
            await self._readers.stop(self.settings.server.drain_s)  # while this process drains too
        await serving

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


async def _asked_to_stop(web: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """uvicorn itself looks for it ten times a second."""
    while not web.should_exit and not serving.done():
        await asyncio.sleep(0.1)


def _reset_delivery(settings: Settings) -> Callable[[ResetDelivery], None] | None:
    if not settings.auth.reset_command:
        return None
    command = ResetCommand(settings.auth.reset_command)
    return lambda told: command(
        user_id=told.user_id, username=told.username, email=told.email, token=told.token, expires_ms=told.expires_ms
    )


def run(known: Known) -> None:
    """`jade serve`: log, open, listen, and end in order. The ready line goes to standard output."""
    settings = known.settings
    with start_log(settings.log.level, settings.log.format, settings.log.file) as log:
        server = Server(known, log.recent, log.take)
        try:
            server.run(_announce)
        finally:
            # A client's thread that never returns must not hold the process
            stuck = threading.Timer(2.0, os._exit, args=(0,))
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
